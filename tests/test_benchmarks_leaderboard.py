"""The leaderboard in `benchmarks/README.md` is what the committed results say."""

import importlib.util

from pathlib import Path

from aion.benchmarks.report import read_cells

ROOT = Path(__file__).resolve().parents[1]


def test_the_leaderboard_is_that_of_the_results():
    spec = importlib.util.spec_from_file_location("leaderboard", ROOT / "benchmarks" / "table.py")
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    text = (ROOT / "benchmarks" / "README.md").read_text(encoding="utf-8")
    assert script.leaderboard() == text.split(script.BEGIN)[1].split(script.END)[0], "run python benchmarks/table.py"


def test_results_state_what_they_are_of():
    cells = read_cells(ROOT / "benchmarks" / "results")
    assert {cell["origin"] for cell in cells} <= {"real", "simulated"}
    for cell in cells:
        assert cell["status"] in {"scored", "not applicable", "refused"}
        assert len(cell["model_sha256"]) == 64
        assert {"seed", "batch_size", "dtype", "torch", "seconds", "data_version"} <= set(cell)
        if cell["status"] == "scored":
            assert len(cell["data_sha256"]) == 64
            assert cell["tested"] > 0
