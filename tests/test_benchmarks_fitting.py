"""Probes choose the readout and the strength that do best on objects they were not fitted to."""

import numpy as np
import pytest

from sklearn.linear_model import Ridge

from aion.benchmarks.fitting import ALPHAS, linear, neighbours, taken
from aion.benchmarks.protocol import pooled, probed, readouts

RNG = np.random.default_rng(0)
COUNT = 200


def told(noise=0.1):
    """Draws two readouts, each of which tells one of two numbers."""
    y = RNG.standard_normal((COUNT, 2))
    X = {name: np.column_stack([y[:, k], RNG.standard_normal((COUNT, 3))]) for k, name in enumerate("ab")}
    return X, y + noise * RNG.standard_normal(y.shape)


def test_each_number_has_the_readout_that_tells_it():
    X, y = told()
    train, test = np.arange(150), np.arange(150, COUNT)
    guess = linear(taken(X, train), y[train], 0)(taken(X, test))
    assert guess.shape == (50, 2)
    assert (((guess - y[test]) ** 2).mean(0) < 0.1).all()
    one = linear(taken(X, train), y[train, 1], 0)(taken(X, test))
    np.testing.assert_allclose(one, guess[:, 1], atol=1e-12)
    both = linear(taken(X, train), y[train], 0, shared=True)(taken(X, test))
    assert sorted(((both - y[test]) ** 2).mean(0) < 0.1) == [False, True]


def test_one_readout_is_the_ridge_of_scikit_learn():
    X, y = told(2.0)
    scaled = (X["a"] - X["a"].mean(0)) / X["a"].std(0)
    guess = linear({"a": X["a"]}, y[:, 0], 0)({"a": X["a"]})
    others = [Ridge(alpha).fit(scaled, y[:, 0]).predict(scaled) for alpha in ALPHAS]
    assert min(np.abs(guess - other).max() for other in others) < 1e-9


def test_classes_are_told_by_the_readout_that_knows_them():
    X, y = told()
    kinds = np.where(y[:, 1] > 0, "up", "down")
    predict = linear(taken(X, np.arange(150)), kinds[:150, None], 0)
    found = predict(taken(X, np.arange(150, COUNT)))
    assert found.shape == (50, 1)
    assert (found[:, 0] == kinds[150:]).mean() > 0.9


def test_tokens_are_pooled_by_attention_where_the_mean_drowns_them():
    tokens = 0.3 * RNG.standard_normal((COUNT, 9, 4))
    y = RNG.standard_normal(COUNT)
    tokens[:, 0, 0] += 3  # which token tells is written on it
    tokens[:, 0, 1] = y
    tokens[:, 1:, 1] = 3 * RNG.standard_normal((COUNT, 8))
    tokens[::2, 8] = 0  # padding
    embedder = type("E", (), {"embed": lambda self, ids, observations: tokens})()
    found = probed(readouts(embedder, [], {}))
    assert {name: value.ndim for name, value in found.items()} == {"mean": 2, "tokens": 3}
    np.testing.assert_allclose(found["mean"][0], tokens[0, :8].mean(0))
    train, test = np.arange(160), np.arange(160, COUNT)
    errors = {}
    for name, X in {"mean": {"mean": found["mean"]}, "both": found}.items():
        errors[name] = np.mean((linear(taken(X, train), y[train], 0)(taken(X, test)) - y[test]) ** 2)
    assert errors["both"] < 0.6 * errors["mean"]
    assert neighbours(found, y[:, None], 0)(found).shape == (COUNT, 1)


@pytest.mark.parametrize("axes", [2, 3])
def test_pooling_leaves_vectors_and_padding_out(axes):
    X = np.ones((2, 3, 4))[(slice(None),) * 3 if axes == 3 else (slice(None), 0)]
    assert (pooled(X) == 1).all()
    assert pooled(X).shape == (2, 4)
