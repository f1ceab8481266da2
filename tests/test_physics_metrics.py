import math

import pytest
import torch

from aion.physics.flow import Flow
from aion.physics.metrics import persistence, spectrum, spectrum_error, vrmse


def flow(values, fields=("a", "v_x", "v_y")):
    return Flow(values, fields, ["periodic"] * (values.ndim - 3))


def test_the_mean_of_the_field_scores_one_and_the_truth_zero(generator):
    true = flow(torch.randn(2, 3, 3, 16, 16, generator=generator))
    mean = true.replace(values=true.values.mean((3, 4), keepdim=True).expand_as(true.values))
    torch.testing.assert_close(
        vrmse(mean, true), torch.full((2, 3, 3), math.sqrt(255 / 256)).double(), rtol=1e-5, atol=0
    )
    assert vrmse(true, true).max() == 0


def test_it_is_that_of_the_formula_and_pools_of_the_variance(generator):
    true = flow(torch.randn(1, 4, 3, 8, 8, generator=generator) * torch.tensor([1.0, 1.0, 1e-3]).view(3, 1, 1))
    predicted = true.replace(values=true.values + 0.1 * torch.randn(1, 4, 3, 8, 8, generator=generator))
    x, y = predicted.values.double(), true.values.double()
    plain = ((x - y) ** 2).mean((3, 4)) / (torch.std(y, dim=(3, 4)) ** 2 + 1e-7)
    torch.testing.assert_close(vrmse(predicted, true), plain.sqrt())
    pooled = vrmse(predicted, true, pool="trajectory")
    expected = (((x - y) ** 2).mean((3, 4)) / (y.var((1, 3, 4), keepdim=True)[..., 0, 0] + 1e-7)).sqrt()
    torch.testing.assert_close(pooled, expected)
    assert vrmse(predicted, true)[..., 2].min() > 50
    assert vrmse(predicted, true, pool="quantity")[..., 2].max() < 0.2


def test_constant_fields_score_finitely_and_what_went_astray_infinitely():
    true = flow(torch.ones(1, 2, 1, 4, 4), ["a"])
    assert vrmse(persistence(true, 2), true).max() == 0
    off = true.replace(values=true.values + 0.1)
    assert torch.isfinite(vrmse(off, true)).all()
    lost = true.replace(values=true.values * torch.nan)
    assert vrmse(lost, true).isinf().all()
    assert spectrum_error(lost, true).isinf().all()


def test_persistence_repeats_the_last_frame(generator):
    window = flow(torch.randn(2, 3, 3, 4, 4, generator=generator))
    repeated = persistence(window, 5)
    assert repeated.values.shape == (2, 5, 3, 4, 4)
    assert torch.equal(repeated.values[:, 4], window.values[:, -1])


def test_the_spectrum_holds_the_whole_variance_and_waves_in_their_shell():
    x = torch.arange(16) * 2 * torch.pi / 16
    values = (3 + torch.cos(3 * x)[:, None].expand(16, 16))[None, None, None]
    power = spectrum(values)[0, 0, 0]
    assert power[0].item() == pytest.approx(9)
    assert power[3].item() == pytest.approx(0.5)
    assert power.sum().item() == pytest.approx(values.square().mean().item())
    cube = torch.cos(2 * x)[:, None, None].expand(16, 16, 16)[None, None, None]
    assert spectrum(cube)[0, 0, 0].argmax() == 2


def test_the_error_of_the_spectrum_is_a_log_ratio(generator):
    true = flow(torch.randn(1, 1, 3, 16, 16, generator=generator))
    louder = true.replace(values=2 * true.values)
    torch.testing.assert_close(spectrum_error(louder, true), torch.full((1, 1, 3), math.log(4)).double())


def test_flows_that_do_not_match_are_refused():
    true = flow(torch.ones(1, 2, 1, 4, 4), ["a"])
    with pytest.raises(ValueError, match="same frames, fields and grid"):
        vrmse(true.window(0, 1), true)
    with pytest.raises(ValueError, match="same frames, fields and grid"):
        vrmse(true.replace(fields=["b"]), true)
    with pytest.raises(ValueError, match="pool must be one of frame"):
        vrmse(true, true, pool="all")
