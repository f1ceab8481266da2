"""What the verbs share: kinds of arguments, notes, tables and checks."""

__all__ = [
    "DEFAULT_MODEL",
    "add",
    "add_device",
    "add_model",
    "check_writable",
    "names",
    "note",
    "pairs",
    "part",
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
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    pass

DEFAULT_MODEL = "aion-nano"


def add(verbs, name: str, run, summary: str, details: str, example: str) -> argparse.ArgumentParser:
    """Adds a verb with its help, and what it runs."""
    parser = verbs.add_parser(
        name,
        help=summary,
        description=f"{summary[0].upper()}{summary[1:]}.\n\n{details}",
        epilog=f"example:\n  {example}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(run=run)
    return parser


def add_device(parser: argparse.ArgumentParser, default: str = "auto") -> None:
    """Adds the option of the device."""
    note = "auto takes a GPU if there is one" if default == "auto" else "such as cpu or cuda"
    parser.add_argument("--device", default=default, help=f"where to compute; {note} (default: {default})")


def add_model(parser: argparse.ArgumentParser) -> None:
    """Adds the options of the model and its device."""
    parser.add_argument(
        "--model",
        default=DEFAULT_MODEL,
        metavar="MODEL",
        help=f"a shipped model, a folder, or owner/name on the Hugging Face Hub (default: {DEFAULT_MODEL})",
    )
    add_device(parser)


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


def names(text: str) -> list[str]:
    """Reads names apart by commas."""
    return [name for name in text.split(",") if name]


def note(text: str) -> None:
    """Prints a remark to standard error."""
    print(f"aion: note: {text}", file=sys.stderr)


def pairs(text: str) -> list[tuple[str, str]]:
    """Reads `NAME=COLUMN`, several apart by commas."""
    found = [tuple(each.split("=", 1)) for each in names(text)]
    if any(len(pair) != 2 or not all(pair) for pair in found):
        msg = f"wanted NAME=COLUMN, given {text!r}"
        raise argparse.ArgumentTypeError(msg)
    return found


def positive(text: str) -> int:
    """Reads a whole number of at least 1."""
    if not text.isdecimal() or int(text) < 1:
        msg = f"wanted a whole number of at least 1, given {text!r}"
        raise argparse.ArgumentTypeError(msg)
    return int(text)


def part(text: str) -> tuple[int, int]:
    """Reads which part of how many, `I/N`."""
    first, _, second = text.partition("/")
    if not (first.isdecimal() and second.isdecimal() and int(first) < int(second)):
        msg = f"wanted I/N with I from 0 to N - 1, such as 0/16, given {text!r}"
        raise argparse.ArgumentTypeError(msg)
    return int(first), int(second)


def share_cores() -> None:
    """Lets waiting threads of torch sleep instead of spin, unless the user has chosen or torch is loaded already.

    With one of two cores busy elsewhere the demonstration takes 10 s so, and 49 s with spinning threads.
    """
    if "torch" not in sys.modules:
        os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


def table(title: str, rows: Sequence[Sequence[object]]) -> None:
    """Prints rows under a title, in columns as wide as their widest cell."""
    cells = [[str(cell) for cell in row] for row in rows]
    widths = [max(len(row[i]) for row in cells if i < len(row)) for i in range(max(map(len, cells)))]
    print(title)
    for row in cells:
        print("  " + "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=False)).rstrip())
    print()
