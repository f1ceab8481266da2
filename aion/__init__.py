"""Astronomical observations on their native grids, as tokens, for one masked-modelling transformer.

    >>> import aion
    >>> spectrum = aion.Spectrum(flux=[[1.0, 2.0]], ivar=[[4.0, 0.0]], wavelength=[4000.0, 4001.0])
    >>> spectrum.measured
    tensor([[ True, False]])

Letters of tensor shapes, the same in every docstring: B batch (objects), L pixels of a spectrum, C bands, H and W rows
and columns of an image, N tokens, D features, V vocabulary, K classes, bins or components.

Importing `aion` does nothing but define names: no environment variables, no logging, no downloads, and not even `torch`
until the first name is used. Its modules, such as `aion.io`, need no import of their own.
"""

__all__ = ["AION", "Catalog", "Field", "Image", "Scalar", "Spectrum", "__version__"]

from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from aion.catalog import Catalog
    from aion.field import Field
    from aion.model import AION
    from aion.observations import Image, Scalar, Spectrum

__version__ = "0.1.0"

_ELSEWHERE = {"AION": "aion.model", "Catalog": "aion.catalog", "Field": "aion.field"}


def __getattr__(name: str) -> object:
    """Loads a public name or module on its first use."""
    if name in __all__:
        return getattr(import_module(_ELSEWHERE.get(name, "aion.observations")), name)
    if name.startswith("_") or find_spec(f"{__name__}.{name}") is None:
        msg = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(msg)
    return import_module(f"{__name__}.{name}")


def __dir__() -> list[str]:
    """Lists the public names, those not yet loaded too."""
    return sorted({*globals(), *__all__})
