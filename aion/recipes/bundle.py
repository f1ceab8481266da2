"""Recipes of bundles: every tokenizer in order, then the transformer."""

__all__ = ["train_recipe"]

from collections.abc import Callable, Mapping
from pathlib import Path

import torch

from aion import keeping, official
from aion.device import usable
from aion.masking import BudgetMasking
from aion.model import AION
from aion.observations import Observation
from aion.recipes.kept import KeptTokens
from aion.recipes.part import FIRST, FITTED, HELD_OUT, Part, machine, on_device
from aion.recipes.reading import check_trained, digest, load, settings_of
from aion.recipes.short import Short
from aion.sources import Mixture, PartSource, SkyObjects, SkySource, data_objects, observed
from aion.tokenizers import Tokenizer, build, store
from aion.tokens import TokenSequence
from aion.training import ranks

FIT = {"fit_objects", "spacing"}  # settings of a tokenizer that are for fitting it


def train_recipe(
    path: Path | str, folder: Path | str, *, device: str = "cpu", steps: int | None = None, progress: bool = True
) -> AION:
    """Trains every part of a recipe in order and writes the bundle; run again, it goes on where it stopped.

    Arguments:
        path: the recipe.
        folder: receives `bundle/`, the logs `*.jsonl` and, while it runs, the checkpoints.
        device: where to train, each rank its own; `"auto"` takes CUDA if there is one, else the CPU.
        steps: overrides the steps of every part, for a trial run.
        progress: shows progress bars on a terminal.

    Raises:
        FileNotFoundError: if the recipe, its data or a tokenizer that it names are not there.
        ValueError: for a recipe that is none, or that is not the same on every rank, or a device that cannot be used.
            What is wrong with any part is said before the first is trained.
    """
    folder = Path(folder)
    with ranks.together():
        device, recipe = str(usable(device)), load(path)
        _rehearse(path, recipe)
        folder.mkdir(parents=True, exist_ok=True)
    ranks.agree("recipe", digest(recipe))
    run = _Run(recipe, folder, device, steps, progress)
    tokenizers = run.start.parts if run.start else {name: run.tokenizer(name) for name in recipe["tokenizers"]}
    model = run.transformer(tokenizers)
    model.provenance = {
        "name": recipe["name"],
        "recipe": Path(path).name,
        "data": run.provenance,
        "parts": run.facts,
        "hours": round(sum(part.get("seconds", 0) for part in run.facts.values()) / 3600, 3),
        "machine": machine(device),
    }
    model.transformer.to(getattr(torch, recipe.get("dtype", "float32")))
    with ranks.together():
        if ranks.rank() == 0:
            model.save_pretrained(folder / "bundle")
    return model


class _Run:
    """Holds what the parts of a recipe have in common."""

    def __init__(self, recipe: Mapping, folder: Path, device: str, steps: int | None, progress: bool) -> None:
        self.recipe, self.folder, self.device, self.steps, self.progress = recipe, folder, device, steps, progress
        self.facts: dict[str, dict] = {}
        self.start = None
        if "start" in recipe:
            self.start = AION.from_pretrained(recipe["start"]["model"], device=device)
            self.facts["start"] = {**recipe["start"], "provenance": self.start.provenance}
        self.provenance: object = (
            "simulated by aion.sky from real templates, filters and noise; what stored tokenizers have seen is in parts"
        )

    def tokenizer(self, name: str) -> Tokenizer:
        """Loads, fits or trains a tokenizer."""
        config = self.recipe["tokenizers"][name]
        if "stored" in config:
            with ranks.together():
                tokenizer = _make(name, config).to(self.device)
            data = keeping.read(config["stored"], store.KIND)[1].get("provenance", {}).get("data")
            self.facts[name] = {"stored": config["stored"]} | ({"data": data} if data else {})
            return tokenizer
        part = self._part(name)
        with ranks.together():
            tokenizer = _make(name, config).to(self.device)
            data, sample = self._data(name, part)
        if hasattr(tokenizer, "fit"):
            count = config.get("fit_objects", 2000)
            options = {"spacing": config["spacing"]} if "spacing" in config else {}
            part.fit(tokenizer, sample(count if self.steps is None else min(count, 256)).to(self.device), options)
        if _trained(tokenizer):
            part.reset(tokenizer)
            part.train(tokenizer, lambda number: on_device(data(number), self.device), f"tokenizer {name}")
        self.facts[name] = part.facts
        return tokenizer.eval()

    def transformer(self, tokenizers: Mapping[str, Tokenizer]) -> AION:
        """Assembles the model and trains its transformer."""
        recipe, part = self.recipe, self._part("transformer")
        with ranks.together():
            model = AION(tokenizers, recipe["modalities"], recipe["transformer"]).to(self.device)
            masking = BudgetMasking(model.vocabulary, **recipe.get("masking", {}))
            objects = self._objects(part, HELD_OUT)
        self._begin(part, model, list(tokenizers))

        def fresh(number: int) -> TokenSequence:
            return model.tokenize(observed(objects(number)))

        tokens = self._kept(part, model, fresh) if part.kept else fresh
        short = Short(model.vocabulary, **recipe["short"]) if "short" in recipe else None
        seen = self._seen()

        def data(number: int) -> tuple[TokenSequence, TokenSequence]:
            number += seen // part.batch
            draws = torch.Generator().manual_seed(recipe["seed"] * 1_000_003 + number)
            if short and number % 2:
                return short(tokens(number, short.objects).to(self.device), draws)
            return masking(tokens(number).to(self.device), draws)

        part.train(model.transformer, data, "transformer")
        part.facts["objects"] = seen + part.settings["steps"] * part.lanes * part.batch
        self.facts["transformer"] = part.facts
        if "data" in recipe:
            self.provenance = objects.facts
        return model

    def _begin(self, part: Part, model: AION, names: list[str]) -> None:
        """Gives the transformer the weights of the model to start from, or draws them."""
        if self.start:
            model.transformer.load_state_dict(self.start.transformer.state_dict())
            return
        part.reset(model.transformer)
        for name, tokenizer in model.modalities.items():
            # Modalities that share a tokenizer start from the same embedding.
            draws = torch.Generator().manual_seed(self.recipe["seed"] + names.index(tokenizer))
            model.transformer.embed_codebook(name, model.tokenizer(name).codebook(model.dim), draws)

    def _seen(self) -> int:
        """Returns how many objects of the sky the model to start from was shown: what comes are others."""
        if self.start is None or "data" in self.recipe:
            return 0
        return self.start.provenance.get("parts", {}).get("transformer", {}).get("objects", 0)

    def _kept(self, part: Part, model: AION, fresh: Callable[[int], TokenSequence]) -> KeptTokens:
        source = {key: self.recipe.get(key) for key in ("data", "seed", "sky")}
        identity = digest(source, part.batch, model.tokenizers_sha256)
        count = part.kept if self.steps is None else min(part.kept, self.steps * part.lanes * part.batch)
        folder = self.folder / "tokens"
        return KeptTokens(folder, identity, fresh, count, part.batch, self.recipe["seed"], self.progress)

    def _part(self, name: str) -> Part:
        settings = settings_of(self.recipe, name)
        if self.steps is not None and "steps" in settings:  # a part that is only fitted has none
            settings["steps"] = min(self.steps, settings["steps"])
        return Part(self.recipe, name, settings, self.folder, self.progress)

    def _objects(self, part: Part, first: int) -> Callable[[int], dict[str, Observation]]:
        if "data" in self.recipe:
            return data_objects(self.recipe["data"], part.batch, part.lanes, self.recipe["seed"])
        return SkyObjects(sorted(self.recipe["modalities"]), part.batch, first, self._sky())

    def _sky(self) -> dict[str, object]:
        return {**self.recipe["sky"], "seed": self.recipe["seed"], "device": self.device}

    def _data(self, name: str, part: Part) -> tuple[Mixture, Callable[[int], Observation]]:
        """Returns what a tokenizer trains on, and a function of a number of objects for what it is fitted to."""
        modalities = [m for m, tokenizer in self.recipe["modalities"].items() if tokenizer == name]
        if "data" in self.recipe:
            objects = self._objects(part, 0)
            sources = [PartSource(objects, modality) for modality in modalities]
            return Mixture(sources), lambda count: objects.sample(count)[modalities[0]]
        first = FIRST + HELD_OUT * list(self.recipe["tokenizers"]).index(name)
        sources = [SkySource(modality, part.batch, first + FITTED, self._sky()) for modality in modalities]
        return Mixture(sources), lambda count: sources[0].observe(first, count)


def _rehearse(path: Path | str, recipe: Mapping) -> None:
    """Makes every part without its numbers, so that no mistake in the last is found after the others were trained."""
    tokenizers = {name: _make(name, config, "meta") for name, config in recipe["tokenizers"].items()}
    with torch.device("meta"):
        vocabulary = AION(tokenizers, recipe["modalities"], recipe["transformer"]).vocabulary
    for name, tokenizer in tokenizers.items():
        if "start" not in recipe and "stored" not in recipe["tokenizers"][name] and _trained(tokenizer):
            check_trained(path, name, settings_of(recipe, name))
    BudgetMasking(vocabulary, **recipe.get("masking", {}))
    if "short" in recipe:
        Short(vocabulary, **recipe["short"])


def _make(name: str, config: Mapping, device: str = "cpu") -> Tokenizer:
    """Loads a tokenizer that is stored, or makes one that is to be fitted or trained on a device."""
    if "stored" not in config:
        with torch.device(device):
            return build({key: value for key, value in config.items() if key not in FIT}, official.TOKENIZERS)
    if lost := sorted(set(config) - {"stored"}):
        msg = f"tokenizer {name!r} is stored and takes no {lost[0]!r}"
        raise ValueError(msg)
    return store.load(config["stored"])


def _trained(tokenizer: Tokenizer) -> bool:
    """Tells whether there is anything to train: some are fitted and no more."""
    return any(parameter.requires_grad for parameter in tokenizer.parameters())
