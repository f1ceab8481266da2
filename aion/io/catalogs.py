"""Reads catalogues: redshifts (redrock); photometry, shapes and neighbours of the Legacy Surveys (Tractor, sweeps)."""

__all__ = [
    "is_redrock",
    "is_tractor",
    "neighbours",
    "read_redrock",
    "read_tractor",
    "redrock_ids",
    "redrock_redshift",
    "tractor_ids",
]

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from aion.catalog import Catalog
from aion.io.fits import FitsFile, row_names
from aion.io.tables import column, column_names
from aion.observations import Observation, Scalar

if TYPE_CHECKING:
    from astropy.table import Table

_BANDS = ("g", "r", "i", "z", "w1", "w2", "w3", "w4")
# Column of the catalogue -> modality.
_PLAIN = {"ebv": "legacysurvey_ebv", "ra": "ra", "dec": "dec"}
_SHAPES = ("shape_r", "shape_e1", "shape_e2")


def is_redrock(file: object) -> bool:
    """Tells a redrock file by its table REDSHIFTS."""
    return isinstance(file, FitsFile) and "REDSHIFTS" in file.names and "z" in file.columns("REDSHIFTS")


def read_redrock(file: FitsFile) -> dict[str, Observation]:
    """Reads the best redshift of every target. Those with a warning (ZWARN) are given as they are."""
    return {"redshift": Scalar(_finite(redrock_redshift(file)))}


def redrock_redshift(file: FitsFile) -> np.ndarray:
    """Reads the best redshift of every target."""
    return file.column("REDSHIFTS", "Z")


def redrock_ids(file: FitsFile, name: str) -> list[str]:
    """Returns the TARGETIDs."""
    if "targetid" in file.columns("REDSHIFTS"):
        return [str(i) for i in file.column("REDSHIFTS", "TARGETID")]
    return row_names(name, file.shape("REDSHIFTS"))


def is_tractor(file: object) -> bool:
    """Tells a Tractor or sweep catalogue: positions, and a flux of the Legacy Surveys with its inverse variance."""
    names = set(column_names(file))
    return {"ra", "dec"} <= names and any({f"flux_{b}", f"flux_ivar_{b}"} <= names for b in _BANDS)


def read_tractor(file: "FitsFile | Table") -> dict[str, Observation]:
    """Reads rows of a Tractor or sweep catalogue.

    Given are those columns that the catalogue has: fluxes in nanomaggy as observed (not corrected for Galactic dust),
    NaN where the inverse variance is 0; E(B-V) in magnitudes; half-light radius in arcsec and the two components of
    the ellipticity, NaN where the profile fixes them (inverse variance 0, or values of exactly 0: a point source has no
    size and no shape, a round galaxy no ellipticity); position in ICRS degrees.

    Raises:
        ValueError: if there is a flux without its inverse variance, or no flux at all.

    References:
        Overview of the DESI Legacy Imaging Surveys (Dey et al., 2019), arXiv:1804.08657
    """
    names, result = column_names(file), {}
    for band in _BANDS:
        if f"flux_{band}" in names:
            flux, ivar = column(file, f"flux_{band}"), column(file, f"flux_ivar_{band}")
            measured = np.isfinite(ivar) & (ivar > 0)
            result[f"legacysurvey_flux_{band}"] = Scalar(_finite(np.where(measured, flux, np.nan)))
    if not result:
        msg = f"it has no flux of the Legacy Surveys; wanted columns such as {'flux_' + _BANDS[0]!r}"
        raise ValueError(msg)
    for name, modality in _PLAIN.items():
        if name in names:
            result[modality] = Scalar(_finite(column(file, name)))
    return {**result, **{f"legacysurvey_{name}": Scalar(value) for name, value in _shapes(file, names).items()}}


def _shapes(file: "FitsFile | Table", names: tuple[str, ...]) -> dict[str, np.ndarray]:
    """Reads the shapes; catalogues before the ninth release have one column per profile, chosen by TYPE.

    A composite of two profiles has no single shape: NaN.
    """
    if set(_SHAPES) <= set(names):
        return _fitted({name: _shape(file, names, name) for name in _SHAPES})
    old = {p: [name.replace("shape", f"shape{p}") for name in _SHAPES] for p in ("dev", "exp")}
    if not {"type", *old["dev"], *old["exp"]} <= set(names):
        return {}
    kind = np.char.strip(column(file, "type").astype(str))
    result = {}
    for name, dev, exp in zip(_SHAPES, old["dev"], old["exp"], strict=True):
        value = np.where(kind == "DEV", _shape(file, names, dev), _shape(file, names, exp))
        result[name] = _finite(np.where(np.isin(kind, ("COMP", "DUP")), np.nan, value))
    return _fitted(result)


def _fitted(shape: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Keeps what was fitted, also where no inverse variance says so: a point has radius 0, a round profile e1 = e2 = 0.

    No fit ends at exactly 0, but everything that is not resolved does.
    """
    radius, e1, e2 = (shape[name] for name in _SHAPES)
    point = ~(radius > 0)
    lost = dict(zip(_SHAPES, (point, *[point | ((e1 == 0) & (e2 == 0))] * 2), strict=True))
    return {name: np.where(lost[name], np.nan, value) for name, value in shape.items()}


def _shape(file: "FitsFile | Table", names: tuple[str, ...], name: str) -> np.ndarray:
    """Reads one component of the shape; NaN where it was not fitted but fixed by the profile."""
    value = _finite(column(file, name))
    if (ivar := f"{name}_ivar") in names:
        value[~(column(file, ivar) > 0)] = np.nan
    return value


def tractor_ids(file: "FitsFile | Table", name: str) -> list[str]:
    """Returns RELEASE-BRICKID-OBJID, which is unique, or the file's name and the row."""
    parts = ("release", "brickid", "objid")
    if set(parts) <= set(column_names(file)):
        return ["-".join(map(str, row)) for row in zip(*(column(file, p) for p in parts), strict=True)]
    return row_names(name, (len(column(file, "ra")),))


def _finite(value: np.ndarray) -> np.ndarray:
    """Makes everything that is not a finite number NaN, "not measured"."""
    value = np.asarray(value, dtype=np.float64)
    return np.where(np.isfinite(value), value, np.nan)


def neighbours(file: "FitsFile | Table", radius: float, rows: Sequence[int] | None = None) -> Catalog:
    """Lists what a Tractor or sweep catalogue has around objects of its own, those included.

    Arguments:
        file: the catalogue.
        radius: largest distance from the target in arcsec, less than a degree.
        rows: of the targets; all by default.

    Returns:
        Ellipses in the order of the catalogue, positive x to the west and positive y to the north as in an image of the
        Legacy Surveys. Those without a position or a shape are left out; a point has radius 0.

    Raises:
        ValueError: for a column that is missing, a radius or rows that mean nothing, or no object at all.
    """
    if not 0 < radius < 3600:
        msg = f"neighbours: wanted a radius above 0 and below 3600 arcsec, given {radius}"
        raise ValueError(msg)
    ra, dec, r, e1, e2 = (_finite(column(file, name)) for name in ("ra", "dec", *_SHAPES))
    known = np.isfinite(ra + dec + r + e1 + e2)
    order = np.flatnonzero(known)[np.argsort(dec[known], kind="stable")]
    found = []
    rows = range(len(ra)) if rows is None else rows
    if len(rows) == 0 or min(rows) < 0 or max(rows) >= len(ra):
        msg = f"neighbours: wanted at least one row, from 0 to {len(ra) - 1}, given {list(rows)}"
        raise ValueError(msg)
    for row in rows:
        low, high = np.searchsorted(dec[order], dec[row] + np.array([-1, 1]) * radius / 3600)
        near = np.sort(order[low:high])
        east = (ra[near] - ra[row] + 180) % 360 - 180
        x, y = -3600 * east * np.cos(np.radians(dec[row])), 3600 * (dec[near] - dec[row])
        inside = np.hypot(x, y) <= radius
        found.append(np.stack([x, y, e1[near], e2[near], r[near]])[:, inside])
    columns = np.full((5, len(found), max((f.shape[1] for f in found), default=0) or 1), np.nan)
    for i, values in enumerate(found):
        columns[:, i, : values.shape[1]] = values
    return Catalog(*columns)
