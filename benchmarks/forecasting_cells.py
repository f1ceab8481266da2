"""Results of `forecasting.py`, one JSON file for each system, forecast and seed: what is there is not made again."""

import json
import os

from collections.abc import Callable, Mapping
from pathlib import Path

import torch

from torch import Tensor

from aion.bundle import digest
from aion.forecasting.verification import Verification

VERSION = 2  # of what a cell means: another one is made again
DIGITS = 5


class Cells:
    """Keeps cells in a folder.

    Arguments:
        folder: for the JSON files, a folder for each system.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def find(self, system: str, name: str, seed: int, settings: Mapping[str, object]) -> dict | None:
        """Returns a cell of these settings, or None."""
        path = self._path(system, name, seed)
        if not path.exists():
            return None
        facts = json.loads(path.read_text())
        return facts if facts["settings_sha256"] == fingerprint(settings) else None

    def make(
        self, system: str, name: str, seed: int, settings: Mapping[str, object], compute: Callable[[], dict]
    ) -> dict:
        """Returns the cell of these settings: what is kept, or what is computed now, and then kept."""
        if (facts := self.find(system, name, seed, settings)) is not None:
            return facts
        path = self._path(system, name, seed)
        head = {"settings": dict(settings), "settings_sha256": fingerprint(settings), "torch": torch.__version__}
        facts = {**head, **compute()}
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.{os.getpid()}")
        temporary.write_text(json.dumps(facts) + "\n")
        temporary.replace(path)
        return facts

    def _path(self, system: str, name: str, seed: int) -> Path:
        return self.folder / system / f"{name}-s{seed}.json"


def fingerprint(settings: Mapping[str, object]) -> str:
    """Returns the hash of settings."""
    return digest({"version": VERSION, **settings}, {})[:16]


def packed(scores: Verification, windows: tuple[tuple[int, int], ...]) -> dict:
    """Brings scores to plain numbers: a mean of each start over each window of leads, and all starts by lead."""
    starts = {}
    for name, values in scores.trajectories.items():
        squares = name in ("rmse", "spread")
        parts = [(values[:, a:b] ** 2 if squares else values[:, a:b]).nanmean(1) for a, b in windows]
        starts[name] = _plain(torch.stack([part.sqrt() if squares else part for part in parts], 1))
    return {
        "windows": windows,
        "starts": starts,
        "leads": {name: _plain(scores.mean(name)) for name in scores.trajectories},
        "groups": scores.groups.tolist(),
        "spectrum_ratio": _plain(scores.spectrum_ratio),
        "rank_histogram": _plain(scores.rank_histogram),
    }


def unpacked(cells: list[dict]) -> Verification:
    """Brings cells, one for each seed, to scores by window, averaged over the seeds start by start."""
    each = [{name: _tensor(values) for name, values in cell["starts"].items()} for cell in cells]
    mean = {name: torch.stack([scores[name] for scores in each]).mean(0) for name in each[0]}
    shared = ("spectrum_ratio", "rank_histogram")
    ratio, ranks = (torch.stack([_tensor(cell[key]) for cell in cells]).mean(0) for key in shared)
    return Verification(mean, torch.tensor(cells[0]["groups"]), ratio, ranks)


def _plain(x: Tensor) -> list:
    """Rounds; NaN, which JSON does not have, is None."""
    rows = x.tolist()
    if x.ndim == 1:
        return [None if value != value else round(value, DIGITS) for value in rows]
    return [_plain(row) for row in x]


def _tensor(rows: list) -> Tensor:
    if rows and isinstance(rows[0], list):
        return torch.stack([_tensor(row) for row in rows])
    return torch.tensor([float("nan") if value is None else value for value in rows], dtype=torch.float64)
