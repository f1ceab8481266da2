import math

import pytest
import torch

from aion.physics.spectral import kept, step, wavenumbers


def test_derivatives_of_waves_are_exact():
    x = torch.arange(16, dtype=torch.float64) / 16 * 3
    (k,) = wavenumbers((16,), (3.0,), torch.float64, "cpu")
    wave = torch.sin(2 * math.pi * 2 * x / 3)
    slope = torch.fft.irfft(1j * k * torch.fft.rfft(wave), n=16)
    torch.testing.assert_close(slope, 4 * math.pi / 3 * torch.cos(4 * math.pi * x / 3))


def test_products_of_what_is_kept_have_no_aliases(generator):
    mask = kept((18, 12), "cpu")
    fields = torch.fft.irfft2(torch.fft.rfft2(torch.randn(2, 18, 12, generator=generator).double()) * mask, s=(18, 12))
    product = torch.fft.rfft2(fields[0] * fields[1]) * mask
    fine = torch.zeros(2, 36, 13, dtype=torch.complex128)  # the same fields on twice the grid
    rows = torch.cat([torch.arange(9), torch.arange(-9, 0)])
    fine[:, rows, :7] = torch.fft.rfft2(fields)[:, rows] * 4
    exact = torch.fft.rfft2(torch.fft.irfft2(fine, s=(36, 24)).prod(0))[rows, :7] / 4
    torch.testing.assert_close(product, exact * mask, atol=1e-9, rtol=0)


def test_what_is_linear_is_exact_and_the_rest_of_order_four():
    state = torch.tensor([1.0 + 0.5j], dtype=torch.complex128)
    half = torch.exp(torch.tensor(-3.0 * 0.2 / 2, dtype=torch.float64))
    assert step(state, torch.zeros_like, half, 0.2)[0].real == pytest.approx(math.exp(-0.6), abs=1e-14)
    errors = []
    for steps in (10, 20):  # u' = -u + u^2 from 1/2: 1 / (1 + e^t)
        u, half = torch.tensor(0.5, dtype=torch.float64), torch.tensor(math.exp(-0.5 / steps), dtype=torch.float64)
        for _ in range(steps):
            u = step(u, torch.square, half, 1 / steps)
        errors.append(abs(u.item() - 1 / (1 + math.e)))
    assert math.log2(errors[0] / errors[1]) == pytest.approx(4, abs=0.2)
