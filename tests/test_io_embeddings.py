"""Embeddings in Parquet: there and back, readable by others, all or nothing."""

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
import torch

from aion.io import read_embeddings, write_embeddings
from aion.io.embeddings import Embeddings

IDS = ["39633345008634465", "b", "c"]


@pytest.fixture
def embedding(generator):
    return torch.randn(3, 5, generator=generator)


def test_there_and_back(tmp_path, embedding):
    columns = {"z": torch.tensor([0.1, 0.2, float("nan")]), "count": np.array([1, 2, 3]), "name": ["x", "y", "z"]}
    metadata = {"model": "sha256:abc", "pool": "mean", "layers": [1, 2], "unit": "Å"}
    path = write_embeddings(tmp_path / "e.parquet", IDS, embedding, columns, metadata)
    back = read_embeddings(path)
    assert isinstance(back, Embeddings)
    assert back.ids == IDS
    assert torch.equal(back.embedding, embedding)
    assert back.metadata == metadata
    assert list(back.columns) == list(columns)
    np.testing.assert_allclose(back.columns["z"], columns["z"])
    assert back.columns["count"].tolist() == [1, 2, 3]
    assert back.columns["name"].tolist() == ["x", "y", "z"]


def test_others_can_read_it(tmp_path, embedding):
    path = write_embeddings(tmp_path / "e.parquet", IDS, embedding, metadata={"model": "m"})
    schema = pyarrow.parquet.read_schema(path)
    assert schema.names == ["object_id", "embedding"]
    assert schema.field("embedding").type == pyarrow.list_(pyarrow.float32(), 5)
    assert schema.metadata[b"aion"] == b'{"model": "m"}'
    column = pyarrow.parquet.read_table(path).column("embedding")
    np.testing.assert_array_equal(np.array(column.to_pylist(), "f4"), embedding)


@pytest.mark.parametrize(
    "given",
    [
        lambda e: e.double(),
        lambda e: e.to(torch.bfloat16),
        lambda e: e.numpy().astype(">f8"),
        lambda e: e.clone().requires_grad_(),
        lambda e: e.numpy()[:, ::-1][:, ::-1],
    ],
    ids=["float64", "bfloat16", "big-endian", "with gradient", "strided"],
)
def test_any_numbers_become_float32(tmp_path, embedding, given):
    back = read_embeddings(write_embeddings(tmp_path / "e.parquet", IDS, given(embedding))).embedding
    assert back.dtype == torch.float32
    torch.testing.assert_close(back, embedding, rtol=1e-2, atol=1e-2)


def test_big_endian_columns_are_converted(tmp_path, embedding):
    path = write_embeddings(tmp_path / "e.parquet", IDS, embedding, {"z": np.array([1, 2, 3], ">f8")})
    assert read_embeddings(path).columns["z"].tolist() == [1, 2, 3]


def test_an_empty_table_and_identifiers_that_are_numbers(tmp_path):
    empty = read_embeddings(write_embeddings(tmp_path / "0.parquet", [], torch.zeros(0, 4)))
    assert (empty.ids, tuple(empty.embedding.shape), empty.metadata) == ([], (0, 4), {})
    assert read_embeddings(write_embeddings(tmp_path / "1.parquet", [7], torch.zeros(1, 4))).ids == ["7"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"ids": ["a"]}, r"wanted an embedding \(B, D\) of numbers for 1 ids, given float32 of shape \(3, 5\)"),
        ({"embedding": torch.zeros(3)}, r"given float32 of shape \(3,\)"),
        ({"embedding": torch.zeros(3, 0)}, r"given float32 of shape \(3, 0\)"),
        ({"embedding": np.array([["a"], ["b"], ["c"]])}, "of numbers"),
        ({"embedding": torch.tensor([[1.0], [float("nan")], [1.0]])}, "1 of 3 rows are not, the first is 1"),
        ({"columns": {"z": [1, 2]}}, "column 'z': wanted 3 values"),
        ({"columns": {"z": np.zeros((3, 2))}}, "column 'z': wanted 3 values"),
        ({"columns": {"embedding": [1, 2, 3]}}, "under a name other than object_id and embedding"),
        ({"metadata": {"model": object()}}, "metadata must be JSON values"),
        ({"metadata": {"loss": float("nan")}}, "metadata must be JSON values"),
    ],
)
def test_bad_input_leaves_nothing_behind(tmp_path, embedding, change, message):
    path = tmp_path / "e.parquet"
    with pytest.raises(ValueError, match=message):
        write_embeddings(path, **{"ids": IDS, "embedding": embedding, **change})
    assert list(tmp_path.iterdir()) == []


def test_a_failure_while_writing_keeps_the_old_file(tmp_path, embedding, monkeypatch):
    path = write_embeddings(tmp_path / "e.parquet", IDS, embedding)
    before = path.read_bytes()

    def fail(table, stream):
        stream.write(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(pyarrow.parquet, "write_table", fail)
    with pytest.raises(
        ValueError, match=r"e\.parquet: cannot be written \(No space left on device\); nothing was changed"
    ):
        write_embeddings(path, IDS, embedding * 2)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_an_interruption_leaves_nothing_half_written(tmp_path, embedding, monkeypatch):
    def interrupt(table, stream):
        stream.write(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(pyarrow.parquet, "write_table", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write_embeddings(tmp_path / "e.parquet", IDS, embedding)
    assert list(tmp_path.iterdir()) == []


def test_folders_that_cannot_be_written(tmp_path, embedding):
    (tmp_path / "file").write_text("in the way")
    for path in (tmp_path / "missing" / "e.parquet", tmp_path / "file" / "e.parquet"):
        with pytest.raises(ValueError, match=r"e\.parquet: cannot be written"):
            write_embeddings(path, IDS, embedding)
    (tmp_path / "folder").mkdir()
    with pytest.raises(ValueError, match="folder: cannot be written"):
        write_embeddings(tmp_path / "folder", IDS, embedding)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file", "folder"]


def test_what_cannot_be_read(tmp_path):
    with pytest.raises(FileNotFoundError, match="no such file"):
        read_embeddings(tmp_path / "missing.parquet")
    (tmp_path / "text.parquet").write_text("nothing")
    with pytest.raises(ValueError, match=r"text\.parquet: wanted a Parquet file"):
        read_embeddings(tmp_path / "text.parquet")
    pyarrow.parquet.write_table(pyarrow.table({"object_id": ["a"]}), tmp_path / "other.parquet")
    with pytest.raises(ValueError, match=r"other\.parquet: it has no column 'embedding'; it has object_id"):
        read_embeddings(tmp_path / "other.parquet")
    table = pyarrow.table({"object_id": ["a", "b"], "embedding": [[1.0], [1.0, 2.0]]})
    pyarrow.parquet.write_table(table, tmp_path / "ragged.parquet")
    with pytest.raises(ValueError, match="wanted embeddings in lists of one fixed size, given list"):
        read_embeddings(tmp_path / "ragged.parquet")


def test_truncated_files_are_refused(tmp_path, embedding):
    path = write_embeddings(tmp_path / "e.parquet", IDS, embedding)
    data = path.read_bytes()
    for length in (0, 10, len(data) // 2, len(data) - 1):
        path.write_bytes(data[:length])
        with pytest.raises(ValueError, match="wanted a Parquet file"):
            read_embeddings(path)
