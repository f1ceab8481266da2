r"""What a whole sequence looks like, told to each of its members.

The mean over the members of the features x and of their Fourier components,
:math:`\frac1n\sum_i m_i\,x_i\,(1, \cos\omega p_i, \sin\omega p_i)` with a frequency of its own for each channel, goes
through a perceptron and is added to every member: a receptive field without end for the price of a sum. The Fourier
components keep where a feature was, which a plain mean forgets.

References:
    | Squeeze-and-Excitation Networks (Hu et al., 2018), arXiv 1709.01507
"""

__all__ = ["GlobalContext"]

import math

import torch

from torch import Tensor, nn

from aion.nn.activation import gelu
from aion.nn.attention import layer_norm


class GlobalContext(nn.Module):
    """Adds a function of all members to each.

    Arguments:
        width: channels D.
        shortest: shortest period of the Fourier components, in units of the position.
        longest: longest one.
    """

    def __init__(self, width: int, shortest: float = 6.0, longest: float = 700.0) -> None:
        super().__init__()
        periods = torch.logspace(math.log10(shortest), math.log10(longest), width, device="cpu")
        self.register_buffer("frequency", 2 * math.pi / periods, persistent=False)
        self.norm = layer_norm(3 * width)
        self.fc1 = nn.Linear(3 * width, width)
        self.fc2 = nn.Linear(width, width)

    def forward(self, x: Tensor, mask: Tensor, position: Tensor) -> Tensor:
        """Maps `(B, D, R)` at positions `(R,)` to the same shape; `mask` `(B, 1, R)` is 1 for those that count."""
        x = (x * mask).movedim(1, -1)
        angle = position[:, None] * self.frequency
        # Not by einsum, which would transpose all of x first.
        sums = [x.sum(1), (x * angle.cos()).sum(1), (x * angle.sin()).sum(1)]
        mean = torch.cat(sums, dim=1) / mask.sum(2).clamp(min=1)
        y = self.fc2(gelu(self.fc1(self.norm(mean))))
        return torch.addcmul(x.movedim(-1, 1), y[:, :, None], mask)
