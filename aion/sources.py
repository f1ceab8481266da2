"""Sources: where batches to train on come from, as functions of their number.

A source gives the same batch for the same number, so that number is all that a checkpoint must hold. `SkyObjects` and
`data_objects` give whole objects, with all that was observed of them; `SkySource` and `PartSource` one modality of
those that have it. `Mixture` takes several in turn: each number has a batch of one of them, as often as its weight says
and as evenly spread as can be.
"""

__all__ = ["Mixture", "PartSource", "SkyObjects", "SkySource", "data_objects", "observed"]

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import torch

from aion.observations import Observation
from aion.sky import Sky

if TYPE_CHECKING:
    from aion.io import Shards, Stream


class SkyObjects:
    """Observes objects of the simulated sky, new ones in every batch.

    Arguments:
        modalities: what is observed.
        batch: number of objects of a batch.
        start: number of the first object.
        sky: keyword arguments of `aion.sky.Sky`.
    """

    def __init__(
        self, modalities: Sequence[str], batch: int, start: int = 0, sky: Mapping[str, object] | None = None
    ) -> None:
        self.batch, self.start = batch, start
        self.sky = Sky(**{**(sky or {}), "modalities": list(modalities)})

    def __call__(self, number: int) -> dict[str, Observation]:
        """Returns a batch."""
        first = self.start + number * self.batch
        return self.sky.observe(torch.arange(first, first + self.batch))


def data_objects(data: Mapping[str, object], batch: int, lanes: int, seed: int) -> "Shards | Stream":
    """Opens what the section `[data]` of a recipe names.

    Arguments:
        data: `path` of Parquet shards, with `on_error`, or `dataset` to stream, with `split` and `options`; and
            `columns`, see `aion.io.columns`.
        batch: number of objects of a batch.
        lanes: batches of a step.
        seed: of the order.
    """
    from aion.io import Shards, Stream

    return (Shards if "path" in data else Stream)(**data, batch=batch, lanes=lanes, seed=seed)


def observed(objects: Mapping[str, Observation]) -> dict[str, Observation]:
    """Leaves out the objects of which nothing at all was measured.

    Raises:
        ValueError: if none is left.
    """
    some = torch.stack([view.measured.reshape(len(view), -1).any(1) for view in objects.values()]).any(0)
    if not some.any():
        msg = f"nothing was measured of any of {len(some)} objects: look at the columns and their units"
        raise ValueError(msg)
    return {name: view[some] for name, view in objects.items()}


def _measured(views: Sequence[Observation]) -> tuple[Observation, ...]:
    """Keeps those objects of which every view has something, or all if none does."""
    some = torch.stack([view.measured.reshape(len(view), -1).any(1) for view in views]).all(0)
    return tuple(view[some] if some.any() else view for view in views)


class PartSource:
    """Takes one modality of whole objects, or two for pairs.

    Arguments:
        objects: a source of whole objects.
        modality: which one; those that lack it are left out.
    """

    def __init__(self, objects: Callable[[int], Mapping[str, Observation]], modality: str | Sequence[str]) -> None:
        self.objects, self.names = objects, _names(modality)

    def __call__(self, number: int) -> Observation | tuple[Observation, ...]:
        """Returns a batch."""
        seen = self.objects(number)
        views = _measured([seen[name] for name in self.names])
        return views[0] if len(views) == 1 else views

    @property
    def facts(self) -> dict[str, object]:
        """Says what is read, if the objects do."""
        return self.objects.facts


def _names(modality: str | Sequence[str]) -> tuple[str, ...]:
    names = (modality,) if isinstance(modality, str) else tuple(modality)
    if len(names) not in {1, 2}:
        msg = f"a source: wanted one modality, or two for pairs, given {len(names)}"
        raise ValueError(msg)
    return names


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
        self.names = _names(modality)
        self.batch, self.start = batch, start
        self.sky = Sky(**{**(sky or {}), "modalities": list(self.names)})

    def __call__(self, step: int) -> Observation | tuple[Observation, Observation]:
        """Returns the batch of a step; for pairs two of them, of the same objects in the same order."""
        return self.observe(self.start + step * self.batch, self.batch)

    def observe(self, first: int, count: int) -> Observation | tuple[Observation, Observation]:
        """Returns those of a range of objects that have anything measured, or all if none has; two views for pairs."""
        seen = [self.sky.observe(torch.arange(first, first + count))[name] for name in self.names]
        views = _measured(seen)
        return views[0] if len(views) == 1 else views


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
        if not self.sources or len(self.weights) != len(self.sources) or not min(self.weights) > 0:
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
