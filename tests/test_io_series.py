"""Series from CSV and forecasts to Parquet: times, gaps, and what is refused in a line that says where."""

import json

import pyarrow.parquet
import pytest
import torch

from aion.io.series import read_series, write_forecast


def write(tmp_path, text):
    path = tmp_path / "series.csv"
    path.write_text(text)
    return path


def test_months(tmp_path):
    series = read_series(write(tmp_path, "year,month,spots\n1749,11,58\n1749,12,62.6\n1750,2,\n1750,3,1e1\n"))
    assert series.columns == ("spots",)
    assert series.cadence == "1 month"
    assert series.values[:, 0].tolist()[:2] == [58.0, pytest.approx(62.6)]
    assert series.values[:, 0].isnan().tolist() == [False, False, True, True, False]
    assert series.missing == 2
    assert series.times(3, 7) == ["1750-02", "1750-03", "1750-04", "1750-05"]


@pytest.mark.parametrize(
    ("times", "cadence", "following"),
    [
        (("2020-01-31", "2020-02-01", "2020-02-02"), "1 day", "2020-02-03T00:00:00"),
        (("2020-01-15", "2020-02-15", "2020-03-15"), "1 month", "2020-04"),
        (("2020-01-01T00:00:00Z", "2020-01-01T00:12:00Z", "2020-01-01T00:24:00Z"), "12 minute", "2020-01-01T00:36:00"),
        (("0.5", "1.0", "1.5"), "0.5", 2.0),
    ],
)
def test_kinds_of_time(tmp_path, times, cadence, following):
    series = read_series(write(tmp_path, "Date,a\n" + "".join(f"{t},{n}\n" for n, t in enumerate(times))))
    assert series.cadence == cadence
    assert series.times(3, 4) == [following]


def test_columns_and_coarser_frames(tmp_path):
    path = write(tmp_path, "time,a,b\n" + "".join(f"{t},{t},{-t}\n" for t in range(7)))
    assert read_series(path, ["b"]).columns == ("b",)
    coarse = read_series(path).coarser(3)
    assert coarse.values.tolist() == [[1, -1], [4, -4]]
    assert coarse.step == 3
    with pytest.raises(ValueError, match="from 1 to 7"):
        read_series(path).coarser(9)
    with pytest.raises(ValueError, match="no column 'c'"):
        read_series(path, ["c"])


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("time,a\n1,2\n", "at least two rows"),
        ("time,a\n1,2\n3,4\n2,5\n", "line 4: the times are not in order"),
        ("time,a\n1,2\n3,4\n3,5\n", "line 4: the times are double"),
        ("time,a\n1,2\n2,4\n3.5,5\n", "line 4: the times are irregular: 1.5 after the line before"),
        ("time,a\n1,2\n,4\n3,5\n", "line 3: the time is missing"),
        ("time,a\n1,2\nnoon,4\n3,5\n", "neither numbers nor ISO dates"),
        ("time,a\n1,2\nnan,4\n3,5\n", "line 3: the time is missing"),
        ("when,a\n1,2\n2,4\n", "wanted a column of time"),
        ("time,a\n1,2\n2,x\n", "line 3, column 'a': 'x' is no number"),
        ("time,a\n1,2\n2\n", "line 3: wanted 2 fields, given 1"),
        ("time\n1\n2\n", "a column of values beside time"),
    ],
)
def test_what_it_refuses(tmp_path, text, why):
    with pytest.raises(ValueError, match=why):
        read_series(write(tmp_path, text))


def test_a_forecast_on_disk(tmp_path):
    series = read_series(write(tmp_path, "time,a,b\n0,1,2\n2,3,4\n"))
    ensemble = torch.arange(24.0).view(4, 3, 2)
    path = write_forecast(tmp_path / "out.parquet", series, ensemble, {"seed": 3})
    table = pyarrow.parquet.read_table(path)
    assert table.column("time").to_pylist() == [4, 6, 8]
    assert table.column("lead").to_pylist() == [1, 2, 3]
    assert table.column("a").to_pylist()[1] == ensemble[:, 1, 0].tolist()
    assert table.column("b_mean").to_pylist() == ensemble[:, :, 1].mean(0).tolist()
    assert table.column("a_q50").to_pylist()[0] == ensemble[:, 0, 0].quantile(0.5)
    assert json.loads(table.schema.metadata[b"aion"]) == {"seed": 3}
    with pytest.raises(ValueError, match=r"wanted members \(M, T, 2\)"):
        write_forecast(path, series, ensemble[..., :1])
    with pytest.raises(ValueError, match="cannot be written"):
        write_forecast(tmp_path / "no" / "out.parquet", series, ensemble)


def test_an_interrupted_write_leaves_nothing(tmp_path, monkeypatch):
    series = read_series(write(tmp_path, "time,a\n0,1\n2,3\n"))

    def stop(table, stream):
        stream.write(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(pyarrow.parquet, "write_table", stop)
    with pytest.raises(KeyboardInterrupt):
        write_forecast(tmp_path / "out.parquet", series, torch.zeros(2, 3, 1))
    assert [path.name for path in tmp_path.iterdir()] == ["series.csv"]
