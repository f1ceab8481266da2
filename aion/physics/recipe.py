"""Trains a model of flows from a TOML file.

`[data.NAME]` are keyword arguments of `aion.physics.systems.simulate` (the system is NAME if `system` does not name
it; the seed is 0), or `files`, a list of HDF5 files of The Well. `cost`, 1 if not given, is what a window of it costs
beside those of other data: of one that costs 4 a batch holds a quarter as many windows, so that ranks take equally
long. `[model]` are keyword arguments of `aion.physics.walrus.Walrus`, `[training]` those of `aion.training.train` and

- `batch`: windows that cost 1 in a batch, of which a step takes `accumulate`;
- `tokens`: a list of token budgets of which each step draws one;
- `noise`: largest noise of the frames given, of which each step draws a share; see `aion.physics.walrus.Walrus.loss`;
- `pushed`: share of the steps in which the model is given frames of its own prediction instead.

Data sets are drawn alike often. Seeds from `HELD_OUT` on are for evaluation: no recipe may simulate with them.
"""

__all__ = ["HELD_OUT", "Windows", "load", "read_data", "train_recipe"]

import hashlib
import json
import math
import platform

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

import torch

from aion.physics.flow import Flow
from aion.physics.sampling import BalancedSampler
from aion.physics.systems import simulate, simulate_once
from aion.physics.walrus import Walrus
from aion.physics.well import read_well
from aion.training import elapsed, ranks, train
from aion.training.toml import check_keys, check_sections, check_training, read_toml

HELD_OUT = 1_000_000
SECTIONS = {"data", "model", "name", "seed", "training"}
COUNT = ("a whole number of at least 1", lambda value: type(value) is int and value >= 1)
SOME = ("a list of at least one", lambda value: isinstance(value, list) and len(value) > 0)
SHARE = ("a share from 0 to 1", lambda value: type(value) in {int, float} and 0 <= value <= 1)
POSITIVE = ("a number above 0", lambda value: type(value) in {int, float} and 0 < value < math.inf)
AMOUNT = ("a number of at least 0", lambda value: type(value) in {int, float} and 0 <= value < math.inf)
VALUES = dict.fromkeys(("accumulate", "batch", "frames", "n", "size", "steps"), COUNT)
VALUES |= {"cost": POSITIVE, "files": SOME, "noise": AMOUNT, "pushed": SHARE, "tokens": SOME}
TRAINING = {"batch", "noise", "pushed", "tokens"}  # beside the arguments of `train`


def load(path: Path | str) -> dict:
    """Reads a recipe and checks its sections.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is not TOML, a section or key is unknown (with the near misses), a section is missing, a
            number is none of those wanted, or data are held out.
    """
    recipe = read_toml(path)
    check_sections(path, recipe, SECTIONS)
    check_keys(path, "model", recipe["model"], Walrus)
    check_training(path, "training", recipe["training"], TRAINING)
    _check_values(path, "training", recipe["training"], {"batch", "steps"})
    for name, source in recipe["data"].items():
        check_keys(path, f"data.{name}", source, simulate, {"cost", "files"}, {"device", "progress"})
        _check_values(path, f"data.{name}", source, () if "files" in source else {"n"})
        if (seed := source.get("seed", 0)) >= HELD_OUT:
            msg = f"data {name!r} have seed {seed}, but seeds from {HELD_OUT} on are for evaluation"
            raise ValueError(msg)
    return recipe


def _check_values(path: Path | str, section: str, given: Mapping, needed: Collection[str]) -> None:
    if missing := sorted(set(needed) - set(given)):
        msg = f"{path}: [{section}] lacks {missing[0]}"
        raise ValueError(msg)
    for key in sorted(set(given) & set(VALUES)):
        wanted, fits = VALUES[key]
        if not fits(given[key]):
            msg = f"{path}: [{section}] wants {key} to be {wanted}, given {given[key]!r}"
            raise ValueError(msg)


def read_data(
    recipe: Mapping, device: str = "cpu", folder: Path | str | None = None, progress: bool = False
) -> dict[str, Flow]:
    """Simulates or reads the data of a recipe.

    Arguments:
        recipe: what `load` returns.
        device: where to compute, and to hold them.
        folder: keeps what is simulated as HDF5 files, and gives it back the next time; ranks share the work.
        progress: shows progress bars on a terminal.
    """
    sources = {name: {k: v for k, v in source.items() if k != "cost"} for name, source in recipe["data"].items()}
    given = {"device": device, "progress": progress}
    calls = {name: {"system": name, **source, **given} for name, source in sources.items() if "files" not in source}
    if folder is not None:
        with ranks.together():
            for options in list(calls.values())[ranks.rank() :: ranks.size()]:
                simulate_once(folder, **options)
    flows = {}
    for name, source in sources.items():
        if name in calls:
            flow = simulate(**calls[name]) if folder is None else simulate_once(folder, **calls[name])
        else:
            flow = Flow.concatenate([read_well(file) for file in source["files"]])
        flows[name] = flow.to(device)
    return flows


class Windows:
    """Draws the batches of a training: windows of all data sets, each batch of one of them and of about one cost.

    Arguments:
        flows: by name.
        costs: of a window of each, in those of `batch`.
        context: frames that the model is given; a window has one more, or two if the model predicts some itself.
        batch: windows of cost 1 in a batch.
        together: batches of a step.
        tokens: see above, as the rest.
        noise: see above.
        pushed: see above.
        seed: of all draws.

    Raises:
        ValueError: for too few frames, or a cost, batch or number of windows that is not positive.
    """

    def __init__(
        self,
        flows: Mapping[str, Flow],
        costs: Mapping[str, float],
        context: int,
        batch: int,
        together: int = 1,
        tokens: Sequence[int | None] = (None,),
        noise: float = 0.0,
        pushed: float = 0.0,
        seed: int = 0,
    ) -> None:
        self.flows, self.frames, self.together, self.seed = flows, context + 2, together, seed
        self.tokens, self.noise, self.pushed = list(tokens), noise, pushed
        if short := [name for name, flow in flows.items() if flow.frames < self.frames]:
            msg = f"wanted at least {self.frames} frames of each trajectory, given fewer of {short[0]!r}"
            raise ValueError(msg)
        lengths = {name: len(flow) * self._starts(flow) for name, flow in flows.items()}
        self.sampler = BalancedSampler(costs, lengths, ranks=together, micro=1, budget=batch, seed=seed)

    def __call__(self, number: int) -> tuple[Flow, dict]:
        """Returns a batch by its number, and the options of the loss, which are those of its whole step."""
        step, place = divmod(number, self.together)
        draws = torch.Generator().manual_seed(self.seed * 1_000_003 + step)
        share, push = torch.rand(2, generator=draws).tolist()
        options = {"tokens": self.tokens[int(torch.randint(len(self.tokens), (), generator=draws))]}
        if push < self.pushed:
            options["pushed"] = True
        elif self.noise:
            options["noise"] = self.noise * share
        [(name, windows)] = self.sampler.batches(step, place)
        flow = self.flows[name]
        rows, starts = windows // self._starts(flow), windows % self._starts(flow)
        frames = torch.arange(self.frames if push < self.pushed else self.frames - 1)
        return flow.replace(
            values=flow.values[rows[:, None], starts[:, None] + frames], regimes=(), parameters={}
        ), options

    def _starts(self, flow: Flow) -> int:
        return flow.frames - self.frames + 1


def train_recipe(
    path: Path | str,
    folder: Path | str,
    *,
    device: str = "cpu",
    steps: int | None = None,
    seed: int | None = None,
    data: Path | str | None = None,
    progress: bool = True,
) -> Walrus:
    """Trains the model of a recipe, writes it to `folder/model` and returns it; resumes if it was interrupted.

    Ranks that `torchrun` started share the work.

    Arguments:
        path: the recipe.
        folder: receives the model, the log and the checkpoint.
        device: where to compute.
        steps: at most so many, for a trial.
        seed: of weights and draws instead of the recipe's; data stay the same.
        data: folder that keeps simulated data, see `read_data`.
        progress: shows progress bars on a terminal.

    Raises:
        FileNotFoundError: if there is no such recipe.
        ValueError: if the recipe is wrong, or the folder holds another training.
    """
    recipe, folder = load(path), Path(folder)
    seed = recipe["seed"] if seed is None else seed
    settings = dict(recipe["training"])
    settings["steps"] = min(settings["steps"], steps or settings["steps"])
    facts = json.dumps([recipe, seed, settings["steps"]], sort_keys=True)
    own = {name: settings.pop(name) for name in TRAINING if name in settings}
    model = Walrus(**recipe["model"])
    model.reset_parameters(torch.Generator().manual_seed(seed))
    flows = read_data(recipe, device, data, progress)
    for flow in flows.values():
        model.check(window := flow[:1].window(0, 2))
        for tokens in own.get("tokens", [None]):
            model.axes(window, tokens=tokens)  # refuses now what would end the training at some step
    costs = {name: source.get("cost", 1.0) for name, source in recipe["data"].items()}
    train(
        model.to(device),
        Windows(flows, costs, model.context, together=settings.get("accumulate", 1), seed=seed, **own),
        seed=seed,
        checkpoint=folder / "checkpoint",
        identity=hashlib.sha256(facts.encode()).hexdigest()[:16],
        log=folder / "log.jsonl",
        progress=recipe["name"] if progress else None,
        **settings,
    )
    machine = f"{ranks.size()} x {torch.get_num_threads()} threads, {platform.machine()}, torch {torch.__version__}"
    model.provenance = {
        "name": recipe["name"],
        "recipe": Path(path).name,
        "seed": seed,
        "data": {name: _described(recipe["data"][name], flow) for name, flow in flows.items()},
        "steps": settings["steps"],
        "seconds": elapsed(folder / "checkpoint"),
        "machine": f"{machine}, {device}",
    }
    if ranks.rank() == 0:
        model.to("cpu").save_pretrained(folder / "model")
    return model


def _described(source: Mapping, flow: Flow) -> str:
    return f"{len(flow)} trajectories of files" if "files" in source else f"{len(flow)} simulated trajectories"
