r"""Ridge regression on frozen embeddings: how much of a quantity can be read off linearly.

With centred :math:`X` and :math:`y` the weights are :math:`w = (X^T X + \alpha I)^{-1} X^T y`, or, the same and cheaper
when there are fewer objects than features, :math:`w = X^T (X X^T + \alpha I)^{-1} y`. The intercept is not penalised.
"""

__all__ = ["RidgeProbe"]

import math
import numbers

from typing import TypeVar

import numpy as np
import torch

from torch import Tensor

from aion.observations import near_miss

Self = TypeVar("Self", bound="RidgeProbe")


class RidgeProbe:
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

    def __repr__(self) -> str:
        return f"RidgeProbe(alpha={self.alpha!r})"

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
        X, y = _matrix(X), _finite("y", y)
        if y.ndim not in {1, 2} or 0 in y.shape[1:]:
            msg = f"RidgeProbe: y must be (N,) or (N, K), given shape {tuple(y.shape)}"
            raise ValueError(msg)
        if len(X) != len(y) or len(X) == 0:
            msg = f"RidgeProbe: X and y must have the same number of objects, at least one, given {len(X)} and {len(y)}"
            raise ValueError(msg)
        center, mean = X.mean(0), y.mean(0)
        weight = _solve(X - center, (y - mean).reshape(len(y), -1), float(self.alpha)).T.reshape(*y.shape[1:], -1)
        self.coef_ = weight.numpy()
        self.intercept_ = (mean - weight @ center).numpy()[()]
        self.n_features_in_ = X.shape[1]
        return self

    def predict(self, X: Tensor | np.ndarray) -> Tensor | np.ndarray:
        """Predicts `(N,)` or `(N, K)`, like the `y` that was fitted, from features `(N, D)`, in float64.

        Raises:
            ValueError: if nothing was fitted (scikit-learn's `NotFittedError`), or for another width, NaN or infinite
                values.
        """
        if not self.__sklearn_is_fitted__():
            from sklearn.exceptions import NotFittedError

            msg = "RidgeProbe: not fitted yet; call fit(X, y) before predict or score"
            raise NotFittedError(msg)
        features, wanted = _matrix(X), self.n_features_in_
        if features.shape[1] != wanted:
            msg = f"X has {features.shape[1]} features, but RidgeProbe is expecting {wanted} features as input"
            raise ValueError(msg)
        weight, intercept = torch.as_tensor(self.coef_), torch.as_tensor(self.intercept_)
        prediction = (features @ weight.reshape(-1, wanted).T).reshape(-1, *intercept.shape) + intercept
        return prediction.to(X.device) if isinstance(X, Tensor) else prediction.numpy()

    def score(self, X: Tensor | np.ndarray, y: Tensor | np.ndarray) -> float:
        r"""Computes :math:`R^2`, averaged over targets; a constant target scores 1 if predicted exactly, else 0."""
        y = _finite("y", y)
        prediction = torch.as_tensor(self.predict(X)).cpu()
        if prediction.shape != y.shape:
            msg = f"RidgeProbe: y must be {tuple(prediction.shape)} like the prediction, given {tuple(y.shape)}"
            raise ValueError(msg)
        residual, total = (y - prediction).square().sum(0), (y - y.mean(0)).square().sum(0)
        return torch.where(total > 0, 1 - residual / total, (residual == 0).double()).mean().item()

    def get_params(self, deep: bool = True) -> dict[str, float]:
        """Returns the constructor's arguments, by name."""
        return {"alpha": self.alpha}

    def set_params(self: Self, **params: float) -> Self:
        """Sets constructor's arguments by name; an unknown name is a `ValueError` with the near misses."""
        for name in params:
            if name not in self.get_params():
                msg = f"RidgeProbe has no parameter {name!r}; {near_miss(name, self.get_params())}"
                raise ValueError(msg)
        self.__dict__.update(params)
        return self

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "coef_")

    def __sklearn_tags__(self) -> object:
        from sklearn.utils import InputTags, RegressorTags, Tags, TargetTags

        target = TargetTags(required=True, multi_output=True)
        return Tags("regressor", target, regressor_tags=RegressorTags(), input_tags=InputTags())


def _finite(name: str, value: Tensor | np.ndarray) -> Tensor:
    """Converts to float64 on the CPU and names the rows that are not finite."""
    if not isinstance(value, Tensor):
        value = np.asarray(value)
        if value.dtype.kind not in "fiub":
            msg = f"RidgeProbe: {name} must hold real numbers, given {value.dtype}"
            raise TypeError(msg)
        value = torch.from_numpy(value.astype(np.float64))
    if value.is_complex():
        msg = f"RidgeProbe: {name} must hold real numbers, given {value.dtype}"
        raise TypeError(msg)
    value = value.detach().to("cpu", torch.float64)
    if (bad := ~torch.isfinite(value)).any():
        rows = bad.reshape(len(value), -1).any(1).nonzero().flatten().tolist()
        msg = (
            f"RidgeProbe: {name} must be finite, but {len(rows)} of {len(value)} rows hold NaN or inf "
            f"(first: {', '.join(map(str, rows[:5]))}): leave them out of both X and y"
        )
        raise ValueError(msg)
    return value


def _matrix(X: Tensor | np.ndarray) -> Tensor:
    X = _finite("X", X)
    if X.ndim != 2 or X.shape[1] == 0:
        msg = f"RidgeProbe: X must be (N, D), given shape {tuple(X.shape)}; for one feature use X[:, None]"
        raise ValueError(msg)
    return X


def _solve(X: Tensor, y: Tensor, alpha: float) -> Tensor:
    """Solves the penalised normal equations for centred `(N, D)` and `(N, K)`."""
    wide = X.shape[0] < X.shape[1]
    gram = X @ X.T if wide else X.T @ X
    if alpha > 1e-10 * gram.trace():
        gram.diagonal().add_(alpha)
        factor = torch.linalg.cholesky(gram)
        return X.T @ torch.cholesky_solve(y, factor) if wide else torch.cholesky_solve(X.T @ y, factor)
    # So small a penalty is lost to rounding once X is squared: the way that does not square it, some 8 times slower.
    u, s, v = torch.linalg.svd(X, full_matrices=False)
    kept = s > s.max() * max(X.shape) * torch.finfo(s.dtype).eps
    return v.T @ (torch.where(kept, s / (s.square() + alpha), 0.0)[:, None] * (u.T @ y))
