"""Tokenizers: an observation in, discrete tokens at physical positions out, and back."""

__all__ = [
    "CatalogTokenizer",
    "FieldTokenizer",
    "ImageTokenizer",
    "ScalarTokenizer",
    "SpectrumTokenizer",
    "Tokenizer",
    "build",
]

from collections.abc import Iterable

from aion.tokenizers.base import Tokenizer
from aion.tokenizers.catalog import CatalogTokenizer
from aion.tokenizers.field import FieldTokenizer
from aion.tokenizers.image import ImageTokenizer
from aion.tokenizers.scalar import ScalarTokenizer
from aion.tokenizers.spectrum import SpectrumTokenizer


def build(config: dict, others: Iterable[type[Tokenizer]] = ()) -> Tokenizer:
    """Builds a tokenizer from its `config`: the keyword arguments of its class and their `kind`.

    Arguments:
        config: as of `Tokenizer.config`.
        others: classes known beside those of this package.

    Raises:
        ValueError: for an unknown kind or for arguments its class does not take.
    """
    own = (CatalogTokenizer, FieldTokenizer, ImageTokenizer, ScalarTokenizer, SpectrumTokenizer)
    kinds = {cls.kind: cls for cls in (*own, *others)}
    arguments = dict(config)
    kind = arguments.pop("kind", None)
    if kind not in kinds:
        msg = f"unknown kind of tokenizer {kind!r}; known: {', '.join(sorted(kinds))}"
        raise ValueError(msg)
    try:
        return kinds[kind](**arguments)
    except TypeError as error:
        msg = f"{kind} tokenizer: {error}"
        raise ValueError(msg) from error
