r"""Scores, each a function of truth and prediction as arrays; none hides a NaN.

Where a score has a name in scikit-learn or scoringrules it agrees with it. For redshifts the residual is
:math:`\delta = (\hat z - z) / (1 + z)`.
"""

__all__ = [
    "accuracy",
    "auc",
    "crps",
    "iou",
    "ndcg",
    "nmad",
    "outliers",
    "pit",
    "pit_deviation",
    "r2",
]

import numpy as np

from aion.posterior import Posterior


def r2(truth: np.ndarray, prediction: np.ndarray) -> float:
    """Computes the coefficient of determination of `(N,)`; a constant truth is an error."""
    truth, prediction = _pair(truth, prediction)
    total = ((truth - truth.mean()) ** 2).sum()
    if total == 0:
        msg = f"r2: all {len(truth)} true values are {truth[0]!r}: nothing varies that could be told"
        raise ValueError(msg)
    return float(1 - ((truth - prediction) ** 2).sum() / total)


def nmad(truth: np.ndarray, prediction: np.ndarray) -> float:
    """Computes 1.4826 times the median distance of the redshift residuals from their median."""
    residual = _residual(truth, prediction)
    return float(1.4826 * np.median(np.abs(residual - np.median(residual))))


def outliers(truth: np.ndarray, prediction: np.ndarray, limit: float = 0.05) -> float:
    """Computes the share of redshift residuals beyond a limit."""
    return float((np.abs(_residual(truth, prediction)) > limit).mean())


def accuracy(truth: np.ndarray, prediction: np.ndarray) -> float:
    """Computes the share of classes `(N,)` that are right."""
    truth, prediction = _pair(truth, prediction)
    return float((truth == prediction).mean())


def auc(truth: np.ndarray, score: np.ndarray) -> float:
    """Computes the area under the receiver operating characteristic, ties counting half."""
    truth, score = _pair(truth, score)
    truth = truth.astype(bool)
    if truth.all() or not truth.any():
        msg = "auc: wanted objects of both classes, given one class"
        raise ValueError(msg)
    order, rank = np.unique(score, return_inverse=True)
    counts = np.bincount(rank, minlength=len(order))
    middle = counts.cumsum() - (counts - 1) / 2  # mean rank of equal scores, from 1
    positive = truth.sum()
    return float((middle[rank][truth].sum() - positive * (positive + 1) / 2) / (positive * (~truth).sum()))


def ndcg(relevance: np.ndarray, score: np.ndarray, k: int = 10) -> float:
    """Computes the normalised discounted cumulative gain of the first `k`, averaged over queries.

    Arguments:
        relevance: of every candidate for every query, `(Q, N)`, at least 0; a query without any counts 0.
        score: by which candidates are ranked, highest first, `(Q, N)`; equal ones stay in order.
        k: how many are looked at.

    References:
        Cumulated gain-based evaluation of IR techniques (Järvelin, Kekäläinen, 2002, ACM TOIS 20, 422)
    """
    relevance, score = _pair(relevance, score)
    discount = 1 / np.log2(np.arange(2, min(k, relevance.shape[1]) + 2))
    found = np.take_along_axis(relevance, np.argsort(-score, axis=1, kind="stable")[:, :k], axis=1) @ discount
    best = -np.sort(-relevance, axis=1)[:, :k] @ discount
    return float(np.where(best > 0, found / np.where(best > 0, best, 1), 0).mean())


def iou(truth: np.ndarray, prediction: np.ndarray, threshold: float = 0.5) -> float:
    """Computes intersection over union of what lies above a threshold, over all pixels; 1 of two voids."""
    truth, prediction = _pair(truth, prediction)
    truth, prediction = truth > threshold, prediction > threshold
    union = (truth | prediction).sum()
    return float((truth & prediction).sum() / union) if union else 1.0


def crps(truth: np.ndarray, posterior: Posterior) -> np.ndarray:
    r"""Computes the continuous ranked probability score :math:`\int (F(x) - [x \ge z])^2 dx` of each object `(N,)`.

    The distribution of a histogram is piecewise linear, so that every bin is integrated in closed form; below and
    above the histogram, a truth adds its distance.

    References:
        Strictly Proper Scoring Rules, Prediction, and Estimation (Gneiting, Raftery, 2007, JASA 102, 359)
    """
    truth, edges = np.asarray(truth, dtype=np.float64), posterior.edges.cpu().numpy()
    probability = posterior.probabilities.cpu().numpy()
    cumulative = np.concatenate([np.zeros((len(probability), 1)), probability.cumsum(1)], axis=1)
    total = np.maximum(edges[0] - truth, 0) + np.maximum(truth - edges[-1], 0)
    inside = np.clip(truth, edges[0], edges[-1])[:, None]
    low, high = edges[None, :-1], edges[None, 1:]
    middle = np.clip(inside, low, high)  # where a bin is cut by the truth
    at = cumulative[:, :-1] + probability * (middle - low) / (high - low)
    total = total + _square(cumulative[:, :-1], at, middle - low).sum(1)
    return total + _square(1 - at, 1 - cumulative[:, 1:], high - middle).sum(1)


def pit(truth: np.ndarray, posterior: Posterior) -> np.ndarray:
    """Computes the probability below the truth of each object `(N,)`: uniform if the posteriors are calibrated."""
    edges = posterior.edges.cpu().numpy()
    probability = posterior.probabilities.cpu().numpy()
    cumulative = np.concatenate([np.zeros((len(probability), 1)), probability.cumsum(1)], axis=1)
    return np.array([np.interp(z, edges, row) for z, row in zip(np.asarray(truth), cumulative, strict=True)])


def pit_deviation(values: np.ndarray) -> float:
    """Computes the largest distance of the distribution of PIT values from the uniform one (Kolmogorov-Smirnov)."""
    values = np.sort(np.asarray(values, dtype=np.float64))
    step = np.arange(len(values) + 1) / len(values)
    return float(max((step[1:] - values).max(), (values - step[:-1]).max()))


def _square(first: np.ndarray, last: np.ndarray, width: np.ndarray) -> np.ndarray:
    """Integrates the square of a straight line."""
    return width * (first**2 + first * last + last**2) / 3


def _residual(truth: np.ndarray, prediction: np.ndarray) -> np.ndarray:
    truth, prediction = _pair(truth, prediction)
    return (prediction - truth) / (1 + truth)


def _pair(truth: np.ndarray, prediction: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    truth, prediction = np.asarray(truth), np.asarray(prediction)
    if truth.shape != prediction.shape or truth.size == 0:
        msg = f"wanted truth and prediction of one shape, given {truth.shape} and {prediction.shape}"
        raise ValueError(msg)
    for name, values in (("truth", truth), ("prediction", prediction)):
        if values.dtype.kind == "f" and not np.isfinite(values).all():
            rows = np.flatnonzero(~np.isfinite(values).reshape(len(values), -1).all(1))[:5].tolist()
            msg = f"{name} must be finite; rows {rows} are not"
            raise ValueError(msg)
    if truth.dtype.kind in "USb":
        return truth, prediction
    return truth.astype(np.float64), prediction.astype(np.float64)
