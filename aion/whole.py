"""Files that are there whole or not at all, whatever happens while they are written."""

__all__ = ["whole"]

import contextlib
import secrets

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def whole(path: Path) -> Iterator[Path]:
    """Gives a name in the folder of a file, of the same ending, to write under while the context lasts.

    What was written there takes the name of the file in the end; after an error it is removed, and an older file stays.
    """
    temporary = path.with_name(f".{secrets.token_hex(4)}.{path.name}")
    try:
        temporary.touch()
        mode = temporary.stat().st_mode
        yield temporary
        temporary.chmod(mode)  # safetensors lets the owner alone read
        temporary.replace(path)
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()
