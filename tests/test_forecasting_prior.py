"""The exact denoiser of a Gaussian process: closed forms, gaps, and moments that come back from data."""

import numpy as np
import pytest
import torch

from aion.forecasting.denoise import MaskedDenoiser
from aion.forecasting.forecaster import Forecaster
from aion.forecasting.gaussian import PROCESSES
from aion.forecasting.network import FrameTransformer
from aion.forecasting.noise import Noise
from aion.forecasting.prior import GaussianDenoiser
from aion.forecasting.transport import FluxTransport

TINY = {"dim": 16, "depth": 1, "heads": 2, "modulation": 8, "patch": 4}
FRAMES = torch.tensor([-9, -3, -1, 0, 1, 3, 9])


def draws(seed=0):
    return torch.Generator().manual_seed(seed)


def joint(covariance, frames):
    """Builds the covariance of whole frames, one block after the other."""
    blocks = [[covariance[i - j] if i >= j else covariance[j - i].T for j in frames.tolist()] for i in frames.tolist()]
    return np.block(blocks)


def process(entries=3, lags=19):
    """Makes autocovariances of a vector that moves x -> A x + noise."""
    generator = np.random.default_rng(0)
    move = 0.9 * np.linalg.qr(generator.standard_normal((entries, entries)))[0]
    spread = generator.standard_normal((entries, entries))
    climate = sum(
        np.linalg.matrix_power(move, n) @ spread @ spread.T @ np.linalg.matrix_power(move, n).T for n in range(200)
    )
    return np.stack([np.linalg.matrix_power(move, h) @ climate for h in range(lags)])


@pytest.mark.parametrize("same", [True, False])
def test_it_is_the_conditional_mean_whatever_is_missing(same):
    covariance, entries, number = process(), 3, 5
    x = torch.randn(number, 7, entries, generator=draws(), dtype=torch.float64)
    state = torch.randint(0, 3, (1 if same else number, 7, entries), generator=draws(1)).expand(number, 7, entries)
    known, wanted = state == 1, state == 2
    sigma = torch.full((number,), 0.7) if same else torch.tensor([0.02, 0.3, 1.0, 4.0, 30.0])
    given = GaussianDenoiser(covariance)(x, sigma, known, wanted, FRAMES.expand(number, -1))
    whole = joint(covariance, FRAMES)
    for row in range(number):
        told = (known | wanted)[row].flatten().numpy()
        noise = np.where(wanted[row].flatten().numpy()[told], sigma[row].item() ** 2, 0)
        seen = x[row].flatten().numpy()[told]
        guess = whole[:, told] @ np.linalg.solve(whole[np.ix_(told, told)] + np.diag(noise), seen)
        expected = np.where(known[row].flatten(), x[row].flatten(), np.where(wanted[row].flatten(), guess, 0))
        np.testing.assert_allclose(given[row].flatten(), expected, atol=1e-4)


def test_entries_for_themselves_are_a_diagonal_process():
    acf = PROCESSES["slow and fast OU, noise"](np.arange(19))
    x = torch.randn(4, 7, 2, 3, generator=draws())
    known = (FRAMES <= 0).view(1, -1, 1, 1).expand(x.shape)
    args = (x, torch.full((4,), 0.5), known, ~known, FRAMES.expand(4, -1))
    together = GaussianDenoiser(acf[:, None, None] * np.eye(6))(*args)
    torch.testing.assert_close(GaussianDenoiser(acf)(*args), together)


def test_without_moments_it_is_white():
    prior = GaussianDenoiser(np.zeros((19, 2, 2)), np.eye(2, 6), rest=1)
    x = torch.randn(3, 7, 6, generator=draws())
    sigma = torch.tensor([0.1, 1.0, 10.0])
    wanted = (FRAMES > 0).view(1, -1, 1).expand(x.shape)
    clean = prior(x, sigma, ~wanted, wanted, FRAMES.expand(3, -1)).float()
    torch.testing.assert_close(clean[wanted], (x / (1 + sigma**2).view(-1, 1, 1))[wanted])


def test_moments_come_back_from_data_with_gaps():
    field = FluxTransport((8,), extent=1.0)
    data = field.simulate(500, 100, draws())[0]
    exact, state = [], field.climate
    for lag in range(10):
        exact.append(state[:8, :8] + (lag == 0) * field.noise**2 * torch.eye(8))
        state = field.move @ state
    data[torch.rand(data.shape, generator=draws(1)) < 0.1] = torch.nan
    prior = GaussianDenoiser(np.zeros((10, 8, 8)), rest=1)
    prior.fit(list(data))
    error = (prior.covariance - torch.stack(exact)).abs().max()
    assert error < 0.06, error
    assert torch.linalg.eigvalsh(torch.as_tensor(joint(prior.covariance.numpy(), torch.arange(10)))).min() > -1e-9


def test_fewer_components_leave_a_rest():
    data = FluxTransport((16,)).simulate(200, 60, draws())[0]
    prior = GaussianDenoiser(np.zeros((7, 6, 6)), np.eye(6, 16), rest=1)
    prior.fit([x.movedim(1, -1) for x in data])  # channels last or first: entries are entries
    torch.testing.assert_close(prior.basis @ prior.basis.T, torch.eye(6, dtype=torch.float64))
    total = torch.einsum("pd,pq,qd->d", prior.basis, prior.covariance[0], prior.basis) + prior.rest
    torch.testing.assert_close(total, data.double().movedim(-1, 0).flatten(1).var(1), rtol=0.03, atol=0)
    assert 0.05 < prior.rest.mean() < 0.2, "the noise that is seen, 0.09, and some waves"


def test_the_prior_alone_forecasts_a_linear_field_nearly_exactly():
    field = FluxTransport((8,), extent=1.0)
    train, test = field.simulate(400, 80, draws())[0], field.simulate(40, 40, draws(1))[0]
    forecaster = Forecaster(space=(8,), network=TINY, prior=8).fit(train, 0)
    forecaster.denoiser = forecaster.denoiser.prior
    made = forecaster.forecast(test[:, :30], 9, 24)
    mean, variance = field.kalman(test[:, :30], 9)
    noise = made.var(0) / len(made)
    excess = ((made.mean(0) - mean) ** 2 - noise).mean((0, 2, 3)) / variance.mean((1, 2))
    assert excess.max() < 0.08
    ratio = made.var(0).mean((0, 2, 3)) / variance.mean((1, 2))
    np.testing.assert_allclose(ratio, 1, atol=0.15)


def test_gradients_do_not_reach_the_prior_and_bfloat16_leaves_it_alone():
    prior = GaussianDenoiser(process(2))
    denoiser = MaskedDenoiser(FrameTransformer(2, (), **TINY), Noise(), prior)
    assert not list(prior.parameters())
    x = torch.randn(2, 7, 2, generator=draws())
    known = (FRAMES <= 0).view(1, -1, 1).expand(x.shape)
    args = (x, torch.ones(2), known, ~known, FRAMES.expand(2, -1))
    with torch.autocast("cpu", torch.bfloat16):
        rough = denoiser(*args)
    torch.testing.assert_close(rough, denoiser(*args), atol=1e-5, rtol=0)


@pytest.mark.parametrize("prior", [-1, 2.5, True, "all"])
def test_components_it_refuses(prior):
    with pytest.raises(ValueError, match="prior must be a whole number"):
        Forecaster(prior=prior)


def test_large_frames_and_none_at_all_go_without():
    assert Forecaster(prior=0).denoiser.prior is None
    with torch.device("meta"):
        assert Forecaster(space=(128, 128), network=TINY).denoiser.prior is None
