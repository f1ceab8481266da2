"""Attention against its formula, and what a mask may hide."""

import pytest
import torch

from aion.nn.attention import CrossAttention, SelfAttention
from aion.nn.embedding import angles


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


@pytest.mark.parametrize("moved", [[0.0, 0.0], [3.0, -40.0]])
def test_turned_attention_depends_on_differences_of_positions(moved, generator):
    layer = SelfAttention(24, heads=3)
    x, position = torch.randn(2, 5, 24), 20 * torch.rand(2, 5, 2, generator=generator)
    given = layer(x, angles=angles(position + torch.tensor(moved), 4))
    torch.testing.assert_close(given, layer(x, angles=angles(position, 4)), atol=1e-5, rtol=1e-4)
    assert not torch.allclose(given, layer(x), atol=1e-3)
    torch.testing.assert_close(layer(x, angles=torch.zeros(2, 5, 4)), layer(x))


def test_a_query_at_zero_gets_fourier_components_of_the_values(generator):
    layer = CrossAttention(8, heads=1)
    x, context, position = torch.randn(1, 1, 8), torch.randn(1, 6, 8), 20 * torch.rand(1, 6, 2, generator=generator)
    phase = torch.exp(1j * angles(position, 4))[0]
    k, v = layer.kv(context)[0].chunk(2, dim=-1)
    q, k = (torch.nn.functional.layer_norm(t, (8,), eps=1e-6) for t in (layer.q(x)[0], k))
    q, k, v = (torch.complex(*t.chunk(2, dim=-1)) for t in (q, k, v))
    weight = ((q.conj() * k * phase).real.sum(-1) / 8**0.5).softmax(0)
    component = (weight[:, None] * phase * v).sum(0)
    expected = layer.proj(torch.cat([component.real, component.imag]))
    given = layer(x, context, None, torch.zeros(1, 1, 4), angles(position, 4))
    torch.testing.assert_close(given[0, 0], expected, atol=1e-5, rtol=1e-4)


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
