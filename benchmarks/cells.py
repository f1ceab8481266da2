"""Results as small files: a benchmark that is stopped goes on where it was, and two processes can share one."""

__all__ = ["Cells", "source_hash"]

import hashlib
import json
import os
import tempfile
import time

from collections.abc import Callable, Mapping
from pathlib import Path


def source_hash(*paths: Path | str) -> str:
    """Hashes the text of scripts, so that what an earlier version measured is measured again."""
    return hashlib.sha256(b"".join(Path(path).read_bytes() for path in paths)).hexdigest()[:12]


class Cells:
    """Keeps one JSON file for each cell of a table, with what it depends on.

    Arguments:
        folder: holds the files.
        part: which of how many processes this is, from 0: it computes every so-manieth cell that is not there yet.
        only: texts of which the name of a cell must contain one to be computed; all by default.
        dry: computes nothing.
    """

    def __init__(
        self, folder: Path | str, part: tuple[int, int] = (0, 1), only: tuple[str, ...] = (), dry: bool = False
    ) -> None:
        self.folder, self.part, self.only, self.dry = Path(folder), part, only, dry
        self.asked = 0
        self.missing: list[str] = []

    def get(self, name: str, facts: Mapping[str, object], make: Callable[[], dict], ready: bool = True) -> dict | None:
        """Returns a cell: that on disk if it depends on the same facts, else what `make` gives if it is this part's.

        Arguments:
            name: of the file, without its ending; may name a folder too.
            facts: plain JSON values, all that the cell depends on.
            make: computes it, plain JSON values.
            ready: that what the cell is made of is there.

        Returns:
            The cell with `facts` and the processor `seconds` it took, or None if it is not there and not to be made, or
            cannot be (which is said).
        """
        path, turn = self.folder / f"{name}.json", self.asked
        self.asked += 1
        facts = json.loads(json.dumps(facts))
        if path.exists() and (known := json.loads(path.read_text()))["facts"] == facts:
            return known
        wanted = not self.only or any(text in name for text in self.only)
        if self.dry or not ready or not wanted or turn % self.part[1] != self.part[0]:
            self.missing.append(name)
            return None
        begun = time.process_time()
        try:
            made = make()
        except (FloatingPointError, ValueError) as error:  # such as flows that are lost unsteered: the others go on
            print(f"{name}: not made: {error}", flush=True)
            self.missing.append(name)
            return None
        cell = {**made, "facts": facts, "seconds": round(time.process_time() - begun, 1)}
        print(f"{name}: {cell['seconds']} s", flush=True)
        write(path, json.dumps(cell, indent=1) + "\n")
        return cell


def write(path: Path, text: str) -> None:
    """Writes a file whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    with os.fdopen(handle, "w") as file:
        file.write(text)
    Path(temporary).chmod(0o644)
    Path(temporary).replace(path)
