"""The verbs for whole surveys: `aion embed`, `aion search`, `aion explore`."""

__all__ = ["add_embed", "add_explore", "add_search"]

import argparse

from pathlib import Path
from typing import TYPE_CHECKING

from aion.command.terminal import add_model, add_verb, check_writable, names, note, positive, share_cores, table

if TYPE_CHECKING:
    import torch

    from aion.index import Index
    from aion.survey import Job
    from aion.survey.driver import Preview
    from aion.survey.search import Found


def add_embed(verbs) -> None:
    """Adds `aion embed`."""
    parser = add_verb(
        verbs,
        "embed",
        _embed,
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
    _add_run(parser)
    add_model(parser)


def _add_run(parser: argparse.ArgumentParser) -> None:
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
        "--part", type=_share, metavar="I/N", help="only the I-th share, from 0; a run without it joins all shares"
    )


def _add_columns(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--format", help="format of the files (default: told from each file's content)")
    parser.add_argument(
        "--columns",
        action="extend",
        default=[],
        type=_pairs,
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


def add_explore(verbs) -> None:
    """Adds `aion explore`."""
    parser = add_verb(
        verbs,
        "explore",
        _explore,
        "draw embeddings as an HTML page with a map to look around in",
        "One self-contained page: a map of all objects, coloured by any column; point at one to see what it is, draw\n"
        "around some to download their ids. Up to 100,000 objects.",
        "aion explore embeddings.parquet -o map.html",
    )
    parser.add_argument("embeddings", type=Path, metavar="EMBEDDINGS", help="what aion embed wrote")
    parser.add_argument("-o", "--output", required=True, type=Path, metavar="OUT", help="HTML file to write")
    parser.add_argument(
        "--method", choices=["pca", "umap"], default="pca", help="how the map is made; umap is an extra (default: pca)"
    )


def add_search(verbs) -> None:
    """Adds `aion search`."""
    parser = add_verb(
        verbs,
        "search",
        _search,
        "find the objects of an index that are most like others",
        "Prints ids, positions and distances, nearest first. Files given with --like are embedded by the model; of\n"
        "several objects the mean is looked for.",
        "aion search embeddings.parquet --like coadd-galaxy.fits -k 20",
    )
    parser.add_argument(
        "index", nargs="+", type=Path, metavar="INDEX", help="what aion embed wrote, or an index that --save wrote"
    )
    parser.add_argument("--like", action="append", default=[], type=Path, metavar="FILE", help="file of the object")
    parser.add_argument("--id", action="append", default=[], dest="ids", metavar="ID", help="object of the index")
    parser.add_argument("-k", type=positive, default=20, metavar="K", help="how many (default: 20)")
    parser.add_argument(
        "--metric", choices=["cosine", "euclidean"], default="cosine", help="distance (default: cosine)"
    )
    parser.add_argument(
        "--approximate", action="store_true", help="look into a few cells only (extra faiss) and print the recall"
    )
    parser.add_argument("--save", type=Path, metavar="FILE", help="keep the index, in float16, for the next search")
    parser.add_argument(
        "--images", action="append", default=[], metavar="SOURCE", help="where the objects found are, for --montage"
    )
    parser.add_argument("--montage", type=Path, metavar="PNG", help="draw the objects found, from --images")
    add_model(parser)


def _pairs(text: str) -> list[tuple[str, str]]:
    pairs = [tuple(each.split("=", 1)) for each in names(text)]
    if any(len(pair) != 2 or not all(pair) for pair in pairs):
        msg = f"wanted NAME=COLUMN, given {text!r}"
        raise argparse.ArgumentTypeError(msg)
    return pairs


def _share(text: str) -> tuple[int, int]:
    first, _, second = text.partition("/")
    if not (first.isdecimal() and second.isdecimal() and int(first) < int(second)):
        msg = f"wanted I/N with I from 0 to N - 1, such as 0/16, given {text!r}"
        raise argparse.ArgumentTypeError(msg)
    return int(first), int(second)


def _embed(arguments: argparse.Namespace) -> int:
    share_cores()
    from aion.survey import embed_survey, preview

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


def _explore(arguments: argparse.Namespace) -> None:
    from aion.survey.explore import explore

    check_writable(arguments.output)
    print(f"{arguments.output}  {explore(arguments.embeddings, arguments.output, method=arguments.method)} objects")


def _search(arguments: argparse.Namespace) -> None:
    share_cores()
    from aion.index import Index
    from aion.io import read
    from aion.model import AION
    from aion.survey.search import index_embeddings, montage, panels, search

    if bool(arguments.like) == bool(arguments.ids) or (arguments.montage and not arguments.images):
        msg = "wanted either --like or --id, and --images with --montage"
        raise ValueError(msg)
    saved = arguments.index[0].suffix == ".safetensors"
    index = Index.load(arguments.index[0]) if saved else index_embeddings(arguments.index, arguments.metric)
    if arguments.save:
        index.save(arguments.save)
    like, model = arguments.ids, None
    if arguments.like:
        dtype = _dtype(index)
        model = AION.from_pretrained(arguments.model, device=arguments.device, dtype=dtype)
        like = {}
        for name, value in (pair for file in arguments.like for pair in read(file).items()):
            like[name] = type(value).stack([like[name], value]) if name in like else value
    found = search(index, like, arguments.k, model=model, approximate=arguments.approximate)
    _print_found(found)
    if arguments.montage:
        titles = {name: f"{name}  {distance:.3g}" for name, distance in zip(found.ids, found.distance, strict=True)}
        montage(panels(arguments.images, titles)).savefig(arguments.montage, dpi=100)
        print(arguments.montage)


def _dtype(index: "Index") -> "torch.dtype":
    import torch

    return getattr(torch, str(index.facts.get("dtype", "float32")))


def _print_found(found: "Found") -> None:
    rows = [("object_id", *found.columns, "distance")]
    for i, name in enumerate(found.ids):
        rows.append((name, *(f"{value[i]:.5f}" for value in found.columns.values()), f"{found.distance[i]:.4g}"))
    table("nearest", rows)
    if found.recall is not None:
        print(f"recall against the exact search: {found.recall:.2f}")
