"""A tokenizer as a folder of its own: `config.json` and `tokenizer.safetensors`.

`config.json` holds the keyword arguments, the SHA-256 of the weights and where the tokenizer is from; the hash of the
tokenizer is the hash of the first two.
"""

__all__ = ["load", "save"]

import json

from collections.abc import Iterable, Mapping
from pathlib import Path

import torch

from safetensors.torch import save_file

from aion.bundle import FORMAT, digest, load_weights, locate, sha256, whole
from aion.tokenizers.base import Tokenizer

WEIGHTS = "tokenizer.safetensors"


def save(tokenizer: Tokenizer, folder: Path | str, provenance: Mapping[str, object] | None = None) -> str:
    """Writes a tokenizer into a folder, which it replaces, and returns its hash.

    Arguments:
        tokenizer: what to write.
        folder: new, empty, or that of a tokenizer.
        provenance: plain JSON facts on how it was made.

    Raises:
        FileExistsError: if the folder holds anything else.
    """
    import aion

    folder = Path(folder)
    if folder.exists() and {p.name for p in folder.iterdir()} - {"config.json", WEIGHTS}:
        msg = f"{folder} holds more than a tokenizer: choose another folder"
        raise FileExistsError(msg)
    with whole(folder) as new:
        tensors = {k: v.detach().cpu().contiguous() for k, v in tokenizer.state_dict().items()}
        save_file(tensors, new / WEIGHTS)
        (new / WEIGHTS).chmod(0o644)  # safetensors lets the owner alone read
        hashes = {WEIGHTS: sha256(new / WEIGHTS)}
        config = {"format": FORMAT, "tokenizer": tokenizer.config}
        facts = {"sha256": hashes, "tokenizer_sha256": digest(config, hashes), "aion_version": aion.__version__}
        text = json.dumps({**config, **facts, "provenance": dict(provenance or {})}, indent=2, sort_keys=True)
        (new / "config.json").write_text(text + "\n")
    return facts["tokenizer_sha256"]


def load(name: Path | str, revision: str | None = None, others: Iterable[type[Tokenizer]] = ()) -> Tokenizer:
    """Loads a tokenizer: one that ships (`"spectrum"`, `"image"`), a folder, or a repository of the Hub.

    Arguments:
        name: of what to load.
        revision: of a repository.
        others: classes known beside those of `aion.tokenizers`.

    Raises:
        FileNotFoundError: if there is none.
        ValueError: if a file was altered or does not fit.
    """
    from aion.tokenizers import build

    folder = locate(name, revision)
    path = folder / "config.json"
    try:
        config = json.loads(path.read_text())
        described = {key: config[key] for key in ("format", "tokenizer")}
        intact = digest(described, config["sha256"]) == config["tokenizer_sha256"] and config["format"] == FORMAT
    except (KeyError, TypeError, UnicodeDecodeError, json.JSONDecodeError) as error:
        msg = f"{path} is not the configuration of a tokenizer ({type(error).__name__}: {error})"
        raise ValueError(msg) from error
    if not intact:
        msg = f"{path} was altered, or is of another format: its content does not match its own hash"
        raise ValueError(msg)
    with torch.device("meta"):
        tokenizer = build(config["tokenizer"], others)
    load_weights(tokenizer, folder, WEIGHTS, config["sha256"])
    return tokenizer.eval()
