"""Parquet files that are there whole or not at all."""

__all__ = ["write_whole"]

import contextlib
import secrets

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pyarrow import Table


def write_whole(table: "Table", path: Path) -> Path:
    """Writes a table under another name, which is replaced when it is complete, and returns the path.

    Raises:
        ValueError: if it cannot be written; nothing is changed then.
    """
    import pyarrow.parquet

    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        with temporary.open("xb") as stream:
            pyarrow.parquet.write_table(table, stream)
        temporary.replace(path)
    except OSError as error:
        msg = f"{path}: cannot be written ({error.strerror or error}); nothing was changed"
        raise ValueError(msg) from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()
    return path
