"""How each kind of task is scored: vectors, labels and folds in; scores, their errors and predictions out.

Every score is of objects that no probe was fitted to. Its error is the scatter over bootstrap draws of those objects.
"""

__all__ = ["FEW", "Scored", "few_labels", "matching", "posterior", "probes", "retrieval"]

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from aion.benchmarks import metrics
from aion.benchmarks.task import Data, Task
from aion.posterior import Posterior
from aion.probes import LogisticProbe, NeighborProbe, Probe, RidgeProbe

ALPHAS = (1e-2, 1.0, 1e2, 1e4)
STRENGTHS = (1e-2, 1.0)  # C of logistic regression
NEIGHBOURS = 16
DRAWS = 200
FEW = (25, 50, 100, 200)
SEEDS = 5
CLOSE = 0.02  # of 1 + z: how near in redshift a galaxy is relevant to a query
SCORES: dict[str, Callable[[np.ndarray, np.ndarray], float]] = {
    "accuracy": metrics.accuracy,
    "nmad": metrics.nmad,
    "outliers": metrics.outliers,
    "r2": metrics.r2,
}


class Scored(NamedTuple):
    """Holds what was found.

    Arguments:
        scores: by name, `[value, standard error]`; the first is the headline.
        arrays: what figures are drawn of: truth and prediction of every tested object, curves.
        tested: number of objects tested.
        fitted: number of objects in the largest fit.
    """

    scores: dict[str, list[float]]
    arrays: dict[str, np.ndarray]
    tested: int
    fitted: int


def probes(task: Task, X: np.ndarray, data: Data, seed: int, shuffled: bool = False) -> Scored:
    """Scores a linear probe, whose strength is chosen in the training part, and nearest neighbours, for each label."""
    scores: dict[str, list[float]] = {}
    arrays: dict[str, np.ndarray] = {}
    tested = fitted = 0
    for name in task.labels:
        y, rows = _labelled(task, data, name)
        if shuffled:
            y = np.random.default_rng(seed).permutation(y)
        parts = [(rows[data.folds[rows] != k], rows[data.folds[rows] == k]) for k in task.tests]
        if any(min(map(len, part)) < 2 for part in parts):
            msg = f"{task.name}: fewer objects than folds: {len(rows)} have {name!r}"
            raise ValueError(msg)
        at = {row: i for i, row in enumerate(rows)}
        kinds = {"linear": _linear} if shuffled else {"linear": _linear, "neighbours": _neighbours}
        for label, make in kinds.items():
            truth, guess = [], []
            for train, test in parts:
                wanted = y[[at[row] for row in train]]
                probe, scale = make(task, X[train], wanted, seed)
                truth.append(y[[at[row] for row in test]])
                guess.append(probe.predict(scale(X[test])))
                fitted = max(fitted, len(train))
            truth, guess = np.concatenate(truth), np.concatenate(guess)
            scores[f"{label} {name}"] = _with_error(SCORES[task.metric], truth, guess, seed)
            if task.metric == "nmad":
                scores[f"{label} {name} outliers"] = _with_error(metrics.outliers, truth, guess, seed)
                scores[f"{label} {name} r2"] = _with_error(metrics.r2, truth, guess, seed)
            if label == "linear":
                arrays |= {f"truth {name}": truth, f"prediction {name}": guess}
                tested = max(tested, len(truth))
    heads = np.array([scores[f"linear {name}"] for name in task.labels])
    head = [float(heads[:, 0].mean()), float(np.sqrt((heads[:, 1] ** 2).sum()) / len(heads))]
    return Scored({task.metric: head} | scores, arrays, tested, fitted)


def few_labels(task: Task, X: np.ndarray, data: Data, seed: int, shuffled: bool = False) -> Scored:
    """Scores a linear probe fitted to few objects; the error is the scatter over seeds, which choose the objects.

    The headline is the score at 100 objects.
    """
    (name,) = task.labels
    y, rows = _labelled(task, data, name)
    if shuffled:
        y = np.random.default_rng(seed).permutation(y)
    test, pool = np.isin(data.folds[rows], task.tests), np.flatnonzero(~np.isin(data.folds[rows], task.tests))
    if len(pool) < 100:
        msg = f"{task.name}: fewer objects than wanted: {len(pool)} to fit, at least 100 needed"
        raise ValueError(msg)
    curve = {}
    for count in (*(n for n in FEW if n < len(pool)), len(pool)):
        found = []
        for own in range(seed, seed + SEEDS):
            chosen = np.random.default_rng(own).choice(pool, count, replace=False)
            probe, scale = _linear(task, X[rows[chosen]], y[chosen], own)
            found.append(metrics.r2(y[test], probe.predict(scale(X[rows[test]]))))
        curve[count] = [float(np.mean(found)), float(np.std(found, ddof=1))]
    scores = {task.metric: curve[100]} | {f"{count} labels": value for count, value in curve.items()}
    arrays = {"labels": np.array(list(curve)), "score": np.array(list(curve.values()))}
    return Scored(scores, arrays, int(test.sum()), len(pool))


def retrieval(task: Task, X: np.ndarray, data: Data, seed: int, shuffled: bool = False) -> Scored:
    """Scores what lies around each object in the embedding, by cosine of standardised vectors: nDCG@10.

    A galaxy is relevant to another if their redshifts differ by at most 0.02 of 1 + z.
    """
    (name,) = task.labels
    y, rows = _labelled(task, data, name)
    if shuffled:
        y = np.random.default_rng(seed).permutation(y)
    unit = _unit(X[rows])
    others = ~np.eye(len(y), dtype=bool)
    relevance = (np.abs(y[:, None] - y) <= CLOSE * (1 + y[:, None]))[others].reshape(len(y), -1).astype(float)
    score = (unit @ unit.T)[others].reshape(len(y), -1)
    each = np.array([metrics.ndcg(relevance[i : i + 1], score[i : i + 1]) for i in range(len(y))])
    return Scored({task.metric: _mean(each, seed)}, {"ndcg": each}, len(y), 0)


def matching(task: Task, A: np.ndarray, B: np.ndarray, data: Data, seed: int, shuffled: bool = False) -> Scored:
    """Scores how often the partner of an object in another modality is among the 10 nearest.

    A ridge map from the vectors `B` to the vectors `A`, fitted to the training folds, brings both together.
    """
    test = np.isin(data.folds, task.tests)
    train = np.flatnonzero(~test)
    partner = np.random.default_rng(seed).permutation(train) if shuffled else train
    scale_a, scale_b = _scaler(A[train]), _scaler(B[train])
    probe = RidgeProbe(1e2).fit(scale_b(B[train]), scale_a(A[partner]))
    guess, true = _unit(probe.predict(scale_b(B[test])), False), _unit(scale_a(A[test]), False)
    score = guess @ true.T
    rank = (score >= np.diag(score)[:, None]).sum(1)
    found = {f"recall@{k}": _mean((rank <= k).astype(float), seed) for k in (10, 1)}
    return Scored(found, {"rank": rank}, int(test.sum()), len(train))


def posterior(task: Task, found: Posterior, data: Data, seed: int) -> Scored:
    """Scores predicted redshift distributions: error of the mode, outliers, CRPS, calibration."""
    (name,) = task.labels
    truth, mode = data.labels[name], found.mode().cpu().numpy()
    values, crps = metrics.pit(truth, found), metrics.crps(truth, found)
    close = (np.abs(mode - truth) <= 0.005 * (1 + truth)).astype(float)
    scores = {
        "nmad": _with_error(metrics.nmad, truth, mode, seed),
        "outliers": _with_error(metrics.outliers, truth, mode, seed),
        "within 0.005": _mean(close, seed),
        "crps": _mean(crps, seed),
        "pit deviation": _with_error(lambda own, _: metrics.pit_deviation(own), values, values, seed),
    }
    arrays = {f"truth {name}": truth, f"prediction {name}": mode, "pit": values}
    return Scored({task.metric: scores[task.metric]} | scores, arrays, len(truth), 0)


def _labelled(task: Task, data: Data, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Returns the values of a label and the rows that have it."""
    if name not in data.labels:
        msg = f"{task.name}: the data have no label {name!r}"
        raise ValueError(msg)
    y = data.labels[name]
    rows = np.flatnonzero(np.isfinite(y)) if y.dtype.kind == "f" else np.arange(len(y))
    if len(np.unique(y[rows])) < 2:
        msg = f"{task.name}: label {name!r} is missing or constant: nothing can be told apart"
        raise ValueError(msg)
    return y[rows], rows


def _linear(task: Task, X: np.ndarray, y: np.ndarray, seed: int) -> tuple[Probe, Callable]:
    """Fits a linear probe whose strength does best on a fifth of the training part."""
    scale = _scaler(X)
    X = scale(X)
    if y.dtype.kind == "f":
        candidates: list[Probe] = [RidgeProbe(alpha) for alpha in ALPHAS]
    else:
        candidates = [LogisticProbe(strength) for strength in STRENGTHS]
    order = np.random.default_rng(seed).permutation(len(X))
    held, kept = order[: max(len(X) // 5, 1)], order[max(len(X) // 5, 1) :]
    if y.dtype.kind != "f" and len(np.unique(y[kept])) < 2:
        return candidates[0].fit(X, y), scale
    errors = [_loss(probe.fit(X[kept], y[kept]), X[held], y[held]) for probe in candidates]
    return candidates[int(np.argmin(errors))].fit(X, y), scale


def _loss(probe: Probe, X: np.ndarray, y: np.ndarray) -> float:
    guess = probe.predict(X)
    return float(((guess - y) ** 2).mean() if y.dtype.kind == "f" else (guess != y).mean())


def _neighbours(task: Task, X: np.ndarray, y: np.ndarray, seed: int) -> tuple[Probe, Callable]:
    scale = _scaler(X)
    kind = "regressor" if y.dtype.kind == "f" else "classifier"
    return NeighborProbe(min(NEIGHBOURS, len(X)), kind=kind).fit(scale(X), y), scale


def _scaler(X: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    """Returns what standardises features as those given."""
    X = X.astype(np.float64)
    center, spread = X.mean(0), X.std(0)
    spread = np.where(spread > 1e-9 * np.abs(center) + 1e-12, spread, 1.0)
    return lambda values: (values - center) / spread


def _unit(X: np.ndarray, scale: bool = True) -> np.ndarray:
    X = _scaler(X)(X) if scale else X
    return X / np.maximum(np.linalg.norm(X, axis=1, keepdims=True), 1e-12)


def _mean(each: np.ndarray, seed: int) -> list[float]:
    draws = np.random.default_rng(seed).integers(len(each), size=(DRAWS, len(each)))
    return [float(each.mean()), float(each[draws].mean(1).std(ddof=1))]


def _with_error(score: Callable, truth: np.ndarray, guess: np.ndarray, seed: int) -> list[float]:
    draws = np.random.default_rng(seed).integers(len(truth), size=(DRAWS, len(truth)))
    values = [score(truth[rows], guess[rows]) for rows in draws if len(np.unique(truth[rows])) > 1]
    return [float(score(truth, guess)), float(np.std(values, ddof=1))]
