"""Masked convolutions: what is not measured is as if it were not there."""

import pytest
import torch

from aion.nn.convolution import ConvBlock1d, ConvBlock2d

MEMBERS = {ConvBlock1d: (12,), ConvBlock2d: (6, 8)}


@pytest.mark.parametrize("block", MEMBERS)
def test_masked_places_change_nothing_and_come_out_zero(block):
    layer, space = block(8), MEMBERS[block]
    x, mask = torch.randn(2, 8, *space), (torch.rand(2, 1, *space) > 0.4).float()
    changed = torch.where(mask > 0, x, 1e6)
    torch.testing.assert_close(layer(x, mask), layer(changed, mask))
    assert (layer(x, mask) * (1 - mask)).abs().max() == 0


@pytest.mark.parametrize("block", MEMBERS)
def test_masked_border_equals_padding(block):
    layer, space = block(8), MEMBERS[block]
    x = torch.randn(1, 8, *space)
    short, mask = x[..., :-5], torch.ones(1, 1, *space)
    mask[..., -5:] = 0
    torch.testing.assert_close(layer(x, mask)[..., :-5], layer(short, torch.ones_like(short[:, :1])))


@pytest.mark.parametrize("block", MEMBERS)
def test_gradients_reach_every_parameter(block):
    layer, space = block(8), MEMBERS[block]
    layer(torch.randn(1, 8, *space), torch.ones(1, 1, *space)).square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in layer.parameters())
