"""The closed form: the published table, simulation, and a choice of template that it justifies."""

import numpy as np
import pytest

from aion.forecasting.gaussian import (
    PROCESSES,
    autocovariance,
    gaussian_forecast,
    gaussian_scheme_skill,
    select_template,
)
from aion.forecasting.template import autoregressive, hierarchy2, multiscale

LAGS = np.arange(200)
SCHEMES = (autoregressive(3), hierarchy2(3), multiscale(3, 2.5))
# Excess CRPS over the exact forecast at leads 1-3, 4-9, 10-18, 19-27, computed independently.
TABLE = {
    "damped oscillator, period 40, noise": (
        (0.126, 0.312, 0.436, 0.333),
        (0.138, 0.276, 0.316, 0.274),
        (0.106, 0.165, 0.191, 0.176),
        (0.135, 0.280, 0.327, 0.282),
    ),
    "slow and fast OU, noise": (
        (0.020, 0.041, 0.058, 0.063),
        (0.021, 0.031, 0.037, 0.043),
        (0.013, 0.021, 0.025, 0.026),
        (0.021, 0.032, 0.040, 0.046),
    ),
    "power law, noise": (
        (0.014, 0.028, 0.042, 0.047),
        (0.017, 0.022, 0.031, 0.038),
        (0.015, 0.021, 0.026, 0.031),
        (0.016, 0.024, 0.034, 0.041),
    ),
    "Markov OU": ((0, 0, 0, 0),) * 3,
    "fast oscillator, period 3.3, noise": (
        (0.016, 0.015, 0.015, 0.017),
        (0.032, 0.018, 0.016, 0.015),
        (0.079, 0.039, 0.017, 0.013),
    ),
    "smooth Matern 5/2": ((0.003, 0, 0, 0), (0.018, 0.001, 0, 0), (0.056, 0.008, 0, 0)),
    "slow OU in strong noise": (
        (0.029, 0.041, 0.055, 0.055),
        (0.039, 0.033, 0.041, 0.043),
        (0.038, 0.041, 0.044, 0.041),
    ),
}


def windows(excess):
    return [excess[a:b].mean() for a, b in ((0, 3), (3, 9), (9, 18), (18, 27))]


@pytest.mark.parametrize("name", TABLE)
def test_the_table_to_three_digits(name):
    schemes = (*SCHEMES, multiscale(3, 2.5).limited(3))
    for scheme, wanted in zip(schemes, TABLE[name], strict=False):
        given = windows(gaussian_scheme_skill(PROCESSES[name](LAGS), scheme, 27, past=60)["crps_excess"])
        np.testing.assert_allclose(given, wanted, atol=0.00061, err_msg=scheme.name)


def test_long_memory_halves_the_excess_and_markov_ties():
    for name in list(PROCESSES)[:2]:
        plain, multi = (gaussian_scheme_skill(PROCESSES[name](LAGS), s, 18)["crps_excess"][3:] for s in SCHEMES[::2])
        assert multi.mean() <= plain.mean() / 2 + 0.005, name
    for scheme in SCHEMES:
        skill = gaussian_scheme_skill(PROCESSES["Markov OU"](LAGS), scheme, 27)
        np.testing.assert_allclose(skill["crps_excess"], 0, atol=1e-7)
        np.testing.assert_allclose(skill["variance_ratio"], 1, atol=1e-6)
        np.testing.assert_allclose(skill["bias"], 0, atol=1e-4)


def test_it_is_what_a_simulation_gives():
    acf, past, horizon, number = PROCESSES["slow and fast OU, noise"](LAGS), 40, 9, 20_000
    skill = gaussian_scheme_skill(acf, SCHEMES[2], horizon, past)
    draws = np.random.default_rng(0)
    frames = np.arange(past + horizon)
    root = np.linalg.cholesky(acf[abs(frames[:, None] - frames)])
    x = draws.standard_normal((number, past + horizon)) @ root.T
    forecast = dict(zip(range(-past + 1, 1), x[:, :past].T, strict=True))
    for known, new in SCHEMES[2].calls(horizon):
        inner = acf[abs(np.subtract.outer(known, known))]
        cross = acf[abs(np.subtract.outer(new, known))]
        covariance = acf[abs(np.subtract.outer(new, new))] - cross @ np.linalg.solve(inner, cross.T)
        mean = np.stack([forecast[t] for t in known], 1) @ np.linalg.solve(inner, cross.T)
        made = mean + draws.standard_normal((number, len(new))) @ np.linalg.cholesky(covariance).T
        forecast |= dict(zip(new, made.T, strict=True))
    members = np.stack([forecast[t] for t in range(1, horizon + 1)], 1)
    weights, covariance = gaussian_forecast(acf, past, horizon)
    exact = x[:, :past] @ weights.T
    total = skill["bias"] ** 2 + skill["variance_ratio"] * covariance.diagonal()
    np.testing.assert_allclose(((members - exact) ** 2).mean(0), total, rtol=0.05)
    # CRPS: |x - y| of one member, less half of what two members of this variance differ by
    apart = np.sqrt(skill["variance_ratio"] * covariance.diagonal() / np.pi)
    np.testing.assert_allclose(abs(members - x[:, past:]).mean(0) - apart, skill["crps"], rtol=0.03)


def test_frames_of_several_entries():
    lags = np.arange(60)
    series = [PROCESSES[name](lags) for name in ("slow and fast OU, noise", "power law, noise")]
    blocks = np.stack([np.diag(pair) for pair in zip(*series, strict=True)])
    both = gaussian_scheme_skill(blocks, multiscale(3, 2.5), 18, 30)
    each = [gaussian_scheme_skill(acf, multiscale(3, 2.5), 18, 30)["crps"] for acf in series]
    np.testing.assert_allclose(both["crps"], np.mean(each, 0))


def test_a_markov_vector_needs_its_last_frame_only():
    move = np.array([[0.8, 0.3], [-0.2, 0.7]])
    climate = sum(np.linalg.matrix_power(move, n) @ np.linalg.matrix_power(move, n).T for n in range(200))
    blocks = np.stack([np.linalg.matrix_power(move, lag) @ climate for lag in range(40)])
    np.testing.assert_allclose(gaussian_scheme_skill(blocks, autoregressive(3), 9, 20)["crps_excess"], 0, atol=1e-6)
    weights, covariance = gaussian_forecast(blocks, 5, 1)
    np.testing.assert_allclose(weights[:, -2:], move, atol=1e-6)
    np.testing.assert_allclose(covariance, np.eye(2), atol=1e-6)


def test_autocovariance_of_a_long_series_with_gaps():
    draws = np.random.default_rng(1)
    x = np.zeros((8, 10_000))
    for t in range(1, x.shape[1]):
        x[:, t] = 0.9 * x[:, t - 1] + draws.standard_normal(8) * np.sqrt(1 - 0.81)
    x[draws.random(x.shape) < 0.3] = np.nan
    np.testing.assert_allclose(autocovariance(x + 5, 30), 0.9 ** np.arange(30), atol=0.04)
    short = autocovariance(x[0, :60], 60)
    matrix = short[abs(np.subtract.outer(np.arange(60), np.arange(60)))]
    assert np.linalg.eigvalsh(matrix).min() > -1e-9


@pytest.mark.parametrize("name", PROCESSES)
def test_select_template_says_when_it_pays(name):
    acf = PROCESSES[name](LAGS[:110])
    choice = select_template(acf, 3, 18)
    assert choice.pays == (name in list(PROCESSES)[:3] or "strong noise" in name), choice.reason
    assert choice.excess == min(choice.table.values())
    given = gaussian_scheme_skill(acf, multiscale(choice.K, choice.alpha), 18)["crps_excess"].mean()
    assert given == pytest.approx(choice.excess)
    assert choice.scheme.name.startswith("multiscale" if choice.pays else "autoregressive")


def test_select_template_chooses_among_sizes_and_components():
    acf = PROCESSES["power law, noise"](LAGS[:90])
    several = select_template(acf, (2, 3, 4), 18)
    assert {k for k, _ in several.table} == {2, 3, 4}
    both = select_template(np.stack([acf, 1e-9 * PROCESSES["Markov OU"](LAGS[:90])]), 3, 18)
    assert both.excess == pytest.approx(select_template(acf, 3, 18).excess, rel=1e-6)


@pytest.mark.parametrize("acf", [np.zeros(50), np.array([1.0, 2.0] * 40), np.full(99, np.nan), np.ones((2, 2, 2))])
def test_no_autocovariance(acf):
    with pytest.raises(ValueError, match=r"acf|select_template"):
        gaussian_scheme_skill(acf, SCHEMES[0], 9)


def test_too_few_lags_and_constant_series():
    with pytest.raises(ValueError, match="at least 19 lags"):
        gaussian_scheme_skill(PROCESSES["Markov OU"](np.arange(12)), SCHEMES[2], 9)
    with pytest.raises(ValueError, match="hold no template"):
        select_template(PROCESSES["Markov OU"](np.arange(12)), 3, 18)
    with pytest.raises(ValueError, match="constant"):
        autocovariance(np.full(50, 3.0), 10)
    with pytest.raises(ValueError, match="at least lags=60"):
        autocovariance(np.arange(50.0), 60)
