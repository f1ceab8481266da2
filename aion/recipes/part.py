"""A part of a recipe: one module, fitted or trained, and the facts of how."""

__all__ = ["FIRST", "FITTED", "HELD_OUT", "Part", "machine", "on_device"]

import platform

from collections.abc import Callable, Mapping
from pathlib import Path

import torch

from torch import nn

from aion.observations import Observation
from aion.recipes.reading import digest
from aion.tokenizers import Tokenizer
from aion.training import elapsed, ranks, train

HELD_OUT = 1_000_000  # objects of the sky below this index are for evaluation only
FIRST = HELD_OUT * 10  # object that the first tokenizer is fitted on; each tokenizer has a million of its own
FITTED = 10_000  # objects kept for fitting, before those trained on
# Settings of the training that change no result, so that a training may go on with others.
HOW = {"activation_checkpointing", "ahead", "checkpoint_every", "compile", "log_every", "parallel"}


class Part:
    """Trains one module of a recipe.

    Arguments:
        recipe: the recipe.
        name: of the part.
        settings: keyword arguments of `aion.training.train`, `batch` and `kept`, see `aion.recipes.kept`.
        folder: receives the log and the checkpoint.
        progress: shows a progress bar on a terminal.
    """

    def __init__(self, recipe: Mapping, name: str, settings: Mapping, folder: Path, progress: bool) -> None:
        self.name, self.folder, self.seed, self.progress = name, folder, recipe["seed"], progress
        self.settings = {key: value for key, value in settings.items() if key not in {"batch", "kept"}}
        self.batch, self.lanes = settings.get("batch", 1), settings.get("accumulate", 1)
        self.kept = settings.get("kept", 0)
        same = {key: value for key, value in settings.items() if key not in HOW}
        kept = {key: value for key, value in recipe.items() if key not in {"name", "training"}}
        self.identity = f"{name} {digest(kept, name, same)}"
        self.facts: dict[str, object] = {}

    def fit(self, tokenizer: Tokenizer, sample: Observation, options: Mapping[str, object]) -> None:
        """Fits a tokenizer; every rank gets what rank 0 has found."""
        tokenizer.fit(sample, **options)
        ranks.share(tokenizer)
        self.facts = {"fitted_on": len(sample)}

    def reset(self, module: nn.Module) -> None:
        """Draws the parameters anew, by the seed of the recipe."""
        draws = torch.Generator().manual_seed(self.seed)
        if hasattr(module, "reset_parameters"):
            module.reset_parameters(draws)
        else:
            module.apply(lambda layer: _reset(layer, draws))

    def train(self, module: nn.Module, data: Callable[[int], object], title: str) -> None:
        """Trains a module, from its checkpoint if there is one."""
        checkpoint = self.folder / "checkpoints" / self.name
        train(
            module,
            data,
            seed=self.seed,
            checkpoint=checkpoint,
            identity=self.identity,
            log=self.folder / f"{self.name}.jsonl",
            progress=title if self.progress else None,
            **self.settings,
        )
        seconds = ranks.everyone(elapsed(checkpoint) if ranks.rank() == 0 else None)[0]
        self.facts |= {"steps": self.settings["steps"], "batch": self.batch}
        self.facts |= {"accumulate": self.lanes} if self.lanes > 1 else {}
        self.facts |= {"kept": self.kept} if self.kept else {}
        self.facts |= {"ranks": ranks.size()} if ranks.size() > 1 else {}
        self.facts["seconds"] = seconds


def _reset(layer: nn.Module, generator: torch.Generator) -> None:
    """Draws the parameters of a convolution or a linear layer."""
    if isinstance(layer, nn.Conv1d | nn.Conv2d | nn.ConvTranspose1d | nn.Linear):
        nn.init.kaiming_uniform_(layer.weight, a=5**0.5, generator=generator)
        if layer.bias is not None:
            nn.init.zeros_(layer.bias)


def on_device(batch: Observation | tuple[Observation, ...], device: str) -> Observation | tuple[Observation, ...]:
    """Moves a batch, or a pair of them, to a device."""
    return tuple(view.to(device) for view in batch) if isinstance(batch, tuple) else batch.to(device)


def machine(device: str) -> str:
    """Says on what was trained."""
    name = torch.cuda.get_device_name(device) if str(device).startswith("cuda") else device
    return f"{torch.get_num_threads()} threads, {platform.machine()}, torch {torch.__version__}, {name}"
