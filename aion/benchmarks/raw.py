"""The baseline: raw measurements, which no model has to beat by much to be useful, but must beat."""

__all__ = ["Raw"]

import hashlib

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch

from aion.benchmarks.protocol import Embedder, Masked
from aion.observations import Image, Observation, Scalar, Spectrum

BINS = 512  # of raw spectra, in log wavelength
WINDOW = (3600.0, 9800.0)  # Angstrom
COMPONENTS = 40  # of raw spectra and images


class Raw:
    """Takes the measurements as they are.

    Numbers named a flux are compressed by asinh; what is missing is 0, with a column that says so. Spectra, and their
    coefficients, are parted in shape and level.
    Spectra are averaged in 512 bins of log wavelength, images in 8 x 8 blocks; of each the first 40 principal
    components are kept, of all objects at once, in both surveys if there are two: no label is seen, but more than a
    model is shown.
    """

    name = "raw"
    trained_on = ()

    def __init__(self) -> None:
        facts = f"raw features 2 {BINS} {WINDOW} {COMPONENTS}"
        self.sha256 = hashlib.sha256(facts.encode()).hexdigest()

    def reads(self, name: str) -> bool:
        """Takes every modality."""
        return True

    def embed(self, ids: Sequence[str], observations: Mapping[str, Observation]) -> np.ndarray:
        """Returns features `(B, D)`."""
        return self._table(observations)[0]

    def embed_both(
        self, own: Mapping[str, Observation], other: Mapping[str, Observation]
    ) -> tuple[np.ndarray, np.ndarray]:
        """Returns features `(B, D)` of two surveys' views of the same kinds, in the same components."""
        first, second = self._table(own, other)
        return first, second

    def grids(self, observations: Mapping[str, Observation], side: int) -> np.ndarray:
        """Returns the first components of the pixels of each cell of a grid over the image, `(B, D, side, side)`."""
        (image,) = observations.values()
        cell = [size // side for size in image.flux.shape[2:]]
        blocks = torch.nn.functional.unfold(torch.asinh(10 * image.flux.cpu().double()), cell, stride=cell)
        components = _components(blocks.mT.flatten(0, 1).numpy()).reshape(len(image), side, side, -1)
        return components.transpose(0, 3, 1, 2)

    @staticmethod
    def _table(*views: Mapping[str, Observation]) -> list[np.ndarray]:
        """Returns the features of the same kinds of modality, as each of some surveys sees them."""
        columns = [_features(names[0], [view[n] for view, n in zip(views, names, strict=True)])
                   for names in zip(*map(sorted, views), strict=True)]  # fmt: skip
        return np.split(np.concatenate(columns, axis=1), len(views))

    def controls(self, seed: int) -> dict[str, Embedder]:
        """Returns the same features of masks alone."""
        return {"masks only": Masked(self)}


def _features(name: str, views: Sequence[Observation]) -> np.ndarray:
    """Returns features `(V B, D)` of one modality, or of V that are of one kind."""
    kind = type(views[0])
    if any(type(view) is not kind for view in views):
        msg = f"raw features: wanted modalities of the same kind, given {[type(view).__name__ for view in views]}"
        raise TypeError(msg)
    if kind is Scalar:
        numbers = np.concatenate([view.value.cpu().double().reshape(len(view), -1).numpy() for view in views])
        missing = np.isnan(numbers)
        numbers = np.where(missing, 0.0, numbers)
        if "coefficients" in name:
            numbers = _levelled(numbers, np.linalg.norm(numbers, axis=1, keepdims=True))
        numbers = np.arcsinh(numbers) if "flux" in name else numbers
        return np.concatenate([numbers, missing[:, missing.any(0)]], axis=1)
    if kind is Spectrum:
        binned = np.concatenate([_binned(view) for view in views])
        return _levelled(binned, np.median(np.abs(binned), axis=1, keepdims=True), _components)
    if kind is Image:
        return _components(np.concatenate([_blocks(view, _letters(views)) for view in views]))
    msg = f"raw features of {kind.__name__} are not defined"
    raise TypeError(msg)


def _levelled(values: np.ndarray, level: np.ndarray, reduce: Callable = np.asarray) -> np.ndarray:
    """Parts shape, over the level of each row, and brightness, the logarithm of that level."""
    return np.concatenate([reduce(values / np.where(level > 0, level, 1)), np.log10(level + 1e-3)], axis=1)


def _letters(images: Sequence[Image]) -> list[str]:
    """Lists the bands, without the name of the survey, that all images have."""
    bands = [[band.split("-")[1] for band in image.bands] for image in images]
    return [letter for letter in bands[0] if all(letter in own for own in bands)]


def _blocks(image: Image, letters: Sequence[str]) -> np.ndarray:
    """Averages surface brightness in 8 x 8 blocks, compressed, `(B, 64 C)`."""
    channels = [[band.split("-")[1] for band in image.bands].index(letter) for letter in letters]
    bright = image.flux.cpu().double()[:, channels] / image.pixel_scale.cpu().double()[:, None, None, None] ** 2
    return np.arcsinh(100 * torch.nn.functional.adaptive_avg_pool2d(bright, 8).flatten(1).numpy())


def _binned(spectrum: Spectrum) -> np.ndarray:
    """Averages measured pixels, weighted by ivar, in bins of log wavelength `(B, 512)`; 0 where there is none."""
    low, high = (float(np.log(edge)) for edge in WINDOW)
    place = ((spectrum.wavelength.cpu().double().log() - low) / (high - low) * BINS).floor()
    weight = spectrum.ivar.cpu().double() * ((place >= 0) & (place < BINS))
    place = place.clamp(0, BINS - 1).long()
    total = torch.zeros(len(spectrum), BINS, dtype=torch.float64).scatter_add_(1, place, weight)
    light = torch.zeros_like(total).scatter_add_(1, place, weight * spectrum.flux.cpu().double())
    return torch.where(total > 0, light / total.clamp(min=1e-300), 0.0).numpy()


def _components(values: np.ndarray) -> np.ndarray:
    """Projects rows on their first principal components, the sign of each fixed."""
    u, s, v = np.linalg.svd(values - values.mean(0), full_matrices=False)
    sign = np.sign(v[np.arange(len(v)), np.abs(v).argmax(1)])
    return (u * s * sign)[:, :COMPONENTS]
