import math

import pytest
import torch

from aion.physics.convection import WIDTH, convection, convection_fluid, nusselt, odd


def mode(space, amplitude):
    x = torch.arange(space[0], dtype=torch.float64) * WIDTH / space[0]
    y = (torch.arange(space[1], dtype=torch.float64) + 0.5) * 2 / space[1]
    wave = torch.cos(math.pi * x)[:, None] * torch.sin(math.pi * y)
    return torch.stack([torch.zeros_like(wave), amplitude * wave])[None]


@pytest.mark.parametrize("rayleigh", [400.0, 657.5, 3000.0])
def test_small_disturbances_grow_at_the_rate_of_the_linear_theory(rayleigh):
    """For one wave (lambda + nu q^2)(lambda + kappa q^2) = k^2 / q^2; 27 pi^4 / 4 = 657.5 is where none grows."""
    number = torch.tensor([rayleigh], dtype=torch.float64)
    fluid = convection_fluid((16, 8), number)
    state = fluid.transform(mode(fluid.space, 1e-6))
    sizes = []
    for _ in range(2):
        state = odd(fluid, fluid.advance(state, 0.02, 300))
        sizes.append(fluid.fields(state)[:, 0].square().mean().sqrt())
    rate = (sizes[1] / sizes[0]).log().item() / 6
    k2, q2, nu = math.pi**2, 2 * math.pi**2, rayleigh**-0.5
    assert rate == pytest.approx(math.sqrt(k2 / q2) - nu * q2, abs=2e-3)


def test_below_the_critical_number_only_conduction_is_left_and_above_heat_is_carried():
    number = torch.tensor([500.0, 2e4])
    flow = convection([torch.Generator().manual_seed(0) for _ in number], number, 32, 40)
    carried = nusselt(flow, number)[:, -1]
    assert carried[0] == pytest.approx(1, abs=1e-2)
    assert carried[1] > 2
    height = (torch.arange(16) + 0.5) / 16
    torch.testing.assert_close(flow.field("buoyancy")[0, -1], (1 - height).expand(32, -1), atol=0.02, rtol=0)
    assert flow.boundaries == (("periodic",) * 2, ("wall",) * 2)


def test_the_mirror_is_exact(generator):
    fluid = convection_fluid((16, 8), torch.tensor([1e4], dtype=torch.float64))
    fields = torch.randn(1, 2, 16, 16, generator=generator, dtype=torch.float64)
    once = odd(fluid, fluid.transform(fields))
    torch.testing.assert_close(odd(fluid, once), once)
    values = torch.fft.irfft2(once, s=fluid.space)
    torch.testing.assert_close(values.flip(-1), -values)


def test_the_order_in_time_is_four():
    fluid = convection_fluid((16, 8), torch.tensor([2e4], dtype=torch.float64))
    state = fluid.transform(mode(fluid.space, 0.3))
    exact = fluid.advance(state, 1 / 160, 320)
    errors = [(fluid.advance(state, 2 / steps, steps) - exact).abs().max().item() for steps in (20, 40)]
    assert math.log2(errors[0] / errors[1]) == pytest.approx(4, abs=0.4)
