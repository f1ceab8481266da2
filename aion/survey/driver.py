"""Runs a frozen model over a survey: plans units, works through those that are not finished, joins the parts.

The same two functions do it on one machine, on a Dask cluster, under `torchrun` and in a job array: `work` makes the
part of a unit, which depends on nothing but the plan, and the manifest joins the parts in the order of the units.
"""

__all__ = ["ENGINES", "Job", "Preview", "embed_survey", "preview"]

import difflib
import functools
import itertools
import json
import os
import time

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import torch

from tqdm.auto import tqdm

from aion.io.hats import check_hats
from aion.model import AION
from aion.survey.embedder import Embedder
from aion.survey.manifest import Manifest, Report
from aion.survey.source import Reader, Slice, Unit, find, units

if TYPE_CHECKING:
    from distributed import Client
    from pyarrow import Table

ENGINES = ("local", "dask", "torchrun")


@dataclass(frozen=True)
class Job:
    """Says what is done with every row, in plain JSON values, so that any worker can do it.

    Arguments:
        model: see `aion.model.AION.from_pretrained`.
        predict: names of scalars to predict.
        pool: see `aion.survey.embedder.Embedder`.
        layer: see `aion.survey.embedder.Embedder`.
        dtype: of the transformer, such as "float32"; "auto" takes bfloat16 where the device is fast in it.
        device: where to compute.
        batch_size: most objects in a batch; None goes by the number of tokens.
        columns: columns of Parquet files by modality, beside those found by their names.
        format: of files that are not Parquet; see `aion.io.read`.
        options: of `aion.io.read`.
        known_as: modality as which spectra of no known survey are read.
        without: modalities that are left out.
        join: whether the files hold different modalities of the same objects.
    """

    model: str = "aion-nano"
    predict: tuple[str, ...] = ()
    pool: str = "mean"
    layer: str = "context"
    dtype: str = "float32"
    device: str = "auto"
    batch_size: int | None = None
    columns: Mapping[str, str] = field(default_factory=dict)
    format: str | None = None
    options: Mapping[str, object] = field(default_factory=dict)
    known_as: str | None = None
    without: tuple[str, ...] = ()
    join: bool = False

    def prepare(self) -> tuple[Reader, Embedder]:
        """Loads the model, once in a process, and checks what is asked for.

        Raises:
            FileNotFoundError: if there is no such model.
            ValueError: for a model that cannot be loaded, or names and options that do not fit it.
        """
        return _prepare(json.dumps(asdict(self), sort_keys=True))


@functools.lru_cache(maxsize=2)
def _prepare(text: str) -> tuple[Reader, Embedder]:
    job = Job(**json.loads(text))
    dtype = job.dtype if job.dtype == "auto" else getattr(torch, job.dtype, job.dtype)
    model = AION.from_pretrained(job.model, device=job.device, dtype=dtype)
    kinds = {name: model.tokenizer(name).observation for name in model.modalities}
    for name in job.without:
        if name not in model.modalities and difflib.get_close_matches(name, model.modalities, cutoff=0.8):
            model.tokenizer(name)  # almost a name of the model's: left in by mistake, it would leak into the embedding
    for name in (*job.columns, *((job.known_as,) if job.known_as else ())):
        model.tokenizer(name)  # an unknown name is refused here, with the near misses
    # On a CPU activations must fit its cache: 2500 tokens at once take a sixth more time than 1300.
    tokens = 1280 if model.device.type == "cpu" else 131072
    embedder = Embedder(model, job.pool, job.layer, job.predict, job.batch_size, tokens)
    reader = Reader(kinds, job.columns, job.format, job.options, job.known_as, tuple(job.without), job.join)
    return reader, embedder


def work(job: Job, unit: Unit, report: Callable[[int], object] | None = None) -> "tuple[Table, dict]":
    """Makes the part of a unit: its table, and notes on what was not read."""
    import pyarrow

    reader, embedder = job.prepare()
    tables, unread, coverage = [], set(), {}
    for rows in reader.read(unit):
        tables.append(embedder(rows))
        unread |= set(rows.unread)
        for name, share in embedder.coverage(rows).items():
            coverage[name] = min(share, coverage.get(name, 1.0))
        if report is not None:
            report(len(rows.ids))
    return pyarrow.concat_tables(tables), {"unread": sorted(unread), "coverage": coverage}


def embed_survey(
    sources: Sequence[str | Path],
    output: str | Path,
    job: Job | None = None,
    *,
    limit: int | None = None,
    rows: int = 1024,
    engine: str = "local",
    workers: str | int = 2,
    part: tuple[int, int] | None = None,
    hats: bool = False,
) -> Report | None:
    """Embeds all objects of a survey into one Parquet file, or into a HATS catalogue.

    Started again after it was stopped by whatever, it goes on with the units that are not finished; the output is the
    same, bit for bit, on machines of one kind with one number of threads. A row or file that fails is a row of the
    output that says why.

    Arguments:
        sources: see `aion.survey.source.find`.
        output: the file; parts stand beside it in `OUT.parts` until it is complete.
        job: what is done; embeddings of `aion-nano` by default.
        limit: most rows.
        rows: most rows of a unit: what is lost at most when the run is stopped.
        engine: `"local"`; `"dask"`; or `"torchrun"`, with a process for each GPU.
        workers: of Dask: a number of local processes, or the address of a scheduler.
        part: number and count of this job in an array of independent jobs, whose parts the next run without it joins.
        hats: writes a HATS catalogue (a folder, see `aion.io.hats`) and not one file.

    Returns:
        What became of the rows; None if other processes have yet to finish theirs.

    Raises:
        FileExistsError: if there is something else where a HATS catalogue should be.
        FileNotFoundError: if a source or the model does not exist.
        ValueError: for an unknown engine, options that do not fit the model, an unfinished run with another plan, or
            if no object could be embedded; an earlier output is kept then.
        OSError: if the output cannot be written; what is finished is kept.
        RuntimeError: if workers of Dask died; the next run goes on.
    """
    job = job or Job()
    if engine not in ENGINES:
        msg = f"unknown engine {engine!r}; known: {', '.join(ENGINES)}"
        raise ValueError(msg)
    if isinstance(workers, int) and workers < 1:
        msg = f"workers must be at least 1, or the address of a scheduler, given {workers}"
        raise ValueError(msg)
    rank, world = part or (0, 1)
    if not 0 <= rank < world:
        msg = f"part must be a number from 0 and below the count, given {rank} of {world}"
        raise ValueError(msg)
    if engine == "torchrun":
        rank, world = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
        if job.device == "auto" and torch.cuda.is_available():
            job = replace(job, device=f"cuda:{os.environ.get('LOCAL_RANK', 0)}")
    if hats:
        check_hats(Path(output))
    files = find(sources)
    _, embedder = job.prepare()
    planned = _plan_units(files, job, rows, limit)
    facts = {"model": job.model, **embedder.facts, "predict": list(job.predict)}
    plan = {**facts, **_settings(job), "units": planned}
    manifest = Manifest(Path(output), plan)
    todo = [number for number in manifest.missing() if number % world == rank]
    try:
        (_run_dask if engine == "dask" else _run_here)(manifest, job, planned, todo, workers)
    except Exception:
        if world == 1 and len(manifest.missing()) == len(planned):  # nothing is finished that could be gone on with
            manifest.remove()
        raise
    if engine == "torchrun" and rank == 0:
        while manifest.missing():
            time.sleep(0.2)
    if manifest.missing() or (engine == "torchrun" and rank != 0) or (part and world > 1):
        return None
    return manifest.merge(facts, hats)


def _plan_units(files: Sequence[str], job: Job, rows: int, limit: int | None) -> list[Unit]:
    if job.join:
        return [tuple(Slice(path) for path in files)]
    planned = units(files, rows, limit)
    if not planned:
        msg = f"there are no rows in {', '.join(files[:3])}"
        raise ValueError(msg)
    return planned


def _settings(job: Job) -> dict[str, object]:
    """Returns what the output depends on beside the model."""
    return {key: value for key, value in asdict(job).items() if key not in {"model", "device", "predict"}}


def _run_here(manifest: Manifest, job: Job, planned: Sequence[Unit], todo: Sequence[int], _: object) -> None:
    with _bar(planned, todo) as bar:
        for number in todo:
            manifest.write(number, *work(job, planned[number], bar.update))


def _run_dask(manifest: Manifest, job: Job, planned: Sequence[Unit], todo: Sequence[int], workers: str | int) -> None:
    lost: list[str] = []
    with _client(workers) as client, _bar(planned, todo) as bar:
        from distributed import as_completed

        # Parts that wait to be written fill the memory of workers, so that not all units are submitted at once.
        ahead = 4 * max(sum(client.nthreads().values()), 16)
        running, rest, numbers = as_completed(), iter(todo), {}

        def submit(count: int) -> None:
            for number in itertools.islice(rest, count):
                future = client.submit(work, job, planned[number], pure=False, retries=1)
                numbers[future.key] = number
                running.add(future)

        submit(ahead)
        for future in running:
            number = numbers.pop(future.key)
            if future.status == "finished":
                table, notes = future.result()
                manifest.write(number, table, notes)
                bar.update(len(table))
            else:
                lost.append(f"{planned[number][0].path}: {future.exception() or future.status}")
            submit(1)
    if lost:
        msg = (
            f"{len(lost)} of {len(todo)} units failed on the workers; what is finished is kept, and the same command "
            f"goes on with it; the first: {lost[0]}"
        )
        raise RuntimeError(msg)


@contextmanager
def _client(workers: str | int) -> "Iterator[Client]":
    """Connects to a scheduler of Dask, or to so many processes that are started here."""
    try:
        import dask

        from distributed import Client, LocalCluster
    except ModuleNotFoundError as error:
        msg = "engine 'dask' needs the extra `dask`: pip install 'aion-toolkit[dask]'"
        raise ModuleNotFoundError(msg) from error
    with ExitStack() as stack:
        if isinstance(workers, int):
            # Dask gives a process up that is not there again 15 s after it died; a busy machine takes longer.
            stack.enter_context(dask.config.set({"distributed.deploy.lost-worker-timeout": "10 minutes"}))
            workers = stack.enter_context(LocalCluster(n_workers=workers, threads_per_worker=1, dashboard_address=None))
        yield stack.enter_context(Client(workers))


def _bar(planned: Sequence[Unit], todo: Sequence[int]) -> tqdm:
    counts = [each.stop and each.stop - each.start for number in todo for each in planned[number]]
    total = None if None in counts else sum(counts)
    return tqdm(total=total, unit="object", unit_scale=True, smoothing=0.05, disable=None)


class Preview(NamedTuple):
    """Says what a run would do.

    Arguments:
        files: number of files.
        rows: number of rows, None if it is not known without reading them.
        columns: column of each modality, of the first Parquet file; empty for other formats.
        tokens: mean number of tokens of an object, by modality, of the first piece.
        objects: number of objects that this is the mean of.
    """

    files: int
    rows: int | None
    columns: dict[str, str]
    tokens: dict[str, float]
    objects: int


def preview(sources: Sequence[str | Path], job: Job | None = None, limit: int | None = None) -> Preview:
    """Reads the first rows of a survey and counts their tokens; nothing is written.

    Raises:
        FileNotFoundError: if a source or the model does not exist.
        ValueError: for what `embed_survey` refuses, or if the first rows cannot be read.
    """
    job = job or Job()
    files = find(sources)
    reader, embedder = job.prepare()
    planned = _plan_units(files, job, 1024, limit)
    counts = [each.stop and each.stop - each.start for unit in planned for each in unit]
    rows = next(reader.read(planned[0]))
    if not rows.observations:
        msg = f"{rows.sources[0]}: {next(iter(rows.faults.values()), 'nothing was measured')}"
        raise ValueError(msg)
    tokens = embedder.count(rows)
    columns = reader.map_of(files[0])
    total = None if None in counts else sum(counts)
    return Preview(len(files), total, columns.modalities if columns else {}, tokens, len(rows.ids))
