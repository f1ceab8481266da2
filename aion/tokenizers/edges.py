r"""Where the edges of the bins of a scalar lie: at quantiles of many values, evenly spaced in their normal score.

With the empirical distribution F of the values and the normal one :math:`\Phi`, :math:`g(x) = \Phi^{-1}(F(x))` makes
the values Gaussian. Of K bins all but the tails are equal steps in g from :math:`-z` to :math:`z`, where
:math:`\Phi(-z) = 1/K`. Steps further out would be bins that hardly any value uses, while one bin for each tail could be
of any width: each tail, the outer 1 / K of the values, has K / 32 bins (at least one), even steps up to the smallest or
the largest value.

A value that many objects share (0 in a catalogue, whole numbers) gets a bin of its own, one step of float32 wide.
Values are float32, and so are the edges: no finer edge would tell two of them apart, and no two edges are equal.

References:
    | AION-1: Omnimodal Foundation Model for Astronomical Sciences (Parker et al., 2025), arXiv 2510.17960
"""

__all__ = ["apart", "levels", "quantile", "quantiles"]

from collections.abc import Callable

import torch

from torch import Tensor

SMALLEST = 0x007FFFFF  # bits of the float32 before the first normal number: what lies closer to 0 counts as 0


def levels(bins: int, tail: float) -> Tensor:
    """Returns the shares of the values below the edges of bins that are equal steps in the normal score.

    Arguments:
        bins: number of bins, 0 or more.
        tail: share of the values beyond the outermost edges on each side, at most 1 / 2; 0 for bins that hold equal
            shares of the values instead.

    Returns:
        `(bins + 1,)` float64 from `tail` to 1 - `tail`.
    """
    if tail == 0:
        return torch.linspace(0, 1, bins + 1, dtype=torch.float64)
    z = torch.special.ndtri(torch.tensor(1 - tail, dtype=torch.float64)).item()
    return torch.special.ndtr(torch.linspace(-z, z, bins + 1, dtype=torch.float64))


def quantile(ordered: Tensor, level: Tensor) -> Tensor:
    """Returns the quantiles of rising values `(N,)` at levels `(L,)` in [0, 1], straight lines between neighbours."""
    position = level * (len(ordered) - 1)
    below = position.floor().long().clamp(max=len(ordered) - 1)
    return torch.lerp(ordered[below], ordered[(below + 1).clamp(max=len(ordered) - 1)], position - below)


def quantiles(
    ordered: Tensor, ends: Tensor, bins: int, spacing: str, expand: Callable[[Tensor], Tensor] = lambda value: value
) -> Tensor:
    """Returns `bins + 1` edges at the quantiles of rising values, from one end to the other.

    Where many values are equal, edges fall on one of them that tell nothing apart. Those are dropped but for two, the
    ends of that value's own bin, and as many more quantiles are taken as that leaves room for.

    Arguments:
        ordered: rising values, transformed so that lines between neighbours are straight, `(N,)` float64.
        ends: the outermost edges, transformed too, `(2,)`.
        bins: number of bins.
        spacing: `"normal"` for equal steps in the normal score and the tails described above, `"quantile"` for bins
            that hold equal shares of the values.
        expand: undoes the transform.
    """
    outer = max(bins // 32, 1) if spacing == "normal" else 0  # bins of each tail
    step = torch.arange(outer, dtype=torch.float64) / max(outer, 1)

    def place(count: int) -> tuple[Tensor, Tensor]:
        edge = quantile(ordered, levels(count, 1 / bins if outer else 0.0))
        tails = torch.lerp(ends[0], edge[0], step), torch.lerp(ends[1], edge[-1], step).flip(0)
        edge = expand(torch.cat([tails[0], edge, tails[1]]))
        return edge, torch.cat([torch.zeros(2, dtype=torch.bool), edge.float()[2:] == edge.float()[:-2]])

    low, high = bins - 2 * outer, 256 * bins
    edge, spare = place(low)
    while spare.any() and high - low > 1:
        middle = (low + high) // 2
        more, useless = place(middle)
        if (~useless).sum() <= bins + 1:
            low, edge, spare = middle, more, useless
        else:
            high = middle
    room = bins + 1 - (~spare).sum()
    return edge[~spare | (spare.cumsum(0) <= room)]


def apart(edges: Tensor) -> Tensor:
    """Moves rising edges that are equal as float32 apart by one step of float32 each; the result is float32.

    Numbers are counted from 0, each float32 one more than the one before it, so that edge j may have no smaller count
    than that of edge j - 1 and one.
    """
    bits = edges.float().abs().view(torch.int32).long()
    count = (bits - SMALLEST).clamp(min=0) * torch.where(edges < 0, -1, 1)
    index = torch.arange(len(edges), device=edges.device)
    count = (count - index).cummax(0).values + index
    bits = torch.where(count == 0, 0, count.abs() + SMALLEST).to(torch.int32)
    return bits.view(torch.float32) * torch.where(count < 0, -1, 1)
