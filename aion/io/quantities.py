r"""Converts quantities to the units of `aion` and back: the one border that every reader and bridge crosses.

Flux densities per frequency become flux densities per wavelength pixel by pixel, \(f_\lambda = f_\nu c / \lambda^2\);
the conversion is linear in the flux, so a standard deviation is scaled by the same factor and an inverse variance by
its inverse square. Spectral axes of any kind (nm, micron, Hz, eV) become vacuum wavelengths in Angstrom, sorted.
"""

__all__ = ["assemble", "canonical", "estimate_ivar", "from_quantity", "to_quantity"]

import functools
import warnings

from typing import TYPE_CHECKING

import numpy as np

from aion.io.units import FLUX_UNIT, air_to_vacuum, check_medium, parse_unit
from aion.observations import Spectrum

if TYPE_CHECKING:
    from astropy.units import Quantity, UnitBase

# What the unit of the flux is raised to in the unit of its noise.
_POWERS = {"std": 1, "var": 2, "ivar": -2}


def estimate_ivar(flux: np.ndarray, pixels: int = 100) -> np.ndarray:
    """Estimates the inverse variance from the scatter between neighbouring pixels, for data without errors.

    The scatter is the median absolute second difference in pieces of the last axis, scaled to a normal distribution:
    smooth structure and up to half of the pixels with lines do not enter. Correlated noise is underestimated.

    Where they do not scatter (a gap filled with a constant) the ivar is 0.

    Raises:
        ValueError: if neighbouring pixels of one spectrum do not scatter anywhere.
    """
    flux = np.asarray(flux, dtype=np.float64)
    ivar = np.zeros_like(flux)
    for part in np.array_split(np.arange(flux.shape[-1]), max(1, flux.shape[-1] // pixels)):
        second = np.abs(np.diff(flux[..., part], n=2, axis=-1))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # nothing but NaN: the median is NaN, which is right
            scatter = np.nanmedian(second, axis=-1, keepdims=True) / (0.6745 * np.sqrt(6.0))
        ivar[..., part] = np.divide(1.0, scatter**2, out=np.zeros_like(scatter), where=scatter > 0)
    if not (ivar > 0).any(axis=-1).all():
        msg = "ivar='estimate': neighbouring pixels do not scatter, so there is no noise to estimate: give the errors"
        raise ValueError(msg)
    return ivar


def assemble(flux: np.ndarray, ivar: np.ndarray, wavelength: np.ndarray, bad: np.ndarray | None = None) -> Spectrum:
    """Builds a `Spectrum` of arrays that are in canonical units already, one object `(L,)` or a batch `(B, L)`.

    Pixels are sorted by wavelength (stable: of equal neighbours the first stays first); nothing is dropped. A pixel
    that is bad, or not finite in flux, ivar or wavelength, gets ivar 0. The arrays given are not written to.

    Raises:
        ValueError: for shapes that disagree, or negative ivar.
    """
    flux, ivar, wavelength = (np.atleast_2d(_floating(value)) for value in (flux, ivar, wavelength))
    if flux.ndim != 2 or ivar.shape != flux.shape or wavelength.shape not in {flux.shape, (1, flux.shape[1])}:
        msg = (
            "wanted flux and ivar of one shape (L,) or (B, L) and wavelength (L,) or like flux, given "
            f"{flux.shape}, {ivar.shape} and {wavelength.shape}"
        )
        raise ValueError(msg)
    lost = ~np.isfinite(wavelength) | (wavelength <= 0)
    measured = np.isfinite(flux) & np.isfinite(ivar) & ~lost
    if bad is not None:
        measured &= ~np.atleast_2d(np.asarray(bad, dtype=bool))
    if lost.any():
        known = np.where(lost, -np.inf, wavelength).max(axis=1, keepdims=True)
        wavelength = np.where(lost, known, wavelength)
    wavelength = wavelength.astype(np.float32)  # before sorting: pixels that end up equal keep their order
    flux, ivar = np.where(measured, flux, 0.0), np.where(measured, ivar, 0.0)
    if (wavelength[:, 1:] < wavelength[:, :-1]).any():
        order = np.argsort(wavelength, axis=1, kind="stable")
        wavelength = np.take_along_axis(wavelength, order, axis=1)
        order = np.broadcast_to(order, flux.shape)
        flux, ivar = (np.take_along_axis(value, order, axis=1) for value in (flux, ivar))
    return Spectrum(flux=flux, ivar=ivar, wavelength=np.broadcast_to(wavelength, flux.shape))


def _floating(value: np.ndarray) -> np.ndarray:
    """Returns numbers as they are if they are float32 or float64, else as float64."""
    value = np.asarray(value)
    return value if value.dtype in {np.dtype(np.float32), np.dtype(np.float64)} else value.astype(np.float64)


def from_quantity(
    flux: "Quantity",
    wavelength: "Quantity",
    ivar: "Quantity | str | None" = None,
    *,
    uncertainty: object = None,
    mask: np.ndarray | None = None,
    medium: str = "vacuum",
) -> Spectrum:
    """Converts quantities to a `Spectrum`.

    Arguments:
        flux: flux density per wavelength or per frequency, with shape `(L,)` or `(B, L)`.
        wavelength: spectral axis in any spectral unit, `(L,)` or like flux, in any order.
        ivar: inverse variance of the flux, or `"estimate"` to take the scatter between neighbouring pixels.
        uncertainty: instead of ivar: a quantity with the unit of the flux (standard deviation), of its square
            (variance) or its inverse square, or an astropy `NDUncertainty`. 0 means "not measured".
        mask: True (or non-zero) for a bad pixel. NaN, infinity and masked quantities count as bad as well.
        medium: "vacuum" or "air", what the wavelengths are measured in.

    Raises:
        TypeError: for an array without a unit.
        ValueError: for another kind of unit, neither or both of ivar and uncertainty, or shapes that disagree.
    """
    if (ivar is None) == (uncertainty is None):
        given = 'neither: without errors give ivar="estimate"' if ivar is None else "both"
        msg = f"wanted one of ivar= and uncertainty=, given {given}"
        raise ValueError(msg)
    if isinstance(ivar, str) and ivar != "estimate":
        msg = f'ivar: wanted a quantity or "estimate", given {ivar!r}'
        raise ValueError(msg)
    (flux, bad), (wavelength, lost) = _quantity("flux", flux), _quantity("wavelength", wavelength)
    noise = uncertainty if ivar is None else ivar
    _check_shapes(flux, wavelength, 0.0 if isinstance(noise, str) else noise, mask)
    mask = np.any(np.broadcast_arrays(*(False if m is None else m for m in (mask, bad, lost)), flux.value)[:3], axis=0)
    angstrom = _angstrom(wavelength, medium)
    if (factor := _factor(flux.unit, angstrom)) is None:
        msg = f"flux: wanted a flux density such as {FLUX_UNIT!r} or Jy, given the unit {str(flux.unit)!r}"
        raise ValueError(msg)
    value = np.asarray(flux.value, dtype=np.float64) * factor
    if isinstance(noise, str):
        return _estimated(assemble(value, np.ones_like(value), angstrom, mask))
    noise = np.broadcast_to(_ivar(noise, flux.unit, angstrom), value.shape)
    return assemble(value, noise, angstrom, mask)


def _angstrom(wavelength: "Quantity", medium: str) -> np.ndarray:
    """Converts a spectral axis to vacuum wavelengths in Angstrom."""
    from astropy import units

    try:
        angstrom = wavelength.to_value(units.AA, units.spectral())
    except units.UnitConversionError:
        msg = f"wavelength: wanted a spectral unit such as Angstrom, nm, um, Hz or eV, given {str(wavelength.unit)!r}"
        raise ValueError(msg) from None
    return air_to_vacuum(angstrom) if check_medium(medium) == "air" else angstrom


def _estimated(spectrum: Spectrum) -> Spectrum:
    """Replaces the ivar of measured pixels by an estimate; the pixels are sorted, as neighbours must be neighbours."""
    measured = spectrum.measured.numpy()
    ivar = estimate_ivar(np.where(measured, spectrum.flux.numpy(), np.nan))
    return Spectrum(flux=spectrum.flux, ivar=np.where(measured, ivar, 0.0), wavelength=spectrum.wavelength)


def canonical(
    flux: np.ndarray,
    wavelength: np.ndarray,
    noise: np.ndarray | str,
    unit: str | None,
    kind: str = "ivar",
    bad: np.ndarray | None = None,
    medium: str | None = None,
    wavelength_unit: str = "Angstrom",
) -> Spectrum:
    """Converts bare arrays as files hold them to a `Spectrum`.

    Arguments:
        flux: flux density, with shape `(L,)` or `(B, L)`.
        wavelength: `(L,)` or like flux.
        noise: like flux, in the unit of the flux, its square or its inverse square as its kind says; or "estimate".
        unit: unit of the flux; None for 1e-17 erg/s/cm2/Angstrom.
        kind: "std", "var" or "ivar".
        bad: True for a bad pixel.
        medium: "air" or "vacuum"; None for vacuum.
        wavelength_unit: unit of the wavelengths.
    """
    estimated = isinstance(noise, str)
    factor, step = _constant(unit or FLUX_UNIT, FLUX_UNIT), _constant(wavelength_unit, "Angstrom")
    if factor is not None and step is not None and not estimated:
        return _rescaled(flux, wavelength, noise, (factor, step), kind, bad, medium or "vacuum")
    unit = parse_unit(unit or FLUX_UNIT)
    return from_quantity(
        np.asarray(flux, dtype=np.float64) << unit,
        np.asarray(wavelength, dtype=np.float64) << parse_unit(wavelength_unit),
        noise if estimated else None,
        uncertainty=None if estimated else np.asarray(noise, dtype=np.float64) << unit ** _POWERS[kind],
        mask=bad,
        medium=medium or "vacuum",
    )


@functools.lru_cache(maxsize=256)
def _constant(unit: "str | UnitBase", target: str) -> float | None:
    """Returns the number that turns one unit into another, None if no single number does."""
    from astropy import units

    try:
        return float(parse_unit(unit).to(parse_unit(target)))
    except units.UnitConversionError:
        return None


def _rescaled(
    flux: np.ndarray,
    wavelength: np.ndarray,
    noise: np.ndarray,
    factors: tuple[float, float],
    kind: str,
    bad: np.ndarray | None,
    medium: str,
) -> Spectrum:
    """Does what `from_quantity` does where units differ by numbers alone, in a tenth of the time."""
    flux, wavelength, noise = map(_floating, (flux, wavelength, noise))
    _check_shapes(flux, wavelength, noise, bad)
    if factors[0] != 1:
        flux = flux.astype(np.float64) * factors[0]
    if factors[0] != 1 or kind != "ivar":
        noise = _inverse_variance(noise.astype(np.float64), _POWERS[kind], factors[0])
    if factors[1] != 1:
        wavelength = wavelength.astype(np.float64) * factors[1]
    if check_medium(medium) == "air":
        wavelength = air_to_vacuum(wavelength)
    mask = None if bad is None else np.broadcast_to(bad, flux.shape)
    return assemble(flux, np.broadcast_to(noise, flux.shape), wavelength, mask)


def to_quantity(spectrum: Spectrum) -> "tuple[Quantity, Quantity, Quantity]":
    """Converts a `Spectrum` to quantities (flux, wavelength, ivar) of shape `(B, L)` that share no memory with it.

    `from_quantity(*to_quantity(spectrum))` gives the spectrum back.
    """
    from astropy import units

    unit = units.Unit(FLUX_UNIT)
    flux, wavelength, ivar = (
        np.array(value.detach().cpu().numpy()) for value in (spectrum.flux, spectrum.wavelength, spectrum.ivar)
    )
    return flux << unit, wavelength << units.AA, ivar << unit**-2


def _quantity(name: str, value: object) -> "tuple[Quantity, np.ndarray | None]":
    """Returns a plain quantity and its mask, if it has one."""
    from astropy import units

    mask = None
    if hasattr(value, "unmasked"):
        value, mask = value.unmasked, np.asarray(value.mask)
    if getattr(value, "unit", None) is None:
        msg = (
            f"{name} has no unit: multiply it by one, as in {name} * astropy.units.Unit(...); values that are in the "
            "units of aion already go into aion.Spectrum"
        )
        raise TypeError(msg)
    if not isinstance(value.unit, units.UnitBase):
        msg = f"{name}: wanted a flux density or a spectral unit, given the logarithmic unit {str(value.unit)!r}"
        raise ValueError(msg)
    return units.Quantity(value), mask


def _check_shapes(flux: "Quantity", wavelength: "Quantity", noise: object, mask: object) -> None:
    """Refuses shapes that would be broadcast into nonsense; one number of noise for all pixels is fine."""
    given = {"wavelength": wavelength.shape, "ivar": np.shape(getattr(noise, "array", noise)), "mask": np.shape(mask)}
    wanted = {"wavelength": {flux.shape[-1:], flux.shape}, "ivar": {(), flux.shape}, "mask": {(), flux.shape}}
    for name, shape in given.items():
        if flux.ndim not in {1, 2} or shape not in wanted[name]:
            msg = f"flux must be (L,) or (B, L), given {flux.shape}; {name} has the shape {shape}"
            raise ValueError(msg)


def _factor(unit: "UnitBase", angstrom: np.ndarray) -> "np.ndarray | float | None":
    """Returns what turns a value in `unit` into `FLUX_UNIT`, per pixel if it depends on wavelength; None if nothing."""
    from astropy import units

    target = units.Unit(FLUX_UNIT)
    try:
        return 1.0 if unit == target else unit.to(target)
    except units.UnitConversionError:
        pass
    try:
        with np.errstate(divide="ignore", invalid="ignore"):
            return units.Quantity(np.ones_like(angstrom), unit).to_value(
                target, units.spectral_density(angstrom * units.AA)
            )
    except (units.UnitConversionError, TypeError):
        return None


def _ivar(uncertainty: object, flux_unit: "UnitBase", angstrom: np.ndarray) -> np.ndarray:
    """Returns the inverse variance in canonical units of a quantity or an `NDUncertainty`, which may be not finite.

    A negative standard deviation or variance gives a negative ivar, which `Spectrum` refuses.
    """
    powers = _POWERS
    kind = getattr(uncertainty, "uncertainty_type", None)
    if kind is not None:
        if kind not in powers:
            msg = f"uncertainty: wanted one of {', '.join(sorted(powers))}, given the type {kind!r}"
            raise ValueError(msg)
        unit = uncertainty.unit if uncertainty.unit is not None else flux_unit ** powers[kind]
        value, powers = np.asarray(uncertainty.array, dtype=np.float64), {kind: powers[kind]}
    else:
        quantity, mask = _quantity("ivar", uncertainty)
        unit, value = quantity.unit, np.asarray(quantity.value, dtype=np.float64)
        value = value if mask is None else np.where(mask, np.nan, value)
    for power in powers.values():
        if (factor := _factor(unit ** (1 / power), angstrom)) is not None:
            return _inverse_variance(value, power, factor)
    msg = f"ivar: wanted the unit {str(flux_unit)!r}, its square or its inverse square, given {str(unit)!r}"
    raise ValueError(msg)


def _inverse_variance(value: np.ndarray, power: int, factor: np.ndarray | float) -> np.ndarray:
    """Turns noise that is a power of a standard deviation into inverse variance, which may be not finite."""
    with np.errstate(divide="ignore", invalid="ignore"):
        ivar = value if power == -2 else np.sign(value) * np.abs(value) ** (-2 / power)
        return ivar * np.asarray(factor, dtype=np.float64) ** -2
