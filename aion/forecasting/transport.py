r"""Magnetic flux carried along a surface, fed by a source that nobody sees; and its exact forecast.

A caricature of the Sun's surface above an unseen interior,

.. math::
    \partial_t b + U(y)\,\partial_x b = \eta\nabla^2 b - b / T + S, \qquad \partial_t S = -S / \tau + \text{noise},

on a periodic line or square, with noise of S that is correlated in space, and b seen through white noise. Everything is
linear and Gaussian, so the Kalman filter gives the exact forecast: what no method can beat.

References:
    | A New Approach to Linear Filtering and Prediction Problems (Kalman, 1960)
"""

__all__ = ["FluxTransport"]

import math

from collections.abc import Sequence

import torch

from torch import Tensor


class FluxTransport:
    """Simulates and forecasts the field.

    Arguments:
        space: `(L,)` or `(H, W)`; along the last axis the flow runs, in the other its speed varies.
        speed: of the flow, in pixels a frame; in two dimensions it is slowest at the edge, by half of that.
        diffusion: eta, in square pixels a frame.
        loss: T, in frames.
        memory: tau, in frames.
        extent: of the correlation of the source, in pixels.
        noise: of what is seen, as a share of the standard deviation of b.

    Raises:
        ValueError: unless `space` has one or two axes and times and sizes are positive.
    """

    def __init__(
        self,
        space: Sequence[int] = (32,),
        *,
        speed: float = 0.4,
        diffusion: float = 0.15,
        loss: float = 20.0,
        memory: float = 40.0,
        extent: float = 3.0,
        noise: float = 0.3,
    ) -> None:
        self.space = tuple(space)
        if len(self.space) not in (1, 2) or min(loss, memory, extent, *self.space) <= 0 or min(diffusion, noise) < 0:
            msg = f"FluxTransport: wanted (L,) or (H, W), positive times and sizes, given {self.space}"
            raise ValueError(msg)
        pixels = math.prod(self.space)
        rate = torch.zeros(2 * pixels, 2 * pixels, dtype=torch.float64)
        rate[:pixels, :pixels] = self._surface(speed, diffusion) - torch.eye(pixels, dtype=torch.float64) / loss
        rate[:pixels, pixels:] = torch.eye(pixels, dtype=torch.float64)
        rate[pixels:, pixels:] = -torch.eye(pixels, dtype=torch.float64) / memory
        self.move = torch.linalg.matrix_exp(rate)
        self.kicks = torch.zeros_like(rate)
        self.kicks[pixels:, pixels:] = (1 - math.exp(-2 / memory)) * self._correlation(extent)
        self.climate = _stationary(self.move, self.kicks)
        size = self.climate.diagonal()[:pixels].mean()  # of b: everything is scaled so that it varies by 1
        self.kicks, self.climate = self.kicks / size, self.climate / size
        self.noise = noise

    def simulate(self, number: int, frames: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Draws what is seen `(B, T, 1, *space)`, and the hidden source of that shape, float32."""
        pixels = len(self.move) // 2
        start, kick = _root(self.climate), _root(self.kicks)
        state = torch.randn(number, 2 * pixels, dtype=torch.float64, generator=generator) @ start.T
        states = []
        for _ in range(frames):
            draws = torch.randn(number, 2 * pixels, dtype=torch.float64, generator=generator)
            state = state @ self.move.T + draws @ kick.T
            states.append(state)
        whole = torch.stack(states, 1)
        seen = whole[..., :pixels]
        seen = seen + self.noise * torch.randn(seen.shape, dtype=torch.float64, generator=generator)
        shape = (number, frames, 1, *self.space)
        return seen.reshape(shape).float(), whole[..., pixels:].reshape(shape).float()

    def kalman(self, past: Tensor, horizon: int) -> tuple[Tensor, Tensor]:
        """Computes mean `(B, horizon, 1, *space)` and variance `(horizon, 1, *space)` of what will be seen.

        Arguments:
            past: what was seen, `(B, P, 1, *space)`, finite.
            horizon: frames.

        Raises:
            ValueError: if the past is not finite or of another shape.
        """
        pixels = len(self.move) // 2
        if past.shape[2:] != (1, *self.space) or not past.isfinite().all():
            msg = (
                f"kalman: wanted a finite past (B, P, 1, {', '.join(map(str, self.space))}), given {tuple(past.shape)}"
            )
            raise ValueError(msg)
        mean = torch.zeros(len(past), 2 * pixels, dtype=torch.float64)
        spread, eye = self.climate, self.noise**2 * torch.eye(pixels, dtype=torch.float64)
        for seen in past.double().flatten(2).unbind(1):
            gain = torch.linalg.solve(spread[:pixels, :pixels] + eye, spread[:pixels]).T
            mean = mean + (seen - mean[:, :pixels]) @ gain.T
            spread = spread - gain @ spread[:pixels]
            mean, spread = mean @ self.move.T, self.move @ spread @ self.move.T + self.kicks
        means, variances = [], []
        for _ in range(horizon):
            means.append(mean[:, :pixels])
            variances.append(spread.diagonal()[:pixels] + self.noise**2)
            mean, spread = mean @ self.move.T, self.move @ spread @ self.move.T + self.kicks
        shape = (horizon, 1, *self.space)
        return torch.stack(means, 1).reshape(-1, *shape).float(), torch.stack(variances).reshape(shape).float()

    def _surface(self, speed: float, diffusion: float) -> Tensor:
        """Builds flow and diffusion as a matrix over pixels, by Fourier."""
        waves = [2 * math.pi * torch.fft.fftfreq(size, dtype=torch.float64) for size in self.space]
        grid = torch.meshgrid(*waves, indexing="ij")
        axes = tuple(range(1, 1 + len(self.space)))
        unit = torch.fft.fftn(torch.eye(math.prod(self.space), dtype=torch.float64).unflatten(1, self.space), dim=axes)
        smooth = torch.fft.ifftn(-diffusion * sum(wave**2 for wave in grid) * unit, dim=axes).real
        along = torch.where(grid[-1].abs() < math.pi - 1e-9, grid[-1], 0)  # the shortest wave has no direction
        slope = torch.fft.ifftn(1j * along * unit, dim=axes).real
        if len(self.space) == 2:
            rows = torch.arange(self.space[0], dtype=torch.float64) / self.space[0]
            slope = slope * (0.75 - 0.25 * torch.cos(2 * math.pi * rows))[None, :, None]
        return (smooth - speed * slope).flatten(1).T

    def _correlation(self, extent: float) -> Tensor:
        places = torch.cartesian_prod(*[torch.arange(size, dtype=torch.float64) for size in self.space])
        places = places.view(-1, len(self.space))
        apart = (places[:, None] - places).abs()
        apart = torch.minimum(apart, torch.tensor(self.space, dtype=torch.float64) - apart)
        return torch.exp(-(apart**2).sum(-1) / (2 * extent**2))


def _stationary(move: Tensor, kicks: Tensor) -> Tensor:
    """Sums move^n kicks move^n^T over all n, by doubling."""
    total, power = kicks, move
    while power.abs().max() > 1e-12:
        total, power = total + power @ total @ power.T, power @ power
    return (total + total.T) / 2


def _root(covariance: Tensor) -> Tensor:
    values, vectors = torch.linalg.eigh(covariance)
    return vectors * values.clamp(min=0).sqrt()
