"""Forecasters of a series: the template that it asks for, and what is not recognised."""

import pytest
import torch

from aion.forecasting.series import check_series, series_forecaster


@pytest.fixture(scope="module")
def wave():
    draws = torch.Generator().manual_seed(7)
    return torch.sin(torch.arange(120) / 3.0)[:, None] + torch.randn(120, 1, generator=draws)


def test_a_series_chooses_its_template(wave):
    forecaster = series_forecaster(wave, ("flux",), "1 day")
    assert forecaster.config["K"] in (3, 4, 5)
    assert (forecaster.channels, forecaster.config["cadence"]) == (("flux",), "1 day")


@pytest.mark.parametrize(("number", "why"), [(20, "too short to learn from"), (120, "'flux' is constant")])
def test_nothing_to_learn(number, why):
    with pytest.raises(ValueError, match=why):
        series_forecaster(torch.ones(number, 1), ("flux",))


def test_what_is_recognised(wave):
    forecaster = series_forecaster(wave, ("flux",), "1 day")
    check_series(forecaster, wave, ("flux",), "1 day")
    with pytest.raises(ValueError, match="knows the time between frames '1 day', given '1 month'"):
        check_series(forecaster, wave, ("flux",), "1 month")
    with pytest.raises(ValueError, match="knows the channels 'flux', given 'spots'"):
        check_series(forecaster, wave, ("spots",), "1 day")
    with pytest.raises(ValueError, match=r"'flux' is constant \(1\)"):
        check_series(forecaster, torch.ones(200, 1), ("flux",), "1 day")
    with pytest.raises(ValueError, match="'flux' is not measured at all"):
        check_series(forecaster, torch.full((200, 1), torch.nan), ("flux",), "1 day")
