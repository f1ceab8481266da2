"""Recipes: a TOML file in, a trained bundle or a trained tokenizer out.

The recipe of a bundle names the simulated sky, the tokenizers (each with the modalities it reads), the transformer, the
masking and how long each part is trained. That of a tokenizer names the tokenizer and its sources, each with a weight:
modalities of the sky, pairs of two of them, or what a reader given to `train_tokenizer` reads. That of a family of
tokenizers, which are fitted to values and have nothing to train, names the modalities and what all have in common.
Every value is a keyword argument of the class or function it is for, so that a misspelt one is an error. Objects of the
sky are numbered: each part trains on its own range of indices, and what is below `HELD_OUT` is never trained on.
"""

__all__ = [
    "HELD_OUT",
    "fit_family",
    "is_family",
    "load",
    "load_family",
    "load_tokenizer",
    "mixture",
    "train_recipe",
    "train_tokenizer",
]

import hashlib
import json
import platform

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import torch

from torch import nn
from tqdm.auto import tqdm

from aion.masking import BudgetMasking
from aion.model import AION
from aion.observations import Observation, near_miss
from aion.sky import Sky
from aion.sources import Mixture, SkySource
from aion.tokenizers import Tokenizer, build
from aion.tokenizers.store import save
from aion.tokens import TokenSequence
from aion.training import elapsed, train

HELD_OUT = 1_000_000  # objects of the sky below this index are for evaluation only
SECTIONS = {"dtype", "masking", "modalities", "name", "seed", "sky", "tokenizers", "training", "transformer"}
TOKENIZER_SECTIONS = {"fit", "name", "seed", "sky", "sources", "tokenizer", "training"}
FAMILY_SECTIONS = {"fit", "modalities", "name", "seed", "sky", "tokenizer"}
FIRST = HELD_OUT * 10  # object that the first tokenizer is fitted on; each tokenizer has a million of its own
FITTED = 10_000  # objects kept for fitting, before those trained on


def load(path: Path | str) -> dict:
    """Reads the recipe of a bundle and checks its sections.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is not TOML or a section is unknown (with the near misses) or missing.
    """
    recipe = _read(path, SECTIONS, {"dtype", "masking"})
    for name, tokenizer in recipe["modalities"].items():
        if tokenizer not in recipe["tokenizers"]:
            msg = (
                f"{path}: modality {name!r} wants tokenizer {tokenizer!r}; {near_miss(tokenizer, recipe['tokenizers'])}"
            )
            raise ValueError(msg)
    return recipe


def load_tokenizer(path: Path | str) -> dict:
    """Reads the recipe of a tokenizer and checks its sections.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is not TOML, a section is unknown (with the near misses) or missing, or a source names neither
            or both of a modality and a reader.
    """
    recipe = _read(path, TOKENIZER_SECTIONS, {"fit", "sky"})
    for name, source in recipe["sources"].items():
        if ("modality" in source) == ("reader" in source):
            msg = f"{path}: source {name!r} must name either a modality of the sky or a reader"
            raise ValueError(msg)
    return recipe


def is_family(path: Path | str) -> bool:
    """Tells the recipe of a family of tokenizers by its section of modalities from that of a single one."""
    recipe = _toml(path)
    return "modalities" in recipe and "tokenizer" in recipe


def load_family(path: Path | str) -> dict:
    """Reads the recipe of a family and checks its sections.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is not TOML or a section is unknown (with the near misses) or missing.
    """
    return _read(path, FAMILY_SECTIONS, {"sky"})


def _read(path: Path | str, sections: set[str], optional: set[str]) -> dict:
    """Reads a TOML file of known sections."""
    recipe = _toml(path)
    if unknown := set(recipe) - sections:
        name = sorted(unknown)[0]
        msg = f"{path}: unknown section {name!r}; {near_miss(name, sections)}"
        raise ValueError(msg)
    if missing := sections - optional - set(recipe):
        msg = f"{path} lacks {', '.join(sorted(missing))}"
        raise ValueError(msg)
    return recipe


def _toml(path: Path | str) -> dict:
    """Reads a TOML file."""
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
        settings = _settings(recipe, name, steps)
        first = FIRST + HELD_OUT * order
        sky = {**recipe["sky"], "seed": recipe["seed"], "device": device}
        sources = [SkySource(m, settings.get("batch", 1), first + FITTED, sky) for m in names]
        training = _Training(name, folder, recipe["seed"], device, progress)
        tokenizer = build(_without_fit(config)).to(device)
        if hasattr(tokenizer, "fit"):
            count = config.get("fit_objects", 2000)
            sample = sources[0].observe(first, count if steps is None else min(count, 256))
            training.fit(tokenizer, sample, {"spacing": config["spacing"]} if "spacing" in config else {})
        identity = _identity(recipe, name, settings)
        tokenizers[name] = training.run(tokenizer, Mixture(sources), settings, identity)
        parts[name] = training.facts
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


def train_tokenizer(
    path: Path | str,
    folder: Path | str,
    *,
    readers: Mapping[str, Callable[..., Callable[[int], Observation]]] | None = None,
    others: Iterable[type[Tokenizer]] = (),
    device: str = "cpu",
    steps: int | None = None,
    progress: bool = True,
) -> Tokenizer:
    """Trains the tokenizer of a recipe and writes it; run again, it goes on where it stopped.

    Arguments:
        path: the recipe.
        folder: receives `tokenizer/` (see `aion.tokenizers.store`), the log and, while it runs, the checkpoint.
        readers: by the name a source gives, functions of its other settings and `batch` and `seed` that return a
            source, see `aion.sources`; its attribute `facts`, if it has one, goes into the provenance.
        others: classes of tokenizers known beside those of `aion.tokenizers`.
        device: where to train.
        steps: overrides the steps, for a trial run.
        progress: shows a progress bar on a terminal.

    Raises:
        ValueError: for a recipe that is not one, or a reader that is not given.
    """
    recipe, folder = load_tokenizer(path), Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    settings = dict(recipe["training"]) | ({} if steps is None else {"steps": min(steps, recipe["training"]["steps"])})
    tokenizer = build(recipe["tokenizer"], others).to(device)
    data = mixture(recipe, readers, device)
    training = _Training(recipe["name"], folder, recipe["seed"], device, progress)
    if "fit" in recipe:
        options = dict(recipe["fit"])
        count = options.pop("objects", 2000)
        sample = SkySource(options.pop("modality"), count, FIRST, _sky(recipe, {}, device))
        training.fit(tokenizer, sample.observe(FIRST, count if steps is None else min(count, 256)), options)
    identity = _identity(recipe, recipe["name"], settings)
    tokenizer = training.run(tokenizer, data, settings, identity)
    facts = {name: s.facts for name, s in zip(recipe["sources"], data.sources, strict=True) if hasattr(s, "facts")}
    save(tokenizer, folder / "tokenizer", _provenance(path, recipe["name"], device) | {"data": facts} | training.facts)
    return tokenizer


def fit_family(
    path: Path | str, folder: Path | str, *, device: str = "cpu", objects: int | None = None, progress: bool = True
) -> dict[str, Tokenizer]:
    """Fits the tokenizers of a family and writes each into a folder of its own.

    Arguments:
        path: the recipe.
        folder: receives a folder for each modality, see `aion.tokenizers.store`.
        device: where the sky is simulated.
        objects: overrides the number of objects, for a trial run.
        progress: shows a progress bar on a terminal.
    """
    recipe, folder = load_family(path), Path(folder)
    count, size = objects or recipe["fit"]["objects"], recipe["fit"].get("batch", 1000)
    sky = Sky(**_sky(recipe, {}, device), modalities=list(recipe["modalities"]))
    starts = tqdm(range(0, count, size), desc=recipe["name"], disable=None if progress else True)
    seen = [sky.observe(torch.arange(FIRST + start, FIRST + min(start + size, count))) for start in starts]
    tokenizers = {}
    for name, own in recipe["modalities"].items():
        config = {**recipe["tokenizer"], **own}
        spacing = config.pop("spacing", "normal")
        tokenizers[name] = build(config).to(device).fit((batch[name] for batch in seen), spacing).eval()
        facts = {"data": "simulated by aion.sky", "objects": count}
        save(tokenizers[name], folder / name, _provenance(path, name, device) | facts)
    return tokenizers


def mixture(
    recipe: Mapping,
    readers: Mapping[str, Callable[..., Callable[[int], Observation]]] | None = None,
    device: str = "cpu",
) -> Mixture:
    """Returns the data that the recipe of a tokenizer trains on, see `train_tokenizer`."""
    sources = [_source(recipe, name, readers or {}, device) for name in recipe["sources"]]
    return Mixture(sources, [source.get("weight", 1) for source in recipe["sources"].values()])


def _sky(recipe: Mapping, source: Mapping, device: str) -> dict[str, object]:
    return {**recipe.get("sky", {}), **source.get("sky", {}), "seed": recipe["seed"], "device": device}


def _source(recipe: Mapping, name: str, readers: Mapping[str, Callable], device: str) -> Callable[[int], Observation]:
    """Makes a source of what the recipe says of it."""
    source = recipe["sources"][name]
    batch = source.get("batch", recipe["training"]["batch"])
    if "modality" in source:
        if unknown := set(source) - {"batch", "modality", "sky", "weight"}:
            msg = f"source {name!r} of the recipe: one of the sky takes no {sorted(unknown)[0]!r}"
            raise ValueError(msg)
        return SkySource(source["modality"], batch, FIRST + FITTED, _sky(recipe, source, device))
    if source["reader"] not in readers:
        msg = f"source {name!r} of the recipe: no reader {source['reader']!r}; {near_miss(source['reader'], readers)}"
        raise ValueError(msg)
    options = {key: value for key, value in source.items() if key not in {"batch", "reader", "weight"}}
    return readers[source["reader"]](batch=batch, seed=recipe["seed"], **options)


def _provenance(path: Path | str, name: str, device: str) -> dict[str, object]:
    machine = f"{torch.get_num_threads()} threads, {platform.machine()}, torch {torch.__version__}, {device}"
    return {"name": name, "recipe": Path(path).name, "machine": machine}


class _Training:
    """Fits and trains one tokenizer."""

    def __init__(self, name: str, folder: Path, seed: int, device: str, progress: bool) -> None:
        self.name, self.folder, self.seed, self.device, self.progress = name, folder, seed, device, progress
        self.facts: dict[str, object] = {}

    def fit(self, tokenizer: Tokenizer, sample: Observation, options: Mapping[str, object]) -> None:
        tokenizer.fit(sample, **options)
        self.facts = {"fitted_on": len(sample)}

    def run(self, tokenizer: Tokenizer, data: Mixture, settings: Mapping, identity: str) -> Tokenizer:
        if not any(p.requires_grad for p in tokenizer.parameters()):
            return tokenizer.eval()
        settings = dict(settings)
        batch = settings.pop("batch")
        draws = torch.Generator().manual_seed(self.seed)
        if hasattr(tokenizer, "reset_parameters"):
            tokenizer.reset_parameters(draws)
        else:
            tokenizer.apply(_reset(draws))
        checkpoint = self.folder / "checkpoints" / self.name
        train(
            tokenizer,
            lambda step: _to(data(step), self.device),
            generator=torch.Generator().manual_seed(self.seed),
            checkpoint=checkpoint,
            identity=identity,
            log=self.folder / f"{self.name}.jsonl",
            progress=f"tokenizer {self.name}" if self.progress else None,
            **settings,
        )
        self.facts |= {"steps": settings["steps"], "batch": batch, "seconds": elapsed(checkpoint)}
        return tokenizer.eval()


def _to(batch: Observation | tuple[Observation, ...], device: str) -> Observation | tuple[Observation, ...]:
    return tuple(view.to(device) for view in batch) if isinstance(batch, tuple) else batch.to(device)


def _reset(generator: torch.Generator):
    """Returns a function that draws the parameters of convolutions and linear layers anew, from a generator."""

    def reset(module: nn.Module) -> None:
        if isinstance(module, nn.Conv1d | nn.Conv2d | nn.ConvTranspose1d | nn.Linear):
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
