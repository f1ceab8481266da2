"""Sine-cosine positions against the formula of fixed tables."""

import numpy as np
import pytest
import torch

from aion.nn.embedding import PERIODS, angles, sine_cosine, turn


def test_integer_positions_give_the_fixed_table():
    rows, columns = np.meshgrid(np.arange(6), np.arange(6), indexing="ij")
    omega = 10000.0 ** (-np.arange(8) / 8)
    blocks = [f(p.reshape(-1, 1) * omega) for p in (rows, columns) for f in (np.sin, np.cos)]
    position = torch.from_numpy(np.stack([rows, columns], -1).reshape(-1, 2))
    expected = torch.from_numpy(np.concatenate(blocks, 1)).float()
    torch.testing.assert_close(sine_cosine(position, 32), expected, atol=2e-6, rtol=0)


def test_one_coordinate_gives_the_table_of_a_list():
    omega = 10000.0 ** (-np.arange(16) / 16)
    angle = np.arange(50)[:, None] * omega
    expected = torch.from_numpy(np.concatenate([np.sin(angle), np.cos(angle)], 1)).float()
    torch.testing.assert_close(sine_cosine(torch.arange(50)[:, None], 32), expected, atol=4e-6, rtol=0)


def test_position_is_continuous():
    near = sine_cosine(torch.tensor([[0.0, 10.0], [0.0, 10.001]]), 64)
    assert 0 < (near[0] - near[1]).abs().max() < 2e-3


def test_width_must_be_a_multiple_of_four():
    with pytest.raises(ValueError, match="multiple of 4, given 30"):
        sine_cosine(torch.zeros(1, 2), 30)
    assert sine_cosine(torch.zeros(1, 1), 30).shape == (1, 30)


def test_turning_keeps_norms_and_is_undone_by_the_negative_position(generator):
    x, position = torch.randn(3, 20, 16, generator=generator), torch.arange(20.0)
    turned = turn(x, position)
    torch.testing.assert_close(turned.norm(dim=-1), x.norm(dim=-1))
    torch.testing.assert_close(turn(turned, -position), x)
    assert torch.equal(turned[..., 8:], x[..., 8:])


def test_means_of_turned_vectors_tell_places_apart():
    x = torch.zeros(2, 20, 16)
    x[0, 3] = x[1, 11] = 1
    plain, turned = x.mean(1), turn(x, torch.arange(20.0)).mean(1)
    assert torch.equal(plain[0], plain[1])
    assert (turned[0] - turned[1]).abs().max() > 0.05


def test_angles_have_periods_in_equal_ratios_and_three_quarters_are_of_the_second_coordinate():
    found = angles(torch.tensor([[1.0, 0.0], [0.0, 1.0]]), 16)
    assert [(row != 0).sum().item() for row in found] == [4, 12]
    period = 2 * np.pi / found[1, 4:]
    torch.testing.assert_close(period[[0, -1]], torch.tensor(PERIODS))
    torch.testing.assert_close(period[1:] / period[:-1], (period[1] / period[0]).expand(11), rtol=1e-4, atol=0)
