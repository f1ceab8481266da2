"""How maps are scored: a convolutional probe on a grid of frozen vectors, and which pixels it marks."""

__all__ = ["segmentation"]

import numpy as np

from aion.benchmarks import metrics
from aion.benchmarks.fitting import DRAWS, Scored, labelled, together
from aion.benchmarks.seen import Seen
from aion.benchmarks.task import Task
from aion.benchmarks.thumbnails import thumbnails
from aion.probes import MapProbe

SIDE = 8  # cells of the grid
PROBE = {"width": 16, "steps": 120, "batch_size": 16}
THRESHOLDS = np.arange(0.05, 0.75, 0.05)
SHOWN = 5  # objects in a figure


def segmentation(task: Task, seen: Seen, seed: int, shuffled: bool = False) -> Scored:
    """Scores intersection over union of the pixels of a pattern, over all pixels of the objects tested.

    The probe is fitted to four fifths of the training part; the threshold on what it predicts is that which does best
    on the last fifth, as arXiv:2510.17960 has it. The error is the scatter over bootstrap draws of objects.
    """
    X = seen.grids(SIDE)
    scores: dict[str, list[float]] = {}
    arrays: dict[str, np.ndarray] = {}
    tested = fitted = 0
    for name in task.labels:
        y, rows = labelled(task, seen.data, name)
        y = y[np.random.default_rng(seed).permutation(len(y))] if shuffled else y
        test = np.isin(seen.data.folds[rows], task.tests)
        train = np.random.default_rng(seed).permutation(np.flatnonzero(~test))
        if test.sum() < 2 or len(train) < 10:
            msg = f"{task.name}: fewer objects than wanted: {len(train)} to fit and {test.sum()} to test have {name!r}"
            raise ValueError(msg)
        held, kept = train[: len(train) // 5], train[len(train) // 5 :]
        probe = MapProbe(seed=seed, **PROBE).fit(X[rows[kept]], y[kept])
        tuning = probe.predict(X[rows[held]])
        threshold = max(THRESHOLDS, key=lambda limit: metrics.iou(y[held] > 0.5, tuning > limit))
        marked, truth = probe.predict(X[rows[test]]) > threshold, y[test] > 0.5
        scores[name] = _with_error(truth, marked, seed)
        tested, fitted = max(tested, len(truth)), max(fitted, len(train))
        pictures = thumbnails(seen.data.observations[seen.names[0]], rows[test][:SHOWN])
        if pictures is not None and not shuffled:
            arrays[f"pictures {name}"] = pictures
            arrays[f"maps {name}"] = np.stack([truth[:SHOWN], marked[:SHOWN]], axis=1).astype(np.uint8)
    return Scored({task.metric: together([scores[n] for n in task.labels])} | scores, arrays, tested, fitted)


def _with_error(truth: np.ndarray, marked: np.ndarray, seed: int) -> list[float]:
    draws = np.random.default_rng(seed).integers(len(truth), size=(DRAWS, len(truth)))
    both, either = (truth & marked).sum((1, 2)), (truth | marked).sum((1, 2))
    values = both[draws].sum(1) / np.maximum(either[draws].sum(1), 1)
    return [metrics.iou(truth, marked), float(values.std(ddof=1))]
