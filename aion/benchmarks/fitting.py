"""What the scores of all kinds have in common: labels, scales, linear probes of a strength that is chosen, errors."""

__all__ = [
    "Readouts",
    "Scored",
    "labelled",
    "linear",
    "mean_error",
    "neighbours",
    "scaler",
    "score_error",
    "taken",
    "together",
    "unit",
]

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch

from aion.benchmarks.protocol import pooled
from aion.benchmarks.task import Data, Task
from aion.probes import AttentiveProbe, LogisticProbe, NeighborProbe, Probe
from aion.probes.ridge import ridge_weights

Readouts = Mapping[str, np.ndarray]  # what probes are fitted to: vectors (N, D) or tokens (N, M, D), by name

ALPHAS = (1e-2, 1.0, 1e1, 1e2, 1e3, 1e4)
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


def linear(X: Readouts, y: np.ndarray, seed: int, shared: bool = False) -> Callable[[Readouts], np.ndarray]:
    """Fits probes to readouts, of which those are taken that do best on a fifth of the objects.

    On vectors `(N, D)` a probe is a ridge or logistic regression with one of several strengths, on tokens `(N, M, D)`
    attentive pooling.

    Arguments:
        X: readouts of the same N objects.
        y: numbers `(N,)` or `(N, K)`, or classes `(N,)` or `(N, 1)`.
        seed: which objects are that fifth.
        shared: chooses once for all K numbers, not for each.

    Returns:
        what predicts from such readouts.
    """
    order = np.random.default_rng(seed).permutation(len(y))
    held, kept = order[: max(len(y) // 5, 1)], order[max(len(y) // 5, 1) :]
    if y.dtype.kind != "f":
        predict_classes = _classes(X, y.reshape(len(y)), held, kept)
        return lambda features: predict_classes(features).reshape(-1, *y.shape[1:])
    columns = y.reshape(len(y), -1)
    best = [(np.inf, "", 0.0)] * columns.shape[1]
    for name, values in X.items():
        guesses = _numbers(values[kept], columns[kept], ALPHAS)(values[held])
        for alpha, guess in zip(ALPHAS, guesses, strict=False):
            loss = ((guess - columns[held]) ** 2).mean(0)
            loss = np.full_like(loss, (loss / columns.var(0).clip(1e-12)).mean()) if shared else loss
            best = [min(old, (float(new), name, alpha)) for old, new in zip(best, loss, strict=True)]
    fits = {}
    for name in dict.fromkeys(name for _, name, _ in best):
        alphas = list(dict.fromkeys(alpha for _, own, alpha in best if own == name))
        fits[name] = alphas, _numbers(X[name], columns, alphas)

    def predict(features: Readouts) -> np.ndarray:
        made = {name: dict(zip(own, fit(features[name]), strict=False)) for name, (own, fit) in fits.items()}
        guess = np.stack([made[name][alpha][:, k] for k, (_, name, alpha) in enumerate(best)], axis=1)
        return guess.reshape(len(guess), *y.shape[1:])

    return predict


def _numbers(X: np.ndarray, y: np.ndarray, alphas: Sequence[float]) -> Callable[[np.ndarray], list[np.ndarray]]:
    """Fits numbers `(N, K)` and returns what predicts them, for each penalty; attentive pooling has but one."""
    if X.ndim == 3:
        probe = AttentiveProbe().fit(X, y)
        return lambda tokens: [probe.predict(tokens)]
    scale, mean = scaler(X), y.mean(0)
    weights = ridge_weights(torch.from_numpy(scale(X)), torch.from_numpy(y - mean), alphas)
    return lambda features: [scale(features) @ weight.numpy() + mean for weight in weights]


def _classes(X: Readouts, y: np.ndarray, held: np.ndarray, kept: np.ndarray) -> Callable[[Readouts], np.ndarray]:
    """Fits classes as `linear` says."""
    scales = {name: scaler(values) if values.ndim == 2 else np.asarray for name, values in X.items()}
    candidates: list[tuple[str, Probe]] = []
    for name, values in X.items():
        if values.ndim == 3:
            candidates.append((name, AttentiveProbe(kind="classifier")))
        else:
            candidates += [(name, LogisticProbe(strength)) for strength in STRENGTHS]
    losses = [0.0] * len(candidates)
    if len(np.unique(y[kept])) > 1:
        scaled = {name: scales[name](values) for name, values in X.items()}
        losses = [
            float((probe.fit(scaled[name][kept], y[kept]).predict(scaled[name][held]) != y[held]).mean())
            for name, probe in candidates
        ]
    name, probe = candidates[int(np.argmin(losses))]
    probe.fit(scales[name](X[name]), y)
    return lambda features: probe.predict(scales[name](features[name]))


def taken(X: Readouts, rows: np.ndarray) -> Readouts:
    """Returns readouts of some objects."""
    return {name: values[rows] for name, values in X.items()}


def neighbours(X: Readouts, y: np.ndarray, seed: int) -> Callable[[Readouts], np.ndarray]:
    """Takes the mean, or the most common class, of the 16 objects nearest in the first readout, for labels `(N, K)`."""
    name = next(iter(X))
    scale = scaler(pooled(X[name]))
    kind = "regressor" if y.dtype.kind == "f" else "classifier"
    target = y if kind == "regressor" else y[:, 0]
    probe = NeighborProbe(min(NEIGHBOURS, len(y)), kind=kind).fit(scale(pooled(X[name])), target)
    return lambda features: probe.predict(scale(pooled(features[name]))).reshape(-1, y.shape[1])


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
