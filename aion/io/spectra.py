"""Reads spectra of DESI, of MaNGA and of files made of WAVE, FLUX and IVAR images.

Every reader takes an open file and returns observations in canonical units. Where a file states no unit, the unit of
its survey's data model holds (1e-17 erg/s/cm2/Angstrom); a file of no survey needs `unit=`.
"""

__all__ = [
    "NOISE",
    "desi_coadd_ids",
    "fits_spectrum_ids",
    "is_desi_coadd",
    "is_fits_spectrum",
    "is_manga",
    "manga_ids",
    "manga_redshift",
    "read_desi_coadd",
    "read_fits_spectrum",
    "read_manga",
]

import numpy as np

from aion.io.fits import FitsFile, row_names
from aion.io.quantities import assemble, canonical
from aion.io.units import FLUX_UNIT, medium_of
from aion.observations import Observation

_WAVELENGTHS = ("WAVE", "WAVELENGTH", "LAMBDA", "LOGLAM")
# Name of the noise image -> what it is.
NOISE = {
    "IVAR": "ivar",
    "INVVAR": "ivar",
    "VAR": "var",
    "VARIANCE": "var",
    "ERR": "std",
    "ERROR": "std",
    "SIGMA": "std",
    "STD": "std",
}


def _image_names(file: object) -> set[str]:
    return {name for name in file.names if not file.is_table(name)} if isinstance(file, FitsFile) else set()


# --- DESI -------------------------------------------------------------------------------------------------------------


def _arms(file: object) -> list[str]:
    names = _image_names(file)
    arms = [name.removesuffix("_WAVELENGTH") for name in getattr(file, "names", ()) if name.endswith("_WAVELENGTH")]
    return [arm for arm in arms if {f"{arm}_WAVELENGTH", f"{arm}_FLUX"} <= names]


def is_desi_coadd(file: object) -> bool:
    """Tells a DESI coadd or spectra file: at least one arm with its wavelength, flux and ivar."""
    return any(f"{arm}_IVAR" in file.names for arm in _arms(file))


def read_desi_coadd(file: FitsFile) -> dict[str, Observation]:
    """Reads the arms of DESI coadds, each on its native grid, joined in order of wavelength.

    Where arms overlap the pixels of both are kept, the bluer arm's first. MASK != 0 becomes ivar 0. The resolution
    matrices and the tables of exposures are not read.

    References:
        The Early Data Release of the Dark Energy Spectroscopic Instrument (DESI Collaboration, 2024), arXiv:2306.06308
    """
    if not (arms := _arms(file)):
        msg = f"it has no arm with B_WAVELENGTH and B_FLUX or the like; it has {', '.join(file.names)}"
        raise ValueError(msg)
    parts = []
    for arm in arms:
        parts.append(
            canonical(
                file.array(f"{arm}_FLUX"),
                file.array(f"{arm}_WAVELENGTH"),
                file.array(f"{arm}_IVAR"),
                file.unit(f"{arm}_FLUX"),
                bad=file.array(f"{arm}_MASK") != 0 if f"{arm}_MASK" in file.names else None,
            )
        )
    flux, ivar, wavelength = (
        np.concatenate([getattr(p, n) for p in parts], axis=1) for n in ("flux", "ivar", "wavelength")
    )
    return {"desi_spectrum": assemble(flux, ivar, wavelength)}


def desi_coadd_ids(file: FitsFile, name: str) -> list[str]:
    """Returns the TARGETIDs of a DESI coadd, the file's name and the row if it has none."""
    if "FIBERMAP" in file.names and "targetid" in file.columns("FIBERMAP"):
        return [str(i) for i in file.column("FIBERMAP", "TARGETID")]
    return row_names(name, file.shape(f"{_arms(file)[0]}_FLUX")[:-1])


# --- MaNGA, and images of WAVE, FLUX and IVAR -------------------------------------------------------------------------


def is_manga(file: object) -> bool:
    """Tells a file of MaNGA spectra: WAVE, FLUX, IVAR and MASK with the spectral resolution or the redshift."""
    names = _image_names(file)
    return {"WAVE", "FLUX", "IVAR", "MASK"} <= names and bool({"SRES", "Z"} & names)


def read_manga(file: FitsFile) -> dict[str, Observation]:
    """Reads spectra on MaNGA's grid, linear in log10 of vacuum wavelength. MASK != 0 becomes ivar 0.

    The redshift in the file is a label and not an observation: see `aion.io.read_redshift`.

    References:
        The Data Reduction Pipeline for the SDSS-IV MaNGA IFU Galaxy Survey (Law et al., 2016), arXiv:1607.08619
    """
    flux, wavelength, ivar, mask = (file.array(name) for name in ("FLUX", "WAVE", "IVAR", "MASK"))
    return {"sdss_spectrum": canonical(flux, wavelength, ivar, file.unit("FLUX"), bad=mask != 0)}


def manga_ids(file: FitsFile, name: str) -> list[str]:
    """Returns the file's name and the row: the spectra carry no identifiers."""
    return row_names(name, file.shape("FLUX")[:-1])


def manga_redshift(file: FitsFile) -> np.ndarray:
    """Reads the redshifts in the HDU Z."""
    return file.array("Z")


def is_fits_spectrum(file: object) -> bool:
    """Tells a file with images FLUX, the wavelength and the noise."""
    names = _image_names(file)
    return "FLUX" in names and bool(names & set(_WAVELENGTHS)) and bool(names & set(NOISE))


def read_fits_spectrum(
    file: FitsFile, unit: str | None = None, wavelength_unit: str | None = None, medium: str | None = None
) -> dict[str, Observation]:
    """Reads images FLUX `(L,)` or `(B, L)`, WAVE (or WAVELENGTH, LAMBDA, LOGLAM) and IVAR (or VAR, ERR), MASK if any.

    Raises:
        ValueError: if flux or wavelength have no unit, in the file or as `unit=` and `wavelength_unit=`.
    """
    wave = next((name for name in _WAVELENGTHS if name in file.names), "WAVE")
    wavelength, given = file.array(wave), wavelength_unit or file.unit(wave)
    if wave == "LOGLAM":
        wavelength, given = 10.0 ** wavelength.astype(np.float64), wavelength_unit or "Angstrom"
    unit = unit or file.unit("FLUX")
    for name, found, option in (("FLUX", unit, f"unit={FLUX_UNIT!r}"), (wave, given, "wavelength_unit='Angstrom'")):
        if found is None:
            msg = f"HDU {name!r} has no BUNIT: give {option} or whatever it is"
            raise ValueError(msg)
    noise = next((name for name in file.names if name in NOISE), "IVAR")
    bad = file.array("MASK") != 0 if "MASK" in file.names else None
    medium = medium or medium_of(file.header(wave)) or medium_of(file.header(file.names[0]))
    flux, ivar = file.array("FLUX"), file.array(noise)
    return {"spectrum": canonical(flux, wavelength, ivar, unit, NOISE[noise], bad, medium, given)}


def fits_spectrum_ids(file: FitsFile, name: str) -> list[str]:
    """Returns the file's name, with the row where it holds several spectra."""
    return row_names(name, file.shape("FLUX")[:-1])
