r"""Patches of any stride by two convolutions of fixed kernels, and back (convolutional stride modulation).

Kernels :math:`k_1, k_2` stay, strides :math:`s_1, s_2` vary: an effective patch :math:`p = k_1 + s_1 (k_2 - 1)` is
read every :math:`s_1 s_2` points. Padding by :math:`(p - s_1 s_2) / 2` on both sides gives :math:`n / (s_1 s_2)`
tokens along an axis of n points. Fields have a column of the first kernel each, gathered by name and scaled by the
square root of the share in use; a grid without a third axis sums the kernels over it, and averages them on the way
back.

Beyond the edges of an axis that is not periodic there are zeros, flagged in channels of their own, and room for half
a stride on each side. Patch jitter moves the content in that room, and along periodic axes anywhere, by a `shift`
that is taken back after decoding: the error that a fixed grid of patches would make at the same places in each step
averages out instead of adding up.

References:
    | Walrus: A Cross-Domain Foundation Model for Continuum Dynamics (McCabe et al., 2025), arXiv 2511.15684
    | Overtone: Cyclic Patch Modulation for Clean, Efficient, and Flexible Physics Emulators (Mukhopadhyay et al., 2025)
"""

__all__ = ["Axis", "PatchDecoder", "PatchEncoder", "STRIDES", "axes_of", "draw_shift", "pad", "unpad"]

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F

from torch import Tensor, nn

from aion.physics.mixing import SpaceNorm

FLAGS = 3  # columns before those of the fields: beyond a wall, beyond an open edge, inside
STRIDES = {1: (1, 1), 4: (2, 2), 8: (4, 2), 12: (6, 2), 16: (4, 4), 24: (6, 4), 32: (8, 4)}


class Axis(NamedTuple):
    """Describes how one axis of a grid is cut into patches."""

    points: int
    low: str
    high: str
    first: int  # strides
    second: int
    kernels: tuple[int, int]

    @property
    def stride(self) -> int:
        """Returns the points from one token to the next."""
        return self.first * self.second

    @property
    def pad(self) -> int:
        """Returns the points that a patch reaches beyond its token on each side."""
        return (self.kernels[0] + self.first * (self.kernels[1] - 1) - self.stride) // 2 if self.points > 1 else 0

    @property
    def room(self) -> int:
        """Returns the points in which jitter may move the content, beyond both edges together."""
        return 0 if self.low == "periodic" or self.points == 1 else self.stride

    @property
    def tokens(self) -> int:
        """Returns the number of tokens."""
        return (self.points + self.room) // self.stride


def axes_of(
    space: Sequence[int],
    boundaries: Sequence[tuple[str, str]],
    kernels: tuple[int, int],
    stride: int | Sequence[int] | None,
    tokens: int,
) -> list[Axis]:
    """Chooses the strides of a grid and returns its three axes, those that it lacks with one point.

    Arguments:
        space: points along each axis.
        boundaries: names of the edges of each.
        kernels: sizes of the two kernels.
        stride: for all axes or for each; None to let `tokens` choose.
        tokens: largest number of tokens of a frame, the room for jitter left out: the finest strides are taken that
            give no more, as equal numbers along the axes as possible.

    Raises:
        ValueError: for a stride that is none of `STRIDES` or does not divide an axis, an axis too short for it, or a
            grid that no stride brings below `tokens`.
    """
    if stride is not None and not isinstance(stride, int) and len(stride) != len(space):
        msg = f"wanted one stride, or one for each of {len(space)} axes, given {stride}"
        raise ValueError(msg)
    space = (*space, *[1] * (3 - len(space)))
    boundaries = (*boundaries, *[("periodic", "periodic")] * (3 - len(boundaries)))
    possible = [_possible(points, kernels) for points in space]
    if stride is None:
        chosen = _choose(space, possible, tokens)
    else:
        chosen = [stride] * 3 if isinstance(stride, int) else [*stride, *[1] * (3 - len(stride))]
        chosen = [1 if points == 1 else size for points, size in zip(space, chosen, strict=True)]
    for points, size, fitting in zip(space, chosen, possible, strict=True):
        if size not in fitting and points > 1:
            msg = f"a stride of {size} does not fit an axis of {points} points; those that do: {fitting or 'none'}"
            raise ValueError(msg)
    return [Axis(n, *b, *STRIDES[s], kernels) for n, b, s in zip(space, boundaries, chosen, strict=True)]


def _possible(points: int, kernels: tuple[int, int]) -> list[int]:
    """Lists the strides that divide an axis and whose patches reach over it at most once."""
    if points == 1:
        return [1]
    fits = []
    for size, (first, second) in STRIDES.items():
        if points % size == 0 and Axis(points, "periodic", "periodic", first, second, kernels).pad <= points:
            fits.append(size)
    return fits


def _choose(space: Sequence[int], possible: Sequence[Sequence[int]], tokens: int) -> list[int]:
    left = [[size for size in sizes if size > 1 or points == 1] for points, sizes in zip(space, possible, strict=True)]
    while all(left):
        counts = [points // sizes[0] for points, sizes in zip(space, left, strict=True)]
        if counts[0] * counts[1] * counts[2] <= tokens:
            return [sizes[0] for sizes in left]
        coarser = [count if len(sizes) > 1 else 0 for count, sizes in zip(counts, left, strict=True)]
        if not any(coarser):
            break
        left[coarser.index(max(coarser))].pop(0)
    grid = "x".join(str(points) for points in space if points > 1)
    msg = (
        f"no strides cut a grid of {grid} into at most {tokens} tokens: wanted axes that are multiples of one of "
        f"{sorted(STRIDES)[1:]} and long enough for it; give more tokens, a stride, or crop the grid"
    )
    raise ValueError(msg)


def draw_shift(axes: Sequence[Axis], generator: torch.Generator | None) -> list[int]:
    """Draws how far jitter moves the content along each axis; nowhere without a generator."""
    if generator is None:
        return [0] * len(axes)
    device, shift = generator.device, []
    for axis in axes:
        low, high = (-(axis.room // 2), axis.room - axis.room // 2) if axis.room else (0, axis.points - 1)
        shift.append(int(torch.randint(low, high + 1, (), generator=generator, device=device)))
    return shift


def pad(x: Tensor, axes: Sequence[Axis], shift: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Moves and pads `(N, F, H, W, D)` to `(N, F, H'', W'', D'')`, and makes the flags: `(1, 3, H'', W'', D'')`.

    Along an axis without edges the flags are the same all along and have the length 1.
    """
    flags = x.new_zeros(FLAGS, 1, 1, 1)
    flags[2] = 1
    for dim, (axis, move) in enumerate(zip(axes, shift, strict=True), start=2):
        low, high = axis.pad + axis.room // 2 + move, axis.pad + axis.room - axis.room // 2 - move
        if axis.room:
            beyond = x.new_zeros(FLAGS - 1, low + axis.points + high)
            beyond[int(axis.low == "open"), :low] = 1
            beyond[int(axis.high == "open"), low + axis.points :] = 1
            view = [low + axis.points + high if other == dim else 1 for other in (2, 3, 4)]
            outside = beyond.view(FLAGS - 1, *view)  # corners belong to two edges
            flags = torch.cat([flags[:2] + outside, flags[2:] * (1 - outside.sum(0, keepdim=True))])
            x = F.pad(x, [0, 0] * (4 - dim) + [low, high])
        elif axis.points > 1:
            x = x.roll(move, dim)
            x = torch.cat([x.narrow(dim, axis.points - axis.pad, axis.pad), x, x.narrow(dim, 0, axis.pad)], dim)
    return x, flags[None]


def unpad(x: Tensor, axes: Sequence[Axis], shift: Sequence[int]) -> Tensor:
    """Crops what was decoded to the grid and moves it back."""
    for dim, (axis, move) in enumerate(zip(axes, shift, strict=True), start=2):
        if axis.room:
            x = x.narrow(dim, axis.pad + axis.room // 2 + move, axis.points)
        elif axis.points > 1:
            start = axis.pad + _wrap(axis) * axis.stride - _reached(axis)[0] * axis.first
            x = x.narrow(dim, start, axis.points).roll(-move, dim)
    return x


def _wrap(axis: Axis) -> int:
    """Returns the tokens that are repeated beyond each edge of a periodic axis for decoding."""
    return 0 if axis.room or axis.points == 1 else -(-axis.pad // axis.stride)


def _reached(axis: Axis) -> tuple[int, int]:
    """Returns the first place between the two convolutions back that reaches into a periodic grid, and the count."""
    start = axis.pad + _wrap(axis) * axis.stride
    first = max(0, -(-(start - axis.kernels[0] + 1) // axis.first))
    last = (start + axis.points - 1) // axis.first
    return first, last - first + 1


class PatchEncoder(nn.Module):
    """Turns fields into tokens.

    Arguments:
        columns: fields of the vocabulary and flags.
        middle: channels between the two convolutions.
        width: channels D of a token.
        kernels: sizes of the two kernels.
        groups: see `SpaceNorm`.
    """

    def __init__(self, columns: int, middle: int, width: int, kernels: tuple[int, int], groups: int | None) -> None:
        super().__init__()
        self.conv1 = nn.Conv3d(columns, middle, kernels[0], bias=False)
        self.norm1 = SpaceNorm(middle, groups)
        self.conv2 = nn.Conv3d(middle, width, kernels[1], bias=False)
        self.norm2 = SpaceNorm(width, groups)

    def forward(self, x: Tensor, flags: Tensor, columns: Tensor, axes: Sequence[Axis]) -> Tensor:
        """Maps what `pad` gives to `(N, H', W', D', D)`; `columns` `(F,)` are those of the fields."""
        weight, strides = self.conv1.weight, [axis.first for axis in axes]
        scale = (self.conv1.in_channels / (len(columns) + FLAGS)) ** 0.5
        x = _convolve(x, scale * weight[:, columns], strides) + _convolve(flags, scale * weight[:, :FLAGS], strides)
        x = F.silu(self.norm1(x.movedim(1, -1))).movedim(-1, 1)
        x = _convolve(x, self.conv2.weight, [axis.second for axis in axes])
        return F.silu(self.norm2(x.movedim(1, -1)))


class PatchDecoder(nn.Module):
    """Turns tokens into fields; see `PatchEncoder`."""

    def __init__(self, columns: int, middle: int, width: int, kernels: tuple[int, int], groups: int | None) -> None:
        super().__init__()
        self.conv1 = nn.ConvTranspose3d(width, middle, kernels[1], bias=False)
        self.norm1 = SpaceNorm(middle, groups)
        self.conv2 = nn.ConvTranspose3d(middle, columns, kernels[0])

    def forward(self, x: Tensor, columns: Tensor, axes: Sequence[Axis]) -> Tensor:
        """Maps `(N, H', W', D', D)` to `(N, F, H'', W'', D'')`, what `unpad` crops."""
        for dim, axis in enumerate(axes, start=1):
            if wrap := _wrap(axis):
                around = torch.arange(-wrap, axis.tokens + wrap, device=x.device) % axis.tokens
                x = x.index_select(dim, around)
        x = _spread(x.movedim(-1, 1), self.conv1.weight, [axis.second for axis in axes], axes)
        x = self.norm1(x.movedim(1, -1))
        for dim, axis in enumerate(axes, start=1):
            if axis.points > 1 and not axis.room:  # what reaches no point that `unpad` keeps is left out
                x = x.narrow(dim, *_reached(axis))
        x = F.silu(x).movedim(-1, 1)
        x = _spread(x, self.conv2.weight[:, columns], [axis.first for axis in axes], axes)
        return x + self.conv2.bias[columns].view(-1, 1, 1, 1)


def _convolve(x: Tensor, weight: Tensor, strides: Sequence[int]) -> Tensor:
    for dim in (2, 3, 4):
        weight = weight.sum(dim, keepdim=True) if x.shape[dim] == 1 else weight  # the same all along it
    if x.shape[4] == 1:  # a fifth of the time of the same in three dimensions
        return F.conv2d(x[..., 0], weight[..., 0], stride=strides[:2])[..., None]
    return F.conv3d(x, weight, stride=strides)


def _spread(x: Tensor, weight: Tensor, strides: Sequence[int], axes: Sequence[Axis]) -> Tensor:
    for dim, axis in enumerate(axes, start=2):
        weight = weight.mean(dim, keepdim=True) if axis.points == 1 else weight
    if axes[2].points == 1:
        return F.conv_transpose2d(x[..., 0], weight[..., 0], stride=strides[:2])[..., None]
    return F.conv_transpose3d(x, weight, stride=strides)
