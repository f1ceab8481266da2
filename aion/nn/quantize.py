r"""Finite scalar quantisation.

Each latent :math:`z_i` is squashed to :math:`L_i` levels and rounded: with :math:`h = (L-1)(1+\epsilon)/2` and
:math:`o = 0` (odd L) or :math:`1/2` (even L), :math:`b = h\tanh(z + \mathrm{artanh}(o/h)) - o`,
:math:`r = \mathrm{round}(b)`. The id is :math:`\sum_i (r_i + \lfloor L_i/2\rfloor)\prod_{j<i} L_j`; the value handed
to the decoder is :math:`r/\lfloor L/2\rfloor`, with the gradient passed straight through the rounding.

All of it runs in float32 under any autocast: bfloat16 cannot resolve the rounding borders.

References:
    | Finite Scalar Quantization: VQ-VAE Made Simple (Mentzer et al., 2023), arXiv 2309.15505
"""

__all__ = ["FSQ"]

import math

from collections.abc import Sequence

import torch

from torch import Tensor, nn


class FSQ(nn.Module):
    """Quantises latents of `len(levels)` dimensions to `size` ids; it has no parameters.

    Arguments:
        levels: number of levels of each latent dimension, each at least 2.
        eps: how much the outermost levels are stretched so that they can be reached.
    """

    def __init__(self, levels: Sequence[int], eps: float = 1e-3) -> None:
        super().__init__()
        if not levels or min(levels) < 2:
            msg = f"FSQ: wanted at least one dimension of at least 2 levels each, given {list(levels)}"
            raise ValueError(msg)
        self.size, self.eps = math.prod(levels), eps
        # Integers, so that no cast of a model to half precision can move a rounding border.
        # On the CPU even inside `torch.device("meta")`: they are computed here, never loaded.
        basis = torch.tensor([math.prod(levels[:i]) for i in range(len(levels))], device="cpu")
        self.register_buffer("levels", torch.tensor(list(levels), device="cpu"), persistent=False)
        self.register_buffer("basis", basis, persistent=False)

    def forward(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Quantises `z` `(..., d)` to float32 values in [-1, 1] `(..., d)` and ids `(...)`."""
        with torch.autocast(z.device.type, enabled=False):
            half = (self.levels - 1).to(torch.float32) * (1 + self.eps) / 2
            offset = (1 - self.levels % 2).to(torch.float32) / 2
            bounded = (z.to(torch.float32) + (offset / half).atanh()).tanh() * half - offset
            rounded = bounded + (bounded.round() - bounded).detach()
            ids = ((bounded.detach().round().long() + self.levels // 2) * self.basis).sum(-1)
            return rounded / (self.levels // 2), ids

    def values(self, ids: Tensor) -> Tensor:
        """Returns the float32 values `(..., d)` that stand for ids `(...)`."""
        digits = ids[..., None] // self.basis % self.levels
        return (digits - self.levels // 2).to(torch.float32) / (self.levels // 2)
