"""Batches of objects from Parquet shards and from streams of Hugging Face `datasets`, by their number.

A step takes `lanes` batches, and each lane reads a part of the data of its own: whichever process makes a batch, it is
the same, and no two lanes meet before all data have been seen. Data begin anew, in another order, when they end.

Parquet shards lie in a folder of any depth; of a HATS catalogue those of its partitions are read. Row groups come in
random order, and rows are shuffled among the `MIX` row groups (in all lanes) that are held at once.
"""

__all__ = ["Shards", "Stream"]

import warnings

from collections import OrderedDict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from aion.io.columns import check_columns, needed, observe
from aion.observations import Observation, near_miss

if TYPE_CHECKING:
    import pyarrow

    Columns = Mapping[str, Mapping[str, object]]

MIX = 8


class Shards:
    """Reads Parquet shards.

    Arguments:
        path: a file, or a folder with files `*.parquet` at any depth.
        columns: which column is what, see `aion.io.columns`.
        batch: number of objects of a batch.
        lanes: batches of a step.
        seed: of the order.
        on_error: `"raise"`, or `"skip"` to leave out shards that are truncated or damaged; they are counted in `facts`.

    Raises:
        FileNotFoundError: if there is no such file or folder, or no shard in it.
        ValueError: for a shard that cannot be read, too few rows for a step, or a bad map.
    """

    def __init__(
        self,
        path: Path | str,
        columns: "Columns",
        batch: int,
        lanes: int = 1,
        seed: int = 0,
        on_error: str = "raise",
    ) -> None:
        if on_error not in {"raise", "skip"}:
            msg = f"on_error must be 'raise' or 'skip', given {on_error!r}"
            raise ValueError(msg)
        check_columns(columns)
        self.path, self.columns, self.batch, self.lanes = Path(path), columns, batch, lanes
        self.seed, self.on_error = seed, on_error
        self.skipped: dict[str, str] = {}
        self.groups: list[tuple[Path, int]] = []
        rows: list[int] = []
        for shard in _shards(self.path):
            for group, count in enumerate(self._counts(shard)):
                self.groups.append((shard, group))
                rows.append(count)
        self.rows = np.array(rows, dtype=np.int64)
        self.length = int(self.rows.sum()) // (batch * lanes)  # steps until the data end
        if not self.length:
            msg = f"{self.path} has {int(self.rows.sum())} objects, too few for {lanes} batches of {batch}"
            raise ValueError(msg)
        self._mix = max(1, MIX // lanes)
        self._windows: OrderedDict[tuple[int, int], pyarrow.Table] = OrderedDict()

    def __call__(self, number: int) -> dict[str, Observation]:
        """Returns a batch."""
        import pyarrow

        step, lane = divmod(number, self.lanes)
        epoch, step = divmod(step, self.length)
        position = (lane * self.length + step) * self.batch
        pieces, wanted, empty = [], self.batch, 0
        order = np.random.default_rng([self.seed, epoch]).permutation(len(self.groups))
        edges = np.cumsum(self.rows[order])
        edges = np.concatenate([[0], edges[self._mix - 1 : -1 : self._mix], edges[-1:]])
        while wanted:
            window = int(np.searchsorted(edges, position, "right")) - 1
            table = self._window(epoch, window, order)
            count = min(wanted, int(edges[window + 1]) - position)
            if table.num_rows:  # fewer than there should be if a part was damaged: then some come twice
                pieces.append(table.take((np.arange(count) + position - edges[window]) % table.num_rows))
                wanted -= count
            elif (empty := empty + 1) == len(edges):
                msg = f"{self.path}: no row can be read any more; skipped: {', '.join(self.skipped)}"
                raise ValueError(msg)
            position = (position + count) % int(edges[-1])
        return observe(pyarrow.concat_tables(pieces), self.columns)

    def sample(self, count: int) -> dict[str, Observation]:
        """Returns the first objects, at most so many."""
        import pyarrow

        pieces, found = [], 0
        for group in range(len(self.groups)):
            if found >= count:
                break
            pieces.append(self._read(group))
            found += pieces[-1].num_rows
        return observe(pyarrow.concat_tables(pieces).slice(0, count), self.columns)

    @property
    def facts(self) -> dict[str, object]:
        """Says what is read, and which shards were skipped."""
        shards = len({shard for shard, _ in self.groups})
        return {"path": self.path.name, "shards": shards, "objects": int(self.rows.sum()), "skipped": self.skipped}

    def _window(self, epoch: int, window: int, order: np.ndarray) -> "pyarrow.Table":
        """Reads some row groups and shuffles their rows; keeps those that are in use."""
        import pyarrow

        key = (epoch, window)
        if key not in self._windows:
            parts = [self._read(int(group)) for group in order[window * self._mix : (window + 1) * self._mix]]
            table = pyarrow.concat_tables(parts)
            draws = np.random.default_rng([self.seed, epoch, window])
            self._windows[key] = table.take(draws.permutation(table.num_rows))
            while len(self._windows) > self.lanes + 1:
                self._windows.popitem(last=False)
        self._windows.move_to_end(key)
        return self._windows[key]

    def _read(self, group: int) -> "pyarrow.Table":
        from pyarrow import parquet

        shard, number = self.groups[group]
        try:
            with parquet.ParquetFile(shard) as file:
                return file.read_row_group(number, columns=self._present(shard, file.schema_arrow))
        except (OSError, ValueError) as error:
            self._refuse(shard, error)
            return self._empty(shard)

    def _empty(self, shard: Path) -> "pyarrow.Table":
        from pyarrow import parquet

        return parquet.read_schema(shard).empty_table().select(needed(self.columns))

    def _present(self, shard: Path, schema: "pyarrow.Schema") -> list[str]:
        for name in needed(self.columns):
            if name not in schema.names:
                msg = f"{shard} has no column {name!r}; {near_miss(name, schema.names)}"
                raise KeyError(msg)
        return needed(self.columns)

    def _counts(self, shard: Path) -> Iterator[int]:
        from pyarrow import parquet

        try:
            metadata = parquet.read_metadata(shard)
            self._present(shard, metadata.schema.to_arrow_schema())
        except (OSError, ValueError) as error:
            self._refuse(shard, error)
            return
        except KeyError as error:
            raise ValueError(error.args[0]) from None
        yield from (metadata.row_group(group).num_rows for group in range(metadata.num_row_groups))

    def _refuse(self, shard: Path, error: Exception) -> None:
        """Notes a shard that cannot be read, or stops at it."""
        why = str(error).splitlines()[0] if str(error) else type(error).__name__
        if self.on_error == "raise":
            msg = f"{shard} is truncated or damaged ({why}): repair it, or leave such out by on_error = 'skip'"
            raise ValueError(msg) from error
        if shard.name not in self.skipped:
            self.skipped[shard.name] = why
            warnings.warn(f"{shard} is truncated or damaged ({why}) and skipped", stacklevel=4)


def _shards(path: Path) -> list[Path]:
    """Finds the Parquet files of a folder."""
    if path.is_file():
        return [path]
    if not path.is_dir():
        msg = f"no data {path}: wanted a Parquet file or a folder of them"
        raise FileNotFoundError(msg)
    partitions = sorted(path.glob("dataset/Norder=*/**/*.parquet"))  # of a HATS catalogue, which has other tables too
    found = partitions or sorted(p for p in path.rglob("*.parquet") if not p.name.startswith(("_", ".")))
    if not found:
        msg = f"no data in {path}: wanted files *.parquet"
        raise FileNotFoundError(msg)
    return found


class Stream:
    """Reads a stream of Hugging Face `datasets`.

    A training that goes on reads past what it had seen, which takes as long as reading it did.

    Arguments:
        dataset: what `datasets.load_dataset` takes: the name of a repository, or of a kind of file.
        columns: which column is what, see `aion.io.columns`.
        batch: number of objects of a batch.
        lanes: batches of a step.
        seed: of the order.
        split: of the dataset.
        buffer: rows among which they are shuffled.
        options: further arguments of `datasets.load_dataset`, such as `data_files` or `name`.

    Raises:
        FileNotFoundError: if there is no such dataset.
        ValueError: for a bad map.
    """

    def __init__(
        self,
        dataset: str,
        columns: "Columns",
        batch: int,
        lanes: int = 1,
        seed: int = 0,
        split: str = "train",
        buffer: int = 1000,
        options: Mapping[str, object] | None = None,
    ) -> None:
        import datasets

        check_columns(columns)
        self.name, self.columns, self.batch, self.lanes, self.split = dataset, columns, batch, lanes, split
        try:
            stream = datasets.load_dataset(dataset, split=split, streaming=True, **(options or {}))
        except (FileNotFoundError, datasets.exceptions.DatasetNotFoundError) as error:
            msg = f"no dataset {dataset!r}: {str(error).splitlines()[0]}"
            raise FileNotFoundError(msg) from error
        if stream.column_names:
            stream = stream.select_columns(self._present(stream.column_names))
        self._plain = stream
        self._stream = stream.shuffle(seed=seed, buffer_size=buffer)
        self._places: dict[int, tuple[int, Iterator]] = {}

    def __call__(self, number: int) -> dict[str, Observation]:
        """Returns a batch."""
        step, lane = divmod(number, self.lanes)
        place, tables = self._places.get(lane, (0, None))
        if tables is None or place > step:
            place, tables = 0, self._read(lane)
        table = next(tables)
        for _ in range(step - place):
            table = next(tables)
        self._places[lane] = (step + 1, tables)
        return observe(table, self.columns)

    def sample(self, count: int) -> dict[str, Observation]:
        """Returns the first objects, at most so many."""
        return observe(next(self._plain.with_format("arrow").iter(batch_size=count)), self.columns)

    @property
    def facts(self) -> dict[str, object]:
        """Says what is read."""
        return {"dataset": self.name, "split": self.split}

    def _present(self, names: list[str]) -> list[str]:
        for name in needed(self.columns):
            if name not in names:
                msg = f"dataset {self.name!r} has no column {name!r}; {near_miss(name, names)}"
                raise ValueError(msg)
        return needed(self.columns)

    def _read(self, lane: int) -> "Iterator[pyarrow.Table]":
        """Reads a lane without end."""
        from datasets.distributed import split_dataset_by_node

        epoch = 0
        while True:
            part = split_dataset_by_node(self._stream, rank=lane, world_size=self.lanes).with_format("arrow")
            part.set_epoch(epoch)
            some = False
            for table in part.iter(batch_size=self.batch, drop_last_batch=True):
                some = True
                yield table
            if not some:
                msg = f"dataset {self.name!r} has too few objects for {self.lanes} batches of {self.batch}"
                raise ValueError(msg)
            epoch += 1
