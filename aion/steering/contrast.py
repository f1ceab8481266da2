"""What tells two groups of inputs apart at the layers of a model; see `aion.steering.Direction.fit_layers`."""

__all__ = ["Contrast", "contrasts", "difference"]

from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import zip_longest
from typing import NamedTuple

import torch

from torch import Tensor, nn

from aion.observations import near_miss
from aion.steering.layers import edited, find_layers, unwrapped
from aion.steering.moments import Moments
from aion.steering.recording import Record

METHODS = ("lda", "mean", "paired")
SMALLEST = 1e-4  # of the norm of an activation: below it a difference is rounding
FEWEST = 4  # objects of a group that can be halved


class Contrast(NamedTuple):
    """Holds what was found at a layer; see `aion.steering.Direction`."""

    vector: Tensor
    layout: str
    n: tuple[int, int]
    norm: float
    means: Tensor
    covariance: Tensor | None
    halves: Tensor | None


class Group:
    """Accumulates the objects of one group at one layer.

    Arguments:
        record: keeps what does not depend on groups.
        halves: number K of random halves.
    """

    def __init__(self, record: Record, halves: int) -> None:
        self.record, self.sums, self.sizes = record, torch.zeros(2, halves, 0, dtype=torch.float64), torch.zeros(2, 1)

    def update(self, rows: Tensor, sides: Tensor) -> None:
        """Takes in objects `(n, C)` and on which side of each half they fall, bool `(K, n)`."""
        self.record.moments.update(rows)
        both = torch.stack([sides, ~sides]).double()
        self.sums = both @ rows + (self.sums if self.sums.shape[-1] else 0.0)
        self.sizes = self.sizes + both.sum(-1)

    @property
    def halves(self) -> Tensor:
        """Returns the differences of the means of the halves, `(K, C)`."""
        first, second = self.sums / self.sizes[..., None]
        return first - second


def contrasts(
    model: nn.Module,
    layers: str,
    positive: object,
    negative: object,
    *,
    method: str = "mean",
    forward: Callable[[nn.Module, object], object] | None = None,
    halves: int = 64,
    shrinkage: float = 0.1,
    generator: torch.Generator | None = None,
    **options: object,
) -> dict[str, Contrast]:
    """Compares two groups at layers; the arguments are those of `aion.steering.Direction.fit_layers`."""
    if method not in METHODS:
        msg = f"fit: unknown method {method!r}; {near_miss(method, METHODS)}"
        raise ValueError(msg)
    if not 0 < shrinkage <= 1 or (options.get("places") and method != "mean"):
        msg = f"fit: shrinkage must lie in (0, 1], given {shrinkage!r}; places=True goes with method='mean' only"
        raise ValueError(msg)
    if unwrapped(model).training:
        msg = "fit: the model is in training mode, where dropout changes activations: call model.eval() first"
        raise ValueError(msg)
    found, generator = find_layers(model, layers), generator or torch.Generator().manual_seed(0)
    groups = [{name: Group(Record(**options), halves) for name in found} for _ in range(2)]
    pairs = {name: Moments(covariance=False) for name in found}
    lengths = dict.fromkeys(found, 0.0)
    coins = [torch.zeros(halves, 0, dtype=torch.bool) for _ in range(2)]
    for batches in zip_longest(_batches(positive), _batches(negative)):
        seen = [_rows(model, found, group, forward, batch) for group, batch in zip(groups, batches, strict=True)]
        for side, (group, rows) in enumerate(zip(groups, seen, strict=True)):
            if rows is not None:
                coins[side], sides = _toss(coins[side], len(next(iter(rows.values()))), generator)
                for name in found:
                    group[name].update(rows[name], sides)
        if method == "paired":
            for name, unit, length in _pairs(*seen):
                pairs[name].update(unit)
                lengths[name] += length
    result = {}
    for name in found:
        a, b = groups[0][name], groups[1][name]
        if not a.record.moments.count or not b.record.moments.count:
            msg = "fit: a group has no objects: positive and negative must each give at least one batch"
            raise ValueError(msg)
        mean = pairs[name].mean * (lengths[name] / pairs[name].count) if method == "paired" else None
        result[name] = _contrast(a, b, method, mean, shrinkage)
    return result


def difference(a: Moments, b: Moments, method: str, shrinkage: float) -> tuple[Tensor, Tensor | None]:
    """Computes the vector between two groups by `"mean"` or `"lda"`, and the covariance within them."""
    gap, covariance = a.mean - b.mean, None
    if a.count > 1 and b.count > 1:
        covariance = (a.covariance * (a.count - 1) + b.covariance * (b.count - 1)) / (a.count + b.count - 2)
    if method != "lda":
        return gap, covariance
    if covariance is None:
        msg = "fit: method='lda' needs at least two objects of each group"
        raise ValueError(msg)
    identity = torch.eye(len(gap), dtype=gap.dtype) * covariance.trace() / len(gap)
    vector = torch.linalg.solve((1 - shrinkage) * covariance + shrinkage * identity, gap)
    return vector * (gap.norm() / vector.norm()), covariance


def _contrast(a: Group, b: Group, method: str, paired: Tensor | None, shrinkage: float) -> Contrast:
    one, two = a.record.moments, b.record.moments
    vector, covariance = difference(one, two, method, shrinkage)
    vector = vector if paired is None else paired
    norm = (a.record.norm + b.record.norm) / 2
    if not (one.mean - two.mean).norm() > SMALLEST * norm or not vector.any():
        gap = (one.mean - two.mean).norm()
        msg = f"fit: no direction, the groups differ by {gap:.3g} where activations measure {norm:.3g}"
        raise ValueError(msg)
    if a.record.places:
        if a.record.field.shape != b.record.field.shape:
            msg = f"fit: the groups have places {tuple(a.record.field.shape[1:])} and {tuple(b.record.field.shape[1:])}"
            raise ValueError(msg)
        vector = a.record.field - b.record.field
    halves = [group.halves for group in (a, b) if group.record.moments.count >= FEWEST]
    return Contrast(
        vector=vector.float(),
        layout=a.record.letters,
        n=(one.count, two.count),
        norm=norm,
        means=torch.stack([one.mean, two.mean]).float(),
        covariance=None if covariance is None else covariance.float(),
        halves=torch.stack(halves, 1).flatten(0, 1).float() if halves else None,  # the groups take turns
    )


def _rows(
    model: nn.Module,
    found: Mapping[str, nn.Module],
    group: Mapping[str, Group],
    forward: Callable[[nn.Module, object], object] | None,
    batch: object,
) -> dict[str, Tensor] | None:
    """Runs the model on a batch and returns the mean of each object at each layer over the calls of that layer."""
    if batch is None:
        return None
    total, calls = {}, dict.fromkeys(found, 0)

    def read(name: str, x: Tensor, args: tuple, kwargs: dict) -> None:
        rows = group[name].record.read(x, args, kwargs)
        total[name] = rows if name not in total else total[name] + rows
        calls[name] += 1

    with torch.no_grad(), edited(model, found, read):
        (forward or _call)(model, batch)
    if idle := [name for name, count in calls.items() if not count]:
        msg = f"fit: layer {idle[0]!r} did not run"
        raise RuntimeError(msg)
    return {name: total[name] / calls[name] for name in found}


def _call(model: nn.Module, batch: object) -> object:
    if isinstance(batch, Mapping):
        return model(**batch)
    return model(*batch) if isinstance(batch, tuple) else model(batch)


def _batches(given: object) -> Iterator[object]:
    """Lists the batches of what is an iterable of them, or one."""
    one = isinstance(given, (Tensor, tuple, Mapping)) or not isinstance(given, Iterable)
    return iter([given] if one else given)


def _toss(before: Tensor, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Draws the sides of objects: of two in a row each falls on another side, so that halves are of one size.

    Arguments:
        before: side of the last object if it has no partner yet, `(K, 1)`, else `(K, 0)`.
        count: number of objects.
        generator: source of the draws.
    """
    fresh = count - before.shape[1]
    drawn = torch.randint(2, (len(before), (fresh + 1) // 2), generator=generator).bool()
    sides = torch.cat([~before, torch.stack([drawn, ~drawn], 2).flatten(1)[:, :fresh]], 1)
    return sides[:, -1:] if fresh % 2 else sides[:, :0], sides


def _pairs(a: Mapping[str, Tensor] | None, b: Mapping[str, Tensor] | None) -> Iterator[tuple[str, Tensor, float]]:
    """Lists per layer the differences of pairs as unit vectors `(n, C)`, and the sum of their lengths."""
    if a is None or b is None or any(a[name].shape != b[name].shape for name in a):
        msg = "fit: method='paired' wants as many objects in each batch of positive as in its partner of negative"
        raise ValueError(msg)
    for name in a:
        gap = a[name] - b[name]
        length = gap.norm(dim=1, keepdim=True)
        yield name, gap / length.clamp(min=1e-30), length.sum().item()
