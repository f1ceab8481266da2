"""The MILES stars: 944 real spectra with Teff, log g and [Fe/H], four fifths to train on and one fifth to measure with.

What the file is and how it is split is told in `tokenizers/data/README.md`.
"""

__all__ = ["Miles", "miles_reader"]

import functools
import re

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from safetensors import safe_open

from aion import Spectrum
from aion.io import air_to_vacuum

FILE = "miles.safetensors"
DATA = Path(__file__).resolve().parent / "data"
WINDOW = 201  # pixels over which the noise is estimated
FLOOR = 0.005  # smallest relative error


class Miles:
    """Holds the stars.

    Arguments:
        folder: where `miles.safetensors` is.

    Attributes:
        spectrum: all stars, flux about 1.
        labels: Teff, log g, [Fe/H], `(944, 3)` float64.
        number: library number, `(944,)`.
        name: names.
        held_out: which stars are not trained on, `(944,)`.
    """

    def __init__(self, folder: Path | str = DATA) -> None:
        path = Path(folder) / FILE
        if not path.is_file():
            msg = f"no {path}: it is in the repository under tokenizers/data, or made by tokenizers/make_miles.py"
            raise FileNotFoundError(msg)
        with safe_open(path, framework="np") as file:
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
            facts = file.metadata()
        flux = tensors["flux"].astype(np.float64)
        air = float(facts["start"]) + float(facts["step"]) * np.arange(flux.shape[1])
        error = np.maximum(noise(flux), FLOOR * np.abs(flux))
        ivar = np.where(flux > 0, error**-2.0, 0.0)
        self.spectrum = Spectrum(flux, ivar, np.asarray(air_to_vacuum(air)))
        self.labels = tensors["labels"].astype(np.float64)
        self.number, self.name = tensors["number"].astype(int), facts["names"].split("\n")
        self.held_out = split(self.name, self.number)

    def __len__(self) -> int:
        return len(self.number)


def noise(flux: np.ndarray) -> np.ndarray:
    """Estimates the error of each pixel from the median size of second differences around it, `(N, L)`."""
    second = np.abs(2 * flux[:, 1:-1] - flux[:, :-2] - flux[:, 2:]) * 1.4826 / 6**0.5
    # In steps of a quarter of a window, between which the error is interpolated.
    centre = np.arange(WINDOW // 2, second.shape[1] - WINDOW // 2, WINDOW // 4)
    window = centre[:, None] + np.arange(-(WINDOW // 2), WINDOW // 2 + 1)
    knots = np.median(second[:, window], axis=2)
    pixel = np.arange(flux.shape[1]) - 1
    return np.stack([np.interp(pixel, centre, row) for row in knots])


def split(names: list[str], numbers: np.ndarray) -> np.ndarray:
    """Tells which stars are held out: the lowest number of a star and its components is a multiple of 5."""
    stars: dict[str, int] = {}
    key = [re.sub(r"(?<=\d)[A-Z]$", "", re.sub(r"\s*Cl$", "", name)) for name in names]
    for name, number in zip(key, numbers, strict=True):
        stars[name] = min(number, stars.get(name, number))
    return np.array([stars[name] % 5 == 0 for name in key])


def miles_reader(folder: Path | str = DATA) -> Callable[..., Callable[[int], Spectrum]]:
    """Returns the reader `miles` of recipes: see `_source` for its settings."""
    return functools.partial(_source, Path(folder))


def _source(
    folder: Path, batch: int, seed: int, velocity: float = 100.0, noise: float = 0.5, hidden: float = 0.3
) -> Callable[[int], Spectrum]:
    """Makes a source of the training stars, each time somewhat different.

    Arguments:
        folder: where the file is.
        batch: number of stars.
        seed: of the draws.
        velocity: km/s by which spectra are shifted, one sigma.
        noise: share of the spectra to which noise is added, of S/N 5 to 100.
        hidden: largest share of either end that is taken off, of half of the spectra.
    """
    stars = Miles(folder)
    rows = np.flatnonzero(~stars.held_out)

    def source(step: int) -> Spectrum:
        draws = np.random.default_rng([seed, step])
        spectrum = stars.spectrum[draws.choice(rows, batch, replace=batch > len(rows))]
        size = spectrum.flux.shape

        def tensor(values: np.ndarray) -> torch.Tensor:
            return torch.as_tensor(values, dtype=torch.float32)

        scale = tensor(10 ** draws.uniform(-1, 3, (batch, 1)))
        sigma = draws.uniform(size=(batch, 1)) < noise
        sigma = tensor(sigma * 10 ** -draws.uniform(0.7, 2.0, (batch, 1)))
        added = sigma * spectrum.flux.median(1, keepdim=True).values
        flux = spectrum.flux + added * tensor(draws.standard_normal(size))
        measured = spectrum.measured
        ivar = torch.where(measured, 1 / (1 / spectrum.ivar.clamp(min=1e-12) + added**2), 0.0) / scale**2
        place = torch.linspace(0, 1, size[1])
        ends = tensor(hidden * draws.uniform(size=(batch, 2)) ** 2 * (draws.uniform(size=(batch, 2)) < 0.5))
        ivar = ivar * (place >= ends[:, :1]) * (place <= 1 - ends[:, 1:])
        shift = 1 + draws.normal(0, velocity, (batch, 1)) / 299792.458
        return Spectrum(flux * scale, ivar, spectrum.wavelength.double() * torch.as_tensor(shift))

    source.facts = {"stars": len(rows), "held_out": int(stars.held_out.sum()), "real": True}
    return source
