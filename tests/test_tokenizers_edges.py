"""Quantiles and edges against numpy and the normal distribution of torch."""

import numpy as np
import pytest
import torch

from aion.tokenizers.edges import apart, levels, quantile, quantiles


def ends(ordered: torch.Tensor) -> torch.Tensor:
    return ordered[[0, -1]]


def test_quantiles_are_those_of_numpy(generator):
    ordered = torch.randn(1001, generator=generator, dtype=torch.float64).sort().values
    level = torch.rand(50, generator=generator, dtype=torch.float64)
    np.testing.assert_allclose(quantile(ordered, level).numpy(), np.quantile(ordered.numpy(), level.numpy()))
    assert torch.equal(quantile(ordered, torch.tensor([0.0, 1.0]).double()), ordered[[0, -1]])


@pytest.mark.parametrize("bins", [1, 16, 960])
@pytest.mark.parametrize("tail", [1e-6, 1e-3, 0.4])
def test_levels_are_equal_steps_in_the_normal_score_between_the_tails(bins, tail):
    level = levels(bins, tail)
    torch.testing.assert_close(level[[0, -1]], torch.tensor([tail, 1 - tail], dtype=torch.float64))
    torch.testing.assert_close(level, 1 - level.flip(0))
    steps = torch.distributions.Normal(0.0, 1.0).icdf(level).diff()
    torch.testing.assert_close(steps, steps[:1].expand_as(steps), rtol=1e-6, atol=0)


def test_levels_without_tails_are_equal_shares():
    np.testing.assert_allclose(levels(7, 0.0).numpy(), np.linspace(0, 1, 8))


@pytest.mark.parametrize("bins", [2, 3, 64, 1024])
def test_tails_hold_one_in_as_many_as_there_are_bins_in_even_steps(bins, generator):
    ordered = torch.randn(200_000, generator=generator, dtype=torch.float64).exp().sort().values
    edges, outer = quantiles(ordered, torch.tensor([0.0, 1e4]).double(), bins, "normal"), max(bins // 32, 1)
    assert edges.shape == (bins + 1,)
    assert edges[[0, -1]].tolist() == [0, 1e4]
    for tail, share in (
        (edges[: outer + 1], ordered < edges[outer]),
        (edges[-outer - 1 :], ordered > edges[-outer - 1]),
    ):
        torch.testing.assert_close(tail.diff(), tail.diff()[:1].expand(outer))
        assert share.double().mean().item() == pytest.approx(1 / bins, rel=0.02)


@pytest.mark.parametrize("spacing", ["normal", "quantile"])
def test_edges_of_normal_values_are_where_the_normal_distribution_has_them(spacing, generator):
    ordered = torch.randn(200_000, generator=generator, dtype=torch.float64).sort().values
    edges = quantiles(ordered, ends(ordered), 16, spacing)[1:-1]
    level = levels(14, 1 / 16) if spacing == "normal" else levels(16, 0.0)[1:-1]
    expected = torch.distributions.Normal(0.0, 1.0).icdf(level)
    torch.testing.assert_close(edges, expected, rtol=0, atol=0.02)


@pytest.mark.parametrize("spacing", ["normal", "quantile"])
@pytest.mark.parametrize("share", [0.0, 0.1, 0.6, 0.9])
def test_a_value_that_many_share_takes_one_bin_and_no_more(spacing, share, generator):
    ordered = torch.rand(20_000, generator=generator, dtype=torch.float64)
    ordered[torch.rand(20_000, generator=generator) < share] = 0.25
    ordered = ordered.sort().values
    edges = apart(quantiles(ordered, ends(ordered), 64, spacing))
    assert edges.shape == (65,)
    assert (edges.diff() > 0).all()
    ids = torch.searchsorted(edges[1:-1].contiguous(), ordered.float(), right=True)
    used = torch.bincount(ids, minlength=64)
    assert (used > 0).sum() >= 60
    if share:
        own = ids[ordered == 0.25].unique()
        assert len(own) == 1
        assert (ids == own).sum() <= (ordered == 0.25).sum() + 1


def test_whole_numbers_get_a_bin_each():
    ordered = torch.arange(10.0, dtype=torch.float64).repeat_interleave(100)
    edges = apart(quantiles(ordered, ends(ordered), 64, "normal"))
    assert edges.shape == (65,)
    assert len(torch.searchsorted(edges[1:-1].contiguous(), torch.arange(10.0), right=True).unique()) == 10


def test_edges_are_kept_where_they_differ_and_moved_by_one_step_where_not():
    tiny = torch.finfo(torch.float32).tiny
    given = torch.tensor([-2.0, -2.0, -tiny, 0.0, 0.0, 1e-40, 0.5, 3.0, 3.0, 3.0], dtype=torch.float64)
    step = torch.nextafter(torch.tensor(3.0), torch.tensor(torch.inf))
    second = torch.nextafter(step, torch.tensor(torch.inf))
    below = torch.nextafter(torch.tensor(-2.0), torch.tensor(0.0))
    ladder = apart(given)
    assert ladder.dtype == torch.float32
    assert (ladder.diff() > 0).all()
    assert ladder[[0, 1, 2, 3, 4, 6, 7, 8, 9]].tolist() == [-2.0, below, -tiny, 0.0, tiny, 0.5, 3.0, step, second]
    assert torch.equal(apart(ladder.double()), ladder)
