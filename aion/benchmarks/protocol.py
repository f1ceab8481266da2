"""What can be scored, and the control that each has: itself, shown which values were measured but none of them."""

__all__ = ["Embedder", "Masked"]

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Protocol

import numpy as np
import torch

from aion.observations import Image, Observation, Scalar, Spectrum
from aion.posterior import Posterior


class Embedder(Protocol):
    """Anything that turns observations into vectors.

    It may have more: `embed_both` (vectors of two surveys, if those of `embed` are not in one space), `grids`,
    `predict` and `generate`, as `Frozen` has. Tasks that need what it has not are not applicable, nor are those
    of two surveys if its `sees` is False: it has one vector of an object, whatever is shown.

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
        return self.other.embed(ids, _emptied(observations))

    def embed_both(self, own: Mapping[str, Observation], other: Mapping[str, Observation]) -> tuple:
        """Returns vectors `(B, D)` of two views without values."""
        if hasattr(self.other, "embed_both"):
            return self.other.embed_both(_emptied(own), _emptied(other))
        return self.embed([], own), self.embed([], other)

    def grids(self, observations: Mapping[str, Observation], side: int) -> np.ndarray:
        """Returns grids `(B, D, side, side)` of images without values."""
        return self.other.grids(_emptied(observations), side)

    def predict(self, observations: Mapping[str, Observation], name: str) -> Posterior:
        """Predicts a distribution from observations without values."""
        return self.other.predict(_emptied(observations), name)

    def generate(self, observations: Mapping[str, Observation], name: str, like: Observation) -> Observation:
        """Predicts another modality from observations without values."""
        return self.other.generate(_emptied(observations), name, like)

    def controls(self, seed: int) -> dict[str, Embedder]:
        """Returns none."""
        return {}


def _emptied(observations: Mapping[str, Observation]) -> dict[str, Observation]:
    """Sets every measured value to zero; ivar, grid and what is missing stay."""
    return {name: _without(value) for name, value in observations.items()}


def _without(value: Observation) -> Observation:
    if isinstance(value, Scalar):
        return replace(value, value=torch.where(value.value.isnan(), value.value, 0.0))
    if isinstance(value, Spectrum | Image):
        return replace(value, flux=torch.zeros_like(value.flux))
    msg = f"masks only: {type(value).__name__} has no rule for what is left without values"
    raise TypeError(msg)
