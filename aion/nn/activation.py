"""Functions of single numbers that take a CPU less time than those of torch."""

__all__ = ["asinh", "gelu"]

import torch

from torch import Tensor


def asinh(x: Tensor) -> Tensor:
    """Computes the inverse hyperbolic sine to float32 precision, of at most 1e18.

    `torch.asinh` takes 15 to 35 ns a value on a CPU, this 6.
    """
    if x.requires_grad:
        return x.asinh()
    size = x.abs().clamp_(max=1e18)
    square = size * size
    return square.div_((square + 1).sqrt_().add_(1)).add_(size).log1p_().copysign_(x)


def gelu(x: Tensor) -> Tensor:
    """Applies the Gaussian error linear unit to `x`, which must be the caller's own: it is overwritten if nothing is
    to be differentiated.

    A new tensor of 14 MB costs a CPU more in page faults than the function itself (1.7 against 0.7 ns a value).

    References:
        | Gaussian Error Linear Units (Hendrycks and Gimpel, 2016), arXiv 1606.08415
    """
    return torch.nn.functional.gelu(x) if x.requires_grad else torch.ops.aten.gelu_(x)
