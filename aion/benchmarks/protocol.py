"""What can be scored, and the control that each has: itself, shown which values were measured but none of them."""

__all__ = ["Embedder", "Masked", "pooled", "probed", "readouts"]

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Protocol

import numpy as np
import torch

from aion.observations import Image, Observation, Scalar, Spectrum
from aion.posterior import Posterior


class Embedder(Protocol):
    """Anything that turns observations into vectors.

    Vectors of tokens are pooled by their mean where objects are compared; probes are fitted to that mean or pool them
    by attention, whichever does better on a part of the training objects.

    It may have more: `readouts` (those vectors as `vectors`, and beside them what probes are fitted to in their place:
    several, by name, of which they choose in the same way), `embed_both` (vectors of two surveys, if those of `embed`
    are not in one space), `grids`, `predict` and `generate`, as `Frozen` has. Tasks that need what it has not are not
    applicable, nor are those of two surveys if its `sees` is False: it has one vector of an object, whatever is shown.

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
        """Returns vectors `(B, D)`, or those of tokens `(B, N, D)`, zero everywhere where there is none."""

    def controls(self, seed: int) -> dict[str, "Embedder"]:
        """Returns what should do worse, by name."""


class Masked:
    """Shows an embedder which values were measured, and how well, but none of the values."""

    def __init__(self, other: Embedder) -> None:
        self.other, self.name = other, f"{other.name}, masks only"
        self.sha256, self.trained_on = f"{other.sha256}-masks", other.trained_on
        if hasattr(other, "embed_both"):
            self.embed_both = self._embed_both
        if hasattr(other, "generate"):
            self.generate = self._generate

    def reads(self, name: str) -> bool:
        """Tells whether the embedder knows a modality."""
        return self.other.reads(name)

    def embed(self, ids: Sequence[str], observations: Mapping[str, Observation]) -> np.ndarray:
        """Returns vectors `(B, D)` of observations without values."""
        return self.other.embed(ids, _emptied(observations))

    def readouts(self, ids: Sequence[str], observations: Mapping[str, Observation]) -> dict[str, np.ndarray]:
        """Returns all that is read off, of observations without values."""
        return readouts(self.other, ids, _emptied(observations))

    def _embed_both(self, own: Mapping[str, Observation], other: Mapping[str, Observation]) -> tuple:
        """Returns vectors `(B, D)` of two views without values."""
        return self.other.embed_both(_emptied(own), _emptied(other))

    def grids(self, observations: Mapping[str, Observation], side: int) -> np.ndarray:
        """Returns grids `(B, D, side, side)` of images without values."""
        return self.other.grids(_emptied(observations), side)

    def predict(self, observations: Mapping[str, Observation], name: str) -> Posterior:
        """Predicts a distribution from observations without values."""
        return self.other.predict(_emptied(observations), name)

    def _generate(self, observations: Mapping[str, Observation], name: str, like: Observation) -> Observation:
        """Predicts another modality from observations without values."""
        return self.other.generate(_emptied(observations), name, like)

    def controls(self, seed: int) -> dict[str, Embedder]:
        """Returns none."""
        return {}


def pooled(X: np.ndarray) -> np.ndarray:
    """Averages tokens `(B, N, D)`, of which those that are zero everywhere are padding; vectors `(B, D)` stay."""
    if X.ndim == 2:
        return X
    return X.sum(1) / np.maximum((X != 0).any(2).sum(1), 1)[:, None]


def readouts(embedder: Embedder, ids: Sequence[str], observations: Mapping[str, Observation]) -> dict[str, np.ndarray]:
    """Returns all that is read off objects, by name: `vectors`, and what else an embedder has."""
    if hasattr(embedder, "readouts"):
        return embedder.readouts(ids, observations)
    return {"vectors": np.asarray(embedder.embed(ids, observations))}


def probed(found: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Returns what probes are fitted to of what was read off: what is there beside `vectors`, else these."""
    vectors = found["vectors"]
    rest = {name: values for name, values in found.items() if name != "vectors"}
    return rest or ({"mean": pooled(vectors), "tokens": vectors} if vectors.ndim == 3 else {"vectors": vectors})


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
