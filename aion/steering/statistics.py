"""The statistics of a steering report: ranks, bootstrap intervals and tails, in float64."""

__all__ = ["interval", "null_quantile", "p_value", "slope", "spearman"]

import torch

from torch import Tensor

LEVEL = 0.95


def spearman(x: Tensor, y: Tensor) -> float:
    """Computes the rank correlation of two lists, ties having their mean rank; NaN for fewer than two or a constant."""
    a, b = (_ranks(v.double()) for v in (x, y))
    a, b = a - a.mean(), b - b.mean()
    return (a @ b / (a.norm() * b.norm())).item()


def interval(values: Tensor, draws: int, generator: torch.Generator) -> tuple[float, float]:
    """Computes the percentile bootstrap interval at 95 % of the mean over objects `(B,)`; NaN is left out."""
    values = values[values.isfinite()].double()
    if len(values) == 0:
        return float("nan"), float("nan")
    picked = torch.randint(len(values), (draws, len(values)), generator=generator)
    low, high = values[picked].mean(1).quantile(torch.tensor([0.5 - LEVEL / 2, 0.5 + LEVEL / 2], dtype=torch.float64))
    return low.item(), high.item()


def slope(strengths: Tensor, effects: Tensor) -> Tensor:
    """Computes the slope through the origin of effects `(S, B)` over strengths `(S,)`, `(B,)`; NaN is left out."""
    known = effects.isfinite()
    weight = strengths.double()[:, None] * known
    return (weight * effects.nan_to_num()).sum(0) / (weight * strengths.double()[:, None]).sum(0)


def null_quantile(null: Tensor) -> float:
    """Computes the 95 % quantile of the size of null effects."""
    return null.double().abs().quantile(LEVEL).item()


def p_value(effect: float, null: Tensor) -> float:
    """Computes the one-sided p-value of an effect that should be positive.

    A direction and its opposite have opposite odd effects, so that n null directions are 2 n draws. The smallest value
    that n directions can give is 1 / (2 n + 1).
    """
    both = torch.cat([null, -null])
    return (1 + int((both >= effect).sum())) / (1 + len(both))


def _ranks(values: Tensor) -> Tensor:
    below = (values[:, None] > values).sum(1)
    same = (values[:, None] == values).sum(1)
    return below + (same - 1) / 2.0
