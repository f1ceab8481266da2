"""Prints the tables of `forecasting.py` from its cells, and which of the aims they meet."""

import json

from pathlib import Path

import numpy as np

from forecasting_cells import unpacked

from aion.forecasting.verification import Verification

PLAIN, TWO, BEST = "autoregressive-k3", "hierarchy-2-k3", "multiscale-k3-a2.5"
ORDER = (PLAIN, TWO, BEST, f"{BEST}-past-3", "gaussian", "chosen", "exact", "ar", "arima", "gaussian-process")


class Table:
    """Holds the cells of a system: scores by forecast, pooled over seeds.

    Arguments:
        folder: of the system.
    """

    def __init__(self, folder: Path) -> None:
        found: dict[str, list[dict]] = {}
        for path in sorted(folder.glob("*.json")):
            found.setdefault(path.stem.rpartition("-s")[0], []).append(json.loads(path.read_text()))
        self.name, self.cells = folder.name, {name: _alike(cells) for name, cells in found.items()}
        self.scores = {name: unpacked(cells) for name, cells in self.cells.items()}

    def names(self, long: bool) -> list[str]:
        """Lists forecasts in the order of the table."""
        rank = {name: number for number, name in enumerate(ORDER)}
        chosen = [name for name in self.scores if name.startswith("long-") == long]
        return sorted(chosen, key=lambda name: (rank.get(name, rank.get(name.split("-")[0], 99)), name))

    def crps(self, name: str, window: int) -> tuple[float, float, float, float]:
        """Returns mean, standard deviation over the seeds, and ends of the interval over starts."""
        mean, low, high = self.scores[name].interval("crps", slice(window, window + 1)).tolist()
        each = [unpacked([cell]).trajectories["crps"][:, window].nanmean().item() for cell in self.cells[name]]
        return mean, float(np.std(each, ddof=1)) if len(each) > 1 else float("nan"), low, high

    def gain(self, name: str, other: str, window: int) -> tuple[float, float, float]:
        """Returns by what share the CRPS is below another's, with its interval."""
        return tuple(self.scores[name].gain("crps", self.scores[other], slice(window, window + 1)).tolist())

    def windows(self, name: str) -> list[str]:
        return [f"{a + 1}-{b}" for a, b in self.cells[name][0]["windows"]]


def _alike(cells: list[dict]) -> list[dict]:
    """Leaves out cells of other settings than the first, which an earlier run has left."""

    def facts(cell: dict) -> str:
        settings = json.loads(json.dumps(cell["settings"]))
        settings.pop("seed")
        settings.get("network", {}).pop("seed", None)
        return json.dumps(settings, sort_keys=True)

    return [cell for cell in cells if facts(cell) == facts(cells[0])]


def print_summary(folder: Path) -> None:
    """Prints a table for each system, ten periods, the ablations, and the aims.

    A score is the mean of all seeds ± its standard deviation over them, and the 95 % interval over starts. The bias is
    the mean square of the conditional one of spatial means where the exact forecast is known, else the mean difference.
    """
    tables = [Table(path) for path in sorted(folder.iterdir()) if path.is_dir()] if folder.is_dir() else []
    for table in tables:
        for long in (False, True):
            if names := table.names(long):
                print(f"\n## {table.name}{', ten periods' if long else ''}: {_facts(table, names)}\n")
                _print(table, names)
    print("\n## Aims\n")
    for table in tables:
        for text, met in _aims(table):
            print(f"- {table.name}: {text}: {'met' if met else '**missed**'}")
    for path in sorted(folder.glob("*.json")):
        print(f"\n## {path.stem}\n\n{path.read_text().strip()}")


def _facts(table: Table, names: list[str]) -> str:
    cell = table.cells[names[0]]
    return f"{cell[0]['settings']['starts']} starts, {cell[0]['settings']['members']} members, {len(cell)} seeds"


def _print(table: Table, names: list[str]) -> None:
    windows = table.windows(names[0])
    print("| CRPS at leads | " + " | ".join(windows) + " | spread/skill | spectrum | blow-up | bias | seeds |")
    print("|---|" + "---|" * (len(windows) + 5))
    for name in names:
        scores = table.scores[name]
        cells = [_score(*table.crps(name, w)) for w in range(len(windows))]
        ratio = " ".join(f"{x:.2f}" for x in scores.spectrum_ratio.tolist())
        far, bias = scores.trajectories["blow_up"].nanmean(), scores.trajectories["bias"].nanmean()
        print(
            f"| {name} | " + " | ".join(cells) + f" | {scores.spread_skill.nanmean():.2f} | {ratio} | {far:.3f} | "
            f"{bias:.4f} | {len(table.cells[name])} |"
        )
    best = f"long-{BEST}" if names[0].startswith("long-") else BEST
    if best in names:
        print(f"\nCRPS of {best} below that of others, in %:\n")
        for name in names:
            if name != best:
                gains = [[100 * x for x in table.gain(best, name, w)] for w in range(len(windows))]
                print(f"- {name}: " + ", ".join("{:.1f} [{:.1f}, {:.1f}]".format(*g) for g in gains))


def _score(mean: float, scatter: float, low: float, high: float) -> str:
    return f"{mean:.4g}" + (f" ± {scatter:.2g}" if scatter == scatter else "") + f" [{low:.4g}, {high:.4g}]"


def _aims(table: Table) -> list[tuple[str, bool]]:
    """Lists what was aimed at, with what was measured, and whether it is met."""
    has, found = table.scores, []
    if table.name in ("sinusoid", "sunspots"):
        for other, least in ((PLAIN, 0.15), (TWO, 0.05)):
            if other in has and BEST in has:
                gain, low, high = table.gain(BEST, other, 2)
                text = f"CRPS at 10-18 below {other} by {gain:.1%} [{low:.1%}, {high:.1%}], aim {least:.0%}"
                found.append((text, gain >= least and low > 0))
    if "exact" in has and BEST in has:
        for window, most in ((0, 0.02), (1, 0.10), (2, 0.10)):
            excess, low, high = (-x for x in table.gain(BEST, "exact", window))
            text = f"CRPS at {table.windows(BEST)[window]} above the Kalman forecast's by {excess:.2%}"
            found.append((f"{text} [{high:.2%}, {low:.2%}], aim {most:.0%}", excess <= most))
        if PLAIN in has:
            ratio = _bias(has[BEST]) / _bias(has[PLAIN])
            found.append(
                (f"mean square of the conditional bias {ratio:.2f} of the autoregressive's, aim .5", ratio <= 0.5)
            )
    if table.name == "lorenz96" and {BEST, PLAIN} <= set(has):
        for window in range(3):
            gain, low, high = table.gain(BEST, PLAIN, window)
            text = f"CRPS at {table.windows(BEST)[window]} {gain:.1%} [{low:.1%}, {high:.1%}] below autoregressive"
            found.append((f"{text}, aim a tie", abs(gain) < 0.01 or low < 0 < high))
    if table.name == "sunspots" and BEST in has:
        mine = [name for name in (BEST, *(n for n in has if n.startswith("chosen-multiscale"))) if name in has]
        for name in mine:
            for other in ("persistence", "climatology", "ar", "arima", "gaussian-process"):
                if other in has:
                    gains = [table.gain(name, other, window) for window in (1, 2)]
                    text = ", ".join("{:.1%} [{:.1%}, {:.1%}]".format(*gain) for gain in gains)
                    found.append((f"{name} below {other} at 4-9, 10-18 by {text}", all(g[0] > 0 for g in gains)))
    if f"long-{BEST}" in has:
        scores = has[f"long-{BEST}"]
        ratio, far = scores.spectrum_ratio.tolist(), scores.trajectories["blow_up"].nanmean().item()
        text = f"to ten periods, blow-up {far:.3f}, spectrum ratio {' '.join(f'{x:.2f}' for x in ratio)}"
        found.append((text, far == 0 and all(0.8 <= x <= 1.25 for x in ratio)))
    return found


def _bias(scores: Verification) -> float:
    return scores.trajectories["bias"].mean().item()
