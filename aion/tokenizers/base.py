r"""What every tokenizer is: encode, decode, a loss, a size.

A tokenizer turns an observation into `Tokens` with ids in `[0, size)` and decodes tokens on the grid of a template
(`like`), since the grid belongs to the observation, not to the tokenizer. Those with a learned bottleneck are trained
by the likelihood of the measured pixels: with residual r, pixel variance :math:`1/w` and the model's own predicted
error :math:`s`, each pixel costs :math:`\frac12 [r^2/(1/w + s^2) + \ln(1 + w s^2)]`. The second error keeps pixels of
extreme S/N from ruling the loss and becomes the ivar of what is decoded.
"""

__all__ = ["Tokenizer", "correlation_penalty", "gaussian_nll", "spread_penalty"]

from abc import ABC, abstractmethod
from typing import ClassVar

import torch

from torch import Tensor, nn

from aion.observations import Observation
from aion.tokens import Tokens


def gaussian_nll(residual: Tensor, ivar: Tensor, error: Tensor) -> Tensor:
    """Computes the negative log likelihood of each pixel above that of a perfect model; 0 where ivar is 0.

    Arguments:
        residual: observed minus decoded flux, any shape.
        ivar: inverse variance of the observed flux, same shape; pixels with 0 contribute exactly 0.
        error: the decoder's own 1-sigma error, same shape.
    """
    inflation = 1 + ivar * error**2
    return 0.5 * (residual**2 * ivar / inflation + inflation.log())


def spread_penalty(latent: Tensor) -> Tensor:
    """Penalises latents `(M, d)` whose mean is not 0 or whose variance is not 1 in some dimension.

    Without it latents drift to where the tanh of the quantiser is flat and most codes die: after 840 steps of a
    spectrum tokenizer two of six dimensions had 96 % of their values on one level.
    """
    if latent.shape[0] < 2:
        return latent.sum() * 0
    mean, std = latent.mean(0), latent.var(0, correction=0).clamp(min=1e-12).sqrt()
    return (mean.square() + (std - 1).square()).mean()


def correlation_penalty(latent: Tensor) -> Tensor:
    """Penalises latents `(M, d)` whose dimensions go together: the mean square of their correlations.

    Dimensions that repeat each other leave most of the codes, which are their combinations, unused.
    """
    if latent.shape[0] < 2 or latent.shape[1] < 2:
        return latent.sum() * 0
    centred = latent - latent.mean(0)
    centred = centred / centred.square().mean(0).clamp(min=1e-12).sqrt()
    correlation = centred.T @ centred / len(latent)
    size = latent.shape[1]
    return (correlation.square().sum() - correlation.diagonal().square().sum()) / (size * (size - 1))


class Tokenizer(nn.Module, ABC):
    """Turns observations of one kind into tokens and back.

    Subclasses set `kind` and `observation`, and call `super().__init__` with their keyword arguments, which are plain
    JSON values and are all that is needed to build them again.
    """

    kind: ClassVar[str]
    observation: ClassVar[type[Observation]]

    def __init__(self, **config: object) -> None:
        super().__init__()
        self.config = {"kind": self.kind, **config}

    @property
    @abstractmethod
    def size(self) -> int:
        """Returns the number of ids."""

    @abstractmethod
    def encode(self, observation: Observation) -> Tokens:
        """Turns an observation into tokens; what was not measured has no valid token."""

    def places(self, observation: Observation) -> Tokens:
        """Returns the tokens that any observation on this grid has, whatever its values; their ids mean nothing."""
        return self.encode(observation)

    @abstractmethod
    def decode(self, tokens: Tokens, like: Observation | None = None) -> Observation:
        """Turns tokens into an observation on the grid of `like`; ivar is 0 where nothing is known."""

    @abstractmethod
    def loss(self, observation: Observation, generator: torch.Generator | None = None) -> dict[str, Tensor]:
        """Computes what training minimises, `loss`, and other named figures worth watching."""

    @abstractmethod
    def codebook(self, dim: int = 64) -> Tensor:
        """Returns a vector for each id, `(size, d)`, near each other where the ids mean similar things.

        Arguments:
            dim: width of the transformer that asks, for codebooks made of positions.
        """

    def possible(self, position: Tensor) -> Tensor | None:
        """Tells which ids a token at `position` `(B, N, 2)` may have, `(B, N, size)`; None if all may."""
        return None

    def coverage(self, observation: Observation) -> Tensor:
        """Returns the share of the measured values of each object that is read, `(B,)`; 1 for those with none."""
        return torch.ones(len(observation), device=observation.device)

    def describe(self) -> str:
        """Says in a few words what is read and how."""
        return f"{self.observation.__name__}, {self.size} codes"

    def check(self, observation: Observation) -> None:
        """Refuses an observation of another kind."""
        if not isinstance(observation, self.observation):
            wanted, given = self.observation.__name__, type(observation).__name__
            hint = f": join several with {wanted}.stack" if isinstance(observation, list | tuple) else ""
            msg = f"wanted {wanted}, given {given}{hint}"
            raise TypeError(msg)

    def check_name(self, name: str, observation: Observation) -> None:
        """Refuses an observation that cannot be what the modality `name` stands for; by default none."""

    def check_tokens(self, tokens: Tokens, like: Observation | None = None) -> None:
        """Refuses valid tokens with an id that there is not, and a `like` of another kind or number of objects."""
        if like is not None:
            self.check(like)
            if len(like) != len(tokens):
                wanted = f"{self.kind} tokens: wanted like= of as many objects as the tokens"
                msg = f"{wanted}, {len(tokens)}, given {len(like)}"
                raise ValueError(msg)
        if (bad := tokens.valid & ((tokens.ids < 0) | (tokens.ids >= self.size))).any():
            msg = f"{self.kind} tokens: ids must lie in [0, {self.size}), given {tokens.ids[bad][0].item()}"
            raise ValueError(msg)
