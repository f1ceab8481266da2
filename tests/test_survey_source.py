"""Sources: what is found, how it is dealt out in units, and that every row is read once."""

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest

from aion import Scalar, Spectrum, io
from aion.survey.source import Reader, Slice, find, units

KINDS = {"desi_spectrum": Spectrum, "legacysurvey_flux_r": Scalar, "redshift": Scalar}


@pytest.fixture
def table(tmp_path):
    """Writes numbers to a Parquet file of several row groups."""

    def write(name, count, group=7):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        data = pyarrow.table({"object_id": [f"{name}-{i}" for i in range(count)], "redshift": np.arange(count) / 100})
        pyarrow.parquet.write_table(data, path, row_group_size=group)
        return str(path)

    return write


def test_finds_files_globs_and_folders_in_order(table, tmp_path):
    b, a = table("b.parquet", 1), table("a.parquet", 1)
    deep = table("hats/dataset/Norder=1/Npix=4.parquet", 1)
    (tmp_path / "hats" / "dataset" / "_metadata.parquet").write_bytes(b"")
    assert find([b, a]) == [b, a]
    assert find([tmp_path / "*.parquet"]) == [a, b]
    assert find([tmp_path / "hats"]) == [deep]


def test_what_cannot_be_found_is_named(tmp_path, monkeypatch):
    for source, said in (("none.fits", "no such file"), ("*.none", "no file fits"), ("", "no Parquet file")):
        with pytest.raises(FileNotFoundError, match=said):
            find([tmp_path / source])
    with pytest.raises(ValueError, match="lsdb, in the extra `dask`"):
        find(["https://data.lsdb.io/hats/gaia"])


def test_a_data_set_of_the_hub_is_its_parquet_files(table, tmp_path, monkeypatch):
    import huggingface_hub

    table("datasets/someone/sky/train/0.parquet", 3)

    class Hub:
        def glob(self, pattern):
            return [str(p.relative_to(tmp_path)) for p in tmp_path.glob(pattern.replace("**.parquet", "**/*.parquet"))]

        def open(self, path, mode):
            return (tmp_path / path).open(mode)

    monkeypatch.setattr(huggingface_hub, "HfFileSystem", Hub)
    (name,) = found = find(["someone/sky"])
    assert name == "hf://datasets/someone/sky/train/0.parquet"
    rows = [rows for unit in units(found, 2) for rows in Reader(KINDS, {}).read(unit)]
    assert [len(r.ids) for r in rows] == [2, 1]
    with pytest.raises(FileNotFoundError, match="no Parquet file in that data set"):
        find(["someone/else"])


@pytest.mark.parametrize("rows", [1, 3, 5, 8, 100])
@pytest.mark.parametrize("limit", [None, 1, 11, 24])
def test_units_hold_every_row_once(table, rows, limit):
    files = [table("a.parquet", 10), table("b.parquet", 2), table("c.parquet", 13)]
    planned = units(files, rows, limit)
    reader = Reader(KINDS, {})
    seen = [name for unit in planned for piece in reader.read(unit) for name in piece.ids]
    every = [f"{f}.parquet-{i}" for f, n in (("a", 10), ("b", 2), ("c", 13)) for i in range(n)]
    assert seen == every[:limit]
    assert max(sum(s.stop - s.start for s in unit) for unit in planned) <= rows


def test_values_belong_to_their_rows(table):
    path = table("a.parquet", 30)
    for unit in units([path], 4):
        for piece in Reader(KINDS, {}).read(unit):
            numbers = [int(name.rpartition("-")[2]) for name in piece.ids]
            np.testing.assert_allclose(piece.observations["redshift"].value, np.array(numbers) / 100, rtol=1e-6)


def test_small_files_share_a_unit_and_large_ones_are_cut(table, root):
    small = [table(f"s{i}.parquet", 2) for i in range(6)]
    assert [len(unit) for unit in units(small, 4)] == [2, 2, 2]
    fits = [str(root / "tests/data/sweep-310m005-320p000.fits.gz")] * 600
    assert [len(unit) for unit in units(fits, 1024)] == [256, 256, 88]


def test_reads_files_as_aion_io_does(root):
    path = str(root / "tests/data/sweep-310m005-320p000.fits.gz")
    (rows,) = Reader(KINDS, {}).read((Slice(path),))
    assert rows.ids == io.object_ids(path)
    read = io.read(path)
    np.testing.assert_array_equal(rows.observations["legacysurvey_flux_r"].value, read["legacysurvey_flux_r"].value)
    np.testing.assert_allclose(rows.positions[:, 0], read["ra"].value, rtol=1e-6)
    assert set(rows.unread) == set(read) - {"legacysurvey_flux_r"}


def test_a_table_of_other_things_says_what_is_wanted(tmp_path):
    pyarrow.parquet.write_table(pyarrow.table({"object_id": ["a"], "colour": [1.0]}), tmp_path / "x.parquet")
    (rows,) = Reader(KINDS, {}).read((Slice(str(tmp_path / "x.parquet")),))
    assert "none of its columns is what the model reads: given object_id, colour; wanted some of desi" in rows.faults[0]


def test_a_file_that_cannot_be_read_is_one_row(tmp_path, table):
    bad = tmp_path / "bad.fits"
    bad.write_bytes(b"SIMPLE  = nothing")
    rows = list(Reader(KINDS, {}).read((Slice(str(bad)), Slice(table("a.parquet", 3)))))
    assert [r.ids for r in rows] == [["bad.fits"], ["a.parquet-0", "a.parquet-1", "a.parquet-2"]]
    assert rows[0].faults[0].startswith("cannot be read: ")
    assert not rows[0].observations
