"""Reads units as surveys write them, and converts wavelengths between air and vacuum."""

__all__ = ["FLUX_UNIT", "air_to_vacuum", "check_medium", "medium_of", "parse_unit", "vacuum_to_air"]

import re
import warnings

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from aion.observations import near_miss

if TYPE_CHECKING:
    from astropy.units import UnitBase

FLUX_UNIT = "1e-17 erg / (s cm2 Angstrom)"

# What files write -> what astropy reads. "A" is the ampere to astropy and never that in a flux density; flux per
# fibre or per spaxel is the flux of the one spectrum in hand.
_SPELLINGS = (
    (r"\bergs\b", "erg"),
    (r"(?i)\bang(strom)?s?(?=\b|\d|_)", "Angstrom"),
    (r"\bA(?=\b|\d)", "Angstrom"),
    (r"(?i)\bmicrons?\b", "micron"),
    (r"(?i)\bnanomagg(y|ie|ies|ys)\b", "nmgy"),
    (r"(?i)\s*/\s*(spaxel|fib(er|re)|pix(el)?)\b", ""),
)


def parse_unit(text: "str | UnitBase") -> "UnitBase":
    """Reads a unit as surveys write it, such as `10**-17 erg/(s cm2 Angstrom)` or `1E-17 erg/cm^2/s/Ang`.

    Raises:
        ValueError: for a text that is no unit, or a logarithmic one.
    """
    from astropy import units

    if isinstance(text, units.UnitBase) and not isinstance(text, units.UnrecognizedUnit):
        return text
    clean = str(text).strip()
    for pattern, spelling in _SPELLINGS:
        clean = re.sub(pattern, spelling, clean)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a survey's two slashes are no news to whoever reads its file
        try:
            unit = units.Unit(clean) if clean else None
        except (ValueError, TypeError):
            unit = None
    if not isinstance(unit, units.UnitBase):  # a magnitude is no linear unit
        msg = f"wanted a unit such as {FLUX_UNIT!r}, given {text!r}"
        raise ValueError(msg)
    return unit


def vacuum_to_air(wavelength: np.ndarray) -> np.ndarray:
    r"""Converts vacuum wavelengths in Angstrom to wavelengths in standard air (15 C, 101325 Pa, 450 ppm CO2).

    With \(\sigma = 10^4 / \lambda\), \(n - 1 = 0.05792105 / (238.0185 - \sigma^2) + 0.00167917 / (57.362 - \sigma^2)\).
    What would be below 2000 Angstrom in air stays as it is: it is never given in air.

    References:
        Refractive index of air: new equations for the visible and near infrared (Ciddor, 1996), Applied Optics 35,
        1566, doi:10.1364/AO.35.001566
    """
    wavelength = np.asarray(wavelength, dtype=np.float64)
    air = wavelength / _index(wavelength)
    return np.where(air >= 2000.0, air, wavelength)


def air_to_vacuum(wavelength: np.ndarray) -> np.ndarray:
    """Converts wavelengths in standard air in Angstrom to vacuum: the exact inverse of `vacuum_to_air`."""
    wavelength = np.asarray(wavelength, dtype=np.float64)
    vacuum = wavelength
    for _ in range(5):  # the index is off by 1e-9 where the wavelength is off by 1e-5: each round gains four digits
        vacuum = wavelength * _index(vacuum)
    return np.where(wavelength >= 2000.0, vacuum, wavelength)


def _index(vacuum: np.ndarray) -> np.ndarray:
    sigma2 = (
        1e4 / np.maximum(vacuum, 1000.0)
    ) ** 2  # the formula has poles in the far ultraviolet, where none needs it
    return 1 + 0.05792105 / (238.0185 - sigma2) + 0.00167917 / (57.362 - sigma2)


def medium_of(header: Mapping) -> str | None:
    """Finds "air" or "vacuum" in the keywords of a file (AIRORVAC, VACUUM, AIRVAC, MEDIUM, ...), None if not said.

    Raises:
        ValueError: for a keyword with a value that is neither.
    """
    known = {str(key).upper(): value for key, value in header.items()}
    if isinstance(known.get("VACUUM"), bool | np.bool_):
        return "vacuum" if known["VACUUM"] else "air"
    for key in ("AIRORVAC", "AIRVAC", "AIR_VAC", "VACUUM", "MEDIUM", "WAVEMED"):
        if key in known:
            return check_medium(str(known[key]).strip().lower())
    return None


def check_medium(text: str) -> str:
    """Returns "air" or "vacuum" for what may be shortened or longer, such as "vac"; else a `ValueError`."""
    for name in ("vacuum", "air"):
        if text and (name.startswith(text) or text.startswith(name)):
            return name
    msg = f"unknown medium of wavelengths {text!r}; {near_miss(text, ('air', 'vacuum'))}"
    raise ValueError(msg)
