"""Runs cells: one task by one embedder, with its controls, kept on disk and never computed twice.

A cell lies in `DIR/<task>/<name>.json`, what figures are drawn of beside it as safetensors, embeddings under
`DIR/cache`. A cell is taken as it lies only if task, data, embedder and the code that scores are what they were.
"""

__all__ = ["evaluate", "run"]

import json
import platform
import re
import time

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np
import torch

from aion import __version__
from aion.benchmarks.embedders import BATCH
from aion.benchmarks.fitting import Scored
from aion.benchmarks.generation import generation
from aion.benchmarks.protocol import Embedder
from aion.benchmarks.published import NotReached
from aion.benchmarks.retrieval import matching, retrieval
from aion.benchmarks.scoring import few_labels, posterior, probes, transfer
from aion.benchmarks.seen import Seen, code, hashed
from aion.benchmarks.segmentation import segmentation
from aion.benchmarks.task import Data, Task, digest
from aion.whole import whole

SCORERS: dict[str, Callable[..., Scored]] = {
    "classification": probes,
    "few-labels": few_labels,
    "generation": generation,
    "matching": matching,
    "posterior": posterior,
    "regression": probes,
    "retrieval": retrieval,
    "segmentation": segmentation,
    "transfer": transfer,
}
# What an embedder must have, beside vectors, and what it lacks in words.
NEEDS = {
    "posterior": ("predict", "it predicts no distribution"),
    "segmentation": ("grids", "it has no vectors of parts"),
}
HERE = Path(__file__).parent
# A change of these makes new cells.
CODE = sorted(p.stem for p in HERE.glob("*.py") if p.stem not in {"__init__", "report", "figures", "tasks"})
CODE += sorted(f"../probes/{path.stem}" for path in (HERE.parent / "probes").glob("*.py"))


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

    A cell that cannot be scored, see `evaluate`, has the status "failed" and is not kept; the others go on.

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
            try:
                cells.append(evaluate(task, embedder, folder, root, seed=seed, controls=controls))
            except ValueError as error:
                cells.append(_facts(task, embedder) | {"status": "failed", "why": str(error)})
            report(len(cells), len(tasks) * len(embedders), cells[-1])
    return cells


def evaluate(
    task: Task, embedder: Embedder, folder: Path | str, root: Path | str, *, seed: int = 0, controls: bool = True
) -> dict:
    """Returns the cell of a task and an embedder: from disk if it is there and nothing has changed, else computed.

    Its `status` is "scored", "not applicable" (the model reads none of the modalities, or lacks what is asked for),
    "refused" (it was trained on the data) or "not reachable" (a public data set).

    Raises:
        FileNotFoundError: if the data are not there.
        ValueError: for data that are not those declared, labels missing or constant, embeddings that are not finite
            (named by their ids), or lack objects.
    """
    folder = Path(folder)
    path = folder / task.name / f"{re.sub(r'[^A-Za-z0-9._-]+', '-', embedder.name)}.json"
    key = hashed(task.sha256, embedder.sha256, *embedder.trained_on, str(seed), str(controls), code(*CODE))
    if path.is_file() and task.version:
        kept = json.loads(path.read_text())
        if kept.get("key") == key:
            return kept | {"kept": True}
    started = time.perf_counter()
    cell = _facts(task, embedder) | {"key": key, "data_version": task.version}
    status, why = _applies(task, embedder)
    arrays: dict[str, np.ndarray] = {}
    if status == "scored":
        try:
            data = task.load(Path(root))
        except NotReached as error:
            status, why = "not reachable", str(error)
        else:
            found, arrays = _cell(task, embedder, data, folder / "cache", seed, controls)
            cell |= found | {"objects": len(data), "data_sha256": digest(data.observations)}
            cell["data_version"] = data.version or task.version
    cell |= {"status": status, "why": why, "seed": seed, "batch_size": BATCH, "dtype": "float32"}
    cell |= {"seconds": round(time.perf_counter() - started, 1)}
    cell |= {"aion": __version__, "torch": torch.__version__, "numpy": np.__version__, "machine": platform.machine()}
    _write(path, cell, arrays)
    return cell


def _facts(task: Task, embedder: Embedder) -> dict:
    """Returns what a cell is of."""
    facts = {"task": task.name, "model": embedder.name, "origin": task.origin, "kind": task.kind}
    return facts | {"metric": task.metric, "model_sha256": embedder.sha256}


def _applies(task: Task, embedder: Embedder) -> tuple[str, str]:
    """Tells whether a task can be put to an embedder, and why not."""
    if leaked := sorted(set(task.contains) & set(embedder.trained_on)):
        return "refused", f"its provenance lists {leaked[0]!r}, which the test objects are of, as training data"
    for names in filter(None, (task.inputs, task.others)):
        known = [name for name in names if embedder.reads(name)]
        if not known or (task.kind == "matching" and (names[0] not in known or len(known) < 2)):
            return "not applicable", f"it reads {'none' if not known else 'too few'} of {', '.join(names)}"
    if task.others and not getattr(embedder, "sees", True):
        return "not applicable", "it has one vector of an object, whatever survey saw it"
    method, lack = NEEDS.get(task.kind, ("embed", ""))
    if not hasattr(embedder, method):
        return "not applicable", lack
    if task.kind == "posterior" and not embedder.reads(task.labels[0]):
        return "not applicable", f"it predicts no {task.labels[0]}"
    return "scored", ""


def _cell(
    task: Task, embedder: Embedder, data: Data, cache: Path, seed: int, controls: bool
) -> tuple[dict, dict[str, np.ndarray]]:
    """Scores an embedder and its controls."""
    score, seen = SCORERS[task.kind], Seen(embedder, task, data, cache)
    main = score(task, seen, seed)
    cell = {"inputs": seen.names, "scores": main.scores, "tested": main.tested, "fitted": main.fitted, "controls": {}}
    if seen.others:
        cell["others"] = seen.others
    if controls:
        cell["controls"]["shuffled labels"] = score(task, seen, seed, shuffled=True).scores[task.metric]
        for name, control in embedder.controls(seed).items():
            cell["controls"][name] = score(task, Seen(control, task, data, cache), seed).scores[task.metric]
    return cell, main.arrays


def _write(path: Path, cell: dict, arrays: dict[str, np.ndarray]) -> None:
    from safetensors.numpy import save_file

    classes = {key: value.tolist() for key, value in arrays.items() if value.dtype.kind in "US"}
    numbers = {key: np.ascontiguousarray(value) for key, value in arrays.items() if key not in classes}
    path.parent.mkdir(parents=True, exist_ok=True)
    if arrays:
        facts = {"key": cell["key"], "classes": json.dumps(classes)}
        with whole(path.with_suffix(".safetensors")) as temporary:
            save_file(numbers, temporary, metadata=facts)
    text = json.dumps(cell, indent=1, sort_keys=True) + "\n"
    with whole(path) as temporary:
        temporary.write_text(text)
