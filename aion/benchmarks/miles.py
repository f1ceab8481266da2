"""Reads the MILES stars: 944 real spectra with Teff, log g and [Fe/H]."""

__all__ = ["Stars", "read_stars"]

import re

from pathlib import Path
from typing import NamedTuple

import numpy as np

from safetensors import safe_open

from aion import io
from aion.observations import Spectrum

WINDOW = 201  # pixels over which the noise is estimated
FLOOR = 0.005  # smallest relative error


class Stars(NamedTuple):
    """Holds the stars.

    Arguments:
        spectrum: of all, flux about 1; its errors are estimated from the scatter of neighbouring pixels.
        labels: Teff (K), log g and [Fe/H], `(944, 3)` float64.
        number: library number, `(944,)`.
        name: names, `(944,)`.
        part: from 0 to 4, `(944,)`: the lowest library number of a star and its components modulo 5. All spectra of a
            star are in one part. Part 0 is held out: no tokenizer and no template of the simulated sky is made of it.
    """

    spectrum: Spectrum
    labels: np.ndarray
    number: np.ndarray
    name: np.ndarray
    part: np.ndarray

    @property
    def held_out(self) -> np.ndarray:
        """Tells which stars are in part 0, `(944,)`."""
        return self.part == 0


def read_stars(path: Path | str) -> Stars:
    """Reads `miles.safetensors`.

    Raises:
        FileNotFoundError: if it is not there.
    """
    if not Path(path).is_file():
        msg = f"no {path}: it is in the repository under tokenizers/data, or made by tokenizers/make_miles.py"
        raise FileNotFoundError(msg)
    with safe_open(path, framework="np") as file:
        flux, labels = file.get_tensor("flux").astype(np.float64), file.get_tensor("labels").astype(np.float64)
        number, facts = file.get_tensor("number").astype(int), file.metadata()
    air = float(facts["start"]) + float(facts["step"]) * np.arange(flux.shape[1])
    error = np.maximum(_noise(flux), FLOOR * np.abs(flux))
    spectrum = Spectrum(flux, np.where(flux > 0, error**-2.0, 0.0), np.asarray(io.air_to_vacuum(air)))
    names = facts["names"].split("\n")
    return Stars(spectrum, labels, number, np.array(names), _parts(names, number))


def _noise(flux: np.ndarray) -> np.ndarray:
    """Estimates the error of each pixel from the median size of second differences around it, `(N, L)`."""
    second = np.abs(2 * flux[:, 1:-1] - flux[:, :-2] - flux[:, 2:]) * 1.4826 / 6**0.5
    # In steps of a quarter of a window, between which the error is interpolated.
    centre = np.arange(WINDOW // 2, second.shape[1] - WINDOW // 2, WINDOW // 4)
    window = centre[:, None] + np.arange(-(WINDOW // 2), WINDOW // 2 + 1)
    knots = np.median(second[:, window], axis=2)
    pixel = np.arange(flux.shape[1]) - 1
    return np.stack([np.interp(pixel, centre, row) for row in knots])


def _parts(names: list[str], numbers: np.ndarray) -> np.ndarray:
    first: dict[str, int] = {}
    stars = [re.sub(r"(?<=\d)[A-Z]$", "", re.sub(r"\s*Cl$", "", name)) for name in names]
    for star, number in zip(stars, numbers, strict=True):
        first[star] = min(number, first.get(star, number))
    return np.array([first[star] % 5 for star in stars])
