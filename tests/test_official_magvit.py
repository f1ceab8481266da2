"""The networks of the image tokenizer against the same computations written out."""

import pytest
import torch
import torch.nn.functional as F

from aion.official.magvit import MagViT, ResidualUnit


def stir(module: torch.nn.Module) -> torch.nn.Module:
    for parameter in module.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    return module.eval()


def test_a_residual_unit_is_a_gated_convolution():
    unit, x = stir(ResidualUnit(8)), torch.randn(2, 8, 6, 6)
    y = F.elu(F.conv2d(x, unit.net[0].conv.weight, unit.net[0].conv.bias, padding=1))
    y = F.elu(F.conv2d(y, unit.net[2].weight, unit.net[2].bias))
    gate = unit.net[4]
    share = F.conv2d(y, gate.to_k.weight, gate.to_k.bias).flatten(2).softmax(-1)
    pooled = (y.flatten(2) * share).sum(-1)[..., None, None]
    expected = x + y * gate.net(pooled)
    torch.testing.assert_close(unit(x), expected)
    with torch.no_grad():
        before = x.clone()
        torch.testing.assert_close(unit(x), expected)
        assert torch.equal(x, before)


def test_a_new_unit_is_nearly_the_identity():
    x = torch.randn(1, 16, 4, 4)
    torch.testing.assert_close(ResidualUnit(16)(x), x, atol=1e-3, rtol=0)


@pytest.mark.parametrize("compressions", [0, 1, 2, 3])
def test_shapes_and_number_of_layers(compressions):
    network = stir(MagViT(5, 16, compressions, 2))
    low = 16 // 2**compressions
    latent = network.encode(torch.randn(1, low, 16, 16))
    assert latent.shape == (1, 16 // 2**compressions, 16 // 2**compressions, 16)
    assert network.decode(latent.movedim(-1, 1)).shape == (1, low, 16, 16)
    assert len(network.encoder_layers) == 4 + 2 * compressions
    assert len(network.decoder_layers) == 3 + 2 * compressions


def test_one_image_does_not_depend_on_the_others():
    network, x = stir(MagViT(5, 16, 2, 1)), torch.randn(3, 4, 16, 16)
    torch.testing.assert_close(network.encode(x)[1:2], network.encode(x[1:2]))


def test_a_width_that_cannot_be_halved_is_refused():
    with pytest.raises(ValueError, match="multiple of 8, given 12"):
        MagViT(5, 12, 3, 1)
