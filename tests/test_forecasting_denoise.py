"""Network, denoiser and windows: masks are obeyed, patches fit, gradients reach everything."""

import pytest
import torch

from aion.forecasting.denoise import MaskedDenoiser
from aion.forecasting.network import SIZES, FrameTransformer
from aion.forecasting.noise import Noise
from aion.forecasting.template import autoregressive, hierarchy2, multiscale
from aion.forecasting.windows import Windows, patterns

TINY = {"patch": 4, "dim": 24, "depth": 2, "heads": 2, "modulation": 8}
SPACES = pytest.mark.parametrize("space", [(), (8,), (4, 8)])


def draws(seed=0):
    return torch.Generator().manual_seed(seed)


def awake(space, channels=2, **options):
    """Builds a denoiser whose zero-initialised gates are open, so that everything matters."""
    network = FrameTransformer(channels, space, **{**TINY, **options})
    generator = draws(3)
    for parameter in network.parameters():
        with torch.no_grad():
            parameter.copy_(0.2 * torch.randn(parameter.shape, generator=generator))
    return MaskedDenoiser(network, Noise())


def example(space, number=3, frames=7):
    x = torch.randn(number, frames, 2, *space, generator=draws())
    known = torch.zeros(x.shape, dtype=torch.bool)
    known[:, :3] = True
    wanted = torch.zeros_like(known)
    wanted[:, 4:] = True
    return x, torch.tensor([0.1, 1.0, 20.0])[:number], known, wanted, torch.arange(float(frames)).expand(number, -1)


@SPACES
def test_patches_are_put_back_where_they_were(space):
    network = FrameTransformer(2, space, **TINY)
    x = example(space)[0]
    tokens = network._split(x)
    assert tokens.shape[1:] == (7 * max(1, len(space) and x[0, 0, 0].numel() // 4 ** len(space)), 2 * 4 ** len(space))
    assert torch.equal(network._join(tokens, x), x)


@SPACES
def test_masks_are_obeyed(space):
    denoiser = awake(space)
    x, sigma, known, wanted, offsets = example(space)
    clean = denoiser(x, sigma, known, wanted, offsets)
    assert torch.equal(clean[known], x[known])
    assert not clean[~known & ~wanted].any()
    other = torch.where(known | wanted, x, 1e6)
    assert torch.equal(denoiser(other, sigma, known, wanted, offsets), clean), "what is absent is not looked at"
    moved = x.clone()
    moved[:, 0] += 1
    assert not torch.allclose(denoiser(moved, sigma, known, wanted, offsets)[wanted], clean[wanted])


@SPACES
def test_an_object_is_denoised_for_itself(space):
    denoiser = awake(space)
    parts = example(space)
    together = denoiser(*parts)
    alone = denoiser(*(part[1:2] for part in parts))
    torch.testing.assert_close(together[1:2], alone, atol=1e-4, rtol=1e-4)


def test_times_matter_and_only_relative_to_each_other_in_attention():
    denoiser = awake(())
    x, sigma, known, wanted, offsets = example(())
    clean = denoiser(x, sigma, known, wanted, offsets)
    assert not torch.allclose(denoiser(x, sigma, known, wanted, 3 * offsets), clean, atol=1e-3)


def test_an_untrained_network_believes_in_the_mean():
    denoiser = MaskedDenoiser(FrameTransformer(2, (), **TINY), Noise())
    x, sigma, known, wanted, offsets = example(())
    clean = denoiser(x, sigma, known, wanted, offsets)
    torch.testing.assert_close(clean[wanted], (x / (1 + sigma**2)[:, None, None])[wanted])


@SPACES
def test_gradients_reach_every_parameter(space):
    denoiser = awake(space, context=3)
    x, _, known, wanted, offsets = example(space)
    batch = {"values": x, "known": known, "wanted": wanted, "offsets": offsets, "context": torch.randn(3, 3)}
    denoiser.loss(batch, draws())["loss"].backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in denoiser.parameters())


def test_the_loss_is_of_wanted_entries_and_one_at_the_start():
    denoiser = MaskedDenoiser(FrameTransformer(2, (), **TINY), Noise())
    x, _, known, wanted, offsets = example((), number=3)
    batch = {"values": x, "known": known, "wanted": wanted, "offsets": offsets}
    loss = denoiser.loss(batch, draws())["loss"]
    changed = {**batch, "values": torch.where(wanted, x, x + 7)}
    assert torch.equal(denoiser.loss(changed, draws())["loss"], loss), "it knows nothing yet of the known frames"
    many = {key: part.repeat_interleave(400, 0) for key, part in batch.items()}
    many["values"] = torch.randn(many["values"].shape, generator=draws(4))
    assert denoiser.loss(many, draws())["loss"].item() == pytest.approx(1, rel=0.1)


def test_the_largest_is_as_large_as_the_published_one():
    with torch.device("meta"):
        network = FrameTransformer(6, (256, 256), **SIZES["solar"])
    assert sum(p.numel() for p in network.parameters()) == pytest.approx(62e6, rel=0.01)


@pytest.mark.parametrize("alpha", [1.0, 2.5])
def test_training_covers_the_calls_of_every_scheme(alpha):
    calls = set(patterns(3, alpha))
    assert all(len(known) + len(new) == 7 and not set(known) & set(new) for known, new in calls)
    for scheme in (multiscale(3, alpha), autoregressive(3), hierarchy2(3)):
        for known, new in scheme.round_:
            middle = sorted((*known, *new))[3]
            assert (tuple(t - middle for t in known), tuple(t - middle for t in new)) in calls


def test_windows_are_those_of_the_trajectory():
    trajectory = torch.arange(50.0)[:, None]
    trajectory[20] = torch.nan
    windows = Windows([trajectory], patterns(3, 2.5), 200, 1)
    batch = windows(3)
    assert all(torch.equal(part, windows(3)[name]) for name, part in batch.items())
    assert not torch.equal(batch["values"], windows(4)["values"])
    seen = batch["known"] | batch["wanted"]
    assert not (batch["known"] & batch["wanted"]).any()
    start = (batch["values"] - batch["offsets"][..., None])[..., 0]
    for row, there in zip(start, seen[..., 0], strict=True):
        assert (row[there] == row[there][0]).all(), "values follow the offsets"
    assert not (batch["values"][seen] == 20).any()
    assert 0.3 < batch["wanted"].float().mean() < 0.6


def test_a_trajectory_shorter_than_a_call_is_filled_with_nothing():
    windows = Windows(
        [torch.arange(50.0)[:, None], 100 + torch.arange(8.0)[:, None]], [((-9, -3, -1, 0), (1, 3, 9))], 300
    )
    batch = windows(0)
    short = batch["values"].amax((1, 2)) >= 100
    assert short.any()
    assert ((batch["known"] | batch["wanted"])[short].sum((1, 2)) < 7).all()


def test_what_it_refuses():
    with pytest.raises(ValueError, match="at most 5 frames"):
        Windows([torch.zeros(5, 1)], patterns(3, 2.5))
    with pytest.raises(ValueError, match="multiples of patch=4"):
        FrameTransformer(1, (10,), **TINY)
    with pytest.raises(ValueError, match="multiples of patch"):
        FrameTransformer(1, (8, 8, 8), **TINY)
