"""Reads recipes: TOML files of known sections, whose values are keyword arguments of what they are for.

A recipe may say `like = "other.toml"`, a recipe in the same folder whose settings it takes over: what both have is
taken from the one that is read, down to the settings of a section; a tokenizer or the training of a part is taken
whole. `section = false` takes a section of the other away. With `start = MODEL` tokenizers, modalities and transformer
are those of a trained model.
"""

__all__ = ["check_trained", "digest", "is_family", "load", "load_family", "load_tokenizer", "settings_of"]

import hashlib
import json

from collections.abc import Collection, Mapping
from pathlib import Path

from aion.masking import BudgetMasking
from aion.model import AION
from aion.observations import near_miss
from aion.sky import Sky
from aion.training.toml import check_keys, check_names, check_sections, check_training, read_toml
from aion.transformer import Transformer

SECTIONS = {"data", "dtype", "masking", "name", "seed", "short", "sky"}
TAKEN = {"modalities", "tokenizers", "transformer"}  # from the model to start from, if there is one
SECTIONS |= {"start", "training", *TAKEN}
TOKENIZER_SECTIONS = {"data", "fit", "name", "seed", "sky", "sources", "tokenizer", "training"}
FAMILY_SECTIONS = {"fit", "modalities", "name", "seed", "sky", "tokenizer"}
TRAINING = {"batch", "kept"}  # beside the arguments of `train`
NEEDED = {"batch", "steps"}  # of what is trained
DATA = {"columns", "dataset", "on_error", "options", "path", "split"}
DTYPES = ("bfloat16", "float16", "float32")


def load(path: Path | str) -> dict:
    """Reads the recipe of a bundle and checks its sections.

    Raises:
        FileNotFoundError: if there is no such file, or no model that it starts from.
        ValueError: if it is not TOML, a section, a part or a key is unknown (with the near misses) or missing, it has
            neither or both of a sky and data, a modality has no tokenizer, or there is no such type of number.
    """
    recipe = _read(path, SECTIONS, {"data", "dtype", "masking", "short", "sky", "start"})
    if started := "start" in recipe:
        recipe = _started(path, recipe)
    for section, function, without in (
        ("masking", BudgetMasking, {"vocabulary"}),
        ("transformer", Transformer, set() if started else {"sizes"}),
    ):
        check_keys(path, section, recipe.get(section, {}), function, without=without)
    check_keys(path, "short", recipe.get("short", {}), BudgetMasking, {"modalities", "objects"}, {"vocabulary"})
    if "short" in recipe and not recipe["training"].get("transformer", {}).get("kept"):
        msg = f"{path}: [short] wants tokens that are kept: say kept in [training.transformer]"
        raise ValueError(msg)
    check_names(path, "training", recipe["training"], {"default", "transformer", *recipe["tokenizers"]})
    for part, settings in recipe["training"].items():
        check_training(path, f"training.{part}", settings, TRAINING)
    check_trained(path, "transformer", settings_of(recipe, "transformer"))
    if recipe.get("dtype", "float32") not in DTYPES:
        msg = f"{path}: dtype of the stored transformer: wanted one of {', '.join(DTYPES)}, given {recipe['dtype']!r}"
        raise ValueError(msg)
    if ("sky" in recipe) == ("data" in recipe):
        msg = f"{path}: wanted one of [sky] and [data], given {'both' if 'sky' in recipe else 'neither'}"
        raise ValueError(msg)
    for name, tokenizer in recipe["modalities"].items():
        if tokenizer not in recipe["tokenizers"]:
            msg = (
                f"{path}: modality {name!r} wants tokenizer {tokenizer!r}; {near_miss(tokenizer, recipe['tokenizers'])}"
            )
            raise ValueError(msg)
    if "data" in recipe:
        _check_data(path, recipe["data"])
        for one, other, what in (
            (recipe["data"]["columns"], recipe["modalities"], "no tokenizer: name one in [modalities]"),
            (
                {} if started else recipe["modalities"],
                recipe["data"]["columns"],
                "no columns: name them in [data.columns]",
            ),
        ):
            if lost := sorted(set(one) - set(other)):
                msg = f"{path}: modality {lost[0]!r} has {what}; {near_miss(lost[0], other)}"
                raise ValueError(msg)
    return recipe


def load_tokenizer(path: Path | str) -> dict:
    """Reads the recipe of a tokenizer and checks its sections.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is not TOML, a section or a key is unknown (with the near misses) or missing, or a source
            names neither or both of a modality and a reader.
    """
    recipe = _read(path, TOKENIZER_SECTIONS, {"data", "fit", "sky"})
    check_training(path, "training", recipe["training"], TRAINING - {"kept"})
    every = all("batch" in source for source in recipe["sources"].values())
    check_trained(path, "", recipe["training"], {"steps"} if every else NEEDED)
    if "fit" in recipe and "modality" not in recipe["fit"]:
        msg = f"{path}: [fit] lacks modality, what the tokenizer is fitted to"
        raise ValueError(msg)
    if "data" in recipe:
        _check_data(path, recipe["data"])
    for name, source in recipe["sources"].items():
        if ("modality" in source) == ("reader" in source):
            msg = f"{path}: source {name!r} must name either a modality of the sky or a reader"
            raise ValueError(msg)
    return recipe


def is_family(path: Path | str) -> bool:
    """Tells the recipe of a family of tokenizers by its section of modalities from that of a single one."""
    recipe = read_toml(path)
    return "modalities" in recipe and "tokenizer" in recipe


def load_family(path: Path | str) -> dict:
    """Reads the recipe of a family and checks its sections.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is not TOML, or a section or a key is unknown (with the near misses) or missing.
    """
    recipe = _read(path, FAMILY_SECTIONS, {"sky"})
    check_names(path, "fit", recipe["fit"], {"batch", "objects"})
    if "objects" not in recipe["fit"]:
        msg = f"{path}: [fit] lacks objects, the number of those that are fitted to"
        raise ValueError(msg)
    return recipe


def _started(path: Path | str, recipe: Mapping) -> dict:
    """Fills a recipe with what the model that it starts from has; `start` becomes its name and hash."""
    if given := sorted(TAKEN & set(recipe)):
        msg = f"{path}: [{given[0]}] is that of the model to start from, {recipe['start']!r}: leave it out"
        raise ValueError(msg)
    model = AION.from_pretrained(recipe["start"], device="cpu")
    return {
        **recipe,
        "start": {"model": str(recipe["start"]), "sha256": model.sha256},
        "modalities": model.modalities,
        "tokenizers": {name: part.config for name, part in model.parts.items()},
        "transformer": model.transformer.config,
    }


def settings_of(recipe: Mapping, part: str) -> dict[str, object]:
    """Returns the settings of the training of a part: its own section over the defaults."""
    return {**recipe["training"].get("default", {}), **recipe["training"].get(part, {})}


def check_trained(path: Path | str, part: str, settings: Mapping, needed: Collection[str] = NEEDED) -> None:
    """Refuses settings of what is trained that lack what is needed.

    Raises:
        ValueError: naming it.
    """
    if missing := sorted(set(needed) - set(settings)):
        section = f"training.{part}" if part else "training"
        msg = f"{path}: [{section}] lacks {', '.join(missing)}"
        raise ValueError(msg)


def digest(*facts: object) -> str:
    """Computes the hash of plain facts, of which a recipe consists."""
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:16]


def _check_data(path: Path | str, data: Mapping) -> None:
    check_names(path, "data", data, DATA)
    if ("path" in data) == ("dataset" in data) or "columns" not in data:
        msg = f"{path}: [data] wants one of path and dataset, and columns; given {', '.join(sorted(data)) or 'nothing'}"
        raise ValueError(msg)
    own = {"path": {"on_error"}, "dataset": {"options", "split"}}
    for kind, other in (("path", "dataset"), ("dataset", "path")):
        if kind in data and (lost := sorted(own[other] & set(data))):
            msg = f"{path}: [data] with {kind} takes no {lost[0]!r}, which is for {other}"
            raise ValueError(msg)


def _read(path: Path | str, sections: set[str], optional: set[str]) -> dict:
    """Reads a TOML file of known sections."""
    recipe = _merged(Path(path))
    check_sections(path, recipe, sections, optional | (TAKEN if "start" in recipe else set()))
    check_keys(path, "sky", recipe.get("sky", {}), Sky, without={"device", "modalities", "seed"})
    return recipe


def _merged(path: Path, seen: tuple[Path, ...] = ()) -> dict:
    """Reads a recipe over the one that it is like."""
    own = read_toml(path)
    if (other := own.pop("like", None)) is None:
        return own
    if path.resolve() in seen:
        msg = f"{path}: recipes that are like each other in a circle"
        raise ValueError(msg)
    merged = _merged(path.parent / other, (*seen, path.resolve()))
    for key, value in own.items():
        both = isinstance(value, dict) and isinstance(merged.get(key), dict)
        merged[key] = {**merged[key], **value} if both else value
    if "data" in own and "sky" not in own:  # data of one's own instead of a sky
        merged.pop("sky", None)
    return {key: value for key, value in merged.items() if value is not False}
