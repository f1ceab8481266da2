"""What the scores of all kinds have in common: labels, scales, linear probes of a strength that is chosen, errors."""

__all__ = [
    "Scored",
    "labelled",
    "linear",
    "mean_error",
    "neighbours",
    "scaler",
    "score_error",
    "together",
    "unit",
]

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from aion.benchmarks.task import Data, Task
from aion.probes import LogisticProbe, NeighborProbe, Probe, RidgeProbe

ALPHAS = (1e-2, 1.0, 1e2, 1e4)
STRENGTHS = (1e-2, 1.0)  # C of logistic regression
NEIGHBOURS = 16
DRAWS = 200


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


def labelled(task: Task, data: Data, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Returns the values of a label, numbers, text or maps, and the rows that have it.

    Raises:
        ValueError: if no object has it, or all have the same.
    """
    if name not in data.labels:
        msg = f"{task.name}: the data have no label {name!r}"
        raise ValueError(msg)
    y = data.labels[name]
    has = np.isfinite(y).reshape(len(y), -1).all(1) if y.dtype.kind == "f" else np.ones(len(y), dtype=bool)
    rows = np.flatnonzero(has)
    if len(np.unique(y[rows])) < 2:
        msg = f"{task.name}: label {name!r} is missing or constant: nothing can be told apart"
        raise ValueError(msg)
    return y[rows], rows


def linear(X: np.ndarray, y: np.ndarray, seed: int) -> Callable[[np.ndarray], np.ndarray]:
    """Fits a linear probe whose strength does best on a fifth of the objects, and returns what predicts."""
    scale = scaler(X)
    X = scale(X)
    if y.dtype.kind == "f":
        candidates: list[Probe] = [RidgeProbe(alpha) for alpha in ALPHAS]
    else:
        candidates = [LogisticProbe(strength) for strength in STRENGTHS]
    order = np.random.default_rng(seed).permutation(len(X))
    held, kept = order[: max(len(X) // 5, 1)], order[max(len(X) // 5, 1) :]
    best = candidates[0]
    if y.dtype.kind == "f" or len(np.unique(y[kept])) > 1:
        best = min(candidates, key=lambda probe: _loss(probe.fit(X[kept], y[kept]), X[held], y[held]))
    best.fit(X, y)
    return lambda features: best.predict(scale(features))


def _loss(probe: Probe, X: np.ndarray, y: np.ndarray) -> float:
    guess = probe.predict(X)
    return float(((guess - y) ** 2).mean() if y.dtype.kind == "f" else (guess != y).mean())


def neighbours(X: np.ndarray, y: np.ndarray, seed: int) -> Callable[[np.ndarray], np.ndarray]:
    """Takes the mean, or the most common class, of the 16 nearest objects, and returns what predicts."""
    scale = scaler(X)
    kind = "regressor" if y.dtype.kind == "f" else "classifier"
    probe = NeighborProbe(min(NEIGHBOURS, len(X)), kind=kind).fit(scale(X), y)
    return lambda features: probe.predict(scale(features))


def scaler(X: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    """Returns what standardises features as those given."""
    X = X.astype(np.float64)
    center, spread = X.mean(0), X.std(0)
    spread = np.where(spread > 1e-9 * np.abs(center) + 1e-12, spread, 1.0)
    return lambda values: (values - center) / spread


def unit(X: np.ndarray) -> np.ndarray:
    """Scales vectors `(..., D)` to length 1; those of length 0 stay."""
    return X / np.maximum(np.linalg.norm(X, axis=-1, keepdims=True), 1e-12)


def mean_error(each: np.ndarray, seed: int) -> list[float]:
    """Returns the mean over objects, and its scatter over bootstrap draws of them."""
    draws = np.random.default_rng(seed).integers(len(each), size=(DRAWS, len(each)))
    return [float(each.mean()), float(each[draws].mean(1).std(ddof=1))]


def score_error(score: Callable, truth: np.ndarray, guess: np.ndarray, seed: int) -> list[float]:
    """Returns a score, and its scatter over bootstrap draws of the objects."""
    draws = np.random.default_rng(seed).integers(len(truth), size=(DRAWS, len(truth)))
    values = [score(truth[rows], guess[rows]) for rows in draws if len(np.unique(truth[rows])) > 1]
    return [float(score(truth, guess)), float(np.std(values, ddof=1))]


def together(found: list[list[float]]) -> list[float]:
    """Returns the mean of several scores `[value, error]` and its error, as if they were independent."""
    values, errors = np.array(found).T
    return [float(values.mean()), float(np.sqrt((errors**2).sum()) / len(errors))]
