"""The up-sampler draws what its tokens hold."""

import numpy as np
import pytest

from aion.probes import MapProbe

RNG = np.random.default_rng(0)


def half(n=120):
    """Draws maps of which a half is bright: which one stands in the features."""
    side = RNG.integers(2, size=n)
    X = RNG.normal(size=(n, 3, 2, 2)) * 0.1
    X[:, 0] += side[:, None, None]
    y = np.zeros((n, 8, 8))
    y[side == 0, :, :4] = 1
    y[side == 1, :, 4:] = 1
    return X, y


def test_learns_maps():
    X, y = half()
    probe = MapProbe(width=8, steps=80, learning_rate=1e-2).fit(X[:90], y[:90])
    assert probe.predict(X[90:]).shape == (30, 8, 8)
    assert probe.score(X[90:], y[90:]) > 0.8


def test_the_same_grid_needs_no_doubling():
    X, _ = half(20)
    assert MapProbe(width=4, steps=2).fit(X, X[:, 0]).predict(X).shape == (20, 2, 2)


@pytest.mark.parametrize("shape", [(20, 6, 6), (20, 8, 4), (20, 1, 1), (20, 8), (19, 8, 8)])
def test_maps_that_do_not_fit(shape):
    X = half(20)[0]
    with pytest.raises(ValueError, match=r"power of two|y must be"):
        MapProbe().fit(X, np.zeros(shape))
