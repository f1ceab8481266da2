"""`aion forecast`: futures of a time series."""

__all__ = ["register"]

import argparse

from pathlib import Path

from aion.commands.command import add, add_device, check_writable, positive, share_cores

DEFAULT_FORECASTER = "forecaster-nano"


def register(verbs) -> None:
    """Adds the verb."""
    parser = add(
        verbs,
        "forecast",
        _run,
        "draw possible futures of a time series",
        "Reads a CSV file with a column of time (or year and month), writes every member and the quantiles of each\n"
        "lead to a Parquet table, and a fan chart beside it. The shipped model knows monthly sunspot numbers (column\n"
        "sunspot_number) and refuses other series; for those, --fit trains a small one on the series itself\n"
        "(minutes), and --save keeps it for --model.",
        "aion forecast sunspots.csv --horizon 96 --members 64 -o forecast.parquet",
    )
    parser.add_argument("series", type=Path, metavar="SERIES", help="CSV file; steps left out count as not measured")
    parser.add_argument("-o", "--output", required=True, type=Path, metavar="OUT", help="Parquet file to write")
    parser.add_argument("--horizon", type=positive, default=96, metavar="N", help="steps to forecast (default: 96)")
    parser.add_argument("--members", type=positive, default=64, metavar="M", help="futures to draw (default: 64)")
    parser.add_argument(
        "--column", dest="columns", action="append", metavar="NAME", help="channel to read (default: all)"
    )
    parser.add_argument("--fit", type=positive, metavar="STEPS", help="train on the series, so many steps (try 1500)")
    parser.add_argument("--save", type=Path, metavar="DIR", help="where to write the forecaster that --fit made")
    parser.add_argument(
        "--short", action="store_true", help="look at the last steps only: for series shorter than the model's reach"
    )
    parser.add_argument("--seed", type=int, default=0, help="of all draws (default: 0)")
    parser.add_argument(
        "--model", default=DEFAULT_FORECASTER, metavar="MODEL", help=f"a forecaster (default: {DEFAULT_FORECASTER})"
    )
    add_device(parser, default="cpu")


def _run(arguments: argparse.Namespace) -> None:
    share_cores()
    from aion.outlook import outlook

    check_writable(arguments.output)
    options = {k: v for k, v in vars(arguments).items() if k not in ("run", "series", "output")}
    for path in outlook(arguments.series, arguments.output, **options):
        print(path)
