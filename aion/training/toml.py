"""The files of recipes: TOML, of sections that are known by name."""

__all__ = ["check_keys", "check_names", "check_sections", "check_training", "read_toml"]

import inspect

from collections.abc import Callable, Collection, Mapping
from pathlib import Path

from aion.observations import near_miss
from aion.training.loop import train

# Arguments of `train` that no recipe gives.
OURS = {"module", "data", "seed", "checkpoint", "identity", "log", "progress"}


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


def check_keys(
    path: Path | str,
    section: str,
    given: Mapping,
    function: Callable,
    more: Collection[str] = (),
    without: Collection[str] = (),
) -> None:
    """Refuses a section with a key that is no keyword argument of what it is for (with the near misses).

    Arguments:
        path: of the recipe.
        section: name of the section.
        given: its keys.
        function: what they are keyword arguments of.
        more: keys that are known beside them.
        without: arguments that no recipe gives.

    Raises:
        ValueError: naming the key.
    """
    check_names(path, section, given, {*inspect.signature(function).parameters, *more} - {*without, "self"})


def check_names(path: Path | str, section: str, given: Collection[str], known: Collection[str]) -> None:
    """Refuses a section with a key that is none of those known (with the near misses).

    Raises:
        ValueError: naming the key.
    """
    if unknown := sorted(set(given) - set(known)):
        msg = f"{path}: [{section}] knows no {unknown[0]!r}; {near_miss(unknown[0], known)}"
        raise ValueError(msg)


def check_training(path: Path | str, section: str, given: Mapping, more: Collection[str]) -> None:
    """Refuses settings of a training that are neither `more` nor arguments of `aion.training.train`; see `check_keys`.

    Raises:
        ValueError: naming the key.
    """
    check_keys(path, section, given, train, more, OURS)
