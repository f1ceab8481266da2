import pytest
import torch

from aion.physics.normalise import EPSILON, window_scales


def test_scales_are_root_mean_squares_of_values_and_increments(generator):
    values = torch.randn(2, 4, 2, 6, 5, generator=generator)
    size, change = window_scales(values, ["a", "b"])
    torch.testing.assert_close(size, values.square().mean((1, 3, 4), keepdim=True).sqrt())
    torch.testing.assert_close(change, values.diff(dim=1).square().mean((1, 3, 4), keepdim=True).sqrt())


def test_components_share_a_scale_if_asked_to(generator):
    values = torch.randn(1, 3, 3, 8, 8, generator=generator) * torch.tensor([1.0, 1e-3, 5.0]).view(3, 1, 1)
    size, _ = window_scales(values, ["v_x", "v_y", "p"])
    assert size[0, 0, 0] == size[0, 0, 1]
    assert size[0, 0, 0].item() == pytest.approx(values[:, :, :2].square().mean().sqrt().item(), rel=1e-5)
    alone, _ = window_scales(values, ["v_x", "v_y", "p"], shared=False)
    assert alone[0, 0, 1] < 0.01 * alone[0, 0, 0]
    torch.testing.assert_close(size[0, 0, 2], alone[0, 0, 2])


@pytest.mark.parametrize("factor", [1e-30, 1e-3, 1e20, 1e30])
def test_scales_follow_the_units_without_overflow(factor, generator):
    values = torch.randn(1, 3, 1, 8, 8, generator=generator)
    size, change = window_scales(values * factor, ["a"])
    expected = [max(scale.item() * factor, EPSILON) for scale in window_scales(values, ["a"])]
    assert [size.item(), change.item()] == pytest.approx(expected, rel=1e-4)


def test_constant_fields_have_the_smallest_scale_of_increments():
    size, change = window_scales(torch.full((1, 3, 1, 4, 4), 7.0), ["a"])
    assert size.item() == pytest.approx(7)
    assert change.item() == pytest.approx(EPSILON)
