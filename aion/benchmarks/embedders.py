"""What can be scored: a model, the raw measurements as a baseline, and a table of embeddings that someone brings."""

__all__ = ["Brought", "Embedder", "Frozen", "Raw", "embedder"]

import copy
import hashlib

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Protocol

import numpy as np
import torch

from aion.io import read_embeddings
from aion.model import AION
from aion.observations import Image, Observation, Scalar, Spectrum
from aion.posterior import Posterior

BINS = 512  # of raw spectra, in log wavelength
WINDOW = (3600.0, 9800.0)  # Angstrom
COMPONENTS = 40  # of raw spectra and images
BATCH = 32


class Embedder(Protocol):
    """Anything that turns observations into vectors.

    Attributes:
        name: in tables and file names.
        sha256: of everything that the vectors depend on beside the observations.
        trained_on: names of data sets that its training saw.
    """

    name: str
    sha256: str
    trained_on: tuple[str, ...]

    def reads(self, name: str) -> bool:
        """Tells whether a modality is known."""

    def embed(self, ids: Sequence[str], observations: Mapping[str, Observation]) -> np.ndarray:
        """Returns vectors `(B, D)`."""

    def controls(self, seed: int) -> dict[str, "Embedder"]:
        """Returns what should do worse, by name."""


class Frozen:
    """Embeds by a frozen model: the mean over the tokens that its encoder returns.

    Arguments:
        model: the model.
        name: in tables.
    """

    def __init__(self, model: AION, name: str, sha256: str | None = None) -> None:
        self.model, self.name = model, name
        self.sha256 = sha256 or model.sha256
        self.trained_on = tuple(model.provenance.get("trained_on", ()))

    def reads(self, name: str) -> bool:
        """Tells whether the model has a tokenizer for a modality."""
        return name in self.model.modalities

    def embed(self, ids: Sequence[str], observations: Mapping[str, Observation]) -> np.ndarray:
        """Returns mean embeddings `(B, D)`."""
        return self.model.embed(observations, batch_size=BATCH).cpu().numpy()

    def predict(self, observations: Mapping[str, Observation], name: str) -> Posterior:
        """Predicts the distribution of a scalar."""
        return self.model.predict(observations, name, batch_size=BATCH)

    def controls(self, seed: int) -> dict[str, Embedder]:
        """Returns the model with all weights shuffled, each tensor in itself, and the model shown masks alone."""
        other = copy.deepcopy(self.model)
        generator = torch.Generator().manual_seed(seed)
        for parameter in other.parameters():
            order = torch.randperm(parameter.numel(), generator=generator).to(parameter.device)
            parameter.data = parameter.data.flatten()[order].view_as(parameter)
        shuffled = Frozen(other, f"{self.name}, random weights", f"{self.sha256}-shuffled-{seed}")
        return {"random weights": shuffled, "masks only": Masked(self)}


class Masked:
    """Shows an embedder which values were measured, and how well, but none of the values."""

    def __init__(self, other: Embedder) -> None:
        self.other, self.name = other, f"{other.name}, masks only"
        self.sha256, self.trained_on = f"{other.sha256}-masks", other.trained_on

    def reads(self, name: str) -> bool:
        """Tells whether the embedder knows a modality."""
        return self.other.reads(name)

    def embed(self, ids: Sequence[str], observations: Mapping[str, Observation]) -> np.ndarray:
        """Returns vectors `(B, D)` of observations without values."""
        return self.other.embed(ids, {name: _emptied(value) for name, value in observations.items()})

    def controls(self, seed: int) -> dict[str, Embedder]:
        """Returns none."""
        return {}


class Raw:
    """Takes the measurements as they are, which no model has to beat by much to be useful, but must beat.

    Numbers named a flux or coefficients are compressed by asinh; what is missing is 0, with a column that says so.
    Spectra are averaged in 512 bins of log wavelength, images in 8 x 8 blocks; of each the first 40 principal
    components are kept, of all objects at once: no label is seen, but more than a model is shown.
    """

    name = "raw"
    trained_on = ()

    def __init__(self) -> None:
        facts = f"raw features 1 {BINS} {WINDOW} {COMPONENTS}"
        self.sha256 = hashlib.sha256(facts.encode()).hexdigest()

    def reads(self, name: str) -> bool:
        """Takes every modality."""
        return True

    def embed(self, ids: Sequence[str], observations: Mapping[str, Observation]) -> np.ndarray:
        """Returns features `(B, D)`."""
        return np.concatenate([_features(name, observations[name]) for name in sorted(observations)], axis=1)

    def controls(self, seed: int) -> dict[str, Embedder]:
        """Returns the same features of masks alone."""
        return {"masks only": Masked(self)}


class Brought:
    """Takes embeddings from a Parquet file as `aion embed` writes it, matched by object id.

    Arguments:
        path: the file.

    Raises:
        ValueError: for an id that stands there twice.
    """

    trained_on = ()

    def __init__(self, path: Path | str) -> None:
        path = Path(path)
        table = read_embeddings(path)
        self.name, self.sha256 = path.stem, hashlib.sha256(path.read_bytes()).hexdigest()
        self._rows = {name: row for row, name in enumerate(table.ids)}
        self._embedding = table.embedding.numpy()
        if len(self._rows) != len(table.ids):
            msg = f"{path}: {len(table.ids) - len(self._rows)} object ids stand there more than once"
            raise ValueError(msg)

    def reads(self, name: str) -> bool:
        """Takes every modality: what the vectors were made of is not known here."""
        return True

    def embed(self, ids: Sequence[str], observations: Mapping[str, Observation]) -> np.ndarray:
        """Returns the vectors `(B, D)` of these ids.

        Raises:
            ValueError: if the file lacks any of them.
        """
        missing = [name for name in ids if name not in self._rows]
        if missing:
            lacking = f"{len(missing)} of {len(ids)} objects of this task, such as {missing[0]!r}"
            msg = f"{self.name}: the embeddings lack {lacking}"
            raise ValueError(msg)
        return self._embedding[[self._rows[name] for name in ids]]

    def controls(self, seed: int) -> dict[str, Embedder]:
        """Returns none: the observations are not seen."""
        return {}


def embedder(name: str, device: str = "auto") -> Embedder:
    """Makes an embedder: `raw`, a Parquet file of embeddings, or whatever `AION.from_pretrained` reads."""
    if name == "raw":
        return Raw()
    if name.endswith(".parquet"):
        return Brought(name)
    return Frozen(AION.from_pretrained(name, device=device), Path(name).name)


def _emptied(value: Observation) -> Observation:
    """Sets every measured value to zero; ivar, grid and what is missing stay."""
    if isinstance(value, Scalar):
        return replace(value, value=torch.where(value.value.isnan(), value.value, 0.0))
    if isinstance(value, Spectrum | Image):
        return replace(value, flux=torch.zeros_like(value.flux))
    msg = f"masks only: {type(value).__name__} has no rule for what is left without values"
    raise TypeError(msg)


def _features(name: str, value: Observation) -> np.ndarray:
    if isinstance(value, Scalar):
        numbers = value.value.cpu().double().reshape(len(value), -1).numpy()
        missing = np.isnan(numbers)
        numbers = np.where(missing, 0.0, numbers)
        numbers = np.arcsinh(numbers) if "flux" in name or "coefficients" in name else numbers
        return np.concatenate([numbers, missing[:, missing.any(0)]], axis=1)
    if isinstance(value, Spectrum):
        binned = _binned(value)
        level = np.median(np.abs(binned), axis=1, keepdims=True)
        return np.concatenate([_components(binned / np.where(level > 0, level, 1)), np.log10(level + 1e-3)], axis=1)
    if isinstance(value, Image):
        blocks = torch.nn.functional.adaptive_avg_pool2d(value.flux.cpu().double(), 8)
        return _components(np.arcsinh(10 * blocks.flatten(1).numpy()))
    msg = f"raw features of {type(value).__name__} are not defined"
    raise TypeError(msg)


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
