"""Scalars as tokens: bins of equal probability, or equal steps in ln(1 + x).

Bin k holds `edges[k] <= x < edges[k + 1]`; what lies beyond the outermost edges falls into the outermost bins. NaN
means "not measured" and has no token. A vector of K numbers gives K tokens, each component with edges of its own.
"""

__all__ = ["ScalarTokenizer"]

import math

import torch

from torch import Tensor

from aion.nn.embedding import sine_cosine
from aion.observations import Scalar
from aion.posterior import Posterior
from aion.tokenizers.base import Tokenizer
from aion.tokens import Tokens


class ScalarTokenizer(Tokenizer):
    """Bins scalars, or vectors of them.

    Arguments:
        bins: number of bins, which is the number of ids.
        components: length K of the vector.
        rung: for redshifts, the step of a ladder in ln wavelength, see `codebook`.
    """

    kind = "scalar"
    observation = Scalar

    def __init__(self, bins: int = 256, components: int = 1, rung: float | None = None) -> None:
        super().__init__(bins=bins, components=components, rung=rung)
        self.rung = rung
        if bins < 2 or components < 1:
            msg = f"ScalarTokenizer: wanted bins >= 2 and components >= 1, given {bins} and {components}"
            raise ValueError(msg)
        self.register_buffer("edges", torch.linspace(0, 1, bins + 1).repeat(components, 1))

    @property
    def size(self) -> int:
        """Returns the number of ids."""
        return self.edges.shape[1] - 1

    @property
    def components(self) -> int:
        """Returns the length of the vectors read."""
        return self.edges.shape[0]

    def describe(self) -> str:
        """Says in a few words what is read and how."""
        low, high = self.edges[:, 0].min().item(), self.edges[:, -1].max().item()
        vector = f" x {self.components} components" if self.components > 1 else ""
        return f"Scalar, {self.size} bins{vector} from {low:.4g} to {high:.4g}"

    def fit(self, scalar: Scalar, spacing: str = "quantile") -> "ScalarTokenizer":
        """Sets the edges from values.

        Arguments:
            scalar: values to learn from; NaN is left out.
            spacing: `"quantile"` for bins of equal probability, `"log1p"` for equal steps in ln(1 + x).

        Raises:
            ValueError: for another number of components, another spacing, a component without two different values, or
                values of -1 and below for `"log1p"`.
        """
        self.check(scalar)
        edges = []
        for column in self._columns(scalar).T:
            value = column[~torch.isnan(column)].double()
            if value.numel() == 0 or value.min() == value.max():
                msg = f"ScalarTokenizer.fit: wanted at least two different values, given {value.numel()} values"
                raise ValueError(msg)
            level = torch.linspace(0, 1, self.size + 1, dtype=torch.float64)
            if spacing == "quantile":
                position = level * (value.numel() - 1)
                ordered = value.sort().values
                low = position.floor().long()
                high = (low + 1).clamp(max=value.numel() - 1)
                edges.append(torch.lerp(ordered[low], ordered[high], position - low))
            elif spacing == "log1p":
                if value.min() <= -1:
                    msg = f"ScalarTokenizer.fit: log1p needs values above -1, given {value.min().item():.4g}"
                    raise ValueError(msg)
                edges.append(torch.lerp(value.min().log1p(), value.max().log1p(), level).expm1())
            else:
                msg = f"ScalarTokenizer.fit: unknown spacing {spacing!r}; known: quantile, log1p"
                raise ValueError(msg)
        self.edges.copy_(torch.stack(edges))
        return self

    def encode(self, observation: Scalar) -> Tokens:
        """Bins `(B,)` or `(B, K)` values as `(B, K)` tokens; NaN is not valid."""
        self.check(observation)
        value = self._columns(observation)
        ids = torch.searchsorted(self.edges[:, 1:-1].contiguous(), value.T.contiguous(), right=True).T
        valid = ~torch.isnan(value)
        component = torch.arange(self.components, device=value.device).expand_as(ids)
        position = torch.stack([torch.zeros_like(component), component], dim=-1).float()
        return Tokens(ids=ids.masked_fill(~valid, 0), position=position, valid=valid)

    def decode(self, tokens: Tokens, like: Scalar | None = None) -> Scalar:
        """Returns the centre of each token's bin, `(B,)` for one component, else `(B, K)`; NaN where not valid."""
        component = tokens.position[..., 1].long()
        centers = (self.edges[:, 1:] + self.edges[:, :-1]) / 2
        value = centers[component, tokens.ids.clamp(0, self.size - 1)]
        out = value.new_full((len(tokens), self.components), math.nan)
        rows = torch.arange(len(tokens), device=value.device)[:, None].expand_as(component)
        out[rows[tokens.valid], component[tokens.valid]] = value[tokens.valid]
        return Scalar(out[:, 0] if self.components == 1 else out)

    def posterior(self, probabilities: Tensor) -> Posterior:
        """Reads probabilities of the ids `(B, size)` as a density of the scalar.

        Raises:
            ValueError: for a vector, or if bins of zero width leave no density to speak of.
        """
        if self.components != 1:
            msg = f"a posterior needs one component, this tokenizer has {self.components}"
            raise ValueError(msg)
        if (empty := int((self.edges[0].diff() <= 0).sum())) > 0:
            msg = (
                f"a posterior needs bins of some width, but {empty} of {self.size} have none: "
                "this scalar was fitted to many equal values"
            )
            raise ValueError(msg)
        return Posterior(self.edges[0], probabilities)

    def loss(self, observation: Scalar, generator: torch.Generator | None = None) -> dict[str, Tensor]:
        """Computes the mean squared error of a round trip, a figure to watch: there is nothing to train but `fit`."""
        columns = self._columns(observation)
        decoded = self._columns(self.decode(self.encode(observation)))
        return {"loss": torch.nan_to_num(columns - decoded).square().mean()}

    def codebook(self, dim: int = 64) -> Tensor:
        """Returns sines and cosines of the rank of each bin, eight octaves of them, `(size, 16)`.

        With `rung` they are those of the position ln(1 + x) / rung, `(size, dim)`. A redshift shifts a spectrum by
        that many rungs: from the position of a line to the redshift it then takes one rotation, the same for all
        redshifts, and not a table.
        """
        if self.rung is not None:
            position = ((self.edges[0, 1:].double() + self.edges[0, :-1].double()) / 2).log1p() / self.rung
            return sine_cosine(torch.stack([torch.zeros_like(position), position], dim=-1), dim)
        rank = (torch.arange(self.size, device=self.edges.device) + 0.5) / self.size
        angle = math.pi * rank[:, None] * 2.0 ** torch.arange(8, device=rank.device)
        return torch.cat([angle.sin(), angle.cos()], dim=-1)

    def _columns(self, scalar: Scalar) -> Tensor:
        value = scalar.value[:, None] if scalar.value.ndim == 1 else scalar.value
        if value.shape[1] != self.components:
            msg = f"wanted {self.components} component(s) per object, given {value.shape[1]}"
            raise ValueError(msg)
        return value
