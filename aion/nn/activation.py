"""The activation of convolutions and perceptrons."""

__all__ = ["gelu"]

import torch

from torch import Tensor


def gelu(x: Tensor) -> Tensor:
    """Applies the Gaussian error linear unit to `x`, which must be the caller's own: it is overwritten if nothing is
    to be differentiated.

    A new tensor of 14 MB costs a CPU more in page faults than the function itself (1.7 against 0.7 ns a value).

    References:
        | Gaussian Error Linear Units (Hendrycks and Gimpel, 2016), arXiv 1606.08415
    """
    return torch.nn.functional.gelu(x) if x.requires_grad else torch.ops.aten.gelu_(x)
