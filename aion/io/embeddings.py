"""Writes embeddings with their identifiers to Parquet, and reads them back.

One row per object: `object_id` (text), `embedding` (a list of fixed size of float32) and whatever columns are given.
What the embeddings were made with travels in the schema, as JSON under the key `aion`.
"""

__all__ = ["Embeddings", "read_embeddings", "write_embeddings"]

import json

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch

from torch import Tensor

from aion.io.parquet import write_whole

if TYPE_CHECKING:
    from pyarrow import Table

_KEY = b"aion"
_RESERVED = ("object_id", "embedding")


class Embeddings(NamedTuple):
    """Holds embeddings as read from a file.

    Arguments:
        ids: identifiers of the B objects.
        embedding: float32, with shape `(B, D)`.
        columns: the other columns by name, each with B values.
        metadata: what was given to `write_embeddings`.
    """

    ids: list[str]
    embedding: Tensor
    columns: dict[str, np.ndarray]
    metadata: dict[str, object]


def write_embeddings(
    path: str | Path,
    ids: Sequence[str],
    embedding: Tensor | np.ndarray,
    columns: Mapping[str, Sequence | np.ndarray | Tensor] | None = None,
    metadata: Mapping[str, object] | None = None,
) -> Path:
    """Writes embeddings to a Parquet file, all of it or nothing: after an error no file is left under the name.

    Arguments:
        path: the file; one that exists is replaced when the new one is complete.
        ids: identifiers of the B objects.
        embedding: with shape `(B, D)`, finite; written as float32.
        columns: further columns by name, with B values each.
        metadata: JSON values that belong to all rows, such as the hash of the model.

    Returns:
        The path of the file.

    Raises:
        ValueError: for lengths that disagree, values that are not finite, a name of a column that is taken, metadata
            that are not JSON, or a file that cannot be written.
    """

    path = Path(path)
    table = _table(ids, embedding, dict(columns or {}), dict(metadata or {}))
    return write_whole(table, path)


def _table(ids: Sequence[str], embedding: Tensor | np.ndarray, columns: dict, metadata: dict) -> "Table":
    """Builds the table in memory, so that what is wrong with the data is found before anything is written."""
    import pyarrow

    values = _array(embedding)
    if values.ndim != 2 or values.shape[0] != len(ids) or values.shape[1] < 1 or values.dtype.kind not in "fiu":
        msg = f"wanted an embedding (B, D) of numbers for {len(ids)} ids, given {values.dtype} of shape {values.shape}"
        raise ValueError(msg)
    values = values.astype(np.float32)
    if not (finite := np.isfinite(values).all(axis=1)).all():
        wrong = int((~finite).sum())
        msg = f"embeddings must be finite; {wrong} of {len(values)} rows are not, the first is {finite.argmin()}"
        raise ValueError(msg)
    try:
        text = json.dumps(metadata, allow_nan=False)
    except (TypeError, ValueError) as error:
        msg = f"metadata must be JSON values: {error}"
        raise ValueError(msg) from error
    data = {
        "object_id": pyarrow.array([str(i) for i in ids], pyarrow.string()),
        "embedding": pyarrow.FixedSizeListArray.from_arrays(pyarrow.array(values.ravel()), values.shape[1]),
    }
    for name, column in columns.items():
        column = _array(column)
        if name in _RESERVED or column.ndim != 1 or len(column) != len(ids):
            msg = (
                f"column {name!r}: wanted {len(ids)} values under a name other than {' and '.join(_RESERVED)}, "
                f"given the shape {column.shape}"
            )
            raise ValueError(msg)
        data[name] = pyarrow.array(column)
    return pyarrow.table(data).replace_schema_metadata({_KEY: text})


def _array(value: object) -> np.ndarray:
    if isinstance(value, Tensor):
        value = value.detach().to("cpu")
        value = (value.float() if value.is_floating_point() else value).numpy()
    value = np.asarray(value)
    return value.astype(value.dtype.newbyteorder("=")) if value.dtype.kind in "fiub" else value


def read_embeddings(path: str | Path) -> Embeddings:
    """Reads what `write_embeddings` or `aion embed` wrote; rows without an embedding are left out.

    Arguments:
        path: a Parquet file, or the folder of a HATS catalogue.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: for a file that is not Parquet or has no columns `object_id` and `embedding`.
    """
    import pyarrow

    path = Path(path)
    if not path.exists():
        msg = f"no such file: {path}"
        raise FileNotFoundError(msg)
    try:
        table = pyarrow.concat_tables([_read(file) for file in _files(path)])
    except (OSError, pyarrow.ArrowException) as error:
        msg = f"{path}: wanted a Parquet file ({error})"
        raise ValueError(msg) from error
    if missing := [name for name in _RESERVED if name not in table.column_names]:
        msg = f"{path}: it has no column {missing[0]!r}; it has {', '.join(table.column_names)}"
        raise ValueError(msg)
    table = table.filter(table.column("embedding").is_valid())
    column = table.column("embedding").combine_chunks()
    if not pyarrow.types.is_fixed_size_list(column.type):
        msg = f"{path}: wanted embeddings in lists of one fixed size, given {column.type}"
        raise ValueError(msg)
    values = column.flatten().to_numpy(zero_copy_only=False).astype(np.float32)
    return Embeddings(
        ids=table.column("object_id").to_pylist(),
        embedding=torch.from_numpy(values.reshape(-1, column.type.list_size)),
        columns={n: table.column(n).to_numpy() for n in table.column_names if n not in _RESERVED},
        metadata=json.loads((table.schema.metadata or {}).get(_KEY, b"{}")),
    )


def _files(path: Path) -> list[Path]:
    if not path.is_dir():
        return [path]
    if found := sorted(path.glob("dataset/**/Npix=*.parquet")):
        return [*found, *path.glob("unplaced.parquet")]
    msg = f"{path}: it is a folder and no HATS catalogue; wanted that or a Parquet file"
    raise ValueError(msg)


def _read(path: Path) -> "Table":
    """Reads one file; from a stream, because of a path pyarrow takes `Npix=4` for a column."""
    import pyarrow.parquet

    with path.open("rb") as stream:
        table = pyarrow.parquet.read_table(stream)
    return table.drop_columns([name for name in table.column_names if name.startswith("_healpix")])
