"""`capture`: the statistics of activations while a model runs; the activations themselves are not kept."""

__all__ = ["Record", "capture"]

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch

from torch import Tensor, nn

from aion.observations import near_miss
from aion.steering.layers import edited, find_layers
from aion.steering.layout import Layout
from aion.steering.moments import Moments

NORMALISE = ("layer", "none")


class Record:
    """Accumulates what one layer puts out.

    Arguments:
        layout: letters of `aion.steering.Layout`; by default the usual one.
        valid: returns which tokens count from the layer's arguments, see `Layout.rows`; all by default.
        normalise: `"layer"` gives every vector mean 0 and standard deviation 1 first, `"none"` nothing.
        places: keeps the mean of every place of the grid, `field`, too.
        covariance: keeps the covariance over objects too.

    Attributes:
        moments: of the means over frames, tokens and grid of the objects: one vector an object and call.
        norm: mean over vectors of their root mean square norm per place.
    """

    def __init__(
        self,
        layout: str | None = None,
        valid: Callable[..., Tensor | None] | None = None,
        normalise: str = "none",
        places: bool = False,
        covariance: bool = True,
    ) -> None:
        if normalise not in NORMALISE:
            msg = f"unknown normalisation {normalise!r}; {near_miss(normalise, NORMALISE)}"
            raise ValueError(msg)
        self.letters, self.valid, self.normalise, self.places = layout, valid, normalise, places
        self.moments, self.calls, self._norm, self._field = Moments(covariance), 0, 0.0, None

    @property
    def norm(self) -> float:
        """Returns the mean norm of the activation at a place."""
        return self._norm / max(self.calls, 1)

    @property
    def field(self) -> Tensor | None:
        """Returns the mean `(C, *grid)` in float64, if places are kept."""
        return None if self._field is None else self._field / self.calls

    def read(self, x: Tensor, args: tuple, kwargs: dict) -> Tensor:
        """Averages an activation over all but objects and channels, `(B, C)`, and keeps the rest of what is kept."""
        layout = Layout.of(x, self.letters)
        self.letters = layout.letters
        x = x.detach().float() if x.dtype != torch.float64 else x.detach()
        valid = self.valid(*args, **kwargs) if self.valid else None
        if self.normalise == "layer":
            centred = x - x.mean(layout.vector, keepdim=True)
            x = centred / centred.square().mean(layout.vector, keepdim=True).sqrt().clamp(min=1e-6)
        rows = layout.rows(x, valid)
        self._norm += _place_norm(x, layout, valid)
        self.calls += 1
        if self.places:
            field = layout.field(x).cpu()
            if self._field is not None and self._field.shape != field.shape:
                msg = f"the grid changed from {tuple(self._field.shape[1:])} to {tuple(field.shape[1:])}: places differ"
                raise ValueError(msg)
            self._field = field if self._field is None else self._field + field
        return rows.cpu()


@contextmanager
def capture(
    model: nn.Module,
    layers: str,
    *,
    layout: str | None = None,
    valid: Callable[..., Tensor | None] | None = None,
    normalise: str = "none",
    places: bool = False,
    covariance: bool = True,
) -> Iterator[dict[str, Record]]:
    """Gives a record per layer, which fills while the model runs in the context.

    Memory depends on the number of layers and channels only.

    Arguments:
        model: any module, wrapped or compiled too.
        layers: a name or a pattern, see `aion.steering.layers`.
        layout: see `Record` for this and what follows.
        valid: see `Record`.
        normalise: see `Record`.
        places: see `Record`.
        covariance: see `Record`.

    Raises:
        RuntimeError: if a layer did not run at all in the context.
        ValueError: if no layer fits, an activation is not finite (named by object) or does not fit the layout.
    """
    found = find_layers(model, layers)
    records = {name: Record(layout, valid, normalise, places, covariance) for name in found}

    def read(name: str, x: Tensor, args: tuple, kwargs: dict) -> None:
        records[name].moments.update(records[name].read(x, args, kwargs))

    with edited(model, found, read):
        yield records
    if idle := [name for name, record in records.items() if not record.calls]:
        msg = f"nothing captured: {idle[0]!r} did not run in the context"
        raise RuntimeError(msg)


def _place_norm(x: Tensor, layout: Layout, valid: Tensor | None) -> float:
    """Averages the root mean square over places of the norm of the channels."""
    places = 1
    for size in layout.grid_shape(x):
        places *= size
    norm = layout.norm(x) / places**0.5
    return layout.rows(norm, valid if not layout.grid else None).mean().item()
