"""Draws what cells found: scatter, confusion, histograms, curves, montages, spectra with residuals, maps."""

__all__ = ["draw", "draw_curves"]

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    Arrays = Mapping[str, np.ndarray]

INK, BLUE, ORANGE, GREY = "#333333", "#0072B2", "#D55E00", "#999999"
COLOURS = (BLUE, ORANGE, "#009E73", "#CC79A7", "#56B4E9", "#E69F00")
HISTOGRAMS = {"ndcg": "nDCG@10 of a query", "pit": "PIT", "rank": "rank of the partner"}


def draw(cell: Mapping, arrays: "Arrays") -> "list[Figure]":
    """Draws the arrays of a cell, each figure with its axes named: what was predicted, then what was found."""
    figures = []
    labels = [key.removeprefix("truth ") for key in arrays if key.startswith("truth ")]
    panels = [*labels, *(key for key in arrays if key.split()[0] in HISTOGRAMS)]
    if panels:
        figure = _figure(cell, (4.2 * len(panels), 3.9))
        for axes, name in zip(np.atleast_1d(figure.subplots(1, len(panels))), panels, strict=True):
            if name not in labels:
                _histogram(axes, name, arrays[name])
                continue
            truth, guess = arrays[f"truth {name}"], arrays[f"prediction {name}"]
            (_confusion if truth.dtype.kind in "US" else _scatter)(axes, name, truth, guess)
        figures.append(figure)
    if "spectra flux" in arrays:
        figures.append(_spectra(cell, arrays))
    for key in arrays:
        kind, _, name = key.partition(" ")
        if kind == "montage":
            figures.append(_montage(cell, name, arrays[key], arrays[f"relevance {name}"]))
        elif kind == "maps":
            figures.append(_maps(cell, name, arrays[f"pictures {name}"], arrays[key]))
    return figures


def draw_curves(cells: Sequence[Mapping], arrays: "Sequence[Arrays]") -> "Figure":
    """Draws the scores of several models against the number of labelled objects."""
    figure = _figure({"task": cells[0]["task"], "origin": cells[0]["origin"], "model": "all models"}, (6.4, 4.2))
    axes = figure.subplots()
    for i, (cell, own) in enumerate(zip(cells, arrays, strict=True)):
        style = {"color": COLOURS[i % len(COLOURS)], "marker": "o", "capsize": 3, "label": cell["model"]}
        axes.errorbar(own["labels"], own["score"][:, 0], own["score"][:, 1], **style)
    low = min(float(own["score"][:, 0].min()) for own in arrays)
    axes.set(xscale="log", xlabel="labelled objects", ylabel=cells[0]["metric"], ylim=(max(low - 0.1, -1.05), None))
    ticks = sorted({int(n) for own in arrays for n in own["labels"]})
    axes.set_xticks(ticks, [str(n) for n in ticks])
    axes.minorticks_off()
    axes.legend(frameon=False)
    return figure


def _figure(cell: Mapping, size: tuple[float, float]) -> "Figure":
    from matplotlib.figure import Figure

    figure = Figure(figsize=size, layout="constrained")
    figure.suptitle(f"{cell['task']} ({cell['origin']}), {cell['model']}", color=INK)
    return figure


def _histogram(axes: "Axes", name: str, values: np.ndarray) -> None:
    kind, _, label = name.partition(" ")
    count = 10 if kind == "pit" else 20
    axes.hist(values, bins=count, range=(0, 1) if kind == "pit" else None, color=BLUE)
    if kind == "pit":
        axes.axhline(len(values) / count, color=ORANGE)
    axes.set(xlabel=f"{HISTOGRAMS[kind]}{f', {label}' if label else ''}", ylabel="objects")


def _scatter(axes: "Axes", name: str, truth: np.ndarray, guess: np.ndarray) -> None:
    low, high = np.percentile(np.concatenate([truth, guess]), [0.5, 99.5])
    axes.plot([low, high], [low, high], color=ORANGE, lw=1)
    axes.plot(truth, guess, ".", color=BLUE, ms=4, alpha=min(1.0, 300 / len(truth) + 0.1), mew=0)
    pad = 0.03 * (high - low)
    axes.set(
        xlabel=f"true {name}", ylabel=f"predicted {name}", xlim=(low - pad, high + pad), ylim=(low - pad, high + pad)
    )


def _confusion(axes: "Axes", name: str, truth: np.ndarray, guess: np.ndarray) -> None:
    classes = np.unique(np.concatenate([truth, guess]))
    count = np.array([[((truth == t) & (guess == g)).sum() for g in classes] for t in classes])
    share = count / np.maximum(count.sum(1, keepdims=True), 1)
    axes.imshow(share, cmap="Blues", vmin=0, vmax=1)
    for (row, column), number in np.ndenumerate(count):
        style = {"ha": "center", "va": "center", "color": "white" if share[row, column] > 0.5 else INK}
        axes.text(column, row, str(number), **style)
    axes.set_xticks(range(len(classes)), classes, rotation=45, ha="right")
    axes.set_yticks(range(len(classes)), classes)
    axes.set(xlabel=f"predicted {name}", ylabel=f"true {name}")


def _spectra(cell: Mapping, arrays: "Arrays") -> "Figure":
    """Draws spectra, what was predicted of them and the residual in units of the error."""
    count = len(arrays["spectra flux"])
    figure = _figure(cell, (11, 3.2 * count))
    panels = figure.subplots(2 * count, 1, gridspec_kw={"height_ratios": [2.4, 1] * count})
    for row in range(count):
        wave, flux, ivar, guess = (arrays[f"spectra {key}"][row] for key in ("wavelength", "flux", "ivar", "guess"))
        use = ivar > 0
        top, bottom = panels[2 * row : 2 * row + 2]
        top.plot(wave[use], flux[use], color=GREY, lw=0.6, label="measured")
        top.plot(wave[use], guess[use], color=BLUE, lw=0.8, label="predicted")
        low, high = np.percentile(flux[use], [0.5, 99.5])
        pad = 0.15 * (high - low)
        top.set(ylabel="flux", ylim=(low - pad, high + pad))
        top.tick_params(labelbottom=False)
        residual = (flux - guess)[use] * np.sqrt(ivar[use])
        bottom.plot(wave[use], residual, color=INK, lw=0.4)
        limit = max(5.0, float(np.percentile(np.abs(residual), 98)))
        bottom.axhline(0, color=ORANGE, lw=0.8)
        bottom.set(ylabel="residual / error", ylim=(-limit, limit))
    panels[0].legend(frameon=False, loc="upper right", ncols=2)
    panels[-1].set_xlabel("wavelength (vacuum, Å)")
    return figure


def _montage(cell: Mapping, name: str, pictures: np.ndarray, relevance: np.ndarray) -> "Figure":
    """Draws queries, each a row: the query itself, then what was found, nearest first, relevant ones framed."""
    rows, columns = pictures.shape[:2]
    figure = _figure(cell, (1.15 * columns, 1.2 * rows + 0.6))
    for (row, column), axes in np.ndenumerate(figure.subplots(rows, columns, squeeze=False)):
        axes.imshow(pictures[row, column], origin="lower")
        axes.set(xticks=[], yticks=[])
        good = column > 0 and relevance[row, column - 1] > 0
        for spine in axes.spines.values():
            spine.set(color=ORANGE if column == 0 else BLUE, linewidth=3, visible=column == 0 or bool(good))
        if row == 0:
            axes.set_title("query" if column == 0 else str(column), fontsize=8, color=INK)
    figure.supxlabel(f"{name}: nearest first, those framed in blue have {name}", fontsize=9, color=INK)
    return figure


def _maps(cell: Mapping, name: str, pictures: np.ndarray, maps: np.ndarray) -> "Figure":
    """Draws images with the pixels that are marked, in truth and by the probe."""
    figure = _figure(cell, (1.7 * len(pictures), 5.4))
    panels = figure.subplots(3, len(pictures), squeeze=False)
    for column, (picture, own) in enumerate(zip(pictures, maps, strict=True)):
        for axes, shown, label in zip(panels[:, column], (picture, *own), ("image", "true", "predicted"), strict=True):
            axes.imshow(shown, origin="lower", **({} if shown.ndim == 3 else {"cmap": "Blues", "vmin": 0, "vmax": 1}))
            axes.set(xticks=[], yticks=[])
            if column == 0:
                axes.set_ylabel(f"{label} {name}" if label != "image" else label, fontsize=9)
    return figure
