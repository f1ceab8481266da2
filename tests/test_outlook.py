"""`aion forecast`: a table and a chart, whole or not at all, and one line for what it refuses."""

import pyarrow.parquet
import pytest

from aion import outlook as module
from aion.__main__ import main
from aion.outlook import outlook


@pytest.fixture
def spots(tmp_path):
    path = tmp_path / "spots.csv"
    rows = [f"{1900 + n // 12},{n % 12 + 1},{20 + (n * 37) % 90}" for n in range(140)]
    rows[5] = rows[5].rsplit(",", 1)[0] + ","
    path.write_text("year,month,sunspot_number\n" + "\n".join(rows) + "\n")
    return path


def test_the_shipped_forecaster(spots, tmp_path, capsys):
    out = tmp_path / "forecast.parquet"
    assert main(["forecast", str(spots), "-o", str(out), "--horizon", "3", "--members", "2"]) == 0
    table = pyarrow.parquet.read_table(out)
    assert table.column("time").to_pylist() == ["1911-09", "1911-10", "1911-11"]
    assert len(table.column("sunspot_number")[0]) == 2
    assert (tmp_path / "forecast.png").read_bytes()[:4] == b"\x89PNG"
    said = capsys.readouterr()
    assert said.out.split() == [str(out), str(tmp_path / "forecast.png")]
    assert "1 of 140 values are not measured" in said.err


def test_another_series_is_refused_until_fitted(tmp_path, capsys):
    path = tmp_path / "flux.csv"
    path.write_text("time,flux\n" + "".join(f"{n},{(n * 7) % 11}\n" for n in range(80)))
    out = tmp_path / "forecast.parquet"
    assert main(["forecast", str(path), "-o", str(out)]) == 2
    assert "knows the channels 'sunspot_number', given 'flux'" in capsys.readouterr().err
    assert main(["forecast", str(path), "-o", str(out), "--save", str(tmp_path / "model")]) == 2
    assert "give --fit" in capsys.readouterr().err
    outlook(path, out, horizon=2, members=2, fit=1, save=tmp_path / "model")
    first = out.read_bytes()
    outlook(path, out, horizon=2, members=2, model=str(tmp_path / "model"))
    assert pyarrow.parquet.read_table(out).num_rows == 2
    assert out.read_bytes() == first, "the same forecaster and seed: the same futures"


def test_a_short_series_and_a_device_that_is_not_there(spots, tmp_path, capsys):
    few = tmp_path / "few.csv"
    few.write_text("".join(spots.read_text().splitlines(keepends=True)[:30]))
    arguments = ["forecast", str(few), "-o", str(tmp_path / "f.parquet"), "--horizon", "1", "--members", "1"]
    assert main(arguments) == 2
    assert "93 are missing; autoregressive K=5 needs 6" in capsys.readouterr().err
    assert main([*arguments, "--short"]) == 0
    assert main([*arguments, "--short", "--device", "cuda:99"]) == 2
    assert "cannot compute on device 'cuda:99'" in capsys.readouterr().err


def test_a_forecast_interrupted_midway_leaves_nothing(spots, tmp_path, monkeypatch):
    before = sorted(tmp_path.iterdir())

    def stop(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "write_forecast", stop)
    arguments = ["forecast", str(spots), "-o", str(tmp_path / "f.parquet"), "--horizon", "1", "--members", "1"]
    assert main(arguments) == 130
    assert sorted(tmp_path.iterdir()) == before


def test_an_output_that_cannot_be_written_is_refused_first(spots, tmp_path, capsys):
    assert main(["forecast", str(spots), "-o", str(tmp_path / "no" / "f.parquet")]) == 2
    assert "there is no folder" in capsys.readouterr().err
