r"""Pre-norm transformer blocks with gated feed-forward layers and linear layers without biases.

Encoder block: :math:`x \leftarrow x + \mathrm{attn}(n_1(x))`, then :math:`x \leftarrow x + \mathrm{mlp}(n_2(x))`. The
decoder block has a cross-attention to the context between the two.

References:
    | GLU Variants Improve Transformer (Shazeer, 2020), arXiv 2002.05202
    | 4M: Massively Multimodal Masked Modeling (Mizrahi et al., 2023), arXiv 2312.06647
"""

__all__ = ["DecoderBlock", "EncoderBlock", "GatedMLP"]

import torch
import torch.nn.functional as F

from torch import Tensor, nn

from aion.nn.attention import CrossAttention, SelfAttention, layer_norm

CACHED = 1024  # tokens at a time on a CPU: the hidden layer stays in its caches, a fifth off the time of an encoder


class GatedMLP(nn.Module):
    """Computes `fc2(silu(fc1(x)) * fc3(x))` with two thirds of the width a plain MLP would have.

    Arguments:
        dim: width D.
        ratio: hidden width over D of the plain MLP with as many parameters.
    """

    def __init__(self, dim: int, ratio: float = 4.0) -> None:
        super().__init__()
        hidden = int(2 * int(dim * ratio) / 3)
        self.fc1 = nn.Linear(dim, hidden, bias=False)
        self.fc2 = nn.Linear(hidden, dim, bias=False)
        self.fc3 = nn.Linear(dim, hidden, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Maps `(..., D)` to `(..., D)`."""
        if x.device.type != "cpu" or torch.is_grad_enabled():
            return self.fc2(F.silu(self.fc1(x)) * self.fc3(x))
        pieces = [
            self.fc2(F.silu(self.fc1(rows), inplace=True).mul_(self.fc3(rows)))
            for rows in x.flatten(0, -2).split(CACHED)
        ]
        return torch.cat(pieces).view_as(x)


class EncoderBlock(nn.Module):
    """Mixes the tokens of a sequence.

    Arguments:
        dim: width D.
        heads: number of attention heads.
        mlp_ratio: see `GatedMLP`.
        norm_bias: gives every norm a bias.
    """

    def __init__(self, dim: int, heads: int, mlp_ratio: float = 4.0, norm_bias: bool = False) -> None:
        super().__init__()
        self.norm1 = layer_norm(dim, norm_bias)
        self.attn = SelfAttention(dim, heads, norm_bias)
        self.norm2 = layer_norm(dim, norm_bias)
        self.mlp = GatedMLP(dim, mlp_ratio)

    def forward(self, x: Tensor, mask: Tensor | None = None, angles: Tensor | None = None) -> Tensor:
        """Maps `(B, N, D)` to `(B, N, D)`; `mask` is True where a key may be seen, `angles` turn the heads."""
        x = x + self.attn(self.norm1(x), mask, angles=angles)
        return x + self.mlp(self.norm2(x))


class DecoderBlock(nn.Module):
    """Mixes queries with each other and with a context.

    Arguments:
        dim: width D.
        heads: number of attention heads.
        mlp_ratio: see `GatedMLP`.
        norm_bias: gives every norm a bias.
    """

    def __init__(self, dim: int, heads: int, mlp_ratio: float = 4.0, norm_bias: bool = False) -> None:
        super().__init__()
        self.norm1 = layer_norm(dim, norm_bias)
        self.self_attn = SelfAttention(dim, heads, norm_bias)
        self.query_norm = layer_norm(dim, norm_bias)
        self.context_norm = layer_norm(dim, norm_bias)
        self.cross_attn = CrossAttention(dim, heads, norm_bias)
        self.norm2 = layer_norm(dim, norm_bias)
        self.mlp = GatedMLP(dim, mlp_ratio)

    def forward(
        self,
        x: Tensor,
        context: Tensor,
        mask: Tensor | None = None,
        context_mask: Tensor | None = None,
        uniform: bool = False,
        angles: Tensor | None = None,
        context_angles: Tensor | None = None,
    ) -> Tensor:
        """Maps queries `(B, M, D)` and a context `(B, N, D)` to `(B, M, D)`; masks are True where a key may be seen.

        With `uniform` queries weigh each other alike. The angles turn the heads, see `aion.nn.attention`.
        """
        x = x + self.self_attn(self.norm1(x), mask, uniform, angles)
        context = self.context_norm(context)
        x = x + self.cross_attn(self.query_norm(x), context, context_mask, angles, context_angles)
        return x + self.mlp(self.norm2(x))
