"""The samplers, with the exact denoiser of a Gaussian process: the map from noise to frames is linear and known."""

import numpy as np
import pytest
import torch

from aion.forecasting.noise import Noise
from aion.forecasting.prior import GaussianDenoiser
from aion.forecasting.sample import SAMPLERS, sample

ACF = np.exp(-np.arange(40) / 10) + 0.2 * (np.arange(40) == 0)
FRAMES = torch.tensor([-9, -3, -1, 0, 1, 3, 9])


def conditional(values):
    inner = ACF[abs(np.subtract.outer(FRAMES[:4], FRAMES[:4]))]
    cross = ACF[abs(np.subtract.outer(FRAMES[4:], FRAMES[:4]))]
    weights = np.linalg.solve(inner, cross.T).T
    return weights @ values, ACF[abs(np.subtract.outer(FRAMES[4:], FRAMES[4:]))] - weights @ cross.T


def run(start, values, method, steps, denoiser=None):
    shape = start.shape
    known = (FRAMES <= 0).view(1, -1, 1).expand(shape)
    x = torch.zeros(shape, dtype=start.dtype)
    x[:, :4, 0] = values.to(start.dtype)
    offsets = FRAMES.expand(shape[0], -1)
    return sample(denoiser or GaussianDenoiser(ACF), start, x, known, ~known, offsets, steps=steps, method=method)


@pytest.mark.parametrize(("method", "steps", "error"), [("heun", 33, 0.02), ("adams-bashforth", 16, 0.01)])
def test_mean_and_covariance_are_those_of_the_process(method, steps, error):
    values = torch.tensor([0.3, -1.0, 0.8, 1.5], dtype=torch.float64)
    start = torch.zeros(4, 7, 1, dtype=torch.float64)
    start[1:, 4:, 0] = torch.eye(3)  # the map is affine: its value at 0, and its columns
    made = run(start, values, method, steps)[:, 4:, 0].numpy()
    mean, covariance = conditional(values.numpy())
    columns = made[1:] - made[0]
    np.testing.assert_allclose(made[0], mean, atol=error)
    np.testing.assert_allclose(columns.T @ columns, covariance, atol=error)


@pytest.mark.parametrize("method", SAMPLERS)
def test_more_steps_come_closer_in_second_order(method):
    values, start = torch.zeros(4), torch.zeros(3, 7, 1, dtype=torch.float64)
    start[:, 4:, 0] = torch.eye(3)
    exact = run(start, values, method, 513)
    errors = [(run(start, values, method, steps) - exact).abs().max().item() for steps in (17, 33, 65)]
    assert errors[0] > 2.5 * errors[1] > 6 * errors[2]


@pytest.mark.parametrize("method", SAMPLERS)
def test_known_entries_come_back_bit_for_bit_and_absent_ones_are_zero(method):
    values = torch.randn(5, 7, 2, generator=torch.Generator().manual_seed(0))
    known = torch.zeros(5, 7, 2, dtype=torch.bool)
    known[:, :3] = True
    wanted = torch.zeros_like(known)
    wanted[:, 4:, 0] = True
    start = torch.randn(values.shape, generator=torch.Generator().manual_seed(1))
    made = sample(GaussianDenoiser(ACF), start, values, known, wanted, FRAMES.expand(5, -1), steps=4, method=method)
    assert torch.equal(made[known], values[known])
    assert not made[~known & ~wanted].any()
    assert made.dtype == torch.float32
    assert made[wanted].abs().min() > 0


def test_it_agrees_with_azula():
    azula = pytest.importorskip("azula")
    from azula.denoise import Denoiser, DiracPosterior
    from azula.noise import VESchedule
    from azula.sample import xEABSampler

    exact, noise = GaussianDenoiser(ACF), Noise()
    known = torch.zeros(2, 7, 1, dtype=torch.bool)
    offsets = FRAMES.expand(2, -1)

    class Theirs(Denoiser):
        schedule = VESchedule(noise.least, noise.most)

        def forward(self, x, t):
            return DiracPosterior(exact(x, self.schedule.sigma(t).expand(2), known, ~known, offsets))

    start = torch.randn(2, 7, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    made = sample(exact, start, torch.zeros_like(start), known, ~known, offsets, noise=noise, steps=12)
    x = start * noise.most
    x = x + exact(x, torch.full((2,), noise.most), known, ~known, offsets)
    theirs = xEABSampler(Theirs(), order=3, steps=11, silent=True, dtype=torch.float64)(x)
    theirs = exact(theirs, torch.full((2,), noise.least), known, ~known, offsets)
    torch.testing.assert_close(made, theirs, rtol=1e-5, atol=1e-5)
    assert azula is not None


@pytest.mark.parametrize("method", ["euler", "Heun2"])
def test_unknown_samplers(method):
    with pytest.raises(ValueError, match="no sampler"):
        run(torch.zeros(1, 7, 1), torch.zeros(4), method, 4)


@pytest.mark.parametrize("steps", [0, 1, 2.5, True])
def test_too_few_steps(steps):
    with pytest.raises(ValueError, match="at least 2 steps"):
        Noise().levels(steps)


def test_levels_fall_from_most_to_least():
    levels = Noise(least=0.02, most=50).levels(9)
    assert levels[0].item() == pytest.approx(50)
    assert levels[-1].item() == pytest.approx(0.02)
    assert (levels.diff() < 0).all()
    with pytest.raises(ValueError, match="0 < least < most"):
        Noise(least=2, most=1)
