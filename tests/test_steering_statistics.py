import math

import pytest
import torch

from aion.steering.statistics import interval, null_quantile, p_value, slope, spearman


@pytest.mark.parametrize("seed", range(4))
def test_spearman_is_that_of_scipy(seed):
    from scipy.stats import spearmanr

    draw = torch.Generator().manual_seed(seed)
    x, y = torch.randint(4, (2, 12), generator=draw).float()
    assert spearman(x, y) == pytest.approx(spearmanr(x, y).statistic)
    assert spearman(x, x**3) == pytest.approx(1)
    assert math.isnan(spearman(x, torch.ones(12)))


def test_the_interval_is_that_of_a_mean(generator):
    values = torch.randn(400, generator=generator)
    low, high = interval(values, 2000, generator)
    error = values.std().item() / 20
    assert (high + low) / 2 == pytest.approx(values.mean().item(), abs=0.3 * error)
    assert high - low == pytest.approx(2 * 1.96 * error, rel=0.1)
    gaps = torch.cat([values, torch.full((5,), math.nan)])
    assert interval(gaps, 2000, torch.Generator()) == interval(values, 2000, torch.Generator())
    assert all(math.isnan(edge) for edge in interval(torch.full((3,), math.nan), 10, generator))


def test_the_slope_goes_through_the_origin():
    strengths = torch.tensor([1.0, 2.0, 4.0])
    effects = strengths[:, None] * torch.tensor([3.0, -1.0])
    assert slope(strengths, effects).tolist() == [3, -1]
    effects[2, 0] = math.nan
    assert slope(strengths, effects).tolist() == [3, -1]


def test_p_values_are_even_when_nothing_is_there(generator):
    null = torch.randn(400, 33, generator=generator)
    values = torch.tensor([p_value(row[0].item(), row[1:]) for row in null])
    for share in (0.1, 0.5, 0.9):
        assert (values <= share).float().mean() == pytest.approx(share, abs=0.07)
    assert p_value(9.0, torch.zeros(64)) == pytest.approx(1 / 129)
    assert p_value(-9.0, torch.zeros(64)) == 1
    assert null_quantile(torch.tensor([-3.0, 1.0])) == pytest.approx(2.9)
