r"""Where the edges of the bins of a scalar lie: at quantiles of many values, evenly spaced in their normal score.

With the empirical distribution F of the values and the normal one :math:`\Phi`, :math:`g(x) = \Phi^{-1}(F(x))` makes
the values Gaussian. Of K bins the inner K - 2 are equal steps in g from :math:`-z` to :math:`z`, and the outer two take
the tails up to the smallest and the largest value. :math:`\Phi(-z) = 1/K`: each tail holds as many values as a bin does
on average. Steps further out would be bins that hardly any value uses; fewer steps would give the tails away.

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


def levels(bins: int, spacing: str) -> Tensor:
    """Returns the shares of the values below each edge, `(bins + 1,)` float64 from 0 to 1.

    Arguments:
        bins: number of bins K.
        spacing: `"normal"` for equal steps in the normal score between tails of 1 / K, `"quantile"` for equal shares.
    """
    if spacing == "quantile":
        return torch.linspace(0, 1, bins + 1, dtype=torch.float64)
    tail = torch.special.ndtri(torch.tensor(1 - 1 / bins, dtype=torch.float64)).item()
    inner = torch.special.ndtr(torch.linspace(-tail, tail, bins - 1, dtype=torch.float64))
    return torch.cat([inner.new_zeros(1), inner, inner.new_ones(1)])


def quantile(ordered: Tensor, level: Tensor) -> Tensor:
    """Returns the quantiles of rising values `(N,)` at levels `(L,)` in [0, 1], straight lines between neighbours."""
    position = level * (len(ordered) - 1)
    below = position.floor().long().clamp(max=len(ordered) - 1)
    return torch.lerp(ordered[below], ordered[(below + 1).clamp(max=len(ordered) - 1)], position - below)


def quantiles(ordered: Tensor, bins: int, spacing: str, expand: Callable[[Tensor], Tensor]) -> Tensor:
    """Returns `bins + 1` edges at the quantiles of rising values.

    Where many values are equal, edges fall on one of them that tell nothing apart. Those are dropped but for two, the
    ends of that value's own bin, and as many more quantiles are taken as that leaves room for.

    Arguments:
        ordered: rising values, transformed so that lines between neighbours are straight, `(N,)` float64.
        bins: number of bins.
        spacing: see `levels`.
        expand: undoes that transform.
    """

    def place(count: int) -> tuple[Tensor, Tensor]:
        edge = expand(quantile(ordered, levels(count, spacing)))
        return edge, torch.cat([torch.zeros(2, dtype=torch.bool), edge.float()[2:] == edge.float()[:-2]])

    low, high = bins, 256 * bins  # enough for a value that 99 in 100 share
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
