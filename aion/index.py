r"""Search for the nearest embeddings, exactly.

The distance is Euclidean, :math:`|q - x|`, or cosine, :math:`1 - \cos(q, x) = |q/|q| - x/|x||^2 / 2`. Both are computed
from differences in float64, so that a vector is at distance 0 of itself and equal vectors tie exactly.
"""

__all__ = ["Index"]

import numpy as np
import torch

from torch import Tensor

from aion.observations import near_miss

METRICS = ("cosine", "euclidean")


class Index:
    """Finds the rows of an embedding that are nearest to queries, by looking at all of them.

    Memory stays near `256 * chunk` numbers, whatever the sizes. The result does not depend on `chunk`.

    Arguments:
        embedding: with shape `(N, D)`, finite; a tensor is kept, not copied, on its device.
        metric: "cosine" or "euclidean".
        chunk: number of rows looked at together.

    Raises:
        TypeError: for an embedding that is not real numbers.
        ValueError: for another shape, NaN or infinite values, a zero vector under "cosine" (named by their rows), an
            unknown metric or a bad chunk.

    Example:
        >>> index = Index(torch.eye(3), metric="euclidean")
        >>> distance, row = index.search(torch.tensor([[0.0, 2.0, 0.0]]), k=2)
        >>> distance, row
        (tensor([[1.0000, 2.2361]]), tensor([[1, 0]]))
    """

    def __init__(self, embedding: Tensor | np.ndarray, metric: str = "cosine", chunk: int = 16384) -> None:
        if metric not in METRICS:
            msg = f"Index: unknown metric {metric!r}; {near_miss(metric, METRICS)}"
            raise ValueError(msg)
        _check_count("chunk", chunk)
        self.metric, self.chunk = metric, chunk
        self.embedding = self._check("embedding", embedding)
        if self.embedding.device.type == "mps":  # which has no float64
            self.embedding = self.embedding.cpu()

    def __len__(self) -> int:
        return self.embedding.shape[0]

    def __repr__(self) -> str:
        rows, width = self.embedding.shape
        return f"Index({rows} rows of {width} features, metric={self.metric!r})"

    @torch.no_grad()
    def search(self, query: Tensor | np.ndarray, k: int = 5) -> tuple[Tensor, Tensor]:
        """Finds the `k` nearest rows for each query, nearest first; of equally near ones the lower row comes first.

        Arguments:
            query: with shape `(B, D)`, finite.
            k: number of rows, at most N.

        Returns:
            The distances `(B, k)` in float32 and the rows `(B, k)`, on the device of the index.

        Raises:
            TypeError: for queries that are not real numbers.
            ValueError: for another width, NaN or infinite values, a zero vector under "cosine" or a bad `k`.
        """
        query = self._check("query", query).to(self.embedding.device)
        if query.shape[1] != self.embedding.shape[1]:
            msg = (
                f"Index: query must have {self.embedding.shape[1]} features like the embedding, given {query.shape[1]}"
            )
            raise ValueError(msg)
        _check_count("k", k)
        if k > len(self):
            msg = f"Index: k must be at most the number of rows, {len(self)}, given {k}"
            raise ValueError(msg)
        found = [self._nearest(self._prepare(part), k) for part in query.split(256)]
        return torch.cat([d for d, _ in found]).float(), torch.cat([row for _, row in found])

    def _nearest(self, query: Tensor, k: int) -> tuple[Tensor, Tensor]:
        distance = query.new_empty(len(query), 0)
        row = torch.empty(len(query), 0, dtype=torch.long, device=query.device)
        for start in range(0, len(self), self.chunk):
            part = self._prepare(self.embedding[start : start + self.chunk])
            new = torch.cdist(query, part, compute_mode="donot_use_mm_for_euclid_dist")
            new_row = torch.arange(start, start + len(part), device=query.device).expand_as(new)
            # Stable, and the rows kept so far stand first: ties go to the lower row.
            distance, order = torch.cat([distance, new], dim=1).sort(dim=1, stable=True)
            distance = distance[:, :k]
            row = torch.cat([row, new_row], dim=1).gather(1, order[:, :k])
        return (distance.square() / 2 if self.metric == "cosine" else distance), row

    def _prepare(self, vectors: Tensor) -> Tensor:
        vectors = vectors.double()
        return vectors / vectors.norm(dim=1, keepdim=True) if self.metric == "cosine" else vectors

    def _check(self, name: str, value: Tensor | np.ndarray) -> Tensor:
        if not isinstance(value, Tensor):
            array = np.asarray(value)
            if array.dtype.kind not in "fiub":
                msg = f"Index: {name} must hold real numbers, given {array.dtype}"
                raise TypeError(msg)
            value = torch.from_numpy(array.astype(np.float64 if array.dtype.itemsize > 4 else np.float32))
        if value.is_complex():
            msg = f"Index: {name} must hold real numbers, given {value.dtype}"
            raise TypeError(msg)
        if value.ndim != 2 or value.numel() == 0:
            msg = (
                f"Index: {name} must be (rows, D) with at least one row, given {tuple(value.shape)}; for one use [None]"
            )
            raise ValueError(msg)
        value = value.detach() if value.is_floating_point() else value.double()
        self._refuse(name, ~torch.isfinite(value).all(dim=1), "hold NaN or inf")
        if self.metric == "cosine":
            self._refuse(name, (value == 0).all(dim=1), "are zero and have no direction; use metric='euclidean'")
        return value

    @staticmethod
    def _refuse(name: str, bad: Tensor, fault: str) -> None:
        if bad.any():
            rows = bad.nonzero().flatten().tolist()
            msg = f"Index: {len(rows)} of {len(bad)} rows of {name} {fault} (first: {', '.join(map(str, rows[:5]))})"
            raise ValueError(msg)


def _check_count(name: str, value: int) -> None:
    if not isinstance(value, int | np.integer) or isinstance(value, bool) or value < 1:
        msg = f"Index: {name} must be a whole number >= 1, given {value!r}"
        raise ValueError(msg)
