"""Runs cells: one task by one embedder, with its controls, kept on disk and never computed twice.

A cell lies in `DIR/<task>/<name>.json`, what figures are drawn of beside it as safetensors, embeddings under
`DIR/cache`. A cell is taken as it lies only if task, data, embedder and the code that scores are what they were.
"""

__all__ = ["evaluate", "run"]

import functools
import hashlib
import json
import platform
import re
import secrets
import time

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np
import torch

from aion import __version__
from aion.benchmarks import scoring
from aion.benchmarks.embedders import BATCH, Embedder
from aion.benchmarks.task import Data, Task, digest

PROBED = {
    "classification": scoring.probes,
    "few-labels": scoring.few_labels,
    "regression": scoring.probes,
    "retrieval": scoring.retrieval,
}
HERE = Path(__file__).parent
# A change of these makes new cells; of the first, new embeddings.
CODE = [HERE / f"{name}.py" for name in ("embedders", "metrics", "real", "scoring", "simulated")]
CODE += sorted((HERE.parent / "probes").glob("*.py"))


def run(
    tasks: Sequence[Task],
    embedders: Iterable[Embedder],
    folder: Path | str,
    root: Path | str,
    *,
    seed: int = 0,
    controls: bool = True,
    report: Callable[[int, int, dict], None] = lambda done, total, cell: None,
) -> list[dict]:
    """Evaluates every embedder on every task; an interruption loses at most the running cell.

    Arguments:
        tasks: what is asked.
        embedders: of whom.
        folder: where results are kept.
        root: a checkout, where the data lie.
        seed: of bootstraps, choices and controls.
        controls: whether shuffled labels, random weights and masks alone are scored, too.
        report: told after each cell how many are done, of how many, and the cell.
    """
    embedders, cells = list(embedders), []
    names = [e.name for e in embedders]
    if twice := {name for name in names if names.count(name) > 1}:
        msg = f"two models are named {sorted(twice)[0]!r}: their results would overwrite each other"
        raise ValueError(msg)
    for task in tasks:
        for embedder in embedders:
            cells.append(evaluate(task, embedder, folder, root, seed=seed, controls=controls))
            report(len(cells), len(tasks) * len(embedders), cells[-1])
    return cells


def evaluate(
    task: Task, embedder: Embedder, folder: Path | str, root: Path | str, *, seed: int = 0, controls: bool = True
) -> dict:
    """Returns the cell of a task and an embedder: from disk if it is there and nothing has changed, else computed.

    Its `status` is "scored", "not applicable" (the model reads none of the modalities) or "refused" (it was trained on
    the data).

    Raises:
        FileNotFoundError: if the data are not there.
        ValueError: for data that are not those declared, labels missing or constant, embeddings that are not finite
            (named by their ids), or lack objects.
    """
    folder = Path(folder)
    path = folder / task.name / f"{re.sub(r'[^A-Za-z0-9._-]+', '-', embedder.name)}.json"
    key = _hash(task.sha256, embedder.sha256, str(seed), str(controls), _code())
    if path.is_file():
        kept = json.loads(path.read_text())
        if kept.get("key") == key:
            return kept | {"kept": True}
    started = time.perf_counter()
    cell = {"task": task.name, "model": embedder.name, "origin": task.origin, "kind": task.kind, "key": key}
    cell |= {"metric": task.metric, "model_sha256": embedder.sha256, "data_version": task.version}
    status, why = _applies(task, embedder)
    arrays: dict[str, np.ndarray] = {}
    if status == "scored":
        data = task.load(Path(root))
        found, arrays = _cell(task, embedder, data, folder / "cache", seed, controls)
        cell |= found | {"objects": len(data), "data_sha256": digest(data.observations)}
    cell |= {"status": status, "why": why, "seed": seed, "batch_size": BATCH, "dtype": "float32"}
    cell |= {"seconds": round(time.perf_counter() - started, 1)}
    cell |= {"aion": __version__, "torch": torch.__version__, "numpy": np.__version__, "machine": platform.machine()}
    _write(path, cell, arrays)
    return cell


def _applies(task: Task, embedder: Embedder) -> tuple[str, str]:
    known = [name for name in task.inputs if embedder.reads(name)]
    if leaked := sorted(set(task.contains) & set(embedder.trained_on)):
        return "refused", f"its provenance lists {leaked[0]}, which the test objects are of, as training data"
    if not known or (task.kind == "matching" and (task.inputs[0] not in known or len(known) < 2)):
        return "not applicable", f"it reads {'none' if not known else 'too few'} of {', '.join(task.inputs)}"
    if task.kind == "posterior" and not hasattr(embedder, "predict"):
        return "not applicable", "it predicts no distribution"
    if task.kind == "posterior" and not embedder.reads(task.labels[0]):
        return "not applicable", f"it predicts no {task.labels[0]}"
    return "scored", ""


def _cell(
    task: Task, embedder: Embedder, data: Data, cache: Path, seed: int, controls: bool
) -> tuple[dict, dict[str, np.ndarray]]:
    """Scores an embedder and its controls."""
    read = [name for name in task.inputs if embedder.reads(name)]
    main = _score(task, embedder, data, cache, seed)
    cell = {"inputs": read, "scores": main.scores, "tested": main.tested, "fitted": main.fitted, "controls": {}}
    if controls and task.kind != "posterior":
        shuffled = _score(task, embedder, data, cache, seed, shuffled=True)
        cell["controls"]["shuffled labels"] = shuffled.scores[task.metric]
        for name, control in embedder.controls(seed).items():
            cell["controls"][name] = _score(task, control, data, cache, seed).scores[task.metric]
    return cell, main.arrays


def _score(
    task: Task, embedder: Embedder, data: Data, cache: Path, seed: int, shuffled: bool = False
) -> scoring.Scored:
    read = [name for name in task.inputs if embedder.reads(name)]
    if task.kind == "posterior":
        return scoring.posterior(task, _predicted(task, embedder, data, read), data, seed)
    if task.kind == "matching":
        asked, others = [read[0]], read[1:]
        first, second = (_vectors(embedder, data, names, cache) for names in (asked, others))
        return scoring.matching(task, first, second, data, seed, shuffled)
    return PROBED[task.kind](task, _vectors(embedder, data, read, cache), data, seed, shuffled)


def _predicted(task: Task, embedder: Embedder, data: Data, read: list[str]):
    return embedder.predict({name: data.observations[name] for name in read}, task.labels[0])


def _vectors(embedder: Embedder, data: Data, names: Sequence[str], cache: Path) -> np.ndarray:
    """Embeds, or reads what was embedded before, under a hash of the observations and of what embeds them."""
    from safetensors.numpy import load_file, save_file

    observations = {name: data.observations[name] for name in names}
    path = cache / f"{_hash(digest(observations), embedder.sha256, *data.ids.tolist(), _code(1))[:32]}.safetensors"
    if path.is_file():
        return load_file(path)["embedding"]
    vectors = np.asarray(embedder.embed(data.ids.tolist(), observations))
    if vectors.shape[:1] != (len(data),) or vectors.ndim != 2:
        msg = f"{embedder.name}: wanted vectors ({len(data)}, D), given shape {vectors.shape}"
        raise ValueError(msg)
    if not (finite := np.isfinite(vectors).all(1)).all():
        rows = data.ids[~finite][:5].tolist()
        msg = f"{embedder.name}: {int((~finite).sum())} embeddings hold NaN or inf, of the objects {', '.join(rows)}"
        raise ValueError(msg)
    vectors = np.ascontiguousarray(vectors, dtype=np.float32)
    _atomic(path, lambda temporary: save_file({"embedding": vectors}, temporary))
    return vectors


@functools.cache
def _code(count: int = len(CODE)) -> str:
    return _hash(*(path.read_text(encoding="utf-8") for path in CODE[:count]))


def _hash(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()


def _write(path: Path, cell: dict, arrays: dict[str, np.ndarray]) -> None:
    from safetensors.numpy import save_file

    classes = {key: value.tolist() for key, value in arrays.items() if value.dtype.kind in "US"}
    numbers = {key: np.ascontiguousarray(value) for key, value in arrays.items() if key not in classes}
    if arrays:
        facts = {"key": cell["key"], "classes": json.dumps(classes)}
        _atomic(path.with_suffix(".safetensors"), lambda temporary: save_file(numbers, temporary, metadata=facts))
    text = json.dumps(cell, indent=1, sort_keys=True) + "\n"
    _atomic(path, lambda temporary: temporary.write_text(text))


def _atomic(path: Path, write: Callable[[Path], object]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        write(temporary)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
