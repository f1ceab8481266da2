"""How numbers and classes are scored: by probes on frozen vectors, or as a model predicts them by itself.

Every score is of objects that no probe was fitted to. Its error is the scatter over bootstrap draws of those objects.
"""

__all__ = ["few_labels", "posterior", "probes", "transfer"]

from collections.abc import Callable

import numpy as np

from aion.benchmarks import metrics
from aion.benchmarks.fitting import Scored, labelled, linear, mean_error, neighbours, score_error, together
from aion.benchmarks.seen import Seen
from aion.benchmarks.task import Task

FEW = (25, 50, 100, 200)
SEEDS = 5
SCORES: dict[str, Callable[[np.ndarray, np.ndarray], float]] = {
    "accuracy": metrics.accuracy,
    "nmad": metrics.nmad,
    "outliers": metrics.outliers,
    "r2": metrics.r2,
}


def probes(task: Task, seen: Seen, seed: int, shuffled: bool = False) -> Scored:
    """Scores a linear probe, whose strength is chosen in the training part, and nearest neighbours, for each label."""
    X = seen.vectors()
    return _probed(task, seen, X, X, seed, shuffled)


def transfer(task: Task, seen: Seen, seed: int, shuffled: bool = False) -> Scored:
    """Scores probes fitted to objects as one survey sees them on others as another survey does."""
    return _probed(task, seen, *seen.views(), seed, shuffled)


def _probed(task: Task, seen: Seen, X: np.ndarray, other: np.ndarray, seed: int, shuffled: bool) -> Scored:
    """Fits probes to vectors `X` of training objects, tests them on vectors `other` of the others."""
    scores: dict[str, list[float]] = {}
    arrays: dict[str, np.ndarray] = {}
    tested = fitted = 0
    for name in task.labels:
        y, rows = _permuted(task, seen, name, seed, shuffled)
        folds = seen.data.folds[rows]
        parts = [(np.flatnonzero(folds != k), np.flatnonzero(folds == k)) for k in task.tests]
        if any(min(map(len, part)) < 2 for part in parts):
            msg = f"{task.name}: fewer objects than folds: {len(rows)} have {name!r}"
            raise ValueError(msg)
        truth = np.concatenate([y[test] for _, test in parts])
        for label, fit in {"linear": linear, "neighbours": neighbours}.items():
            if shuffled and label != "linear":
                continue
            guess = np.concatenate([fit(X[rows[a]], y[a], seed)(other[rows[b]]) for a, b in parts])
            scores[f"{label} {name}"] = score_error(SCORES[task.metric], truth, guess, seed)
            if task.metric == "nmad":
                scores[f"{label} {name} outliers"] = score_error(metrics.outliers, truth, guess, seed)
                scores[f"{label} {name} r2"] = score_error(metrics.r2, truth, guess, seed)
            if label == "linear":
                arrays |= {f"truth {name}": truth, f"prediction {name}": guess}
        tested, fitted = max(tested, len(truth)), max(fitted, *(len(train) for train, _ in parts))
    head = together([scores[f"linear {name}"] for name in task.labels])
    return Scored({task.metric: head} | scores, arrays, tested, fitted)


def few_labels(task: Task, seen: Seen, seed: int, shuffled: bool = False) -> Scored:
    """Scores a linear probe fitted to few objects; the error is the scatter over seeds, which choose the objects.

    The headline is the score at 100 objects.
    """
    X, (name,) = seen.vectors(), task.labels
    y, rows = _permuted(task, seen, name, seed, shuffled)
    test = np.isin(seen.data.folds[rows], task.tests)
    pool = np.flatnonzero(~test)
    if len(pool) < 100:
        msg = f"{task.name}: fewer objects than wanted: {len(pool)} to fit, at least 100 needed"
        raise ValueError(msg)
    curve = {}
    for count in (*(n for n in FEW if n < len(pool)), len(pool)):
        found = []
        for own in range(seed, seed + SEEDS):
            chosen = np.random.default_rng(own).choice(pool, count, replace=False)
            found.append(metrics.r2(y[test], linear(X[rows[chosen]], y[chosen], own)(X[rows[test]])))
        curve[count] = [float(np.mean(found)), float(np.std(found, ddof=1))]
    scores = {task.metric: curve[100]} | {f"{count} labels": value for count, value in curve.items()}
    arrays = {"labels": np.array(list(curve)), "score": np.array(list(curve.values()))}
    return Scored(scores, arrays, int(test.sum()), len(pool))


def posterior(task: Task, seen: Seen, seed: int, shuffled: bool = False) -> Scored:
    """Scores predicted redshift distributions: error of the mode, outliers, CRPS, calibration."""
    (name,) = task.labels
    found = seen.posterior(name)
    truth, mode = seen.data.labels[name], found.mode().cpu().numpy()
    if shuffled:
        truth = np.random.default_rng(seed).permutation(truth)
    values, crps = metrics.pit(truth, found), metrics.crps(truth, found)
    close = (np.abs(mode - truth) <= 0.005 * (1 + truth)).astype(float)
    scores = {
        "nmad": score_error(metrics.nmad, truth, mode, seed),
        "outliers": score_error(metrics.outliers, truth, mode, seed),
        "within 0.005": mean_error(close, seed),
        "crps": mean_error(crps, seed),
        "pit deviation": score_error(lambda own, _: metrics.pit_deviation(own), values, values, seed),
    }
    arrays = {f"truth {name}": truth, f"prediction {name}": mode, "pit": values}
    return Scored({task.metric: scores[task.metric]} | scores, arrays, len(truth), 0)


def _permuted(task: Task, seen: Seen, name: str, seed: int, shuffled: bool) -> tuple[np.ndarray, np.ndarray]:
    y, rows = labelled(task, seen.data, name)
    return np.random.default_rng(seed).permutation(y) if shuffled else y, rows
