"""`aion search`: what is like an object."""

__all__ = ["register"]

import argparse

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from aion.commands.command import add, add_model, check_writable, positive, share_cores, table

if TYPE_CHECKING:
    import torch

    from aion.index import Index
    from aion.survey.search import Found


def register(verbs) -> None:
    """Adds the verb."""
    parser = add(
        verbs,
        "search",
        _run,
        "find the objects of an index that are most like others",
        "Prints ids, positions and distances, nearest first. Files given with --like, of any modality, are embedded\n"
        "by the model; of several objects the mean is looked for. --direction moves it: more like this, but redder.",
        "aion search embeddings.parquet --like coadd-galaxy.fits -k 20",
    )
    parser.add_argument(
        "index", nargs="+", type=Path, metavar="INDEX", help="what aion embed wrote, or an index that --save wrote"
    )
    parser.add_argument("--like", action="append", default=[], type=Path, metavar="FILE", help="file of the object")
    parser.add_argument("--id", action="append", default=[], dest="ids", metavar="ID", help="object of the index")
    parser.add_argument(
        "--as", dest="known_as", metavar="NAME", help="modality as which spectra of no known survey are embedded"
    )
    parser.add_argument(
        "--direction",
        metavar="FILE[:COLUMN]",
        help="move the query along a saved direction, or from low to high numbers of a table with object_id",
    )
    parser.add_argument(
        "--strength", type=float, default=1.0, metavar="S", help="how far, in lengths of the direction (default: 1)"
    )
    parser.add_argument("-k", type=positive, default=20, metavar="K", help="how many (default: 20)")
    parser.add_argument(
        "--metric", choices=["cosine", "euclidean"], help="distance (default: cosine, or that of a saved index)"
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


def _run(arguments: argparse.Namespace) -> None:
    share_cores()
    from aion.model import AION
    from aion.survey.search import read_direction, read_like, search

    if bool(arguments.like) == bool(arguments.ids) or (arguments.montage and not arguments.images):
        msg = "wanted either --like or --id, and --images with --montage"
        raise ValueError(msg)
    for path in filter(None, (arguments.save, arguments.montage)):
        check_writable(path)
    index = _index(arguments.index, arguments.metric)
    if arguments.save:
        index.save(arguments.save)
    like, model, direction = arguments.ids, None, None
    if arguments.like:
        model = AION.from_pretrained(arguments.model, device=arguments.device, dtype=_dtype(index))
        like = read_like(arguments.like, model, arguments.known_as)
    if arguments.direction:
        path, column = _split(arguments.direction)
        direction = read_direction(path, index, column)
    found = search(
        index,
        like,
        arguments.k,
        model=model,
        direction=direction,
        strength=arguments.strength,
        approximate=arguments.approximate,
    )
    _print_found(found)
    if arguments.montage:
        _draw(arguments, found)


def _index(paths: Sequence[Path], metric: str | None) -> "Index":
    """Reads a saved index, which has a metric already, or builds one of embeddings."""
    from aion.index import Index
    from aion.survey.search import index_embeddings

    if not any(path.suffix == ".safetensors" for path in paths):
        return index_embeddings(paths, metric or "cosine")
    if len(paths) > 1:
        msg = f"wanted one saved index or files of embeddings, given {', '.join(map(str, paths))}"
        raise ValueError(msg)
    index = Index.load(paths[0])
    if metric not in {None, index.metric}:
        msg = f"{paths[0]} was saved with --metric {index.metric}; search the embeddings for another"
        raise ValueError(msg)
    return index


def _draw(arguments: argparse.Namespace, found: "Found") -> None:
    from aion.survey.pictures import montage, pictures
    from aion.whole import whole

    drawn = dict(pictures(arguments.images, found.ids))
    titles = {name: f"{name}  {distance:.3g}" for name, distance in zip(found.ids, found.distance, strict=True)}
    figure = montage((title, drawn[name]) for name, title in titles.items() if name in drawn)
    with whole(arguments.montage) as temporary:
        figure.savefig(temporary, format="png", dpi=100)
    print(arguments.montage)


def _split(text: str) -> tuple[str, str | None]:
    """Splits FILE:COLUMN; a colon that belongs to the name of a file stays."""
    path, colon, column = text.rpartition(":")
    return (path, column) if colon and not Path(text).exists() else (text, None)


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
