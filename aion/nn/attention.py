r"""Multi-head attention with normalised queries and keys.

For queries :math:`q`, keys :math:`k` and values :math:`v` of one head of width :math:`h`, each query attends as
:math:`\mathrm{softmax}(\hat q \hat k^T / \sqrt h)\, v` where the hat is a layer norm over the head. The norm bounds the
logits, which keeps large models stable in low precision.

References:
    | Scaling Vision Transformers to 22 Billion Parameters (Dehghani et al., 2023), arXiv 2302.05442
"""

__all__ = ["CrossAttention", "SelfAttention", "layer_norm"]

import torch.nn.functional as F

from torch import Tensor, nn


def layer_norm(dim: int) -> nn.LayerNorm:
    """Creates the layer norm used everywhere: no bias, eps 1e-6."""
    return nn.LayerNorm(dim, eps=1e-6, bias=False)


class SelfAttention(nn.Module):
    """Lets the tokens of a sequence attend to each other.

    Arguments:
        dim: width D of the tokens; a multiple of `heads`.
        heads: number of heads.
    """

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        _check_heads(dim, heads)
        self.heads = heads
        self.qkv = nn.Linear(dim, 3 * dim, bias=False)
        self.q_norm = layer_norm(dim // heads)
        self.k_norm = layer_norm(dim // heads)
        self.proj = nn.Linear(dim, dim, bias=False)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Attends over `x` `(B, N, D)`; `mask` broadcasts to `(B, heads, N, N)`, True where a key may be seen."""
        q, k, v = self.qkv(x).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        return self.proj(_attend(self.q_norm(q), self.k_norm(k), v, mask))


class CrossAttention(nn.Module):
    """Lets queries attend to a context.

    Arguments:
        dim: width D of both; a multiple of `heads`.
        heads: number of heads.
    """

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        _check_heads(dim, heads)
        self.heads = heads
        self.q = nn.Linear(dim, dim, bias=False)
        self.kv = nn.Linear(dim, 2 * dim, bias=False)
        self.q_norm = layer_norm(dim // heads)
        self.k_norm = layer_norm(dim // heads)
        self.proj = nn.Linear(dim, dim, bias=False)

    def forward(self, x: Tensor, context: Tensor, mask: Tensor | None = None) -> Tensor:
        """Attends from `x` `(B, M, D)` to `context` `(B, N, D)`; `mask` broadcasts to `(B, heads, M, N)`."""
        q = self.q(x).unflatten(-1, (self.heads, -1)).transpose(1, 2)
        k, v = self.kv(context).unflatten(-1, (2, self.heads, -1)).permute(2, 0, 3, 1, 4)
        return self.proj(_attend(self.q_norm(q), self.k_norm(k), v, mask))


def _attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask).transpose(1, 2).flatten(2)


def _check_heads(dim: int, heads: int) -> None:
    if heads < 1 or dim % heads:
        msg = f"attention: dim must be a multiple of heads, given dim={dim} and heads={heads}"
        raise ValueError(msg)
