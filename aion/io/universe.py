"""Writes observations as Parquet shards with the columns of the Multimodal Universe, one row per object.

A spectrum is a struct of lists `flux`, `ivar`, `mask` (True is bad) and `lambda`; an image one of `band`, `flux`,
`ivar`, `mask` and `scale`, each with one entry per band; numbers are plain columns, and what was not measured is NaN.
The unit of a column stands in the metadata of its field, under `unit`. pandas, pyarrow and
`datasets.load_dataset("parquet", data_files=...)` read the shards.

References:
    The Multimodal Universe: enabling large-scale machine learning with 100 TB of astronomical scientific data
    (The Multimodal Universe Collaboration, 2024), arXiv 2412.02527
"""

__all__ = ["write_shards"]

import contextlib
import secrets
import shutil

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from aion.catalog import Catalog
from aion.field import Field
from aion.observations import Image, Observation, Spectrum

if TYPE_CHECKING:
    from pyarrow import Array, Table
    from pyarrow import Field as ArrowField

    Batch = tuple[Sequence[str], Mapping[str, Observation], Mapping[str, np.ndarray]]

_FLUX = {"flux": "1e-17 erg / (s cm2 Angstrom)", "ivar": "1e34 s2 cm4 Angstrom2 / erg2", "lambda": "Angstrom"}
_PIXEL = {"flux": "nmgy", "ivar": "1 / nmgy2", "scale": "arcsec"}
_ARCSEC = dict.fromkeys(("x", "y", "r", "scale"), "arcsec")


def write_shards(path: str | Path, batches: "Iterable[Batch]", units: Mapping[str, str] | None = None) -> int:
    """Writes one shard for each batch into a new folder: all of them or, after an error, no folder at all.

    Arguments:
        path: the folder, such as `sky.parquet`; it must not exist.
        batches: of identifiers, observations by name and further columns by name, all of the same objects.
        units: of columns of numbers, by name.

    Returns:
        The number of objects written.

    Raises:
        FileExistsError: if there is anything under the path.
        FileNotFoundError: if its parent does not exist.
        ValueError: for batches that hold different columns.
    """
    path = Path(path)
    check_free(path)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        temporary.mkdir()
        count = _write(temporary, batches, units or {})
        check_free(path)
        temporary.rename(path)
    finally:
        with contextlib.suppress(OSError):
            shutil.rmtree(temporary)
    return count


def check_free(path: Path) -> None:
    """Refuses a path under which there is something, or that has no parent."""
    if path.exists():
        msg = f"{path} exists already: remove it or give another name"
        raise FileExistsError(msg)
    if not path.absolute().parent.is_dir():
        msg = f"cannot write {path}: there is no folder {path.absolute().parent}"
        raise FileNotFoundError(msg)


def _write(folder: Path, batches: "Iterable[Batch]", units: Mapping[str, str]) -> int:
    import pyarrow.parquet

    count, first = 0, None
    for number, batch in enumerate(batches):
        table = _table(*batch, units)
        first = first or table.schema
        if table.schema != first:
            msg = f"shard {number} has other columns than the first: {set(table.schema.names) ^ set(first.names)}"
            raise ValueError(msg)
        pyarrow.parquet.write_table(table, folder / f"part-{number:05d}.parquet", compression="zstd")
        count += len(table)
    return count


def _table(
    ids: Sequence[str],
    observations: Mapping[str, Observation],
    columns: Mapping[str, np.ndarray],
    units: Mapping[str, str],
) -> "Table":
    import pyarrow

    arrays = {"object_id": pyarrow.array([str(i) for i in ids], pyarrow.string())}
    arrays |= {name: _column(value) for name, value in observations.items()}
    arrays |= {name: pyarrow.array(np.asarray(value)) for name, value in columns.items()}
    fields = [_field(name, array.type, units) for name, array in arrays.items()]
    return pyarrow.table(list(arrays.values()), schema=pyarrow.schema(fields))


def _field(name: str, kind: object, units: Mapping[str, str]) -> "ArrowField":
    import pyarrow

    return pyarrow.field(name, kind, metadata={"unit": units[name]} if units.get(name) else None)


def _column(value: Observation) -> "Array":
    """Turns observations into one column."""
    if isinstance(value, Spectrum):
        parts = {"flux": value.flux, "ivar": value.ivar, "mask": ~value.measured, "lambda": value.wavelength}
        return _struct(parts, _FLUX)
    if isinstance(value, Image):
        bands = np.broadcast_to(np.array(value.bands), value.flux.shape[:2])
        scale = value.pixel_scale[:, None].expand(value.flux.shape[:2])
        parts = {"band": bands, "flux": value.flux, "ivar": value.ivar, "mask": ~value.measured, "scale": scale}
        return _struct(parts, _PIXEL)
    if isinstance(value, Catalog | Field):
        names = {"pixel_scale": "scale"}
        return _struct({names.get(key, key): part for key, part in vars(value).items()}, _ARCSEC)
    return _nested(value.value)


def _struct(parts: Mapping[str, object], units: Mapping[str, str]) -> "Array":
    import pyarrow

    arrays = {name: _nested(part) for name, part in parts.items()}
    fields = [_field(name, array.type, units) for name, array in arrays.items()]
    return pyarrow.StructArray.from_arrays(list(arrays.values()), fields=fields)


def _nested(value: object) -> "Array":
    """Turns an array `(B, ...)` into B lists of lists."""
    import pyarrow

    value = value.detach().cpu().numpy() if hasattr(value, "detach") else np.asarray(value)
    array = pyarrow.array(value.reshape(-1))
    for axis in range(value.ndim - 1, 0, -1):
        total = int(np.prod(value.shape[:axis]))
        offsets = np.arange(total + 1, dtype=np.int32) * value.shape[axis]
        array = pyarrow.ListArray.from_arrays(pyarrow.array(offsets), array)
    return array
