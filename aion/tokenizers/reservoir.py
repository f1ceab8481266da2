r"""A sample of a stream of values that may be longer than memory, the same however the stream is cut into batches.

The n-th value of a component gets a random priority, a number that depends on nothing but (seed, component, n), and the
sample is the values of lowest priority: a sample without replacement in which every value is as likely as any other.
No state of a random generator is carried along, so that one batch or many, one run or two with a file between them,
end with the same bits.

Up to its capacity N the sample is everything and quantiles are exact. Beyond, the share of the stream below the
sample's quantile of level p is within :math:`\epsilon` of p at all p together with a probability of at least
:math:`1 - 2e^{-2N\epsilon^2}` (Dvoretzky, Kiefer and Wolfowitz): within :math:`2/\sqrt N` in all but 1 of 1490 samples.
The smallest and the largest value and the number of values are exact always.

References:
    | Random sampling with a reservoir (Vitter, 1985), ACM Transactions on Mathematical Software 11, 37
    | The tight constant in the Dvoretzky-Kiefer-Wolfowitz inequality (Massart, 1990), Annals of Probability 18, 1269
    | Parallel random numbers: as easy as 1, 2, 3 (Salmon et al., 2011), SC11
"""

__all__ = ["Reservoir"]

import json

from pathlib import Path

import numpy as np
import torch

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from aion.observations import Scalar
from aion.whole import whole

FORMAT = "aion reservoir 1"


class Reservoir:
    """Samples each component of the scalars it is shown. It takes 12 bytes for each value that it holds.

    Arguments:
        components: length K of the vectors; 1 for plain scalars.
        capacity: most values held of each component.
        seed: which of all possible samples is drawn.

    Raises:
        ValueError: for a number of components or a capacity below 1.
    """

    def __init__(self, components: int = 1, capacity: int = 1_000_000, seed: int = 0) -> None:
        if components < 1 or capacity < 1:
            msg = f"Reservoir: wanted components >= 1 and capacity >= 1, given {components} and {capacity}"
            raise ValueError(msg)
        self.components, self.capacity, self.seed = int(components), int(capacity), int(seed)
        self.count = torch.zeros(components, dtype=torch.int64)
        self.low = torch.full((components,), torch.inf)
        self.high = torch.full((components,), -torch.inf)
        self._value = [torch.empty(0) for _ in range(components)]
        self._priority = [torch.empty(0, dtype=torch.int64) for _ in range(components)]

    @property
    def exact(self) -> bool:
        """Tells whether every value seen is held."""
        return bool((self.count <= self.capacity).all())

    @property
    def rank_error(self) -> float:
        """Returns by how much the rank of a quantile may be wrong, as a share of all values; see above."""
        return 0.0 if self.exact else 2 / self.capacity**0.5

    def update(self, scalar: Scalar) -> "Reservoir":
        """Takes the next objects of the stream, `(B,)` or `(B, K)`; NaN is left out.

        Raises:
            TypeError: for another kind of observation.
            ValueError: for another number of components.
        """
        if not isinstance(scalar, Scalar):
            msg = f"Reservoir: wanted Scalar, given {type(scalar).__name__}"
            raise TypeError(msg)
        columns = scalar.value.detach().cpu().reshape(len(scalar), -1)
        if columns.shape[1] != self.components:
            msg = f"Reservoir: wanted {self.components} component(s) per object, given {columns.shape[1]}"
            raise ValueError(msg)
        for component, column in enumerate(columns.T):
            if len(value := column[~torch.isnan(column)]):
                self._update(component, value)
        return self

    def values(self, component: int = 0) -> Tensor:
        """Returns what is held of a component, in rising order, float64; its ends are those of the whole stream.

        Raises:
            ValueError: if no value was seen.
        """
        if not self.count[component]:
            msg = f"Reservoir: component {component} has no value yet"
            raise ValueError(msg)
        ordered = self._value[component].double().sort().values
        ordered[-1], ordered[0] = self.high[component], self.low[component]
        return ordered

    def save(self, path: Path | str) -> None:
        """Writes everything needed to go on, as safetensors with the settings as JSON in its header."""
        path = Path(path)
        tensors = {"count": self.count, "low": self.low, "high": self.high}
        for component in range(self.components):
            order = self._priority[component].argsort()  # however the values came
            tensors[f"value.{component}"] = self._value[component][order]
            tensors[f"priority.{component}"] = self._priority[component][order]
        settings = {"components": self.components, "capacity": self.capacity, "seed": self.seed, "format": FORMAT}
        path.parent.mkdir(parents=True, exist_ok=True)
        with whole(path) as temporary:
            save_file(tensors, temporary, metadata={"settings": json.dumps(settings)})  # one key: they have no order

    @classmethod
    def load(cls, path: Path | str) -> "Reservoir":
        """Reads what `save` wrote.

        Raises:
            FileNotFoundError: if there is no such file.
            ValueError: if it is no reservoir.
        """
        try:
            with safe_open(path, framework="pt") as file:
                settings = json.loads((file.metadata() or {}).get("settings", "{}"))
                tensors = {key: file.get_tensor(key) for key in list(file.keys())}
        except SafetensorError as error:
            msg = f"{path} is no safetensors file: {error}"
            raise ValueError(msg) from error
        if (given := settings.pop("format", None)) != FORMAT:
            msg = f"{path} is no reservoir: wanted the format {FORMAT!r}, given {given!r}"
            raise ValueError(msg)
        new = cls(**settings)
        new.count, new.low, new.high = tensors["count"], tensors["low"], tensors["high"]
        new._value = [tensors[f"value.{component}"] for component in range(new.components)]
        new._priority = [tensors[f"priority.{component}"] for component in range(new.components)]
        return new

    def _update(self, component: int, value: Tensor) -> None:
        priority = self._draw(component, int(self.count[component]), len(value))
        self.count[component] += len(value)
        self.low[component] = torch.minimum(self.low[component], value.min())
        self.high[component] = torch.maximum(self.high[component], value.max())
        held = self._priority[component]
        if len(held) == self.capacity:  # most of a long stream ends here
            chosen = priority < held.max()
            value, priority = value[chosen], priority[chosen]
        value, priority = torch.cat([self._value[component], value]), torch.cat([held, priority])
        if len(value) > self.capacity:
            priority, lowest = torch.topk(priority, self.capacity, largest=False, sorted=False)
            value = value[lowest]
        self._value[component], self._priority[component] = value, priority

    def _draw(self, component: int, start: int, count: int) -> Tensor:
        """Returns the priorities of values number `start` and the next ones: 63 random bits each."""
        key = np.array([self.seed % 2**64, component], dtype=np.uint64)
        # One step of the counter makes four numbers.
        bits = np.random.Philox(key=key, counter=start // 4).random_raw(start % 4 + count)[start % 4 :]
        return torch.from_numpy((bits >> np.uint64(1)).astype(np.int64))
