"""Numbers the pixels of HEALPix, which cut the sphere in 12 diamonds and each of them, again and again, in four.

Order k has 12 * 4**k pixels of equal area. In the nested scheme a pixel's number at a lower order is its number at a
higher one without the last two bits of each order between, so that numbers at order 29 sort objects along the sky.

References:
    HEALPix: a framework for high-resolution discretization and fast analysis of data distributed on the sphere
    (Gorski et al., 2005), arXiv:astro-ph/0409513
"""

__all__ = ["DEEPEST", "pixels"]

import numpy as np

DEEPEST = 29  # the last order whose numbers 64 bits hold


def pixels(ra: np.ndarray, dec: np.ndarray, order: int = DEEPEST) -> np.ndarray:
    """Computes the nested pixel `(N,)` of positions in ICRS degrees `(N,)`; -1 where a position is not finite.

    Raises:
        ValueError: for an order beyond `DEEPEST`, or declinations beyond the poles.
    """
    if not 0 <= order <= DEEPEST:
        msg = f"wanted an order from 0 to {DEEPEST}, given {order}"
        raise ValueError(msg)
    ra, dec = (np.asarray(value, dtype=np.float64) for value in (ra, dec))
    known = np.isfinite(ra) & np.isfinite(dec)
    if (np.abs(dec[known]) > 90).any():
        msg = "declinations beyond the poles: are ra and dec swapped, or not in degrees?"
        raise ValueError(msg)
    turn, sine = np.where(known, ra, 0.0) % 360 / 90, np.sin(np.radians(np.where(known, dec, 0.0)))
    turn = np.where(turn >= 4, 0.0, turn)  # of -1e-20 degrees the remainder is 360
    cosine = np.cos(np.radians(np.where(known, dec, 0.0)))
    belt, cap = _belt(turn, sine, 1 << order), _cap(turn, sine, cosine, 1 << order)
    face, x, y = (np.where(np.abs(sine) <= 2 / 3, b, c) for b, c in zip(belt, cap, strict=True))
    return np.where(known, (face << (2 * order)) + _spread(x) + 2 * _spread(y), -1)


def _belt(turn: np.ndarray, sine: np.ndarray, side: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns the diamond and the place in it around the equator, where edges are straight in the sine."""
    down = (side * (0.5 + turn - 0.75 * sine)).astype(np.int64)
    up = (side * (0.5 + turn + 0.75 * sine)).astype(np.int64)
    left, right = down // side, up // side
    face = np.where(left == right, left | 4, np.where(left < right, left, right + 8))
    return face, up % side, side - 1 - down % side


def _cap(
    turn: np.ndarray, sine: np.ndarray, cosine: np.ndarray, side: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns the diamond and the place in it around the poles."""
    quarter = np.minimum(turn.astype(np.int64), 3)
    far = side * cosine * np.sqrt(3 / (1 + np.abs(sine)))  # the root of 3 (1 - |sine|), exact at the pole too
    east = np.minimum(((turn - quarter) * far).astype(np.int64), side - 1)
    west = np.minimum(((1 - turn + quarter) * far).astype(np.int64), side - 1)
    north = sine >= 0
    return (
        np.where(north, quarter, quarter + 8),
        np.where(north, side - 1 - west, east),
        np.where(north, side - 1 - east, west),
    )


def _spread(number: np.ndarray) -> np.ndarray:
    """Puts a 0 before each bit of a number."""
    for shift, mask in (
        (16, 0x0000FFFF0000FFFF),
        (8, 0x00FF00FF00FF00FF),
        (4, 0x0F0F0F0F0F0F0F0F),
        (2, 0x3333333333333333),
        (1, 0x5555555555555555),
    ):
        number = (number | (number << shift)) & mask
    return number
