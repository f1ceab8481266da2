r"""Figures of observations and posteriors, for reports and notebooks.

Every function draws into a `matplotlib.figure.Figure` (or a `SubFigure` that it is given) and returns it; pyplot and
its global state are never touched, so that figures work without a display and in any thread. Save one by
`figure.savefig("spectrum.png", dpi=150)`. The colours (Okabe and Ito's) can be told apart by colour-blind readers.
"""

__all__ = ["colours", "plot_image", "plot_posterior", "plot_spectrum"]

from collections.abc import Sequence
from operator import index
from typing import TYPE_CHECKING

import numpy as np

from torch import Tensor

from aion.observations import BANDS, Image, Observation, Spectrum, near_miss
from aion.posterior import Posterior

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure, SubFigure

INK = "#333333"
GREY = "#999999"
BLUE = "#0072B2"
VERMILION = "#D55E00"
WAVELENGTH = "Observed vacuum wavelength [Å]"
FLUX = r"Flux density [$10^{-17}$ erg s$^{-1}$ cm$^{-2}$ Å$^{-1}$]"


def plot_spectrum(
    spectrum: Spectrum,
    reconstruction: Spectrum | None = None,
    *,
    row: int = 0,
    smooth: int = 1,
    title: str | None = None,
    figure: "Figure | SubFigure | None" = None,
) -> "Figure | SubFigure":
    """Draws a spectrum with its 1-sigma band and, below its reconstruction, the residuals in units of sigma.

    Pixels that were not measured (ivar 0) and holes in the wavelength grid are gaps. The flux axis leaves out
    the most extreme pixels: 1 in 500 below, 1 in 1000 above, and those three times noisier than most.

    Arguments:
        spectrum: the object drawn is `row` of it.
        reconstruction: a model of it on the same grid; where its ivar is 0 it is a gap too.
        row: which object of the batch.
        smooth: number of pixels of a running mean, weighted by ivar, that is drawn over the flux, with its own
            error; the legend says so. By default the flux is drawn as it is. The residuals are never smoothed.
        title: a line above the figure.
        figure: where to draw; by default a new figure.

    Raises:
        TypeError: if what is given is not spectra.
        ValueError: if the grids differ, no pixel of the object was measured or `smooth` is not a whole number >= 1.
        IndexError: if there is no such row.
    """
    spectrum = _one(spectrum, Spectrum, row)
    if not isinstance(smooth, int) or smooth < 1:
        msg = f"smooth must be a whole number of pixels >= 1, given {smooth!r}"
        raise ValueError(msg)
    wavelength, flux, ivar = (_array(v) for v in (spectrum.wavelength, spectrum.flux, spectrum.ivar))
    measured = ivar > 0
    with np.errstate(divide="ignore"):
        sigma = np.where(measured, ivar**-0.5, np.nan)
    flux = np.where(measured, flux, np.nan)
    model = None
    if reconstruction is not None:
        model = _model(_one(reconstruction, Spectrum, row), wavelength)

    figure = _figure(figure, (8.0, 4.6))
    panels = figure.subplots(
        1 if model is None else 2, 1, sharex=True, squeeze=False, height_ratios=[3, 1][: 1 + (model is not None)]
    )
    top, bottom = panels[0, 0], panels[-1, 0]
    _draw_flux(top, wavelength, flux, sigma, model, smooth)
    if model is not None:
        _draw_residual(bottom, wavelength, (flux - model) / sigma)
    for axes in panels[:, 0]:
        _tidy(axes)
    bottom.set_xlabel(WAVELENGTH)
    left, right = wavelength[measured][[0, -1]]
    top.set_xlim((left, right) if left < right else (left - 1, right + 1))
    return _titled(figure, title)


def plot_posterior(
    posterior: Posterior,
    truth: float | Tensor | None = None,
    *,
    row: int = 0,
    quantity: str = "Redshift",
    truth_label: str = "survey pipeline",
    title: str | None = None,
    figure: "Figure | SubFigure | None" = None,
) -> "Figure | SubFigure":
    """Draws the density of a posterior with its median and 68 % interval, and another's value as a line.

    The axis spans 99.8 % of the probability and the other's value, or less, which the legend then says: no more than
    six times the interval on either side of it.

    Arguments:
        posterior: the object drawn is `row` of it.
        truth: another's value, a number or `(B,)`, such as the redshift of the survey's pipeline; NaN draws nothing.
        row: which object of the batch.
        quantity: label of the axis, with its unit.
        truth_label: whose value `truth` is.
        title: a line above the figure.
        figure: where to draw; by default a new figure.

    Raises:
        TypeError: if what is given is not a posterior.
        ValueError: if `truth` is neither one number nor one for each object.
        IndexError: if there is no such row.
    """
    if not isinstance(posterior, Posterior):
        msg = f"wanted Posterior, given {type(posterior).__name__}"
        raise TypeError(msg)
    if not -len(posterior) <= index(row) < len(posterior):
        msg = f"no row {row} in a posterior of {len(posterior)} objects"
        raise IndexError(msg)
    value = None if truth is None else _truth(truth, row, len(posterior))
    edges, density = _array(posterior.edges), posterior.density[row].cpu().numpy()
    low, high, left, right = (posterior.quantile(q)[row].item() for q in (0.16, 0.84, 0.001, 0.999))
    left, right = max(left, 7 * low - 6 * high), min(right, 7 * high - 6 * low)
    shown = density @ np.diff(np.clip(edges, left, right))
    median = posterior.median()[row].item()

    figure = _figure(figure, (5.6, 3.4))
    axes = figure.subplots()
    digits = int(np.clip(1 - np.floor(np.log10(max(high - low, 1e-9) / 2)), 0, 6))
    interval = f"68 %: {low:.{digits}f} to {high:.{digits}f}"
    axes.stairs(density, np.clip(edges, low, high), fill=True, color=BLUE, alpha=0.25, linewidth=0, label=interval)
    axes.stairs(density, edges, color=BLUE, linewidth=1.2, label=f"{100 * shown:.0f} % shown" if shown < 0.99 else None)
    axes.axvline(median, color=BLUE, linewidth=1.2, linestyle=":", label=f"median: {median:.{digits}f}")
    if value is not None:
        label = f"{truth_label}: {value:.{max(digits, 4)}f}"
        axes.axvline(value, color=VERMILION, linewidth=1.2, linestyle="--", label=label)
        left, right = min(left, value), max(right, value)
    margin = 0.06 * (right - left) or 1e-3
    axes.set_xlim(left - margin, right + margin)
    axes.set_ylim(0, 1.08 * density[(edges[1:] > left - margin) & (edges[:-1] < right + margin)].max())
    axes.set_xlabel(quantity)
    axes.set_ylabel("Probability density")
    _tidy(axes)
    _legend(axes)
    return _titled(figure, title)


def plot_image(
    image: Image,
    *,
    row: int = 0,
    bands: Sequence[str] | None = None,
    title: str | None = None,
    figure: "Figure | SubFigure | None" = None,
) -> "Figure | SubFigure":
    r"""Draws an image in colour, or in grey if it has one band, stretched by :math:`\mathrm{asinh}`.

    With the mean over bands :math:`I` and its noise :math:`\sigma`, each band is scaled by
    :math:`\mathrm{asinh}(I/2\sigma)/I`, which keeps hues and is linear in the noise. Bands are weighted by
    :math:`\lambda^{-3/2}`, so that neither blue nor red galaxies are all one hue. A pixel that was not measured in some
    band drawn is grey. Row 0 is at the bottom.

    Arguments:
        image: the object drawn is `row` of it.
        row: which object of the batch.
        bands: names of the bands for red, green and blue, or of one for grey; by default the reddest, the middle
            and the bluest of those with a measured pixel.
        title: a line above the figure.
        figure: where to draw; by default a new figure.

    Raises:
        TypeError: if what is given is not an image.
        ValueError: if a band is not in the image (with the near misses), their number is neither 1 nor 3, or no pixel
            was measured.
        IndexError: if there is no such row.

    References:
        Preparing Red-Green-Blue Images from CCD Data (Lupton et al., 2004, arXiv:astro-ph/0312483)
    """
    image = _one(image, Image, row)
    chosen = _channels(image, bands)
    height, width = (size * image.pixel_scale[0].item() / 2 for size in image.flux.shape[2:])

    figure = _figure(figure, (4.2, 4.2))
    axes = figure.subplots()
    axes.imshow(
        _colours(image, chosen),
        origin="lower",
        extent=(-width, width, -height, height),
        interpolation="nearest",
    )
    axes.set_xlabel("Offset along columns [arcsec]")
    axes.set_ylabel("Offset along rows [arcsec]")
    _tidy(axes)
    axes.set_title(", ".join(dict.fromkeys(chosen)), loc="left", fontsize=8, color=INK)
    return _titled(figure, title)


def _one(observation: Observation, kind: type, row: int) -> Observation:
    """Picks one object of the wanted kind that has at least one measured pixel."""
    if not isinstance(observation, kind):
        msg = f"wanted {kind.__name__}, given {type(observation).__name__}"
        raise TypeError(msg)
    one = observation[index(row)]
    if not one.measured.any():
        msg = f"nothing to draw: no pixel of row {row} was measured"
        raise ValueError(msg)
    return one


def _array(value: Tensor) -> np.ndarray:
    """Converts to float64, without the batch axis if it is 1."""
    value = value.detach().cpu().double().numpy()
    return value[0] if value.ndim > 1 else value


def _model(reconstruction: Spectrum, wavelength: np.ndarray) -> np.ndarray:
    if not np.array_equal(_array(reconstruction.wavelength), wavelength):
        msg = (
            f"the reconstruction must be on the grid of the spectrum, {wavelength.size} pixels from "
            f"{wavelength[0]:.1f} to {wavelength[-1]:.1f} Å: make it with like=spectrum"
        )
        raise ValueError(msg)
    return np.where(_array(reconstruction.ivar) > 0, _array(reconstruction.flux), np.nan)


def _truth(truth: float | Tensor, row: int, count: int) -> float | None:
    values = np.asarray(truth.cpu() if isinstance(truth, Tensor) else truth, dtype=float)
    if values.shape not in {(), (count,)}:
        msg = f"truth must be a number or ({count},), one for each object, given shape {values.shape}"
        raise ValueError(msg)
    value = float(values[row] if values.ndim else values)
    return value if np.isfinite(value) else None


def _figure(figure: "Figure | SubFigure | None", size: tuple[float, float]) -> "Figure | SubFigure":
    if figure is not None:
        return figure
    from matplotlib.figure import Figure

    return Figure(figsize=size, layout="constrained")


def _tidy(axes: "Axes") -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["bottom", "left"]].set_color(GREY)
    axes.tick_params(color=GREY, labelcolor=INK, labelsize=8)
    for label in (axes.xaxis.label, axes.yaxis.label):
        label.set(color=INK, fontsize=9)


def _legend(axes: "Axes", **place: object) -> None:
    axes.legend(frameon=False, fontsize=8, labelcolor=INK, handlelength=1.6, borderaxespad=0.2, **place)


def _titled(figure: "Figure | SubFigure", title: str | None) -> "Figure | SubFigure":
    if title:
        figure.suptitle(title, x=0.01, ha="left", fontsize=10, color=INK)
    return figure


def _draw_flux(
    axes: "Axes", wavelength: np.ndarray, flux: np.ndarray, sigma: np.ndarray, model: np.ndarray | None, smooth: int
) -> None:
    mean, error = (flux, sigma) if smooth == 1 else _running_mean(flux, sigma, smooth)
    name = "flux" if smooth == 1 else f"flux, mean over {smooth} pixels"
    x, y, e = _broken(wavelength, mean, error)
    if smooth > 1:
        axes.plot(*_broken(wavelength, flux), color=GREY, alpha=0.35, linewidth=0.3, label="flux")
    axes.fill_between(x, y - e, y + e, color=GREY, alpha=0.5, linewidth=0, label="±1 σ")
    axes.plot(x, y, color=INK, linewidth=0.5, label=name)
    if model is not None:
        axes.plot(*_broken(wavelength, model), color=VERMILION, linewidth=1.0, label="reconstruction")
    clean = error < 3 * np.nanmedian(error)  # noisy ends do not set the scale
    shown = mean[clean] if model is None else np.concatenate([mean[clean], model[clean]])
    low, high = np.nanquantile(shown, [0.002, 0.999])
    margin = 0.1 * (high - low) or 1.0
    axes.set_ylim(low - margin, high + margin)
    axes.set_ylabel(FLUX)
    _legend(axes, loc="lower right", bbox_to_anchor=(1, 1), ncols=4)


def _draw_residual(axes: "Axes", wavelength: np.ndarray, residual: np.ndarray) -> None:
    axes.axhspan(-1, 1, color=GREY, alpha=0.3, linewidth=0)
    axes.axhline(0, color=VERMILION, linewidth=0.8)
    axes.plot(wavelength, residual, ".", color=INK, alpha=0.5, markersize=2.5, markeredgewidth=0, rasterized=True)
    known = residual[np.isfinite(residual)]
    limit = 4.0
    if known.size:
        limit = max(limit, 1.2 * np.quantile(np.abs(known), 0.99))
        text = f"mean square {np.mean(known**2):.2f}"
        axes.annotate(
            text, (1, 1), (-2, -2), "axes fraction", "offset points", ha="right", va="top", fontsize=8, color=INK
        )
    axes.set_ylim(-limit, limit)
    axes.set_ylabel("Residual [σ]")


def _broken(wavelength: np.ndarray, *values: np.ndarray) -> tuple[np.ndarray, ...]:
    """Inserts a NaN into the holes of a grid, so that no line is drawn across them."""
    step = np.diff(wavelength)
    holes = np.flatnonzero(step > 5 * np.median(step[step > 0])) + 1 if (step > 0).any() else []
    return tuple(np.insert(value, holes, np.nan) for value in (wavelength, *values))


def _running_mean(flux: np.ndarray, sigma: np.ndarray, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Averages neighbours, weighted by inverse variance, with its error; what was not measured stays a gap."""
    weight = np.where(np.isfinite(flux), sigma**-2.0, 0.0)
    box = np.ones(min(width, flux.size))
    total = np.convolve(weight, box, mode="same")
    total = np.where(np.isfinite(flux), total, np.nan)
    return np.convolve(weight * np.nan_to_num(flux), box, mode="same") / total, total**-0.5


def colours(image: Image, *, row: int = 0, bands: Sequence[str] | None = None) -> np.ndarray:
    """Returns the colours `(H, W, 3)` in [0, 1] that `plot_image` draws; the arguments and errors are its own."""
    image = _one(image, Image, row)
    return _colours(image, _channels(image, bands))


def _colours(image: Image, chosen: Sequence[str]) -> np.ndarray:
    channel = [image.bands.index(band) for band in chosen]
    flux, ivar = _array(image.flux)[channel], _array(image.ivar)[channel]
    return _stretch(flux, ivar, np.array([BANDS[band] for band in chosen]))


def _channels(image: Image, bands: Sequence[str] | None) -> list[str]:
    """Chooses the bands for red, green and blue, or one for grey."""
    if bands is None:
        seen = [band for i, band in enumerate(image.bands) if image.measured[0, i].any()]
        seen.sort(key=BANDS.get, reverse=True)
        middle = (BANDS[seen[0]] * BANDS[seen[-1]]) ** 0.5
        return seen if len(seen) == 1 else [seen[0], min(seen, key=lambda b: abs(np.log(BANDS[b] / middle))), seen[-1]]
    bands = (bands,) if isinstance(bands, str) else bands
    for band in bands:
        if band not in image.bands:
            msg = f"band {band!r} is not in the image; {near_miss(band, image.bands)}"
            raise ValueError(msg)
    if len(bands) not in {1, 3}:
        msg = f"bands must name three (red, green, blue) or one (grey), given {tuple(bands)}"
        raise ValueError(msg)
    return list(bands)


def _stretch(flux: np.ndarray, ivar: np.ndarray, wavelength: np.ndarray) -> np.ndarray:
    """Turns flux `(1 or 3, H, W)` into colours `(H, W, 3)` in [0, 1]."""
    weight = (wavelength / wavelength.mean())[:, None, None] ** -1.5
    measured = (ivar > 0).all(0)
    color = np.clip(flux * weight, 0, None)
    intensity = color.mean(0)
    if not measured.any():
        return np.full((*intensity.shape, 3), 0.6)
    variance = (weight**2 / np.where(ivar > 0, ivar, 1)).sum(0)[measured] / len(flux) ** 2
    soft = 2 * np.sqrt(np.median(variance))
    peak = max(np.quantile(intensity[measured], 0.995), soft)
    level = np.arcsinh(intensity / soft) / np.arcsinh(peak / soft)
    rgb = color * np.divide(level, intensity, out=np.zeros_like(level), where=intensity > 0)
    rgb = rgb / np.maximum(rgb.max(0), 1)  # a bright core keeps its hue
    rgb = np.where(measured, rgb, 0.6)
    return np.broadcast_to(np.moveaxis(rgb, 0, -1), (*intensity.shape, 3))
