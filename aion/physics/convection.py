r"""Rayleigh-Benard convection between two free-slip plates of fixed temperature.

Lengths are in units of the height, velocities in those of free fall: the buoyancy is :math:`b = 1 - y + \theta`, with
:math:`\nu = \sqrt{Pr / Ra}`, :math:`\kappa = 1 / \sqrt{Ra\,Pr}` and :math:`Pr = 1`. Free-slip plates at fixed
temperature are
mirrors: vorticity and :math:`\theta` continue beyond them with the opposite sign, so that the flow of
`aion.physics.fluid` in a periodic box of twice the height is the same. Rounding breaks the mirror, and modes that rise through the whole box then grow without bound; the odd
part is taken every ten steps.

Below the critical :math:`Ra = 27 \pi^4 / 4 \approx 657.5` all disturbances die out.

References:
    | On convection currents in a horizontal layer of fluid, when the higher temperature is on the under side (Rayleigh,
      1916), Phil. Mag. 32, 529
"""

__all__ = ["RAYLEIGH", "convection", "convection_fluid", "nusselt", "odd"]

from collections.abc import Sequence

import torch

from torch import Tensor

from aion.physics.flow import Flow
from aion.physics.fluid import Fluid, divided, waves

RAYLEIGH = {"conduction": 500.0, "rolls": 2e4, "plumes": 2e5}
WIDTH = 2.0  # of the box in units of its height
PARITY = 10  # steps between two restorations of the mirror


def convection_fluid(space: Sequence[int], rayleigh: Tensor) -> Fluid:
    """Makes the flow in the doubled box; `space` is that between the plates, `rayleigh` `(B,)`."""
    viscosity = rayleigh**-0.5
    return Fluid((space[0], 2 * space[1]), (WIDTH, 2.0), viscosity, viscosity, lift=1.0, gradient=1.0)


def odd(fluid: Fluid, state: Tensor) -> Tensor:
    """Returns the coefficients of what changes its sign at the plates, which lie half a point beyond the grid."""
    fields = torch.fft.irfft2(state, s=fluid.space)
    return fluid.transform((fields - fields.flip(-1)) / 2)


def nusselt(flow: Flow, rayleigh: Tensor) -> Tensor:
    """Computes the heat carried upward over that of conduction alone, `(B, T)`, averaged over the box."""
    height = (torch.arange(flow.space[1], device=flow.values.device) + 0.5) / flow.space[1]
    theta = flow.field("buoyancy") - (1 - height)
    return 1 + rayleigh[:, None] ** 0.5 * (theta * flow.field("velocity_y")).mean((2, 3))


def convection(generators: Sequence[torch.Generator], rayleigh: Tensor, size: int, frames: int) -> Flow:
    """Simulates convection on `size` points along the plates and half as many between them.

    Arguments:
        generators: draw the first temperatures; what is kept begins 6 free-fall times later.
        rayleigh: Rayleigh number of each flow, `(B,)`.
        size: points along the plates, even.
        frames: number of frames, 0.25 free-fall times apart.
    """
    space = (size, size // 2)
    fluid = convection_fluid(space, rayleigh)
    dt, steps = divided(0.25, size / 6)
    theta = torch.stack([waves(fluid.space, generator, 1) for generator in generators])[:, 0].to(rayleigh)
    state = torch.stack([torch.zeros_like(theta), 0.1 * theta], dim=1)
    state = _advance(fluid, odd(fluid, fluid.transform(state)), dt, 24 * steps)
    height = (torch.arange(space[1], dtype=rayleigh.dtype, device=rayleigh.device) + 0.5) / space[1]
    result = []
    for frame in range(frames):
        state = _advance(fluid, state, dt, steps) if frame else state
        values = fluid.fields(state)[..., : space[1]]
        result.append(torch.cat([values[:, :1] + (1 - height), values[:, 1:]], dim=1))
    names = ("buoyancy", "velocity_x", "velocity_y")
    return Flow(torch.stack(result, 1), names, ("periodic", "wall"), 0.25, (WIDTH, 1.0), "convection")


def _advance(fluid: Fluid, state: Tensor, dt: float, steps: int) -> Tensor:
    for start in range(0, steps, PARITY):
        state = odd(fluid, fluid.advance(state, dt, min(PARITY, steps - start)))
    return state
