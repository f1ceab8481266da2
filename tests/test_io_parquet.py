"""Parquet files are there whole or not at all."""

import pyarrow
import pyarrow.parquet
import pytest

from aion.io.parquet import write_whole


def test_what_fails_leaves_what_was_there(tmp_path):
    path = write_whole(pyarrow.table({"a": [1, 2]}), tmp_path / "a.parquet")
    assert pyarrow.parquet.read_table(path)["a"].to_pylist() == [1, 2]
    with pytest.raises(ValueError, match=r"cannot be written .*; nothing was changed"):
        write_whole(pyarrow.table({"a": [3]}), tmp_path / "nowhere" / "a.parquet")
    assert [file.name for file in tmp_path.iterdir()] == ["a.parquet"]
