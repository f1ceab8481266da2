"""Writes a table as a HATS catalogue: files by place on the sky, which LSDB opens and matches with surveys.

A partition is a HEALPix pixel, as coarse as its number of rows allows, in
`dataset/Norder=K/Dir=D/Npix=P.parquet`, sorted along the sky by the column `_healpix_29`. Beside them stand
`hats.properties`, `partition_info.csv` and the schema. Rows without a position have no place in such a catalogue; they
are kept in `unplaced.parquet`.

References:
    HATS: a standard for the hierarchical adaptive tiling scheme in the virtual observatory (IVOA note, 2025)
"""

__all__ = ["check_hats", "is_hats", "write_hats"]

import os
import shutil

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from aion.io.healpix import DEEPEST, pixels

if TYPE_CHECKING:
    from pyarrow import Schema, Table

_COLUMN = f"_healpix_{DEEPEST}"
_FINEST = 8  # order of the finest partitions: a quarter of a degree wide
_HELD = 65536  # rows in memory before they are put aside by partition
_PROPERTIES = "hats.properties"


def is_hats(path: Path) -> bool:
    """Tells a folder that holds a HATS catalogue."""
    return (path / _PROPERTIES).is_file() or (path / "properties").is_file()


def check_hats(path: Path) -> None:
    """Refuses a path under which there is anything but an earlier HATS catalogue.

    Raises:
        FileExistsError: if there is.
    """
    if path.is_file() or (path.is_dir() and any(path.iterdir()) and not is_hats(path)):
        msg = f"{path} exists and is no HATS catalogue: remove it or give another name"
        raise FileExistsError(msg)


def write_hats(
    path: Path,
    schema: "Schema",
    positions: Iterable[np.ndarray],
    tables: "Iterable[Table]",
    scratch: Path,
    rows: int = 100_000,
) -> None:
    """Writes a catalogue, all or nothing; an earlier one under its name is replaced.

    Memory holds `_HELD` rows and a partition.

    Arguments:
        path: folder of the catalogue.
        schema: of the tables, which have columns `ra` and `dec` in degrees; its metadata are kept.
        positions: right ascension and declination `(B, 2)` of all rows in the order of the tables, NaN where not known.
        tables: the rows.
        scratch: folder in the same file system for what is not finished; removed in the end.
        rows: most rows of a partition, unless it is of the finest order.

    Raises:
        FileExistsError: see `check_hats`.
        ValueError: if no row has a position.
    """
    check_hats(path)
    shutil.rmtree(scratch, ignore_errors=True)
    spill, made = scratch / "spill", scratch / "catalogue"
    spill.mkdir(parents=True)
    count = np.zeros(12 << (2 * _FINEST), dtype=np.int64)
    for place in positions:
        number = _pixels(place[:, 0], place[:, 1], _FINEST)
        count += np.bincount(number[number >= 0], minlength=len(count))
    if not count.any():
        msg = f"{path}: no row has a position, which a HATS catalogue is sorted by; write Parquet instead"
        raise ValueError(msg)
    _put_aside(tables, _orders(count, rows), spill)
    _finish(made, path.name, schema, spill)
    if path.exists():
        path.replace(scratch / "earlier")
    made.replace(path)
    shutil.rmtree(scratch, ignore_errors=True)


def _pixels(ra: np.ndarray, dec: np.ndarray, order: int = DEEPEST) -> np.ndarray:
    """Returns the pixel of each row; a declination beyond the poles, of one bad row, is no position."""
    return pixels(ra, np.where(np.abs(dec) > 90, np.nan, dec), order)


def _orders(count: np.ndarray, rows: int) -> np.ndarray:
    """Returns the order of the partition that each of the finest pixels belongs to."""
    result = np.full(len(count), _FINEST)
    for order in range(_FINEST - 1, -1, -1):
        few = count.reshape(12 << (2 * order), -1).sum(1) <= rows
        result[np.repeat(few, len(count) // len(few))] = order
    return result


def _put_aside(tables: "Iterable[Table]", orders: np.ndarray, spill: Path) -> None:
    """Appends rows to a file for each partition."""
    import pyarrow

    held, size = [], 0
    for table in tables:
        held.append(table)
        size += len(table)
        if size >= _HELD:
            _spill(pyarrow.concat_tables(held), orders, spill)
            held, size = [], 0
    if held:
        _spill(pyarrow.concat_tables(held), orders, spill)


def _spill(table: "Table", orders: np.ndarray, spill: Path) -> None:
    import pyarrow

    ra, dec = (table.column(name).to_numpy() for name in ("ra", "dec"))
    deep = _pixels(ra, dec)
    fine = deep >> (2 * (DEEPEST - _FINEST))
    order = np.where(deep < 0, -1, orders[fine])
    pixel = np.where(deep < 0, 0, fine >> (2 * (_FINEST - np.maximum(order, 0))))
    table = table.add_column(0, pyarrow.field(_COLUMN, pyarrow.int64()), pyarrow.array(deep))
    sort = np.lexsort((pixel, order))
    edges = np.flatnonzero(np.diff(order[sort]) | np.diff(pixel[sort])) + 1
    for chosen in np.split(sort, edges):
        where = spill / f"{order[chosen[0]]}-{pixel[chosen[0]]}"
        part = table.take(chosen)
        with where.open("ab") as stream, pyarrow.ipc.new_stream(stream, part.schema) as writer:
            writer.write_table(part)


def _unspill(path: Path) -> "Table":
    """Reads a partition in order of the sky; what is at one place keeps its order."""
    import pyarrow

    tables = []
    with path.open("rb") as stream:
        while stream.peek(1):
            with pyarrow.ipc.open_stream(stream) as reader:
                tables.append(reader.read_all())
    table = pyarrow.concat_tables(tables)
    return table.take(np.argsort(table.column(_COLUMN).to_numpy(), kind="stable"))


def _finish(made: Path, name: str, schema: "Schema", spill: Path) -> None:
    """Writes partitions and what describes them."""
    import pyarrow.parquet

    schema = schema.insert(0, pyarrow.field(_COLUMN, pyarrow.int64()))
    partitions, footers = [], []
    for order, pixel, path in sorted((*map(int, p.name.split("-", 1)), p) for p in _placed(spill)):
        place = Path(f"Norder={order}", f"Dir={pixel // 10000 * 10000}", f"Npix={pixel}.parquet")
        table = _unspill(path)
        _write(made / "dataset" / place, table, schema, footers)
        footers[-1].set_file_path(str(place))
        partitions.append((order, pixel, len(table)))
    if (path := spill / "-1-0").exists():
        lost = _unspill(path).drop_columns([_COLUMN])
        _write(made / "unplaced.parquet", lost, schema.remove(0), [])
    pyarrow.parquet.write_metadata(schema, made / "dataset" / "_common_metadata")
    pyarrow.parquet.write_metadata(schema, made / "dataset" / "_metadata", metadata_collector=footers)
    lines = ["Norder,Npix,num_rows", *(",".join(map(str, line)) for line in partitions)]
    (made / "partition_info.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    for file in (_PROPERTIES, "properties"):  # the second is what older readers look for
        (made / file).write_text(_properties(name, partitions), encoding="utf-8")


def _placed(spill: Path) -> Iterator[Path]:
    return (path for path in spill.iterdir() if not path.name.startswith("-"))


def _write(path: Path, table: "Table", schema: "Schema", footers: list) -> None:
    import pyarrow.parquet

    path.parent.mkdir(parents=True, exist_ok=True)
    texts = [field.name for field in schema if field.type == pyarrow.string()]
    options = {"compression": "zstd", "use_dictionary": texts, "metadata_collector": footers}
    with path.open("xb") as stream:
        with pyarrow.parquet.ParquetWriter(stream, schema, **options) as writer:
            writer.write_table(table.cast(schema).replace_schema_metadata(schema.metadata))
        stream.flush()
        os.fsync(stream.fileno())


def _properties(name: str, partitions: list[tuple[int, int, int]]) -> str:
    """Describes the catalogue; no time of its making, so that the same rows make the same files."""
    values = {
        "obs_collection": name,
        "dataproduct_type": "object",
        "hats_nrows": sum(rows for *_, rows in partitions),
        "hats_col_ra": "ra",
        "hats_col_dec": "dec",
        "hats_col_healpix": _COLUMN,
        "hats_col_healpix_order": DEEPEST,
        "hats_npix_suffix": ".parquet",
        "hats_order": max(order for order, *_ in partitions),
        "hats_max_rows": max(rows for *_, rows in partitions),
        "moc_sky_fraction": f"{sum(0.25**order for order, *_ in partitions) / 12:.6f}",
        "hats_builder": "aion",
        "hats_version": "v1.0",
    }
    return "\n".join(["#HATS catalog", *(f"{key}={value}" for key, value in values.items())]) + "\n"
