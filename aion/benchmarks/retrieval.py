"""How neighbours in the embedding are scored: objects that are alike, in one survey or across two, and partners."""

__all__ = ["matching", "retrieval"]

import numpy as np

from aion.benchmarks import metrics
from aion.benchmarks.fitting import Scored, labelled, linear, mean_error, scaler, taken, together, unit
from aion.benchmarks.seen import Seen
from aion.benchmarks.task import Task
from aion.benchmarks.thumbnails import thumbnails

CLOSE = 0.02  # of 1 + z: how near in redshift a galaxy is relevant to a query
AVERAGED = (5, 15)  # queries of which the mean is asked
SHOWN, FOUND = 4, 9  # queries in a figure, and what is found for each


def retrieval(task: Task, seen: Seen, seed: int, shuffled: bool = False) -> Scored:
    """Scores what lies around each object in the embedding, by cosine of standardised vectors: nDCG@10.

    With another survey the queries are seen by the first and what is searched by the other; no object finds itself. By
    redshift, galaxies within 0.02 of 1 + z are relevant. Any other label says how relevant an object is, and the
    queries are the objects that have more than half of the most; means of several queries are asked for, too.
    """
    own, other = (unit(scaler(X)(X)) for X in (seen.pair() if task.others else [seen.vectors()] * 2))
    scores: dict[str, list[float]] = {}
    arrays: dict[str, np.ndarray] = {}
    tested = 0
    for name in task.labels:
        y, rows = labelled(task, seen.data, name)
        y = np.random.default_rng(seed).permutation(y) if shuffled else y
        queries = np.arange(len(y)) if name == "redshift" else np.flatnonzero(y > y.max() / 2)
        order, each = _asked(own[rows], other[rows], _relevance(name, y, queries), queries[:, None])
        scores[name] = mean_error(each, seed)
        arrays |= {f"ndcg {name}": each}
        if not shuffled:
            chosen = np.random.default_rng(seed).permutation(len(queries))[:SHOWN]
            found = order[chosen][:, :FOUND]
            arrays |= _montage(name, seen, rows[queries[chosen]], rows[found], y[found])
        for count in AVERAGED if name != "redshift" else ():
            groups = _groups(queries, count, seed)
            if len(groups):
                _, each = _asked(own[rows], other[rows], _relevance(name, y, groups[:, 0]), groups)
                scores[f"{name}, {count} queries averaged"] = mean_error(each, seed)
        tested = max(tested, len(queries))
    return Scored({task.metric: together([scores[name] for name in task.labels])} | scores, arrays, tested, 0)


def _relevance(name: str, y: np.ndarray, queries: np.ndarray) -> np.ndarray:
    """Returns how relevant every object is to every query, `(Q, N)`."""
    if name == "redshift":
        return (np.abs(y[queries, None] - y) <= CLOSE * (1 + y[queries, None])).astype(float)
    return np.broadcast_to(np.maximum(y, 0), (len(queries), len(y)))


def _groups(queries: np.ndarray, count: int, seed: int) -> np.ndarray:
    """Adds to each query others drawn at random, `(Q, count)`; none if there are too few."""
    if len(queries) <= count:
        return np.zeros((0, count), dtype=int)
    draws = np.random.default_rng(seed)
    return np.stack([[q, *draws.choice(queries[queries != q], count - 1, replace=False)] for q in queries])


def _asked(
    own: np.ndarray, other: np.ndarray, relevance: np.ndarray, groups: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Ranks all objects for the mean of each group of queries `(Q, K)`, which are left out themselves.

    Returns:
        the objects in order `(Q, N)`, and the nDCG@10 of each group `(Q,)`.
    """
    score = unit(own[groups].mean(1)) @ other.T
    np.put_along_axis(score, groups, -np.inf, axis=1)
    order = np.argsort(-score, axis=1, kind="stable")
    kept = order[:, : order.shape[1] - groups.shape[1]]
    ranked = np.take_along_axis(relevance, kept, axis=1)
    falling = -np.arange(kept.shape[1], dtype=float)
    return order, np.array([metrics.ndcg(row[None], falling[None]) for row in ranked])


def _montage(
    name: str, seen: Seen, queries: np.ndarray, found: np.ndarray, relevance: np.ndarray
) -> dict[str, np.ndarray]:
    """Returns pictures of some queries, each followed by what was found, and how relevant that is."""
    own, other = (seen.data.observations[names[0]] for names in (seen.names, seen.others or seen.names))
    if (first := thumbnails(own, queries)) is None:
        return {}
    rest = thumbnails(other, found.ravel()).reshape(*found.shape, *first.shape[1:])
    return {f"montage {name}": np.concatenate([first[:, None], rest], axis=1), f"relevance {name}": relevance}


def matching(task: Task, seen: Seen, seed: int, shuffled: bool = False) -> Scored:
    """Scores how often the partner of an object in another modality is among the 10 nearest.

    A ridge map from the readouts of the other modalities to the vectors of the first, fitted to the training folds,
    brings both together.
    """
    A, B = seen.vectors(seen.names[:1]), seen.readouts(seen.names[1:])
    test = np.flatnonzero(np.isin(seen.data.folds, task.tests))
    train = np.flatnonzero(~np.isin(seen.data.folds, task.tests))
    partner = np.random.default_rng(seed).permutation(train) if shuffled else train
    scale = scaler(A[train])
    predict = linear(taken(B, train), scale(A[partner]), seed, shared=True)
    score = unit(predict(taken(B, test))) @ unit(scale(A[test])).T
    rank = (score >= np.diag(score)[:, None]).sum(1)
    found = {f"recall@{k}": mean_error((rank <= k).astype(float), seed) for k in (10, 1)}
    return Scored(found, {"rank": rank}, len(test), len(train))
