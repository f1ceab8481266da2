"""Reads and writes the tokenizers of a published checkpoint: `codecs/<folder>/config.json` and `model.safetensors`.

Loading is strict: every tensor that the configuration calls for must be there, with its shape, and no other. Values
that `config.json` does not hold are those that the published class takes then. Networks are built without memory of
their own and take over the tensors of the file.
"""

__all__ = ["read_codecs", "write_codecs"]

import inspect
import json
import tempfile
import warnings

from collections.abc import Iterable, Mapping
from pathlib import Path

import torch

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from aion.observations import near_miss
from aion.official.catalog import OfficialCatalogTokenizer
from aion.official.checkpoint import WEIGHTS, weights_in
from aion.official.field import TRAINING, OfficialFieldTokenizer
from aion.official.image import OfficialImageTokenizer
from aion.official.names import PUBLISHED
from aion.official.scalar import (
    OfficialGridScalarTokenizer,
    OfficialLogScalarTokenizer,
    OfficialMultiScalarTokenizer,
    OfficialScalarTokenizer,
)
from aion.official.spectrum import OfficialSpectrumTokenizer
from aion.official.tokenizer import PublishedTokenizer
from aion.tokenizers.base import Tokenizer

CODECS: dict[str, type[PublishedTokenizer]] = {
    cls.codec: cls
    for cls in (
        OfficialCatalogTokenizer,
        OfficialFieldTokenizer,
        OfficialGridScalarTokenizer,
        OfficialImageTokenizer,
        OfficialLogScalarTokenizer,
        OfficialMultiScalarTokenizer,
        OfficialScalarTokenizer,
        OfficialSpectrumTokenizer,
    )
}

CONFIG = "config.json"

# Parts of a tensor's name that begin with an underscore there and without one here.
_PRIVATE = {"codebook_size", "index_to_val", "quantizer", "reservoir", "wavelength"}


def read_codecs(
    folder: Path | str, names: Iterable[str] | None = None, parity: bool = False, padding: bool = False
) -> dict[str, Tokenizer]:
    """Reads the tokenizers of a published checkpoint, by our names of the modalities.

    Modalities that share a folder share the tokenizer.

    Arguments:
        folder: a local copy of the repository that holds `codecs/`.
        names: modalities wanted; by default all whose folder is there.
        parity: whether to do what the published package does where that is questionable, see
            `aion.official.tokenizer`.
        padding: see `aion.official.spectrum.OfficialSpectrumTokenizer`.

    Raises:
        FileNotFoundError: if there are no tokenizers, or one that is wanted is missing.
        ValueError: for an unknown modality (with the near misses), a damaged file, a pickle in place of safetensors, a
            configuration that its class does not take, or a tensor that is missing, extra or misshapen, by its name.
    """
    root = Path(folder) / "codecs"
    if names is None:
        names = [name for name, published in PUBLISHED.items() if (root / published.folder).is_dir()]
        if not names:
            msg = f"{folder} holds no published tokenizers: wanted folders such as {root / 'image'}"
            raise FileNotFoundError(msg)
    options = {"parity": parity, "padding": padding}
    read: dict[str, PublishedTokenizer] = {}
    result = {}
    for name in sorted(names):
        published = _published(name)
        if published.folder not in read:
            read[published.folder] = _read(
                root / published.folder, CODECS[published.codec], {"vocabulary": published.vocabulary, **options}
            )
        result[name] = read[published.folder]
    return result


def write_codecs(tokenizers: Mapping[str, Tokenizer], folder: Path | str) -> None:
    """Writes tokenizers, by our names of the modalities, in the published layout, their tensors bit for bit.

    Raises:
        TypeError: for a tokenizer that is not the published one of its modality.
        ValueError: for an unknown modality, or different tokenizers for modalities that share a folder.
    """
    by_folder: dict[str, tuple[str, PublishedTokenizer]] = {}
    for name, tokenizer in sorted(tokenizers.items()):
        published = _published(name)
        if not isinstance(tokenizer, CODECS[published.codec]):
            msg = f"{name}: wanted a {CODECS[published.codec].__name__}, given {type(tokenizer).__name__}"
            raise TypeError(msg)
        first, known = by_folder.setdefault(published.folder, (name, tokenizer))
        if known is not tokenizer and not _same(known, tokenizer):
            msg = f"{first} and {name} share the folder {published.folder!r} and must have the same tokenizer"
            raise ValueError(msg)
    for part, (_, tokenizer) in by_folder.items():
        _write(tokenizer, Path(folder) / "codecs" / part)


def _published(name: str):
    if name not in PUBLISHED:
        msg = f"no published modality {name!r}; {near_miss(name, PUBLISHED)}"
        raise ValueError(msg)
    return PUBLISHED[name]


def _read(folder: Path, cls: type[PublishedTokenizer], options: Mapping[str, object]) -> PublishedTokenizer:
    config = _read_config(folder / CONFIG, cls)
    config |= {key: value for key, value in options.items() if key in cls.adjustable}
    try:
        with torch.device("meta"):
            tokenizer = cls(**config)
    except (RuntimeError, TypeError, ValueError) as error:
        msg = f"{folder / CONFIG} does not describe a {cls.codec}: {error}"
        raise ValueError(msg) from error
    path = weights_in(folder)
    tensors = _check(path, _read_tensors(path), tokenizer)
    tokenizer.load_state_dict(tensors, assign=True)
    try:
        tokenizer.verify()
    except ValueError as error:
        msg = f"{path}: {error}"
        raise ValueError(msg) from error
    return tokenizer.eval()


def _read_config(path: Path, cls: type[PublishedTokenizer]) -> dict:
    """Reads the keyword arguments of a class; those that it does not know are left out with a warning."""
    if not path.is_file():
        msg = f"{path} is missing"
        raise FileNotFoundError(msg)
    try:
        config = json.loads(path.read_text())
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        msg = f"{path} is not JSON: {error}"
        raise ValueError(msg) from error
    if not isinstance(config, dict):
        msg = f"{path}: wanted an object of keyword arguments, given {type(config).__name__}"
        raise ValueError(msg)
    known = set(inspect.signature(cls).parameters) - cls.adjustable
    known |= TRAINING if cls is OfficialFieldTokenizer else set()
    if unknown := sorted(set(config) - known):
        msg = f"{path}: {cls.codec} has no {', '.join(unknown)}: not used"
        warnings.warn(msg, stacklevel=2)
    return {key: value for key, value in config.items() if key in known}


def _read_tensors(path: Path) -> dict[str, Tensor]:
    """Reads a file of tensors under our names."""
    try:
        tensors = load_file(path)
    except (SafetensorError, OSError) as error:
        msg = f"{path} is damaged or no safetensors file: {error}"
        raise ValueError(msg) from error
    result = {".".join(part.removeprefix("_") for part in key.split(".")): value for key, value in tensors.items()}
    if len(result) < len(tensors):
        msg = f"{path} holds tensors twice, with and without a leading underscore"
        raise ValueError(msg)
    return result


def _check(path: Path, tensors: Mapping[str, Tensor], tokenizer: PublishedTokenizer) -> dict[str, Tensor]:
    """Holds tensors to those that a tokenizer wants; real numbers become float32, whatever torch's default is."""
    wanted = tokenizer.state_dict()
    faults = [f"{_name(key)} is missing" for key in sorted(set(wanted) - set(tensors))]
    faults += [f"{_name(key)} is not part of a {tokenizer.codec}" for key in sorted(set(tensors) - set(wanted))]
    for key in sorted(set(wanted) & set(tensors)):
        given, shape = tensors[key], tuple(wanted[key].shape)
        if tuple(given.shape) != shape:
            faults.append(f"{_name(key)} has the shape {tuple(given.shape)}, wanted {shape}")
        elif given.is_floating_point() != wanted[key].is_floating_point():
            wanted_type = torch.float32 if wanted[key].is_floating_point() else wanted[key].dtype
            faults.append(f"{_name(key)} is {given.dtype}, wanted {wanted_type}")
    if faults:
        more = f" and {len(faults) - 5} more" if len(faults) > 5 else ""
        msg = f"{path} does not fit its configuration: {'; '.join(faults[:5])}{more}"
        raise ValueError(msg)
    return {k: v.float() if v.is_floating_point() else v.to(wanted[k].dtype) for k, v in tensors.items()}


def _write(tokenizer: PublishedTokenizer, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {_name(key): value.detach().cpu().contiguous() for key, value in tokenizer.state_dict().items()}
    with tempfile.TemporaryDirectory(prefix=".", dir=folder) as temporary:
        save_file(tensors, Path(temporary) / WEIGHTS)  # without metadata, as the published package writes it
        (Path(temporary) / CONFIG).write_text(json.dumps(tokenizer.published_config, sort_keys=True, indent=2))
        (Path(temporary) / WEIGHTS).chmod(0o644)  # safetensors lets the owner alone read
        for name in (WEIGHTS, CONFIG):
            (Path(temporary) / name).replace(folder / name)


def _name(key: str) -> str:
    """Returns the published name of a tensor."""
    return ".".join(f"_{part}" if part in _PRIVATE else part for part in key.split("."))


def _same(one: PublishedTokenizer, other: PublishedTokenizer) -> bool:
    a, b = one.state_dict(), other.state_dict()
    return one.config == other.config and all(torch.equal(a[key], b[key]) for key in a)
