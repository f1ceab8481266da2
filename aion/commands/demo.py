"""`aion demo`: the whole way on real data."""

__all__ = ["register"]

import argparse

from pathlib import Path

from aion.commands.command import add, add_model, share_cores


def register(verbs) -> None:
    """Adds the verb."""
    parser = add(
        verbs,
        "demo",
        _run,
        "show the whole way on real data that ship with aion",
        "Reads two DESI spectra and their photometry, prints tokens, embeddings and redshifts beside those of the\n"
        "survey's pipeline, and writes embedding.parquet, spectrum.png, redshift.png and report.html.",
        "aion demo --out my-demo",
    )
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("aion-demo"),
        metavar="DIR",
        help="folder to write; an earlier demo in it is replaced (default: aion-demo)",
    )
    add_model(parser)


def _run(arguments: argparse.Namespace) -> None:
    share_cores()
    from aion import demo

    demo.run(arguments.out, model=arguments.model, device=arguments.device)
