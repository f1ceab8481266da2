"""What the verbs of the `aion` command share: arguments, tables, notes, checks. The standard library is enough."""

__all__ = [
    "DEFAULT_MODEL",
    "add_device",
    "add_model",
    "add_verb",
    "check_writable",
    "names",
    "note",
    "positive",
    "share_cores",
    "table",
]

import argparse
import os
import sys
import tempfile

from collections.abc import Sequence
from pathlib import Path

DEFAULT_MODEL = "aion-nano"


def add_verb(verbs, name: str, run, summary: str, details: str, example: str) -> argparse.ArgumentParser:
    """Adds a verb with its summary, details and example."""
    parser = verbs.add_parser(
        name,
        help=summary,
        description=f"{summary[0].upper()}{summary[1:]}.\n\n{details}",
        epilog=f"example:\n  {example}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(run=run)
    return parser


def add_model(parser: argparse.ArgumentParser) -> None:
    """Adds the options that choose a model and where it computes."""
    parser.add_argument(
        "--model",
        default=DEFAULT_MODEL,
        metavar="MODEL",
        help=f"a shipped model, a folder, or owner/name on the Hugging Face Hub (default: {DEFAULT_MODEL})",
    )
    add_device(parser)


def add_device(parser: argparse.ArgumentParser, default: str = "auto") -> None:
    """Adds the option that says where to compute."""
    note = "auto takes a GPU if there is one" if default == "auto" else "such as cpu or cuda"
    parser.add_argument("--device", default=default, help=f"where to compute; {note} (default: {default})")


def positive(text: str) -> int:
    """Reads a whole number of at least 1."""
    if not text.isdecimal() or int(text) < 1:
        msg = f"wanted a whole number of at least 1, given {text!r}"
        raise argparse.ArgumentTypeError(msg)
    return int(text)


def names(text: str) -> list[str]:
    """Reads names with commas between them."""
    return [name for name in text.split(",") if name]


def share_cores() -> None:
    """Lets waiting threads of torch sleep instead of spin, unless the user has chosen or torch is loaded already.

    With one of two cores busy elsewhere the demonstration takes 10 s so, and 49 s with spinning threads.
    """
    if "torch" not in sys.modules:
        os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


def note(text: str) -> None:
    """Prints a note to standard error."""
    print(f"aion: note: {text}", file=sys.stderr)


def table(title: str, rows: Sequence[Sequence[object]]) -> None:
    """Prints rows under a title, in columns as wide as their widest cell."""
    cells = [[str(cell) for cell in row] for row in rows]
    widths = [max(len(row[i]) for row in cells if i < len(row)) for i in range(max(map(len, cells)))]
    print(title)
    for row in cells:
        print("  " + "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=False)).rstrip())
    print()


def check_writable(path: Path) -> None:
    """Refuses an output that cannot be written, before anything is computed."""
    if path.is_dir():
        msg = f"{path} is a folder: give the name of a file, such as {path / 'embeddings.parquet'}"
        raise IsADirectoryError(msg)
    if not path.absolute().parent.is_dir():
        msg = f"cannot write {path}: there is no folder {path.absolute().parent}"
        raise FileNotFoundError(msg)
    try:
        with tempfile.TemporaryFile(dir=path.absolute().parent):
            pass
    except OSError as error:
        msg = f"cannot write {path}: {(error.strerror or str(error)).lower()}"
        raise PermissionError(msg) from error
