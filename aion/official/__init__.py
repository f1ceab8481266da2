"""The published AION-1 checkpoints: their names, their tokenizers, and how they are read and written.

A published checkpoint becomes an ordinary model of `aion.model`: `AION.from_pretrained` recognises one. Nothing else
knows the published names.
"""

__all__ = ["TOKENIZERS", "WITH_TOKENIZERS", "export", "is_published", "load"]

from pathlib import Path

from torch import Tensor, nn

from aion.bundle import locate, whole
from aion.official.checkpoint import is_published, read_transformer, write_transformer
from aion.official.codecs import CODECS, read_codecs, write_codecs
from aion.official.names import PUBLISHED
from aion.tokenizers import Tokenizer
from aion.transformer import Transformer

TOKENIZERS: tuple[type[Tokenizer], ...] = tuple(CODECS.values())
WITH_TOKENIZERS = "polymathic-ai/aion-base"  # the only one of the published repositories that has them


def load(
    folder: Path | str,
    parity: bool = False,
    padding: bool = False,
    codecs: Path | str | None = None,
    fetch: bool = False,
) -> tuple[dict[str, Tokenizer], dict[str, str], Transformer, dict[str, Tensor]]:
    """Reads the parts of a published checkpoint, in evaluation mode and on the CPU.

    Arguments:
        folder: holds `config.json`, `model.safetensors` and, unless they are elsewhere, the tokenizers in `codecs/`.
        parity: does what the published package does where that is questionable.
        padding: see `aion.official.spectrum.OfficialSpectrumTokenizer`.
        codecs: the checkpoint whose tokenizers to take, a folder or on the Hub.
        fetch: takes those of `WITH_TOKENIZERS` if there are none.

    Returns:
        The tokenizers by the name of their folder, the name of that of each modality, the transformer, and the tensors
        that nothing here reads.

    Raises:
        FileNotFoundError: if a file is missing, or there are only weights in a pickle, which are never read.
        ValueError: for a damaged file, or tensors and configurations that do not fit.
    """
    if codecs is None and not (Path(folder) / "codecs").is_dir():
        if not fetch:
            msg = f"{folder} has no tokenizers: give codecs=, such as {WITH_TOKENIZERS!r} or a copy of it"
            raise FileNotFoundError(msg)
        codecs = WITH_TOKENIZERS
    place = folder if codecs is None else locate(codecs, None, ("codecs/*/config.json", "codecs/*/model.safetensors"))
    transformer, unused = read_transformer(Path(folder), parity)
    names = transformer.vocabulary.names
    found = read_codecs(place, names, parity=parity, padding=padding)
    modalities = {name: PUBLISHED[name].folder for name in names}
    return {modalities[name]: found[name] for name in names}, modalities, transformer.eval(), unused


def export(model: nn.Module, folder: Path | str) -> None:
    """Writes a model in the layout of the published checkpoints, which the published package reads.

    Tensors of a model that was read from a published checkpoint are written bit by bit as they were, unless they were
    changed or converted since. The folder appears whole or not at all.

    Arguments:
        model: an `aion.model.AION` with tokenizers of published kinds.
        folder: to write; it must not exist, or be empty.

    Raises:
        FileExistsError: if the folder holds anything.
        TypeError: for anything but such a model.
        ValueError: for a modality or a tokenizer that the published layout does not know.
    """
    if not isinstance(getattr(model, "transformer", None), Transformer):
        msg = f"export: wanted an AION model, given {type(model).__name__}"
        raise TypeError(msg)
    folder = Path(folder).resolve()
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        msg = f"{folder} exists and is not empty: choose another folder"
        raise FileExistsError(msg)
    with whole(folder) as new:
        write_transformer(model.transformer, model.unused, new)
        write_codecs({name: model.tokenizer(name) for name in model.modalities}, new)
