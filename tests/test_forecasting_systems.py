"""The simulated systems do what they say."""

import numpy as np
import pytest
import torch

from aion.forecasting.gaussian import autocovariance
from aion.forecasting.systems import fitzhugh_nagumo, lorenz96, noisy_sinusoid
from aion.forecasting.transport import FluxTransport


def draws(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("system", [noisy_sinusoid, fitzhugh_nagumo, lorenz96])
def test_shapes_and_seeds(system):
    seen, hidden = system(3, 20, draws())
    assert seen.shape[:2] == hidden.shape[:2] == (3, 20)
    assert seen.isfinite().all()
    assert torch.equal(seen, system(3, 20, draws())[0])
    assert not torch.equal(seen, system(3, 20, draws(1))[0])


def test_a_sinusoid_in_noise():
    seen, clean = noisy_sinusoid(200, 300, draws(), noise=0.6)
    assert (seen - clean).std().item() == pytest.approx(0.6, rel=0.02)
    acf = autocovariance(seen[..., 0].numpy(), 41)
    assert acf[0] == pytest.approx(0.5 + 0.36, rel=0.05)
    assert acf[40] > 0.2 > -0.2 > acf[20]


def test_the_cell_fires_and_recovers():
    seen, hidden = fitzhugh_nagumo(20, 300, draws(), noise=0.0)
    assert (seen > 1).any()
    assert (seen < -1).any()
    assert 0.2 < hidden.std() < 1.5
    fired = (seen[:, 1:, 0] > 0.5) & (seen[:, :-1, 0] <= 0.5)
    assert hidden[:, :-1, 0][fired].mean() < hidden.mean(), "it fires when the hidden variable is low"


def test_the_hidden_forcing_shows_in_the_mean_of_lorenz_96():
    seen, force = lorenz96(40, 200, draws(), memory=67)
    pair = np.corrcoef(seen.mean((1, 2)), force.mean((1, 2)))
    assert pair[0, 1] > 0.5


@pytest.mark.parametrize("space", [(16,), (6, 8)])
def test_the_kalman_forecast_is_exact(space):
    """Its errors are as large as it says, and cannot be told from the past: unbiased, no correlation left."""
    field = FluxTransport(space)
    seen, source = field.simulate(400, 40, draws())
    mean, variance = field.kalman(seen[:, :30], 10)
    error = seen[:, 30:] - mean
    assert seen.std().item() == pytest.approx((1 + field.noise**2) ** 0.5, rel=0.05)
    torch.testing.assert_close(
        error.var(0).mean((1, *range(2, 2 + len(space)))) / variance.flatten(1).mean(1),
        torch.ones(10),
        atol=0.1,
        rtol=0,
    )
    left = (error[:, 0] * seen[:, 29]).mean().abs()
    assert left < 0.03
    assert variance[0].mean() < 0.6 * variance[-1].mean()
    assert source.std() > 0


def test_kalman_against_the_joint_gaussian():
    field, past, horizon = FluxTransport((4,)), 6, 3
    pixels, steps = 4, past + horizon
    power = [torch.linalg.matrix_power(field.move, n) for n in range(steps)]
    blocks = [
        [
            (power[i - j] @ field.climate if i >= j else (power[j - i] @ field.climate).T)[:pixels, :pixels]
            for j in range(steps)
        ]
        for i in range(steps)
    ]
    joint = torch.cat([torch.cat(row, 1) for row in blocks]) + field.noise**2 * torch.eye(
        pixels * steps, dtype=torch.float64
    )
    cut = pixels * past
    weights = torch.linalg.solve(joint[:cut, :cut], joint[:cut, cut:]).T
    covariance = joint[cut:, cut:] - weights @ joint[:cut, cut:]
    seen = field.simulate(5, past, draws())[0]
    mean, variance = field.kalman(seen, horizon)
    torch.testing.assert_close(mean.flatten(1), (seen.double().flatten(1) @ weights.T).float(), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(variance.flatten(), covariance.diagonal().float(), rtol=1e-4, atol=1e-5)


def test_what_it_refuses():
    with pytest.raises(ValueError, match=r"wanted \(L,\) or \(H, W\)"):
        FluxTransport((4, 4, 4))
    with pytest.raises(ValueError, match="finite past"):
        FluxTransport((4,)).kalman(torch.full((1, 5, 1, 4), torch.nan), 2)
