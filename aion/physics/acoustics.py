r"""Sound in a box with rigid walls, whose speed may differ from place to place.

.. math:: p_t = -c^2 (u_x + v_y), \qquad u_t = -p_x, \qquad v_t = -p_y

in units of unit density. Pressures stand at the middles of cells, velocities at their edges (zero at the walls), and
the two take turns in time (leap-frog): order two in both, without damping.

References:
    | Numerical Solution of Initial Boundary Value Problems Involving Maxwell's Equations in Isotropic Media (Yee,
      1966), IEEE Trans. Antennas Propag. 14, 302
"""

__all__ = ["ACOUSTIC", "acoustic", "advance", "energy"]

from collections.abc import Sequence

import torch

from torch import Tensor

from aion.physics.flow import Flow
from aion.physics.fluid import divided

ACOUSTIC = {"uniform": 0.0, "inclusions": 1.0}  # how much the speed of sound differs from 1
State = tuple[Tensor, Tensor, Tensor]  # pressure (B, H, W), velocities (B, H + 1, W) and (B, H, W + 1)


def advance(state: State, speed: Tensor, dt: float, steps: int, spacing: float) -> State:
    """Returns pressure and velocities after some steps; all are known at the same time before and after."""
    p, u, v = state
    ratio = dt / spacing
    for _ in range(steps):
        u, v = _kick(p, u, v, ratio / 2)
        p = p - speed**2 * ratio * (u.diff(dim=1) + v.diff(dim=2))
        u, v = _kick(p, u, v, ratio / 2)
    return p, u, v


def _kick(p: Tensor, u: Tensor, v: Tensor, ratio: float) -> tuple[Tensor, Tensor]:
    walls = torch.nn.functional.pad
    return u - ratio * walls(p.diff(dim=1), (0, 0, 1, 1)), v - ratio * walls(p.diff(dim=2), (1, 1))


def energy(state: State, speed: Tensor) -> Tensor:
    """Computes the mean energy of each flow, `(B,)`."""
    p, u, v = state
    return 0.5 * ((p / speed).square().mean((1, 2)) + (u.square().sum((1, 2)) + v.square().sum((1, 2))) / p[0].numel())


def acoustic(generators: Sequence[torch.Generator], contrast: Tensor, size: int, frames: int) -> Flow:
    """Simulates pulses of sound on `size` x `size` cells of a box of length 1.

    Arguments:
        generators: draw the pulses and the discs in which sound is faster or slower.
        contrast: of each flow, `(B,)`: 0 makes the speed of sound 1 everywhere, 1 between 0.5 and 1.5.
        size: cells along each axis.
        frames: number of frames, 0.03 time units apart.
    """
    dt, steps = divided(0.03, 0.06 * size * 1.5)  # half of what is stable at the largest speed
    p, excess = torch.stack([_pulses(size, generator) for generator in generators], 1).to(contrast)
    speed = 1 + contrast[:, None, None] * excess
    state = (p, p.new_zeros(len(p), size + 1, size), p.new_zeros(len(p), size, size + 1))
    result = []
    for frame in range(frames):
        state = advance(state, speed, dt, steps, 1 / size) if frame else state
        p, u, v = state
        middle = ((u[:, 1:] + u[:, :-1]) / 2, (v[:, :, 1:] + v[:, :, :-1]) / 2)
        result.append(torch.stack([p, speed, *middle], dim=1))
    names = ("pressure", "speed_of_sound", "velocity_x", "velocity_y")
    return Flow(torch.stack(result, 1), names, ("wall", "wall"), 0.03, (1.0, 1.0), "acoustic")


def _pulses(size: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Draws a pressure and the excess of the speed over 1, `(2, H, W)`."""
    axis = (torch.arange(size, dtype=torch.float64) + 0.5) / size
    place = torch.stack(torch.meshgrid(axis, axis, indexing="ij"))
    draw = torch.rand(2, 4, 4, 1, 1, generator=generator, dtype=torch.float64)
    square = (place - draw[:, :, :2]).square().sum(2)
    width = 0.05 + 0.05 * draw[:, :, 2]
    pressure = ((2 * draw[0, :, 3] - 1) * torch.exp(-square[0] / (2 * width[0] ** 2))).sum(0)
    discs = (draw[1, :, 3] - 0.5) * torch.sigmoid((2 * width[1] - square[1].sqrt()) * 60)
    return torch.stack([pressure, discs.sum(0).clamp(-0.5, 0.5)])
