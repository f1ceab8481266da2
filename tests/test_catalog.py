"""Catalogues of ellipses are observations like the others."""

import math

import pytest
import torch

from aion import Catalog, Scalar


def draw(batch: int, objects: int) -> Catalog:
    return Catalog(*torch.rand(5, batch, objects))


def test_catalogues_are_observations():
    catalog = draw(3, 4)
    assert len(catalog) == 3
    assert catalog[1:].x.shape == (2, 4)
    assert torch.equal(catalog[1].r[0], catalog.r[1])
    assert catalog.to("cpu").measured.all()


def test_stacking_fills_up_with_none():
    a, b = draw(3, 4), draw(2, 6)
    stacked = Catalog.stack([a, b])
    assert stacked.measured.sum(1).tolist() == [4, 4, 4, 6, 6]
    assert torch.equal(stacked.e1[:3, :4], a.e1)
    assert torch.equal(stacked.y[3:], b.y)
    assert len(Catalog.stack([a])) == 3


@pytest.mark.parametrize(
    ("action", "error", "message"),
    [
        (
            lambda: Catalog([[1, 2]], [[1, 2]], [[0, math.nan]], [[0, 0]], [[0, 0]]),
            ValueError,
            "object 1 of row 0 has some of its five values but not all",
        ),
        (
            lambda: Catalog([[1, 2]], [[1, 2]], [[0, 0]], [[0, 0]], [[0]]),
            ValueError,
            r"five columns of one shape \(B, K\)",
        ),
        (lambda: Catalog([1], [1], [0], [0], [0]), ValueError, r"five columns of one shape \(B, K\)"),
        (lambda: Catalog([[1]], [[1]], [[math.inf]], [[0]], [[0]]), ValueError, "infinite"),
        (lambda: Catalog(*torch.zeros(5, 2, 0)), ValueError, r"not empty, given \[\(2, 0\)"),
        (lambda: Catalog([["a"]], [[1]], [[1]], [[0]], [[0]]), TypeError, "real numbers"),
        (lambda: Catalog.stack([]), ValueError, "at least one observation, given none"),
        (lambda: Catalog.stack([draw(1, 1), Scalar([1.0])]), TypeError, "wanted Catalog, given Scalar"),
    ],
)
def test_bad_catalogues_are_refused_at_the_door(action, error, message):
    with pytest.raises(error, match=message):
        action()


def test_a_catalogue_says_what_it_is():
    assert repr(Catalog(*torch.zeros(5, 2, 3))) == "Catalog(2 objects, at most 3 ellipses each, 100 % measured)"
