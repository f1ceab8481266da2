"""The perceptron learns what no plane can tell."""

import numpy as np
import pytest

from aion.probes import MLPProbe, RidgeProbe

RNG = np.random.default_rng(0)
X = RNG.normal(size=(400, 2))


def test_learns_a_product():
    y = X[:, 0] * X[:, 1]
    probe = MLPProbe(width=32, steps=400, learning_rate=1e-2).fit(X[:300], y[:300])
    assert probe.score(X[300:], y[300:]) > 0.8
    assert RidgeProbe().fit(X[:300], y[:300]).score(X[300:], y[300:]) < 0.1


def test_learns_a_ring():
    y = np.where((X**2).sum(1) > 1.4, "out", "in")
    probe = MLPProbe(width=32, steps=300, learning_rate=1e-2, kind="classifier").fit(X[:300], y[:300])
    assert probe.score(X[300:], y[300:]) > 0.9
    probability = probe.predict_proba(X)
    np.testing.assert_allclose(probability.sum(1), 1)
    np.testing.assert_array_equal(probe.classes_[probability.argmax(1)], probe.predict(X))


@pytest.mark.parametrize("name", ["steps", "batch_size", "width"])
@pytest.mark.parametrize("value", [0, 1.5, "8"])
def test_bad_numbers(name, value):
    with pytest.raises(ValueError, match=f"{name} must be a whole number"):
        MLPProbe(**{name: value}).fit(X, X[:, 0])


def test_a_regressor_has_no_probabilities():
    probe = MLPProbe(steps=1, width=2).fit(X, X[:, 0])
    with pytest.raises(ValueError, match="kind='classifier'"):
        probe.predict_proba(X)
