"""Nearest neighbours: what the objects that lie around one in the embedding are, without fitting anything."""

__all__ = ["NeighborProbe"]

from typing import TypeVar

import numpy as np
import torch

from torch import Tensor

from aion.observations import near_miss
from aion.probes.probe import Probe

Self = TypeVar("Self", bound="NeighborProbe")
METRICS = ("cosine", "euclidean")
CHUNK = 512  # queries looked at together


class NeighborProbe(Probe):
    """Predicts the mean, or the most common class, of the `k` nearest objects; of equally common classes the first.

    Arguments:
        k: number of neighbours.
        metric: "euclidean" or "cosine".
        kind: "regressor" or "classifier".

    References:
        Nearest neighbor pattern classification (Cover, Hart, 1967, IEEE Trans. Inf. Theory 13, 21)
    """

    def __init__(self, k: int = 5, metric: str = "euclidean", kind: str = "regressor") -> None:
        self.k = k
        self.metric = metric
        self.kind = kind

    def fit(self: Self, X: Tensor | np.ndarray, y: Tensor | np.ndarray) -> Self:
        """Keeps features `(N, D)` and numbers `(N,)` or `(N, K)`, or classes `(N,)`; none may be NaN.

        Raises:
            TypeError: for features that are not real numbers.
            ValueError: for other shapes, lengths that differ, NaN or infinite values (named by their rows), an unknown
                metric, or a `k` that is not between 1 and the number of objects.
        """
        if self.metric not in METRICS:
            msg = f"NeighborProbe: unknown metric {self.metric!r}; {near_miss(self.metric, METRICS)}"
            raise ValueError(msg)
        X, y = self._pair(X, y)
        if not isinstance(self.k, int | np.integer) or not 1 <= self.k <= len(X):
            msg = f"NeighborProbe: k must be between 1 and n_samples = {len(X)}, given {self.k!r}"
            raise ValueError(msg)
        self.features_, self.targets_ = self._prepared(X).numpy(), y.numpy().copy()
        return self

    def predict(self, X: Tensor | np.ndarray) -> Tensor | np.ndarray:
        """Predicts numbers or classes, like the `y` that was fitted, from features `(N, D)`.

        Raises:
            ValueError: if nothing was fitted (scikit-learn's `NotFittedError`), or for another width or NaN.
        """
        features, known = self._prepared(self._known(X)), torch.from_numpy(self.features_)
        mode = "donot_use_mm_for_euclid_dist"
        rows = [torch.cdist(part, known, compute_mode=mode).topk(self.k, largest=False).indices
                for part in features.split(CHUNK)]  # fmt: skip
        targets = torch.as_tensor(self.targets_)[torch.cat(rows)]
        if self.kind == "regressor":
            return self._like(targets.mean(1), X)
        votes = torch.zeros(len(targets), len(self.classes_)).scatter_add_(1, targets, torch.ones(targets.shape))
        return self._named(votes.argmax(1), X)

    def _prepared(self, X: Tensor) -> Tensor:
        if self.metric == "euclidean":
            return X.clone()
        norm = X.norm(dim=1, keepdim=True)
        if (norm == 0).any():
            rows = (norm[:, 0] == 0).nonzero().flatten()[:5].tolist()
            msg = f"NeighborProbe: rows {rows} are zero and have no direction; use metric='euclidean'"
            raise ValueError(msg)
        return X / norm
