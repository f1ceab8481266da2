"""Neighbours: queries leave themselves out, means of queries find more, two surveys are searched apart."""

import numpy as np
import pytest
import torch

from aion import Image
from aion.benchmarks.retrieval import matching, retrieval
from aion.benchmarks.task import Data

RNG = np.random.default_rng(0)
COUNT = 120


class Task:
    name, metric, tests, labels, others = "trial", "ndcg@10", (0,), ("arms",), ()


class Seen:
    """Stands for an embedder with the vectors given."""

    def __init__(self, own, other=None, labels=None):
        image = Image(torch.ones(COUNT, 3, 8, 8), torch.ones(COUNT, 3, 8, 8), ("decam-g", "decam-r", "decam-z"))
        ids = np.array([str(i) for i in range(COUNT)])
        self.data = Data(ids, {"a": image}, labels or {}, np.arange(COUNT) % 5)
        self.names, self.others, self.own, self.other = ["a"], [], own, other

    def vectors(self, names=None):
        return self.own

    def pair(self):
        return self.own, self.other


def vectors(arms, noise):
    return np.column_stack([arms > 0, RNG.standard_normal(COUNT)]) + noise * RNG.standard_normal((COUNT, 2))


@pytest.fixture
def arms():
    return np.where(np.arange(COUNT) % 4 == 0, 0.4, 0.0)


def test_objects_that_are_alike_find_each_other(arms):
    labels = {"arms": arms}
    found = retrieval(Task, Seen(np.column_stack([arms, -arms]) + 1, labels=labels), 0)
    assert found.scores["ndcg@10"][0] == pytest.approx(1)
    assert found.tested == 30
    assert found.arrays["montage arms"].shape == (4, 10, 48, 48, 3)
    assert (found.arrays["relevance arms"] > 0).all()
    chance = retrieval(Task, Seen(RNG.standard_normal((COUNT, 8)), labels=labels), 0)
    assert chance.scores["ndcg@10"][0] == pytest.approx(0.25, abs=0.1)
    shuffled = retrieval(Task, Seen(np.column_stack([arms, -arms]) + 1, labels=labels), 0, shuffled=True)
    assert shuffled.scores["ndcg@10"][0] < 0.5
    assert not shuffled.arrays.get("montage arms")


def test_the_mean_of_several_queries_finds_more(arms):
    scores = retrieval(Task, Seen(vectors(arms, 0.4), labels={"arms": arms}), 0).scores
    assert scores["arms, 5 queries averaged"][0] > scores["arms"][0] + 0.05


def test_another_survey_is_searched_without_the_object_itself(arms):
    across = type("Across", (Task,), {"others": ("b",)})
    own = RNG.standard_normal((COUNT, 30))
    same = retrieval(across, Seen(own, own, labels={"arms": arms}), 0)
    assert same.scores["ndcg@10"][0] < 0.5, "each would find itself"
    redshift = type("Redshift", (Task,), {"labels": ("redshift",)})
    z = np.linspace(0, 1, COUNT)
    found = retrieval(redshift, Seen(np.column_stack([np.cos(z), np.sin(z)]), labels={"redshift": z}), 0)
    assert found.scores["ndcg@10"][0] > 0.9
    assert set(found.scores) == {"ndcg@10", "redshift"}


def test_partners_are_found_by_a_map():
    seen = Seen(None)
    seen.names = ["a", "b"]
    A = RNG.standard_normal((COUNT, 6))
    B = A @ RNG.standard_normal((6, 6))
    seen.vectors, seen.readouts = lambda names: A, lambda names: {"vectors": B}
    assert matching(Task, seen, 0).scores["recall@1"][0] > 0.4
    assert matching(Task, seen, 0, shuffled=True).scores["recall@1"][0] < 0.2
