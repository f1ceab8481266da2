"""Approximate search against the exact one."""

import sys

import pytest
import torch

from aion.index import Approximate, Index


@pytest.fixture
def clustered(generator):
    centres = 5 * torch.randn(40, 16, generator=generator)
    return centres.repeat_interleave(100, 0) + torch.randn(4000, 16, generator=generator)


@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
def test_finds_nearly_all_and_all_with_every_cell(clustered, metric):
    pytest.importorskip("faiss")
    index, query = Index(clustered, metric=metric), clustered[::97] + 0.1
    assert Approximate(index, cells=40, probes=8).recall(query) >= 0.95
    every = Approximate(index, cells=10, probes=10)
    distance, row = every.search(query, 10)
    expected = index.search(query, 10)
    torch.testing.assert_close(distance, expected[0], rtol=1e-3, atol=1e-3)
    assert every.recall(query) > 0.999
    assert (row == expected[1]).float().mean() > 0.99
    assert len(every) == 4000


def test_what_is_refused(clustered, monkeypatch):
    pytest.importorskip("faiss")
    with pytest.raises(ValueError, match="wanted 1 to 4000 cells"):
        Approximate(Index(clustered), cells=5000)
    with pytest.raises(ValueError, match="at least 1 probe"):
        Approximate(Index(clustered), probes=0)
    monkeypatch.setitem(sys.modules, "faiss", None)
    with pytest.raises(ModuleNotFoundError, match=r"aion-toolkit\[faiss\]"):
        Approximate(Index(clustered))
