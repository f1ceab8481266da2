r"""Scalars as tokens: bins whose edges are quantiles of many values, spaced evenly in their normal score.

Bin k holds `edges[k] <= x < edges[k + 1]`, the last one its upper edge too; where the edges lie is told in
`aion.tokenizers.edges`. NaN means "not measured" and has no token. A vector of K numbers gives K tokens, each component
with edges of its own.

References:
    | AION-1: Omnimodal Foundation Model for Astronomical Sciences (Parker et al., 2025), arXiv 2510.17960
"""

__all__ = ["ScalarTokenizer"]

import math
import warnings

from collections.abc import Iterable, Sequence
from dataclasses import replace

import torch

from torch import Tensor

from aion.observations import Scalar, near_miss
from aion.posterior import Posterior
from aion.tokenizers.base import Tokenizer
from aion.tokenizers.edges import apart, quantiles
from aion.tokenizers.reservoir import Reservoir
from aion.tokens import Tokens

PERIODS = (0.25, 400.0)  # rungs
TRANSFORMS = ("asinh", "log", "none")
SPACINGS = ("log1p", "normal", "quantile")
BEYOND = ("clip", "error", "warn")


class ScalarTokenizer(Tokenizer):
    """Bins scalars, or vectors of them.

    Arguments:
        bins: number of bins, which is the number of ids.
        components: length K of the vector.
        rung: for redshifts, the step of a ladder in ln wavelength, see `codebook`.
        transform: in what a bin is straight, `"none"`, `"log"` or `"asinh"`: its centre, which is what an id is decoded
            as, is half-way in x, in ln x or in asinh(x / softening), and so are quantiles between two values.
        softening: of `"asinh"`; None for the median of |x| of each component, which `fit` then finds.
        limits: the outermost edges, of all components; by default the smallest and the largest value seen by `fit`,
            which takes values beyond them for the limits.
        beyond: what `encode` does with values beyond the outermost edges: silently `"clip"` them to the outermost bins,
            do so and `"warn"`, once, or `"error"`, where the outermost bin would mean something else, as for redshifts.
            `clipped` tells which values they are, and `loss` their share.

    Raises:
        ValueError: for fewer than two bins or one component, an unknown transform or policy (with the near misses), a
            softening that is not positive or has nothing to soften, or limits that do not increase.
    """

    kind = "scalar"
    observation = Scalar

    def __init__(
        self,
        bins: int = 1024,
        components: int = 1,
        rung: float | None = None,
        transform: str = "none",
        softening: float | None = None,
        limits: Sequence[float] | None = None,
        beyond: str = "clip",
    ) -> None:
        limits = None if limits is None else [float(limit) for limit in limits]
        options = {"transform": transform, "softening": softening, "limits": limits, "beyond": beyond}
        usual = {"transform": "none", "softening": None, "limits": None, "beyond": "clip"}
        # Named only where they are used, so that the hashes of older models stay as they are.
        options = {name: value for name, value in options.items() if value != usual[name]}
        super().__init__(bins=bins, components=components, rung=rung, **options)
        if bins < 2 or components < 1:
            msg = f"ScalarTokenizer: wanted bins >= 2 and components >= 1, given {bins} and {components}"
            raise ValueError(msg)
        _check_options(transform, softening, limits, beyond)
        self.rung, self.transform, self.limits, self.beyond = rung, transform, limits, beyond
        low, high = limits or ((1e-3, 1.0) if transform == "log" else (0.0, 1.0))
        self.register_buffer("edges", torch.linspace(low, high, bins + 1).repeat(components, 1))
        if transform == "asinh":
            self.register_buffer("softening", torch.full((components,), softening or 1.0))

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
        scale = "" if self.transform == "none" else f" of its {self.transform}"
        return f"Scalar, {self.size} bins{scale}{vector} from {low:.4g} to {high:.4g}"

    def fit(self, scalar: Scalar | Iterable[Scalar] | Reservoir, spacing: str = "normal") -> "ScalarTokenizer":
        """Sets the edges from values; NaN is left out.

        Arguments:
            scalar: values to learn from: all at once, batch after batch (more than a million values of a component are
                sampled by a `Reservoir`), or a reservoir that was filled elsewhere.
            spacing: `"normal"` for equal steps in the normal score, see above, `"quantile"` for bins of equal
                probability, `"log1p"` for equal steps in ln(1 + x).

        Raises:
            ValueError: for another number of components, another spacing, a component without two different values,
                values without a logarithm where one is asked for, or values beyond the limits if that is an error.
        """
        if spacing not in SPACINGS:
            msg = f"ScalarTokenizer.fit: unknown spacing {spacing!r}; {near_miss(spacing, SPACINGS)}"
            raise ValueError(msg)
        if not isinstance(scalar, Reservoir):
            batches = [scalar] if isinstance(scalar, Scalar) else scalar
            capacity = len(scalar) if isinstance(scalar, Scalar) else 1_000_000
            scalar = Reservoir(self.components, capacity)
            for batch in batches:
                self.check(batch)
                self._columns(batch)
                scalar.update(batch)
        if scalar.components != self.components:
            msg = f"wanted {self.components} component(s) per object, given {scalar.components}"
            raise ValueError(msg)
        for component in range(self.components):
            self.edges[component] = self._place(scalar, component, spacing).to(self.edges)
        return self

    def clipped(self, observation: Scalar) -> Tensor:
        """Tells which values lie beyond the outermost edges, `(B, K)`; their mean over what is measured is a share."""
        value = self._columns(observation)
        return (value < self.edges[:, 0]) | (value > self.edges[:, -1])

    def places(self, observation: Scalar) -> Tokens:
        """Returns the tokens that such an observation has, `(B, K)`, whatever its values; their ids mean nothing."""
        self.check(observation)
        valid = ~torch.isnan(self._columns(observation))
        component = torch.arange(self.components, device=valid.device).expand(valid.shape)
        position = torch.stack([torch.zeros_like(component), component], dim=-1).float()
        return Tokens(ids=torch.zeros_like(component), position=position, valid=valid)

    def encode(self, observation: Scalar) -> Tokens:
        """Bins `(B,)` or `(B, K)` values as `(B, K)` tokens; NaN is not valid.

        Raises:
            TypeError: for another kind of observation.
            ValueError: for another number of components, or values beyond the outermost edges if that is an error.
        """
        place, value = self.places(observation), self._columns(observation)
        if self.beyond != "clip":
            self._report(self.clipped(observation), value)
        ids = torch.searchsorted(self.edges[:, 1:-1].contiguous(), value.T.contiguous(), right=True).T
        return replace(place, ids=ids.masked_fill(~place.valid, 0))

    def decode(self, tokens: Tokens, like: Scalar | None = None) -> Scalar:
        """Returns the centre of each token's bin, `(B,)` for one component, else `(B, K)`; NaN where not valid.

        Raises:
            ValueError: for an id that there is not, or a token of a component that there is not.
        """
        self.check_tokens(tokens, like)
        component = tokens.position[..., 1].round().long()
        if (bad := tokens.valid & ((component < 0) | (component >= self.components))).any():
            msg = f"scalar tokens: wanted components in [0, {self.components}), given {component[bad][0].item()}"
            raise ValueError(msg)
        rows = torch.arange(len(tokens), device=component.device)[:, None].expand_as(component)[tokens.valid]
        component, ids = component[tokens.valid], tokens.ids[tokens.valid].long()
        out = self.edges.new_full((len(tokens), self.components), math.nan)
        out[rows, component] = self.centers[component, ids]
        return Scalar(out[:, 0] if self.components == 1 else out)

    @property
    def centers(self) -> Tensor:
        """Returns what ids are decoded as, half-way between the edges after the transform, `(K, size)`."""
        edges = torch.stack([self._compress(row, k) for k, row in enumerate(self.edges.double())])
        middle = (edges[:, 1:] + edges[:, :-1]) / 2
        middle = torch.stack([self._expand(row, k) for k, row in enumerate(middle)]).to(self.edges)
        # Between neighbouring normal numbers there is none: such a bin stands for its lower edge alone.
        normal = (middle == 0) | (middle.abs() >= torch.finfo(torch.float32).tiny)
        return torch.where(normal & (middle < self.edges[:, 1:]), middle, self.edges[:, :-1])

    def posterior(self, probabilities: Tensor) -> Posterior:
        """Reads probabilities of the ids `(B, size)` as a density of the scalar, even within each bin.

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

    def residual(self, observation: Scalar) -> Tensor:
        """Returns by how many half widths of its bin a round trip misses each value, after the transform, `(B, K)`.

        At most 1, but for rounding, between the outermost edges; beyond them as if the value were the edge. NaN where
        not measured.
        """
        tokens, columns = self.encode(observation), []
        value = self._columns(observation).maximum(self.edges[:, 0]).minimum(self.edges[:, -1])
        for k, edges in enumerate(self.edges.double()):
            straight, ids = self._compress(edges, k), tokens.ids[:, k]
            middle = self._compress(self.centers[k].double(), k)[ids]
            error = (self._compress(value[:, k].double(), k) - middle).abs()
            columns.append((2 * error / straight.diff()[ids]).masked_fill(~tokens.valid[:, k], math.nan))
        return torch.stack(columns, dim=1)

    def loss(self, observation: Scalar, generator: torch.Generator | None = None) -> dict[str, Tensor]:
        """Computes the mean squared error of a round trip and the share of values beyond the outermost edges.

        There is nothing to train but `fit`.
        """
        columns, clipped = self._columns(observation), self.clipped(observation)
        decoded = self._columns(self.decode(self.encode(observation)))
        count = observation.measured.sum().clamp(min=1)
        return {
            "loss": torch.nan_to_num(columns - decoded).square().sum() / count,
            "clipped": clipped.sum() / count,
        }

    def codebook(self, dim: int = 64) -> Tensor:
        """Returns sines and cosines of the rank of each bin, eight octaves of them, `(size, 16)`.

        With `rung` they are those of the position ln(1 + x) / rung, with periods from a quarter of a rung to 400 of
        them, `(size, dim)`. A redshift shifts a spectrum by that many rungs: from the position of a line to the
        redshift it then takes one rotation, the same for all redshifts, and not a table.
        """
        if self.rung is not None:
            position = ((self.edges[0, 1:].double() + self.edges[0, :-1].double()) / 2).log1p() / self.rung
            period = torch.logspace(*(math.log10(p) for p in PERIODS), dim // 2, device=position.device)
            angle = (2 * math.pi * position[:, None] / period).float()
            return torch.cat([angle.sin(), angle.cos()], dim=-1)
        rank = (torch.arange(self.size, device=self.edges.device) + 0.5) / self.size
        angle = math.pi * rank[:, None] * 2.0 ** torch.arange(8, device=rank.device)
        return torch.cat([angle.sin(), angle.cos()], dim=-1)

    def _place(self, sample: Reservoir, component: int, spacing: str) -> Tensor:
        """Returns the edges of one component, float64."""
        if not sample.low[component] < sample.high[component]:
            msg = (
                f"ScalarTokenizer.fit: component {component}: wanted at least two different values, given "
                f"{int(sample.count[component])} values"
            )
            raise ValueError(msg)
        low, high = self._ends(sample, component)
        floor = {"log1p": -1.0}.get(spacing, 0.0 if self.transform == "log" else -math.inf)
        if low <= floor:
            name, other = ("log1p", "") if spacing == "log1p" else ("a logarithm", "; transform='asinh' does not")
            msg = f"ScalarTokenizer.fit: {name} needs values above {floor:g}, given {low:.4g}{other}"
            raise ValueError(msg)
        if self.transform == "asinh" and "softening" not in self.config:
            if not (softening := sample.values(component).abs().median()) > 0:
                msg = f"ScalarTokenizer.fit: component {component} is mostly 0: give softening="
                raise ValueError(msg)
            self.softening[component] = softening
        ends = torch.tensor([low, high], dtype=torch.float64)
        if spacing == "log1p":
            edges = torch.lerp(*ends.log1p(), torch.linspace(0, 1, self.size + 1, dtype=torch.float64)).expm1()
        else:
            ordered = self._compress(sample.values(component).clamp(*ends), component)
            straight = self._compress(ends, component)
            edges = quantiles(ordered, straight, self.size, spacing, lambda value: self._expand(value, component))
        return apart(torch.cat([ends[:1], edges[1:-1].clamp(*ends), ends[1:]]))

    def _ends(self, sample: Reservoir, component: int) -> tuple[float, float]:
        """Returns the outermost edges of one component."""
        low, high = sample.low[component].item(), sample.high[component].item()
        if self.limits is None:
            return low, high
        if self.beyond == "error" and (low < self.limits[0] or high > self.limits[1]):
            msg = f"ScalarTokenizer.fit: wanted values within the limits {self.limits}, given {low:.4g} to {high:.4g}"
            raise ValueError(msg)
        return tuple(self.limits)

    def _compress(self, value: Tensor, component: int) -> Tensor:
        if self.transform == "none":
            return value
        # Zero has no logarithm; nothing below the lowest edge is asked for.
        return value.log() if self.transform == "log" else (value / self.softening[component].to(value)).asinh()

    def _expand(self, value: Tensor, component: int) -> Tensor:
        if self.transform == "none":
            return value
        return value.exp() if self.transform == "log" else value.sinh() * self.softening[component].to(value)

    def _report(self, clipped: Tensor, value: Tensor) -> None:
        if not clipped.any():
            return
        low, high = self.edges[:, 0].min().item(), self.edges[:, -1].max().item()
        where = f"the bins, which reach from {low:.6g} to {high:.6g}"
        if self.beyond == "error":
            row, component = clipped.nonzero()[0].tolist()
            msg = (
                f"row {row} ({int(clipped.any(1).sum())} such rows): {value[row, component].item():.6g} lies beyond "
                f"{where}; set it to NaN to leave it out"
            )
            raise ValueError(msg)
        # Without numbers that change, so that Python shows it once.
        warnings.warn(f"values beyond {where}, share the ids of the outermost ones; see clipped()", stacklevel=3)

    def _columns(self, scalar: Scalar) -> Tensor:
        value = scalar.value[:, None] if scalar.value.ndim == 1 else scalar.value
        if value.shape[1] != self.components:
            msg = f"wanted {self.components} component(s) per object, given {value.shape[1]}"
            raise ValueError(msg)
        return value


def _check_options(transform: str, softening: float | None, limits: list[float] | None, beyond: str) -> None:
    for name, value, known in (("transform", transform, TRANSFORMS), ("policy beyond=", beyond, BEYOND)):
        if value not in known:
            msg = f"ScalarTokenizer: unknown {name} {value!r}; {near_miss(value, known)}"
            raise ValueError(msg)
    if softening is not None and (transform != "asinh" or not 0 < softening < math.inf):
        msg = f"ScalarTokenizer: softening is a positive number, for transform='asinh' alone, given {softening!r}"
        raise ValueError(msg)
    if limits is not None and (len(limits) != 2 or not -math.inf < limits[0] < limits[1] < math.inf):
        msg = f"ScalarTokenizer: limits are two finite numbers, the smaller first, given {limits}"
        raise ValueError(msg)
