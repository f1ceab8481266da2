"""The networks of the spectrum tokenizer against the same computations written out with torch's convolutions."""

import torch
import torch.nn.functional as F

from aion.official.convnext import ConvNeXtBlock, ConvNeXtDecoder, ConvNeXtEncoder


def stir(module: torch.nn.Module) -> torch.nn.Module:
    for parameter in module.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return module.eval()


def block_by_hand(block: ConvNeXtBlock, x: torch.Tensor) -> torch.Tensor:
    y = block.norm(block.dwconv(x).movedim(1, -1))
    y = F.gelu(block.pwconv1(y))
    norm = torch.linalg.vector_norm(y, dim=1, keepdim=True)
    share = norm / (norm.mean(-1, keepdim=True) + 1e-6)
    y = block.grn.gamma * (y * share) + block.grn.beta + y
    return x + block.pwconv2(y).movedim(-1, 1)


def by_hand(changes, stages, x: torch.Tensor) -> torch.Tensor:
    for change, stage in zip(changes, stages, strict=True):
        for layer in change:
            x = layer(x.movedim(1, -1)).movedim(-1, 1) if isinstance(layer, torch.nn.LayerNorm) else layer(x)
        for block in stage:
            x = block_by_hand(block, x)
    return x


def test_a_block_is_a_convnext_v2_block():
    block, x = stir(ConvNeXtBlock(6)), torch.randn(2, 12, 6)
    torch.testing.assert_close(block(x), block_by_hand(block, x.movedim(-1, 1)).movedim(1, -1), rtol=1e-4, atol=1e-5)


def test_encoder_and_decoder_are_their_convolutions():
    encoder = stir(ConvNeXtEncoder(2, (1, 2, 1), (4, 6, 8)))
    x = torch.randn(2, 64, 2)
    latent = encoder(x)
    assert latent.shape == (2, 4, 8)
    expected = encoder.norm(by_hand(encoder.downsample_layers, encoder.stages, x.movedim(-1, 1)).movedim(1, -1))
    torch.testing.assert_close(latent, expected, rtol=1e-4, atol=1e-5)
    decoder = stir(ConvNeXtDecoder(8, (1, 1, 1), (6, 4, 3)))
    out = decoder(latent)
    assert out.shape == (2, 64, 3)
    expected = by_hand(decoder.upsample_layers, decoder.stages, latent.movedim(-1, 1)).movedim(1, -1)
    torch.testing.assert_close(out, expected, rtol=1e-4, atol=1e-4)


def test_autocast_keeps_float32_where_it_adds_up():
    encoder, x = stir(ConvNeXtEncoder(2, (1, 1, 1), (4, 8, 8))), torch.randn(1, 64, 2)
    with torch.autocast("cpu", torch.bfloat16):
        rounded = encoder(x)
    assert rounded.dtype == torch.float32
    assert 0 < (rounded - encoder(x)).abs().max() < 0.2
