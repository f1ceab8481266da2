"""`Push`: the edit that a direction makes to one activation; see `aion.steering.Direction.applied`."""

__all__ = ["Push"]

import math

from collections.abc import Collection
from numbers import Real

import torch
import torch.nn.functional as F

from torch import Tensor

from aion.observations import near_miss
from aion.steering.layout import Layout

MODES = ("ablate", "add", "clamp")
SPATIAL = ("drop", "exact", "interp", "pad")
SMALLEST = 1e-4  # share of a field that its mean must be


class Push:
    """Edits the activations of a layer, call by call.

    Arguments:
        vector: `(C,)` or `(C, *grid)`.
        strength: see `aion.steering.Direction.applied` for this and what follows.
        mode: see there.
        relative: see there.
        spatial: see there.
        steps: see there.
        region: see there.
        layer: name of the layer, for messages.
        layout: letters of `aion.steering.Layout`.
        means: of the groups with and without the concept, `(2, C)`, for `clamp`.
        norm: mean norm of an activation at a place, for `clamp`.

    Raises:
        ValueError: see there.
    """

    def __init__(
        self,
        vector: Tensor,
        strength: float,
        mode: str = "add",
        relative: bool = True,
        spatial: str = "drop",
        steps: Collection[int] | None = None,
        region: Tensor | None = None,
        layer: str = "",
        layout: str = "BNC",
        means: Tensor | None = None,
        norm: float | None = None,
    ) -> None:
        for name, given, known in (("mode", mode, MODES), ("spatial", spatial, SPATIAL)):
            if given not in known:
                msg = f"applied: unknown {name} {given!r}; {near_miss(given, known)}"
                raise ValueError(msg)
        if isinstance(strength, bool) or not isinstance(strength, Real) or not math.isfinite(strength):
            msg = f"applied: strength must be a finite number, given {strength!r}"
            raise ValueError(msg)
        if steps is not None and (not hasattr(steps, "__contains__") or len(steps) == 0 or min(steps) < 0):
            msg = f"applied: steps must hold calls to steer, such as range(10), given {steps!r}"
            raise ValueError(msg)
        if spatial != "drop" and vector.ndim == 1:
            msg = f"applied: spatial={spatial!r} needs a direction with places: fit it with places=True"
            raise ValueError(msg)
        if mode == "clamp" and (means is None or norm is None or spatial != "drop"):
            msg = "applied: clamp needs spatial='drop' and the means of the groups, kept by fit with normalise='none'"
            raise ValueError(msg)
        if region is not None and not torch.as_tensor(region).any():
            msg = "applied: region selects no place"
            raise ValueError(msg)
        self.strength, self.mode, self.relative, self.spatial = float(strength), mode, relative, spatial
        self.vector = _dropped(vector) if spatial == "drop" and vector.ndim > 1 else vector
        self.steps, self.region = steps, None if region is None else torch.as_tensor(region)
        self.layer, self.layout, self.means, self.norm = layer, layout, means, norm
        self.calls = self.steered = 0

    def __call__(self, name: str, x: Tensor, args: tuple, kwargs: dict) -> Tensor | None:
        """Returns the edited activation, or None for a call that is not to be steered."""
        call, self.calls = self.calls, self.calls + 1
        if self.steps is not None and call not in self.steps:
            return None
        self.steered += 1
        return self.edit(x)

    def check_ran(self) -> None:
        """Raises a `RuntimeError` if nothing was steered."""
        if self.steered == 0:
            ran = f"ran {self.calls} times, none of them among steps" if self.calls else "did not run in the context"
            msg = f"nothing was steered: layer {self.layer!r} {ran}"
            raise RuntimeError(msg)

    def edit(self, x: Tensor) -> Tensor:
        """Edits an activation; sums and norms are in float32 at least, the result in the type of the activation."""
        layout = Layout.of(x, self.layout)
        wide = x.to(torch.promote_types(x.dtype, torch.float32))
        factor, vector = getattr(self, f"_{self.mode}")(wide, self._vector(x, layout).to(wide), layout)
        if self.region is not None:
            factor = factor * self._weights(x, layout).to(wide)
        if wide is x:
            return torch.addcmul(x, factor, vector)  # in one pass
        return x + (factor * vector).to(x.dtype)

    def _add(self, x: Tensor, vector: Tensor, layout: Layout) -> tuple[Tensor, Tensor]:
        if not self.relative:
            return x.new_tensor(self.strength), vector
        places = math.prod(x.shape[axis] for axis in layout.grid if vector.shape[axis] == 1)
        return layout.norm(x), vector * (self.strength / (vector.norm() * places**0.5))

    def _ablate(self, x: Tensor, vector: Tensor, layout: Layout) -> tuple[Tensor, Tensor]:
        unit = vector / vector.norm()
        return -self.strength * self._along(x, unit, layout), unit

    def _clamp(self, x: Tensor, vector: Tensor, layout: Layout) -> tuple[Tensor, Tensor]:
        unit = vector / vector.norm()
        level = self.means[0 if self.strength > 0 else 1].to(unit) @ unit.flatten()
        if self.relative:
            places = math.prod(layout.grid_shape(x))
            level = level / self.norm * layout.norm(x) / places**0.5
        return abs(self.strength) * (level - self._along(x, unit, layout)), unit

    def _along(self, x: Tensor, unit: Tensor, layout: Layout) -> Tensor:
        """Returns the coordinate along a vector of length 1: at each place, or of the whole grid if it has places."""
        if self.spatial == "drop" and layout.channel == x.ndim - 1:
            return (x @ unit.flatten())[..., None]  # a third of the time of the sum over products
        axes = (layout.channel,) if self.spatial == "drop" else layout.vector
        return (x * unit).sum(axes, keepdim=True)

    def _vector(self, x: Tensor, layout: Layout) -> Tensor:
        """Gives the vector the axes of an activation."""
        vector, grid = self.vector, layout.grid_shape(x)
        if len(vector) != x.shape[layout.channel]:
            msg = f"the direction has {len(vector)} channels, layer {self.layer!r} {x.shape[layout.channel]}"
            raise ValueError(msg)
        given = tuple(vector.shape[1:])
        if self.spatial == "exact" and given != grid:
            msg = f"the direction has places {given}, the layer {grid}: use spatial='drop', 'interp' or 'pad'"
            raise ValueError(msg)
        if self.spatial == "interp":
            vector = resized(vector, grid)
        elif self.spatial == "pad":
            vector = padded(vector, grid)
        return layout.spread(vector).to(x.device)

    def _weights(self, x: Tensor, layout: Layout) -> Tensor:
        region = self.region.to(x.device)
        shape = tuple(size for axis, size in enumerate(x.shape) if axis != layout.channel)
        padded_shape = (1,) * (len(shape) - region.ndim) + tuple(region.shape)
        fits = len(padded_shape) == len(shape)
        if not fits or any(given not in {1, size} for given, size in zip(padded_shape, shape, strict=True)):
            msg = f"region has the shape {tuple(region.shape)}, which does not fit the places {shape}"
            raise ValueError(msg)
        return region.reshape(padded_shape).unsqueeze(layout.channel)


def _dropped(field: Tensor) -> Tensor:
    """Averages over places; what is left of a field that has next to no mean would be rounding at full strength."""
    mean, size = field.flatten(1).mean(1), field[0].numel()
    if not mean.norm() * size**0.5 > SMALLEST * field.norm():
        msg = "applied: the direction has no mean over places, so that spatial='drop' leaves nothing of it"
        raise ValueError(msg)
    return mean


def resized(field: Tensor, grid: tuple[int, ...]) -> Tensor:
    """Interpolates a field `(C, *given)` linearly to another grid."""
    if tuple(field.shape[1:]) == grid:
        return field
    mode = {1: "linear", 2: "bilinear", 3: "trilinear"}[len(grid)]
    return F.interpolate(field[None], size=grid, mode=mode, align_corners=False)[0]


def padded(field: Tensor, grid: tuple[int, ...]) -> Tensor:
    """Crops a field `(C, *given)` or fills it up with 0 to another grid, about the same centre."""
    for axis, size in enumerate(grid, start=1):
        given = field.shape[axis]
        if given > size:
            field = field.narrow(axis, (given - size) // 2, size)
        elif given < size:
            before = (size - given) // 2
            zeros = [0, 0] * (field.ndim - 1 - axis) + [before, size - given - before]
            field = F.pad(field, zeros)
    return field
