"""The figures of `tokenizers/README.md`: examples of round trips, and what is lost by each contender."""

__all__ = ["losses", "round_trips"]

import json

from collections.abc import Sequence
from pathlib import Path

from matplotlib.figure import Figure
from measures import Contender, ratio

from aion import Spectrum

# One scheme: data grey, ours blue, the others orange and green (told apart by colour-blind readers too).
COLOURS = {"ours": "#0072b2", "fixed grid": "#e69f00", "PCA": "#009e73"}
WINDOWS = {
    "MILES stars": (4800, 5400),
    "MaNGA galaxies, S/N >= 20": (4900, 5700),
    "DESI coadds": (4900, 7000),
    "Gaia XP star": None,
    "apogee_spectrum": (15880, 15960),
    "galah_spectrum": (6530, 6600),
}


def round_trips(contenders: Sequence[Contender], sets: dict[str, Spectrum], path: Path) -> None:
    """Draws the spectrum of highest S/N of each set, what each contender makes of it, and residuals over the error."""
    figure = Figure(figsize=(13, 8.5), layout="constrained")
    rows = figure.add_gridspec(2, 3)
    for place, (name, window) in zip(rows, WINDOWS.items(), strict=True):
        spectrum = sets[name][ratio(sets[name]).argmax().item()]
        w, measured = spectrum.wavelength[0], spectrum.measured[0]
        if window is not None:
            measured = measured & (w > window[0]) & (w < window[1])
        inner = place.subgridspec(2, 1, height_ratios=(3, 1), hspace=0)
        top = figure.add_subplot(inner[0])
        below = figure.add_subplot(inner[1], sharex=top)
        scale = spectrum.flux[0][measured].abs().median()
        sigma = spectrum.ivar[0].clamp(min=1e-30).rsqrt()
        top.plot(w[measured], spectrum.flux[0][measured] / scale, color="0.6", lw=2.2, label="data")
        for contender in reversed(contenders):  # ours on top
            try:
                flux, known, _ = contender.round_trip(spectrum)
            except ValueError:
                continue
            use = known[0] & measured
            style = {"color": COLOURS[contender.name], "lw": 0.9}
            top.plot(w[use], flux[0][use] / scale, label=contender.name, **style)
            below.plot(w[use], ((spectrum.flux[0] - flux[0]) / sigma)[use], **style)
        top.set_title(name.replace("_spectrum", ", simulated"), fontsize=10)
        top.tick_params(labelbottom=False)
        below.set_ylim(-8, 8)
        below.locator_params(axis="x", nbins=5)
        below.set_xlabel("wavelength / Å")
        if place is rows[0, 0] or place.colspan.start == 0:
            top.set_ylabel("flux / median")
            below.set_ylabel("residual / σ")
        if place.colspan.start == 0 and place.rowspan.start == 0:
            top.legend(fontsize=8, loc="lower right")
    figure.savefig(path, dpi=80)


def losses(results: Path, path: Path) -> None:
    """Draws what is lost of each set of spectra, 1 - R2, and the reduced chi-square."""
    rows = json.loads((results / "spectra.json").read_text())["rows"]
    labels = list(rows)[::-1]
    figure = Figure(figsize=(11, 4.8), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    for k, (name, colour) in enumerate(COLOURS.items()):
        for axis, value in ((left, lambda row: max(1 - row["r2"], 1e-5)), (right, lambda row: row["chi2_median"])):
            points = [
                (i, value(rows[label][name])) for i, label in enumerate(labels) if "r2" in rows[label].get(name, {})
            ]
            if points:
                where = [i + 0.2 * (1 - k) for i, _ in points]
                axis.plot([v for _, v in points], where, "o", color=colour, label=name)
    for axis, label in ((left, "1 - R² (lower is better)"), (right, "median reduced chi-square (1 is the noise)")):
        axis.set_xscale("log")
        axis.set_xlabel(label)
        axis.grid(axis="y", color="0.9")
    right.axvline(1, color="0.7", lw=1, zorder=0)
    left.set_yticks(range(len(labels)), labels, fontsize=9)
    left.legend(fontsize=9)
    figure.savefig(path, dpi=80)
