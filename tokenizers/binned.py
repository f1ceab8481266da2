"""Spectra of instruments that there are not: those of the sky with several neighbouring pixels taken together.

The tokenizer should read grids coarser and finer than those of any survey it was trained on; this fills the octaves of
its ladder that no survey of the sky lies on.
"""

__all__ = ["binned", "binned_reader"]

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch

from aion import Spectrum
from aion.recipes import HELD_OUT
from aion.sources import SkySource

FIRST = 12 * HELD_OUT  # object of the sky that it starts with
JUMP = 3.0  # spans wider than this many times the median lie across a gap


def binned(spectrum: Spectrum, count: int) -> Spectrum:
    """Takes `count` neighbouring pixels together, weighted by ivar; those across a gap are not measured."""
    length = spectrum.flux.shape[1] // count * count
    flux, ivar, wavelength = (
        value[:, :length].unflatten(1, (-1, count)) for value in (spectrum.flux, spectrum.ivar, spectrum.wavelength)
    )
    total = ivar.sum(2)
    mean = (flux * ivar).sum(2) / total.clamp(min=1e-30)
    span = wavelength[..., -1] - wavelength[..., 0]
    across = span > JUMP * span.median(1, keepdim=True).values
    return Spectrum(mean, total.masked_fill(across, 0), wavelength.double().mean(2))


def binned_reader(
    batch: int, seed: int, of: str, pixels: Sequence[int], sky: Mapping[str, object] | None = None
) -> Callable[[int], Spectrum]:
    """Makes a source of binned spectra.

    Arguments:
        batch: number of objects.
        seed: of the sky and of the draws.
        of: the modality that is binned.
        pixels: least and largest number of pixels taken together; one for each batch.
        sky: keyword arguments of `aion.sky.Sky`.
    """
    source = SkySource(of, batch, FIRST, {**(sky or {}), "seed": seed})

    def read(step: int) -> Spectrum:
        spectrum = source(step)
        count = int(np.random.default_rng([seed, step]).integers(pixels[0], pixels[1] + 1))
        result = binned(spectrum, count)
        some = torch.nonzero(result.measured.any(1))[:, 0]
        return result[some] if len(some) else result

    return read
