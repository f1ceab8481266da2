r"""Fixed sine-cosine embedding of a physical position.

A position :math:`(p_0, p_1)` becomes :math:`[\sin p_0\omega, \cos p_0\omega, \sin p_1\omega, \cos p_1\omega]`
with :math:`\omega_k = 10000^{-4k/D}`, each block :math:`D/4` wide; a single coordinate has blocks :math:`D/2` wide and
:math:`\omega_k = 10000^{-2k/D}`. Integer positions give the usual table of a fixed grid, so that fixed grids are a
special case of native ones.

`angles` are those by which attention turns its heads, the same for all.

`turn` turns pairs of channels by angles that grow with the position instead: the mean of turned vectors holds Fourier
components of what the channels were along the positions, where the mean of plain ones forgets it.

References:
    | Attention Is All You Need (Vaswani et al., 2017), arXiv 1706.03762
    | RoFormer: Enhanced Transformer with Rotary Position Embedding (Su et al., 2021), arXiv 2104.09864
"""

__all__ = ["angles", "sine_cosine", "turn"]

import math

import torch

from torch import Tensor

PERIODS = (1.5, 400.0)  # rungs, or arcsec; a spectrum has some 200 rungs


def sine_cosine(position: Tensor, dim: int) -> Tensor:
    """Embeds positions `(..., P)` as `(..., dim)` in float32; `dim` must be a multiple of 2P, 4 for two coordinates."""
    width, rest = divmod(dim, 2 * position.shape[-1])
    if rest:
        msg = f"sine_cosine: dim must be a multiple of {2 * position.shape[-1]}, given {dim}"
        raise ValueError(msg)
    power = torch.arange(width, device=position.device, dtype=torch.float64) / width
    omega = (10000.0**-power).to(torch.float32)
    angle = position.to(torch.float32)[..., None] * omega
    return torch.cat([angle.sin(), angle.cos()], dim=-1).flatten(-2)


def angles(position: Tensor, pairs: int) -> Tensor:
    """Returns the angles of positions `(..., 2)` for pairs of channels, `(..., pairs)` in float32.

    Three quarters of the pairs turn with the second coordinate, the rung of a spectrum, the others with the first, with
    periods in equal ratios from `PERIODS[0]` to `PERIODS[1]`.
    """
    low, high = (math.log10(period) for period in PERIODS)
    parts = []
    for coordinate, count in ((0, pairs // 4), (1, pairs - pairs // 4)):
        omega = 2 * math.pi / torch.logspace(low, high, count, device=position.device)
        parts.append(position[..., coordinate, None].to(torch.float32) * omega)
    return torch.cat(parts, dim=-1)


def turn(x: Tensor, position: Tensor, shortest: float = 4.0, longest: float = 400.0) -> Tensor:
    """Turns the first half of the channels of `(..., R, D)` in pairs, each pair with a period of its own.

    Arguments:
        x: vectors; their norm stays.
        position: of each, `(..., R)`; the negative of it turns back.
        shortest: shortest period in units of the position.
        longest: longest period.
    """
    pairs = x.shape[-1] // 4
    low, high = math.log10(2 * math.pi / longest), math.log10(2 * math.pi / shortest)
    angle = position[..., None] * torch.logspace(low, high, pairs, device=x.device)
    cos, sin = angle.cos(), angle.sin()
    one, other, rest = x[..., :pairs], x[..., pairs : 2 * pairs], x[..., 2 * pairs :]
    return torch.cat([one * cos - other * sin, one * sin + other * cos, rest], dim=-1)
