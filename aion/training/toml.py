"""The files of recipes: TOML, of sections that are known by name."""

__all__ = ["check_sections", "read_toml"]

from collections.abc import Collection, Mapping
from pathlib import Path

from aion.observations import near_miss


def read_toml(path: Path | str) -> dict:
    """Reads a TOML file.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is not TOML.
    """
    try:
        import tomllib
    except ModuleNotFoundError:  # Python 3.10
        import tomli as tomllib
    path = Path(path)
    if not path.is_file():
        msg = f"no recipe {path}"
        raise FileNotFoundError(msg)
    try:
        return tomllib.loads(path.read_text())
    except tomllib.TOMLDecodeError as error:
        msg = f"{path} is not TOML: {error}"
        raise ValueError(msg) from error


def check_sections(path: Path | str, recipe: Mapping, known: set[str], optional: Collection[str] = ()) -> None:
    """Refuses a recipe with a section that is unknown (with the near misses) or without one that it needs.

    Raises:
        ValueError: naming it.
    """
    if unknown := sorted(set(recipe) - known):
        msg = f"{path}: unknown section {unknown[0]!r}; {near_miss(unknown[0], known)}"
        raise ValueError(msg)
    if missing := sorted(known - set(optional) - set(recipe)):
        msg = f"{path} lacks {', '.join(missing)}"
        raise ValueError(msg)
