r"""Scalars as ranks in a table of increasing values, which is what all published scalar tokenizers are.

Id k stands for the values above entry k - 1 and up to entry k of a table :math:`t_0 \le \dots \le t_{K-1}`; the first
takes all below, the last all above. Tables are quantiles of a sample (the reservoir, which is kept in the files), of
the value itself, of its logarithm or of another function of it, or an even grid. An id is decoded as its entry, the
upper end of its bin, so that values come back rounded up.
"""

__all__ = ["Reservoir", "TableTokenizer"]

import math
import warnings

from abc import abstractmethod

import torch

from torch import Tensor, nn

from aion.observations import Scalar
from aion.official.grid import place, places
from aion.official.tokenizer import PublishedTokenizer
from aion.posterior import Posterior
from aion.tokens import Tokens


class Reservoir(nn.Module):
    """Holds a sample of values and the table of its quantiles.

    Arguments:
        codebook_size: length K of the table.
        reservoir_size: length of the sample.
        value: what an empty one is filled with.
    """

    def __init__(self, codebook_size: int, reservoir_size: int, value: float = 0.0) -> None:
        super().__init__()
        self.register_buffer("reservoir", torch.full((reservoir_size,), value))
        self.register_buffer("index_to_val", torch.full((codebook_size,), value))


class TableTokenizer(PublishedTokenizer):
    """Looks scalars up in one table for each component.

    Subclasses give the table, and how values and what it holds turn into each other.

    NaN is not measured and has no valid token; by default values beyond the table get the outermost id with a warning,
    or are refused where the outermost id would mean something else. With `parity=True` they get it silently, and NaN
    gets the last.
    """

    observation = Scalar
    components = 1

    @property
    @abstractmethod
    def table(self) -> Tensor:
        """Returns the tables `(components, K)`."""

    def compress(self, value: Tensor) -> Tensor:
        """Turns values into what the table holds."""
        return value

    def expand(self, value: Tensor) -> Tensor:
        """Turns what the table holds into values."""
        return value

    @property
    def codes(self) -> int:
        """Returns the length of the table."""
        return self.config["codebook_size"]

    def describe(self) -> str:
        """Says in a few words what is read and how."""
        low, high = self._range()
        vector = f" x {self.components} components" if self.components > 1 else ""
        return f"Scalar, {self.codes} published steps{vector} from {low:.4g} to {high:.4g}"

    def verify(self) -> None:
        """Refuses a table that is not finite or decreases."""
        super().verify()
        if not torch.isfinite(self.table).all() or (self.table.diff() < 0).any():
            msg = f"{self.codec}: its table is not finite or not in order: the file is damaged"
            raise ValueError(msg)

    def saturated(self, observation: Scalar) -> Tensor:
        """Tells which values lie beyond the table `(B, components)`, so that other values share their id."""
        value = self._columns(observation)
        rank = self.compress(value)
        return (rank < self.table[:, 0]) | (rank > self.table[:, -1]) | (torch.isnan(rank) & ~torch.isnan(value))

    def encode(self, observation: Scalar) -> Tokens:
        """Turns `(B,)` or `(B, K)` values into `(B, K)` tokens at (0, k).

        Raises:
            ValueError: for another number of components, or values that saturate where that is refused.
        """
        value = self._columns(observation)
        if not self.parity:
            self._report(self.saturated(observation))
        ids = torch.searchsorted(self.table[:, :-1].contiguous(), self.compress(value).T.contiguous()).T
        valid = torch.ones_like(ids, dtype=torch.bool) if self.parity else ~torch.isnan(value)
        return Tokens(ids.masked_fill(~valid, 0), places((1, self.components), ids), valid)

    def decode(self, tokens: Tokens, like: Scalar | None = None) -> Scalar:
        """Returns the table's entry for each id, `(B,)` for one component, else `(B, K)`; NaN where there is none.

        Raises:
            ValueError: for an id beyond the vocabulary or a place beyond the components.
        """
        self.check_tokens(tokens, like)
        ids, valid = place(tokens, (1, self.components))
        valid = valid & (ids < self.codes)  # an id that the transformer knows and no value has
        value = self.table.expand(len(ids), -1, -1).gather(2, ids.clamp(max=self.codes - 1)[..., None])[..., 0]
        value = self.expand(value).masked_fill(~valid, math.nan)
        return Scalar(value[:, 0] if self.components == 1 else value)

    def posterior(self, probabilities: Tensor) -> Posterior:
        """Reads probabilities of the ids `(B, size)` as a density of the scalar.

        Each id covers the values that are encoded as it, the first as much as the second. What goes to ids that no
        value has is left out; entries of the table that are equal are one.

        Raises:
            ValueError: for a vector.
        """
        if self.components != 1:
            msg = f"a posterior needs one component, this tokenizer has {self.components}"
            raise ValueError(msg)
        table = self.expand(self.table[0].double())
        values, index = torch.unique_consecutive(table, return_inverse=True)
        if len(values) < 2:
            msg = "a posterior needs a table of at least two different values"
            raise ValueError(msg)
        joined = probabilities.new_zeros(len(probabilities), len(values))
        joined.index_add_(1, index.to(probabilities.device), probabilities[:, : self.codes])
        return Posterior(torch.cat([2 * values[:1] - values[1:2], values]).to(probabilities.device), joined)

    def loss(self, observation: Scalar, generator: torch.Generator | None = None) -> dict[str, Tensor]:
        """Computes the mean squared error of a round trip, a figure to watch: there is nothing to train."""
        columns = self._columns(observation)
        return {
            "loss": torch.nan_to_num(columns - self._columns(self.decode(self.encode(observation)))).square().mean()
        }

    def codebook(self, dim: int = 64) -> Tensor:
        """Returns sines and cosines of the rank of each id, eight octaves of them, `(size, 17)`."""
        rank = (torch.arange(self.codes, device=self.table.device) + 0.5) / self.codes
        angle = math.pi * rank[:, None] * 2.0 ** torch.arange(8, device=rank.device)
        return self._book(torch.cat([angle.sin(), angle.cos()], dim=-1))

    def _range(self) -> tuple[float, float]:
        ends = self.expand(self.table[:, [0, -1]].T).T
        return ends[:, 0].min().item(), ends[:, 1].max().item()

    def _report(self, saturated: Tensor) -> None:
        if saturated.any():
            low, high = self._range()
            msg = (  # without numbers that change, so that Python shows it once
                f"values of {self.config['modality']} beyond {low:.4g} to {high:.4g} share the outermost ids of the "
                "published table; see saturated()"
            )
            warnings.warn(msg, stacklevel=3)

    def _columns(self, scalar: Scalar) -> Tensor:
        self.check(scalar)
        value = scalar.value[:, None] if scalar.value.ndim == 1 else scalar.value
        if value.shape[1] != self.components:
            msg = f"wanted {self.components} component(s) per object, given {value.shape[1]}"
            raise ValueError(msg)
        return value
