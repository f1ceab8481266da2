r"""The distribution of one scalar as a model predicts it: a histogram.

Between two edges the density is constant, :math:`p(x) = P_k / (e_{k+1} - e_k)`. Everything else follows in closed form
from the cumulative distribution, which is piecewise linear.
"""

__all__ = ["Posterior"]

from dataclasses import dataclass

import torch

from torch import Tensor


@dataclass(frozen=True, eq=False, repr=False)
class Posterior:
    """Holds a histogram density for each object of a batch.

    Arguments:
        edges: increasing bin edges, with shape `(K + 1,)`, in the unit of the quantity.
        probabilities: probability of each bin, `(B, K)`, non-negative; rows are normalised here.
    """

    edges: Tensor
    probabilities: Tensor

    def __post_init__(self) -> None:
        edges, probabilities = self.edges.double(), self.probabilities.double()
        if probabilities.ndim != 2 or edges.shape != (probabilities.shape[1] + 1,):
            msg = f"Posterior: wanted edges (K+1,), probabilities (B, K), given {edges.shape}, {probabilities.shape}"
            raise ValueError(msg)
        if not (edges.diff() > 0).all() or not torch.isfinite(edges).all():
            msg = "Posterior: edges must be finite and increase"
            raise ValueError(msg)
        total = probabilities.sum(1, keepdim=True)
        if not torch.isfinite(total).all() or (probabilities < 0).any() or (total <= 0).any():
            msg = "Posterior: probabilities must be finite, non-negative and not all zero"
            raise ValueError(msg)
        object.__setattr__(self, "edges", edges)
        object.__setattr__(self, "probabilities", probabilities / total)

    def __len__(self) -> int:
        return self.probabilities.shape[0]

    def __repr__(self) -> str:
        count, (low, high) = len(self), self.edges[[0, -1]].tolist()
        return f"Posterior({count} object{'s' * (count != 1)}, {len(self.centers)} bins from {low:.5g} to {high:.5g})"

    @property
    def centers(self) -> Tensor:
        """Returns the bin centres `(K,)`."""
        return (self.edges[1:] + self.edges[:-1]) / 2

    @property
    def density(self) -> Tensor:
        """Returns the probability density in each bin `(B, K)`."""
        return self.probabilities / self.edges.diff()

    def mean(self) -> Tensor:
        """Computes the mean `(B,)`."""
        return self.probabilities @ self.centers

    def std(self) -> Tensor:
        """Computes the standard deviation `(B,)`, the width of the bins included."""
        second = self.centers**2 + self.edges.diff() ** 2 / 12
        return (self.probabilities @ second - self.mean() ** 2).clamp(min=0).sqrt()

    def mode(self) -> Tensor:
        """Finds the centre of the densest bin `(B,)`."""
        return self.centers[self.density.argmax(1)]

    def quantile(self, q: Tensor | float) -> Tensor:
        """Inverts the cumulative distribution at `q` in [0, 1], a number `-> (B,)` or `(B, M) -> (B, M)`.

        Raises:
            ValueError: for levels beyond 0 to 1, NaN too.
        """
        q = torch.as_tensor(q, dtype=torch.float64, device=self.edges.device)
        if not ((q >= 0) & (q <= 1)).all():
            msg = f"Posterior: quantiles must lie in [0, 1], given {q.min().item():.3g} to {q.max().item():.3g}"
            raise ValueError(msg)
        level = q.expand(len(self), 1) if q.ndim == 0 else q
        cumulative = torch.cat([self.probabilities.new_zeros(len(self), 1), self.probabilities.cumsum(1)], dim=1)
        level = torch.minimum(level, cumulative[:, -1:])
        bins = (torch.searchsorted(cumulative, level.contiguous()) - 1).clamp(0, self.probabilities.shape[1] - 1)
        inside = (level - cumulative.gather(1, bins)) / self.probabilities.gather(1, bins).clamp(min=1e-300)
        value = self.edges[bins] + inside.clamp(0, 1) * self.edges.diff()[bins]
        return value[:, 0] if q.ndim == 0 else value

    def median(self) -> Tensor:
        """Computes the median `(B,)`."""
        return self.quantile(0.5)

    def interval(self, mass: float = 0.68) -> tuple[Tensor, Tensor]:
        """Computes the central interval that holds `mass`: lower `(B,)` and upper `(B,)` ends.

        Raises:
            ValueError: for a mass beyond 0 to 1.
        """
        if not 0 <= mass <= 1:
            msg = f"Posterior: the mass of an interval is a share from 0 to 1, given {mass}"
            raise ValueError(msg)
        return self.quantile((1 - mass) / 2), self.quantile((1 + mass) / 2)

    def log_prob(self, value: Tensor | float) -> Tensor:
        """Computes the log density of one value per object `(B,)`; -inf outside the edges, NaN of NaN.

        Raises:
            ValueError: for values that are neither one number nor one for each object.
        """
        value = torch.as_tensor(value, dtype=torch.float64, device=self.edges.device)
        if value.shape not in {(), (len(self),)}:
            msg = f"Posterior: wanted a value, or ({len(self)},), one for each object, given {tuple(value.shape)}"
            raise ValueError(msg)
        value = value.expand(len(self))
        bins = torch.searchsorted(self.edges, value.contiguous(), right=True) - 1
        bins = torch.where(value == self.edges[-1], self.density.shape[1] - 1, bins)
        inside = (bins >= 0) & (bins < self.density.shape[1])
        density = self.density.gather(1, bins.clamp(0, self.density.shape[1] - 1)[:, None])[:, 0]
        return torch.where(inside, density, 0.0).log().masked_fill(torch.isnan(value), torch.nan)

    def sample(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """Draws `(B, n)` values."""
        level = torch.rand(len(self), n, dtype=torch.float64, generator=generator)
        return self.quantile(level.to(self.edges.device))
