r"""Search for the nearest embeddings, exactly.

The distance is Euclidean, :math:`|q - x|`, or cosine, :math:`1 - \cos(q, x) = |q/|q| - x/|x||^2 / 2`. Both are computed
from differences in float64, so that a vector is at distance 0 of itself and equal vectors tie exactly. Products in
float32 say first which rows cannot be among the nearest: with D features their error is below
:math:`(D + 4)\,2^{-24}(|q| + |x|)^2`, so that nothing is lost by leaving those out.
"""

__all__ = ["Index"]

import functools
import hashlib
import json

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch

from torch import Tensor

from aion.observations import near_miss
from aion.whole import whole

METRICS = ("cosine", "euclidean")
FORMAT = "aion-index-1"


class Index:
    """Finds the rows of an embedding that are nearest to queries, by looking at all of them.

    Beside the embedding and the ids memory stays near `256 * chunk` numbers, and a number a row. The result does not
    depend on `chunk`.

    Arguments:
        embedding: with shape `(N, D)`, finite; a tensor is kept, not copied, on its device and in its type. float16
            takes half the memory.
        metric: "cosine" or "euclidean".
        chunk: number of rows looked at together.
        ids: identifiers of the rows, each once; their numbers by default.
        columns: float64 numbers that belong to the rows, such as ra and dec, by name, each `(N,)`.
        facts: JSON values on how the embedding was made.

    Raises:
        TypeError: for an embedding that is not real numbers.
        ValueError: for another shape, NaN or infinite values, a zero vector under "cosine" (named by their rows), an
            unknown metric, a bad chunk, or ids and columns that do not fit.

    Example:
        >>> index = Index(torch.eye(3), metric="euclidean")
        >>> distance, row = index.search(torch.tensor([[0.0, 2.0, 0.0]]), k=2)
        >>> distance, row
        (tensor([[1.0000, 2.2361]]), tensor([[1, 0]]))
    """

    def __init__(
        self,
        embedding: Tensor | np.ndarray,
        metric: str = "cosine",
        chunk: int = 16384,
        *,
        ids: Sequence[str] | None = None,
        columns: Mapping[str, Tensor | np.ndarray] | None = None,
        facts: Mapping[str, object] | None = None,
    ) -> None:
        if metric not in METRICS:
            msg = f"Index: unknown metric {metric!r}; {near_miss(metric, METRICS)}"
            raise ValueError(msg)
        _check_count("chunk", chunk)
        self.metric, self.chunk = metric, chunk
        self.embedding = self._check("embedding", embedding)
        if self.embedding.device.type == "mps":  # which has no float64
            self.embedding = self.embedding.cpu()
        self.ids = [str(i) for i in (range(len(self)) if ids is None else ids)]
        self.columns = {name: torch.as_tensor(value, dtype=torch.float64) for name, value in (columns or {}).items()}
        self.facts = dict(facts or {})
        different = len(self) if ids is None else len(set(self.ids))
        if len(self.ids) != len(self) or different != len(self):
            msg = f"Index: wanted {len(self)} different ids, given {len(self.ids)}, {different} different"
            raise ValueError(msg)
        for name, value in self.columns.items():
            if value.shape != (len(self),):
                msg = f"Index: column {name!r} must have the shape ({len(self)},), given {tuple(value.shape)}"
                raise ValueError(msg)

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

    @torch.no_grad()
    def nearest_of(self, query: Tensor, rows: Tensor, k: int) -> tuple[Tensor, Tensor]:
        """Finds the `k` nearest of rows `(B, c)` that are given for each query, -1 for none, as `search` does."""
        query, rows = (value.to(self.embedding.device) for value in (self._prepare(query), rows))
        rows = rows.sort(dim=1).values  # ties go to the lower row
        distance, order = self._distances(query, self.embedding, rows).sort(dim=1, stable=True)
        distance = distance[:, :k]
        return (distance.square() / 2 if self.metric == "cosine" else distance).float(), rows.gather(1, order[:, :k])

    def _nearest(self, query: Tensor, k: int) -> tuple[Tensor, Tensor]:
        distance = query.new_full((len(query), k), torch.inf)
        row = torch.full((len(query), k), -1, device=query.device)
        short = query.float()
        for start in range(0, len(self), self.chunk):
            part = self.embedding[start : start + self.chunk]
            hit, found = self._candidates(short, part, self._norm[start : start + self.chunk], distance[:, -1], k)
            if not len(hit):
                continue
            near = self._distances(query[hit], part, found)
            found = torch.where(found < 0, -1, found + start).expand(len(hit), -1)
            # Stable, and the rows kept so far stand first: ties go to the lower row.
            order = torch.cat([distance[hit], near], dim=1).sort(dim=1, stable=True)
            distance[hit] = order.values[:, :k]
            row[hit] = torch.cat([row[hit], found], dim=1).gather(1, order.indices[:, :k])
        return (distance.square() / 2 if self.metric == "cosine" else distance), row

    @functools.cached_property
    def _norm(self) -> Tensor:
        """Returns the length of each row in float32, `(N,)`; computing it is a quarter of the work of a search."""
        result = torch.empty(len(self), device=self.embedding.device)  # first: what is kept between two parts leaves
        for part, norm in zip(self.embedding.split(self.chunk), result.split(self.chunk), strict=True):  # holes
            norm.copy_(part.float().norm(dim=1))
        return result

    def _candidates(self, query: Tensor, part: Tensor, norm: Tensor, known: Tensor, k: int) -> tuple[Tensor, Tensor]:
        """Finds the rows of a part that may be among the k nearest, by their products in float32.

        Returns:
            The queries that have any, `(b,)`, and their rows in order, `(b, c)`, -1 for none, or `(1, n)` for all.
        """
        every = torch.arange(len(part), device=part.device)[None]
        size, top = query.norm(dim=1), norm.max()
        low = norm.min() if self.metric == "cosine" else top
        if len(part) <= k or not (low > 2.0**-50 and size.max() + top < 2.0**60):  # beyond, float32 holds no squares
            return torch.arange(len(query), device=part.device), every
        # q.x is high where |q - x|^2 = |q|^2 + |x|^2 - 2 q.x is low.
        near = part.float()
        if self.metric == "cosine":
            product, top, offset = query @ (near / norm[:, None]).T, 1.0, 1.0
        else:
            product, offset = (query @ near.T).sub_(norm.square() / 2), 0.0
        margin = (part.shape[1] + 4) * 2.0**-23 * (size + top).square()
        floor = (size.square() + offset - known.square().float()) / 2 - margin
        new = known.isinf()
        if new.any():
            floor[new] = product[new].topk(k, dim=1).values[:, -1] - 2 * margin[new]
        hit = (product.amax(1) >= floor).nonzero()[:, 0]  # few, once the first parts are known
        if not len(hit):
            return hit, every
        kept = product[hit] >= floor[hit, None]
        count = kept.sum(1)
        if (most := int(count.max())) * 4 > len(part):
            return hit, every
        which, column = kept.nonzero().unbind(1)
        found = torch.full((len(hit), most), -1, device=part.device)
        found[which, torch.arange(len(which), device=part.device) - (count.cumsum(0) - count)[which]] = column
        return hit, found

    def _distances(self, query: Tensor, part: Tensor, rows: Tensor) -> Tensor:
        """Computes the distances from queries to rows of a part in float64; infinite where the row is -1."""
        if len(rows) == 1 and (rows >= 0).all():
            return _apart(query, self._prepare(part[rows[0]]))
        result = query.new_full(rows.shape, torch.inf)
        which, slot = (rows >= 0).nonzero().unbind(1)
        for w, s in zip(which.split(self.chunk), slot.split(self.chunk), strict=True):
            result[w, s] = _apart(query[w, None], self._prepare(part[rows[w, s]])[:, None])[:, 0, 0]
        return result

    def _prepare(self, vectors: Tensor) -> Tensor:
        vectors = vectors.double()
        return vectors / vectors.norm(dim=1, keepdim=True) if self.metric == "cosine" else vectors

    # ---- objects by name

    @functools.cached_property
    def _row(self) -> dict[str, int]:
        """Returns the row of each id; a hundred bytes each, so that it is made when it is first asked for."""
        return {name: row for row, name in enumerate(self.ids)}

    def rows(self, ids: Sequence[str]) -> Tensor:
        """Returns the rows of objects; an unknown id is a `ValueError` with the near misses."""
        for name in ids:
            if name not in self._row:
                msg = f"Index: no object {name!r}; {_near_id(name, self.ids)}"
                raise ValueError(msg)
        return torch.tensor([self._row[name] for name in ids], dtype=torch.long, device=self.embedding.device)

    def mean(self, rows: Tensor | Sequence[int]) -> Tensor:
        """Averages rows, `(D,)`; under "cosine" they have length 1 before, so that each counts alike."""
        return self._prepare(self.embedding[rows]).mean(0)

    def vector(self, ids: Sequence[str], direction: Tensor | np.ndarray | None = None, strength: float = 1.0) -> Tensor:
        """Makes a query `(1, D)` of objects: their mean, moved along a direction `(D,)`.

        Under "cosine" the vectors have length 1 before they are averaged, so that each counts alike.

        Arguments:
            ids: at least one object.
            direction: of a concept; "more like this, but redder".
            strength: how far, in units of the direction's length.

        Raises:
            ValueError: for no id or one that is not there, or a direction of another width.
        """
        if isinstance(ids, str) or not len(ids):
            msg = f"Index: wanted a sequence of at least one id, given {ids!r}"
            raise ValueError(msg)
        mean = self.mean(self.rows(ids))[None]
        if direction is None:
            return mean
        direction = self._check("direction", torch.as_tensor(direction)[None]).to(mean)
        if direction.shape != mean.shape:
            msg = f"Index: direction must have {mean.shape[1]} features, given {direction.shape[1]}"
            raise ValueError(msg)
        return mean + strength * direction

    def add(
        self,
        embedding: Tensor | np.ndarray,
        ids: Sequence[str],
        columns: Mapping[str, Tensor | np.ndarray] | None = None,
    ) -> "Index":
        """Returns an index with more objects, behind these.

        Raises:
            ValueError: for another width, ids that are there already, or other columns.
        """
        new = Index(embedding, self.metric, self.chunk, ids=ids, columns=columns)
        if new.embedding.shape[1] != self.embedding.shape[1] or set(new.columns) != set(self.columns):
            msg = (
                f"Index.add: wanted {self.embedding.shape[1]} features and the columns {sorted(self.columns)}, "
                f"given {new.embedding.shape[1]} and {sorted(new.columns)}"
            )
            raise ValueError(msg)
        joined = torch.cat([self.embedding, new.embedding.to(self.embedding)])
        columns = {name: torch.cat([value, new.columns[name]]) for name, value in self.columns.items()}
        return Index(joined, self.metric, self.chunk, ids=[*self.ids, *new.ids], columns=columns, facts=self.facts)

    def delete(self, ids: Sequence[str]) -> "Index":
        """Returns an index without some objects.

        Raises:
            ValueError: for an id that is not there, or if none would be left.
        """
        keep = torch.ones(len(self), dtype=torch.bool, device=self.embedding.device)
        keep[self.rows(ids)] = False
        left = keep.cpu()
        names = [name for name, kept in zip(self.ids, left.tolist(), strict=True) if kept]
        columns = {name: value[left] for name, value in self.columns.items()}
        return Index(self.embedding[keep], self.metric, self.chunk, ids=names, columns=columns, facts=self.facts)

    # ---- files

    def save(self, path: str | Path) -> str:
        """Writes the index to a safetensors file, all or nothing, and returns its content hash."""
        from safetensors.torch import save_file

        names = torch.frombuffer(bytearray(json.dumps(self.ids).encode()), dtype=torch.uint8)
        tensors = {"embedding": self.embedding.cpu().contiguous(), "ids": names}
        tensors |= {f"columns.{name}": value.contiguous() for name, value in self.columns.items()}
        digest = _digest(tensors)
        facts = {"format": FORMAT, "metric": self.metric, "columns": list(self.columns), "facts": self.facts}
        facts["sha256"] = digest
        with whole(Path(path)) as temporary:
            save_file(tensors, temporary, metadata={"aion": json.dumps(facts)})
        return digest

    @classmethod
    def load(cls, path: str | Path, chunk: int = 16384) -> "Index":
        """Reads what `save` wrote.

        Raises:
            FileNotFoundError: if there is no such file.
            ValueError: for a file that is no index, or that was altered.
        """
        from safetensors import SafetensorError, safe_open

        path = Path(path)
        if not path.is_file():
            msg = f"no such file: {path}"
            raise FileNotFoundError(msg)
        try:
            with safe_open(path, "pt") as file:
                facts = json.loads((file.metadata() or {}).get("aion", "{}"))
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        except (SafetensorError, OSError) as error:
            msg = f"{path}: wanted an index that Index.save wrote ({error})"
            raise ValueError(msg) from error
        if facts.get("format") != FORMAT or facts.get("sha256") != _digest(tensors):
            msg = f"{path}: wanted an index of the format {FORMAT!r} as it was written; this is another or was altered"
            raise ValueError(msg)
        ids = json.loads(bytes(tensors["ids"].numpy()))
        columns = {name: tensors[f"columns.{name}"] for name in facts["columns"]}
        return cls(tensors["embedding"], facts["metric"], chunk, ids=ids, columns=columns, facts=facts["facts"])

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
        parts = value.split(self.chunk)  # masks of the whole would take half the memory of the embedding again
        self._refuse(name, torch.cat([~torch.isfinite(v).all(dim=1) for v in parts]), "hold NaN or inf")
        if self.metric == "cosine":
            zero = torch.cat([(v == 0).all(dim=1) for v in parts])
            self._refuse(name, zero, "are zero and have no direction; use metric='euclidean'")
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


def _apart(query: Tensor, vectors: Tensor) -> Tensor:
    """Computes Euclidean distances `(B, n)` from differences."""
    return torch.cdist(query, vectors, compute_mode="donot_use_mm_for_euclid_dist")


def _near_id(name: str, ids: Sequence[str]) -> str:
    """Says which ids resemble a wrong one, looking at few enough to be quick."""
    return near_miss(name, ids[:1000]) if len(ids) <= 1000 else f"it has {ids[0]!r} to {ids[-1]!r}"


def _digest(tensors: Mapping[str, Tensor]) -> str:
    result = hashlib.sha256()
    for name in sorted(tensors):
        result.update(f"{name} {tensors[name].dtype} {tuple(tensors[name].shape)}".encode())
        result.update(tensors[name].view(-1).view(torch.uint8).numpy())
    return result.hexdigest()
