"""What `physics.py` would take: minutes of one thread, from the time of a few passes."""

__all__ = ["Costs", "costs", "plan"]

import time

from collections.abc import Callable, Mapping, Sequence
from statistics import mean
from typing import NamedTuple

from physics_baselines import UNet

from aion.physics.systems import simulate
from aion.physics.walrus import Walrus

COUNT = 4  # flows that are timed
STEPS = 30  # of a roll-out
CUTS = 3 * (1 + 4 + 2 + 0.5 + 0.25)  # what the passes of `physics.strides` cost, in those of the first stride


class Costs(NamedTuple):
    """Holds minutes of one thread: of a simulated frame, a step of a roll-out, and a window that is trained on."""

    frame: float
    step: float
    learned: float
    unet_step: float = 0.0
    unet_learned: float = 0.0


def timed(run: Callable[[], object], repeats: int = 3) -> float:
    """Returns the least processor time of a few runs, for each flow."""
    spent = []
    for _ in range(repeats):
        start = time.process_time()
        run()
        spent.append(time.process_time() - start)
    return min(spent) / COUNT / 60


def costs(model: Walrus, unet: UNet, source: Mapping[str, object]) -> Costs:
    """Times what is done with the flows of a source, keyword arguments of `simulate`."""
    start = time.process_time()
    flow = simulate(**source, n=COUNT)
    frame = (time.process_time() - start) / COUNT / flow.frames / 60
    window, learned = flow.window(0, model.context), flow.window(0, model.context + 1)
    passes = [lambda: model.rollout(window, 1), lambda: model.loss(learned)["loss"].backward()]
    if len(flow.space) == 2:
        passes += [lambda: unet.forecast(window, 1), lambda: unet.loss((learned, {}))["loss"].backward()]
    return Costs(frame, *map(timed, passes))


def plan(model: Walrus, unet: UNet, recipe: Mapping, systems: Sequence[str], own: object) -> str:
    """Estimates each section of `physics.py`; `own` are its arguments."""
    sources = {name: recipe["data"].get(name, {}) for name in systems}
    options = {n: {k: v for k, v in s.items() if k not in {"n", "seed", "cost", "frames"}} for n, s in sources.items()}
    found = {n: costs(model, unet, {"system": n, "frames": 8, **o}) for n, o in options.items()}
    planes, batch = [c for c in found.values() if c.unet_learned], recipe["training"]["batch"]
    learned = mean(c.learned / sources[n].get("cost", 1.0) for n, c in found.items())  # a window of cost 1
    unets = own.seeds * own.unet_steps * batch * mean(c.unet_learned for c in planes) if planes else 0.0
    rolled, runs = own.trajectories * own.seeds * STEPS, 2 + min(len(own.short), own.seeds) / own.seeds
    minutes = {
        "U-Nets, training": unets,
        "U-Nets, roll-outs": rolled * sum(c.unet_step for c in planes) * bool(own.unet_steps),
        "model, roll-outs": runs * rolled * sum(c.step for c in found.values()),
        "strides": CUTS * own.trajectories * own.seeds * sum(c.step for c in planes),
        "simulated flows": own.trajectories * own.seeds * sum(36 * c.frame for c in found.values()),
    }
    lines = [f"minutes of one thread for {own.seeds} seeds, {len(own.short)} of them with a short training:"]
    lines += [f"- {name}: {value:.0f}" for name, value in minutes.items()]
    step, each = recipe["training"].get("accumulate", 1) * batch * learned, unets / own.seeds
    note = (
        f"A step of the recipe takes {60 * step:.2f} s; {each / step:.0f} are as long as a U-Net, {each:.0f} minutes."
    )
    return "\n".join([*lines, f"- all: {sum(minutes.values()):.0f}", note])
