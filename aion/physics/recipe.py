"""Trains a model of flows from a TOML file.

`[data.NAME]` are keyword arguments of `aion.physics.systems.simulate` (the system is NAME if `system` does not name
it), or `files`, a list of HDF5 files of The Well. `[model]` are those of `aion.physics.walrus.Walrus`, `[training]`
those of `aion.training.train` beside `batch` and `tokens`, a list of token budgets of which each step draws one. Data
sets are drawn alike often. Seeds from `HELD_OUT` on are for evaluation: no recipe may simulate with them.
"""

__all__ = ["HELD_OUT", "load", "read_data", "train_recipe", "window_batch"]

import hashlib
import json
import platform

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch

from aion.physics.flow import Flow
from aion.physics.systems import simulate
from aion.physics.walrus import Walrus
from aion.physics.well import read_well
from aion.training import elapsed, train
from aion.training.toml import check_sections, read_toml

HELD_OUT = 1_000_000
SECTIONS = {"data", "model", "name", "seed", "training"}


def load(path: Path | str) -> dict:
    """Reads a recipe and checks its sections.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is not TOML, a section is unknown (with the near misses) or missing, or data are held out.
    """
    recipe = read_toml(path)
    check_sections(path, recipe, SECTIONS)
    _check_seeds(recipe)
    return recipe


def _check_seeds(recipe: Mapping) -> None:
    for name, source in recipe["data"].items():
        if (seed := source.get("seed", recipe["seed"])) >= HELD_OUT:
            msg = f"data {name!r} have seed {seed}, but seeds from {HELD_OUT} on are for evaluation"
            raise ValueError(msg)


def read_data(recipe: Mapping, device: str = "cpu", progress: bool = False) -> dict[str, Flow]:
    """Simulates or reads the data of a recipe."""
    flows = {}
    for name, source in recipe["data"].items():
        if "files" in source:
            flows[name] = Flow.concatenate([read_well(file) for file in source["files"]]).to(device)
        else:
            options = {"system": name, "seed": recipe["seed"], "device": device, "progress": progress, **source}
            flows[name] = simulate(**options)
    return flows


def window_batch(flows: Sequence[Flow], frames: int, batch: int, generator: torch.Generator) -> Flow:
    """Draws windows of `frames` frames from one flow, each from a trajectory and a moment of its own."""
    flow = flows[int(torch.randint(len(flows), (), generator=generator))]
    rows = torch.randint(len(flow), (batch,), generator=generator)
    starts = torch.randint(flow.frames - frames + 1, (batch, 1), generator=generator)
    values = flow.values[rows[:, None], starts + torch.arange(frames)]
    return Flow(values, flow.fields, flow.boundaries, flow.dt, flow.extent, flow.system)


def train_recipe(
    path: Path | str,
    folder: Path | str,
    *,
    device: str = "cpu",
    steps: int | None = None,
    seed: int | None = None,
    progress: bool = True,
) -> Walrus:
    """Trains the model of a recipe, writes it to `folder/model` and returns it; resumes if it was interrupted.

    Arguments:
        path: the recipe.
        folder: receives the model, the log and the checkpoint.
        device: where to compute.
        steps: at most so many, for a trial.
        seed: of data, weights and draws instead of the recipe's.
        progress: shows progress bars on a terminal.

    Raises:
        FileNotFoundError: if there is no such recipe.
        ValueError: if the recipe is wrong, or the folder holds another training.
    """
    recipe, folder = load(path), Path(folder)
    if seed is not None:
        recipe["seed"] = seed
        _check_seeds(recipe)
    settings = dict(recipe["training"])
    settings["steps"] = min(settings["steps"], steps or settings["steps"])
    facts = json.dumps([recipe, settings["steps"]], sort_keys=True)
    identity = hashlib.sha256(facts.encode()).hexdigest()[:16]
    batch, cuts = settings.pop("batch"), settings.pop("tokens", [None])
    model = Walrus(**recipe["model"])
    model.reset_parameters(torch.Generator().manual_seed(recipe["seed"]))
    flows = list(read_data(recipe, device, progress).values())
    short = [flow.system for flow in flows if flow.frames <= model.context]
    if short:
        msg = f"{path}: wanted more than {model.context} frames of each trajectory, given fewer of {short[0]!r}"
        raise ValueError(msg)

    def data(step: int) -> tuple[Flow, dict]:
        draws = torch.Generator().manual_seed(recipe["seed"] * 1_000_003 + step)
        window = window_batch(flows, model.context + 1, batch, draws)
        return window, {"tokens": cuts[int(torch.randint(len(cuts), (), generator=draws))]}

    train(
        model.to(device),
        data,
        seed=recipe["seed"],
        checkpoint=folder / "checkpoint",
        identity=identity,
        log=folder / "log.jsonl",
        progress=recipe["name"] if progress else None,
        **settings,
    )
    machine = f"{torch.get_num_threads()} threads, {platform.machine()}, torch {torch.__version__}, {device}"
    model.provenance = {
        "name": recipe["name"],
        "recipe": Path(path).name,
        "seed": recipe["seed"],
        "data": {name: f"{len(f)} trajectories" for name, f in zip(recipe["data"], flows, strict=True)},
        "steps": settings["steps"],
        "seconds": elapsed(folder / "checkpoint"),
        "machine": machine,
    }
    model.to("cpu").save_pretrained(folder / "model")
    return model
