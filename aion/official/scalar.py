r"""Scalars as the published checkpoints read them: quantiles of the value or of its logarithm, or an even grid.

A vector, such as the coefficients of a Gaia XP spectrum, is one scalar after the other, each with a table of its own.
See `aion.official.table` for what an id means.
"""

__all__ = [
    "FUNCTIONS",
    "OfficialGridScalarTokenizer",
    "OfficialLogScalarTokenizer",
    "OfficialMultiScalarTokenizer",
    "OfficialScalarTokenizer",
]

import math

from collections.abc import Callable, Sequence

import torch

from torch import Tensor, nn

from aion.observations import Scalar, near_miss
from aion.official.table import Reservoir, TableTokenizer

# What the configuration of a vector may name, and no other function of torch.
FUNCTIONS: dict[str, Callable[[Tensor], Tensor]] = {
    name: getattr(torch, name)
    for name in (
        "arcsinh",
        "arctanh",
        "asinh",
        "atanh",
        "exp",
        "exp2",
        "expm1",
        "log",
        "log10",
        "log1p",
        "log2",
        "logit",
        "neg",
        "reciprocal",
        "sigmoid",
        "sinh",
        "sqrt",
        "square",
        "tanh",
    )
}


class OfficialScalarTokenizer(TableTokenizer):
    """Looks values up in the quantiles of a sample.

    Arguments:
        modality: published name of what is read.
        codebook_size: length K of the table.
        reservoir_size: length of the sample.
        vocabulary: see `PublishedTokenizer`.
        parity: whether NaN gets the last id and saturation is silent.
    """

    kind = "official-scalar"
    codec = "ScalarCodec"

    def __init__(
        self,
        modality: str,
        codebook_size: int,
        reservoir_size: int,
        vocabulary: int | None = None,
        parity: bool = False,
    ) -> None:
        super().__init__(
            modality=modality,
            codebook_size=codebook_size,
            reservoir_size=reservoir_size,
            vocabulary=vocabulary,
            parity=parity,
        )
        self.quantizer = Reservoir(codebook_size, reservoir_size)

    @property
    def table(self) -> Tensor:
        """Returns the table `(1, K)`."""
        return self.quantizer.index_to_val[None]


class OfficialLogScalarTokenizer(TableTokenizer):
    """Looks natural logarithms up in the quantiles of a sample of them.

    Values below exp(`min_log_value`), negative ones too, share the id of that value: the published models have seen
    noisy fluxes so. By default there is a warning.

    Arguments:
        modality: published name of what is read.
        codebook_size: length K of the table.
        reservoir_size: length of the sample.
        min_log_value: smallest logarithm.
        vocabulary: see `PublishedTokenizer`.
        parity: whether NaN gets the last id and saturation is silent.

    Raises:
        ValueError: without `min_log_value`: zero and negative values would have no id.
    """

    kind = "official-log-scalar"
    codec = "LogScalarCodec"

    def __init__(
        self,
        modality: str,
        codebook_size: int,
        reservoir_size: int,
        min_log_value: float = -3,
        vocabulary: int | None = None,
        parity: bool = False,
    ) -> None:
        super().__init__(
            modality=modality,
            codebook_size=codebook_size,
            reservoir_size=reservoir_size,
            min_log_value=min_log_value,
            vocabulary=vocabulary,
            parity=parity,
        )
        if min_log_value is None:
            msg = "OfficialLogScalarTokenizer: wanted min_log_value as a number, given None"
            raise ValueError(msg)
        self.lowest = math.exp(min_log_value)
        self.quantizer = Reservoir(codebook_size, reservoir_size, float(min_log_value))

    @property
    def table(self) -> Tensor:
        """Returns the table of logarithms `(1, K)`."""
        return self.quantizer.index_to_val[None]

    def compress(self, value: Tensor) -> Tensor:
        """Takes the logarithm of what is not below the smallest value."""
        return value.clamp(min=self.lowest).log()

    def expand(self, value: Tensor) -> Tensor:
        """Takes the exponential."""
        return value.exp()

    def saturated(self, observation: Scalar) -> Tensor:
        """Tells which values lie beyond the table or below the smallest `(B, 1)`."""
        return super().saturated(observation) | (self._columns(observation) < self.lowest)


class OfficialGridScalarTokenizer(TableTokenizer):
    """Looks redshifts up in an even grid.

    By default a value beyond the grid is refused: the outermost id would be a wrong redshift.

    Arguments:
        modality: published name of what is read.
        codebook_size: length K of the grid.
        vocabulary: see `PublishedTokenizer`.
        parity: whether NaN gets the last id and saturation is silent.
    """

    kind = "official-grid-scalar"
    codec = "GridScalarCodec"

    def __init__(self, modality: str, codebook_size: int, vocabulary: int | None = None, parity: bool = False) -> None:
        super().__init__(modality=modality, codebook_size=codebook_size, vocabulary=vocabulary, parity=parity)
        self.quantizer = nn.Module()
        self.quantizer.register_buffer("buckets", torch.linspace(0, 1, codebook_size))

    @property
    def table(self) -> Tensor:
        """Returns the grid `(1, K)`."""
        return self.quantizer.buckets[None]

    def _report(self, saturated: Tensor) -> None:
        if saturated.any():
            low, high = self._range()
            rows = saturated[:, 0].nonzero().flatten().tolist()
            msg = (
                f"row {rows[0]} ({len(rows)} such rows): the published model knows {self.config['modality']} only "
                f"from {low:.4g} to {high:.4g}; set others to NaN, which leaves them out"
            )
            raise ValueError(msg)


class OfficialMultiScalarTokenizer(TableTokenizer):
    """Looks each component of a vector up in a table of its own, such as the coefficients of a Gaia XP spectrum.

    Arguments:
        modality: published name of what is read.
        compression_fns: functions applied to a value, in order, before it is looked up; see `FUNCTIONS`.
        decompression_fns: the inverse of each.
        codebook_size: length K of each table.
        reservoir_size: length of each sample.
        num_quantizers: number of components.
        vocabulary: see `PublishedTokenizer`.
        parity: whether NaN gets the last id and saturation is silent.

    Raises:
        ValueError: for unknown functions (with the near misses) or such as are no inverses.
    """

    kind = "official-multi-scalar"
    codec = "MultiScalarCodec"

    def __init__(
        self,
        modality: str,
        compression_fns: Sequence[str],
        decompression_fns: Sequence[str],
        codebook_size: int,
        reservoir_size: int,
        num_quantizers: int,
        vocabulary: int | None = None,
        parity: bool = False,
    ) -> None:
        super().__init__(
            modality=modality,
            compression_fns=list(compression_fns),
            decompression_fns=list(decompression_fns),
            codebook_size=codebook_size,
            reservoir_size=reservoir_size,
            num_quantizers=num_quantizers,
            vocabulary=vocabulary,
            parity=parity,
        )
        for name in (*compression_fns, *decompression_fns):
            if name not in FUNCTIONS:
                msg = f"OfficialMultiScalarTokenizer: unknown function {name!r}; {near_miss(name, FUNCTIONS)}"
                raise ValueError(msg)
        one = torch.ones((), device="cpu", dtype=torch.float64)
        if not torch.isclose(self.expand(self.compress(one)), one):
            msg = (
                f"OfficialMultiScalarTokenizer: {list(decompression_fns)} in reverse order do not undo "
                f"{list(compression_fns)}"
            )
            raise ValueError(msg)
        self.components = num_quantizers
        self.quantizer = nn.Module()
        self.quantizer.quantizers = nn.ModuleList(
            Reservoir(codebook_size, reservoir_size) for _ in range(num_quantizers)
        )

    @property
    def table(self) -> Tensor:
        """Returns the tables `(components, K)`."""
        return torch.stack([part.index_to_val for part in self.quantizer.quantizers])

    def compress(self, value: Tensor) -> Tensor:
        """Applies the functions in order."""
        for name in self.config["compression_fns"]:
            value = FUNCTIONS[name](value)
        return value

    def expand(self, value: Tensor) -> Tensor:
        """Applies the inverses in reverse order."""
        for name in reversed(self.config["decompression_fns"]):
            value = FUNCTIONS[name](value)
        return value
