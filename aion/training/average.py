r"""The moving average of the weights over the steps.

:math:`\bar\theta \leftarrow d\,\bar\theta + (1 - d)\,\theta` after every step, with
:math:`d = \min(\mathrm{decay}, (1 + t) / (10 + t))` at step t, so that the first weights are soon forgotten.
"""

__all__ = ["Average"]

import torch

from torch import Tensor, nn


class Average:
    """Holds the average of the parameters of a module.

    Arguments:
        module: whose parameters are averaged; they may be shared out over ranks.
        decay: share of the average that stays in a step, at least 0 and below 1.

    Raises:
        ValueError: for another decay.
    """

    def __init__(self, module: nn.Module, decay: float) -> None:
        if not 0 <= decay < 1:
            msg = f"ema: wanted a decay of at least 0 and below 1, given {decay}"
            raise ValueError(msg)
        self.module, self.decay = module, decay
        self.values: dict[str, Tensor] = {name: p.detach().clone() for name, p in module.named_parameters()}

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Takes in the weights after a step."""
        share = 1 - min(self.decay, (1 + step) / (10 + step))
        for name, parameter in self.module.named_parameters():
            self.values[name].lerp_(parameter, share)

    @torch.no_grad()
    def release(self) -> None:
        """Gives the module the averages for weights."""
        for name, parameter in self.module.named_parameters():
            parameter.copy_(self.values[name])
