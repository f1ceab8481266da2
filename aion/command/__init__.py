"""The verbs of the `aion` command, a file for each family; `aion.__main__` puts them together."""

__all__ = []
