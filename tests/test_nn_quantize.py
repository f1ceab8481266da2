"""Finite scalar quantisation: every code, every precision."""

import math

import pytest
import torch

from aion.nn.quantize import FSQ

LEVELS = [[2], [3, 2], [7, 5, 5, 5, 5], [8, 8, 8, 8], [8, 5, 5, 5]]


@pytest.mark.parametrize("levels", LEVELS)
def test_ids_and_values_are_inverse_for_every_code(levels):
    fsq = FSQ(levels)
    ids = torch.arange(fsq.size)
    values = fsq.values(ids)
    assert fsq.size == math.prod(levels)
    assert values.abs().max() <= 1
    assert len(values.unique(dim=0)) == fsq.size
    digits = (values * (torch.tensor(levels) // 2)).round() + torch.tensor(levels) // 2
    assert torch.equal((digits.long() * fsq.basis).sum(-1), ids)


@pytest.mark.parametrize("levels", LEVELS)
def test_every_level_can_be_reached(levels):
    fsq = FSQ(levels)
    z = torch.linspace(-6, 6, 4001)[:, None].expand(-1, len(levels))
    values, ids = fsq(z)
    for i, count in enumerate(levels):
        assert len(values[:, i].unique()) == count
    assert ids.min() == 0
    assert ids.max() == fsq.size - 1


def test_first_dimension_is_least_significant():
    low, high = torch.full((5,), -9.0), torch.full((5,), -9.0)
    high[0] = 9.0
    fsq = FSQ([7, 5, 5, 5, 5])
    assert fsq(low)[1] == 0
    assert fsq(high)[1] == 6


def test_exact_under_bfloat16():
    fsq = FSQ([8, 8, 8, 8])
    z = torch.randn(5000, 4)
    values, ids = fsq(z)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        cast_values, cast_ids = fsq(z)
    assert torch.equal(ids, cast_ids)
    assert torch.equal(values, cast_values)
    assert cast_values.dtype == torch.float32
    assert torch.equal(fsq.to(torch.bfloat16)(z)[1], ids)


def test_gradient_passes_straight_through():
    z = torch.zeros(3, 2, requires_grad=True)
    FSQ([5, 5])(z)[0].sum().backward()
    assert (z.grad > 0).all()


@pytest.mark.parametrize("levels", [[], [5, 1]])
def test_levels_below_two_are_refused(levels):
    with pytest.raises(ValueError, match="at least 2 levels"):
        FSQ(levels)
