"""Keeps what is finished of a run beside its output, and joins it in the end.

The folder `OUT.parts` holds `manifest.json`, which says what is made of what, and one file for each finished unit. A
part appears whole, under its number, or not at all: being there is what makes it finished, and no list can disagree.
Parts are streams of Arrow, which cost a tenth of what Parquet costs to write and read; the output is Parquet or HATS.
"""

__all__ = ["Manifest", "Report"]

import hashlib
import json
import os
import shutil

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, NamedTuple

import numpy as np

from aion.io.hats import write_hats
from aion.survey.embedder import EMPTY, FAILED, OK
from aion.whole import whole

if TYPE_CHECKING:
    from pyarrow import Schema, Table

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
            self._compare(_read_json(path))
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
        return self.folder / f"{number:07d}.arrow"

    def missing(self) -> list[int]:
        """Lists the units that are not finished."""
        return [number for number in range(len(self.plan["units"])) if not self._path(number).exists()]

    def write(self, number: int, table: "Table", notes: Mapping[str, object]) -> None:
        """Keeps the part of a unit, on the disk when this returns."""
        import pyarrow

        table = table.replace_schema_metadata({_NOTES: json.dumps(notes, sort_keys=True)})

        def write(stream: BinaryIO) -> None:
            with pyarrow.ipc.new_stream(stream, table.schema) as writer:
                writer.write_table(table)

        _write(self._path(number), write)

    def merge(self, facts: Mapping[str, object], hats: bool = False) -> Report:
        """Writes the output of all parts, in order, and removes them; without any embedding nothing is written.

        Arguments:
            facts: JSON values that belong to all rows.
            hats: writes a HATS catalogue, sorted along the sky, and not one Parquet file.

        Raises:
            FileExistsError: if there is something else where the catalogue should be.
            ValueError: if no object has an embedding.
        """
        metadata = {_KEY: json.dumps({**facts, "plan_sha256": self.sha256})}
        schema = next(self._parts()).schema.with_metadata(metadata)
        tally = _Tally(self._parts())
        if not tally.some:
            self._refuse(tally)
        if hats:
            places = (_positions(part) for part in self._parts())
            write_hats(self.output, schema, places, map(tally.mark, self._parts()), self.folder / "hats")
        else:
            _write(self.output, lambda stream: _write_parquet(stream, schema, map(tally.mark, self._parts())))
        self.remove()
        return tally.report(schema.field("embedding").type.list_size)

    def _refuse(self, tally: "_Tally") -> None:
        for part in self._parts():
            tally.mark(part)
        self.remove()
        msg = f"nothing could be embedded: {tally.fault or 'nothing was measured of any object'}"
        raise ValueError(msg)

    def _parts(self) -> "Iterator[Table]":
        import pyarrow

        for path in map(self._path, range(len(self.plan["units"]))):
            try:
                with path.open("rb") as stream, pyarrow.ipc.open_stream(stream) as reader:
                    table = reader.read_all()
            except (OSError, pyarrow.ArrowException) as error:
                msg = f"{path} is damaged ({error}): remove it and run again, which makes it anew"
                raise ValueError(msg) from error
            yield table

    def remove(self) -> None:
        """Removes the parts."""
        shutil.rmtree(self.folder, ignore_errors=True)


def _read_json(path: Path) -> dict:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        msg = f"{path} is damaged ({error}): remove the folder {path.parent} and run again"
        raise ValueError(msg) from error


def _write(path: Path, write: Callable[[BinaryIO], object]) -> None:
    """Writes a file so that it appears whole, and is on the disk, or does not appear."""
    try:
        with whole(path) as temporary, temporary.open("wb") as stream:
            write(stream)
            stream.flush()
            os.fsync(stream.fileno())
    except OSError as error:
        reason = f"{error.strerror or error}; what is finished is kept, and the same command goes on with it"
        raise OSError(error.errno, reason, str(path)) from error


def _hashes(table: "Table") -> np.ndarray:
    """Returns a number for each id, good in this process alone; 8 bytes an object are kept in memory, not the ids."""
    return np.fromiter(map(hash, table.column("object_id").to_pylist()), dtype=np.int64, count=len(table))


def _status(table: "Table") -> np.ndarray:
    return table.column("status").to_numpy(zero_copy_only=False).astype(object)  # texts of any length


def _positions(table: "Table") -> np.ndarray:
    return np.stack([table.column(name).to_numpy() for name in ("ra", "dec")], axis=1)


class _Tally:
    """Marks rows whose id an earlier one has, and counts what became of all.

    Arguments:
        parts: of the run, which are read once for their ids.
    """

    def __init__(self, parts: "Iterator[Table]") -> None:
        every = [_hashes(part)[_status(part) == OK] for part in parts]
        numbers, count = np.unique(np.concatenate(every), return_counts=True)
        self.some, self.twice, self.seen = bool(len(numbers)), numbers[count > 1], set()
        self.counts, self.fault = dict.fromkeys((OK, EMPTY, FAILED, DUPLICATE), 0), ""
        self.unread, self.coverage = set(), {}

    def mark(self, part: "Table") -> "Table":
        """Counts the rows of the next part and returns it with the duplicates marked."""
        notes, status = json.loads(part.schema.metadata[_NOTES]), _status(part)
        self.unread |= set(notes["unread"])
        for name, share in notes["coverage"].items():
            self.coverage[name] = min(share, self.coverage.get(name, 1.0))
        if len(self.twice):
            part = self._mark(part, status)
        counts = {kind: int((status == kind).sum()) for kind in (OK, EMPTY, DUPLICATE)}
        counts[FAILED] = len(status) - sum(counts.values())
        for kind, number in counts.items():
            self.counts[kind] += number
        if counts[FAILED] and not self.fault:
            row = next(i for i, text in enumerate(status) if text.startswith(FAILED))
            self.fault = f"{part.column('source')[row]}: {status[row].removeprefix(FAILED)}"
        return part

    def _mark(self, part: "Table", status: np.ndarray) -> "Table":
        import pyarrow

        number = _hashes(part)
        for row in np.flatnonzero(np.isin(number, self.twice) & (status == OK)):
            if (own := int(number[row])) in self.seen:
                status[row] = DUPLICATE
            self.seen.add(own)
        index = part.schema.get_field_index("status")
        return part.set_column(index, part.schema.field(index), pyarrow.array(status.tolist(), pyarrow.string()))

    def report(self, dim: int) -> Report:
        """Returns the counts."""
        counts, notes = self.counts, {"unread": sorted(self.unread), "coverage": self.coverage}
        total, embedded = sum(counts.values()), counts[OK] + counts[DUPLICATE]
        return Report(total, embedded, counts[EMPTY], counts[FAILED], counts[DUPLICATE], self.fault, dim, notes)


def _write_parquet(stream: BinaryIO, schema: "Schema", tables: "Iterator[Table]") -> None:
    import pyarrow.parquet

    # A dictionary of the numbers of embeddings, which are all different, would take most of the time of writing.
    texts = [name for name in ("modalities", "status", "source") if name in schema.names]
    with pyarrow.parquet.ParquetWriter(stream, schema, compression="zstd", use_dictionary=texts) as writer:
        for group in _groups(tables):
            writer.write_table(group.replace_schema_metadata(schema.metadata))


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
