r"""The Gray-Scott reaction of two diffusing substances, on a periodic square of length 1.

.. math:: A_t = D_A \nabla^2 A - A B^2 + f (1 - A), \qquad B_t = D_B \nabla^2 B + A B^2 - (f + k) B

Steps are explicit (order one in time) and the Laplacian has five points (order two in space), which is what the
patterns are usually made with. Regimes are pairs of feed f and kill k, under the names that The Well gives their
patterns.

References:
    | Complex Patterns in a Simple System (Pearson, 1993), arXiv patt-sol/9304003
    | The Well: a Large-Scale Collection of Diverse Physics Simulations for Machine Learning (Ohana et al., 2024),
      arXiv 2412.00568
"""

__all__ = ["GRAY_SCOTT", "advance", "gray_scott"]

from collections.abc import Sequence

import torch

from torch import Tensor

from aion.physics.flow import Flow

GRAY_SCOTT = {
    "gliders": (0.014, 0.054),
    "bubbles": (0.098, 0.057),
    "maze": (0.029, 0.057),
    "worms": (0.058, 0.065),
    "spirals": (0.018, 0.051),
    "spots": (0.03, 0.062),
}
DIFFUSION = (2e-5, 1e-5)
LENGTH = 1.0  # with 64 points the spacing of The Well's 128 points on a length of 2
BEFORE, BETWEEN = 200, 20  # time units before the first frame, and from one to the next


def advance(values: Tensor, rates: Tensor, dt: float, steps: int, spacing: float) -> Tensor:
    """Returns both substances `(B, 2, H, W)` after some steps; `rates` `(B, 2)` are feed and kill."""
    feed, kill = rates[:, 0, None, None], rates[:, 1, None, None]
    a, b = values.unbind(1)
    near, far = (dt * d / spacing**2 for d in DIFFUSION)
    for _ in range(steps):
        reacted = dt * a * b * b
        a, b = (
            a + near * _laplacian(a) - reacted + dt * feed * (1 - a),
            b + far * _laplacian(b) + reacted - dt * (feed + kill) * b,
        )
    return torch.stack([a, b], dim=1)


def _laplacian(x: Tensor) -> Tensor:
    return x.roll(1, -1) + x.roll(-1, -1) + x.roll(1, -2) + x.roll(-1, -2) - 4 * x


def gray_scott(generators: Sequence[torch.Generator], rates: Tensor, size: int, frames: int) -> Flow:
    """Simulates the reaction on `size` x `size` points.

    Arguments:
        generators: draw the blobs that each flow starts from.
        rates: feed and kill of each flow, `(B, 2)`.
        size: points along each axis.
        frames: number of frames, 20 time units apart, the first after 200.
    """
    spacing = LENGTH / size
    finer = max(1, -int(-(size / 96) // 1))  # the explicit step is stable up to 0.25 spacing^2 / D
    values = torch.stack([_blobs(size, generator) for generator in generators]).to(rates)
    values = advance(values, rates, 1 / finer**2, BEFORE * finer**2, spacing)
    result = [values]
    for _ in range(frames - 1):
        values = advance(values, rates, 1 / finer**2, BETWEEN * finer**2, spacing)
        result.append(values)
    return Flow(
        torch.stack(result, 1), ("A", "B"), ("periodic",) * 2, float(BETWEEN), (LENGTH, LENGTH), "gray-scott"
    )  # fmt: skip


def _blobs(size: int, generator: torch.Generator) -> Tensor:
    centre = torch.rand(12, 2, 1, 1, generator=generator, dtype=torch.float64)
    width = 0.03 + 0.05 * torch.rand(12, 1, 1, generator=generator, dtype=torch.float64)
    axis = (torch.arange(size, dtype=torch.float64) + 0.5) / size
    place = torch.stack(torch.meshgrid(axis, axis, indexing="ij"))
    distance = ((place - centre + 0.5) % 1 - 0.5).square().sum(1)
    blob = torch.exp(-distance / (2 * width**2)).amax(0)
    return torch.stack([1 - 0.6 * blob, 0.4 * blob])
