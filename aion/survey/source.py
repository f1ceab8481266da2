"""Finds what a source consists of, deals it out in units of work, and reads them piece by piece.

A source is files and globs, folders of Parquet shards (a HATS catalogue is one) or a data set of the Hugging Face Hub.
A unit is a fixed run of rows, so that what is finished can be told by its number. Parquet is read a few hundred rows at
a time and only in the columns that are needed; of the other formats a file is read whole.
"""

__all__ = ["Reader", "Rows", "Slice", "Unit", "find", "units"]

import glob
import re

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from aion import io
from aion.observations import Observation
from aion.survey.columns import Columns, find_columns, observe

if TYPE_CHECKING:
    from pyarrow import RecordBatch
    from pyarrow.parquet import ParquetFile

PIECE = 512  # rows in memory at once
_HUB = re.compile(r"(hf://)?(datasets/)?[\w.-]+/[\w.-]+")


class Slice(NamedTuple):
    """Says which rows of which file: those from `start` to `stop`, all if that is None."""

    path: str
    start: int = 0
    stop: int | None = None
    size: int = 0
    changed: int = 0


Unit = tuple[Slice, ...]


class Rows(NamedTuple):
    """Holds some objects as read.

    Arguments:
        ids: identifiers of the B objects.
        sources: the file of each.
        positions: right ascension and declination in degrees, `(B, 2)`, NaN where not known.
        healpix: sky pixels `(B,)`, -1 where not known.
        observations: by modality, each of all B objects.
        faults: what is wrong with rows that could not be read.
        unread: names of observations that the model does not know.
    """

    ids: list[str]
    sources: list[str]
    positions: np.ndarray
    healpix: np.ndarray
    observations: dict[str, Observation]
    faults: dict[int, str]
    unread: tuple[str, ...] = ()


def find(sources: Sequence[str | Path]) -> list[str]:
    """Lists the files of sources in a fixed order.

    Raises:
        FileNotFoundError: for a name that is neither a file, a folder with Parquet in it, a glob that fits anything nor
            a data set on the Hub.
    """
    return [path for source in sources for path in _find(str(source))]


def _find(source: str) -> list[str]:
    path = Path(source)
    if path.is_file():
        return [source]
    if path.is_dir():
        found = [str(p) for p in sorted(path.rglob("*.parquet")) if not p.name.startswith(("_", ".", "data_thumbnail"))]
        problem = "there is no Parquet file in the folder"
    elif glob.has_magic(source):
        found, problem = sorted(glob.glob(source, recursive=True)), "no file fits"  # noqa: PTH207
    elif source.startswith(("http://", "https://", "s3://", "gs://")):
        msg = f"{source}: wanted a local folder; catalogues elsewhere are fetched by lsdb, in the extra `dask`"
        raise ValueError(msg)
    elif source.startswith("hf://") or (_HUB.fullmatch(source) and not path.parent.exists()):
        found, problem = _find_on_hub(source), "there is no Parquet file in that data set"
    else:
        found, problem = [], "no such file"
    if not found:
        msg = f"{problem}: {source}"
        raise FileNotFoundError(msg)
    return found


def _find_on_hub(source: str) -> list[str]:
    from huggingface_hub import HfFileSystem

    name = source.removeprefix("hf://").removeprefix("datasets/")
    try:
        return [f"hf://{p}" for p in sorted(HfFileSystem().glob(f"datasets/{name}/**.parquet"))]
    except Exception as error:  # the client raises a dozen kinds when the Hub is away
        msg = f"{source}: no such file, and the data set of that name on the Hub cannot be reached ({error})"
        raise FileNotFoundError(msg) from error


@contextmanager
def _opened(path: str) -> "Iterator[ParquetFile]":
    import pyarrow.parquet

    with ExitStack() as stack:
        source = path
        if path.startswith("hf://"):
            from huggingface_hub import HfFileSystem

            source = stack.enter_context(HfFileSystem().open(path.removeprefix("hf://"), "rb"))
        yield stack.enter_context(pyarrow.parquet.ParquetFile(source))


def is_parquet(path: str) -> bool:
    """Tells a Parquet file by its first bytes."""
    if path.startswith("hf://"):
        return True
    with Path(path).open("rb") as stream:
        return stream.read(4) == b"PAR1"


def units(files: Sequence[str], rows: int, limit: int | None = None) -> list[Unit]:
    """Deals the rows of files out in units: at most `rows` of a large Parquet file, or several small files.

    Arguments:
        files: in their order.
        rows: most rows of a unit; files whose number of rows is not known beforehand count by their size.
        limit: most rows altogether.
    """
    result: list[list[Slice]] = []
    room = 0
    for path in files:
        facts = (0, 0) if path.startswith("hf://") else (Path(path).stat().st_size, Path(path).stat().st_mtime_ns)
        count = _count(path, limit is not None)
        if limit is not None and count is not None:
            count = min(count, limit)
            limit -= count
        for start in range(0, rows if count is None else count, rows):
            stop = None if count is None else min(start + rows, count)
            # Of a file that is read whole nobody knows the rows: 64 MB of them are a unit, or 256 files.
            weight = stop - start if stop is not None else max(rows // 256, rows * facts[0] // 2**26, 1)
            if weight > room or not result:
                result.append([])
                room = rows
            room -= weight
            result[-1].append(Slice(path, start, stop, *facts))
        if limit == 0:
            break
    return [tuple(unit) for unit in result]


def _count(path: str, whole: bool) -> int | None:
    """Returns the number of rows, None where it is not known (`whole`: without reading the file) or not readable."""
    try:
        if is_parquet(path):
            with _opened(path) as file:
                return file.metadata.num_rows
        return len(io.object_ids(path)) if whole else None
    except Exception:  # what is wrong with the file is said when it is read
        return None


@dataclass(frozen=True)
class Reader:
    """Reads slices of files.

    Arguments:
        kinds: kind of observation of each modality of the model.
        columns: columns that the caller names, by modality.
        format: of files that are not Parquet; see `aion.io.read`.
        options: of `aion.io.read`.
        known_as: modality as which a spectrum of no known survey is read.
        without: modalities that are left out.
        join: whether the files of a unit hold different modalities of the same objects.
    """

    kinds: Mapping[str, type[Observation]]
    columns: Mapping[str, str]
    format: str | None = None
    options: Mapping[str, object] | None = None
    known_as: str | None = None
    without: tuple[str, ...] = ()
    join: bool = False

    def read(self, unit: Unit) -> Iterator[Rows]:
        """Reads the rows of a unit in pieces; a file that cannot be read is one row that says why."""
        if self.join:
            for parts in zip_longest(*map(self._slice, unit)):
                yield self._join([part for part in parts if part], [each.path for each in unit])
            return
        for each in unit:
            try:
                yield from self._slice(each)
            except Exception as error:  # whatever a damaged file raises
                yield _lost(each, str(error))

    def map_of(self, path: str) -> Columns | None:
        """Returns which columns of a Parquet file are read, None if it is read by `aion.io`."""
        if not is_parquet(path):
            return None
        with _opened(path) as file:
            return self._columns(file, path)

    def _columns(self, file: "ParquetFile", path: str) -> Columns | None:
        wanted = {name: kind for name, kind in self.kinds.items() if name not in self.without}
        known = self.known_as and "spectrum" in file.schema_arrow.names
        given = {**({self.known_as: "spectrum"} if known else {}), **self.columns}
        columns = find_columns(file.schema_arrow, wanted, given, path)
        return columns if columns.modalities else None

    def _slice(self, each: Slice) -> Iterator[Rows]:
        if is_parquet(each.path):
            with _opened(each.path) as file:
                if columns := self._columns(file, each.path):
                    for start, batch in _batches(file, each, columns.needed):
                        yield self._rows(each.path, start, batch, columns)
                    return
                names = file.schema_arrow.names
            try:
                yield from self._whole(each)
            except ValueError as error:
                msg = (
                    f"none of its columns is what the model reads: given {', '.join(names)[:300]}; wanted some of "
                    f"{', '.join(self.kinds)}, or name them by --columns ({error})"
                )
                raise ValueError(msg) from error
            return
        yield from self._whole(each)

    def _whole(self, each: Slice) -> Iterator[Rows]:
        objects = io.read_objects(each.path, self.format, **(self.options or {}))
        given = dict(objects.observations)
        if self.known_as and "spectrum" in given:
            given[self.known_as] = given.pop("spectrum")
        wanted = [name for name in self.kinds if name not in self.without]
        known = {name: value for name, value in given.items() if name in wanted}
        stop = len(objects.ids) if each.stop is None else each.stop
        if not known:
            hint = "; a spectrum of no known survey must be given a name (--as)" if "spectrum" in given else ""
            msg = f"nothing to embed: the model knows {', '.join(wanted)}; given {', '.join(given) or 'none'}{hint}"
            raise ValueError(msg)
        unread = tuple(name for name in given if name not in self.kinds)
        for start in range(each.start, stop, PIECE):
            part = slice(start, min(start + PIECE, stop))
            ids = objects.ids[part]
            observations = {name: value[part] for name, value in known.items()}
            unknown = np.full(len(ids), -1)
            yield Rows(ids, [each.path] * len(ids), objects.positions[part], unknown, observations, {}, unread)

    def _rows(self, path: str, start: int, batch: "RecordBatch", columns: Columns) -> Rows:
        import pyarrow

        table = pyarrow.Table.from_batches([batch])
        count = len(table)
        names = [map(_text, table.column(name).to_pylist()) for name in columns.identifier]
        ids = list(map("-".join, zip(*names, strict=True)))
        ids = ids or [f"{Path(path).stem}-{start + i}" for i in range(count)]
        positions, healpix = np.full((count, 2), np.nan), np.full(count, -1)
        for axis, name in enumerate(columns.position):
            positions[:, axis] = table.column(name).cast("float64").fill_null(np.nan).to_numpy()
        if columns.healpix:
            healpix = table.column(columns.healpix).cast("int64").fill_null(-1).to_numpy()
        observations, faults = observe(table, columns, self.kinds)
        return Rows(ids, [path] * count, positions, healpix, observations, faults)

    def _join(self, parts: Sequence[Rows], paths: Sequence[str]) -> Rows:
        """Makes one of rows that hold different modalities of the same objects; ids are those of the first."""
        sizes = dict.fromkeys(paths, 0) | {part.sources[0]: len(part.ids) for part in parts}
        if len(set(sizes.values())) > 1:
            given = ", ".join(f"{source}: {size}" for source, size in sizes.items())
            msg = f"--join: every file must hold the same objects, given {given}"
            raise ValueError(msg)
        joined: dict[str, Observation] = {}
        for part in parts:
            if twice := sorted(set(joined) & set(part.observations)):
                msg = f"--join: {part.sources[0]} holds {twice[0]!r}, which an earlier file has too"
                raise ValueError(msg)
            joined |= part.observations
        faults = {row: reason for part in reversed(parts) for row, reason in part.faults.items()}
        positions = next((p.positions for p in parts if np.isfinite(p.positions).any()), parts[0].positions)
        unread = tuple(dict.fromkeys(name for part in parts for name in part.unread))
        sources = [" + ".join(sizes)] * len(parts[0].ids)
        return Rows(parts[0].ids, sources, positions, parts[0].healpix, joined, faults, unread)


def _lost(each: Slice, reason: str) -> Rows:
    name = Path(each.path).name
    reason = reason.removeprefix(f"{each.path}: ")
    return Rows([name], [each.path], np.full((1, 2), np.nan), np.full(1, -1), {}, {0: f"cannot be read: {reason}"})


def _text(value: object) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)


def _batches(file: "ParquetFile", each: Slice, columns: Sequence[str]) -> "Iterator[tuple[int, RecordBatch]]":
    """Yields the rows of a slice with the number of the first, a piece at a time."""
    first, wanted = 0, []
    for group in range(file.metadata.num_row_groups):
        last = first + file.metadata.row_group(group).num_rows
        if last > each.start and (each.stop is None or first < each.stop):
            wanted.append((first, group))
        first = last
    if not wanted:
        return
    stop = first if each.stop is None else each.stop
    at = wanted[0][0]
    for batch in file.iter_batches(PIECE, [group for _, group in wanted], columns=list(columns)):
        low, high = max(each.start - at, 0), min(stop - at, len(batch))
        if high > low:
            yield at + low, batch.slice(low, high - low)
        at += len(batch)
