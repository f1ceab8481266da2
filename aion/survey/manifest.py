"""Keeps what is finished of a run beside its output, and joins it in the end.

The folder `OUT.parts` holds `manifest.json`, which says what is made of what, and one file for each finished unit. A
part appears whole, under its number, or not at all: being there is what makes it finished, and no list can disagree.
"""

__all__ = ["Manifest", "Report"]

import contextlib
import hashlib
import json
import os
import secrets
import shutil

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from aion.survey.embedder import EMPTY, FAILED, OK

if TYPE_CHECKING:
    from pyarrow import Table

DUPLICATE = "duplicate id"
_GROUP = 8192  # rows in a row group of the output
_KEY, _NOTES = b"aion", b"aion_notes"


class Report(NamedTuple):
    """Counts what became of the rows.

    Arguments:
        objects: rows of the output.
        embedded: rows with an embedding, those of duplicate ids included.
        empty: rows of which nothing is measured.
        failed: rows, or files, that could not be read or embedded.
        duplicates: rows whose id an earlier row has.
        first_fault: why the first of those that failed did, "" if none did.
        dim: width of the embeddings.
        notes: modalities that were read but are not known to the model (`unread`), and the lowest share of the measured
            values that is read, for those below 1 (`coverage`).
    """

    objects: int
    embedded: int
    empty: int
    failed: int
    duplicates: int
    first_fault: str
    dim: int
    notes: dict


class Manifest:
    """Keeps the parts of one output.

    Arguments:
        output: the file that is made in the end.
        plan: JSON values: whatever the output depends on, and under `units` what each unit is made of.

    Raises:
        ValueError: if there are parts of another plan, which says what differs.
    """

    def __init__(self, output: Path, plan: Mapping[str, object]) -> None:
        self.output, self.plan = output, json.loads(json.dumps(plan))
        self.folder = output.with_name(f"{output.name}.parts")
        self.folder.mkdir(exist_ok=True)
        path = self.folder / "manifest.json"
        if path.exists():
            self._compare(json.loads(path.read_text(encoding="utf-8")))
        else:
            _write(path, lambda stream: stream.write(json.dumps(self.plan).encode()))

    def _compare(self, earlier: Mapping[str, object]) -> None:
        for key in (*self.plan, *earlier):
            if earlier.get(key) != (now := self.plan.get(key)):
                what = "the files of the source" if key == "units" else f"{key} = {earlier.get(key)!r}, now {now!r}"
                msg = f"{self.folder} is of an unfinished run with another plan ({what}): go on as before, or remove it"
                raise ValueError(msg)

    @property
    def sha256(self) -> str:
        """Returns the hash of the plan, which an output made by it carries."""
        return hashlib.sha256(json.dumps(self.plan, sort_keys=True).encode()).hexdigest()

    def _path(self, number: int) -> Path:
        return self.folder / f"{number:07d}.parquet"

    def missing(self) -> list[int]:
        """Lists the units that are not finished."""
        return [number for number in range(len(self.plan["units"])) if not self._path(number).exists()]

    def write(self, number: int, table: "Table", notes: Mapping[str, object]) -> None:
        """Keeps the part of a unit, on the disk when this returns."""
        import pyarrow.parquet

        table = table.replace_schema_metadata({_NOTES: json.dumps(notes, sort_keys=True)})
        _write(self._path(number), lambda stream: pyarrow.parquet.write_table(table, stream))

    def merge(self, facts: Mapping[str, object]) -> Report:
        """Writes the output of all parts, in order, and removes them; without any embedding nothing is written.

        Raises:
            ValueError: if no object has an embedding.
        """
        import pyarrow
        import pyarrow.parquet

        twice = _duplicates(self._parts())
        first = next(self._parts())
        metadata = {_KEY: json.dumps({**facts, "plan_sha256": self.sha256})}
        counts, fault, notes, seen = dict.fromkeys((OK, EMPTY, FAILED, DUPLICATE), 0), "", {}, set()

        def tables() -> "Iterator[Table]":
            nonlocal fault
            for part in self._parts():
                _merge_notes(notes, json.loads(part.schema.metadata[_NOTES]))
                table, found = _mark(part, twice, seen)
                for kind, number in found.items():
                    counts[kind] += number
                fault = fault or _first_fault(table)
                yield table

        def write(stream: object) -> None:
            schema = first.schema.with_metadata(metadata)
            with pyarrow.parquet.ParquetWriter(stream, schema, compression="zstd") as writer:
                for group in _groups(tables()):
                    writer.write_table(group.replace_schema_metadata(metadata))
            if not counts[OK]:
                self.remove()
                msg = f"nothing could be embedded: {fault or 'nothing was measured of any object'}"
                raise ValueError(msg)

        _write(self.output, write)
        self.remove()
        dim = first.schema.field("embedding").type.list_size
        embedded = counts[OK] + counts[DUPLICATE]
        total = sum(counts.values())
        return Report(total, embedded, counts[EMPTY], counts[FAILED], counts[DUPLICATE], fault, dim, notes)

    def _parts(self) -> "Iterator[Table]":
        import pyarrow.parquet

        for number in range(len(self.plan["units"])):
            with self._path(number).open("rb") as stream:
                yield pyarrow.parquet.read_table(stream)

    def remove(self) -> None:
        """Removes the parts."""
        shutil.rmtree(self.folder, ignore_errors=True)


def _write(path: Path, write: object) -> None:
    """Writes a file so that it appears whole, and is on the disk, or does not appear."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        with temporary.open("xb") as stream:
            write(stream)
            stream.flush()
            os.fsync(stream.fileno())
        temporary.replace(path)
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()


def _hashes(table: "Table") -> np.ndarray:
    """Returns a number for each id; 8 bytes an object are kept in memory, not the ids."""
    digests = (hashlib.blake2b(i.encode(), digest_size=8).digest() for i in table.column("object_id").to_pylist())
    return np.frombuffer(b"".join(digests), dtype="<u8")


def _duplicates(parts: "Iterator[Table]") -> np.ndarray:
    """Returns the numbers of the ids that more than one row with an embedding has, in order."""
    every = [_hashes(part)[_status(part) == OK] for part in parts]
    numbers, count = np.unique(np.concatenate(every), return_counts=True)
    return numbers[count > 1]


def _status(table: "Table") -> np.ndarray:
    return table.column("status").to_numpy(zero_copy_only=False).astype(object)  # texts of any length


def _mark(table: "Table", twice: np.ndarray, seen: set[int]) -> "tuple[Table, dict[str, int]]":
    """Marks the rows whose id an earlier one has, and counts all by status."""
    import pyarrow

    status = _status(table)
    if len(twice):
        number = _hashes(table)
        for row in np.flatnonzero(np.isin(number, twice) & (status == OK)):
            if (own := int(number[row])) in seen:
                status[row] = DUPLICATE
            seen.add(own)
        index = table.schema.get_field_index("status")
        table = table.set_column(index, table.schema.field(index), pyarrow.array(status.tolist(), pyarrow.string()))
    counts = {kind: int((status == kind).sum()) for kind in (OK, EMPTY, DUPLICATE)}
    return table, {**counts, FAILED: len(status) - sum(counts.values())}


def _first_fault(table: "Table") -> str:
    for source, text in zip(table.column("source").to_pylist(), table.column("status").to_pylist(), strict=True):
        if text.startswith(FAILED):
            return f"{source}: {text.removeprefix(FAILED)}"
    return ""


def _merge_notes(notes: dict, more: Mapping) -> None:
    notes["unread"] = sorted({*notes.get("unread", ()), *more["unread"]})
    coverage = notes.setdefault("coverage", {})
    for name, share in more["coverage"].items():
        coverage[name] = min(share, coverage.get(name, 1.0))


def _groups(tables: "Iterator[Table]") -> "Iterator[Table]":
    """Joins small tables, so that row groups have a size that is good to read."""
    import pyarrow

    held, count = [], 0
    for table in tables:
        held.append(table)
        count += len(table)
        if count >= _GROUP:
            yield pyarrow.concat_tables(held)
            held, count = [], 0
    if held:
        yield pyarrow.concat_tables(held)
