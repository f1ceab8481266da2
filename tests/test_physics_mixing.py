import math

import pytest
import torch

from aion.physics.mixing import Block, SpaceMixing, SpaceNorm, TimeMixing, _turned, bucket


def activations(generator, *shape):
    return torch.randn(*shape, generator=generator)


def test_the_norm_is_the_published_one_or_one_of_groups(generator):
    x = activations(generator, 2, 3, 4, 5, 2, 8)
    weight = torch.arange(1.0, 9)
    alone, grouped = SpaceNorm(8), SpaceNorm(8, 2)
    for norm in (alone, grouped):
        norm.weight.data.copy_(weight)
    published = torch.nn.functional.rms_norm(x.permute(0, 1, 5, 2, 3, 4), (4, 5, 2)).permute(0, 1, 3, 4, 5, 2) * weight
    torch.testing.assert_close(alone(x), published)
    half = x[..., :4] / x[..., :4].square().mean((2, 3, 4, 5), keepdim=True).sqrt()
    torch.testing.assert_close(grouped(x)[..., :4], half * weight[:4])
    with pytest.raises(ValueError, match="multiple of groups"):
        SpaceNorm(8, 3)


def test_buckets_are_one_by_one_and_then_coarser():
    near = bucket(torch.arange(16))
    assert near.tolist() == list(range(16))
    far = bucket(torch.tensor([16, 17, 31, 64, 127, 128, 1000]))
    assert far.tolist() == [16, 16, 21, 26, 31, 31, 31]


def test_time_is_causal_and_places_do_not_mix(generator):
    module = TimeMixing(16, 2)
    module.norm = torch.nn.Identity()  # which mixes places by its mean
    torch.nn.init.normal_(module.bias.weight, generator=generator)
    x = activations(generator, 1, 5, 3, 2, 2, 16)
    x.requires_grad_()
    y = module(x) - x
    (grad,) = torch.autograd.grad(y[0, 2, 1, 0, 1].sum(), x)
    seen = grad.abs().sum(-1)[0]
    assert (seen[:3, 1, 0, 1] > 0).all()
    seen[:3, 1, 0, 1] = 0
    assert seen.max() == 0


def test_time_attention_is_that_of_the_formula(generator):
    module = TimeMixing(16, 2)
    torch.nn.init.normal_(module.bias.weight, generator=generator)
    x = activations(generator, 1, 3, 1, 1, 1, 16)
    q, k, v = module.qkv(module.norm(x)).flatten(1, 4)[0].unflatten(-1, (3, 2, 8)).unbind(1)
    logits = torch.einsum("ihd,jhd->hij", module.q_norm(q), module.k_norm(k)) / math.sqrt(8)
    distance = torch.arange(3)[:, None] - torch.arange(3)
    logits = logits + module.bias.weight[distance.clamp(min=0)].permute(2, 0, 1)
    weights = logits.masked_fill(distance < 0, -math.inf).softmax(-1)
    expected = x.flatten() + module.proj(torch.einsum("hij,jhd->ihd", weights, v).flatten(1)).flatten()
    torch.testing.assert_close(module(x).flatten(), expected, atol=1e-5, rtol=1e-4)


def test_space_attention_depends_on_relative_places_alone(generator):
    """Turning queries and keys by the angles of their places leaves a function of the difference of the places."""
    module = SpaceMixing(16, 1, 8, highest=2.0)
    x = activations(generator, 1, 1, 4, 1, 1, 16)
    q = k = activations(generator, 1, 1, 1, 16).expand(1, 1, 4, 16)
    turn = module._turn(x)
    logits = (_turned(q, turn) @ _turned(k, turn).transpose(-1, -2))[0, 0]
    for offset in range(4):
        torch.testing.assert_close(logits.diagonal(offset), logits[0, offset].expand(4 - offset))
    assert logits[0, 1] != logits[0, 2]
    angle = torch.linspace(-1, 1, 4)[:, None] * module.frequencies  # one pair of the eight for each of three axes
    one, other = q[0, 0, :, 0], q[0, 0, :, 1]
    torch.testing.assert_close(_turned(q, turn)[0, 0, :, 0], one * angle[:, 0].cos() - other * angle[:, 0].sin())
    torch.testing.assert_close(_turned(q, turn)[..., 6:], q[..., 6:])
    torch.testing.assert_close(_turned(q, turn).norm(dim=-1), q.norm(dim=-1))


def test_the_last_frames_alone_are_those_of_all(generator):
    block, x = Block(16, 2, 8), activations(generator, 2, 4, 3, 2, 1, 16)
    torch.nn.init.normal_(block.time.bias.weight, generator=generator)
    for first in (-1, 2):
        torch.testing.assert_close(block(x, first), block(x)[:, first:], atol=1e-5, rtol=1e-4)


def test_frames_and_trajectories_do_not_mix_in_space(generator):
    module = SpaceMixing(16, 2, 8)
    x = activations(generator, 2, 3, 2, 3, 2, 16)
    apart = torch.stack([torch.cat([module(x[b : b + 1, t : t + 1]) for t in range(3)], 1)[0] for b in range(2)])
    torch.testing.assert_close(module(x), apart, atol=1e-5, rtol=1e-4)


def test_gradients_reach_every_parameter(generator):
    block = Block(16, 2, 8)
    block(activations(generator, 1, 3, 2, 2, 2, 16)).square().mean().backward()
    assert [name for name, p in block.named_parameters() if p.grad is None or p.grad.abs().max() == 0] == []
