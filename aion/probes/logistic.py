r"""Logistic regression on frozen embeddings: how well classes are separated by planes.

The weights minimise :math:`C \sum_i -\log p(y_i | x_i) + |w|^2 / 2`, the intercept free: with two classes
:math:`p = 1 / (1 + e^{-(w x + b)})`, with more the softmax of one plane each.
"""

__all__ = ["LogisticProbe"]

import functools
import math
import numbers

from collections.abc import Callable
from typing import TypeVar

import numpy as np
import torch

from torch import Tensor

from aion.probes.probe import Probe

Self = TypeVar("Self", bound="LogisticProbe")


class LogisticProbe(Probe):
    r"""Fits classes by planes with an :math:`L_2` penalty, in float64, to convergence.

    After `fit`, `classes_` holds the classes in sorted order, `coef_` is `(1, D)` for two of them or `(K, D)`,
    `intercept_` `(1,)` or `(K,)`.

    Arguments:
        C: inverse strength of the penalty, above 0.
        max_iter: most Newton steps, about ten of which do.
    """

    kind = "classifier"

    def __init__(self, C: float = 1.0, max_iter: int = 100) -> None:
        self.C = C
        self.max_iter = max_iter

    def fit(self: Self, X: Tensor | np.ndarray, y: Tensor | np.ndarray) -> Self:
        """Fits features `(N, D)`, without NaN, to classes `(N,)`: whole numbers or text.

        Raises:
            TypeError: for features that are not real numbers.
            ValueError: for other shapes, lengths that differ, NaN or infinite values (named by their rows), fewer than
                two classes or a bad C.
        """
        if not isinstance(self.C, numbers.Real) or not 0 < self.C < math.inf:
            msg = f"LogisticProbe: C must be a finite number > 0, given {self.C!r}"
            raise ValueError(msg)
        X, y = self._pair(X, y)
        center = X.mean(0)
        # Along the principal axes, each scaled by its curvature, features of any size are alike; none is in excess.
        axes, square = _axes(X - center)
        basis = axes / (float(self.C) * square / 4 + 1).sqrt()
        weight, bias = self._descend((X - center) @ basis, y, basis)
        weight = weight @ basis.T
        self.coef_, self.intercept_ = weight.numpy(), (bias - weight @ center).numpy()
        return self

    def _descend(self, Z: Tensor, y: Tensor, basis: Tensor) -> tuple[Tensor, Tensor]:
        """Minimises the loss by damped Newton steps over weights `(K, R)` along the axes and biases `(K,)`."""
        count = 1 if len(self.classes_) == 2 else len(self.classes_)
        Z = torch.cat([Z, torch.ones_like(Z[:, :1])], dim=1)
        target = y[:, None].double() if count == 1 else torch.nn.functional.one_hot(y, count).double()
        penalty = torch.cat([basis.square().sum(0), basis.new_zeros(1)])
        weight = Z.new_zeros(count, Z.shape[1])
        rough, bent = Z.float(), penalty.float()  # half as much to read; the gradient, which decides, is exact
        loss, first = self._loss(Z, target, penalty, weight), None
        for _ in range(self.max_iter):
            probability = _probability(Z @ weight.T)
            gradient = float(self.C) * (probability - target).T @ Z + penalty * weight
            slope = float(gradient.norm())
            first = first or slope or 1.0
            # A step need be no better than where it starts from.
            error = min(0.1, max(slope / first, 1e-4))
            multiply = functools.partial(self._curved, rough, probability.float(), bent)
            step = _solved(multiply, gradient.float(), error).double()
            size = 1.0
            while (new := self._loss(Z, target, penalty, weight - size * step)) > loss and size > 1e-4:
                size /= 2
            weight, loss = weight - size * step, new
            if step.abs().max() <= 1e-5 * (1 + weight.abs().max()):  # the next is far smaller
                break
        bias = weight[:, -1]
        return weight[:, :-1], bias - (bias.mean() if count > 1 else 0)

    def _loss(self, Z: Tensor, target: Tensor, penalty: Tensor, weight: Tensor) -> Tensor:
        logits = Z @ weight.T
        total = torch.nn.functional.softplus(logits).sum() if logits.shape[1] == 1 else logits.logsumexp(1).sum()
        return float(self.C) * (total - (target * logits).sum()) + (penalty * weight.square()).sum() / 2

    def _curved(self, Z: Tensor, probability: Tensor, penalty: Tensor, weight: Tensor) -> Tensor:
        """Multiplies weights `(K, R)` by the matrix of second derivatives, which is too large to be written down."""
        change = probability * (logits := Z @ weight.T)
        change -= probability * (change.sum(1, keepdim=True) if logits.shape[1] > 1 else change)
        result = float(self.C) * change.T @ Z + penalty * weight
        if len(weight) > 1:  # the same shift of all biases changes nothing: keep to none
            result[:, -1] += weight[:, -1].sum()
        return result

    def decision_function(self, X: Tensor | np.ndarray) -> Tensor | np.ndarray:
        """Computes the logits: `(N,)` of the second class if there are two, else `(N, K)`."""
        features = self._known(X)
        logits = features @ torch.as_tensor(self.coef_).T + torch.as_tensor(self.intercept_)
        return self._like(logits[:, 0] if logits.shape[1] == 1 else logits, X)

    def predict_proba(self, X: Tensor | np.ndarray) -> Tensor | np.ndarray:
        """Computes the probability of each class `(N, K)`, in the order of `classes_`."""
        logits = torch.as_tensor(self.decision_function(X))
        if logits.ndim == 1:
            logits = torch.stack([torch.zeros_like(logits), logits], dim=1)
        return self._like(logits.softmax(1), X)

    def predict(self, X: Tensor | np.ndarray) -> Tensor | np.ndarray:
        """Predicts the most probable class `(N,)` from features `(N, D)`.

        Raises:
            ValueError: if nothing was fitted (scikit-learn's `NotFittedError`), or for another width or NaN.
        """
        return self._named(torch.as_tensor(self.predict_proba(X)).argmax(1), X)


def _axes(X: Tensor) -> tuple[Tensor, Tensor]:
    """Returns orthonormal axes `(D, R)` close to the principal ones, and the square of the size of X along each.

    It takes a fifth of the time of a singular value decomposition; axes along which there is nothing need not be exact.
    """
    if len(X) >= X.shape[1]:
        square, axes = torch.linalg.eigh(X.T @ X)
        return axes, square.clamp(min=0)
    square, rows = torch.linalg.eigh(X @ X.T)
    square, rows = square.flip(0).clamp(min=0), rows.flip(1)
    return torch.linalg.qr(X.T @ rows)[0], square


def _probability(logits: Tensor) -> Tensor:
    return logits.sigmoid() if logits.shape[1] == 1 else logits.softmax(1)


def _solved(multiply: Callable[[Tensor], Tensor], right: Tensor, error: float, most: int = 1000) -> Tensor:
    """Solves a symmetric linear system by conjugate gradients, to a relative error of what is left."""
    found, left = torch.zeros_like(right), right.clone()
    way, size = left.clone(), left.square().sum()
    enough = error**2 * size
    for _ in range(most):
        if size <= enough:
            break
        turned = multiply(way)
        step = size / (way * turned).sum()
        found += step * way
        left -= step * turned
        size, before = left.square().sum(), size
        way = left + size / before * way
    return found
