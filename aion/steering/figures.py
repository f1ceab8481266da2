"""Figures and animations of steering; like `aion.plotting` they never touch pyplot and work without a display."""

__all__ = ["animate", "draw_report"]

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from torch import Tensor

from aion.whole import whole

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
GREY = "#999999"


def draw_report(report: Any) -> "Figure":
    """Draws an `aion.steering.SteeringReport`: a row a regime, and layers and systems below if measured."""
    from matplotlib.figure import Figure

    below = [(title, group) for title, group in (("Layer", report.layers), ("System", report.systems)) if group]
    height = len(report.regimes) + bool(below)
    figure = Figure(figsize=(11.0, 3.0 * height), layout="constrained")
    panels = figure.subplots(height, 3, squeeze=False)
    for axes, (name, regime) in zip(panels, report.regimes.items(), strict=False):
        _draw_dose(axes[0], name, report.target, regime)
        _draw_nulls(axes[1], regime, report.target, report.at)
        _draw_specificity(axes[2], regime, report.at)
    for axes, (title, group) in zip(panels[-1], below, strict=False):
        _draw_overview(axes, title, group)
    for axes in panels[-1][len(below) :] if below else ():
        axes.set_axis_off()
    for axes in panels.flat:
        axes.spines[["top", "right"]].set_visible(False)
        axes.tick_params(labelsize=8)
    return figure


def animate(
    fields: Mapping[str, Tensor],
    path: Path | str,
    *,
    frames_per_second: int = 8,
    colours: str = "RdBu_r",
    limit: float | None = None,
    dpi: int = 80,
) -> None:
    """Writes an animation of fields side by side, such as a baseline, a steered run and one along a random direction.

    Arguments:
        fields: by title, each `(S, H, W)` with as many frames; NaN (a run that was lost) is grey.
        path: ends in `.gif`, or in `.mp4` where there is an `ffmpeg`.
        frames_per_second: speed.
        colours: name of a colour map of matplotlib; one scale, symmetric about 0, serves all.
        limit: value of its ends; by default 99.5 % of the first field lie within.
        dpi: pixels per inch; a field is 2.6 inches wide.

    Raises:
        ValueError: for another ending, no field, shapes that differ in frames, or no writer of MP4 on this machine.
    """
    from matplotlib import colormaps
    from matplotlib.animation import FFMpegWriter, PillowWriter
    from matplotlib.figure import Figure

    path, arrays = Path(path), {title: field.detach().float().cpu().numpy() for title, field in fields.items()}
    if path.suffix not in {".gif", ".mp4"}:
        msg = f"animate: the name must end in .gif or .mp4, given {path.name!r}"
        raise ValueError(msg)
    if len({a.shape[0] for a in arrays.values()}) != 1 or any(a.ndim != 3 for a in arrays.values()):
        shapes = [a.shape for a in arrays.values()]
        msg = f"animate: wanted fields (S, H, W) of as many frames, given shapes {shapes}"
        raise ValueError(msg)
    if path.suffix == ".mp4" and not FFMpegWriter.isAvailable():
        msg = "animate: MP4 needs the program ffmpeg, which is not here: install it, or write a .gif"
        raise ValueError(msg)
    first = next(iter(arrays.values()))
    limit = float(np.nanquantile(np.abs(first), 0.995)) or 1.0 if limit is None else limit
    figure = Figure(figsize=(2.6 * len(arrays), 2.9), layout="constrained")
    pictures = []
    for axes, (title, array) in zip(figure.subplots(1, len(arrays), squeeze=False)[0], arrays.items(), strict=True):
        colour_map = colormaps[colours].with_extremes(bad=GREY)
        pictures.append(axes.imshow(array[0], origin="lower", vmin=-limit, vmax=limit, cmap=colour_map))
        axes.set_title(title, fontsize=9)
        axes.set(xticks=[], yticks=[])
    label = figure.text(0.01, 0.01, "", fontsize=8)
    writer = (PillowWriter if path.suffix == ".gif" else FFMpegWriter)(fps=frames_per_second)
    with whole(path) as temporary, writer.saving(figure, str(temporary), dpi):
        for step in range(len(first)):
            label.set_text(f"step {step + 1}")
            for picture, array in zip(pictures, arrays.values(), strict=True):
                picture.set_data(array[step])
            writer.grab_frame()


def _draw_dose(axes: "Axes", name: str, target: str, regime: Any) -> None:
    response = regime.responses[target]
    axes.fill_between(response.strengths, response.odd_low, response.odd_high, color=COLOURS[0], alpha=0.2, linewidth=0)
    axes.plot(response.strengths, response.odd, "o-", color=COLOURS[0], markersize=3, label="odd, 95 %")
    axes.plot(response.strengths, response.even, "--", color=GREY, linewidth=1, label="even")
    axes.axhline(0, color=GREY, linewidth=0.5)
    axes.set_xlabel("strength, units of |x|", fontsize=8)
    axes.set_title(f"{name} (n = {regime.count}): effect on {target}", fontsize=9, loc="left")
    axes.legend(frameon=False, fontsize=7)


def _draw_nulls(axes: "Axes", regime: Any, target: str, at: float) -> None:
    response = regime.responses[target]
    for row, (kind, nulls) in enumerate(regime.nulls.items()):
        effects = np.array(nulls[target].effects)
        axes.plot(effects, np.full(effects.shape, row), "|", color=COLOURS[1 + row % 5], markersize=10, alpha=0.6)
        axes.annotate(kind, (0, row + 0.28), xycoords=("axes fraction", "data"), fontsize=7, color=COLOURS[1 + row % 5])
    if at in response.strengths:
        effect = response.odd[response.strengths.index(at)]
        axes.axvline(effect, color=COLOURS[0], linewidth=1.5)
        axes.annotate(" the direction", (effect, 1), xycoords=("data", "axes fraction"), fontsize=7, va="top")
    axes.axvline(0, color=GREY, linewidth=0.5)
    axes.set(yticks=[], ylim=(-0.6, len(regime.nulls) - 0.2))
    axes.set_xlabel(f"odd effect at {at:g}", fontsize=8)
    axes.set_title("controls", fontsize=9, loc="left")


def _draw_specificity(axes: "Axes", regime: Any, at: float) -> None:
    names = list(regime.responses)
    for row, name in enumerate(reversed(names)):
        response = regime.responses[name]
        i = response.strengths.index(at) if at in response.strengths else 0
        bounds = [[response.odd[i] - response.odd_low[i]], [response.odd_high[i] - response.odd[i]]]
        axes.barh(row, response.odd[i], xerr=np.abs(bounds), color=COLOURS[0] if name == names[0] else GREY, height=0.6)
    axes.set_yticks(range(len(names)), names[::-1], fontsize=7)
    axes.axvline(0, color=GREY, linewidth=0.5)
    axes.set_xlabel(f"odd effect at {at:g}, 95 %", fontsize=8)
    axes.set_title("target and other diagnostics", fontsize=9, loc="left")


def _draw_overview(axes: "Axes", title: str, reports: Mapping[str, Any]) -> None:
    """Draws the odd effect of the target by layer or system, with the largest 95 % of nulls as a bar."""
    regimes = list(next(iter(reports.values())).regimes)
    for k, name in enumerate(regimes):
        for column, report in enumerate(reports.values()):
            if name not in report.regimes:
                continue
            regime = report.regimes[name]
            response = regime.responses[report.target]
            x, i = column + 0.25 * (k - (len(regimes) - 1) / 2), response.strengths.index(report.at)
            size = max((nulls[report.target].quantile for nulls in regime.nulls.values()), default=0.0)
            axes.bar(x, 2 * size, 0.2, -size, color=GREY, alpha=0.4)
            bounds = [[response.odd[i] - response.odd_low[i]], [response.odd_high[i] - response.odd[i]]]
            label = name if column == 0 else None
            axes.errorbar(x, response.odd[i], np.abs(bounds), fmt="o", color=COLOURS[k % 6], markersize=4, label=label)
    axes.set_xticks(range(len(reports)), list(reports), rotation=30, ha="right", fontsize=7)
    axes.axhline(0, color=GREY, linewidth=0.5)
    axes.set_title(f"{title}: odd effect, grey 95 % of the nulls", fontsize=9, loc="left")
    axes.legend(frameon=False, fontsize=7)
