"""One module as a folder of its own: `config.json` and its weights, `KIND.safetensors`.

`config.json` holds the keyword arguments, the SHA-256 of the weights and where the module is from; the hash of the
module is the hash of the first two.
"""

__all__ = ["read", "save", "write"]

import json

from collections.abc import Mapping
from pathlib import Path

from torch import nn

from aion.bundle import FORMAT, digest, locate, save_tensors, whole


def save(
    module: nn.Module, folder: Path | str, kind: str, provenance: Mapping[str, object] | None = None, noun: str = ""
) -> str:
    """Writes a module into a folder, which it replaces and which appears whole or not at all, and returns its hash.

    Arguments:
        module: what to write; its `config` holds the keyword arguments of its class.
        folder: new, empty, or that of a module of this kind.
        kind: what `config.json` calls it.
        provenance: plain JSON facts on how it was made.
        noun: what errors call it.

    Raises:
        FileExistsError: if the folder holds anything else.
    """
    folder = Path(folder).resolve()
    own = {"config.json", f"{kind}.safetensors"}
    if folder.exists() and (not folder.is_dir() or {path.name for path in folder.iterdir()} - own):
        msg = f"{folder} is no {noun or kind} or holds more than a {noun or kind}: choose another folder"
        raise FileExistsError(msg)
    with whole(folder) as new:
        return write(module, new, kind, provenance)


def write(module: nn.Module, folder: Path, kind: str, provenance: Mapping[str, object] | None = None) -> str:
    """Writes the two files into a folder that is there, and returns the hash; see `save`."""
    import aion

    weights = f"{kind}.safetensors"
    hashes = {weights: save_tensors(folder / weights, module.state_dict())}
    config = {"format": FORMAT, kind: module.config}
    facts = {"sha256": hashes, _named(kind): digest(config, hashes), "aion_version": aion.__version__}
    text = json.dumps({**config, **facts, "provenance": dict(provenance or {})}, indent=2, sort_keys=True)
    (folder / "config.json").write_text(text + "\n")
    return facts[_named(kind)]


def read(name: Path | str, kind: str, revision: str | None = None, noun: str = "") -> tuple[Path, dict]:
    """Finds the folder of a module: one that ships, a folder, or a repository of the Hub; and reads its `config.json`.

    Raises:
        FileNotFoundError: if there is none.
        ValueError: if the file was altered or is none of this kind.
    """
    folder, noun = locate(name, revision), noun or kind
    path = folder / "config.json"
    if not path.exists():
        msg = f"{folder} is no {noun}: it has no config.json"
        raise FileNotFoundError(msg)
    try:
        facts = json.loads(path.read_text())
        described = {key: facts[key] for key in ("format", kind)}
        intact = digest(described, facts["sha256"]) == facts[_named(kind)] and facts["format"] == FORMAT
    except (KeyError, TypeError, UnicodeDecodeError, json.JSONDecodeError) as error:
        msg = f"{path} is not the configuration of a {noun} ({type(error).__name__}: {error})"
        raise ValueError(msg) from error
    if not intact:
        msg = f"{path} was altered, or is of another format: its content does not match its own hash"
        raise ValueError(msg)
    return folder, facts


def _named(kind: str) -> str:
    """Returns the name of the hash: a tokenizer is a part of a model, what else is kept is one."""
    return "tokenizer_sha256" if kind == "tokenizer" else "model_sha256"
