"""Attentive pooling finds the token that matters and passes over padding."""

import numpy as np
import pytest

from aion.probes import AttentiveProbe, RidgeProbe


def needle(n=300, tokens=20, seed=0):
    """Draws objects one token of which, marked and anywhere, holds the number; the others hold other numbers."""
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n, tokens, 4))
    X[..., 0] = 0.1 * rng.normal(size=(n, tokens))
    place = rng.integers(tokens, size=n)
    X[np.arange(n), place, 0] = 4.0
    return X, X[np.arange(n), place, 1]


def test_finds_the_token_that_a_mean_drowns():
    X, y = needle()
    probe = AttentiveProbe(width=16, steps=300, learning_rate=1e-2).fit(X[:200], y[:200])
    assert probe.score(X[200:], y[200:]) > 0.8
    assert RidgeProbe().fit(X[:200].mean(1), y[:200]).score(X[200:].mean(1), y[200:]) < 0.3


def test_padding_has_no_part():
    X, y = needle(60)
    probe = AttentiveProbe(width=8, steps=20).fit(X, y)
    padded = np.concatenate([X, np.zeros((60, 7, 4))], axis=1)
    np.testing.assert_allclose(probe.predict(padded), probe.predict(X), rtol=1e-5, atol=1e-6)
    order = np.random.default_rng(1).permutation(20)
    np.testing.assert_allclose(probe.predict(X[:, order]), probe.predict(X), rtol=1e-5, atol=1e-6)
    again = AttentiveProbe(width=8, steps=20).fit(padded, y)
    np.testing.assert_allclose(again.predict(X), probe.predict(X), rtol=1e-3, atol=1e-4)


def test_an_object_of_padding_alone():
    X, y = needle(20)
    X[5] = 0
    with pytest.raises(ValueError, match=r"1 objects have no token but padding \(first: \[5\]\)"):
        AttentiveProbe(steps=1).fit(X, y)
