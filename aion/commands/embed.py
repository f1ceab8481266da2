"""`aion embed`: files and whole surveys to a table of embeddings."""

__all__ = ["register"]

import argparse

from pathlib import Path
from typing import TYPE_CHECKING

from aion.commands.command import (
    add,
    add_model,
    check_writable,
    names,
    note,
    pairs,
    part,
    positive,
    share_cores,
    table,
)

if TYPE_CHECKING:
    from aion.survey import Job
    from aion.survey.driver import Preview


def register(verbs) -> None:
    """Adds the verb."""
    parser = add(
        verbs,
        "embed",
        _run,
        "embed the objects of files or whole surveys and write them to a Parquet table",
        "One row per object: its id, position, embedding, the modalities and the number of tokens that went in, and a\n"
        "status. Everything read that the model knows is used; what it does not know is named in a note. A row or\n"
        "file that fails is a row that says why, and exit status 3. Started again after an interruption it goes on.",
        "aion embed coadd-*.fits -o embeddings.parquet",
    )
    parser.add_argument(
        "source",
        nargs="+",
        metavar="SOURCE",
        help="files that aion.io.read reads, globs, folders of Parquet or HATS, owner/name of a data set on the Hub",
    )
    parser.add_argument("-o", "--output", required=True, type=Path, metavar="OUT", help="Parquet file to write")
    parser.add_argument(
        "--hats", action="store_true", help="write a HATS catalogue, a folder of files by place on the sky, as OUT"
    )
    _add_columns(parser)
    parser.add_argument(
        "--predict", action="extend", default=[], type=names, metavar="NAME[,NAME]", help="scalars to predict as well"
    )
    parser.add_argument("--pool", choices=["mean"], default="mean", help="how tokens become one vector (default: mean)")
    parser.add_argument(
        "--layer", choices=["context", "encoder"], default="context", help="layer to embed by (default: context)"
    )
    parser.add_argument(
        "--dtype",
        choices=["auto", "bfloat16", "float16", "float32"],
        default="float32",
        help="type of the transformer's numbers; auto takes bfloat16 where that is fast (default: float32)",
    )
    parser.add_argument(
        "--batch-size",
        type=lambda text: None if text == "auto" else positive(text),
        metavar="N",
        help="most objects at once; auto goes by their tokens (default: auto)",
    )
    parser.add_argument("--limit", type=positive, metavar="N", help="stop after so many rows")
    parser.add_argument("--dry-run", action="store_true", help="print the column map and the tokens; write nothing")
    parser.add_argument(
        "--engine", choices=["local", "dask", "torchrun"], default="local", help="what shares the work (default: local)"
    )
    parser.add_argument(
        "--workers",
        type=lambda text: int(text) if text.isdecimal() else text,
        default=2,
        metavar="N",
        help="of Dask: number of local processes, or the address of a scheduler (default: 2)",
    )
    parser.add_argument(
        "--part", type=part, metavar="I/N", help="only the I-th share, from 0; a run without it joins all shares"
    )
    add_model(parser)


def _add_columns(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--format", help="format of the files (default: told from each file's content)")
    parser.add_argument(
        "--columns",
        action="extend",
        default=[],
        type=pairs,
        metavar="NAME=COLUMN[,...]",
        help="columns of Parquet files by modality, where their names do not tell",
    )
    parser.add_argument(
        "--join",
        action="store_true",
        help="the files are different modalities of the same objects in the same order: one row for each object",
    )
    parser.add_argument(
        "--without", action="extend", default=[], type=names, metavar="NAME[,NAME]", help="leave modalities out"
    )
    parser.add_argument(
        "--as", dest="known_as", metavar="NAME", help="modality as which spectra of no known survey are embedded"
    )
    parser.add_argument(
        "--unit", help="flux unit of files that do not state theirs, such as '1e-17 erg/(s cm2 Angstrom)'"
    )


def _run(arguments: argparse.Namespace) -> int:
    share_cores()
    from aion.survey import embed_survey, preview

    if not (arguments.hats and arguments.output.is_dir()):
        check_writable(arguments.output)
    job = _job(arguments)
    if arguments.dry_run:
        _print_preview(preview(arguments.source, job, arguments.limit))
        return 0
    report = embed_survey(
        arguments.source,
        arguments.output,
        job,
        limit=arguments.limit,
        engine=arguments.engine,
        workers=arguments.workers,
        part=arguments.part,
        hats=arguments.hats,
    )
    if report is None:
        print(f"{arguments.output}.parts  this share is finished")
        return 0
    unread, coverage = report.notes["unread"], report.notes["coverage"]
    if unread:
        note(f"left out {', '.join(unread)}, which the model does not know")
    for name, share in coverage.items():
        note(f"{name}: down to {share:.0%} of the measured values are read")
    if report.empty:
        note(f"{report.empty} objects have no embedding: nothing is measured of them")
    if report.duplicates:
        note(f"{report.duplicates} rows have an id that an earlier row has")
    if report.failed:
        note(f"{report.failed} rows or files failed, see the column status; the first: {report.first_fault}")
    print(f"{arguments.output}  {report.embedded} objects x {report.dim}")
    return 3 if report.failed else 0


def _job(arguments: argparse.Namespace) -> "Job":
    from aion.survey import Job

    return Job(
        model=arguments.model,
        predict=tuple(arguments.predict),
        pool=arguments.pool,
        layer=arguments.layer,
        dtype=arguments.dtype,
        device=arguments.device,
        batch_size=arguments.batch_size,
        columns=dict(arguments.columns),
        format=arguments.format,
        options={} if arguments.unit is None else {"unit": arguments.unit},
        known_as=arguments.known_as,
        without=tuple(arguments.without),
        join=arguments.join,
    )


def _print_preview(seen: "Preview") -> None:
    rows = "unknown until they are read" if seen.rows is None else f"{seen.rows:,}"
    table("source", [("files", f"{seen.files:,}"), ("rows", rows)])
    table("column map", list(seen.columns.items()) or [("none: read by the format of the files",)])
    per_object = sum(seen.tokens.values())
    table(f"tokens of an object, mean of {seen.objects}", [
        *((name, f"{number:.1f}") for name, number in seen.tokens.items()),
        ("together", f"{per_object:.1f}"),
        *([("all rows", f"{per_object * seen.rows:,.0f}")] if seen.rows else []),
    ])  # fmt: skip
