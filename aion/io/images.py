"""Reads FITS image cut-outs: nanomaggy from BUNIT or a zero point, arcsec per pixel from the WCS, bands by name.

A file holds a plane per band: a cube, or an image HDU for each. The noise is an HDU of the same shape called IVAR,
INVVAR, WHT (a weight: inverse variance), VARIANCE or ERR. One nanomaggy is the flux of AB magnitude 22.5, so a pixel p
of an image with zero point z holds p 10^((22.5 - z) / 2.5) nanomaggy.
"""

__all__ = ["image_ids", "is_image", "read_image"]

import re

from collections.abc import Sequence

import numpy as np

from aion.io.fits import FitsFile, number
from aion.io.units import parse_unit
from aion.observations import BANDS, Image, Observation, near_miss

# Name of an HDU of noise -> power of the standard deviation that it holds.
_NOISE = {"IVAR": -2, "INVVAR": -2, "WHT": -2, "WEIGHT": -2, "VAR": 2, "VARIANCE": 2, "ERR": 1, "ERROR": 1, "SIGMA": 1}
_MASKS = ("MASK", "DQ", "FLAGS", "MASKBITS")
# Mask planes of HSC and LSST that make a pixel useless; the others (DETECTED, INEXACT_PSF, ...) do not.
_BAD_PLANES = ("BAD", "CR", "NO_DATA", "SAT", "UNMASKEDNAN")
_ZERO_POINTS = ("MAGZERO", "MAGZPT", "MAGZP", "ZEROPT", "PHOTZP", "ZP")
_INSTRUMENTS = ("INSTRUME", "CAMERA", "DETECTOR", "TELESCOP", "SURVEY", "ORIGIN")
# What those keywords say -> first part of the names of the bands.
_SURVEYS = {
    "decam": "decam",
    "hsc": "hsc",
    "hypersuprime": "hsc",
    "sdss": "sdss",
    "gpc1": "panstarrs",
    "ps1": "panstarrs",
    "panstarrs": "panstarrs",
    "90prime": "bass",
    "mosaic3": "mzls",
    "wise": "wise",
}
_LEGACY = ("LEGACYSURVEY", "DECALS")


def is_image(file: object) -> bool:
    """Tells a file with an image or a cube that has a celestial WCS."""
    return isinstance(file, FitsFile) and any(_is_celestial(file.header(name)) for name in _planes(file))


def _planes(file: FitsFile) -> list[str]:
    """Returns the names of the HDUs that hold flux: images of two or three axes that are neither noise nor mask."""
    flux = [n for n in file.names if not file.is_table(n) and len(file.shape(n)) in {2, 3}]
    return [n for n in flux if _role(file, n) not in (*_NOISE, *_MASKS)]


def _role(file: FitsFile, name: str) -> str:
    """Returns what an HDU is called: by IMAGETYP where the Legacy Surveys' cut-outs say it, else by its name."""
    kind = str(file.header(name).get("IMAGETYP", "")).strip().upper()
    return kind if kind in (*_NOISE, *_MASKS) else name.split(":")[0]


def _is_celestial(header: dict) -> bool:
    axes = (str(header.get(f"CTYPE{i}", "")).upper() for i in (1, 2))
    return all(re.match(r"(RA--|DEC-|[GE]LON|[GE]LAT)", axis) for axis in axes)


def read_image(
    file: FitsFile,
    bands: Sequence[str] | None = None,
    unit: str | None = None,
    zero_point: float | None = None,
    pixel_scale: float | None = None,
    ivar: str | None = None,
) -> dict[str, Observation]:
    """Reads a cut-out as one image of all its bands, called after the survey of its bands.

    Not finite pixels and those of a mask get ivar 0. Planes of one file must have one shape.

    Arguments:
        file: the open file.
        bands: their names in the order of the planes, such as `("decam-g", "decam-r")`; by default from the header.
        unit: unit of the pixels, if the header does not say: "nanomaggy" or a flux density such as "uJy".
        zero_point: AB magnitude of one unit of the pixels, if the header does not say.
        pixel_scale: arcsec per pixel; by default from the WCS.
        ivar: `"estimate"` to take it from the scatter between neighbouring pixels if the file has none.

    Raises:
        ValueError: if bands, unit, pixel scale or noise are neither in the file nor given.
    """
    if not (names := _planes(file)):
        msg = f"it has no image; it has {', '.join(file.names)}"
        raise ValueError(msg)
    scale = pixel_scale or _pixel_scale(file.header(names[0]))
    flux, inverse, labels = [], [], []
    for i, name in enumerate(names):
        header = _merged(file, name)
        cube = file.array(name).astype(np.float64)
        cube = cube if cube.ndim == 3 else cube[None]
        factor = _factor(header, unit, zero_point, scale)
        noise = _ivar(file, i, cube, ivar)
        flux.append(cube * factor)
        inverse.append(np.where(np.isfinite(cube) & np.isfinite(noise) & ~_bad(file, i, cube), noise, 0.0) / factor**2)
        labels.extend(_bands(header, len(cube)) if bands is None else [])
    if len({plane.shape[1:] for plane in flux}) > 1:
        msg = f"its images differ in shape: {', '.join(f'{n} {file.shape(n)}' for n in names)}"
        raise ValueError(msg)
    labels = tuple(labels) if bands is None else bands
    flux, inverse = (np.concatenate(planes)[None] for planes in (flux, inverse))
    image = Image(flux=np.where(inverse > 0, flux, 0.0), ivar=inverse, bands=labels, pixel_scale=scale)
    survey = image.bands[0].split("-")[0]
    return {f"{'legacysurvey' if survey in {'decam', 'bass', 'mzls'} else survey}_image": image}


def image_ids(file: FitsFile, name: str) -> list[str]:
    """Returns the OBJECT of the header, or the file's name."""
    return [str(_merged(file, _planes(file)[0]).get("OBJECT", "")).strip() or name]


def _merged(file: FitsFile, name: str) -> dict:
    """Joins the primary header and that of an HDU, which has the last word."""
    return {**file.header(file.names[0]), **file.header(name)}


def _pixel_scale(header: dict) -> float:
    from astropy.wcs import WCS
    from astropy.wcs.utils import proj_plane_pixel_area

    if not _is_celestial(header):
        msg = "its header has no celestial WCS: give pixel_scale= in arcsec per pixel"
        raise ValueError(msg)
    return float(np.sqrt(proj_plane_pixel_area(WCS(header, naxis=2).celestial)) * 3600)


def _factor(header: dict, unit: str | None, zero_point: float | None, scale: float) -> float:
    """Returns what turns a pixel into nanomaggy: from what is given, else BUNIT, else a zero point in the header."""
    if unit and zero_point is not None:
        msg = f"wanted one of unit= and zero_point=, given {unit!r} and {zero_point!r}"
        raise ValueError(msg)
    text = unit or str(header.get("BUNIT", "")).strip()
    if not text and any(s in str(header.get("SURVEY", "")).upper() for s in _LEGACY) and abs(scale - 0.262) < 0.001:
        text = "nanomaggy"  # the survey's own pixels; resampled to others they are something else
    if zero_point is None:
        if text and (factor := _linear(text, scale)) is not None:
            return factor
        known = (number(header, key) for key in _ZERO_POINTS)
        zero_point = None if unit else next((value for value in known if value is not None), None)
        if zero_point is None and not unit and (number(header, "FLUXMAG0") or 0) > 0:
            zero_point = 2.5 * np.log10(number(header, "FLUXMAG0"))  # HSC: what an object of AB magnitude 0 gives
    if zero_point is None:
        given = f"the unit {text!r}" if text else "neither BUNIT nor a zero point"
        msg = f"wanted pixels in nanomaggy or Jy, or an AB zero point; given {given}: give unit= or zero_point="
        raise ValueError(msg)
    return 10.0 ** ((22.5 - float(zero_point)) / 2.5)


def _linear(text: str, scale: float) -> float | None:
    """Converts a flux density, or a surface brightness of it, to nanomaggy per pixel; None for counts and the like."""
    from astropy import units

    pixel = (scale * units.arcsec) ** 2
    for area in (1.0, pixel):
        try:
            return float((1 * parse_unit(text) * area).to_value(units.nmgy, units.zero_point_flux(3631 * units.Jy)))
        except (ValueError, TypeError):
            continue
    return None


def _ivar(file: FitsFile, index: int, cube: np.ndarray, ivar: str | None) -> np.ndarray:
    """Returns the inverse variance of the planes of one HDU, in the unit of its pixels."""
    noise = [n for n in file.names if _role(file, n) in _NOISE]
    if noise:
        name, value = _partner(file, noise, index, cube)
        value, power = value.astype(np.float64), _NOISE[_role(file, name)]
        if power == -2:
            return value
        with np.errstate(divide="ignore"):
            value = np.sign(value) * np.abs(value) ** (-2.0 / power)
        return np.where(np.isfinite(value), value, 0.0)
    if ivar == "estimate":
        return np.stack([_estimate(plane) for plane in cube])
    msg = (
        f"it has no inverse variance (wanted an HDU called {', '.join(_NOISE)}, given {', '.join(file.names)}); "
        'give ivar="estimate" to take it from the scatter between pixels'
    )
    if ivar is not None:
        msg = f'ivar: wanted "estimate" or nothing, given {ivar!r}'
    raise ValueError(msg)


def _partner(file: FitsFile, names: list[str], index: int, cube: np.ndarray) -> tuple[str, np.ndarray]:
    """Reads the noise or mask HDU that belongs to the flux HDU of this number; one plane may serve a whole cube."""
    name = names[index] if index < len(names) else ""
    if not name or file.shape(name) not in {cube.shape, cube.shape[-2:], (1, *cube.shape[-2:])}:
        given = f"{name!r} of shape {file.shape(name)}" if name else f"only {', '.join(names)}"
        msg = f"wanted a noise or mask for each image, for image {index} with the shape {cube.shape}; given {given}"
        raise ValueError(msg)
    return name, np.broadcast_to(file.array(name), cube.shape)


def _estimate(plane: np.ndarray) -> np.ndarray:
    """Estimates the inverse variance from second differences between pixels, in which smooth light cancels."""
    steps = np.concatenate([np.abs(np.diff(plane, n=2, axis=axis)).ravel() for axis in (0, 1)])
    steps = steps[np.isfinite(steps)]
    scatter = np.median(steps) / (0.6745 * np.sqrt(6.0)) if len(steps) else 0.0
    if not scatter > 0:
        msg = "ivar='estimate': neighbouring pixels do not scatter, so there is no noise to estimate"
        raise ValueError(msg)
    return np.full(plane.shape, scatter**-2.0)


def _bad(file: FitsFile, index: int, cube: np.ndarray) -> np.ndarray:
    """Returns True for the pixels that a mask makes useless: chosen planes of HSC's, any bit of another's."""
    masks = [n for n in file.names if _role(file, n) in _MASKS and not file.is_table(n)]
    if not masks:
        return np.zeros(cube.shape, bool)
    name, mask = _partner(file, masks * (index + 1) if len(masks) == 1 else masks, index, cube)
    mask, header = mask.astype(np.int64), file.header(name)
    planes = {key[3:]: int(number(header, key)) for key in header if key.startswith("MP_")}
    bits = sum(1 << bit for plane, bit in planes.items() if plane in _BAD_PLANES)
    return (mask & bits if planes else mask) != 0


def _bands(header: dict, count: int) -> list[str]:
    """Names the bands of an HDU from FILTER, BAND or BANDS and the instrument."""
    texts = [header[f"BAND{i}"] for i in range(count)] if all(f"BAND{i}" in header for i in range(count)) else []
    if not texts:
        keys = [
            key for key in ("FILTER", "BAND", "HIERARCH FPA.FILTER", "FPA.FILTER", "BANDS", "FILTERS") if key in header
        ]
        text = str(header[keys[0]]).strip() if keys else ""
        texts = re.split(r"[\s,;]+", text) if len(re.split(r"[\s,;]+", text)) == count > 1 else list(text)[:count]
        texts = [text] if count == 1 else texts
    if len(texts) != count or not all(str(text).strip() for text in texts):
        msg = f"its header names no filter for {count} image(s): give bands=, such as ('decam-g', 'decam-r')"
        raise ValueError(msg)
    return [_band(str(text).strip().lower(), header) for text in texts]


def _band(text: str, header: dict) -> str:
    """Names one band from what a header says of the filter, such as "hsc-r2" or "g decam sdss c0001 4720.0 1520.0"."""
    if text in BANDS:
        return text
    found = set()
    for source in (" ".join(str(header.get(key, "")) for key in _INSTRUMENTS), text):
        words = re.sub(r"[-_\s]", "", source.lower())
        found = found or {prefix for word, prefix in _SURVEYS.items() if word in words}
    letter = re.match(r"(?:hsc-|sdss-)?(w[1-4]|[a-z])(?=$|[\d._\s-])", text)
    if letter and not found and any(s in str(header.get("SURVEY", "")).upper() for s in _LEGACY):
        found = {_legacy_camera(letter[1], header)}
    names = {f"{prefix}-{letter[1]}" for prefix in found} & set(BANDS) if letter else set()
    if len(names) != 1:
        msg = f"cannot tell the band of filter {text!r}: give bands=, one name per image; {near_miss(text, BANDS)}"
        raise ValueError(msg)
    return names.pop()


def _legacy_camera(letter: str, header: dict) -> str:
    """Tells the camera of a Legacy Surveys image: north of declination 32.375 in the north Galactic cap BASS and MzLS.

    References:
        Overview of the DESI Legacy Imaging Surveys (Dey et al., 2019), arXiv:1804.08657
    """
    from astropy import units
    from astropy.coordinates import SkyCoord

    place = SkyCoord(number(header, "CRVAL1"), number(header, "CRVAL2"), unit=units.deg)
    if place.dec.deg < 32.375 or place.galactic.b.deg < 0:
        return "decam"
    return "mzls" if letter == "z" else "bass"
