"""Attention against its formula, and what a mask may hide."""

import pytest
import torch

from aion.nn.attention import CrossAttention, SelfAttention


def softmax_attention(q, k, v, mask):
    logits = q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5
    return logits.masked_fill(~mask, -torch.inf).softmax(-1) @ v


def test_self_attention_is_the_formula():
    layer = SelfAttention(24, heads=3)
    x, mask = torch.randn(2, 5, 24), torch.rand(2, 1, 5, 5) > 0.3
    mask = mask | torch.eye(5, dtype=torch.bool)
    q, k, v = (part.unflatten(-1, (3, 8)).transpose(1, 2) for part in layer.qkv(x).chunk(3, dim=-1))
    q, k = (torch.nn.functional.layer_norm(t, (8,), eps=1e-6) for t in (q, k))
    expected = layer.proj(softmax_attention(q, k, v, mask).transpose(1, 2).flatten(2))
    torch.testing.assert_close(layer(x, mask), expected)


def test_cross_attention_ignores_masked_context():
    layer = CrossAttention(16, heads=2)
    x, context = torch.randn(2, 3, 16), torch.randn(2, 4, 16)
    mask = torch.tensor([True, True, False, True])[None, None, None]
    changed = context.clone()
    changed[:, 2] = 1e3
    torch.testing.assert_close(layer(x, context, mask), layer(x, changed, mask))
    assert not torch.allclose(layer(x, context), layer(x, changed))


def test_uniform_attention_is_the_mean_of_the_values():
    layer = SelfAttention(24, heads=3)
    x, mask = torch.randn(2, 5, 24), torch.tensor([True, False, True, True, False])[None, None, None]
    v = layer.qkv(x).chunk(3, dim=-1)[2]
    expected = layer.proj(v.mean(1, keepdim=True)).expand_as(x)
    torch.testing.assert_close(layer(x, uniform=True), expected)
    expected = layer.proj(v[:, [0, 2, 3]].mean(1, keepdim=True)).expand_as(x)
    torch.testing.assert_close(layer(x, mask, uniform=True), expected)


def test_a_query_that_may_see_nothing_gets_nothing():
    layer = CrossAttention(16, heads=2)
    mask = torch.tensor([[True, False], [False, False]])[:, None, None]
    x = layer(torch.randn(2, 3, 16), torch.randn(2, 2, 16), mask)
    assert x[0].abs().min() > 0
    assert (x[1] == 0).all()


@pytest.mark.parametrize("layer", [SelfAttention, CrossAttention])
def test_norms_have_a_bias_if_asked_for(layer):
    names = {name for name, _ in layer(16, heads=2, norm_bias=True).named_parameters() if name.endswith("bias")}
    assert names == {"q_norm.bias", "k_norm.bias"}
    assert not [name for name, _ in layer(16, heads=2).named_parameters() if name.endswith("bias")]


@pytest.mark.parametrize("layer", [SelfAttention, CrossAttention])
def test_heads_must_divide_the_width(layer):
    with pytest.raises(ValueError, match="dim must be a multiple of heads, given dim=10 and heads=4"):
        layer(10, heads=4)
