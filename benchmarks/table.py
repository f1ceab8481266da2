"""Writes the leaderboard of `benchmarks/README.md` from the committed results: `python benchmarks/table.py`."""

__all__ = ["leaderboard", "main"]

from pathlib import Path

from aion.benchmarks import table
from aion.benchmarks.published import REPORTED
from aion.benchmarks.report import read_cells

HERE = Path(__file__).resolve().parent
BEGIN, END = "<!-- leaderboard: begin -->\n", "<!-- leaderboard: end -->"


def leaderboard() -> str:
    """Returns what was measured, then what papers report of data sets that cannot be reached here."""
    lines = [table(read_cells(HERE / "results")), "As published, on data that are not those above:\n"]
    for task, rows in REPORTED.items():
        labels = list(next(iter(rows.values())))
        lines += [f"| `{task}` (arXiv:2510.17960) | {' | '.join(labels)} |", "|---" * (len(labels) + 1) + "|"]
        lines += [f"| {model} | {' | '.join(f'{v:.3g}' for v in row.values())} |" for model, row in rows.items()]
        lines.append("")
    return "\n".join(lines)


def main() -> None:
    path = HERE / "README.md"
    head, rest = path.read_text(encoding="utf-8").split(BEGIN)
    path.write_text(head + BEGIN + leaderboard() + END + rest.split(END)[1], encoding="utf-8")


if __name__ == "__main__":
    main()
