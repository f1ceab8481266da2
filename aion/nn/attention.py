r"""Multi-head attention with normalised queries and keys.

For queries :math:`q`, keys :math:`k` and values :math:`v` of one head of width :math:`h`, each query attends as
:math:`\mathrm{softmax}(\hat q \hat k^T / \sqrt h)\, v` where the hat is a layer norm over the head. The norm bounds the
logits, which keeps large models stable in low precision. A query that may see no key at all gets zero.

With angles, queries, keys **and values** are turned by the position of their token and the result is turned back by
that of the query: what a head compares and what it brings depend on the difference of positions alone. A query at zero
then receives :math:`\sum_n a_n e^{i\omega x_n} v_n`, Fourier components of what was found where; the redshift of a
spectrum whose tokens say which line they may be is their phase.

References:
    | RoFormer: Enhanced Transformer with Rotary Position Embedding (Su et al., 2021), arXiv 2104.09864
    | GTA: A Geometry-Aware Attention Mechanism for Multi-View Transformers (Miyato et al., 2023), arXiv 2310.10375
    | Scaling Vision Transformers to 22 Billion Parameters (Dehghani et al., 2023), arXiv 2302.05442
"""

__all__ = ["CrossAttention", "SelfAttention", "layer_norm"]

import torch
import torch.nn.functional as F

from torch import Tensor, nn


def layer_norm(dim: int, bias: bool = False) -> nn.LayerNorm:
    """Creates the layer norm used everywhere: eps 1e-6, no bias unless asked for."""
    return nn.LayerNorm(dim, eps=1e-6, bias=bias)


class SelfAttention(nn.Module):
    """Lets the tokens of a sequence attend to each other.

    Arguments:
        dim: width D of the tokens; a multiple of `heads`.
        heads: number of heads.
        norm_bias: gives the norms of queries and keys a bias.
    """

    def __init__(self, dim: int, heads: int, norm_bias: bool = False) -> None:
        super().__init__()
        _check_heads(dim, heads)
        self.heads = heads
        self.qkv = nn.Linear(dim, 3 * dim, bias=False)
        self.q_norm = layer_norm(dim // heads, norm_bias)
        self.k_norm = layer_norm(dim // heads, norm_bias)
        self.proj = nn.Linear(dim, dim, bias=False)

    def forward(
        self, x: Tensor, mask: Tensor | None = None, uniform: bool = False, angles: Tensor | None = None
    ) -> Tensor:
        """Attends over `x` `(B, N, D)`; `mask` broadcasts to `(B, heads, N, N)`, True where a key may be seen.

        With `uniform` all keys that may be seen have the same weight, whatever query and key are. `angles`
        `(B, N, D / heads / 2)` are those of the positions, see `aion.nn.embedding.angles`.
        """
        q, k, v = self.qkv(x).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        q = torch.zeros_like(q) if uniform else self.q_norm(q)  # a query of zeros finds all keys alike
        return self.proj(_attend(q, self.k_norm(k), v, mask, angles, angles))


class CrossAttention(nn.Module):
    """Lets queries attend to a context.

    Arguments:
        dim: width D of both; a multiple of `heads`.
        heads: number of heads.
        norm_bias: gives the norms of queries and keys a bias.
    """

    def __init__(self, dim: int, heads: int, norm_bias: bool = False) -> None:
        super().__init__()
        _check_heads(dim, heads)
        self.heads = heads
        self.q = nn.Linear(dim, dim, bias=False)
        self.kv = nn.Linear(dim, 2 * dim, bias=False)
        self.q_norm = layer_norm(dim // heads, norm_bias)
        self.k_norm = layer_norm(dim // heads, norm_bias)
        self.proj = nn.Linear(dim, dim, bias=False)

    def forward(
        self,
        x: Tensor,
        context: Tensor,
        mask: Tensor | None = None,
        angles: Tensor | None = None,
        context_angles: Tensor | None = None,
    ) -> Tensor:
        """Attends from `x` `(B, M, D)` to `context` `(B, N, D)`; `mask` broadcasts to `(B, heads, M, N)`.

        `angles` and `context_angles` are those of both, see `SelfAttention`.
        """
        q = self.q(x).unflatten(-1, (self.heads, -1)).transpose(1, 2)
        k, v = self.kv(context).unflatten(-1, (2, self.heads, -1)).permute(2, 0, 3, 1, 4)
        return self.proj(_attend(self.q_norm(q), self.k_norm(k), v, mask, angles, context_angles))


def _attend(
    q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, angles: Tensor | None, key_angles: Tensor | None
) -> Tensor:
    if angles is not None and key_angles is not None:
        q, k, v = _turn(q, angles), _turn(k, key_angles), _turn(v, key_angles)
    x = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
    if angles is not None:
        x = _turn(x, -angles)
    if mask is not None and mask.shape[-2] == 1:  # one mask for all queries may leave nothing to see
        x = torch.where(mask.any(-1, keepdim=True), x, 0)  # torch before 2.5 gives NaN there
    return x.transpose(1, 2).flatten(2)


def _turn(x: Tensor, angles: Tensor) -> Tensor:
    """Turns the pairs of channels of `(B, heads, N, h)` by angles `(B, N, h / 2)`."""
    cos, sin = angles.cos()[:, None].to(x.dtype), angles.sin()[:, None].to(x.dtype)
    one, other = x.chunk(2, dim=-1)
    return torch.cat([one * cos - other * sin, one * sin + other * cos], dim=-1)


def _check_heads(dim: int, heads: int) -> None:
    if heads < 1 or dim % heads:
        msg = f"attention: dim must be a multiple of heads, given dim={dim} and heads={heads}"
        raise ValueError(msg)
