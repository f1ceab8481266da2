import itertools
import math

import pytest
import torch

from aion.physics import patching
from aion.physics.patching import STRIDES, PatchDecoder, PatchEncoder, axes_of, draw_shift, pad, unpad

KERNELS = (8, 4)
EDGES = [("periodic",) * 2, ("wall",) * 2, ("open",) * 2, ("wall", "open")]


def left_out(axis):
    """Points before those that the decoder gives: of places between its convolutions that reach none of the grid."""
    first = math.ceil(axis.pad / axis.stride) * axis.stride + axis.pad
    return max(0, math.ceil((first - KERNELS[0] + 1) / axis.first)) * axis.first


def cut(space, boundaries, stride=None, tokens=1024):
    return axes_of(space, boundaries, KERNELS, stride, tokens)


@pytest.mark.parametrize("boundaries", list(itertools.product(EDGES, EDGES)))
def test_jitter_is_undone_for_every_mix_of_boundaries(boundaries, generator):
    x = torch.randn(2, 3, 32, 16, 1, generator=generator)
    axes = cut((32, 16), boundaries, 8)
    for _ in range(4):
        shift = draw_shift(axes, generator)
        y, _ = pad(x, axes, shift)
        for dim, axis in enumerate(axes, start=2):
            if not axis.room and axis.points > 1:  # the decoder repeats whole tokens beyond periodic edges
                repeated = math.ceil(axis.pad / axis.stride) * axis.stride
                around = torch.arange(-axis.pad - repeated, 2 * axis.points)
                y = y.narrow(dim, axis.pad, axis.points).index_select(dim, around[left_out(axis) :] % axis.points)
        assert torch.equal(unpad(y, axes, shift), x)


def test_the_flags_tell_walls_from_open_edges_and_the_inside():
    axes = cut((16, 16), [("wall", "open"), ("periodic",) * 2], 8)
    _, flags = pad(torch.zeros(1, 1, 16, 16, 1), axes, [2, 5, 0])
    assert flags.shape[3:] == (1, 1)  # the same all along a periodic axis
    flags = flags[0, :, :, 0, 0]
    low, high = axes[0].pad + 4 + 2, axes[0].pad + 4 - 2
    assert flags.shape == (3, 16 + low + high)
    assert flags[0].tolist() == [1.0] * low + [0.0] * (16 + high)
    assert flags[1].tolist() == [0.0] * (16 + low) + [1.0] * high
    assert flags[2].tolist() == [0.0] * low + [1.0] * 16 + [0.0] * high


@pytest.mark.parametrize("stride", sorted(STRIDES))
@pytest.mark.parametrize("edges", EDGES[:2])
def test_each_stride_gives_its_number_of_tokens_and_comes_back_to_the_grid(stride, edges):
    space = (96, 96) if stride in (12, 24) else (64, 64)
    axes = cut(space, [edges, EDGES[0]], stride)
    encoder, decoder = PatchEncoder(5, 4, 8, KERNELS, None), PatchDecoder(5, 4, 8, KERNELS, None)
    columns, shift = torch.tensor([3, 4]), draw_shift(axes, torch.Generator().manual_seed(1))
    tokens = encoder(*pad(torch.randn(2, 2, *space, 1), axes, shift), columns, axes)
    assert tokens.shape == (2, axes[0].tokens, space[1] // stride, 1, 8)
    assert axes[0].tokens == space[0] // stride + (edges[0] != "periodic")
    fields = unpad(decoder(tokens, columns, axes), axes, shift)
    assert fields.shape == (2, 2, *space, 1)


def test_what_the_decoder_leaves_out_reaches_no_point_of_the_grid(generator, monkeypatch):
    axes = cut((32, 64), [EDGES[0]] * 2, (8, 16))
    decoder, tokens = PatchDecoder(4, 4, 8, KERNELS, None), torch.randn(2, 4, 4, 1, 8, generator=generator)
    cropped = unpad(decoder(tokens, torch.tensor([3]), axes), axes, [0] * 3)
    monkeypatch.setattr(patching, "_reached", lambda axis: (0, (axis.tokens + 1) * axis.second + KERNELS[1]))
    assert decoder(tokens, torch.tensor([3]), axes).shape[2] > 32 + 8
    torch.testing.assert_close(unpad(decoder(tokens, torch.tensor([3]), axes), axes, [0] * 3), cropped)


def test_moving_the_content_by_a_patch_moves_the_tokens():
    """Exact but for the norms, whose mean over space counts what is repeated beyond periodic edges twice."""
    axes = cut((32, 32), [EDGES[0]] * 2, 8)
    encoder, decoder = PatchEncoder(4, 8, 16, KERNELS, None), PatchDecoder(4, 8, 16, KERNELS, None)
    x = torch.randn(1, 1, 32, 32, 1)
    with torch.no_grad():
        still, moved = (encoder(*pad(x, axes, shift), torch.tensor([3]), axes) for shift in ([0] * 3, [8, 16, 0]))
        assert (moved - still.roll((1, 2), (1, 2))).abs().mean() < 0.1 * (moved - still).abs().mean()
        one = unpad(decoder(still, torch.tensor([3]), axes), axes, [0] * 3)
        other = unpad(decoder(still.roll((1, 2), (1, 2)), torch.tensor([3]), axes), axes, [8, 16, 0])
        assert (one - other).abs().mean() < 0.2 * one.std()


def test_a_plane_and_a_volume_of_one_layer_are_the_same(generator):
    encoder, decoder = PatchEncoder(4, 4, 8, KERNELS, None), PatchDecoder(4, 4, 8, KERNELS, None)
    plane, x = cut((16, 16), [EDGES[0]] * 2, 4), torch.randn(1, 1, 16, 16, 1, generator=generator)
    turned = cut((1, 16, 16), [EDGES[0]] * 3, 4)
    with torch.no_grad():
        tokens = encoder(*pad(x, plane, [0] * 3), torch.tensor([3]), plane)
        for module in (encoder, decoder):
            for conv in (module.conv1, module.conv2):
                conv.weight.copy_(conv.weight.permute(0, 1, 4, 2, 3).clone())
        other = encoder(*pad(x.permute(0, 1, 4, 2, 3), turned, [0] * 3), torch.tensor([3]), turned)
        torch.testing.assert_close(other.permute(0, 2, 3, 1, 4), tokens, atol=1e-5, rtol=1e-4)
        fields = decoder(other, torch.tensor([3]), turned)
    assert fields.shape[2] == 1


def test_the_budget_chooses_the_published_strides():
    for space, strides in {
        (256, 512): (8, 16),
        (512, 128): (16, 4),
        (1024, 256): (32, 8),
        (128, 128): (4, 4),
        (128, 384): (4, 12),
        (512, 512): (16, 16),
    }.items():
        assert tuple(axis.stride for axis in cut(space, [EDGES[0]] * 2))[:2] == strides
    volume = axes_of((128, 128, 256), [EDGES[0]] * 3, KERNELS, None, 4096)
    assert tuple(axis.stride for axis in volume) == (8, 8, 16)
    assert [axis.stride for axis in cut((64, 64), [EDGES[0]] * 2, None, 64)][:2] == [8, 8]


@pytest.mark.parametrize(
    ("space", "options", "message"),
    [
        ((62, 64), {}, "62x64 into at most 1024 tokens"),
        ((4, 4), {}, "no strides"),
        ((512, 512), {"tokens": 4}, "at most 4 tokens"),
        ((64, 64), {"stride": 5}, r"stride of 5 does not fit an axis of 64 points; those that do: \[1, 4, 8, 16, 32\]"),
        ((64, 60), {"stride": (8, 8)}, "axis of 60 points"),
        ((8, 8), {"stride": 16}, "stride of 16 does not fit"),
        ((64, 64), {"stride": (8, 8, 8)}, "each of 2 axes"),
    ],
)
def test_grids_that_a_stride_does_not_fit_are_refused(space, options, message):
    with pytest.raises(ValueError, match=message):
        cut(space, [EDGES[0]] * 2, **options)


def test_jitter_takes_an_error_that_stays_on_the_grid_of_patches_to_zero():
    """What is the same in each patch is moved about: its mean over n draws falls like the root of n."""
    axes = cut((32, 32), [EDGES[0]] * 2, 8)
    pattern = torch.cos(torch.arange(32) * 2 * torch.pi / 8)[:, None].expand(32, 32)[None, None, ..., None]
    draws = torch.Generator().manual_seed(0)
    mean = sum(pattern.roll([-s for s in draw_shift(axes, draws)], (2, 3, 4)) for _ in range(400)) / 400
    assert pattern.abs().max() == 1
    assert mean.abs().max() < 4 / 400**0.5
