"""`aion explore`: embeddings as one HTML page."""

__all__ = ["register"]

import argparse

from pathlib import Path

from aion.commands.command import add, check_writable


def register(verbs) -> None:
    """Adds the verb."""
    parser = add(
        verbs,
        "explore",
        _run,
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


def _run(arguments: argparse.Namespace) -> None:
    from aion.survey.explore import explore

    check_writable(arguments.output)
    print(f"{arguments.output}  {explore(arguments.embeddings, arguments.output, method=arguments.method)} objects")
