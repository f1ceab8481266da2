import json

import numpy as np
import pytest
import torch

from aion import Image, Scalar, Spectrum
from aion.catalog import Catalog
from aion.field import Field
from aion.io import write_shards


def batch(first: int, count: int = 3):
    generator = torch.Generator().manual_seed(first)

    def draw(*shape):
        return torch.rand(shape, generator=generator)

    ivar = draw(count, 9)
    ivar[:, 4] = 0
    seen = {
        "desi_spectrum": Spectrum(draw(count, 9), ivar, 4000 + torch.arange(9.0)),
        "legacysurvey_image": Image(draw(count, 2, 4, 5), draw(count, 2, 4, 5), bands=("decam-g", "decam-r")),
        "redshift": Scalar(draw(count)),
        "gaia_bp_coefficients": Scalar(draw(count, 55)),
        "map": Field(draw(count, 4, 4)),
        "catalog": Catalog(*(draw(count, 2) / 4 for _ in range(5))),
    }
    return [f"o{first + i}" for i in range(count)], seen, {"true_mass": np.arange(count) + 0.5}


def test_shards_hold_what_was_given_and_say_the_units(tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet")
    path = tmp_path / "sky.parquet"
    assert write_shards(path, (batch(k) for k in (0, 3)), {"redshift": "", "true_mass": "log10(solMass)"}) == 6
    assert [p.name for p in sorted(path.iterdir())] == ["part-00000.parquet", "part-00001.parquet"]
    table = parquet.read_table(path)
    ids, seen, _ = batch(3)
    assert table.column("object_id").to_pylist()[3:] == ids
    row = table.slice(3, 1).to_pylist()[0]
    np.testing.assert_array_equal(row["desi_spectrum"]["flux"], seen["desi_spectrum"].flux[0])
    assert row["desi_spectrum"]["mask"] == [False] * 4 + [True] + [False] * 4
    assert row["legacysurvey_image"]["band"] == ["decam-g", "decam-r"]
    np.testing.assert_array_equal(row["legacysurvey_image"]["flux"], seen["legacysurvey_image"].flux[0])
    np.testing.assert_array_equal(row["gaia_bp_coefficients"], seen["gaia_bp_coefficients"].value[0])
    np.testing.assert_array_equal(row["map"]["value"], seen["map"].value[0])
    np.testing.assert_array_equal(row["catalog"]["e1"], seen["catalog"].e1[0])
    schema = parquet.read_schema(path / "part-00000.parquet")
    assert schema.field("true_mass").metadata[b"unit"] == b"log10(solMass)"
    spectrum = schema.field("desi_spectrum").type
    assert spectrum.field("lambda").metadata[b"unit"] == b"Angstrom"


def test_datasets_reads_them(tmp_path):
    datasets = pytest.importorskip("datasets")
    write_shards(tmp_path / "sky.parquet", [batch(0)])
    files = str(tmp_path / "sky.parquet" / "*.parquet")
    table = datasets.load_dataset("parquet", data_files=files, split="train", cache_dir=str(tmp_path / "cache"))
    assert len(table) == 3
    assert json.dumps(table[1]["redshift"])
    np.testing.assert_array_equal(table[1]["desi_spectrum"]["lambda"], 4000 + np.arange(9.0))


def test_nothing_is_overwritten_and_nothing_is_left_after_an_error(tmp_path):
    path = tmp_path / "sky.parquet"
    write_shards(path, [batch(0)])
    with pytest.raises(FileExistsError, match="exists already"):
        write_shards(path, [batch(3)])
    with pytest.raises(FileNotFoundError, match="there is no folder"):
        write_shards(tmp_path / "none" / "sky.parquet", [batch(0)])

    def broken():
        yield batch(0)
        msg = "the sky fell"
        raise RuntimeError(msg)

    with pytest.raises(RuntimeError, match="fell"):
        write_shards(tmp_path / "other.parquet", broken())
    ids, seen, columns = batch(6)
    del seen["redshift"]
    with pytest.raises(ValueError, match="redshift"):
        write_shards(tmp_path / "other.parquet", [batch(0), (ids, seen, columns)])
    assert [p.name for p in tmp_path.iterdir()] == ["sky.parquet"]
