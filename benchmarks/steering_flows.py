"""The flows that `steering.py` steers, and what it measures of them; all of it fixed before anything was run."""

__all__ = [
    "AT",
    "DAMAGE",
    "DIAGNOSTICS",
    "REGIMES",
    "START",
    "STEPS",
    "STRENGTHS",
    "Run",
    "cases",
    "pairs",
    "roll",
    "start_windows",
]

import math

from pathlib import Path
from typing import NamedTuple

import torch

from torch import Tensor

from aion.physics.flow import Flow
from aion.physics.metrics import spectrum_error
from aion.physics.recipe import HELD_OUT
from aion.physics.systems import simulate_once
from aion.physics.walrus import Walrus

STRENGTHS = (0.05, 0.1, 0.2, 0.3, 0.5)
AT = 0.2
STEPS = 8  # of a roll-out
LAST = 3  # of its frames are what diagnostics are of
START = 6  # first frame of the window of a test flow
REGIMES = {  # with the concept, without it
    "shear": ("vortex", "laminar"),
    "kolmogorov": ("chaotic", "steady"),
    "convection": ("rolls", "conduction"),
    "gray-scott": ("worms", "spots"),
}


class Run(NamedTuple):
    """Holds a roll-out, the true continuation of the partner flow, and when flows were lost."""

    flow: Flow
    partner: Flow
    diverged: Tensor


# ---- flows: what is measured


def derivative(field: Tensor, axis: int, length: float) -> Tensor:
    """Differentiates a periodic field (..., H, W) spectrally along -2 or -1."""
    n = field.shape[axis]
    k = 2 * math.pi * torch.fft.fftfreq(n, length / n, dtype=torch.float64)
    k = k[:, None] if axis == -2 else k
    return torch.fft.ifft(1j * k * torch.fft.fft(field.double(), dim=axis), dim=axis).real


def late(run: Run, name: str) -> Tensor:
    return run.flow.field(name)[:, -LAST:].double()


def vorticity(run: Run) -> Tensor:
    lengths = run.flow.extent
    return derivative(late(run, "velocity_y"), -2, lengths[0]) - derivative(late(run, "velocity_x"), -1, lengths[1])


def mean(values: Tensor) -> Tensor:
    return values.flatten(1).mean(1)


def cross_stream(run: Run) -> Tensor:
    return mean(late(run, "velocity_y").square()) / mean(late(run, "velocity_x").square())


def perturbation_enstrophy(run: Run) -> Tensor:
    omega = vorticity(run)
    return mean((omega - omega.mean(-2, keepdim=True)).square())


def energy(run: Run) -> Tensor:
    return mean(late(run, "velocity_x").square() + late(run, "velocity_y").square()) / 2


def stream_energy(run: Run) -> Tensor:
    return mean(late(run, "velocity_x").mean(-2).square())


def tracer_mean(run: Run) -> Tensor:
    return mean(late(run, "tracer"))


def tracer_variance(run: Run) -> Tensor:
    return late(run, "tracer").flatten(1).var(1)


def roughness(run: Run) -> Tensor:
    """Returns the variance of the gradient of the first field."""
    field = run.flow.values[:, -LAST:, 0]
    return mean(sum(derivative(field, axis, 1.0).square() for axis in (-2, -1)))


def divergence(run: Run, before: Run) -> Tensor:
    lengths = run.flow.extent
    residual = derivative(late(run, "velocity_x"), -2, lengths[0]) + derivative(late(run, "velocity_y"), -1, lengths[1])
    return (mean(residual.square()) / mean(vorticity(before).square())).sqrt()


def spectra(run: Run, before: Run) -> Tensor:
    return spectrum_error(run.flow, before.flow)[:, -LAST:].flatten(1).mean(1)


def partner_spectra(run: Run, before: Run) -> Tensor:
    return spectrum_error(run.flow, run.partner)[:, -LAST:].flatten(1).mean(1)


DIAGNOSTICS = {
    "shear": {
        "cross-stream fraction": cross_stream,
        "perturbation enstrophy": perturbation_enstrophy,
        "kinetic energy": energy,
        "tracer mean": tracer_mean,
        "tracer variance": tracer_variance,
    },
    "kolmogorov": {"perturbation enstrophy": perturbation_enstrophy, "kinetic energy": energy},
    "convection": {"kinetic energy": energy},
    "gray-scott": {"roughness": roughness},
}
DAMAGE = {"divergence": divergence, "spectra": spectra, "spectra from partner": partner_spectra}


# ---- flows: what is run


def pairs(system: str, count: int, seed: int, frames: int, folder: Path, size: int | None = None) -> tuple[Flow, Flow]:
    """Simulates flows with the concept and without it, row by row of the same initial condition.

    Seeds are those of evaluation, on which nothing may be trained.
    """
    options = {"seed": HELD_OUT + seed, "frames": frames, "regimes": list(REGIMES[system])}
    flow = simulate_once(folder, system, 2 * count, **options, **({"size": size} if size else {}))
    return flow[0::2], flow[1::2]


def roll(model: Walrus, given: tuple[Flow, Flow], generator: torch.Generator) -> Run:
    window, partner = given
    result = model.rollout(window, STEPS, generator=generator)
    return Run(result.flow, partner, result.diverged)


def cases(
    model: Walrus, system: str, count: int, seed: int, folder: Path, size: int | None = None
) -> dict[str, tuple[Flow, Flow]]:
    """Returns windows to start from by regime, each with what the partner flow then did."""
    both = pairs(system, count, seed, START + model.context + STEPS, folder, size)
    after = START + model.context
    windows = [flow.window(START, model.context) for flow in both]
    truth = [flow.window(after, STEPS) for flow in both]
    return {name: (windows[i], truth[1 - i]) for i, name in enumerate(REGIMES[system])}


def start_windows(model: Walrus, flow: Flow) -> None:
    """Runs a model on windows along whole flows, where roll-outs pass."""
    for start in range(2, flow.frames - model.context + 1, 4):
        model(flow.window(start, model.context))
