"""Residual convolutions that see nothing outside a mask.

A convolution over padding would let an object's neighbours in a batch, or the length it was padded to, change its
result. Every block here multiplies its input by the mask first: what is not measured looks like the zeros beyond
the border.

All run with the channels last in memory, which is what the perceptron reads and where a depth-wise convolution takes a
tenth of the time on a CPU (2 ms instead of 25 for 64 x 128 channels x 203 rungs on two cores).
"""

__all__ = ["ConvBlock1d", "ConvBlock2d", "conv1d"]

import torch
import torch.nn.functional as F

from torch import Tensor, nn

from aion.nn.activation import gelu
from aion.nn.attention import layer_norm


def conv1d(x: Tensor, conv: nn.Conv1d) -> Tensor:
    """Applies a convolution of stride 1 to `(B, C, L)` and returns `(B, D, L)` with the channels last in memory."""
    x = x[:, :, None].contiguous(memory_format=torch.channels_last)
    weight = conv.weight[:, :, None]
    return F.conv2d(x, weight, conv.bias, padding=(0, conv.padding[0]), groups=conv.groups)[:, :, 0]


class _ConvBlock(nn.Module):
    """Adds a depth-wise convolution followed by a two-layer perceptron over channels."""

    def __init__(self, conv: nn.Module, width: int, ratio: int) -> None:
        super().__init__()
        self.conv = conv
        self.norm = layer_norm(width)
        self.fc1 = nn.Linear(width, ratio * width)
        self.fc2 = nn.Linear(ratio * width, width)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """Maps `(B, D, *space)` to the same shape; `mask` `(B, 1, *space)` is 1 where something was measured."""
        x = x * mask
        y = self.norm(self._convolve(x).movedim(1, -1))
        return torch.addcmul(x, self.fc2(gelu(self.fc1(y))).movedim(-1, 1), mask)

    def _convolve(self, x: Tensor) -> Tensor:
        if x.ndim == 3:
            return conv1d(x, self.conv)
        return self.conv(x.contiguous(memory_format=torch.channels_last))


class ConvBlock1d(_ConvBlock):
    """Mixes neighbouring rungs of a ladder.

    Arguments:
        width: channels D.
        kernel: odd size of the depth-wise kernel.
        ratio: hidden width of the perceptron over D.

    References:
        | A ConvNet for the 2020s (Liu et al., 2022), arXiv 2201.03545
    """

    def __init__(self, width: int, kernel: int = 7, ratio: int = 2) -> None:
        super().__init__(nn.Conv1d(width, width, kernel, padding=kernel // 2, groups=width), width, ratio)


class ConvBlock2d(_ConvBlock):
    """Mixes neighbouring patches of an image; see `ConvBlock1d`."""

    def __init__(self, width: int, kernel: int = 5, ratio: int = 2) -> None:
        super().__init__(nn.Conv2d(width, width, kernel, padding=kernel // 2, groups=width), width, ratio)
