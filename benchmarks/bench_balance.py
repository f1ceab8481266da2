"""How long ranks wait for each other on mixed 2-D and 3-D flows: `python benchmarks/bench_balance.py [RECIPE]`.

The cost of a window of each system is the processor time of a training step, measured here; the waiting of 2, 8 and
32 ranks is that of the draws, before (each rank draws 4 micro-batches of 4 windows on its own) and after (see
`aion.physics.sampling`), over 500 steps.
"""

__all__ = ["cost", "waiting"]

import sys
import time

from pathlib import Path

import torch

from aion.physics.flow import Flow
from aion.physics.recipe import load
from aion.physics.sampling import BalancedSampler, imbalance
from aion.physics.systems import simulate
from aion.physics.walrus import Walrus

STEPS, MICRO, WINDOWS = 500, 4, 4


def cost(model: Walrus, flow: Flow, repeats: int = 3) -> float:
    """Measures the processor seconds of a training step for one window."""
    spent = []
    for _ in range(repeats):
        start = time.process_time()
        model.loss(flow)["loss"].backward()
        spent.append(time.process_time() - start)
    return min(spent) / len(flow)


def waiting(costs: dict[str, float], ranks: int, group: int) -> tuple[float, float]:
    """Computes the share of the time that ranks wait for the slowest, before and after."""
    sampler = BalancedSampler(
        costs, dict.fromkeys(costs, 10_000), ranks=ranks, group=group, budget=4 * max(costs.values())
    )
    draws = torch.Generator().manual_seed(0)
    drawn = torch.randint(len(costs), (STEPS, ranks, MICRO), generator=draws)
    before = WINDOWS * torch.tensor([costs[name] for name in sorted(costs)])[drawn].sum(2)
    after = torch.tensor([[sampler.cost(step, rank) for rank in range(ranks)] for step in range(STEPS)])
    return imbalance(before), imbalance(after)


def main(recipe: str = str(Path(__file__).resolve().parent / "recipes" / "walrus-nano.toml")) -> None:
    facts = load(recipe)
    model = Walrus(**facts["model"])
    costs = {}
    for name, source in facts["data"].items():
        flow = simulate(source.get("system", name), WINDOWS, size=source.get("size"), frames=model.context + 1)
        costs[name] = cost(model, flow)
        print(f"{name:12s} {1000 * costs[name]:7.1f} ms a window, {source.get('cost', 1.0)} in the recipe")
    for ranks, group in ((2, 1), (8, 1), (8, 4), (32, 4)):
        before, after = waiting(costs, ranks, group)
        print(f"{ranks:3d} ranks in groups of {group}: waiting {before:.1%} before, {after:.1%} after")


if __name__ == "__main__":
    main(*sys.argv[1:])
