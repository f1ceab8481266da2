"""How a published checkpoint lays out its transformer: what `config.json` says and which tensor is which of ours.

Names of blocks are the same there and here. What differs: every modality has its own token embedding, modality
embedding and head there, which are rows of one matrix here; positions are stored tables there and computed here; the
decoder has token embeddings that nothing reads; and a norm without a bias still stores one, of zeros.
"""

__all__ = ["Entry", "UNUSED", "ZERO", "arguments_of", "config_of", "entries", "position_table"]

import math

from collections.abc import Iterator, Mapping
from typing import NamedTuple

import torch

from torch import Tensor, nn

from aion.nn.embedding import sine_cosine
from aion.observations import near_miss
from aion.official.names import PUBLISHED, name_of
from aion.transformer import Transformer

CATALOG = "legacysurvey_catalog"
LIST_LENGTH = 512  # rows of the stored position table of the catalogue, of which 50 can be used
UNUSED, ZERO = "unused", "zero"  # in place of a source: nothing of ours, and a bias that is not there

# What holds for a key that config.json does not have; None where it must have it.
DEFAULTS: dict[str, object] = {
    "act_layer": None,
    "decoder_causal_mask": False,
    "decoder_depth": 12,
    "decoder_sep_mask": True,
    "dim": 768,
    "domains_in": None,
    "domains_out": None,
    "encoder_depth": 12,
    "gated_mlp": False,
    "mlp_bias": True,
    "mlp_ratio": 4.0,
    "norm_bias": None,
    "num_heads": 12,
    "num_register_tokens": 0,
    "proj_bias": True,
    "qk_norm": False,
    "qkv_bias": True,
    "share_modality_embeddings": True,
}
ONLY: dict[str, object] = {  # what `aion.transformer.Transformer` is
    "act_layer": "SiLU",
    "decoder_causal_mask": False,
    "gated_mlp": True,
    "mlp_bias": False,
    "num_register_tokens": 0,
    "proj_bias": False,
    "qk_norm": True,
    "qkv_bias": False,
}
TRAINING = {"drop_path_rate_decoder", "drop_path_rate_encoder", "shared_drop_path", "use_act_checkpoint"}


class Entry(NamedTuple):
    """Holds one tensor of a published file and where it is here.

    Arguments:
        key: name in the file.
        shape: shape in the file.
        source: name of our parameter, or `UNUSED` or `ZERO`.
        rows: rows of our parameter.
        alias: the same tensor by another name, under which alone a file may have it.
    """

    key: str
    shape: tuple[int, ...]
    source: str
    rows: slice = slice(None)
    alias: str = ""


def arguments_of(config: Mapping[str, object]) -> dict[str, object]:
    """Turns a published `config.json` into the keyword arguments of `aion.transformer.Transformer`.

    Raises:
        ValueError: for a key that is missing or unknown (with the near misses), a value of the wrong kind, an unknown
            modality, or a kind of transformer that ours is not.
    """
    if unknown := sorted(set(config) - set(DEFAULTS) - TRAINING):
        msg = f"unknown key {unknown[0]!r}; {near_miss(unknown[0], {*DEFAULTS, *TRAINING})}"
        raise ValueError(msg)
    if missing := sorted(key for key, value in DEFAULTS.items() if value is None and key not in config):
        msg = f"lacks {', '.join(missing)}"
        raise ValueError(msg)
    values = {key: config.get(key, default) for key, default in DEFAULTS.items()}
    for key, wanted in ONLY.items():
        if values[key] != wanted:
            given = "" if key in config else " (the default of a key that is absent)"
            msg = f"{key} is {values[key]!r}{given}: this transformer has {wanted!r} only"
            raise ValueError(msg)
    for key in ("decoder_depth", "dim", "encoder_depth", "num_heads"):
        _check(key, values[key], isinstance(values[key], int) and values[key] > 0, "a whole positive number")
    dim, heads, ratio = (values[key] for key in ("dim", "num_heads", "mlp_ratio"))
    _check("dim", dim, dim % 4 == 0, "a multiple of 4")
    _check("num_heads", heads, dim % heads == 0, f"a divisor of dim, {dim}")
    _check("mlp_ratio", ratio, isinstance(ratio, int | float) and 0 < ratio < math.inf, "a positive number")
    for key in ("decoder_sep_mask", "norm_bias", "share_modality_embeddings"):
        _check(key, values[key], isinstance(values[key], bool), "true or false")
    read, asked = (_names(key, values[key]) for key in ("domains_in", "domains_out"))
    return {
        "sizes": {name: PUBLISHED[name].vocabulary for name in sorted({*read, *asked})},
        "dim": values["dim"],
        "heads": values["num_heads"],
        "encoder_depth": values["encoder_depth"],
        "decoder_depth": values["decoder_depth"],
        "mlp_ratio": values["mlp_ratio"],
        "norm_bias": values["norm_bias"],
        "untied": not values["share_modality_embeddings"],
        "mixed": not values["decoder_sep_mask"],
        "lists": sorted({CATALOG} & {*read, *asked}),
        "input_only": sorted({*read} - {*asked}),
        "output_only": sorted({*asked} - {*read}),
    }


def config_of(transformer: Transformer) -> dict[str, object]:
    """Turns a transformer into a published `config.json`.

    Raises:
        ValueError: for a modality that the published checkpoints do not know.
    """
    names, config = transformer.vocabulary.names, transformer.config
    if unknown := sorted(set(names) - set(PUBLISHED)):
        msg = f"the published layout has no modality {unknown[0]!r}; {near_miss(unknown[0], PUBLISHED)}"
        raise ValueError(msg)
    return {
        **ONLY,
        "decoder_depth": config["decoder_depth"],
        "decoder_sep_mask": not config.get("mixed", False),
        "dim": config["dim"],
        "domains_in": sorted(PUBLISHED[name].key for name in names if name not in transformer.output_only),
        "domains_out": sorted(PUBLISHED[name].key for name in names if name not in transformer.input_only),
        "encoder_depth": config["encoder_depth"],
        "mlp_ratio": config["mlp_ratio"],
        "norm_bias": config.get("norm_bias", False),
        "num_heads": config["heads"],
        "share_modality_embeddings": not config.get("untied", False),
    }


def entries(transformer: Transformer) -> Iterator[Entry]:
    """Lists every tensor of the published file of a transformer, those of tied pairs by both names."""
    dim, vocabulary, tied = transformer.dim, transformer.vocabulary, transformer.query_modality_embedding is None
    yield Entry("mask_token", (1, 1, dim), "mask_token")
    for index, name in enumerate(vocabulary.names):
        rows, one, size = slice(*vocabulary.ranges[name]), slice(index, index + 1), vocabulary.sizes[name]
        given, asked = (f"{side}coder_embeddings.{PUBLISHED[name].key}" for side in ("en", "de"))
        table = (1, position_table(name, 4).shape[1], dim)
        if name not in transformer.output_only:
            alias = f"{asked}.mod_emb" if tied and name not in transformer.input_only else ""
            yield Entry(f"{given}.token_emb.weight", (size, dim), "token_embedding.weight", rows)
            yield Entry(f"{given}.mod_emb", (1, 1, dim), "modality_embedding.weight", one, alias)
            yield Entry(f"{given}.pos_emb", table, UNUSED)
        if name not in transformer.input_only:
            source = "modality_embedding.weight" if tied else "query_modality_embedding.weight"
            yield Entry(f"{asked}.to_logits.weight", (size, dim), "head", rows)
            yield Entry(f"{asked}.mod_emb", (1, 1, dim), source, one)
            yield Entry(f"{asked}.pos_emb", table, UNUSED)
            yield Entry(f"{asked}.token_emb.weight", (size, dim), UNUSED)
    for name, parameter in transformer.named_parameters():
        if name.startswith(("encoder", "decoder")):
            yield Entry(name, tuple(parameter.shape), name)
    for name, module in transformer.named_modules():
        if isinstance(module, nn.LayerNorm) and module.bias is None:
            yield Entry(f"{name}.bias", tuple(module.weight.shape), ZERO)


def position_table(name: str, dim: int) -> Tensor:
    """Computes the position table of a modality as it is stored, `(1, P, D)`."""
    if name == CATALOG:
        return sine_cosine(torch.arange(LIST_LENGTH)[:, None], dim)[None]
    rows, columns = (torch.arange(n) for n in PUBLISHED[name].grid)
    return sine_cosine(torch.cartesian_prod(rows, columns), dim)[None]


def _names(key: str, domains: object) -> list[str]:
    plain = isinstance(domains, list) and all(isinstance(d, str) for d in domains) and len(set(domains)) == len(domains)
    _check(key, domains, plain and len(domains) > 0, "a list of different names")
    return [name_of(domain) for domain in domains]


def _check(key: str, value: object, good: bool, wanted: str) -> None:
    if not good or (isinstance(value, bool) and wanted != "true or false"):
        msg = f"{key} must be {wanted}, given {value!r}"
        raise ValueError(msg)
