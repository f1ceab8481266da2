"""`aion explore`: embeddings as one HTML page."""

__all__ = ["register"]

import argparse

from pathlib import Path

from aion.commands.command import add, check_writable, note, positive


def register(verbs) -> None:
    """Adds the verb."""
    parser = add(
        verbs,
        "explore",
        _run,
        "draw embeddings as an HTML page with a map to look around in",
        "One self-contained page: a map of all objects, coloured by any column; point at one to see what it is, draw\n"
        "around some to download their ids. Up to 100,000 objects. With --images it holds small pictures, too.",
        "aion explore embeddings.parquet -o map.html --images sky.parquet",
    )
    parser.add_argument("embeddings", type=Path, metavar="EMBEDDINGS", help="what aion embed wrote")
    parser.add_argument("-o", "--output", required=True, type=Path, metavar="OUT", help="HTML file to write")
    parser.add_argument(
        "--method", choices=["pca", "umap"], default="pca", help="how the map is made; umap is an extra (default: pca)"
    )
    parser.add_argument(
        "--images", action="append", default=[], metavar="SOURCE", help="where the objects are: show them on the page"
    )
    parser.add_argument(
        "--thumbnails", type=positive, default=2000, metavar="N", help="most pictures on the page (default: 2000)"
    )


def _run(arguments: argparse.Namespace) -> None:
    from aion.survey.explore import explore

    check_writable(arguments.output)
    objects, seen = explore(
        arguments.embeddings,
        arguments.output,
        method=arguments.method,
        images=arguments.images,
        thumbnails=arguments.thumbnails,
    )
    if arguments.images and seen < objects:
        note(
            f"{seen} of {objects} objects have a picture on the page (at most {arguments.thumbnails}, see --thumbnails)"
        )
    print(f"{arguments.output}  {objects} objects")
