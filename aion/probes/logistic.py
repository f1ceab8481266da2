r"""Logistic regression on frozen embeddings: how well classes are separated by planes.

The weights minimise :math:`C \sum_i -\log p(y_i | x_i) + |w|^2 / 2`, the intercept free: with two classes
:math:`p = 1 / (1 + e^{-(w x + b)})`, with more the softmax of one plane each.
"""

__all__ = ["LogisticProbe"]

import math
import numbers

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
        max_iter: most steps of the optimiser.

    References:
        On the limited memory BFGS method for large scale optimization (Liu, Nocedal, 1989, Math. Program. 45, 503)
    """

    kind = "classifier"

    def __init__(self, C: float = 1.0, max_iter: int = 1000) -> None:
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
        # Along the principal axes, each scaled by its curvature, all directions are alike: tens of steps do.
        _, s, axes = torch.linalg.svd(X - center, full_matrices=False)
        basis = axes.T / (float(self.C) * s.square() / 4 + 1).sqrt()
        weight, bias = self._descend((X - center) @ basis, y, basis)
        weight = weight @ basis.T
        self.coef_, self.intercept_ = weight.numpy(), (bias - weight @ center).numpy()
        return self

    def _descend(self, Z: Tensor, y: Tensor, basis: Tensor) -> tuple[Tensor, Tensor]:
        """Minimises the loss over the weights `(K, R)` along the axes and the biases `(K,)`."""
        count = 1 if len(self.classes_) == 2 else len(self.classes_)
        weight = Z.new_zeros(count, Z.shape[1], requires_grad=True)
        bias = Z.new_zeros(count, requires_grad=True)
        penalty = basis.square().sum(0) / 2
        options = {"max_iter": self.max_iter, "tolerance_grad": 1e-7, "tolerance_change": 1e-13, "history_size": 20}
        optimizer = torch.optim.LBFGS([weight, bias], line_search_fn="strong_wolfe", **options)

        def closure() -> Tensor:
            optimizer.zero_grad()
            logits = Z @ weight.T + bias
            if count == 1:
                loss = torch.nn.functional.softplus(torch.where(y == 1, -logits[:, 0], logits[:, 0])).sum()
            else:
                loss = torch.nn.functional.cross_entropy(logits, y, reduction="sum")
            loss = float(self.C) * loss + (weight.square() * penalty).sum()
            loss.backward()
            return loss

        with torch.enable_grad():
            optimizer.step(closure)
        return weight.detach(), (bias - (bias.mean() if count > 1 else 0)).detach()

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
