r"""Ridge regression on frozen embeddings: how much of a quantity can be read off linearly.

With centred :math:`X` and :math:`y` the weights are :math:`w = (X^T X + \alpha I)^{-1} X^T y`, or, the same and cheaper
when there are fewer objects than features, :math:`w = X^T (X X^T + \alpha I)^{-1} y`. The intercept is not penalised.
"""

__all__ = ["RidgeProbe", "ridge_weights"]

import math
import numbers

from collections.abc import Sequence
from typing import TypeVar

import numpy as np
import torch

from torch import Tensor

from aion.probes.probe import Probe

Self = TypeVar("Self", bound="RidgeProbe")


class RidgeProbe(Probe):
    r"""Fits a linear map with an :math:`L_2` penalty, in closed form and float64.

    It keeps to the protocol of scikit-learn (cross-validation, pipelines, grid search) and takes arrays or tensors:
    what is predicted from a tensor is a tensor on its device. After `fit`, `coef_` is `(D,)` or `(K, D)` and
    `intercept_` a number or `(K,)`, as numpy float64.

    Arguments:
        alpha: strength of the penalty, at least 0; with 0 the weights are those of least squares of smallest norm.

    References:
        Ridge Regression: Biased Estimation for Nonorthogonal Problems (Hoerl, Kennard, 1970, Technometrics 12, 55)

    Example:
        >>> X = torch.tensor([[0.0], [1.0], [2.0]])
        >>> probe = RidgeProbe(alpha=0).fit(X, torch.tensor([1.0, 3.0, 5.0]))
        >>> probe.predict(torch.tensor([[3.0]]))
        tensor([7.0000], dtype=torch.float64)
    """

    def __init__(self, alpha: float = 1.0) -> None:
        self.alpha = alpha

    def fit(self: Self, X: Tensor | np.ndarray, y: Tensor | np.ndarray) -> Self:
        """Fits the map from features `(N, D)` to targets `(N,)` or `(N, K)`; neither may hold NaN.

        Raises:
            TypeError: for values that are not real numbers.
            ValueError: for other shapes, lengths that differ, NaN or infinite values (named by their rows), no object
                or a bad alpha.
        """
        if not isinstance(self.alpha, numbers.Real) or not 0 <= self.alpha < math.inf:
            msg = f"RidgeProbe: alpha must be a finite number >= 0, given {self.alpha!r}"
            raise ValueError(msg)
        X, y = self._pair(X, y)
        center, mean = X.mean(0), y.mean(0)
        (weight,) = ridge_weights(X - center, (y - mean).reshape(len(y), -1), [float(self.alpha)])
        weight = weight.T.reshape(*y.shape[1:], -1)
        self.coef_ = weight.numpy()
        self.intercept_ = (mean - weight @ center).numpy()[()]
        return self

    def predict(self, X: Tensor | np.ndarray) -> Tensor | np.ndarray:
        """Predicts `(N,)` or `(N, K)`, like the `y` that was fitted, from features `(N, D)`, in float64.

        Raises:
            ValueError: if nothing was fitted (scikit-learn's `NotFittedError`), or for another width, NaN or infinite
                values.
        """
        features = self._known(X)
        weight, intercept = torch.as_tensor(self.coef_), torch.as_tensor(self.intercept_)
        prediction = (features @ weight.reshape(-1, features.shape[1]).T).reshape(-1, *intercept.shape) + intercept
        return self._like(prediction, X)


def ridge_weights(X: Tensor, y: Tensor, alphas: Sequence[float]) -> list[Tensor]:
    """Solves the penalised normal equations for centred `(N, D)` and `(N, K)`, float64: `(D, K)` for each penalty.

    Products of features, most of the work, are taken once for all penalties.
    """
    wide = X.shape[0] < X.shape[1]
    gram = X @ X.T if wide else X.T @ X
    right = y if wide else X.T @ y
    # So small a penalty is lost to rounding once X is squared: the way that does not square it, some 8 times slower.
    lost = 1e-10 * gram.trace()
    u, s, v = torch.linalg.svd(X, full_matrices=False) if min(alphas) <= lost else [None] * 3
    found = []
    for alpha in alphas:
        if alpha > lost:
            factor = torch.linalg.cholesky(gram + alpha * torch.eye(len(gram), dtype=gram.dtype))
            weight = torch.cholesky_solve(right, factor)
            found.append(X.T @ weight if wide else weight)
        else:
            kept = s > s.max() * max(X.shape) * torch.finfo(s.dtype).eps
            found.append(v.T @ (torch.where(kept, s / (s.square() + alpha), 0.0)[:, None] * (u.T @ y)))
    return found
