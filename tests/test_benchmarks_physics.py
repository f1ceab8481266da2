import importlib
import sys

import pytest
import torch

from aion.physics.flow import Flow
from aion.physics.metrics import persistence


@pytest.fixture(scope="module")
def scripts(root):
    sys.path.insert(0, str(root / "benchmarks"))
    try:
        yield importlib.import_module("physics"), importlib.import_module("physics_baselines")
    finally:
        sys.path.remove(str(root / "benchmarks"))


def turning(batch=4, frames=40, size=8):
    """Waves that move along x at one speed: a linear system of two components."""
    x = torch.arange(size) * 2 * torch.pi / size
    phase = torch.arange(batch)[:, None, None] + 0.4 * torch.arange(frames)[:, None] + x
    values = torch.sin(phase)[:, :, None, :, None].expand(-1, -1, 1, -1, size)
    return Flow(values.contiguous(), ["a"], ["periodic"] * 2)


def test_the_linear_model_continues_a_linear_system(scripts):
    _, baselines = scripts
    flow = turning()
    forecast = baselines.LinearModel(flow, rank=4, ridge=1e-9).forecast(flow.window(0, 4), 30)
    torch.testing.assert_close(forecast.values, flow.window(4, 30).values, atol=1e-2, rtol=0)


def test_the_unet_is_as_large_as_asked_and_moves_with_periodic_grids(scripts, generator):
    _, baselines = scripts
    width = baselines.width_for(["a", "b"], 3, 500_000)
    unet = baselines.UNet(["a", "b"], width, 3)
    assert sum(p.numel() for p in unet.parameters()) == pytest.approx(500_000, rel=0.2)
    unet.reset_parameters(generator)
    flow = Flow(torch.randn(2, 4, 1, 16, 16, generator=generator), ["b"], ["periodic"] * 2)
    unet.loss((flow, {}))["loss"].backward()
    moved = flow.replace(values=flow.values.roll((4, 8), (3, 4)))
    one, other = (unet.forecast(given.window(0, 3), 2).values for given in (flow, moved))
    torch.testing.assert_close(one.roll((4, 8), (3, 4)), other, atol=1e-4, rtol=1e-4)


def test_scores_and_their_summary(scripts):
    script, _ = scripts
    flow = turning()
    perfect = script.scores(lambda window, steps: flow.window(4, steps), flow, 4, "frame")
    assert perfect == {"1": 0, "6-12": 0, "13-30": 0}
    repeated = script.scores(persistence, flow, 4, "frame")
    assert min(repeated.values()) > 0.3
    tables = [{"s": {"walrus": {"1": 0.1 * k}, "no jitter": {"1": 0.0}, "linear": {"1": 0.2}}} for k in (1, 2)]
    result, ahead, cells = script.summary(tables)
    assert result["s"]["walrus"]["1"] == pytest.approx([0.15, 0.05])
    assert (ahead, cells) == (1, 1)
