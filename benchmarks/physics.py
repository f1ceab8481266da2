"""How far roll-outs of a model of flows stay from the simulation: `python benchmarks/physics.py RUN [RUN ...]`.

RUN is a folder that `aion physics train RECIPE -o RUN` wrote; several are the same recipe with other seeds. Beside the
model stand persistence, a linear model of principal components of each system, and one U-Net for all 2-D systems with
as many parameters, trained on the same windows for as many steps (`--unet-steps` for fewer). All flows are simulated,
with initial conditions that no recipe may train on.

A score is the median over trajectories and fields of the VRMSE, averaged over the steps of a range; errors are standard
errors over the runs. `jitter` repeats the model's roll-outs without patch jitter; `strides` at coarser and finer
patches.
"""

__all__ = ["evaluate"]

import argparse
import json
import time

from collections.abc import Callable, Mapping
from pathlib import Path

import torch

from physics_baselines import LinearModel, UNet, width_for

from aion.physics.flow import Flow
from aion.physics.metrics import persistence, vrmse
from aion.physics.recipe import HELD_OUT, load, read_data, window_batch
from aion.physics.systems import simulate
from aion.physics.walrus import Walrus
from aion.training import train

RESULT = Path(__file__).resolve().parent / "results" / "physics"
RANGES = {"1": (0, 1), "6-12": (5, 12), "13-30": (12, 30)}
STEPS = 30
Forecast = Callable[[Flow, int], Flow]


def scores(forecast: Forecast, flow: Flow, context: int, pool: str) -> dict[str, float]:
    """Scores roll-outs from the first frames of each trajectory by range of steps."""
    steps = min(STEPS, flow.frames - context)
    error = vrmse(forecast(flow.window(0, context), steps), flow.window(context, steps), pool)
    ranges = {name: error[:, start:stop] for name, (start, stop) in RANGES.items() if stop <= steps}
    return {name: part.mean(1).flatten().median().item() for name, part in ranges.items()}


def evaluate(
    model: Walrus, baselines: Mapping[str, Mapping[str, Forecast]], flows: Mapping[str, Flow], seed: int, pool: str
) -> dict[str, dict[str, dict[str, float]]]:
    """Returns the scores of the model, with and without jitter, and of the baselines, by system, method and range."""

    def rolled(jitter: bool) -> Forecast:
        draws = torch.Generator().manual_seed(seed)
        return lambda window, steps: model.rollout(window, steps, generator=draws, jitter=jitter).flow

    table = {}
    for name, flow in flows.items():
        methods = {"walrus": rolled(True), "no jitter": rolled(False), "persistence": persistence}
        methods |= {method: systems[name] for method, systems in baselines.items() if name in systems}
        table[name] = {method: scores(run, flow, model.context, pool) for method, run in methods.items()}
    return table


def strides(model: Walrus, flow: Flow) -> list[dict[str, float]]:
    """Measures error at step 1 and time of one pass by token budget."""
    rows = []
    window, after = flow.window(0, model.context), flow.window(model.context, 1)
    for tokens in (256, 64, 16):
        draws = torch.Generator().manual_seed(0)
        start = time.process_time()
        predicted = model.rollout(window, 1, tokens=tokens, generator=draws).flow
        spent = time.process_time() - start
        error = vrmse(predicted, after, "quantity").median().item()
        rows.append({"tokens": tokens, "vrmse": round(error, 4), "seconds": round(spent, 3)})
    return rows


def train_unet(recipe: Mapping, flows: Mapping[str, Flow], model: Walrus, steps: int) -> UNet:
    """Trains a U-Net of the model's size on windows as the model's."""
    planes = [flow for flow in flows.values() if len(flow.space) == 2]
    parameters = sum(p.numel() for p in model.parameters())
    unet = UNet(model.fields, width_for(model.fields, model.context, parameters), model.context)
    unet.reset_parameters(torch.Generator().manual_seed(recipe["seed"]))

    def data(step: int) -> tuple[Flow, dict]:
        draws = torch.Generator().manual_seed(recipe["seed"] * 1_000_003 + step)
        return window_batch(planes, model.context + 1, recipe["training"]["batch"], draws), {}

    return train(unet, data, steps, lr=1e-3, progress="U-Net")


def summary(tables: list[dict], share: str = "walrus") -> tuple[dict, int, int]:
    """Averages tables over runs, with standard errors, and counts cells where the model is ahead of all baselines."""
    result, ahead, cells = {}, 0, 0
    for system, methods in tables[0].items():
        result[system] = {}
        for method, ranges in methods.items():
            values = {r: torch.tensor([table[system][method][r] for table in tables]) for r in ranges}
            error = {r: v.std().item() / len(v) ** 0.5 if len(v) > 1 else None for r, v in values.items()}
            result[system][method] = {r: [v.mean().item(), error[r]] for r, v in values.items()}
        for name in methods[share]:
            others = [result[system][m][name][0] for m in methods if m not in {share, "no jitter"}]
            ahead, cells = ahead + (result[system][share][name][0] < min(others)), cells + 1
    return result, ahead, cells


def show(result: dict, ahead: int, cells: int) -> None:
    print(
        "| system | steps | " + " | ".join(methods := ["walrus", "no jitter", "persistence", "linear", "U-Net"]) + " |"
    )
    print("|---|---|" + "---|" * len(methods))
    for system, table in result.items():
        for name in table["walrus"]:
            row = []
            for method in methods:
                mean, error = table.get(method, {}).get(name, (None, None))
                row.append("-" if mean is None else f"{mean:.3f}" + (f" ± {error:.3f}" if error is not None else ""))
            print(f"| {system} | {name} | " + " | ".join(row) + " |")
    print(f"ahead of all in {ahead} of {cells} cells")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path)
    parser.add_argument("--recipe", type=Path, default=Path(__file__).resolve().parent / "recipes" / "walrus-nano.toml")
    parser.add_argument("--trajectories", type=int, default=12)
    parser.add_argument("--systems", nargs="*", help="default: those of the recipe")
    parser.add_argument("--pool", default="quantity", help="see aion.physics.metrics.vrmse")
    parser.add_argument("--unet-steps", type=int, help="0 for none; default: as many as the model's")
    arguments = parser.parse_args()
    recipe = load(arguments.recipe)
    held, tables, rows = {}, [], []
    for name in arguments.systems or recipe["data"]:
        options = {k: v for k, v in recipe["data"].get(name, {}).items() if k not in {"n", "seed"}}
        held[name] = simulate(**{"system": name, **options, "n": arguments.trajectories, "seed": HELD_OUT})
    for number, run in enumerate(arguments.runs):
        model = Walrus.from_pretrained(run / "model")
        recipe["seed"] = number
        flows = read_data(recipe)
        linear = {name: LinearModel(flow, model.context).forecast for name, flow in flows.items() if name in held}
        baselines: dict[str, dict[str, Forecast]] = {"linear": linear}
        steps = model.provenance["steps"] if arguments.unet_steps is None else arguments.unet_steps
        if steps:
            unet = train_unet(recipe, flows, model, steps)
            baselines["U-Net"] = {name: unet.forecast for name, flow in held.items() if len(flow.space) == 2}
        tables.append(evaluate(model, baselines, held, number, arguments.pool))
        rows.append({name: strides(model, flow) for name, flow in held.items() if len(flow.space) == 2})
    result, ahead, cells = summary(tables)
    show(result, ahead, cells)
    for name, lines in rows[0].items():
        print(name, *(f"{row['tokens']} tokens: {row['vrmse']} in {row['seconds']} s;" for row in lines))
    RESULT.mkdir(parents=True, exist_ok=True)
    facts = {"recipe": arguments.recipe.name, "provenance": model.provenance, "torch": torch.__version__}
    facts |= {"data": "simulated", "trajectories": arguments.trajectories, "runs": len(tables), "pool": arguments.pool}
    facts |= {"unet_steps": steps, "ahead": [ahead, cells], "scores": result, "strides": rows}
    (RESULT / f"{arguments.recipe.stem}.json").write_text(json.dumps(facts, indent=1) + "\n")


if __name__ == "__main__":
    main()
