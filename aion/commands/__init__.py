"""The verbs of the `aion` command, one a file: `register` adds its arguments, and what it runs is called with them.

What torch or astropy is needed for is imported when a verb runs, so that `aion --help` answers at once.
"""

__all__ = []
