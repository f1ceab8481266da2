"""Reads spectra of SDSS: the official `spec-PLATE-MJD-FIBER.fits`, and images on a grid linear in log10 wavelength."""

__all__ = [
    "is_sdss_loglam",
    "is_sdss_spec",
    "read_sdss_loglam",
    "read_sdss_spec",
    "sdss_loglam_ids",
    "sdss_spec_ids",
    "sdss_spec_redshift",
]

import numpy as np

from aion.io.fits import FitsFile, number, row_names
from aion.io.quantities import canonical
from aion.io.spectra import NOISE
from aion.io.units import FLUX_UNIT, medium_of
from aion.observations import Observation


def is_sdss_spec(file: object) -> bool:
    """Tells an SDSS or BOSS `spec-PLATE-MJD-FIBER.fits` file by its COADD table."""
    return (
        isinstance(file, FitsFile)
        and "COADD" in file.names
        and {"flux", "loglam", "ivar"} <= set(file.columns("COADD"))
    )


def read_sdss_spec(file: FitsFile) -> dict[str, Observation]:
    """Reads the coadded spectrum of a `spec-PLATE-MJD-FIBER.fits` file.

    Wavelengths are vacuum, `10**loglam`. Pixels that are bad in every exposure (`and_mask != 0`) get ivar 0.

    References:
        The Eighth Data Release of the Sloan Digital Sky Survey (Aihara et al., 2011), arXiv:1101.1559
    """
    flux, loglam, ivar = (file.column("COADD", name) for name in ("flux", "loglam", "ivar"))
    bad = file.column("COADD", "and_mask") != 0
    wavelength = 10.0 ** loglam.astype(np.float64)
    return {"sdss_spectrum": canonical(flux, wavelength, ivar, file.unit("COADD", "flux"), bad=bad)}


def sdss_spec_ids(file: FitsFile, name: str) -> list[str]:
    """Returns PLATE-MJD-FIBER as in the file's name, or the file's name if the header does not say."""
    header = file.header(file.names[0])
    parts = [number(header, key) for key in ("PLATEID", "MJD", "FIBERID")]
    return [name] if None in parts else ["{:04d}-{:05d}-{:04d}".format(*map(int, parts))]


def sdss_spec_redshift(file: FitsFile) -> np.ndarray:
    """Reads the pipeline's redshift from the table SPALL (BOSS) or SPECOBJ (SDSS)."""
    for name in ("SPALL", "SPECOBJ"):
        if name in file.names:
            return file.column(name, "Z")
    msg = "it has no table SPALL or SPECOBJ, where the pipeline's redshift would be"
    raise ValueError(msg)


def _log_grid(file: FitsFile) -> np.ndarray | None:
    """Returns the wavelengths of a primary image whose header describes a grid linear in log10, None if it does not."""
    header, shape = file.header(file.names[0]), file.shape(file.names[0])
    if not shape or shape[0] < 1:
        return None
    pixel = np.arange(shape[-1])
    if "COEFF0" in header and "COEFF1" in header:
        return 10.0 ** (number(header, "COEFF0") + number(header, "COEFF1") * pixel)
    step, start = number(header, "CD1_1", number(header, "CDELT1")), number(header, "CRVAL1")
    logarithmic = header.get("DC-FLAG") == 1 or "LOG" in str(header.get("CTYPE1", "")).upper()
    if step is None or start is None or not logarithmic or not 2 < start < 6:
        return None
    return 10.0 ** (start + step * (pixel + 1 - number(header, "CRPIX1", 1.0)))


def is_sdss_loglam(file: object) -> bool:
    """Tells a file with the flux as primary image and a grid linear in log10 wavelength in its header."""
    return isinstance(file, FitsFile) and not file.is_table(file.names[0]) and _log_grid(file) is not None


def read_sdss_loglam(file: FitsFile, unit: str | None = None) -> dict[str, Observation]:
    """Reads a primary image of flux on a grid linear in log10 wavelength, with its noise in another HDU.

    If the noise image has no name, its meaning is found in the data: the scatter between neighbouring pixels of the
    flux must agree with it either as an inverse variance or as a standard deviation. A 0/1 image without a name is a
    mask whose bad value is that of the pixels without noise. Wavelengths are vacuum unless the header says air.

    Raises:
        ValueError: if there is no unit, no noise image, or one whose meaning the data do not tell.
    """
    wavelength = _log_grid(file)
    if wavelength is None:
        msg = "its primary header describes no grid linear in log10 wavelength (COEFF0 and COEFF1, or CRVAL1 and CD1_1)"
        raise ValueError(msg)
    header, flux = file.header(file.names[0]), file.array(file.names[0])
    unit = unit or file.unit(file.names[0])
    if unit is None:
        msg = f"its primary header has no BUNIT: give unit=, for example {FLUX_UNIT!r}"
        raise ValueError(msg)
    images = {n: file.array(n) for n in file.names[1:] if file.shape(n) == flux.shape and not file.is_table(n)}
    grid = np.log10(wavelength)
    images = {n: a for n, a in images.items() if not (np.allclose(a, grid) or np.allclose(a, wavelength))}
    noise, kind = _noise_image(flux, images)
    bad = _binary_mask(noise, images)
    spectrum = canonical(flux, wavelength, noise, unit, kind, bad, medium_of(header))
    survey = "sdss_spectrum" if "SDSS" in str(header.get("TELESCOP", "")).upper() else "spectrum"
    return {survey: spectrum}


def _noise_image(flux: np.ndarray, images: dict[str, np.ndarray]) -> tuple[np.ndarray, str]:
    """Finds the noise among images of one shape, and what it is, by its name or else by the data."""
    for name, image in images.items():
        if name in NOISE:
            return image, NOISE[name]
    for name, image in images.items():
        if image.dtype.kind != "f" or not (good := np.isfinite(flux) & np.isfinite(image) & (image > 0)).any():
            continue
        # Second differences of pure noise with these errors, in units of their expectation: 1 for the right meaning.
        scatter = {}
        for kind, variance in (("ivar", 1 / image[good]), ("std", image[good] ** 2.0)):
            expected = np.convolve(variance, (1.0, 4.0, 1.0), mode="valid") ** 0.5
            scatter[kind] = abs(np.log(np.median(np.abs(np.diff(flux[good], n=2)) / expected) / 0.6745))
        best, other = sorted(scatter, key=scatter.get)
        if scatter[best] > np.log(3) or scatter[other] - scatter[best] < np.log(2):
            msg = f"HDU {name!r} has no name, and the data do not tell whether it is an inverse variance or an error"
            raise ValueError(msg)
        return image, best
    msg = "it has no image of the noise (IVAR, ERR or one without a name) with the shape of the flux"
    raise ValueError(msg)


def _binary_mask(noise: np.ndarray, images: dict[str, np.ndarray]) -> np.ndarray | None:
    """Finds an image of 0 and 1 and returns it as True for bad."""
    for name, image in images.items():
        if image.dtype.kind not in "iub" or not np.isin(image, (0, 1)).all():
            continue
        values = np.unique(image[~(noise > 0)])
        if len(values) == 1 and (image == values[0]).mean() < 0.5:
            return image == values[0]
        if len(np.unique(image)) > 1:
            msg = f"HDU {name!r} looks like a mask, and the data do not tell whether 0 or 1 is bad"
            raise ValueError(msg)
    return None


def sdss_loglam_ids(file: FitsFile, name: str) -> list[str]:
    """Returns the file's name, with the row where the primary image holds several spectra."""
    return row_names(name, file.shape(file.names[0])[:-1])
