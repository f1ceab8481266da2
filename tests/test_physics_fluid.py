import math

import pytest
import torch

from aion.physics.fluid import DRAG, FORCE, KOLMOGOROV, SHEAR, WAVE, Fluid, divided, kolmogorov, shear, waves

BOX = (2 * math.pi, 2 * math.pi)


def fluid(size: int, viscosity: float, **options: object) -> Fluid:
    nu = torch.tensor([viscosity], dtype=torch.float64)
    return Fluid((size, size), BOX, nu, nu, **options)


def grid(size: int) -> tuple[torch.Tensor, torch.Tensor]:
    axis = torch.arange(size, dtype=torch.float64) * 2 * math.pi / size
    return torch.meshgrid(axis, axis, indexing="ij")


def drawn(size: int, generator: torch.Generator) -> torch.Tensor:
    return waves((size, size), generator, 2)[None]


def test_taylor_green_vortices_decay_as_they_must():
    x, y = grid(32)
    flow, vorticity = fluid(32, 0.1), torch.cos(2 * x) * torch.cos(2 * y)
    state = flow.advance(flow.transform(torch.stack([vorticity, vorticity])[None]), 0.05, 20)
    after = torch.fft.irfft2(state, s=(32, 32))
    torch.testing.assert_close(after[0, 0], vorticity * math.exp(-0.1 * 8 * 1.0), atol=1e-12, rtol=0)
    # carried by its own stream function's flow, the scalar decays alike
    torch.testing.assert_close(after[0, 1], after[0, 0], atol=1e-12, rtol=0)


def test_velocity_is_that_of_the_vorticity_and_has_no_divergence(generator):
    flow = fluid(32, 0.0)
    state = flow.transform(drawn(32, generator))
    u, v = flow.velocity(state[:, 0])
    torch.testing.assert_close(1j * flow.kx * v - 1j * flow.ky * u, state[:, 0], atol=1e-10, rtol=0)
    assert (1j * flow.kx * u + 1j * flow.ky * v).abs().max() < 1e-10


def test_without_viscosity_energy_enstrophy_and_scalar_are_conserved(generator):
    flow = fluid(48, 0.0)
    state = flow.transform(drawn(48, generator))

    def invariants(state: torch.Tensor) -> torch.Tensor:
        fields = flow.fields(state)
        vorticity = torch.fft.irfft2(state[:, 0], s=(48, 48))
        energy = fields[:, 1:].square().sum(1).mean()
        return torch.stack([energy, vorticity.square().mean(), fields[:, 0].square().mean(), 1 + fields[:, 0].mean()])

    after = flow.advance(state, 0.02, 25)
    assert (after - state).abs().max() > 1
    torch.testing.assert_close(invariants(after), invariants(state), rtol=1e-7, atol=0)


def test_the_order_in_time_is_four(generator):
    flow = fluid(24, 0.02)
    state = flow.transform(drawn(24, generator))
    exact = flow.advance(state, 1 / 320, 320)
    errors = [(flow.advance(state, 1 / steps, steps) - exact).abs().max().item() for steps in (20, 40)]
    assert math.log2(errors[0] / errors[1]) == pytest.approx(4, abs=0.3)


def test_resolution_does_not_matter_once_it_suffices():
    flows = []
    for size in (48, 96):
        model = fluid(size, 0.05)
        fields = drawn(size, torch.Generator().manual_seed(1))
        flows.append(model.fields(model.advance(model.transform(fields), 0.02, 25)))
    torch.testing.assert_close(flows[1][..., ::2, ::2], flows[0], atol=5e-4, rtol=0)


def test_a_weakly_forced_flow_settles_to_the_balance_of_force_and_friction():
    nu = torch.tensor([0.3], dtype=torch.float64)
    flow = Fluid((16, 16), BOX, nu, nu, DRAG, -FORCE * WAVE * torch.cos(WAVE * grid(16)[1]))
    state = flow.advance(flow.transform(0.01 * drawn(16, torch.Generator().manual_seed(0))), 0.1, 800)
    expected = FORCE / (0.3 * WAVE**2 + DRAG) * torch.sin(WAVE * grid(16)[1])
    torch.testing.assert_close(flow.fields(state)[0, 1], expected, atol=2e-6, rtol=0)


def test_disturbances_of_a_shear_layer_grow_at_the_rate_of_the_linear_theory():
    """The wave of number 0.4446 on u = tanh(y) grows at a rate of 0.1897 (Michalke, 1964, J. Fluid Mech. 19)."""
    thickness, across = 0.4446, 8 * math.pi
    x = torch.arange(8, dtype=torch.float64)[:, None] * 2 * math.pi / 8
    y = torch.arange(128, dtype=torch.float64)[None] * across / 128
    low, high = ((y - share * across) / thickness for share in (0.25, 0.75))
    vorticity = torch.where(y < across / 2, low.tanh() ** 2 - 1, 1 - high.tanh() ** 2) / thickness
    bump = 1e-6 * torch.cos(x) * torch.exp(-(low**2))
    nu = torch.tensor([1e-5], dtype=torch.float64)
    flow = Fluid((8, 128), (2 * math.pi, across), nu, nu)
    state = flow.transform(torch.stack([vorticity + bump, torch.zeros_like(bump)])[None])
    sizes = []
    for _ in range(2):
        state = flow.advance(state, 0.1, 100)
        sizes.append(flow.fields(state)[:, 2].square().mean().sqrt())
    assert (sizes[1] / sizes[0]).log().item() / 10 == pytest.approx(0.1897 / thickness, rel=0.03)


@pytest.mark.parametrize(("run", "regimes"), [(shear, SHEAR), (kolmogorov, KOLMOGOROV)])
def test_regimes_start_alike_and_part(run, regimes):
    generators = [torch.Generator().manual_seed(5) for _ in regimes]
    flow = run(generators, torch.tensor(list(regimes.values())), 32, 30)
    u, v = flow.field("velocity_x"), flow.field("velocity_y")
    cross = (v.square().mean((2, 3)) / u.square().mean((2, 3))).log()
    if run is shear:
        torch.testing.assert_close(flow.values[0, 0], flow.values[1, 0])
        assert cross[0, -1] - cross[1, -1] > 1
        assert flow.field("tracer").min() > -0.2
    else:
        change = flow.values.diff(dim=1).square().mean((1, 2, 3, 4))
        assert change[1] > 10 * change[0]


def test_frames_are_divided_evenly():
    assert divided(0.3, 2.5) == (pytest.approx(0.1), 3)
    assert divided(0.3, 0) == (0.3, 1)
