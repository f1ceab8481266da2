"""Residual convolutions that see nothing outside a mask.

A convolution over padding would let an object's neighbours in a batch, or the length it was padded to, change its
result. Every block here multiplies its input by the mask first: what is not measured looks like the zeros beyond
the border.
"""

__all__ = ["ConvBlock1d", "ConvBlock2d"]

import torch.nn.functional as F

from torch import Tensor, nn

from aion.nn.attention import layer_norm


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
        y = self.norm(self.conv(x).movedim(1, -1))
        return (x + self.fc2(F.gelu(self.fc1(y))).movedim(-1, 1)) * mask


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
