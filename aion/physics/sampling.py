r"""Draws windows of several data sets for several ranks so that all ranks do work of equal cost.

A 3-D window can cost many times what a 2-D one does; ranks that draw on their own then wait for the slowest at each
update. Three things are done about it:

- a micro-batch holds as many windows as fit a common cost;
- ranks of one group (which share a sharded model and meet in every layer) draw from the same data set at the same time,
  different windows of it;
- the micro-batches of an update, as many as there are groups times `micro`, are dealt to the groups longest first,
  each to the group that has least to do.

Everything follows from the seed and the number of the step, so that ranks agree without a message. The micro-batches
of an update are a fair draw from the data sets; which group gets which is not.

References:
    | Bounds on Multiprocessing Timing Anomalies (Graham, 1969), SIAM J. Appl. Math. 17, 416
    | Walrus: A Cross-Domain Foundation Model for Continuum Dynamics (McCabe et al., 2025), arXiv 2511.15684
"""

__all__ = ["BalancedSampler", "imbalance"]

from collections.abc import Mapping

import torch

from torch import Tensor


class BalancedSampler:
    """Says which windows each rank computes at each step.

    Arguments:
        costs: of one window of each data set, in any unit (seconds are best), by name.
        lengths: number of windows of each.
        ranks: number of ranks.
        group: ranks in a group; divides `ranks`.
        micro: micro-batches of each group at each step, on average.
        budget: cost of a micro-batch; that of one window of the costliest data set if not given.
        weights: how often each data set is drawn; all alike if not given.
        seed: of the draws.

    Raises:
        ValueError: for names that differ, numbers that are not positive or a group that does not divide the ranks.
    """

    def __init__(
        self,
        costs: Mapping[str, float],
        lengths: Mapping[str, int],
        *,
        ranks: int = 1,
        group: int = 1,
        micro: int = 4,
        budget: float | None = None,
        weights: Mapping[str, float] | None = None,
        seed: int = 0,
    ) -> None:
        weights = dict.fromkeys(costs, 1.0) if weights is None else weights
        if not costs or not set(costs) == set(lengths) == set(weights):
            msg = f"BalancedSampler: wanted the same names, given {sorted(costs)}, {sorted(lengths)}, {sorted(weights)}"
            raise ValueError(msg)
        budget = max(costs.values()) if budget is None else budget
        if (
            min(*costs.values(), *lengths.values(), *weights.values(), ranks, group, micro, budget) <= 0
            or ranks % group
        ):
            msg = "BalancedSampler: wanted positive numbers and a group that divides the ranks, given "
            msg += f"group {group} of {ranks}, micro {micro}, budget {budget}, costs {costs}, lengths {lengths}"
            raise ValueError(msg)
        self.names, self.costs, self.lengths = sorted(costs), dict(costs), dict(lengths)
        self.groups, self.group, self.micro, self.seed = ranks // group, group, micro, seed
        self.weights = torch.tensor([float(weights[name]) for name in self.names])
        fits = {name: max(1, round(budget / cost)) for name, cost in costs.items()}
        self.sizes = {name: min(size, max(1, lengths[name] // group)) for name, size in fits.items()}

    def batches(self, step: int, rank: int) -> list[tuple[str, Tensor]]:
        """Returns the micro-batches of a rank at a step: data set and numbers of windows, none twice in a group."""
        draws = torch.Generator().manual_seed(self.seed * 1_000_003 + step)
        result = []
        own = self._dealt(draws)[rank // self.group]
        for number, name in own:
            size, place = self.sizes[name], rank % self.group
            order = torch.Generator().manual_seed((self.seed * 1_000_003 + step) * 1009 + number)
            windows = torch.randperm(self.lengths[name], generator=order)[: size * self.group]
            result.append((name, windows[place :: self.group]))
        return result

    def cost(self, step: int, rank: int) -> float:
        """Returns the cost of what a rank does at a step."""
        return sum(self.costs[name] * len(windows) for name, windows in self.batches(step, rank))

    def _dealt(self, draws: torch.Generator) -> list[list[tuple[int, str]]]:
        """Deals the numbered micro-batches of a step to the groups."""
        count = self.groups * self.micro
        drawn = torch.multinomial(self.weights, count, replacement=True, generator=draws).tolist()
        names = [self.names[index] for index in drawn]
        todo = [(self.costs[name] * self.sizes[name], number, name) for number, name in enumerate(names)]
        hands: list[list[tuple[int, str]]] = [[] for _ in range(self.groups)]
        load = [0.0] * self.groups
        for cost, number, name in sorted(todo, key=lambda part: (-part[0], part[1])):
            least = load.index(min(load))
            hands[least].append((number, name))
            load[least] += cost
        return hands


def imbalance(costs: Tensor) -> float:
    """Computes the share of time that ranks wait for the slowest, from the cost of each at each step, `(S, R)`."""
    slowest = costs.amax(1)
    return float(1 - costs.mean() / slowest.mean())
