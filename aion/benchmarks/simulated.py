"""Makes simulated data: objects of `aion.sky` below number 1 000 000, on which no recipe trains."""

__all__ = ["PHOTOMETRY", "SPECTRUM", "objects", "version"]

import functools
import hashlib

from pathlib import Path

import numpy as np
import torch

from aion import sky
from aion.benchmarks.task import Data
from aion.sky import Sky

PHOTOMETRY = tuple(f"legacysurvey_flux_{band}" for band in ("g", "r", "i", "z", "w1", "w2"))
SPECTRUM = "desi_spectrum"
MAX_REDSHIFT = 0.6
LABELS = ("redshift", "log_mass", "log_age", "metallicity", "teff", "logg", "feh")


def objects(root: Path, count: int, first: int, galaxies: float, inputs: tuple[str, ...]) -> Data:
    """Simulates objects `first` to `first + count` of the sky of seed 0, complete; folds by number modulo 5.

    Arguments:
        root: not used: nothing is read.
        count: of objects.
        first: number of the first.
        galaxies: share of galaxies.
        inputs: modalities.
    """
    scene = Sky(seed=0, galaxies=galaxies, max_redshift=MAX_REDSHIFT, modalities=inputs, complete=True)
    index = torch.arange(first, first + count)
    parts = [scene.observe(part) for part in index.split(64)]
    observations = {name: _joined([part[name] for part in parts]) for name in inputs}
    truth = scene.labels(index)
    labels = {name: truth[name].double().numpy() for name in LABELS}
    labels["kind"] = np.array(["galaxy", "star", "quasar"])[truth["kind"].long().numpy()]
    ids = np.array([f"sky-0-{i}" for i in index.tolist()])
    return Data(ids, observations, labels, index.numpy() % 5)


def _joined(parts: list):
    """Joins batches of one modality."""
    names = [name for name in vars(parts[0]) if isinstance(getattr(parts[0], name), torch.Tensor)]
    rest = {name: value for name, value in vars(parts[0]).items() if name not in names}
    return type(parts[0])(**{name: torch.cat([getattr(part, name) for part in parts]) for name in names}, **rest)


@functools.cache
def version() -> str:
    """Computes a hash of the code and templates of the simulated sky: another sky makes other data."""
    total = hashlib.sha256()
    for path in sorted(Path(sky.__file__).parent.rglob("*")):
        if path.suffix in {".py", ".safetensors"}:
            total.update(path.name.encode() + path.read_bytes())
    return total.hexdigest()
