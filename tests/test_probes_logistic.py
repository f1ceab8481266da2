"""Logistic regression beside scikit-learn's."""

import numpy as np
import pytest

from sklearn.linear_model import LogisticRegression

from aion.probes import LogisticProbe


def draw(n, d, k, seed=0, scale=1.0):
    rng = np.random.default_rng(seed)
    normal = rng.normal(size=(n, d))
    logits = normal @ rng.normal(size=(d, k)) / d**0.5 + rng.gumbel(size=(n, k))
    return (normal + 2) * np.geomspace(1, scale, d), logits.argmax(1)


@pytest.mark.parametrize("C", [0.01, 1.0, 30.0])
@pytest.mark.parametrize("k", [2, 4])
@pytest.mark.parametrize(("n", "d"), [(120, 4), (60, 80)])
def test_agrees_with_scikit_learn(n, d, k, C):
    X, y = draw(n, d, k)
    probe = LogisticProbe(C).fit(X, y)
    other = LogisticRegression(C=C, tol=1e-12, max_iter=1000, solver="newton-cholesky").fit(X, y)
    np.testing.assert_allclose(probe.coef_, other.coef_, atol=1e-5)
    np.testing.assert_allclose(probe.intercept_, other.intercept_, atol=1e-5)
    unseen = draw(30, d, k, seed=1)[0]
    np.testing.assert_allclose(probe.predict_proba(unseen), other.predict_proba(unseen), atol=1e-5)
    np.testing.assert_array_equal(probe.predict(unseen), other.predict(unseen))
    np.testing.assert_allclose(probe.decision_function(unseen), other.decision_function(unseen), atol=1e-4)
    assert probe.score(X, y) == other.score(X, y)


def test_features_of_very_different_size_converge():
    X, y = draw(200, 8, 3, scale=1e4)
    probe = LogisticProbe().fit(X, y)
    # At the minimum the pull of the data and the penalty cancel.
    gap = probe.predict_proba(X) - np.eye(3)[y]
    np.testing.assert_allclose((gap.T @ X + probe.coef_) / np.abs(X).sum(0), 0, atol=1e-8)
    np.testing.assert_allclose(gap.sum(0), 0, atol=1e-5)


@pytest.mark.parametrize("C", [0, -1, np.inf, "1"])
def test_a_bad_penalty(C):
    with pytest.raises(ValueError, match="C must be"):
        LogisticProbe(C).fit(*draw(20, 2, 2))
