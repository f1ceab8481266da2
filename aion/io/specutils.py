"""Bridges to specutils by duck typing: its spectra are read without it, and it is imported only to make them."""

__all__ = ["from_specutils", "to_specutils"]

from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np

from aion.io.quantities import from_quantity, to_quantity
from aion.observations import Spectrum

if TYPE_CHECKING:
    from astropy.units import Quantity


def from_specutils(spectrum: object, *, ivar: "Quantity | str | None" = None, medium: str = "vacuum") -> Spectrum:
    """Converts a `specutils.Spectrum` (or anything like it), or an iterable of them, to a `Spectrum`.

    Read are `.flux`, `.spectral_axis`, `.uncertainty` (standard deviation, variance or inverse variance) and `.mask`
    (True for a bad pixel); specutils itself is not needed. Spectra of an iterable are stacked, each on its own grid.

    Arguments:
        spectrum: with a flux of shape `(L,)` or `(B, L)`.
        ivar: for a spectrum without uncertainty: its inverse variance, or `"estimate"`.
        medium: "vacuum" or "air", what the wavelengths are measured in.

    Raises:
        TypeError: for an object without flux and spectral axis.
        ValueError: as `from_quantity`.
    """
    if not hasattr(spectrum, "flux") or not hasattr(spectrum, "spectral_axis"):
        if not isinstance(spectrum, Iterable):
            msg = f"wanted an object with .flux and .spectral_axis, given {type(spectrum).__name__}"
            raise TypeError(msg)
        return Spectrum.stack([from_specutils(one, ivar=ivar, medium=medium) for one in spectrum])
    if getattr(spectrum, "spectral_axis_index", None) not in {None, np.ndim(spectrum.flux) - 1}:
        shape = np.shape(spectrum.flux)
        msg = f"wanted the spectral axis last, given it elsewhere in {shape}: make it with move_spectral_axis='last'"
        raise ValueError(msg)
    uncertainty = getattr(spectrum, "uncertainty", None)
    return from_quantity(
        spectrum.flux,
        spectrum.spectral_axis,
        ivar if uncertainty is None else None,
        uncertainty=uncertainty,
        mask=getattr(spectrum, "mask", None),
        medium=medium,
    )


def to_specutils(spectrum: Spectrum) -> list:
    """Converts a `Spectrum` to a list of `specutils.Spectrum`, one per object.

    Unmeasured pixels are masked, padding at the red end is dropped. Equal wavelengths, which specutils refuses, are
    told apart by the smallest step that a number can make; `from_specutils` makes them equal again.

    Raises:
        ImportError: without specutils.
    """
    try:
        import specutils
    except ImportError as error:
        msg = 'to_specutils needs specutils: pip install "aion-toolkit[specutils]"'
        raise ImportError(msg) from error
    from astropy.nddata import InverseVariance

    container = getattr(specutils, "Spectrum", None) or specutils.Spectrum1D  # the name before specutils 2
    result = []
    for flux, wavelength, ivar in zip(*to_quantity(spectrum), strict=True):
        angstrom = wavelength.value.astype(np.float64)
        padded = (ivar.value == 0) & (angstrom == angstrom[-1])
        keep = slice(0, max(len(padded) - int(np.argmin(padded[::-1])), 1) if not padded.all() else 1)
        result.append(
            container(
                flux=flux[keep],
                spectral_axis=_strictly_increasing(angstrom[keep]) << wavelength.unit,
                uncertainty=InverseVariance(ivar[keep]),
                mask=ivar[keep].value == 0,
            )
        )
    return result


def _strictly_increasing(values: np.ndarray) -> np.ndarray:
    """Moves equal neighbours apart by single steps of float64, which float32 does not see."""
    values = values.copy()
    for i in np.flatnonzero(np.diff(values) <= 0):
        values[i + 1] = np.nextafter(values[i], np.inf)
    return values
