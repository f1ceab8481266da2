"""Draws the losses of a training: `python benchmarks/curves.py runs/nano/transformer.jsonl docs/training.png`.

The parts of a training, each with a log of its own, are named one after the other. A line per modality that is no
single number of a catalogue, one for the mean of those that are; each the running mean of eleven notes of the log.
"""

__all__ = ["draw", "read"]

import json
import sys

from pathlib import Path

import numpy as np

from matplotlib.figure import Figure

SHOWN = ("desi_spectrum", "sdss_spectrum", "legacysurvey_image", "redshift")
ASIDE = ("step", "loss", "lr", "gradient", "seconds")


def read(*paths: Path | str) -> dict[str, np.ndarray]:
    """Reads the notes of logs, one after the other: NaN where a note lacks a figure, the mean of single numbers."""
    rows, first = [], 0
    for path in paths:
        lines = [json.loads(line) for line in Path(path).read_text(encoding="utf-8").splitlines()]
        own = {row["step"]: row | {"step": first + row["step"]} for row in lines}  # of steps taken twice the later
        rows, first = [*rows, *own.values()], first + max(own) + 1
    numbers = {name for row in rows for name in row} - {*SHOWN, *ASIDE}
    out = {name: np.array([row.get(name, np.nan) for row in rows], dtype=float) for name in ("step", *SHOWN)}
    means = [[row[name] for name in numbers & set(row)] for row in rows]
    return out | {f"mean of {len(numbers)} others": np.array([np.mean(row) if row else np.nan for row in means])}


def smoothed(values: np.ndarray, width: int = 11) -> np.ndarray:
    """Returns running means over what there is."""
    padded = np.pad(values, width // 2, constant_values=np.nan)
    windows = np.lib.stride_tricks.sliding_window_view(padded, width)
    return np.nansum(windows, 1) / np.maximum(np.isfinite(windows).sum(1), 1)


def draw(*paths: Path | str, out: Path | str) -> None:
    """Draws the losses of one training, whose parts have a log each, to a PNG."""
    table = read(*paths)
    steps = table.pop("step")
    figure = Figure(figsize=(8, 4.2), layout="constrained")
    axis = figure.subplots()
    for name, values in table.items():
        axis.plot(steps, smoothed(values), label=name.replace("_", " "))
    axis.set_xlabel("step")
    axis.set_ylabel("cross entropy of hidden tokens [nats]")
    axis.set_xlim(0, steps.max())
    axis.grid(alpha=0.3)
    axis.legend(frameon=False, fontsize=9)
    figure.savefig(out, dpi=120)


if __name__ == "__main__":
    draw(*sys.argv[1:-1], out=sys.argv[-1])
