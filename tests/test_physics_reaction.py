import math

import pytest
import torch

from aion.physics.reaction import DIFFUSION, GRAY_SCOTT, advance, gray_scott


def rates(name="maze"):
    return torch.tensor([GRAY_SCOTT[name]], dtype=torch.float64)


def test_uniform_states_at_rest_stay():
    feed, kill = 0.04, 0.05  # with f >= 4 (f + k)^2 there are three
    root = math.sqrt(1 - 4 * (feed + kill) ** 2 / feed)
    for a in (1.0, (1 + root) / 2, (1 - root) / 2):
        b = (1 - a) * feed / (feed + kill)
        values = torch.tensor([a, b], dtype=torch.float64).view(1, 2, 1, 1).expand(1, 2, 8, 8)
        after = advance(values, torch.tensor([[feed, kill]], dtype=torch.float64), 1.0, 10, 0.03)
        torch.testing.assert_close(after, values.contiguous(), atol=1e-9, rtol=0)


def test_diffusion_alone_damps_each_wave_of_the_grid_as_it_must():
    x = torch.arange(32, dtype=torch.float64) * 2 * math.pi / 32
    wave = torch.sin(3 * x)[:, None].expand(32, 32)
    values = torch.stack([wave, torch.zeros_like(wave)])[None]  # without B nothing reacts
    after = advance(values, torch.zeros(1, 2, dtype=torch.float64), 1.0, 7, 0.0625)
    damped = (1 - DIFFUSION[0] / 0.0625**2 * (2 - 2 * math.cos(6 * math.pi / 32))) ** 7
    torch.testing.assert_close(after[0, 0], wave * damped)


def test_substance_is_conserved_without_feed_and_kill(generator):
    values = torch.rand(1, 2, 16, 16, generator=generator, dtype=torch.float64)
    after = advance(values, torch.zeros(1, 2, dtype=torch.float64), 0.5, 50, 0.03)
    assert after.sum().item() == pytest.approx(values.sum().item(), rel=1e-12)
    assert not torch.allclose(after, values)


def wavy(size):
    x = (torch.arange(size, dtype=torch.float64) + 0.5) * 2 * math.pi / size
    bump = 0.5 + 0.25 * (torch.sin(x)[:, None] + torch.cos(x))
    return torch.stack([1 - 0.5 * bump, 0.4 * bump])[None]


def test_the_order_is_one_in_time_and_two_in_space():
    exact = advance(wavy(16), rates(), 1 / 64, 40 * 64, 0.02)
    errors = [(advance(wavy(16), rates(), 1 / n, 40 * n, 0.02) - exact).abs().max().item() for n in (1, 2)]
    assert math.log2(errors[0] / errors[1]) == pytest.approx(1, abs=0.15)

    def mean_of_cells(size):  # a small box, so that diffusion matters
        values = advance(wavy(size), rates(), 0.1, 200, 0.1 / size)
        return torch.nn.functional.avg_pool2d(values, size // 8)

    coarse, middle, fine = (mean_of_cells(size) for size in (8, 16, 32))
    ratio = ((coarse - middle).abs().max() / (middle - fine).abs().max()).item()
    assert math.log2(ratio) == pytest.approx(2, abs=0.4)


def test_regimes_make_different_patterns():
    names = ["maze", "spots"]
    values = torch.tensor([GRAY_SCOTT[name] for name in names])
    flow = gray_scott([torch.Generator().manual_seed(0)] * 2, values, 32, 20)
    assert flow.values.min() >= 0
    assert flow.values.max() <= 1
    assert (flow.field("B")[0, -1].mean() - flow.field("B")[1, -1].mean()).abs() > 0.01
