"""Sources: where batches to train on come from, as functions of the number of the step.

A source gives the same batch for the same step, so the number of the step is all that a checkpoint must hold. `Mixture`
takes several in turn: each step has a batch of one of them, as often as its weight says and as evenly spread as can be.
"""

__all__ = ["Mixture", "SkySource"]

from collections.abc import Callable, Mapping, Sequence

import torch

from aion.observations import Observation
from aion.sky import Sky


class SkySource:
    """Observes objects of the simulated sky, new ones at every step.

    Arguments:
        modality: what is observed; two names for pairs, the same objects by both.
        batch: number of objects of a batch. Those that lack the modality are left out, so there may be fewer.
        start: number of the first object.
        sky: keyword arguments of `aion.sky.Sky`.
    """

    def __init__(
        self, modality: str | Sequence[str], batch: int, start: int = 0, sky: Mapping[str, object] | None = None
    ) -> None:
        self.names = (modality,) if isinstance(modality, str) else tuple(modality)
        if len(self.names) not in {1, 2}:
            msg = f"SkySource: wanted one modality, or two for pairs, given {len(self.names)}"
            raise ValueError(msg)
        self.batch, self.start = batch, start
        self.sky = Sky(**{**(sky or {}), "modalities": list(self.names)})

    def __call__(self, step: int) -> Observation | tuple[Observation, Observation]:
        """Returns the batch of a step; for pairs two of them, of the same objects in the same order."""
        return self.observe(self.start + step * self.batch, self.batch)

    def observe(self, first: int, count: int) -> Observation | tuple[Observation, Observation]:
        """Returns those of a range of objects that have anything measured, or all if none has; two views for pairs."""
        seen = [self.sky.observe(torch.arange(first, first + count))[name] for name in self.names]
        measured = torch.stack([view.measured.reshape(count, -1).any(1) for view in seen]).all(0)
        views = [view[measured] if measured.any() else view for view in seen]
        return views[0] if len(views) == 1 else tuple(views)


class Mixture:
    """Takes sources in turn.

    Arguments:
        sources: functions of the number of the step.
        weights: how often each has its turn, in any unit; equal ones take turns in order.

    Raises:
        ValueError: for no source, or weights that are not positive.

    Example:
        >>> mixture = Mixture([lambda step: "a", lambda step: "b"], [2, 1])
        >>> "".join(mixture(step) for step in range(9))
        'abaabaaba'
    """

    def __init__(self, sources: Sequence[Callable[[int], object]], weights: Sequence[float] | None = None) -> None:
        self.sources = tuple(sources)
        self.weights = tuple(float(w) for w in (weights or [1] * len(self.sources)))
        if not self.sources or len(self.weights) != len(self.sources) or min(self.weights) <= 0:
            msg = f"Mixture: wanted sources with positive weights, given {len(self.sources)} with {self.weights}"
            raise ValueError(msg)
        self._turns: list[int] = []
        self._counts = [0] * len(self.sources)

    def __call__(self, step: int) -> object:
        """Returns the batch of a step."""
        return self.sources[self.turn(step)](step)

    def turn(self, step: int) -> int:
        """Returns the number of the source whose turn it is: the one whose next turn is due first."""
        while len(self._turns) <= step:
            due = [(count + 0.5) / weight for count, weight in zip(self._counts, self.weights, strict=True)]
            chosen = due.index(min(due))
            self._counts[chosen] += 1
            self._turns.append(chosen)
        return self._turns[step]
