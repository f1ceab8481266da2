r"""What a block of the model does: every place looks back in time, then every frame mixes its places.

Activations are `(B, T, H', W', D', C)`: trajectories, frames, the three axes of the token grid, channels last.

Time: attention along T at each place, to frames that are not later, with a learned bias for each (bucketed) distance.
Space: attention over the places of one frame with axial rotary positions, beside a gated perceptron that reads the
same normalised input; one projection serves both. Queries and keys are layer-normalised in both.

References:
    | Walrus: A Cross-Domain Foundation Model for Continuum Dynamics (McCabe et al., 2025), arXiv 2511.15684
    | Exploring the Limits of Transfer Learning with a Unified Text-to-Text Transformer (Raffel et al., 2020), arXiv
      1910.10683
    | RoFormer: Enhanced Transformer with Rotary Position Embedding (Su et al., 2021), arXiv 2104.09864
    | GPT-J-6B: A 6 Billion Parameter Autoregressive Language Model (Wang and Komatsuzaki, 2021)
"""  # fmt: skip

__all__ = ["Block", "SpaceMixing", "SpaceNorm", "TimeMixing", "bucket"]

import math

import torch
import torch.nn.functional as F

from torch import Tensor, nn

from aion.nn.attention import layer_norm

BUCKETS, FARTHEST = 32, 128


class SpaceNorm(nn.Module):
    """Divides by a root mean square over the three axes of space.

    The published model takes it for every channel on its own, which is what happens without `groups`.

    Arguments:
        dim: channels C.
        groups: number of groups of channels that share their root mean square.
    """

    def __init__(self, dim: int, groups: int | None = None) -> None:
        super().__init__()
        self.groups = dim if groups is None else groups
        if self.groups < 1 or dim % self.groups:
            msg = f"SpaceNorm: channels must be a multiple of groups, given {dim} and {groups}"
            raise ValueError(msg)
        self.weight = nn.Parameter(torch.ones(dim))

    def forward(self, x: Tensor) -> Tensor:
        """Maps `(..., H', W', D', C)` to the same shape."""
        square = x.square().mean((-4, -3, -2), keepdim=True)
        if self.groups < x.shape[-1]:
            square = square.unflatten(-1, (self.groups, -1)).mean(-1, keepdim=True)
            square = square.expand(*square.shape[:-1], x.shape[-1] // self.groups).flatten(-2)
        return x * (torch.rsqrt(square + torch.finfo(torch.float32).eps) * self.weight)


def bucket(distance: Tensor) -> Tensor:
    """Numbers distances back in time: the first 16 one by one, the others in logarithmic steps up to 128."""
    exact = BUCKETS // 2
    ratio = (distance.clamp(min=1) / exact).log() / math.log(FARTHEST / exact)
    far = exact + (ratio * (BUCKETS - exact)).long()
    return torch.where(distance < exact, distance, far.clamp(max=BUCKETS - 1))


class TimeMixing(nn.Module):
    """Lets each place attend to itself in earlier frames.

    Arguments:
        dim: channels C, a multiple of `heads`.
        heads: number of heads.
        groups: see `SpaceNorm`.
    """

    def __init__(self, dim: int, heads: int, groups: int | None = None) -> None:
        super().__init__()
        self.heads = heads
        self.norm = SpaceNorm(dim, groups)
        self.qkv = nn.Linear(dim, 3 * dim)
        self.q_norm = layer_norm(dim // heads, bias=True)
        self.k_norm = layer_norm(dim // heads, bias=True)
        self.bias = nn.Embedding(BUCKETS, heads)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x: Tensor, first: int = 0) -> Tensor:
        """Maps `(B, T, H', W', D', C)` to the same shape, or to its frames from `first` on alone."""
        y = self.qkv(self.norm(x)).flatten(2, 4).transpose(1, 2)  # B, places, T, 3 C
        q, k, v = y.unflatten(-1, (3, self.heads, -1)).movedim(3, 0).transpose(3, 4).flatten(1, 2)
        q = q[:, :, first:]
        steps = torch.arange(x.shape[1], device=x.device)
        distance = steps[first:, None] - steps
        bias = self.bias(bucket(distance.clamp(min=0))).permute(2, 0, 1)
        bias = bias.masked_fill(distance < 0, -math.inf).to(v.dtype)
        y = F.scaled_dot_product_attention(self.q_norm(q).to(v.dtype), self.k_norm(k).to(v.dtype), v, attn_mask=bias)
        y = y.transpose(1, 2).flatten(2).unflatten(0, (x.shape[0], -1)).transpose(1, 2)
        x = x[:, first:]
        return x + self.proj(y).view_as(x)


class SpaceMixing(nn.Module):
    """Lets the places of a frame attend to each other, beside a gated perceptron.

    Arguments:
        dim: channels C, a multiple of `heads`.
        heads: number of heads, each at least 8 channels wide.
        hidden: width of the perceptron after gating.
        groups: see `SpaceNorm`.
        highest: highest rotary frequency at first, in half turns per half axis; they are learned.
    """

    def __init__(self, dim: int, heads: int, hidden: int, groups: int | None = None, highest: float = 128.0) -> None:
        super().__init__()
        self.heads, self.hidden = heads, hidden
        self.norm = SpaceNorm(dim, groups)
        self.fused = nn.Linear(dim, 2 * hidden + 3 * dim)
        self.q_norm = layer_norm(dim // heads, bias=True)
        self.k_norm = layer_norm(dim // heads, bias=True)
        self.frequencies = nn.Parameter(torch.linspace(1.0, highest, dim // heads // 8) * math.pi)
        self.proj = nn.Linear(dim, dim, bias=False)
        self.mlp = nn.Linear(hidden, dim)

    def forward(self, x: Tensor) -> Tensor:
        """Maps `(B, T, H', W', D', C)` to the same shape."""
        dim = x.shape[-1]
        up, gate, qkv = self.fused(self.norm(x)).split([self.hidden, self.hidden, 3 * dim], dim=-1)
        qkv = qkv.flatten(0, 1).flatten(1, 3).unflatten(-1, (3, self.heads, -1))
        q, k, v = qkv.permute(2, 0, 3, 1, 4)  # B T, heads, places, channels of a head
        turn = self._turn(x)
        q, k = (_turned(norm(part), turn).to(v.dtype) for norm, part in ((self.q_norm, q), (self.k_norm, k)))
        y = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        return x + self.proj(y).view_as(x) + self.mlp(up * F.silu(gate))

    def _turn(self, x: Tensor) -> Tensor:
        """Returns a complex factor of each place and pair of channels, `(H' W' D', C / heads / 2)`.

        Coordinates run from -1 to 1, an axis of one is at 0; the last pairs are not turned.
        """
        axes = [torch.linspace(-1, 1, n, device=x.device) if n > 1 else x.new_zeros(1).float() for n in x.shape[2:5]]
        places = torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1).flatten(0, 2)
        angle = (places[..., None] * self.frequencies.float()).flatten(1)
        angle = F.pad(angle, (0, x.shape[-1] // self.heads // 2 - angle.shape[1]))
        return torch.polar(torch.ones_like(angle), angle)


def _turned(x: Tensor, turn: Tensor) -> Tensor:
    """Turns neighbouring pairs of channels: in one pass, where sines and cosines take seven."""
    return torch.view_as_real(torch.view_as_complex(x.float().unflatten(-1, (-1, 2))) * turn).flatten(-2)


class Block(nn.Module):
    """Mixes time, then space; see `TimeMixing` and `SpaceMixing`."""

    def __init__(self, dim: int, heads: int, hidden: int, groups: int | None = None, highest: float = 128.0) -> None:
        super().__init__()
        self.time = TimeMixing(dim, heads, groups)
        self.space = SpaceMixing(dim, heads, hidden, groups, highest)

    def forward(self, x: Tensor, first: int = 0) -> Tensor:
        """Maps `(B, T, H', W', D', C)` to the same shape, or to its frames from `first` on alone."""
        return self.space(self.time(x, first))
