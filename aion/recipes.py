"""Recipes: a TOML file in, a trained bundle out.

A recipe names the simulated sky, the tokenizers (each with the modalities it reads), the transformer, the masking and
how long each part is trained. Every value is a keyword argument of the class or function it is for, so that a misspelt
one is an error. Objects are numbered: each part trains on its own range of indices, and what is below `HELD_OUT` is
never trained on.
"""

__all__ = ["HELD_OUT", "load", "train_recipe"]

import hashlib
import json
import platform

from collections.abc import Mapping
from pathlib import Path

import torch

from torch import nn

from aion.masking import BudgetMasking
from aion.model import AION
from aion.observations import Observation, near_miss
from aion.sky import Sky
from aion.tokenizers import Tokenizer, build
from aion.tokens import TokenSequence
from aion.training import elapsed, train

HELD_OUT = 1_000_000  # objects of the sky below this index are for evaluation only
SECTIONS = {"dtype", "masking", "modalities", "name", "seed", "sky", "tokenizers", "training", "transformer"}


def load(path: Path | str) -> dict:
    """Reads a recipe and checks its sections.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is not TOML or a section is unknown (with the near misses) or missing.
    """
    try:
        import tomllib
    except ModuleNotFoundError:  # Python 3.10
        import tomli as tomllib
    path = Path(path)
    if not path.is_file():
        msg = f"no recipe {path}"
        raise FileNotFoundError(msg)
    try:
        recipe = tomllib.loads(path.read_text())
    except tomllib.TOMLDecodeError as error:
        msg = f"{path} is not TOML: {error}"
        raise ValueError(msg) from error
    if unknown := set(recipe) - SECTIONS:
        name = sorted(unknown)[0]
        msg = f"{path}: unknown section {name!r}; {near_miss(name, SECTIONS)}"
        raise ValueError(msg)
    if missing := SECTIONS - {"dtype", "masking"} - set(recipe):
        msg = f"{path} lacks {', '.join(sorted(missing))}"
        raise ValueError(msg)
    for name, tokenizer in recipe["modalities"].items():
        if tokenizer not in recipe["tokenizers"]:
            msg = (
                f"{path}: modality {name!r} wants tokenizer {tokenizer!r}; {near_miss(tokenizer, recipe['tokenizers'])}"
            )
            raise ValueError(msg)
    return recipe


def train_recipe(
    path: Path | str, folder: Path | str, *, device: str = "cpu", steps: int | None = None, progress: bool = True
) -> AION:
    """Trains every part of a recipe in order and writes the bundle; run again, it goes on where it stopped.

    Arguments:
        path: the recipe.
        folder: receives `bundle/`, the logs `*.jsonl` and, while it runs, the checkpoints.
        device: where to train.
        steps: overrides the steps of every part, for a trial run.
        progress: shows progress bars on a terminal.
    """
    recipe, folder = load(path), Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    tokenizers, parts = {}, {}
    for order, (name, config) in enumerate(recipe["tokenizers"].items()):
        names = [m for m, tokenizer in recipe["modalities"].items() if tokenizer == name]
        trainer = _TokenizerTrainer(recipe, name, names, HELD_OUT * (10 + order), device)
        tokenizers[name] = trainer.run(build(_without_fit(config)), folder, steps, progress)
        parts[name] = trainer.facts
    model = AION(tokenizers, recipe["modalities"], recipe["transformer"]).to(device)
    generator = torch.Generator().manual_seed(recipe["seed"])
    model.transformer.reset_parameters(generator)
    for name, tokenizer in model.modalities.items():
        # Modalities that share a tokenizer start from the same embedding.
        draws = torch.Generator().manual_seed(recipe["seed"] + list(tokenizers).index(tokenizer))
        model.transformer.embed_codebook(name, model.tokenizer(name).codebook(model.dim), draws)
    parts["transformer"] = _train_transformer(model, recipe, folder, device, steps, progress)
    model.provenance = {
        "name": recipe["name"],
        "recipe": Path(path).name,
        "data": "simulated by aion.sky from real templates, filters and noise; no real observation was trained on",
        "parts": parts,
        "hours": round(sum(part.get("seconds", 0) for part in parts.values()) / 3600, 3),
        "machine": f"{torch.get_num_threads()} threads, {platform.machine()}, torch {torch.__version__}, {device}",
    }
    model.transformer.to(getattr(torch, recipe.get("dtype", "float32")))
    model.save_pretrained(folder / "bundle")
    return model


def _without_fit(config: Mapping) -> dict:
    return {k: v for k, v in config.items() if k not in {"spacing", "fit_objects"}}


def _identity(recipe: Mapping, part: str, settings: Mapping) -> str:
    """Names a training by everything that decides its result; `part` and a hash."""
    text = json.dumps([{k: v for k, v in recipe.items() if k not in {"name", "training"}}, part, dict(settings)])
    return f"{part} {hashlib.sha256(text.encode()).hexdigest()[:16]}"


def _settings(recipe: Mapping, part: str, steps: int | None) -> dict:
    """Returns the training settings of a part: its own section over the defaults."""
    settings = {**recipe["training"].get("default", {}), **recipe["training"].get(part, {})}
    if steps is not None:
        settings["steps"] = min(steps, settings["steps"])
    return settings


class _TokenizerTrainer:
    """Fits and trains one tokenizer on the modalities it reads, in turn."""

    def __init__(self, recipe: Mapping, name: str, modalities: list[str], offset: int, device: str) -> None:
        self.recipe, self.name, self.modalities, self.offset = recipe, name, modalities, offset
        self.device = device
        self.skies = {
            m: Sky(**{**recipe["sky"], "seed": recipe["seed"], "modalities": [m], "device": device}) for m in modalities
        }
        self.facts: dict[str, object] = {}

    def observe(self, modality: str, start: int, count: int) -> Observation:
        """Returns the objects of a range of indices that have anything measured in a modality."""
        observation = self.skies[modality].observe(torch.arange(start, start + count))[modality]
        measured = observation.measured.reshape(len(observation), -1).any(1)
        return observation[measured] if measured.any() else observation

    def run(self, tokenizer: Tokenizer, folder: Path, steps: int | None, progress: bool) -> Tokenizer:
        config = self.recipe["tokenizers"][self.name]
        tokenizer = tokenizer.to(self.device)
        if hasattr(tokenizer, "fit"):
            count = config.get("fit_objects", 2000)
            sample = self.observe(self.modalities[0], self.offset, count if steps is None else min(count, 256))
            tokenizer.fit(sample, **({"spacing": config["spacing"]} if "spacing" in config else {}))
            self.facts = {"fitted_on": len(sample)}
        if not any(p.requires_grad for p in tokenizer.parameters()):
            return tokenizer.eval()
        settings = _settings(self.recipe, self.name, steps)
        identity = _identity(self.recipe, self.name, settings)
        batch = settings.pop("batch")
        tokenizer.apply(_reset(torch.Generator().manual_seed(self.recipe["seed"])))
        checkpoint = folder / "checkpoints" / self.name
        train(
            tokenizer,
            lambda step: self.observe(
                self.modalities[step % len(self.modalities)], self.offset + 10_000 + step * batch, batch
            ),
            generator=torch.Generator().manual_seed(self.recipe["seed"]),
            checkpoint=checkpoint,
            identity=identity,
            log=folder / f"{self.name}.jsonl",
            progress=f"tokenizer {self.name}" if progress else None,
            **settings,
        )
        self.facts |= {"steps": settings["steps"], "batch": batch, "seconds": elapsed(checkpoint)}
        return tokenizer


def _reset(generator: torch.Generator):
    """Returns a function that draws the parameters of convolutions and linear layers anew, from a generator."""

    def reset(module: nn.Module) -> None:
        if isinstance(module, nn.Conv1d | nn.Conv2d | nn.Linear):
            nn.init.kaiming_uniform_(module.weight, a=5**0.5, generator=generator)
            if module.bias is not None:
                nn.init.zeros_(module.bias)

    return reset


def _train_transformer(
    model: AION, recipe: Mapping, folder: Path, device: str, steps: int | None, progress: bool
) -> dict[str, object]:
    settings = _settings(recipe, "transformer", steps)
    identity = _identity(recipe, "transformer", settings)
    batch = settings.pop("batch")
    sky = Sky(**{**recipe["sky"], "seed": recipe["seed"], "modalities": list(model.modalities), "device": device})
    masking = BudgetMasking(model.vocabulary, **recipe.get("masking", {}))

    def data(step: int) -> tuple[TokenSequence, TokenSequence]:
        sequence = model.tokenize(sky.observe(torch.arange(step * batch, (step + 1) * batch) + HELD_OUT))
        return masking(sequence, torch.Generator().manual_seed(recipe["seed"] * 1_000_003 + step))

    train(
        model.transformer,
        data,
        generator=torch.Generator().manual_seed(recipe["seed"]),
        checkpoint=(checkpoint := folder / "checkpoints" / "transformer"),
        identity=identity,
        log=folder / "transformer.jsonl",
        progress="transformer" if progress else None,
        **settings,
    )
    count = settings["steps"]
    return {"steps": count, "batch": batch, "objects": count * batch, "seconds": elapsed(checkpoint)}
