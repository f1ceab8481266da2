"""How far roll-outs of a model of flows stay from the simulation, as cells that are kept: stopped, it goes on.

    python benchmarks/physics.py RUN [RUN ...] [--short RUN ...] -o RESULTS --data FLOWS [--seeds 3] [--part 0/2]

RUN is a folder that `aion physics train RECIPE -o RUN` wrote. Several are the same recipe trained with other seeds;
with fewer than `--seeds` the last is taken again with other flows and jitter, and the summary says so. Beside it stand
persistence, a linear model of principal components of each system (each seed from another three quarters of the data),
and one U-Net a seed for all 2-D systems with as many parameters, trained on windows of the same data for
`--unet-steps` steps. `--short` names trainings, by seed, that took as much processor time as a U-Net; `--plan` says how
many steps those are and how long everything would take. All flows are simulated, each seed with other initial
conditions that no recipe may train on.

A score is the median over trajectories and fields of the VRMSE, averaged over the steps of a range; errors are
standard errors over seeds. `no jitter`: the same roll-outs without. `strides`: error and processor time of one step
with patches it was and was not trained for. Two processes share the work with `--part 0/2` and `--part 1/2`; run again
until nothing is missing. `--dry` only sums up what is there.
"""

__all__ = ["contenders", "evaluate", "strides", "summary"]

import argparse
import time

from collections.abc import Callable, Mapping, Sequence
from functools import cache, partial
from pathlib import Path
from statistics import mean, median, stdev

import torch

from cells import Cells, source_hash, write
from physics_baselines import LinearModel, UNet, new_unet, trained_unet
from physics_plan import STEPS, plan

from aion.commands.command import part
from aion.physics.flow import Flow
from aion.physics.metrics import persistence, vrmse
from aion.physics.recipe import HELD_OUT, load, read_data
from aion.physics.systems import simulate_once
from aion.physics.walrus import Walrus
from aion.steering import fingerprint

HERE = Path(__file__).resolve().parent
RANGES = {"1": (0, 1), "6-12": (5, 12), "13-30": (12, 30)}
CONTENDERS = ("walrus", "no jitter", "walrus, short", "persistence", "linear", "U-Net")
BASELINES = CONTENDERS[3:]
CUTS = ((8, 8), (4, 4), (4, 8), (8, 16), (16, 16))  # strides; the first is the one that roll-outs have
Forecast = Callable[[Flow, int], Flow]


def evaluate(forecast: Forecast, flow: Flow, context: int, pool: str) -> dict[str, float]:
    """Scores roll-outs from the first frames of each trajectory by range of steps."""
    steps = min(STEPS, flow.frames - context)
    error = vrmse(forecast(flow.window(0, context), steps), flow.window(context, steps), pool)
    ranges = {name: error[:, start:stop] for name, (start, stop) in RANGES.items() if stop <= steps}
    return {name: values.mean(1).flatten().median().item() for name, values in ranges.items()}


def strides(model: Walrus, flow: Flow, repeats: int = 3) -> dict[str, list[float]]:
    """Measures the error at step 1 and the processor time of a pass by stride."""
    window, after, rows = flow.window(0, model.context), flow.window(model.context, 1), {}
    for cut in CUTS:
        spent = []
        for _ in range(repeats):
            start = time.process_time()
            predicted = model.rollout(window, 1, stride=cut, generator=torch.Generator().manual_seed(0)).flow
            spent.append(time.process_time() - start)
        rows["x".join(map(str, cut))] = [vrmse(predicted, after, "quantity").median().item(), min(spent)]
    return rows


class Sources:
    """Makes what cells need, once and not before it is needed.

    Arguments:
        arguments: those of the command.
    """

    def __init__(self, arguments: argparse.Namespace) -> None:
        self.arguments, self.recipe = arguments, load(arguments.recipe)
        self.models, self.short = (
            [Walrus.from_pretrained(run / "model") for run in runs] for runs in (arguments.runs, arguments.short)
        )
        self.train = cache(lambda: read_data(self.recipe, folder=arguments.data, progress=True))
        self.held = cache(self._held)
        self.unet = cache(self._unet)

    def model(self, seed: int) -> Walrus:
        """Returns the model of a seed, the last if there are fewer."""
        return self.models[min(seed, len(self.models) - 1)]

    def _held(self, system: str, seed: int) -> Flow:
        options = {k: v for k, v in self.recipe["data"].get(system, {}).items() if k not in {"n", "seed", "cost"}}
        return simulate_once(
            self.arguments.data, **{"system": system, **options, "n": self.arguments.trajectories}, seed=HELD_OUT + seed
        )

    def new_unet(self, seed: int) -> UNet:
        """Makes a U-Net as large as the models."""
        size = sum(p.numel() for p in self.models[0].parameters())
        return new_unet(self.recipe, self.models[0].context, size, seed)

    def _unet(self, seed: int) -> UNet:
        folder = self.arguments.output / f"unet-{seed}"
        return trained_unet(self.new_unet(seed), self.recipe, self.train(), self.steps, seed, folder)

    @property
    def steps(self) -> int:
        """Returns the steps of a U-Net."""
        return self.arguments.unet_steps

    def unet_facts(self) -> dict:
        """Returns what a U-Net depends on beside its seed."""
        return {"recipe": self.recipe, "steps": self.steps, "code": source_hash(HERE / "physics_baselines.py")}

    def linear(self, system: str, seed: int) -> LinearModel:
        flow = self.train()[system]
        rows = torch.randperm(len(flow), generator=torch.Generator().manual_seed(seed))[: max(1, 3 * len(flow) // 4)]
        return LinearModel(flow[rows.sort().values], self.models[0].context)


def contenders(
    sources: Sources, system: str, seed: int, planar: bool
) -> dict[str, tuple[dict, Callable[[], Forecast]]]:
    """Lists what each contender depends on beside the flows, and how it is made."""
    model = sources.model(seed)

    def rolled(model: Walrus, jitter: bool) -> Forecast:
        draws = torch.Generator().manual_seed(seed)
        return lambda window, steps: model.rollout(window, steps, generator=draws, jitter=jitter).flow

    data = sources.recipe["data"][system]
    listed = {
        "walrus": ({"model": fingerprint(model)}, lambda: rolled(model, True)),
        "no jitter": ({"model": fingerprint(model)}, lambda: rolled(model, False)),
        "persistence": ({}, lambda: persistence),
        "linear": ({"data": data}, lambda: sources.linear(system, seed).forecast),
    }
    if seed < len(sources.short):
        short = sources.short[seed]
        listed["walrus, short"] = ({"model": fingerprint(short)}, lambda: rolled(short, True))
    if planar and sources.steps:
        listed["U-Net"] = (sources.unet_facts(), lambda: sources.unet(seed).forecast)
    return listed


def train_unets(sources: Sources, cells: Cells) -> list[bool]:
    """Trains the U-Nets of this part and tells which are trained."""

    def trained(seed: int) -> dict:
        return {"parameters": sum(p.numel() for p in sources.unet(seed).parameters())}

    seeds = range(sources.arguments.seeds if sources.steps else 0)
    made = [cells.get(f"unet/trained-{s}", {**sources.unet_facts(), "seed": s}, partial(trained, s)) for s in seeds]
    for seed, cell in enumerate(made):
        if cell is not None:
            print(f"U-Net {seed}: {cell['parameters']:,} parameters, {cell['seconds']} s of processor time")
    return [cell is not None for cell in made]


def measure(sources: Sources, cells: Cells, systems: Sequence[str]) -> dict[str, dict[str, list[dict]]]:
    """Returns the cells of each system and contender, and of `strides`, a list over seeds."""
    arguments, found, unets = sources.arguments, {}, train_unets(sources, cells)
    common = {"trajectories": arguments.trajectories, "code": source_hash(__file__, HERE / "physics_baselines.py")}
    for system in systems:
        planar = system != "turbulence"
        for seed in range(arguments.seeds):
            facts = {**common, "system": system, "seed": seed, "flows": sources.recipe["data"].get(system, {})}
            for name, (own, make) in contenders(sources, system, seed, planar).items():

                def scored(make: Callable[[], Forecast] = make, system: str = system, seed: int = seed) -> dict:
                    flow, context = sources.held(system, seed), sources.models[0].context
                    return {"scores": evaluate(make(), flow, context, arguments.pool)}

                own = {**facts, **own, "pool": arguments.pool}
                cell = cells.get(f"{system}/{name}-{seed}", own, scored, name != "U-Net" or unets[seed])
                found.setdefault(system, {}).setdefault(name, []).append(cell)
            if planar and system != "convection":  # whose grid is too flat for some of the strides
                own = {"model": fingerprint(sources.model(seed)), "cuts": CUTS}
                run = partial(
                    lambda system, seed: {"strides": strides(sources.model(seed), sources.held(system, seed))}
                )
                cell = cells.get(f"{system}/strides-{seed}", {**facts, **own}, partial(run, system, seed))
                found[system].setdefault("strides", []).append(cell)
    return found


def spread(values: Sequence[float]) -> str:
    """Writes a mean and its standard error."""
    error = f" ± {stdev(values) / len(values) ** 0.5:.3f}" if len(values) > 1 else ""
    return f"{mean(values):.3f}{error}" if values else "-"


def values_of(cells: Sequence[dict | None], name: str) -> list[float]:
    return [cell["scores"][name] for cell in cells if cell is not None and name in cell["scores"]]


def summary(found: Mapping[str, Mapping[str, Sequence[dict | None]]]) -> str:
    """Writes the tables of what was measured."""
    lines = ["| system | steps | " + " | ".join(CONTENDERS) + " |", "|---|---|" + "---|" * len(CONTENDERS)]
    ahead, gains = {"walrus": (0, 0), "walrus, short": (0, 0)}, {name: [] for name in RANGES}
    for system, methods in found.items():
        for name in RANGES:
            columns = {method: values_of(methods.get(method, ()), name) for method in CONTENDERS}
            lines.append(f"| {system} | {name} | " + " | ".join(spread(columns[m]) for m in CONTENDERS) + " |")
            others = [mean(columns[m]) for m in BASELINES if columns[m]]
            for method in ahead if others else ():
                if columns[method]:
                    won, cells = ahead[method]
                    ahead[method] = won + (mean(columns[method]) < min(others)), cells + 1
            if columns["walrus"] and columns["no jitter"]:
                gains[name].append(1 - mean(columns["walrus"]) / mean(columns["no jitter"]))
    lines += [
        "",
        *(f"Ahead of all baselines: {name} in {won} of {of} cells." for name, (won, of) in ahead.items() if of),
    ]
    lines += ["", "Error less with jitter than without, median over systems:"]
    lines += [f"- steps {name}: {100 * median(g):.0f} % ({len(g)} systems)" for name, g in gains.items() if g]
    return "\n".join([*lines, "", *stride_table(found)]) + "\n"


def stride_table(found: Mapping[str, Mapping[str, Sequence[dict | None]]]) -> list[str]:
    """Lists error at step 1 and time by stride, both over those of the first stride."""
    names = ["x".join(map(str, cut)) for cut in CUTS]
    lines = ["Error at step 1 (and processor time) by stride, over those of the first:", ""]
    lines += ["| system | " + " | ".join(names) + " |", "|---|" + "---|" * len(names)]
    for system, methods in found.items():
        rows = [cell["strides"] for cell in methods.get("strides", ()) if cell is not None]
        if rows:
            ratios = [[(row[n][0] / row[names[0]][0], row[n][1] / row[names[0]][1]) for row in rows] for n in names]
            cells = (f"{spread([e for e, _ in ratio])} ({mean(t for _, t in ratio):.2f})" for ratio in ratios)
            lines.append(f"| {system} | " + " | ".join(cells) + " |")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path, help="folders of trainings, by seed")
    parser.add_argument("--short", nargs="*", type=Path, default=[], help="trainings as long as a U-Net's, by seed")
    parser.add_argument("--recipe", type=Path, default=HERE / "recipes" / "walrus-nano.toml")
    parser.add_argument("-o", "--output", type=Path, default=HERE / "results" / "physics", help="folder of the cells")
    parser.add_argument("--data", type=Path, required=True, help="folder that keeps simulated flows")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--trajectories", type=int, default=24, help="of each system and seed")
    parser.add_argument("--systems", nargs="*", help="default: those of the recipe")
    parser.add_argument("--pool", default="quantity", help="see aion.physics.metrics.vrmse")
    parser.add_argument("--unet-steps", type=int, default=2000, help="0 for none")
    parser.add_argument("--part", type=part, default=(0, 1), metavar="I/N", help="which of N processes this is")
    parser.add_argument("--only", nargs="*", default=(), help="cells whose name contains one of these")
    parser.add_argument("--dry", action="store_true", help="sum up what is there")
    parser.add_argument("--plan", action="store_true", help="say how long it would take, and stop")
    arguments = parser.parse_args()
    sources = Sources(arguments)
    systems = arguments.systems or list(sources.recipe["data"])
    if arguments.plan:
        print(plan(sources.models[0], sources.new_unet(0), sources.recipe, systems, arguments))
        return
    cells = Cells(arguments.output, arguments.part, tuple(arguments.only), arguments.dry)
    found = measure(sources, cells, systems)
    text = summary(found)
    if (trained := len(sources.models)) < arguments.seeds:
        text += f"\n{trained} trained for {arguments.seeds} seeds: errors of the model are over flows and jitter.\n"
    if cells.missing:
        text += f"\n{len(cells.missing)} cells are missing: {', '.join(cells.missing[:5])}...\n"
    print(text)
    write(arguments.output / "summary.md", text)


if __name__ == "__main__":
    main()
