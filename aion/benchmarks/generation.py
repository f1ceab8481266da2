"""How spectra predicted from other modalities are scored: fit to the pixels, and the lines in them.

The brightness of a spectrum is lost at the fibre, so each prediction may be scaled by one number, which makes its
chi-square least. Pixels count by their ivar.
"""

__all__ = ["LINES", "generation", "line_widths"]

from collections.abc import Iterator

import numpy as np
import torch

from aion.benchmarks.fitting import DRAWS, Scored, linear, taken
from aion.benchmarks.seen import Seen
from aion.benchmarks.task import Task
from aion.observations import Spectrum

LINES = {  # in vacuum, Angstrom
    "Ca II K": 3934.8,
    "H delta": 4102.9,
    "H gamma": 4341.7,
    "H beta": 4862.7,
    "Mg b": 5176.0,
    "Na D": 5893.0,
    "H alpha": 6564.6,
    "Ca II 8544": 8544.4,
}
CORE, SIDES = 10.0, (20.0, 45.0)  # Angstrom from the centre: the line, and the continuum on either side
SURE = 0.3  # Angstrom: largest error of an equivalent width that is compared
BINS, WINDOW = 2000, (3600.0, 9800.0)
SHOWN = (0.9, 0.5, 0.1)  # quantiles of R2 of the spectra in a figure


def generation(task: Task, seen: Seen, seed: int, shuffled: bool = False) -> Scored:
    """Scores R2 and reduced chi-square of predicted spectra, medians over objects, and R2 of equivalent widths.

    Whoever generates is scored by that; a ridge from the embedding to the shape of the spectrum, in bins, is scored for
    all and is the headline of the others. Shuffled, spectra are predicted from what was seen of other objects.
    """
    (name,) = task.labels
    truth, rows = seen.data.observations[name], np.flatnonzero(np.isin(seen.data.folds, task.tests))
    order = np.random.default_rng(seed).permutation(len(truth)) if shuffled else np.arange(len(truth))
    train = np.flatnonzero(~np.isin(seen.data.folds, task.tests))
    tested, own = truth[torch.from_numpy(rows)], {}
    if hasattr(seen.embedder, "generate"):
        own["generated"] = seen.generated(order[rows], name, tested).flux.cpu().double().numpy()
    X = taken(seen.readouts(), order)
    predict = linear(taken(X, train), _shapes(truth[torch.from_numpy(train)]), seed, shared=True)
    own["probe"] = _on_grid(predict(taken(X, rows)), tested)
    scores: dict[str, list[float]] = {}
    for label, flux in own.items():
        scores |= {f"{key}, {label}": value for key, value in _scores(tested, flux, seed).items()}
    best = next(iter(own))
    head = {key: scores[f"{key}, {best}"] for key in ("r2", "chi2", "lines") if f"{key}, {best}" in scores}
    return Scored(head | scores, _shown(tested, own[best]), len(rows), len(train))


def _shapes(spectrum: Spectrum) -> np.ndarray:
    """Averages spectra in bins of log wavelength, over their median, `(B, 2000)`; gaps are bridged."""
    nodes, out = np.linspace(*np.log(WINDOW), BINS), []
    for flux, ivar, wave in _rows(spectrum):
        use = ivar > 0
        place = np.rint((np.log(wave[use]) - nodes[0]) / (nodes[1] - nodes[0])).astype(int)
        inside = (place >= 0) & (place < BINS)
        weight, light = (np.bincount(place[inside], v[inside], BINS) for v in (ivar[use], ivar[use] * flux[use]))
        filled = weight > 0
        shape = np.interp(nodes, nodes[filled], light[filled] / weight[filled])
        level = np.median(shape)
        out.append(shape / (level if level > 0 else np.abs(shape).mean() + 1e-9))
    return np.stack(out)


def _on_grid(shapes: np.ndarray, like: Spectrum) -> np.ndarray:
    nodes, wave = np.linspace(*np.log(WINDOW), BINS), like.wavelength.cpu().double().log().numpy()
    return np.stack([np.interp(own, nodes, shape) for own, shape in zip(wave, shapes, strict=True)])


def _scores(truth: Spectrum, flux: np.ndarray, seed: int) -> dict[str, list[float]]:
    flux, ivar, data = _scaled(truth, flux)[:3]
    count = np.maximum((ivar > 0).sum(1), 1)
    left = (ivar * (data - flux) ** 2).sum(1)
    mean = (ivar * data).sum(1, keepdims=True) / ivar.sum(1, keepdims=True)
    r2 = 1 - left / (ivar * (data - mean) ** 2).sum(1)
    out = {"r2": _median_error(r2, seed), "chi2": _median_error(left / count, seed)}
    wave = truth.wavelength.cpu().double().numpy()
    (true, error), (guess, _) = line_widths(wave, data, ivar), line_widths(wave, flux, ivar)
    sure = (error < SURE) & np.isfinite(true) & np.isfinite(guess)
    if sure.sum() > 2 * len(LINES):
        out["lines"] = _lines_error(true, guess, sure, seed)
    return out


def _scaled(truth: Spectrum, flux: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns predictions scaled to the spectra, ivar (0 where either is missing) and the flux of the spectra."""
    ivar, data = (getattr(truth, key).cpu().double().numpy() for key in ("ivar", "flux"))
    ivar = np.where(np.isfinite(flux), ivar, 0.0)
    data, flux = np.where(ivar > 0, data, 0.0), np.where(ivar > 0, flux, 0.0)
    total = (ivar * flux**2).sum(1, keepdims=True)
    return flux * (ivar * flux * data).sum(1, keepdims=True) / np.where(total > 0, total, 1.0), ivar, data


def line_widths(wave: np.ndarray, flux: np.ndarray, ivar: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Measures equivalent widths in Angstrom, positive in absorption, and their errors, each `(B, lines)`.

    NaN, or an infinite error, where a line or its sides were not measured.
    """
    widths, errors = [], []
    for centre in LINES.values():
        away = np.abs(wave - centre)
        whole = np.gradient(wave, axis=1) * (away < CORE)
        core = (away < CORE) & (ivar > 0)
        side = (away > SIDES[0]) & (away < SIDES[1]) & (ivar > 0)
        enough = (core.sum(1) > 10) & (side.sum(1) > 20)
        level = (flux * side).sum(1) / np.maximum(side.sum(1), 1)
        enough &= level > 0
        level = np.where(enough, level, 1.0)[:, None]
        step = whole * core
        scale = whole.sum(1) / np.maximum(step.sum(1), 1e-9)  # bad pixels are as the mean of the others
        width = ((1 - flux / level) * step).sum(1) * scale
        error = np.sqrt((np.where(core, step**2 / np.where(ivar > 0, ivar, 1.0), 0.0)).sum(1)) * scale / level[:, 0]
        widths.append(np.where(enough, width, np.nan))
        errors.append(np.where(enough, error, np.inf))
    return np.stack(widths, axis=1), np.stack(errors, axis=1)


def _lines_error(true: np.ndarray, guess: np.ndarray, sure: np.ndarray, seed: int) -> list[float]:
    """Returns R2 of equivalent widths about the mean of each line, and its scatter over draws of objects."""
    mean = np.where(sure, true, 0).sum(0) / np.maximum(sure.sum(0), 1)
    left, total = (np.where(sure, v, 0).sum(1) for v in ((true - guess) ** 2, (true - mean) ** 2))
    draws = np.random.default_rng(seed).integers(len(true), size=(DRAWS, len(true)))
    values = 1 - left[draws].sum(1) / np.maximum(total[draws].sum(1), 1e-12)
    return [float(1 - left.sum() / total.sum()), float(values.std(ddof=1))]


def _median_error(each: np.ndarray, seed: int) -> list[float]:
    draws = np.random.default_rng(seed).integers(len(each), size=(DRAWS, len(each)))
    return [float(np.median(each)), float(np.median(each[draws], axis=1).std(ddof=1))]


def _shown(truth: Spectrum, flux: np.ndarray) -> dict[str, np.ndarray]:
    """Returns some spectra with their predictions: good, usual and bad ones."""
    flux, ivar, data = _scaled(truth, flux)
    left = (ivar * (data - flux) ** 2).sum(1) / np.maximum((ivar * data**2).sum(1), 1e-12)
    rank = np.argsort(left)
    rows = rank[[round((1 - q) * (len(rank) - 1)) for q in SHOWN]]
    parts = {"wavelength": truth.wavelength.cpu().numpy()[rows], "flux": data[rows], "ivar": ivar[rows]}
    return {f"spectra {key}": value.astype(np.float32) for key, value in (parts | {"guess": flux[rows]}).items()}


def _rows(spectrum: Spectrum) -> Iterator[tuple[np.ndarray, ...]]:
    parts = (getattr(spectrum, key).cpu().double().numpy() for key in ("flux", "ivar", "wavelength"))
    return zip(*parts, strict=True)
