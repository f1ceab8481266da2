"""The MILES stars as a source of training: four fifths of them; the others are measured with."""

__all__ = ["miles_reader", "miles_stars"]

import functools

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from aion import Spectrum
from aion.benchmarks.miles import Stars, read_stars

DATA = Path(__file__).resolve().parent / "data"


def miles_stars(folder: Path | str = DATA) -> Stars:
    """Reads all stars from the folder of `miles.safetensors`."""
    return read_stars(Path(folder) / "miles.safetensors")


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
    miles = miles_stars(folder)
    rows = np.flatnonzero(~miles.held_out)

    def source(step: int) -> Spectrum:
        draws = np.random.default_rng([seed, step])
        spectrum = miles.spectrum[draws.choice(rows, batch, replace=batch > len(rows))]
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

    source.facts = {"stars": len(rows), "held_out": int(miles.held_out.sum()), "real": True}
    return source
