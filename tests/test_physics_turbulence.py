import math

import pytest
import torch

from aion.physics.turbulence import TURBULENCE, Cube, turbulence


def cube(size, viscosity):
    return Cube(size, torch.tensor([viscosity], dtype=torch.float64))


def drawn(size, generator):
    flow = cube(size, 0.0)
    k = flow.square.sqrt()
    noise = torch.randn(1, 3, size, size, size, generator=generator, dtype=torch.float64)
    return flow.transform(noise) * k * torch.exp(-((k / 2) ** 2))


def test_a_beltrami_flow_decays_as_it_must():
    axis = torch.arange(16, dtype=torch.float64) * 2 * math.pi / 16
    x, y, z = torch.meshgrid(axis, axis, axis, indexing="ij")
    flow = torch.stack([
        torch.sin(z) + torch.cos(y), torch.sin(x) + torch.cos(z), torch.sin(y) + torch.cos(x)
    ])[None]  # fmt: skip
    model = cube(16, 0.2)
    after = model.velocity(model.advance(model.transform(flow), 0.05, 10))
    torch.testing.assert_close(after, flow * math.exp(-0.2 * 0.5), atol=1e-12, rtol=0)


def test_without_viscosity_energy_and_helicity_are_conserved(generator):
    model, state = cube(16, 0.0), drawn(16, generator)

    def invariants(state):
        vorticity = 1j * torch.linalg.cross(model.k.to(state.dtype).expand_as(state), state, dim=1)
        u, w = model.velocity(state), model.velocity(vorticity)
        return torch.stack([u.square().sum(1).mean(), (u * w).sum(1).mean()])

    after = model.advance(state, 0.01, 20)
    torch.testing.assert_close(invariants(after), invariants(state), rtol=1e-6, atol=0)
    assert (after - state).abs().max() > 1e-2 * state.abs().max()
    assert (model.k * after).sum(1).abs().max() < 1e-10 * after.abs().max()


def test_the_order_in_time_is_four(generator):
    model, state = cube(12, 0.02), drawn(12, generator)
    exact = model.advance(state, 1 / 160, 160)
    errors = [(model.advance(state, 1 / steps, steps) - exact).abs().max().item() for steps in (10, 20)]
    assert math.log2(errors[0] / errors[1]) == pytest.approx(4, abs=0.4)


def test_energy_falls_faster_with_viscosity():
    flow = turbulence([torch.Generator().manual_seed(0) for _ in TURBULENCE],
                      torch.tensor(list(TURBULENCE.values())), 16, 4)  # fmt: skip
    energy = flow.values.square().sum(2).mean((2, 3, 4))
    assert (energy.diff(dim=1) < 0).all()
    assert energy[0, -1] < 0.7 * energy[1, -1]
