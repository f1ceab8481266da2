r"""Incompressible flow in a plane: vorticity and a carried scalar on a periodic box.

.. math:: \omega_t + u \cdot \nabla \omega = \nu \nabla^2 \omega - \mu \omega + f + \alpha \, \partial_x c, \qquad
          c_t + u \cdot \nabla c = \kappa \nabla^2 c + \beta v

with :math:`\omega = \partial_x v - \partial_y u`. A tracer has :math:`\alpha = \beta = 0`; in convection the scalar
is the buoyancy (`aion.physics.convection`). Axis 0 of the grid is x, axis 1 is y.

Shear layers: two layers of a hyperbolic tangent profile with random disturbances roll up into vortices, or diffuse
before they can. Kolmogorov flow: forced by :math:`F \sin(4 y)` against friction it settles, or becomes chaotic. In both
only the viscosity differs between regimes.

References:
    | The Well: a Large-Scale Collection of Diverse Physics Simulations for Machine Learning (Ohana et al., 2024),
      arXiv 2412.00568
    | An investigation of the stability of plane parallel flows (Meshalkin and Sinai, 1961), J. Appl. Math. Mech. 25,
      1700
"""

__all__ = ["Fluid", "KOLMOGOROV", "SHEAR", "divided", "kolmogorov", "run", "shear", "waves"]

from collections.abc import Sequence

import torch

from torch import Tensor

from aion.physics.flow import Flow
from aion.physics.spectral import kept, step, wavenumbers

SHEAR = {"vortex": 4e-4, "laminar": 1e-2}  # viscosity, for layers of velocity 1 in a box of length 1
KOLMOGOROV = {"steady": 0.1, "chaotic": 0.005}  # viscosity in a box of length 2 pi
FORCE, WAVE, DRAG = 0.2, 4, 0.1


class Fluid:
    """Advances vorticity and a scalar of B flows.

    Arguments:
        space: points along x and y.
        extent: length of the box along x and y.
        viscosity: of each flow, `(B,)`, which sets the type of number and the device of all.
        diffusivity: of the scalar, `(B,)`.
        drag: friction.
        force: of the vorticity, `(*space)` or `(B, *space)`.
        lift: the factor alpha above.
        gradient: the factor beta above.
    """

    def __init__(
        self,
        space: Sequence[int],
        extent: Sequence[float],
        viscosity: Tensor,
        diffusivity: Tensor,
        drag: float = 0.0,
        force: Tensor | None = None,
        lift: float = 0.0,
        gradient: float = 0.0,
    ) -> None:
        dtype, device = viscosity.dtype, viscosity.device
        self.space = tuple(space)
        self.kx, self.ky = wavenumbers(space, extent, dtype, device)
        square = self.kx**2 + self.ky**2
        self.inverse = torch.where(square > 0, 1 / square.clamp(min=1e-30), 0)
        self.kept = kept(space, device)
        damping = torch.stack([viscosity, diffusivity], 1)[..., None, None] * square
        self.damping = damping + drag * torch.tensor([1.0, 0.0], dtype=dtype, device=device).view(2, 1, 1)
        self.force = None if force is None else torch.fft.rfft2(force) * self.kept
        self.lift, self.gradient = lift, gradient

    def transform(self, fields: Tensor) -> Tensor:
        """Returns the coefficients of vorticity and scalar `(B, 2, *space)`."""
        return torch.fft.rfft2(fields) * self.kept

    def velocity(self, vorticity: Tensor) -> tuple[Tensor, Tensor]:
        """Computes coefficients of the velocity from those of the vorticity."""
        stream = vorticity * self.inverse
        return 1j * self.ky * stream, -1j * self.kx * stream

    def rate(self, state: Tensor) -> Tensor:
        """Computes all of the rate of change but diffusion and drag."""
        u, v = self.velocity(state[:, 0])
        u, v, vorticity, scalar = torch.fft.irfft2(torch.stack([u, v, state[:, 0], state[:, 1]]), s=self.space)
        flux = torch.fft.rfft2(torch.stack([u * vorticity, u * scalar, v * vorticity, v * scalar]))
        change = -1j * (self.kx * flux[:2] + self.ky * flux[2:]) * self.kept
        if self.force is not None:
            change[0] += self.force
        if self.lift or self.gradient:
            change[0] += self.lift * 1j * self.kx * state[:, 1]
            change[1] += self.gradient * self.velocity(state[:, 0])[1]
        return change.transpose(0, 1)

    def advance(self, state: Tensor, dt: float, steps: int) -> Tensor:
        """Returns the coefficients after some steps of length `dt`."""
        half = torch.exp(-self.damping * dt / 2)
        for _ in range(steps):
            state = step(state, self.rate, half, dt)
        return state

    def fields(self, state: Tensor) -> Tensor:
        """Returns scalar and velocity on the grid, `(B, 3, *space)`."""
        return torch.fft.irfft2(torch.stack([state[:, 1], *self.velocity(state[:, 0])], 1), s=self.space)


def run(fluid: Fluid, state: Tensor, dt: float, steps: int, frames: int) -> Tensor:
    """Returns frames of scalar and velocity, `(B, frames, 3, *space)`, the first at the state given."""
    result = [fluid.fields(state)]
    for _ in range(frames - 1):
        state = fluid.advance(state, dt, steps)
        result.append(fluid.fields(state))
    return torch.stack(result, dim=1)


def shear(generators: Sequence[torch.Generator], viscosity: Tensor, size: int, frames: int) -> Flow:
    """Simulates shear layers on `size` x `size` points, with a tracer that follows the fast stream.

    Arguments:
        generators: draw thickness, place and disturbance of the layers of each flow.
        viscosity: of each flow, `(B,)`; the tracer diffuses alike.
        size: points along each axis.
        frames: number of frames, 0.04 time units apart.
    """
    dt, steps = divided(0.04, size / 10)
    y = (torch.arange(size, dtype=torch.float64) + 0.5) / size
    fields = torch.stack([_layers(y, generator) for generator in generators])
    fluid = Fluid((size, size), (1.0, 1.0), viscosity, viscosity)
    values = run(fluid, fluid.transform(fields.to(viscosity)), dt, steps, frames)
    names = ("tracer", "velocity_x", "velocity_y")
    return Flow(values, names, ("periodic", "periodic"), 0.04, (1.0, 1.0), "shear")


def _layers(y: Tensor, generator: torch.Generator) -> Tensor:
    thickness, place, strength = torch.rand(3, generator=generator, dtype=torch.float64)
    thickness, place = 0.03 + 0.03 * thickness, 0.2 * (place - 0.5)
    distance = [(y - centre - place + 0.5) % 1 - 0.5 for centre in (0.25, 0.75)]
    lower, upper = ((d / thickness).tanh() for d in distance)
    near = distance[0].abs() < distance[1].abs()
    stream = torch.where(near, lower, -upper)
    slope = torch.where(near, 1 - lower**2, upper**2 - 1) / thickness
    amplitude, phase = torch.randn(2, 2, 4, generator=generator, dtype=torch.float64)
    x = y[:, None, None]
    modes = amplitude * torch.sin(2 * torch.pi * (torch.arange(1, 5) * x + phase))  # x, layer, mode
    envelope = torch.stack([torch.exp(-((d / 0.1) ** 2)) for d in distance])
    bumps = 1.0 * (0.5 + strength) * torch.einsum("xlm,ly->xy", modes / torch.arange(1, 5), envelope)
    vorticity = bumps - bumps.mean() - slope
    return torch.stack([vorticity, (0.5 + 0.5 * stream).expand(len(y), -1)])


def kolmogorov(generators: Sequence[torch.Generator], viscosity: Tensor, size: int, frames: int) -> Flow:
    """Simulates forced flow on `size` x `size` points of a box of length 2 pi, with a tracer.

    Arguments:
        generators: draw the first vorticity and tracer of each flow; what is kept begins 4 time units later.
        viscosity: of each flow, `(B,)`; the tracer diffuses alike.
        size: points along each axis.
        frames: number of frames, 0.2 time units apart.
    """
    length = 2 * torch.pi
    dt, steps = divided(0.2, size / 6.4)
    y = torch.arange(size, dtype=viscosity.dtype, device=viscosity.device) * length / size
    force = -FORCE * WAVE * torch.cos(WAVE * y).expand(size, size)
    fluid = Fluid((size, size), (length, length), viscosity, viscosity, DRAG, force)
    fields = torch.stack([waves((size, size), generator, 2) for generator in generators])
    fields *= torch.tensor([3.0, 1.0]).view(2, 1, 1)
    state = fluid.advance(fluid.transform(fields.to(viscosity)), dt, 20 * steps)
    names = ("tracer", "velocity_x", "velocity_y")
    values = run(fluid, state, dt, steps, frames)
    return Flow(values, names, ("periodic", "periodic"), 0.2, (length, length), "kolmogorov")


def waves(space: Sequence[int], generator: torch.Generator, count: int, highest: int = 5) -> Tensor:
    """Draws smooth periodic fields of variance 1 and mean 0, `(count, *space)`, the same on any grid."""
    number = torch.randint(1 - highest, highest, (count, 24, len(space)), generator=generator)
    number[..., 0] += (number == 0).all(-1)  # no constant
    phase = 2 * torch.pi * torch.rand(count, 24, generator=generator, dtype=torch.float64)
    axes = [torch.arange(n, dtype=torch.float64) * (2 * torch.pi / n) for n in space]
    place = torch.stack(torch.meshgrid(*axes, indexing="ij"), -1)
    angle = torch.einsum("...a,cwa->cw...", place, number.double()) + phase.view(count, 24, *[1] * len(space))
    field = angle.cos().sum(1)
    return field / field.flatten(1).std(1, correction=0).view(count, *[1] * len(space))


def divided(interval: float, least: float) -> tuple[float, int]:
    """Divides the time between frames into equal steps, at least so many."""
    count = max(1, -int(-least // 1))
    return interval / count, count
