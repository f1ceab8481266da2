"""Pasts: what a scheme cannot start from, and seeds that belong to objects."""

import pytest
import torch

from aion.forecasting.past import check_past, draw_seeds
from aion.forecasting.template import Scheme, autoregressive, multiscale


def test_what_a_scheme_cannot_start_from():
    check_past(torch.zeros(2, 10, 1), (1,), multiscale(3, 2.5))
    with pytest.raises(ValueError, match=r"10 frames, .* looks 13 frames back and needs 14: 4 are missing; .* needs 4"):
        check_past(torch.zeros(2, 10, 1), (1,), multiscale(3, 3.0))
    with pytest.raises(ValueError, match=r"3 frames, .* 1 are missing$"):
        check_past(torch.zeros(2, 3, 1), (1,), autoregressive(3))
    with pytest.raises(TypeError, match="floating-point"):
        check_past(torch.zeros(2, 10, 1, dtype=torch.long), (1,), autoregressive(3))
    gaps = torch.zeros(3, 10, 1)
    gaps[1, [0, 6, 8, 9]] = torch.nan
    check_past(gaps, (1,), autoregressive(3))
    with pytest.raises(ValueError, match="nothing was measured of object 1"):
        check_past(gaps, (1,), Scheme("mine", 3, 3, (((-9, -3, -1, 0), (1, 2, 3)),)))


def test_seeds_belong_to_objects():
    past = torch.randn(3, 10, 1, generator=torch.Generator().manual_seed(0))
    seeds = draw_seeds(past, 2, torch.Generator().manual_seed(1))
    assert len(set(seeds)) == 6
    assert draw_seeds(past[1:2], 2, torch.Generator().manual_seed(1)) == seeds[1::3]
    assert draw_seeds(past, 2, torch.Generator().manual_seed(2)) != seeds
