"""Parquet files that are there whole or not at all."""

__all__ = ["write_whole"]

from pathlib import Path
from typing import TYPE_CHECKING

from aion.whole import whole

if TYPE_CHECKING:
    from pyarrow import Table


def write_whole(table: "Table", path: Path) -> Path:
    """Writes a table under another name, which is replaced when it is complete, and returns the path.

    Raises:
        ValueError: if it cannot be written; nothing is changed then.
    """
    import pyarrow.parquet

    try:
        with whole(path) as temporary, temporary.open("wb") as stream:
            pyarrow.parquet.write_table(table, stream)
    except OSError as error:
        msg = f"{path}: cannot be written ({error.strerror or error}); nothing was changed"
        raise ValueError(msg) from error
    return path
