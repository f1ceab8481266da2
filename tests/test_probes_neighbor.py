"""Nearest neighbours beside scikit-learn's."""

import numpy as np
import pytest

from sklearn.neighbors import KNeighborsClassifier, KNeighborsRegressor

from aion.probes import NeighborProbe

RNG = np.random.default_rng(0)
X, Y = RNG.normal(size=(200, 6)), RNG.normal(size=(200, 2))
UNSEEN = RNG.normal(size=(50, 6))


@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
@pytest.mark.parametrize("k", [1, 4, 200])
def test_agrees_with_scikit_learn(k, metric):
    for y in (Y, Y[:, 0]):
        other = KNeighborsRegressor(k, metric=metric).fit(X, y)
        np.testing.assert_allclose(NeighborProbe(k, metric).fit(X, y).predict(UNSEEN), other.predict(UNSEEN), atol=1e-9)
    classes = np.digitize(X[:, 0], [-1, 0, 1])
    probe, other = NeighborProbe(k, metric, "classifier"), KNeighborsClassifier(k, metric=metric)
    np.testing.assert_array_equal(probe.fit(X, classes).predict(UNSEEN), other.fit(X, classes).predict(UNSEEN))


@pytest.mark.parametrize("k", [0, 201, 1.5])
def test_a_bad_number_of_neighbours(k):
    with pytest.raises(ValueError, match="k must be between 1 and n_samples = 200"):
        NeighborProbe(k).fit(X, Y)


def test_a_bad_metric_and_a_vector_without_direction():
    with pytest.raises(ValueError, match="did you mean 'cosine'"):
        NeighborProbe(metric="cosin").fit(X, Y)
    with pytest.raises(ValueError, match=r"rows \[0\] are zero"):
        NeighborProbe(metric="cosine").fit(np.concatenate([0 * X[:1], X]), np.zeros(201))
