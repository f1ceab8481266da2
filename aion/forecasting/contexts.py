"""What an object is conditioned on as a whole, such as its embedding: checked, and brought to unit variance."""

__all__ = ["Contexts", "prepared"]

import torch

from torch import Tensor, nn


class Contexts(nn.Module):
    """Maps contexts `(B, E)` to zero mean and unit variance of each number.

    Arguments:
        width: E.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("scale", torch.ones(width))

    def fit(self, contexts: Tensor) -> None:
        """Takes mean and standard deviation; of numbers that do not vary nothing will be seen."""
        spread = contexts.std(0, correction=0)
        self.mean.copy_(contexts.mean(0))
        self.scale.copy_(torch.where(spread > 1e-6 * spread.max(), spread, torch.inf))

    def forward(self, contexts: Tensor) -> Tensor:
        """Normalises."""
        return (contexts.detach().to(self.mean) - self.mean) / self.scale

    def check(self, contexts: Tensor | None, number: int) -> None:
        """Refuses what is not a finite context for each of some objects.

        Raises:
            ValueError: saying what was wanted.
        """
        wanted = (number, len(self.mean))
        if contexts is None or tuple(contexts.shape) != wanted or not contexts.isfinite().all():
            given = None if contexts is None else tuple(contexts.shape)
            msg = f"contexts: wanted finite {wanted}, given {given}: the network is conditioned on them"
            raise ValueError(msg)


def prepared(normaliser: Contexts | None, contexts: Tensor | None, number: int, learn: bool = False) -> Tensor | None:
    """Checks and normalises the contexts of some objects, or None where there are none to be.

    Arguments:
        normaliser: None if nothing is conditioned on them.
        contexts: `(number, E)`.
        number: of objects.
        learn: takes mean and standard deviation of them first.

    Raises:
        ValueError: if there are some and none were wanted, or the reverse, or they do not fit.
    """
    if normaliser is None:
        if contexts is not None:
            msg = f'contexts: wanted none, given {tuple(contexts.shape)}: network={{"context": E}} takes some'
            raise ValueError(msg)
        return None
    normaliser.check(contexts, number)
    if learn:
        normaliser.fit(contexts)
    return normaliser(contexts)
