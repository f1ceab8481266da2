"""Batches from shards and streams: every row once, the same for the same number, whoever asks."""

from itertools import chain

import numpy as np
import pyarrow as pa
import pytest

from pyarrow import parquet

from aion.io import Shards, Stream

COLUMNS = {"redshift": {"value": "z"}}


def write(folder, files: int = 3, rows: int = 20, group: int = 5) -> None:
    """Writes shards whose rows are numbered through."""
    folder.mkdir(parents=True, exist_ok=True)
    for file in range(files):
        table = pa.table({"z": np.arange(file * rows, (file + 1) * rows, dtype=np.float64), "id": np.arange(rows)})
        parquet.write_table(table, folder / f"part-{file}.parquet", row_group_size=group)


def values(batch) -> list[float]:
    return batch["redshift"].value.flatten().tolist()


def open_stream(folder, **options) -> Stream:
    return Stream("parquet", COLUMNS, buffer=8, options={"data_files": str(folder / "*.parquet")}, **options)


@pytest.fixture(autouse=True)
def _cache(monkeypatch, tmp_path):
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))


@pytest.mark.parametrize(("kind", "lanes"), [("shards", 1), ("shards", 3), ("stream", 3)])
def test_an_epoch_has_every_row_once_and_the_next_another_order(tmp_path, kind, lanes):
    write(tmp_path / "data")
    make = (
        (lambda **o: Shards(tmp_path / "data", COLUMNS, **o))
        if kind == "shards"
        else (lambda **o: open_stream(tmp_path / "data", **o))
    )
    source = make(batch=4, lanes=lanes, seed=1)
    first, second = ([values(source(i + 15 * epoch)) for i in range(15)] for epoch in range(2))
    assert sorted(chain(*first)) == sorted(chain(*second)) == list(range(60))
    assert first != second
    assert any(row != sorted(row) for row in first)
    again = make(batch=4, lanes=lanes, seed=1)
    for number in (17, 3, 29)[: 3 if kind == "shards" else 2]:  # in any order, from the start or not
        assert values(again(number)) == (first + second)[number]
    assert values(make(batch=4, lanes=lanes, seed=2)(0)) != first[0]
    assert values(source.sample(7)) == list(range(7))


def test_lanes_do_not_meet(tmp_path):
    write(tmp_path)
    source = Shards(tmp_path, COLUMNS, batch=5, lanes=2)
    lanes = [{v for step in range(6) for v in values(source(2 * step + lane))} for lane in range(2)]
    assert not lanes[0] & lanes[1]
    assert len(lanes[0] | lanes[1]) == 60


def test_a_hats_catalogue_is_read_from_its_partitions(tmp_path):
    write(tmp_path / "dataset" / "Norder=1" / "Dir=0", files=1)
    write(tmp_path / "dataset" / "Norder=2" / "Dir=0" / "Npix=7", files=1)
    write(tmp_path / "margin", files=3)
    parquet.write_table(pa.table({"other": [1]}), tmp_path / "dataset" / "data_thumbnail.parquet")
    assert Shards(tmp_path, COLUMNS, batch=4).facts == {
        "path": tmp_path.name,
        "shards": 2,
        "objects": 40,
        "skipped": {},
    }


def damage(path, how: str) -> None:
    content = bytearray(path.read_bytes())
    if how == "truncated":
        content = content[: len(content) // 2]
    else:
        content[4:200] = bytes(196)  # data pages, which are only seen when they are read
    path.write_bytes(bytes(content))


def epoch(folder, **options) -> tuple[Shards, list[float]]:
    source = Shards(folder, COLUMNS, batch=4, **options)
    return source, [v for number in range(15) for v in values(source(number))]


@pytest.mark.parametrize("how", ["truncated", "damaged"])
def test_a_damaged_shard_stops_or_is_skipped_counted_and_reported(tmp_path, how):
    write(tmp_path)
    damage(tmp_path / "part-1.parquet", how)
    with pytest.raises(ValueError, match=r"part-1\.parquet is truncated or damaged .* on_error = 'skip'"):
        epoch(tmp_path)
    with pytest.warns(UserWarning, match=r"part-1\.parquet is truncated or damaged .* and skipped"):
        source, seen = epoch(tmp_path, on_error="skip")
    assert len(seen) == 60
    assert set(seen) >= {*range(20), *range(40, 60)}
    assert set(source.facts["skipped"]) == {"part-1.parquet"}


@pytest.mark.filterwarnings("ignore:.*and skipped")
def test_shards_that_are_all_damaged_end_the_reading(tmp_path):
    write(tmp_path)
    for path in tmp_path.iterdir():
        content = path.read_bytes()
        path.write_bytes(content[:4] + bytes(900) + content[904:])  # all data pages; what they hold is told at the end
    source = Shards(tmp_path, COLUMNS, batch=20, on_error="skip")
    with pytest.raises(ValueError, match="no row can be read any more; skipped: part-"):
        source(0)


def test_what_is_not_there_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no data .*none: wanted a Parquet file or a folder"):
        Shards(tmp_path / "none", COLUMNS, batch=2)
    with pytest.raises(FileNotFoundError, match=r"no data in .*: wanted files \*\.parquet"):
        Shards(tmp_path, COLUMNS, batch=2)
    write(tmp_path)
    with pytest.raises(
        ValueError, match=r"part-0\.parquet has no column 'redshift'; did you mean|has no column 'z_best'"
    ):
        Shards(tmp_path, {"redshift": {"value": "z_best"}}, batch=2)
    with pytest.raises(ValueError, match="has 60 objects, too few for 4 batches of 20"):
        Shards(tmp_path, COLUMNS, batch=20, lanes=4)
    with pytest.raises(ValueError, match="on_error must be 'raise' or 'skip', given 'ignore'"):
        Shards(tmp_path, COLUMNS, batch=2, on_error="ignore")


def test_what_a_stream_has_not_is_named(tmp_path):
    write(tmp_path)
    with pytest.raises(FileNotFoundError, match="no dataset"):
        Stream("parquet", COLUMNS, batch=2, options={"data_files": str(tmp_path / "none.parquet")})
    with pytest.raises(ValueError, match="has no column 'zz'"):
        Stream("parquet", {"a": {"value": "zz"}}, batch=2, options={"data_files": str(tmp_path / "*.parquet")})
    with pytest.raises(ValueError, match="too few objects for 1 batches of 100"):
        open_stream(tmp_path, batch=100)(0)
