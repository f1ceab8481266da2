"""Parts of a run: whole or absent, of one plan, joined in order."""

import json

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest

from aion.survey.manifest import Manifest

NOTES = {"unread": [], "coverage": {}}


def part(ids, status=None):
    """Makes a part of the run."""
    status = status or ["ok"] * len(ids)
    vectors = pyarrow.FixedSizeListArray.from_arrays(pyarrow.array(np.zeros(2 * len(ids), np.float32)), 2)
    return pyarrow.table({"object_id": ids, "embedding": vectors, "status": status, "source": ["file"] * len(ids)})


@pytest.fixture
def manifest(tmp_path):
    return Manifest(tmp_path / "x.parquet", {"model": "m", "units": [["a"], ["b"], ["c"]]})


def test_parts_are_joined_in_order_whatever_was_finished_first(manifest, tmp_path):
    for number in (2, 0):
        manifest.write(number, part([f"{number}a", f"{number}b"]), NOTES)
    assert manifest.missing() == [1]
    again = Manifest(tmp_path / "x.parquet", manifest.plan)
    again.write(1, part(["1a"]), {"unread": ["z"], "coverage": {"s": 0.5}})
    report = again.merge({"model": "m"})
    table = pyarrow.parquet.read_table(tmp_path / "x.parquet")
    assert table.column("object_id").to_pylist() == ["0a", "0b", "1a", "2a", "2b"]
    assert report.notes == {"unread": ["z"], "coverage": {"s": 0.5}}
    assert json.loads(table.schema.metadata[b"aion"]) == {"model": "m", "plan_sha256": manifest.sha256}
    assert [p.name for p in tmp_path.iterdir()] == ["x.parquet"]


def test_duplicates_are_marked_across_parts_but_not_among_failures(manifest, tmp_path):
    manifest.write(0, part(["a", "b", "bad.fits"], ["ok", "ok", "failed: why"]), NOTES)
    manifest.write(1, part(["bad.fits", "a"], ["failed: too", "ok"]), NOTES)
    manifest.write(2, part(["b", "c", "a"], ["nothing measured", "ok", "ok"]), NOTES)
    report = manifest.merge({})
    status = pyarrow.parquet.read_table(tmp_path / "x.parquet").column("status").to_pylist()
    duplicate = "duplicate id"
    assert status[:5] == ["ok", "ok", "failed: why", "failed: too", duplicate]
    assert status[5:] == ["nothing measured", "ok", duplicate]
    assert (report.objects, report.embedded, report.empty, report.failed, report.duplicates) == (8, 5, 1, 2, 2)
    assert report.first_fault == "file: why"


def test_what_is_damaged_on_the_disk_is_named(manifest, tmp_path):
    for number in range(3):
        manifest.write(number, part([f"{number}"]), NOTES)
    path = tmp_path / "x.parquet.parts" / "0000001.arrow"
    whole = path.read_bytes()
    path.write_bytes(whole[:100])
    with pytest.raises(ValueError, match=r"0000001\.arrow is damaged .* run again"):
        manifest.merge({})
    path.write_bytes(whole)
    listed = tmp_path / "x.parquet.parts" / "manifest.json"
    listed.write_text(listed.read_text()[:9])
    with pytest.raises(ValueError, match=r"manifest\.json is damaged .* remove the folder"):
        Manifest(tmp_path / "x.parquet", manifest.plan)


def test_row_groups_are_large(manifest, tmp_path):
    for number in range(3):
        manifest.write(number, part([f"{number}-{i}" for i in range(5_000)]), NOTES)
    manifest.merge({})
    groups = pyarrow.parquet.ParquetFile(tmp_path / "x.parquet").metadata
    assert [groups.row_group(i).num_rows for i in range(groups.num_row_groups)] == [10_000, 5_000]
