"""Simulated data by name: each system in regimes that differ in one parameter and share their initial conditions.

Trajectory j has the initial condition number `j // R` and the regime `j % R` of R: neighbours differ in nothing but
the regime, which is its label. An initial condition depends on its number and the seed alone, so that the first
hundred of two hundred trajectories are those of a hundred.
"""

__all__ = ["SYSTEMS", "simulate", "simulate_once"]

import dataclasses
import hashlib
import json

from collections.abc import Callable, Mapping
from pathlib import Path

import torch

from tqdm.auto import tqdm

from aion.observations import near_miss
from aion.physics.acoustics import ACOUSTIC, acoustic
from aion.physics.convection import RAYLEIGH, convection
from aion.physics.flow import Flow
from aion.physics.fluid import KOLMOGOROV, SHEAR, kolmogorov, shear
from aion.physics.reaction import GRAY_SCOTT, gray_scott
from aion.physics.turbulence import TURBULENCE, turbulence
from aion.physics.well import read_well, write_well


@dataclasses.dataclass(frozen=True)
class System:
    """Describes a system: its solver, the names of its parameters, their values in each regime, its smallest grid."""

    run: Callable[..., Flow]
    parameters: tuple[str, ...]
    regimes: Mapping[str, float | tuple[float, ...]]
    size: int
    smallest: int


SYSTEMS = {
    "shear": System(shear, ("viscosity",), SHEAR, 64, 16),
    "kolmogorov": System(kolmogorov, ("viscosity",), KOLMOGOROV, 64, 16),
    "convection": System(convection, ("rayleigh",), RAYLEIGH, 64, 16),
    "gray-scott": System(gray_scott, ("feed", "kill"), GRAY_SCOTT, 64, 16),
    "acoustic": System(acoustic, ("contrast",), ACOUSTIC, 64, 16),
    "turbulence": System(turbulence, ("viscosity",), TURBULENCE, 16, 16),
}


def simulate(
    system: str,
    n: int,
    *,
    size: int | None = None,
    frames: int = 36,
    seed: int = 0,
    regimes: tuple[str, ...] = (),
    dtype: torch.dtype = torch.float32,
    device: str = "cpu",
    batch: int = 16,
    progress: bool = False,
) -> Flow:
    """Simulates trajectories of a system.

    Arguments:
        system: one of `SYSTEMS`.
        n: number of trajectories.
        size: points along an axis, even; a default of the system if not given.
        frames: number of frames of each.
        seed: of the initial conditions.
        regimes: which regimes to take in turn; all of the system if none is named.
        dtype: float32, or float64 for values that do not depend on rounding.
        device: where to compute.
        batch: trajectories at once; changes results by rounding alone.
        progress: shows a progress bar on a terminal.

    Raises:
        ValueError: for an unknown system or regime (with the near misses), or numbers that make no simulation.
        FloatingPointError: if the solver blew up.
    """
    if system not in SYSTEMS:
        msg = f"unknown system {system!r}; {near_miss(system, SYSTEMS)}"
        raise ValueError(msg)
    facts = SYSTEMS[system]
    names, size = tuple(regimes) or tuple(facts.regimes), size or facts.size
    if unknown := [name for name in names if name not in facts.regimes]:
        msg = f"{system} has no regime {unknown[0]!r}; {near_miss(unknown[0], facts.regimes)}"
        raise ValueError(msg)
    if n < 1 or frames < 1 or size < facts.smallest or size % 2:
        msg = f"simulate: wanted n and frames of at least 1 and an even size of at least {facts.smallest}, "
        msg += f"given n={n}, frames={frames}, size={size}"
        raise ValueError(msg)
    parts = []
    starts = tqdm(range(0, n, batch), desc=system, disable=None if progress else True)
    for start in starts:
        numbers = range(start, min(start + batch, n))
        labels = [names[j % len(names)] for j in numbers]
        values = torch.tensor([facts.regimes[name] for name in labels], dtype=dtype, device=device)
        draws = [torch.Generator().manual_seed(seed * 1_000_003 + j // len(names)) for j in numbers]
        flow = facts.run(draws, values, size, frames)
        if not torch.isfinite(flow.values).all():
            msg = f"the simulation of {system} blew up at size {size}: take another"
            raise FloatingPointError(msg)
        columns = values.view(len(labels), -1).unbind(1)
        parts.append(flow.replace(regimes=labels, parameters=dict(zip(facts.parameters, columns, strict=True))))
    return Flow.concatenate(parts)


def simulate_once(
    folder: Path | str, system: str, n: int, *, device: str = "cpu", progress: bool = False, **options: object
) -> Flow:
    """Reads the trajectories that an earlier call with these arguments kept, or simulates and keeps them.

    Arguments:
        folder: holds one HDF5 file of The Well for each set of arguments; is made if need be.
        system: see `simulate`.
        n: see there.
        device: where to compute; the flow comes back on the CPU in float32.
        progress: see there.
        options: other keyword arguments of `simulate`, plain JSON values.

    Raises:
        ModuleNotFoundError: without h5py.
        ValueError: as `simulate`, or if the file is damaged.
    """
    given = json.dumps([system, n, options], sort_keys=True)
    name = f"{system}-{n}-{hashlib.sha256(given.encode()).hexdigest()[:8]}.hdf5"
    path = Path(folder) / name
    if not path.exists():
        flow = simulate(system, n, device=device, progress=progress, **options)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_well(flow, path)
    return read_well(path)
