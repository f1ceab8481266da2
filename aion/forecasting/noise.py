r"""The noise that diffusion adds and takes away: :math:`x_\sigma = x + \sigma n` with :math:`n \sim N(0, 1)`.

Data have unit variance, so that :math:`\sigma` runs from where nothing is seen of them to where nothing is hidden.

References:
    | Elucidating the Design Space of Diffusion-Based Generative Models (Karras et al., 2022), arXiv 2206.00364
"""

__all__ = ["Noise"]

import math

from dataclasses import dataclass

import torch

from torch import Tensor


@dataclass(frozen=True)
class Noise:
    """Holds the levels of training and of sampling.

    Arguments:
        least: level at which sampling ends.
        most: level at which it starts.
        mean: of ln sigma in training.
        std: of ln sigma in training.

    Raises:
        ValueError: unless 0 < least < most and std > 0.
    """

    least: float = 0.02
    most: float = 30.0
    mean: float = -0.5
    std: float = 1.4

    def __post_init__(self) -> None:
        if not (0 < self.least < self.most and self.std > 0):
            msg = f"Noise: wanted 0 < least < most and std > 0, given {self}"
            raise ValueError(msg)

    def draw(self, number: int, generator: torch.Generator) -> Tensor:
        """Draws levels for training, `(number,)`, on the CPU."""
        return (self.mean + self.std * torch.randn(number, generator=generator)).exp()

    def levels(self, steps: int) -> Tensor:
        """Lists the levels at which sampling calls the denoiser, in equal ratios, highest first, `(steps,)`.

        Raises:
            ValueError: if `steps` is not a whole number of at least 2.
        """
        if isinstance(steps, bool) or not isinstance(steps, int) or steps < 2:
            msg = f"Noise: wanted a whole number of at least 2 steps, given {steps!r}"
            raise ValueError(msg)
        return torch.linspace(math.log(self.most), math.log(self.least), steps, dtype=torch.float64).exp()
