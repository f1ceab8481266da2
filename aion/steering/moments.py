r"""`Moments`: mean and covariance of vectors that pass by, none of which is kept.

Two sets of :math:`n_a` and :math:`n_b` vectors are merged by :math:`\mu = \mu_a + \delta n_b / n` and
:math:`S = S_a + S_b + \delta\delta^T n_a n_b / n` with :math:`\delta = \mu_b - \mu_a`, so that memory does not depend
on their number, nor the result on their order but for rounding.

References:
    Updating Formulae and a Pairwise Algorithm for Computing Sample Variances (Chan, Golub, LeVeque, 1979)
"""

__all__ = ["Moments"]

import torch

from torch import Tensor


class Moments:
    """Accumulates `count`, `mean` `(C,)` and `covariance` `(C, C)` in float64 on the CPU.

    Arguments:
        covariance: keeps the covariance too.

    Example:
        >>> moments = Moments()
        >>> moments.update(torch.tensor([[1.0], [3.0]]))
        >>> moments.mean, moments.covariance
        (tensor([2.], dtype=torch.float64), tensor([[2.]], dtype=torch.float64))
    """

    def __init__(self, covariance: bool = True) -> None:
        self.count = 0
        self.mean: Tensor = torch.zeros(0, dtype=torch.float64)
        self._scatter: Tensor | None = torch.zeros(0, 0, dtype=torch.float64) if covariance else None

    @property
    def covariance(self) -> Tensor | None:
        """Returns the unbiased covariance, or None if it is not kept or there are fewer than two vectors."""
        return None if self._scatter is None or self.count < 2 else self._scatter / (self.count - 1)

    def update(self, rows: Tensor) -> None:
        """Takes in vectors `(n, C)`.

        Raises:
            ValueError: for NaN or infinite values (named by their rows) or another number of channels.
        """
        rows = rows.detach().to("cpu", torch.float64)
        if (bad := ~rows.isfinite().all(1)).any():
            msg = f"activations are NaN or infinite for objects {bad.nonzero().flatten()[:5].tolist()} of the batch"
            raise ValueError(msg)
        if self.count and rows.shape[1] != len(self.mean):
            msg = f"cannot take in vectors of {rows.shape[1]} channels after those of {len(self.mean)}"
            raise ValueError(msg)
        mean = rows.mean(0)
        if self.count == 0:
            self.mean = torch.zeros_like(mean)
            self._scatter = None if self._scatter is None else mean.new_zeros(len(mean), len(mean))
        total, delta = self.count + len(rows), mean - self.mean
        if self._scatter is not None:
            centred = rows - mean
            self._scatter.addmm_(centred.T, centred).addr_(delta, delta, alpha=self.count * len(rows) / total)
        self.mean += delta * (len(rows) / total)
        self.count = total

    def merge(self, other: "Moments") -> None:
        """Takes in what another has seen, such as that of another rank.

        Raises:
            ValueError: for another number of channels, or if one keeps covariances and the other does not.
        """
        if other.count == 0:
            return
        shapes = len(self.mean) if self.count else len(other.mean), len(other.mean)
        if (self._scatter is None) != (other._scatter is None) or shapes[0] != shapes[1]:
            msg = f"cannot merge moments of {shapes[0]} and {shapes[1]} channels, or with and without covariance"
            raise ValueError(msg)
        if self.count == 0:
            self.count, self.mean, self._scatter = other.count, other.mean.clone(), _copy(other._scatter)
            return
        total, delta = self.count + other.count, other.mean - self.mean
        if self._scatter is not None:
            self._scatter += other._scatter + torch.outer(delta, delta) * (self.count * other.count / total)
        self.mean += delta * (other.count / total)
        self.count = total


def _copy(tensor: Tensor | None) -> Tensor | None:
    return None if tensor is None else tensor.clone()
