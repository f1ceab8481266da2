import math

import pytest
import torch

from aion.physics.acoustics import ACOUSTIC, acoustic, advance, energy


def standing(size, m=1, n=2):
    axis = (torch.arange(size, dtype=torch.float64) + 0.5) / size
    p = torch.cos(m * math.pi * axis)[:, None] * torch.cos(n * math.pi * axis)
    return p[None], p.new_zeros(1, size + 1, size), p.new_zeros(1, size, size + 1)


def test_a_standing_wave_keeps_its_period_to_second_order():
    omega = math.pi * math.sqrt(5)
    errors = []
    for size in (16, 32):
        start = standing(size)
        p, _, _ = advance(start, torch.ones(1, 1, 1, dtype=torch.float64), 0.5 / size, 2 * size, 1 / size)
        errors.append((p - start[0] * math.cos(omega)).abs().max().item())
    assert math.log2(errors[0] / errors[1]) == pytest.approx(2, abs=0.2)


def test_energy_returns_and_waves_do_not_leave(generator):
    p, u, v = standing(24)
    p = p + torch.randn(1, 24, 24, generator=generator, dtype=torch.float64)
    speed = 1 + 0.5 * torch.rand(1, 24, 24, generator=generator, dtype=torch.float64)
    before = energy((p, u, v), speed)
    after = energy(advance((p, u, v), speed, 0.05 / 24, 2000, 1 / 24), speed)
    torch.testing.assert_close(after, before, rtol=2e-3, atol=0)


def test_mass_is_conserved_between_walls():
    start = standing(16, 0, 2)
    start = (start[0] + 0.3, *start[1:])
    p, u, v = advance(start, torch.ones(1, 1, 1, dtype=torch.float64), 0.02, 50, 1 / 16)
    assert p.mean().item() == pytest.approx(0.3, abs=1e-12)
    assert u[:, [0, -1]].abs().max() == 0
    assert v[:, :, [0, -1]].abs().max() == 0


def test_regimes_share_their_pulses():
    flow = acoustic([torch.Generator().manual_seed(3) for _ in ACOUSTIC],
                    torch.tensor(list(ACOUSTIC.values())), 32, 8)  # fmt: skip
    assert torch.equal(flow.field("pressure")[0, 0], flow.field("pressure")[1, 0])
    assert torch.equal(flow.field("speed_of_sound")[0], torch.ones(8, 32, 32))
    assert flow.field("speed_of_sound")[1].std() > 0.01
    assert not torch.equal(flow.field("pressure")[0, -1], flow.field("pressure")[1, -1])
