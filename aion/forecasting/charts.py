"""Figures of forecasts: fans, spectra, scores and films. All are drawn without pyplot and its global state."""

__all__ = ["plot_fan", "plot_spectra", "plot_verification", "save_film"]

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from torch import Tensor

from aion.forecasting.verification import Verification, power_spectrum
from aion.whole import whole

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK, GREY, BLUE, VERMILION = "#333333", "#999999", "#0072B2", "#D55E00"
COLOURS = (VERMILION, BLUE, "#009E73", "#CC79A7")


def plot_fan(
    past: Tensor,
    ensemble: Tensor,
    truth: Tensor | None = None,
    *,
    names: Sequence[str] = (),
    xlabel: str = "frames after the present",
    title: str = "",
    members: int = 3,
) -> "Figure":
    """Draws series, and the fans of what may follow: median, and the middle 50 and 90 % of the members.

    Arguments:
        past: `(P, C)`, a panel for each channel; NaN is a gap.
        ensemble: members `(M, T, C)`.
        truth: what came true, `(T, C)`.
        names: of the channels, with their units.
        xlabel: of the time.
        title: a line above.
        members: how many single members to draw.

    Raises:
        ValueError: if shapes do not fit each other.
    """
    from matplotlib.figure import Figure

    fits = past.ndim == 2 and ensemble.ndim == 3 and past.shape[1] == ensemble.shape[2]
    if not fits or (truth is not None and truth.shape != ensemble.shape[1:]):
        given = (tuple(past.shape), tuple(ensemble.shape), None if truth is None else tuple(truth.shape))
        msg = f"plot_fan: wanted a past (P, C), members (M, T, C) and a truth (T, C), given {given}"
        raise ValueError(msg)
    panels = past.shape[1]
    figure = Figure(figsize=(8, 1.2 + 2.4 * panels), layout="constrained")
    for index, axes in enumerate(figure.subplots(panels, 1, sharex=True, squeeze=False)[:, 0]):
        _fan(axes, past[:, index], ensemble[:, :, index], None if truth is None else truth[:, index], members)
        axes.set(ylabel=names[index] if names else "")
    figure.axes[0].set_title(title)
    figure.legend(*figure.axes[0].get_legend_handles_labels(), loc="outside upper center", frameon=False, ncols=5)
    figure.axes[-1].set_xlabel(xlabel)
    return figure


def _fan(axes: "Axes", past: Tensor, ensemble: Tensor, truth: Tensor | None, members: int) -> None:
    after = list(range(1, ensemble.shape[1] + 1))
    shares = torch.tensor([0.05, 0.25, 0.5, 0.75, 0.95], dtype=torch.float64)
    low, lower, middle, upper, high = ensemble.double().quantile(shares, dim=0)
    axes.fill_between(after, low, high, color=VERMILION, alpha=0.15, lw=0, label="90 %")
    axes.fill_between(after, lower, upper, color=VERMILION, alpha=0.3, lw=0, label="50 %")
    for number in range(min(members, len(ensemble))):
        axes.plot(after, ensemble[number], color=VERMILION, lw=0.5, alpha=0.6, label=None if number else "members")
    axes.plot(after, middle, color=VERMILION, lw=1.8, label="median")
    axes.plot(range(1 - len(past), 1), past, color=INK, lw=1.0, label="observed")
    if truth is not None:
        axes.plot(after, truth, color=BLUE, lw=1.0, label="what came true")
    axes.margins(x=0.01)


def plot_spectra(forecasts: Mapping[str, Tensor], truth: Tensor) -> "Figure":
    """Draws the power of forecasts `(M, B, T, C, *space)` and of the truth `(B, T, C, *space)` by wave number.

    Raises:
        ValueError: if the frames have no space.
    """
    from matplotlib.figure import Figure

    axes_of_space = truth.ndim - 3
    if axes_of_space < 1:
        msg = f"plot_spectra: wanted frames with space, (B, T, C, L) or (B, T, C, H, W), given {tuple(truth.shape)}"
        raise ValueError(msg)
    figure = Figure(figsize=(5, 3.6), layout="constrained")
    axes = figure.add_subplot()
    real = power_spectrum(truth.double(), axes_of_space)
    axes.loglog(range(1, len(real) + 1), real, color=INK, lw=2, label="truth")
    for colour, (name, ensemble) in zip(COLOURS * len(forecasts), forecasts.items(), strict=False):
        axes.loglog(range(1, len(real) + 1), power_spectrum(ensemble.double(), axes_of_space), color=colour, label=name)
    axes.set(xlabel="wave number [1 / length of the frame]", ylabel="power")
    axes.legend(frameon=False)
    return figure


def plot_verification(
    verification: Verification, names: Sequence[str] = ("crps", "rmse", "spread"), title: str = ""
) -> "Figure":
    """Draws scores by lead, how often the truth had which rank, and the ratio of spectra."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 3.2), layout="constrained")
    left, middle, right = figure.subplots(1, 3, width_ratios=(2, 1, 1))
    for colour, name in zip(COLOURS * len(names), names, strict=False):
        values = verification.mean(name)
        left.plot(range(1, len(values) + 1), values, color=colour, label=name)
    left.set(xlabel="lead [frames]", ylim=(0, None), title=title)
    left.legend(frameon=False)
    shares = verification.rank_histogram
    bins = shares[: len(shares) // 8 * 8].unflatten(0, (8, -1)).sum(1) if len(shares) >= 16 else shares
    middle.bar(range(len(bins)), (bins * len(bins)).tolist(), width=0.9, color=BLUE)
    middle.axhline(1, color=GREY, lw=1)
    middle.set(xlabel="rank of the truth", ylabel="density", xticks=[])
    right.plot(range(len(verification.spectrum_ratio)), verification.spectrum_ratio.tolist(), "o-", color=VERMILION)
    right.axhline(1, color=GREY, lw=1)
    right.set(
        xlabel="band", ylabel="power over that of the truth", xticks=range(3), xticklabels=["long", "middle", "short"]
    )
    return figure


def save_film(
    path: Path | str, frames: Mapping[str, Tensor], *, seconds: float = 0.15, colours: str = "RdBu_r"
) -> Path:
    """Writes fields `(T, H, W)` side by side, on one scale, as an animated GIF.

    Raises:
        ValueError: if they are not of one shape `(T, H, W)`.
    """
    from matplotlib.animation import FuncAnimation, PillowWriter
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    shapes = {tuple(x.shape) for x in frames.values()}
    if len(shapes) != 1 or len(next(iter(shapes))) != 3:
        msg = f"save_film: wanted fields of one shape (T, H, W), given {sorted(shapes)}"
        raise ValueError(msg)
    figure = Figure(figsize=(2.6 * len(frames), 2.8), layout="constrained")
    FigureCanvasAgg(figure)
    limit = float(torch.stack(list(frames.values())).abs().nan_to_num().max())
    pictures = []
    for axes, (name, field) in zip(figure.subplots(1, len(frames), squeeze=False)[0], frames.items(), strict=True):
        axes.set(title=name, xticks=[], yticks=[])
        pictures.append((axes.imshow(field[0].numpy(), cmap=colours, vmin=-limit, vmax=limit, origin="lower"), field))

    def show(time: int) -> list:
        for picture, field in pictures:
            picture.set_data(field[time].numpy())
        return [picture for picture, _ in pictures]

    film = FuncAnimation(figure, show, frames=len(pictures[0][1]), blit=False)
    with whole(Path(path)) as temporary:
        film.save(temporary, writer=PillowWriter(fps=max(1, round(1 / seconds))))
    return Path(path)
