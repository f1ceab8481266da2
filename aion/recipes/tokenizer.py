"""Recipes of tokenizers: one that is trained, or a family that is fitted to values and has nothing to train."""

__all__ = ["fit_family", "mixture", "train_tokenizer"]

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import torch

from tqdm.auto import tqdm

from aion.device import usable
from aion.observations import Observation, near_miss
from aion.recipes import part
from aion.recipes.part import FIRST, FITTED
from aion.recipes.reading import load_family, load_tokenizer
from aion.sky import Sky
from aion.sources import Mixture, PartSource, SkySource, data_objects
from aion.tokenizers import Tokenizer, build
from aion.tokenizers.store import save
from aion.training import ranks


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
        device: where to train; `"auto"` takes CUDA if there is one, else the CPU.
        steps: overrides the steps, for a trial run.
        progress: shows a progress bar on a terminal.

    Raises:
        ValueError: for a recipe that is not one, a reader that is not given, or a device that cannot be used.
    """
    folder = Path(folder)
    with ranks.together():
        device, recipe = str(usable(device)), load_tokenizer(path)
        folder.mkdir(parents=True, exist_ok=True)
        settings = dict(recipe["training"])
        settings |= {} if steps is None else {"steps": min(steps, settings["steps"])}
        tokenizer = build(recipe["tokenizer"], others).to(device)
        data = mixture(recipe, readers, device)
    own = part.Part(recipe, recipe["name"], settings, folder, progress)
    if "fit" in recipe:
        options = dict(recipe["fit"])
        count = options.pop("objects", 2000)
        sample = SkySource(options.pop("modality"), count, FIRST, _sky(recipe, {}, device))
        own.fit(tokenizer, sample.observe(FIRST, count if steps is None else min(count, 256)), options)
    own.reset(tokenizer)
    own.train(tokenizer, lambda number: part.on_device(data(number), device), f"tokenizer {recipe['name']}")
    facts = {name: s.facts for name, s in zip(recipe["sources"], data.sources, strict=True) if hasattr(s, "facts")}
    if ranks.rank() == 0:
        save(tokenizer, folder / "tokenizer", _provenance(path, recipe["name"], device) | {"data": facts} | own.facts)
    return tokenizer


def fit_family(
    path: Path | str, folder: Path | str, *, device: str = "cpu", objects: int | None = None, progress: bool = True
) -> dict[str, Tokenizer]:
    """Fits the tokenizers of a family and writes each into a folder of its own.

    Arguments:
        path: the recipe.
        folder: receives a folder for each modality, see `aion.tokenizers.store`.
        device: where the sky is simulated; `"auto"` takes CUDA if there is one, else the CPU.
        objects: overrides the number of objects, for a trial run.
        progress: shows a progress bar on a terminal.

    Raises:
        ValueError: for a recipe that is not one, or a device that cannot be used.
    """
    device, recipe, folder = str(usable(device)), load_family(path), Path(folder)
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
        if "data" in recipe:
            objects = data_objects(recipe["data"], batch, recipe["training"].get("accumulate", 1), recipe["seed"])
            return PartSource(objects, source["modality"])
        return SkySource(source["modality"], batch, FIRST + FITTED, _sky(recipe, source, device))
    if source["reader"] not in readers:
        msg = f"source {name!r} of the recipe: no reader {source['reader']!r}; {near_miss(source['reader'], readers)}"
        raise ValueError(msg)
    options = {key: value for key, value in source.items() if key not in {"batch", "reader", "weight"}}
    return readers[source["reader"]](batch=batch, seed=recipe["seed"], **options)


def _provenance(path: Path | str, name: str, device: str) -> dict[str, object]:
    return {"name": name, "recipe": Path(path).name, "machine": part.machine(device)}
