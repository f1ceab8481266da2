r"""Decaying incompressible turbulence in a periodic cube of length 2 pi.

.. math:: u_t = P (u \times \omega) + \nu \nabla^2 u

with the projection P on fields without divergence, pseudo-spectral with `aion.physics.spectral.step`. The flow starts
from random waves with the energy spectrum :math:`E(k) \propto k^4 e^{-2 (k / k_0)^2}` and unit root mean square
velocity.

References:
    | Numerical Experiments in Homogeneous Turbulence (Rogallo, 1981), NASA TM 81315
"""

__all__ = ["Cube", "TURBULENCE", "turbulence"]

from collections.abc import Sequence

import torch

from torch import Tensor

from aion.physics.flow import Flow
from aion.physics.fluid import divided
from aion.physics.spectral import kept, step, wavenumbers

TURBULENCE = {"viscous": 0.2, "inertial": 0.04}  # viscosity
PEAK = 2.5  # wave number k0
AXES = (-3, -2, -1)


class Cube:
    """Advances the velocity of B flows.

    Arguments:
        size: points along each axis.
        viscosity: of each flow, `(B,)`, which sets the type of number and the device of all.
    """

    def __init__(self, size: int, viscosity: Tensor) -> None:
        self.space = (size,) * 3
        k = wavenumbers(self.space, (2 * torch.pi,) * 3, viscosity.dtype, viscosity.device)
        self.k = torch.stack(torch.broadcast_tensors(*k))
        self.square = self.k.square().sum(0)
        self.kept = kept(self.space, viscosity.device)
        self.damping = viscosity.view(-1, 1, 1, 1, 1) * self.square

    def project(self, velocity: Tensor) -> Tensor:
        """Removes the divergence from coefficients `(B, 3, ...)`."""
        along = (self.k * velocity).sum(1, keepdim=True) / self.square.clamp(min=1)
        return velocity - self.k * along

    def transform(self, velocity: Tensor) -> Tensor:
        """Returns the coefficients of a velocity `(B, 3, *space)`, without divergence."""
        return self.project(torch.fft.rfftn(velocity, dim=AXES) * self.kept)

    def velocity(self, state: Tensor) -> Tensor:
        """Returns the velocity on the grid."""
        return torch.fft.irfftn(state, s=self.space, dim=AXES)

    def rate(self, state: Tensor) -> Tensor:
        """Computes all of the rate of change but diffusion."""
        vorticity = 1j * torch.linalg.cross(self.k.to(state.dtype).expand_as(state), state, dim=1)
        u, w = self.velocity(torch.stack([state, vorticity]))
        return self.transform(torch.linalg.cross(u, w, dim=1))

    def advance(self, state: Tensor, dt: float, steps: int) -> Tensor:
        """Returns the coefficients after some steps of length `dt`."""
        half = torch.exp(-self.damping * dt / 2)
        for _ in range(steps):
            state = step(state, self.rate, half, dt)
        return state


def turbulence(generators: Sequence[torch.Generator], viscosity: Tensor, size: int, frames: int) -> Flow:
    """Simulates decaying turbulence on `size` points along each axis.

    Arguments:
        generators: draw the first waves of each flow; what is kept begins 0.5 time units later.
        viscosity: of each flow, `(B,)`.
        size: points along each axis.
        frames: number of frames, 0.1 time units apart.
    """
    cube = Cube(size, viscosity)
    dt, steps = divided(0.1, size / 8)
    noise = torch.stack([_noise(size, generator) for generator in generators]).to(viscosity)
    k = cube.square.sqrt()
    state = cube.transform(noise) * k * torch.exp(-((k / PEAK) ** 2))
    speed = cube.velocity(state).square().sum(1).mean(AXES).div(3).sqrt()
    state = cube.advance(state / speed.view(-1, 1, 1, 1, 1), dt, 5 * steps)
    result = [cube.velocity(state)]
    for _ in range(frames - 1):
        state = cube.advance(state, dt, steps)
        result.append(cube.velocity(state))
    names = ("velocity_x", "velocity_y", "velocity_z")
    return Flow(torch.stack(result, 1), names, ("periodic",) * 3, 0.1, (2 * torch.pi,) * 3, "turbulence")


def _noise(size: int, generator: torch.Generator) -> Tensor:
    """Draws white noise in space with the same long waves on any grid, `(3, *space)`."""
    coarse = torch.randn(3, 16, 16, 16, generator=generator, dtype=torch.float64)
    waves = torch.fft.fftshift(torch.fft.fftn(coarse, dim=AXES), dim=AXES)[:, 1:, 1:, 1:]
    low = size // 2 - 7
    wide = torch.zeros(3, size, size, size, dtype=torch.complex128)
    wide[:, low : low + 15, low : low + 15, low : low + 15] = waves
    return torch.fft.ifftn(torch.fft.ifftshift(wide, dim=AXES), dim=AXES).real
