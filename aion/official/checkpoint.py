"""The transformer of a published checkpoint, read from its folder and written back.

Weights are mapped from the file, not copied: only what is in parts there and in one piece here (token embeddings and
heads) takes memory of its own. What nothing here reads, the token embeddings of the decoder and the stored position
tables, stays in the file and is handed on so that it can be written back bit by bit.
"""

__all__ = ["WEIGHTS", "is_published", "read_transformer", "weights_in", "write_transformer"]

import json

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import torch

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from aion.official.layout import UNUSED, ZERO, Entry, arguments_of, config_of, entries, position_table
from aion.official.names import name_of
from aion.transformer import Transformer

WEIGHTS = "model.safetensors"
POSITIONS = 1e-3  # how far a stored position table may be from the formula


def is_published(folder: Path) -> bool:
    """Tells whether a folder holds a published checkpoint: its `config.json` lists `domains_in`."""
    try:
        config = json.loads((folder / "config.json").read_text())
    except (OSError, UnicodeDecodeError, json.JSONDecodeError):
        return False
    return isinstance(config, dict) and "domains_in" in config


def read_transformer(folder: Path, parity: bool = False) -> tuple[Transformer, dict[str, Tensor]]:
    """Reads the transformer of a published checkpoint.

    Arguments:
        folder: holds `config.json` and `model.safetensors`.
        parity: weighs all queries alike in the self-attention of the decoder, of whatever modality, as the published
            package does; else a query attends to those of its own modality.

    Returns:
        The transformer, and the tensors of the file that it does not use, by their name there.

    Raises:
        FileNotFoundError: if a file is missing, or there are only weights in a pickle, which are never read.
        ValueError: for a configuration that does not fit, a damaged file, or tensors that are missing, extra or of
            another shape, all named.
    """
    path, file_config = weights_in(folder), folder / "config.json"
    try:
        arguments = arguments_of(json.loads(file_config.read_text()))
    except ValueError as error:  # of JSON and of UTF-8 too
        msg = f"{file_config}: {error}"
        raise ValueError(msg) from error
    with _opened(path) as file:
        arguments["norm_bias"] = arguments["norm_bias"] or _biased(file)
        with torch.device("meta"):
            transformer = Transformer(**arguments, uniform=parity)
        table = list(entries(transformer))
        _check(path, file, table)
        unused = {entry.key: file.get_tensor(entry.key) for entry in table if entry.source == UNUSED}
    transformer.load_state_dict(_state(path, table, transformer), strict=True, assign=True)
    return transformer, unused


def write_transformer(transformer: Transformer, unused: Mapping[str, Tensor], folder: Path) -> None:
    """Writes `config.json` and `model.safetensors` in the published layout.

    Arguments:
        transformer: of published modalities only.
        unused: what `read_transformer` returned; what is absent is computed (position tables) or 0.
        folder: an empty folder.

    Raises:
        ValueError: for a modality that the published checkpoints do not know.
    """
    config, state = config_of(transformer), transformer.state_dict()
    tensors, tied = {}, {}
    for entry in entries(transformer):
        if entry.alias:
            tied[entry.key] = entry.alias
            continue
        if entry.source == UNUSED:
            value = unused[entry.key] if entry.key in unused else _absent(entry, transformer.dim)
        elif entry.source == ZERO:
            value = state["mask_token"].new_zeros(entry.shape)
        else:
            value = state[entry.source][entry.rows].reshape(entry.shape)
        tensors[entry.key] = value.detach().cpu().contiguous()
    save_file(tensors, folder / WEIGHTS, metadata=tied)
    (folder / WEIGHTS).chmod(0o644)  # safetensors lets the owner alone read
    (folder / "config.json").write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")


def weights_in(folder: Path) -> Path:
    """Finds the weights of a transformer or of a tokenizer.

    Raises:
        FileNotFoundError: if they are missing, or in a pickle.
    """
    path = folder / WEIGHTS
    if not path.is_file():
        others = sorted(p.name for p in folder.glob("*") if p.suffix in {".bin", ".pkl", ".pt", ".pth", ".ckpt"})
        pickles = f"; {others[0]} is a pickle, which could run any code and is never read" if others else ""
        msg = f"{path} is missing{pickles}"
        raise FileNotFoundError(msg)
    return path


@contextmanager
def _opened(path: Path) -> Iterator[safe_open]:
    try:
        with safe_open(path, framework="pt") as file:
            yield file
    except SafetensorError as error:
        msg = f"{path} is damaged, cut short or no safetensors file: {error}"
        raise ValueError(msg) from error


def _biased(file: safe_open) -> bool:
    """Tells whether any norm has a bias that is not 0."""
    names = (key for key in file.keys() if key.endswith(("norm.bias", "norm1.bias", "norm2.bias")))  # noqa: SIM118
    return any(bool(file.get_tensor(name).any()) for name in names)


def _check(path: Path, file: safe_open, table: list[Entry]) -> None:
    """Refuses a file that lacks a tensor, has one too many or of another shape, or whose tied tensors differ."""
    present, names = set(file.keys()), {entry.key for entry in table}
    missing = [e.key for e in table if e.key not in present and (not e.alias or e.alias not in present)]
    shapes = {e.key: tuple(file.get_slice(e.key).get_shape()) for e in table if e.key in present}
    wrong = [f"{e.key} {shapes[e.key]}, not {e.shape}" for e in table if shapes.get(e.key, e.shape) != e.shape]
    faults = {"are missing": missing, "are extra": sorted(present - names), "have another shape": wrong}
    if any(faults.values()):
        said = (f"{len(v)} tensors {k}: {'; '.join(v[:3])}{' ...' * (len(v) > 3)}" for k, v in faults.items() if v)
        msg = f"{path} does not fit its config.json: {'. '.join(said)}"
        raise ValueError(msg)
    for entry in table:
        if not file.get_slice(entry.key if entry.key in present else entry.alias).get_dtype().startswith(("F", "BF")):
            msg = f"{path}: {entry.key} does not hold floating-point numbers"
            raise ValueError(msg)
        both = entry.alias and {entry.key, entry.alias} <= present
        if both and not torch.equal(file.get_tensor(entry.key), file.get_tensor(entry.alias)):
            msg = f"{path}: {entry.key} and {entry.alias} differ, but config.json says that they are shared"
            raise ValueError(msg)
        if entry.key.endswith("pos_emb"):
            stored, computed = file.get_tensor(entry.key).float(), _absent(entry, entry.shape[-1])
            if not torch.allclose(stored, computed, atol=POSITIONS, rtol=0):
                msg = f"{path}: {entry.key} is not the table of sines and cosines of the published models"
                raise ValueError(msg)


def _state(path: Path, table: list[Entry], transformer: Transformer) -> dict[str, Tensor]:
    """Reads every parameter: mapped from the file if it is in one piece there, else joined from its rows."""
    state, joined = {}, {}
    shapes = {name: value.shape for name, value in transformer.state_dict().items()}
    with _opened(path) as file:  # one of its own: what was copied is unmapped when it closes
        present = set(file.keys())
        for entry in table:
            if entry.rows != slice(None) and entry.key in present:
                part = file.get_tensor(entry.key).flatten(0, -2)
                if entry.source not in joined:  # rows that the file has not, of what is only given or asked for, stay 0
                    joined[entry.source] = torch.zeros(shapes[entry.source], dtype=part.dtype)
                joined[entry.source][entry.rows] = part
    with _opened(path) as file:
        for entry in table:
            if entry.rows == slice(None) and entry.source not in {UNUSED, ZERO}:
                state[entry.source] = file.get_tensor(entry.key).reshape(shapes[entry.source])
    return state | joined


def _absent(entry: Entry, dim: int) -> Tensor:
    """Makes a tensor that nothing of ours stands for: a position table, or zeros."""
    if not entry.key.endswith("pos_emb"):
        return torch.zeros(entry.shape)
    return position_table(name_of(entry.key.split(".")[1]), dim)
