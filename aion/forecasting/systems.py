"""Simulated systems of which a part is hidden, to try forecasts on. `aion.forecasting.transport` has a field."""

__all__ = ["fitzhugh_nagumo", "lorenz96", "noisy_sinusoid"]

import math

import torch

from torch import Tensor


def noisy_sinusoid(
    number: int,
    frames: int,
    generator: torch.Generator,
    *,
    periods: tuple[float, float] = (30.0, 50.0),
    noise: float = 0.6,
) -> tuple[Tensor, Tensor]:
    """Simulates sinusoids of amplitude 1, each with a period and phase of its own, seen through white noise.

    Arguments:
        number: trajectories B.
        frames: length T.
        generator: of all draws.
        periods: least and largest period in frames.
        noise: standard deviation.

    Returns:
        what is seen, and the sinusoid, each `(B, T, 1)`.

    References:
        | Predicting partially observable dynamical systems via diffusion models with a multiscale inference scheme
          (Morel et al., 2025), arXiv 2511.19390
    """
    period = periods[0] + (periods[1] - periods[0]) * torch.rand(number, 1, generator=generator)
    phase = 2 * math.pi * torch.rand(number, 1, generator=generator)
    clean = torch.sin(2 * math.pi * torch.arange(frames) / period + phase)[..., None]
    return clean + noise * torch.randn(clean.shape, generator=generator), clean


def fitzhugh_nagumo(
    number: int,
    frames: int,
    generator: torch.Generator,
    *,
    scatter: float = 0.15,
    recovery: float = 0.05,
    interval: float = 2.0,
    noise: float = 0.05,
) -> tuple[Tensor, Tensor]:
    r"""Simulates an excitable cell.

    Its membrane follows :math:`du = (u - u^3/3 - w + I) dt + s\,dW`, its recovery
    :math:`dw = \epsilon (u + a - b w) dt`. It fires when noise pushes it over a threshold,
    and not again before the hidden w has recovered.

    Arguments:
        number: trajectories B.
        frames: length T, after a run-in.
        generator: of all draws.
        scatter: s.
        recovery: epsilon; w forgets in a time of 1 / (b epsilon).
        interval: time between frames.
        noise: of what is seen.

    Returns:
        what is seen of u, and the hidden w, each `(B, T, 1)`.

    References:
        | Impulses and Physiological States in Theoretical Models of Nerve Membrane (FitzHugh, 1961)
    """
    steps, start = 20, 50
    dt = interval / steps
    u, w = torch.randn(2, number, generator=generator)
    seen, hidden = [], []
    for _ in range(start + frames):
        for _ in range(steps):
            kick = scatter * math.sqrt(dt) * torch.randn(number, generator=generator)
            u, w = u + dt * (u - u**3 / 3 - w + 0.3) + kick, w + dt * recovery * (u + 0.7 - 0.8 * w)
        seen.append(u)
        hidden.append(w)
    clean = torch.stack(seen[start:], 1)[..., None]
    return clean + noise * torch.randn(clean.shape, generator=generator), torch.stack(hidden[start:], 1)[..., None]


def lorenz96(
    number: int,
    frames: int,
    generator: torch.Generator,
    *,
    sites: int = 12,
    seen: int = 4,
    memory: float = 67.0,
    interval: float = 0.1,
) -> tuple[Tensor, Tensor]:
    r"""Simulates waves on a circle under a slow forcing F of which nothing is seen.

    They follow :math:`\dot x_i = (x_{i+1} - x_{i-2}) x_{i-1} - x_i + F`. Chaos forgets within some frames, so
    that a long past helps little: a control.

    Arguments:
        number: trajectories B.
        frames: length T, after a run-in.
        generator: of all draws.
        sites: on the circle.
        seen: how many of them are observed, evenly spaced.
        memory: frames in which the forcing, of mean 8 and standard deviation 2, forgets.
        interval: time between frames.

    Returns:
        what is seen `(B, T, seen)`, and the forcing `(B, T, 1)`.

    References:
        | Predictability: a problem partly solved (Lorenz, 1996)
    """
    steps, start = 4, 50
    dt, kept = interval / steps, math.exp(-1 / memory)
    x = 8 + torch.randn(number, sites, generator=generator)
    anomaly = torch.randn(number, 1, generator=generator)
    states, forcings = [], []

    def rate(x: Tensor, force: Tensor) -> Tensor:
        return (x.roll(-1, 1) - x.roll(2, 1)) * x.roll(1, 1) - x + force

    for _ in range(start + frames):
        anomaly = kept * anomaly + math.sqrt(1 - kept**2) * torch.randn(number, 1, generator=generator)
        force = 8 + 2 * anomaly
        for _ in range(steps):
            a = rate(x, force)
            b = rate(x + dt / 2 * a, force)
            c = rate(x + dt / 2 * b, force)
            x = x + dt / 6 * (a + 2 * b + 2 * c + rate(x + dt * c, force))
        states.append(x)
        forcings.append(force)
    return torch.stack(states[start:], 1)[..., :: sites // seen][..., :seen], torch.stack(forcings[start:], 1)
