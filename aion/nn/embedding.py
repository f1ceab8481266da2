r"""Fixed sine-cosine embedding of a physical position.

A position :math:`(p_0, p_1)` becomes :math:`[\sin p_0\omega, \cos p_0\omega, \sin p_1\omega, \cos p_1\omega]`
with :math:`\omega_k = 10000^{-4k/D}`, each block :math:`D/4` wide. Integer positions give the usual table of a fixed
grid, so that fixed grids are a special case of native ones.

References:
    | Attention Is All You Need (Vaswani et al., 2017), arXiv 1706.03762
"""

__all__ = ["sine_cosine"]

import torch

from torch import Tensor


def sine_cosine(position: Tensor, dim: int) -> Tensor:
    """Embeds positions `(..., 2)` as `(..., dim)` in float32; `dim` must be a multiple of 4."""
    if dim % 4:
        msg = f"sine_cosine: dim must be a multiple of 4, given {dim}"
        raise ValueError(msg)
    quarter = dim // 4
    power = torch.arange(quarter, device=position.device, dtype=torch.float64) / quarter
    omega = (10000.0**-power).to(torch.float32)
    angle = position.to(torch.float32)[..., None] * omega
    return torch.cat([angle.sin(), angle.cos()], dim=-1).flatten(-2)
