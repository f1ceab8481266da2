"""The `aion` command: a parser over the verbs of `aion.commands`.

Results go to standard output; progress bars, warnings and errors go to standard error, the bars on a terminal only. A
refused input is one line `aion: error: ...` and exit status 2.
"""

__all__ = ["main"]

import argparse
import os
import sys
import warnings

from collections.abc import Sequence

from aion import __version__
from aion.commands import benchmark, demo, embed, explore, forecast, info, physics, search, sky, train

VERBS = (benchmark, demo, embed, explore, forecast, info, physics, search, sky, train)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a verb and returns the exit status: 0, 2 for refused input, 3 if rows failed, 130 if interrupted."""
    arguments = _parser().parse_args(argv)
    shown = warnings.formatwarning
    warnings.formatwarning = _warning
    try:
        status = arguments.run(arguments) or 0
        sys.stdout.flush()
    except BrokenPipeError:  # `aion info ... | head`: whoever reads has read enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except KeyboardInterrupt:
        print("aion: interrupted", file=sys.stderr)
        return 130
    except (FloatingPointError, ModuleNotFoundError, OSError, RuntimeError, TypeError, ValueError) as error:
        print(f"aion: error: {_whose()}{_explain(error)}", file=sys.stderr, flush=True)
        return 2
    finally:
        warnings.formatwarning = shown
    return status


def _whose() -> str:
    """Names the rank that speaks, of several that train together."""
    return f"rank {os.environ.get('RANK', 0)}: " if int(os.environ.get("WORLD_SIZE", "1")) > 1 else ""


def _warning(message: object, *_: object, **__: object) -> str:
    """Writes a warning without the line of the source that gave it."""
    return f"aion: warning: {_whose()}{message}\n"


def _explain(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror and error.filename:
        return f"{error.filename}: {error.strerror.lower()}"
    return str(error)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="aion",
        description="Turns astronomical observations into tokens, embeddings and predictions.",
        epilog="example:\n  aion demo\n\n`aion VERB --help` explains a verb and gives an example.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"aion {__version__}")
    verbs = parser.add_subparsers(title="verbs", metavar="VERB", required=True)
    for verb in VERBS:
        verb.register(verbs)
    return parser


if __name__ == "__main__":
    sys.exit(main())
