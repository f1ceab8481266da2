"""Transformer blocks: shapes, gradients, equivariance."""

import torch

from aion.nn.block import DecoderBlock, EncoderBlock, GatedMLP


def test_gated_mlp_has_the_parameters_of_a_plain_one():
    plain = 2 * 48 * 4 * 48
    gated = sum(p.numel() for p in GatedMLP(48).parameters())
    assert abs(gated / plain - 1) < 0.01


def test_encoder_block_is_equivariant_to_order():
    block = EncoderBlock(16, heads=2)
    x, order = torch.randn(1, 7, 16), torch.randperm(7)
    torch.testing.assert_close(block(x)[:, order], block(x[:, order]))


def test_gradients_reach_every_parameter_of_a_decoder_block():
    block = DecoderBlock(16, heads=2)
    block(torch.randn(2, 3, 16), torch.randn(2, 5, 16)).square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in block.parameters())


def test_blocks_have_no_bias():
    assert not [name for name, _ in DecoderBlock(16, 2).named_parameters() if name.endswith("bias")]
