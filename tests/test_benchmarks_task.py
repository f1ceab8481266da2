"""Tasks as declarations: pinned files, hashes, duplicates."""

import dataclasses
import hashlib

import numpy as np
import pytest
import torch

from aion import Scalar, Spectrum
from aion.benchmarks.task import Data, File, Task, digest

TASK = Task(
    name="trial",
    question="?",
    origin="real",
    kind="regression",
    inputs=("a",),
    labels=("y",),
    metric="r2",
    load=lambda root: None,
    version="1",
    split="none",
    tests=(0,),
    licence="none",
    citation="none",
)


def test_a_file_is_pinned_by_its_content(tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "x").write_bytes(b"12")
    file = File("data/x", hashlib.sha256(b"12").hexdigest())
    assert file.find(tmp_path) == tmp_path / "data" / "x"
    (tmp_path / "data" / "x").write_bytes(b"13")
    with pytest.raises(ValueError, match="scores would not be comparable"):
        file.find(tmp_path)
    with pytest.raises(FileNotFoundError, match="name a checkout by --data"):
        file.find(tmp_path / "data")


def test_digest_tells_values_names_and_kinds_apart():
    one = {"a": Scalar([1.0, 2.0]), "b": Scalar([1.0, 2.0])}
    assert digest(one) == digest(dict(reversed(one.items())))
    others = [{"a": one["a"]}, {"a": Scalar([1.0, 2.1]), "b": one["b"]}, {"a": one["a"], "c": one["b"]}]
    others.append({"a": one["a"], "b": Spectrum([[1.0, 2.0]], [[1.0, 1.0]], [4000.0, 4001.0])})
    assert len({digest(o) for o in [one, *others]}) == 5


def test_duplicates_are_left_out():
    value, labels = torch.tensor([1.0, 2.0, 1.0, 3.0]), np.arange(4.0)
    data = Data(np.array(list("abcd")), {"a": Scalar(value)}, {"y": labels}, np.array([0, 1, 1, 0]))
    kept = data.distinct()
    assert kept.ids.tolist() == ["a", "b", "d"]
    assert kept.labels["y"].tolist() == [0, 1, 3]
    assert kept.folds.tolist() == [0, 1, 0]
    assert kept.observations["a"].value.tolist() == [1, 2, 3]
    assert kept.distinct() is kept


def test_the_hash_of_a_task_is_of_all_but_its_function():
    assert dataclasses.replace(TASK, load=lambda root: 1).sha256 == TASK.sha256
    for change in ({"name": "b"}, {"version": "2"}, {"tests": (1,)}, {"metric": "nmad"}, {"inputs": ("b",)}):
        assert dataclasses.replace(TASK, **change).sha256 != TASK.sha256


@pytest.mark.parametrize("change", [{"origin": "invented"}, {"kind": "guess"}])
def test_words_that_are_not_known(change):
    with pytest.raises(ValueError, match="must be one of"):
        dataclasses.replace(TASK, **change)
