"""Histogram posteriors against closed forms and numerical integrals."""

import math

from itertools import pairwise

import pytest
import torch

from aion.posterior import Posterior

EDGES = torch.tensor([0.0, 0.5, 1.0, 3.0])


@pytest.fixture
def posterior() -> Posterior:
    return Posterior(EDGES, torch.tensor([[0.2, 0.3, 0.5], [1.0, 0.0, 0.0], [2.0, 2.0, 4.0]]))


def test_moments_equal_a_fine_integral(posterior):
    x = torch.linspace(0, 3, 300_001, dtype=torch.float64)[:-1] + 0.5e-5
    for row in range(len(posterior)):
        one = Posterior(EDGES, posterior.probabilities[row : row + 1])
        density = torch.stack([one.log_prob(v) for v in x[::1000]])[:, 0].exp()
        assert density.mean().item() * 3 == pytest.approx(1, abs=0.02)
    assert posterior.mean().tolist() == pytest.approx(
        [0.2 * 0.25 + 0.3 * 0.75 + 0.5 * 2, 0.25, 0.25 * 0.25 + 0.25 * 0.75 + 1]
    )
    assert posterior.std()[1].item() == pytest.approx(0.5 / math.sqrt(12))


def test_quantiles_invert_the_cumulative(posterior):
    assert posterior.median().tolist() == pytest.approx([1.0, 0.25, 1.0])
    low, high = posterior.interval(0.5)
    assert low.tolist() == pytest.approx([0.5 + 0.05 / 0.3 * 0.5, 0.125, 0.5])
    assert high.tolist() == pytest.approx([1 + 0.25 / 0.5 * 2, 0.375, 2.0])


def test_log_prob_is_the_density_and_minus_infinity_outside(posterior):
    assert posterior.log_prob(2.0).exp().tolist() == pytest.approx([0.25, 0.0, 0.25])
    assert posterior.log_prob(3.0).exp().tolist() == pytest.approx([0.25, 0.0, 0.25])
    assert (posterior.log_prob(3.1) == -torch.inf).all()
    assert posterior.log_prob(torch.tensor([0.1, 0.1, 2.0])).exp().tolist() == pytest.approx([0.4, 2.0, 0.25])


def test_samples_follow_the_density(posterior):
    draws = posterior.sample(20_000, torch.Generator().manual_seed(0))
    assert draws.shape == (3, 20_000)
    assert torch.equal(draws, posterior.sample(20_000, torch.Generator().manual_seed(0)))
    share = torch.stack([(draws >= a).logical_and(draws < b).double().mean(1) for a, b in pairwise(EDGES)], 1)
    torch.testing.assert_close(share, posterior.probabilities, atol=0.015, rtol=0)


@pytest.mark.parametrize(
    ("edges", "probabilities", "message"),
    [
        ([0, 1], [[0.5, 0.5]], "wanted edges"),
        ([0, 1, 1], [[0.5, 0.5]], "edges must be finite and increase"),
        ([0, 1, 2], [[-0.5, 0.5]], "non-negative"),
        ([0, 1, 2], [[0.0, 0.0]], "not all zero"),
    ],
)
def test_bad_histograms_are_refused(edges, probabilities, message):
    with pytest.raises(ValueError, match=message):
        Posterior(torch.tensor(edges), torch.tensor(probabilities))


def test_quantile_level_outside_the_unit_interval_is_refused(posterior):
    with pytest.raises(ValueError, match=r"quantiles must lie in \[0, 1\]"):
        posterior.quantile(1.5)
    with pytest.raises(ValueError, match=r"quantiles must lie in \[0, 1\], given nan"):
        posterior.quantile(math.nan)


@pytest.mark.parametrize("mass", [-0.1, 1.5, math.nan])
def test_an_interval_holds_a_share(posterior, mass):
    with pytest.raises(ValueError, match="a share from 0 to 1, given"):
        posterior.interval(mass)


def test_what_was_not_measured_has_no_density(posterior):
    density = posterior.log_prob(torch.tensor([0.1, math.nan, 4.0]))
    assert density.isnan().tolist() == [False, True, False]
    assert density[2] == -math.inf
    with pytest.raises(ValueError, match=r"wanted a value, or \(3,\), one for each object, given \(2,\)"):
        posterior.log_prob(torch.zeros(2))


def test_it_says_what_it_is(posterior):
    assert repr(posterior) == "Posterior(3 objects, 3 bins from 0 to 3)"
