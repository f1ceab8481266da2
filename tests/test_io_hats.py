"""HATS catalogues: the layout that the readers of others look for, no row lost, the same files for the same rows."""

import importlib.util

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest

from aion.io import read_embeddings
from aion.io.hats import is_hats, write_hats
from aion.io.healpix import pixels


@pytest.fixture
def rows():
    """Makes rows of which most lie in one corner of the sky and two have no position."""
    random = np.random.default_rng(0)
    ra, dec = random.uniform(0, 360, 300), np.degrees(np.arcsin(random.uniform(-1, 1, 300)))
    ra[100:], dec[100:] = 40 + random.uniform(0, 3, 200), random.uniform(10, 13, 200)
    known = np.arange(300) != 7
    dec[8] = 95
    vectors = random.normal(size=(300, 4)).astype(np.float32)
    table = pyarrow.table(
        {
            "object_id": [f"o{i}" for i in range(300)],
            "ra": pyarrow.array(ra, mask=~known),
            "dec": pyarrow.array(dec, mask=~known),
            "embedding": pyarrow.FixedSizeListArray.from_arrays(pyarrow.array(vectors.ravel()), 4),
        }
    )
    return table.replace_schema_metadata({"aion": '{"model": "m"}'}), vectors


def write(path, table, piece=64, most=50):
    parts = [table.slice(start, piece) for start in range(0, len(table), piece)]
    places = (np.stack([part.column(name).to_numpy() for name in ("ra", "dec")], 1) for part in parts)
    write_hats(path, table.schema, places, iter(parts), path.parent / "scratch", most)
    return path


def files(folder):
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_every_row_is_in_the_file_of_its_pixel(rows, tmp_path):
    table, _ = rows
    path = write(tmp_path / "sky", table)
    lines = (path / "partition_info.csv").read_text().splitlines()
    assert lines[0] == "Norder,Npix,num_rows"
    seen = []
    for order, pixel, count in (tuple(map(int, line.split(","))) for line in lines[1:]):
        place = path / f"dataset/Norder={order}/Dir={pixel // 10000 * 10000}/Npix={pixel}.parquet"
        part = pyarrow.parquet.ParquetFile(place).read()
        deep = part.column("_healpix_29").to_numpy()
        np.testing.assert_array_equal(deep, pixels(part.column("ra").to_numpy(), part.column("dec").to_numpy()))
        assert (deep >> (2 * (29 - order)) == pixel).all()
        assert (np.diff(deep) >= 0).all()
        assert 0 < len(part) == count <= 50
        seen += part.column("object_id").to_pylist()
    lost = pyarrow.parquet.read_table(path / "unplaced.parquet")
    assert lost.column("object_id").to_pylist() == ["o7", "o8"]
    assert sorted([*seen, "o7", "o8"]) == sorted(table.column("object_id").to_pylist())
    assert len({line.split(",")[0] for line in lines[1:]}) > 1, "dense places are cut finer"
    assert not (tmp_path / "scratch").exists()


def test_what_describes_it(rows, tmp_path):
    path = write(tmp_path / "sky", rows[0])
    text = (path / "hats.properties").read_text()
    facts = dict(line.split("=") for line in text.splitlines() if not line.startswith("#"))
    wanted = {"obs_collection": "sky", "hats_nrows": "298", "hats_col_ra": "ra", "hats_col_healpix": "_healpix_29"}
    assert wanted.items() <= facts.items()
    assert (path / "properties").read_text() == text
    assert is_hats(path)
    schema = pyarrow.parquet.read_schema(path / "dataset/_common_metadata")
    assert schema.names == ["_healpix_29", *rows[0].column_names]
    footer = pyarrow.parquet.read_metadata(path / "dataset/_metadata")
    assert footer.num_rows == 298
    assert footer.row_group(0).column(0).file_path.startswith("Norder=")


def test_it_is_read_back_and_the_same_however_rows_come(rows, tmp_path):
    table, vectors = rows
    path = write(tmp_path / "sky", table)
    back = read_embeddings(path)
    order = [int(name[1:]) for name in back.ids]
    assert sorted(order) == list(range(300))
    np.testing.assert_array_equal(back.embedding.numpy(), vectors[order])
    assert (back.metadata, list(back.columns)) == ({"model": "m"}, ["ra", "dec"])
    first = files(path)
    assert files(write(path, table, piece=1)) == first, "an earlier one is replaced"
    coarse = write(tmp_path / "coarse", table, most=10**6)
    assert {line.split(",")[0] for line in (coarse / "partition_info.csv").read_text().splitlines()[1:]} == {"0"}


def test_nothing_else_is_replaced_and_nothing_is_half_written(rows, tmp_path):
    table, _ = rows
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "mine.txt").write_text("mine")
    with pytest.raises(FileExistsError, match="is no HATS catalogue"):
        write(tmp_path / "other", table)
    nowhere = table.set_column(1, "ra", pyarrow.array([None] * 300, pyarrow.float64()))
    with pytest.raises(ValueError, match="no row has a position"):
        write(tmp_path / "sky", nowhere)

    def broken():
        yield table
        raise KeyError

    with pytest.raises(KeyError):
        write_hats(tmp_path / "sky", table.schema, [np.zeros((1, 2))], broken(), tmp_path / "scratch")
    assert not (tmp_path / "sky").exists()
    with pytest.raises(ValueError, match="a folder and no HATS catalogue"):
        read_embeddings(tmp_path / "other")


@pytest.mark.skipif(importlib.util.find_spec("hats") is None, reason="hats is not installed")
def test_its_own_library_reads_it(rows, tmp_path):
    import hats

    catalogue = hats.read_hats(write(tmp_path / "sky", rows[0]))
    assert catalogue.catalog_info.total_rows == 298
    assert catalogue.get_healpix_pixels()
    assert catalogue.schema.names[0] == "_healpix_29"
