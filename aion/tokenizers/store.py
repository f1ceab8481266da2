"""A tokenizer as a folder of its own: `config.json` and `tokenizer.safetensors`.

`config.json` holds the keyword arguments, the SHA-256 of the weights and where the tokenizer is from; the hash of the
tokenizer is the hash of the first two.
"""

__all__ = ["load", "save"]

from collections.abc import Iterable, Mapping
from pathlib import Path

import torch

from aion import keeping
from aion.bundle import load_weights
from aion.tokenizers.base import Tokenizer

KIND = "tokenizer"


def save(tokenizer: Tokenizer, folder: Path | str, provenance: Mapping[str, object] | None = None) -> str:
    """Writes a tokenizer into a folder, which it replaces, and returns its hash.

    Arguments:
        tokenizer: what to write.
        folder: new, empty, or that of a tokenizer.
        provenance: plain JSON facts on how it was made.

    Raises:
        FileExistsError: if the folder holds anything else.
    """
    return keeping.save(tokenizer, folder, KIND, provenance)


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

    folder, config = keeping.read(name, KIND, revision)
    with torch.device("meta"):
        tokenizer = build(config["tokenizer"], others)
    load_weights(tokenizer, folder, f"{KIND}.safetensors", config["sha256"])
    return tokenizer.eval()
