"""Cross-matching by position: against brute force, around the poles and at right ascension 0."""

import numpy as np
import pytest

from aion.io import crossmatch


def brute(a, b, radius):
    """Looks at every pair, by the haversine formula."""
    (ra, dec), (ra2, dec2) = np.radians(a).T, np.radians(b).T
    half = np.sin((dec[:, None] - dec2) / 2) ** 2
    half += np.cos(dec)[:, None] * np.cos(dec2) * np.sin((ra[:, None] - ra2) / 2) ** 2
    apart = np.degrees(2 * np.arcsin(np.sqrt(half))) * 3600
    forth, back = apart.argmin(1), apart.argmin(0)
    rows = [i for i in range(len(a)) if back[forth[i]] == i and apart[i, forth[i]] <= radius]
    return rows, forth[rows].tolist(), apart[rows, forth[rows]]


@pytest.mark.parametrize("centre", [(180.0, 0.0), (0.0, 45.0), (10.0, 89.999)])
def test_agrees_with_brute_force(centre):
    generator = np.random.default_rng(0)
    shrink = np.cos(np.radians(centre[1]))
    a = centre + generator.uniform(-10, 10, (60, 2)) / 3600 / np.array([shrink, 1])
    b = np.concatenate([a[::2] + generator.normal(0, 0.3, (30, 2)) / 3600, a[::3]])
    for places in (a, b):
        places[:, 0] %= 360
        places[:, 1] = np.minimum(places[:, 1], 90)
    found, (first, second, apart) = crossmatch(a, b, 1.0), brute(a, b, 1.0)
    assert found.first.tolist() == first
    assert found.second.tolist() == second
    assert len(first) > 5
    np.testing.assert_allclose(found.separation, apart, atol=1e-6)


def test_unknown_positions_match_nothing():
    a = np.array([[1.0, 2.0], [np.nan, 2.0], [5.0, 5.0]])
    found = crossmatch(a, a[[1, 0]])
    assert (found.first.tolist(), found.second.tolist()) == ([0], [1])
    assert len(crossmatch(a, a[[1]]).first) == 0


def test_what_is_refused():
    place = np.array([[1.0, 2.0]])
    with pytest.raises(ValueError, match=r"second must be \(N, 2\)"):
        crossmatch(place, place[0])
    with pytest.raises(ValueError, match="beyond the poles"):
        crossmatch(np.array([[2.0, 91.0]]), place)
    for radius in (0, -1, np.nan):
        with pytest.raises(ValueError, match="radius above 0"):
            crossmatch(place, place, radius)
