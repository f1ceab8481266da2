"""Finds the same objects in two catalogues by their positions, so that they become rows of several modalities."""

__all__ = ["Matches", "crossmatch"]

from typing import NamedTuple

import numpy as np


class Matches(NamedTuple):
    """Holds the pairs that two catalogues have in common, in the order of the first.

    Arguments:
        first: rows of the first catalogue, `(M,)`.
        second: rows of the second, `(M,)`; no row is in two pairs.
        separation: in arcsec, `(M,)`.
    """

    first: np.ndarray
    second: np.ndarray
    separation: np.ndarray


def crossmatch(first: np.ndarray, second: np.ndarray, radius: float = 1.0) -> Matches:
    """Pairs objects that are each other's nearest neighbour on the sky.

    Arguments:
        first: right ascension and declination in ICRS degrees, `(N, 2)`. A position that is not finite has no match.
        second: likewise, `(M, 2)`.
        radius: largest separation in arcsec.

    Raises:
        ValueError: for other shapes, declinations beyond the poles, or a radius that is not above 0.
    """
    from astropy import units
    from astropy.coordinates import SkyCoord

    if not 0 < radius < 3600 * 180:
        msg = f"crossmatch: wanted a radius above 0 in arcsec, given {radius}"
        raise ValueError(msg)
    places, rows = [], []
    for name, value in (("first", first), ("second", second)):
        value = np.asarray(value, dtype=np.float64)
        if value.ndim != 2 or value.shape[1] != 2:
            msg = f"crossmatch: {name} must be (N, 2), right ascension and declination, given {value.shape}"
            raise ValueError(msg)
        known = np.flatnonzero(np.isfinite(value).all(axis=1))
        if (np.abs(value[known, 1]) > 90).any():
            msg = f"crossmatch: {name} has declinations beyond the poles: are ra and dec swapped, or not in degrees?"
            raise ValueError(msg)
        rows.append(known)
        places.append(SkyCoord(*value[known].T, unit=units.deg))
    if not len(rows[0]) or not len(rows[1]):
        return Matches(*(np.zeros(0, dtype=np.int64),) * 2, np.zeros(0))
    forth, apart, _ = places[0].match_to_catalog_sky(places[1])
    back = places[1].match_to_catalog_sky(places[0])[0]
    apart = apart.arcsec
    mutual = (back[forth] == np.arange(len(forth))) & (apart <= radius)
    return Matches(rows[0][mutual], rows[1][forth[mutual]], apart[mutual])
