"""How numbers and classes are scored: by probes on frozen vectors, or as a model predicts them by itself.

Every score is of objects that no probe was fitted to. Its error is the scatter over bootstrap draws of those objects.
"""

__all__ = ["few_labels", "posterior", "probes", "transfer"]

from collections.abc import Callable, Iterator

import numpy as np

from aion.benchmarks import metrics
from aion.benchmarks.fitting import (
    Readouts,
    Scored,
    labelled,
    linear,
    mean_error,
    neighbours,
    score_error,
    taken,
    together,
)
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
    X = seen.readouts()
    return _probed(task, seen, X, X, seed, shuffled)


def transfer(task: Task, seen: Seen, seed: int, shuffled: bool = False) -> Scored:
    """Scores probes fitted to objects as one survey sees them on others as another survey does."""
    return _probed(task, seen, *seen.views(), seed, shuffled)


def _probed(task: Task, seen: Seen, X: Readouts, other: Readouts, seed: int, shuffled: bool) -> Scored:
    """Fits probes to readouts `X` of training objects, tests them on readouts `other` of the others."""
    scores: dict[str, list[float]] = {}
    arrays: dict[str, np.ndarray] = {}
    tested = fitted = 0
    for names, y, rows in _alike(task, seen, seed, shuffled):
        folds = seen.data.folds[rows]
        parts = [(np.flatnonzero(folds != k), np.flatnonzero(folds == k)) for k in task.tests]
        if any(min(map(len, part)) < 2 for part in parts):
            msg = f"{task.name}: fewer objects than folds: {len(rows)} have {', '.join(map(repr, names))}"
            raise ValueError(msg)
        truth = np.concatenate([y[test] for _, test in parts])
        for label, fit in {"linear": linear, "neighbours": neighbours}.items():
            if shuffled and label != "linear":
                continue
            guess = [fit(taken(X, rows[a]), y[a], seed)(taken(other, rows[b])) for a, b in parts]
            guess = np.concatenate(guess)
            for k, name in enumerate(names):
                scores |= _named(f"{label} {name}", task.metric, truth[:, k], guess[:, k], seed)
                if label == "linear":
                    arrays |= {f"truth {name}": truth[:, k], f"prediction {name}": guess[:, k]}
        tested, fitted = max(tested, len(truth)), max(fitted, *(len(train) for train, _ in parts))
    head = together([scores[f"linear {name}"] for name in task.labels])
    return Scored({task.metric: head} | scores, arrays, tested, fitted)


def _alike(task: Task, seen: Seen, seed: int, shuffled: bool) -> Iterator[tuple[list[str], np.ndarray, np.ndarray]]:
    """Yields names, values `(N, K)` and rows of the labels, numbers that the same objects have at once."""
    groups: dict[object, tuple[list[str], list[np.ndarray], np.ndarray]] = {}
    for name in task.labels:
        y, rows = _permuted(task, seen, name, seed, shuffled)
        key = rows.tobytes() if y.dtype.kind == "f" else name
        names, values, _ = groups.setdefault(key, ([], [], rows))
        names.append(name)
        values.append(y)
    for names, values, rows in groups.values():
        yield names, np.stack(values, axis=1), rows


def _named(name: str, metric: str, truth: np.ndarray, guess: np.ndarray, seed: int) -> dict[str, list[float]]:
    found = {name: score_error(SCORES[metric], truth, guess, seed)}
    if metric == "nmad":
        found[f"{name} outliers"] = score_error(metrics.outliers, truth, guess, seed)
        found[f"{name} r2"] = score_error(metrics.r2, truth, guess, seed)
    return found


def few_labels(task: Task, seen: Seen, seed: int, shuffled: bool = False) -> Scored:
    """Scores a linear probe fitted to few objects; the error is the scatter over seeds, which choose the objects.

    The headline is the score at 100 objects.
    """
    X, (name,) = seen.readouts(), task.labels
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
            predict = linear(taken(X, rows[chosen]), y[chosen], own)
            found.append(metrics.r2(y[test], predict(taken(X, rows[test]))))
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
