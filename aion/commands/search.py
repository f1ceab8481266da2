"""`aion search`: what is like an object."""

__all__ = ["register"]

import argparse

from pathlib import Path
from typing import TYPE_CHECKING

from aion.commands.command import add, add_model, positive, share_cores, table

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


def _run(arguments: argparse.Namespace) -> None:
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
