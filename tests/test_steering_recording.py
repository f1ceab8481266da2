import math
import tracemalloc

import numpy as np
import pytest
import torch

from torch import nn

from aion.steering import Layout, Moments, Record, capture


def test_moments_are_those_of_numpy_in_any_pieces(generator):
    rows = torch.randn(50, 4, generator=generator) * 3 + 100
    one, other = Moments(), Moments()
    for piece in rows.split([1, 20, 2, 27]):
        one.update(piece)
    other.update(rows[30:])
    other.merge(_moments(rows[:30]))
    for moments in (one, other):
        assert moments.count == 50
        np.testing.assert_allclose(moments.mean, rows.double().mean(0), rtol=1e-12)
        np.testing.assert_allclose(moments.covariance, np.cov(rows.double().T), rtol=1e-9)


def _moments(rows, **options):
    moments = Moments(**options)
    moments.update(rows)
    return moments


def test_moments_refuse_what_they_cannot_hold():
    moments = _moments(torch.ones(3, 2))
    with pytest.raises(ValueError, match=r"objects \[1\]"):
        moments.update(torch.tensor([[1.0, 2.0], [math.nan, 0.0]]))
    with pytest.raises(ValueError, match="2 and 3 channels"):
        moments.merge(_moments(torch.ones(2, 3)))
    with pytest.raises(ValueError, match="with and without"):
        moments.merge(_moments(torch.ones(2, 2), covariance=False))


@pytest.mark.parametrize("letters", ["BNC", "BCHW", "BTHWDC", "TBCHW", "CHWB", "BC"])
def test_rows_and_norms_of_any_layout(letters, generator):
    sizes = dict(zip("BTNCHWD", (2, 3, 5, 4, 6, 7, 2), strict=True))
    x = torch.randn([sizes[letter] for letter in letters], generator=generator)
    layout = Layout(letters)
    rows = np.einsum(f"{letters}->BC", x.double().numpy()) / (x.numel() / 8)
    np.testing.assert_allclose(layout.rows(x), rows, atol=1e-6)
    kept = "".join(letter for letter in letters if letter in "BTN")
    norms = np.sqrt(np.einsum(f"{letters}->{kept}", x.double().numpy() ** 2))
    np.testing.assert_allclose(layout.norm(x).squeeze(), norms.squeeze(), rtol=1e-5)
    grid = "".join(letter for letter in letters if letter in "HWD")
    field = layout.field(x)
    np.testing.assert_allclose(field, np.einsum(f"{letters}->C{grid}", x.double()) / (x.numel() / field.numel()))
    assert torch.equal(layout.spread(field).squeeze(), field.squeeze().permute(_order(letters, grid)))


def _order(letters, grid):
    stored = f"C{grid}"
    return [stored.index(letter) for letter in letters if letter in stored]


@pytest.mark.parametrize("letters", ["BN", "CHW", "BBC", "BCX", 3])
def test_layouts_that_mean_nothing(letters):
    with pytest.raises(ValueError, match="one letter an axis"):
        Layout(letters)


def test_what_is_not_valid_does_not_count(generator):
    x = torch.randn(2, 5, 4, generator=generator)
    valid = torch.tensor([[True, True, False, False, False], [True] * 5])
    rows = Layout("BNC").rows(x.masked_fill(~valid[..., None], math.nan), valid)
    torch.testing.assert_close(rows, torch.stack([x[0, :2].mean(0), x[1].mean(0)]).double())
    with pytest.raises(ValueError, match="object 0 of the batch has nothing valid"):
        Layout("BNC").rows(x, torch.tensor([[False], [True]]).expand(2, 5))
    with pytest.raises(ValueError, match="does not fit"):
        Layout("BNC").rows(x, torch.ones(2, 4))


def test_capture_sees_every_layer_that_fits_and_changes_nothing(toy):
    x = torch.randn(8, 5, 6)
    before = toy(x)
    with capture(toy, "blocks.*") as records:
        assert torch.equal(toy(x), before)
        toy(x)
    assert list(records) == ["blocks.0", "blocks.1", "blocks.2"]
    rows = toy.blocks[0](x).mean(1)
    assert records["blocks.0"].moments.count == 16
    torch.testing.assert_close(records["blocks.0"].moments.mean, rows.double().mean(0), atol=1e-6, rtol=0)
    assert records["blocks.0"].norm == pytest.approx(toy.blocks[0](x).norm(dim=2).mean().item(), rel=1e-5)
    assert not any(module._forward_hooks for module in toy.modules())


def test_capture_of_a_layer_that_does_not_run_or_is_not_there(toy):
    with pytest.raises(RuntimeError, match="'idle' did not run"), capture(toy, "idle"):
        toy(torch.randn(2, 5, 6))
    with pytest.raises(ValueError, match="no layer"), capture(toy, "decoder.*"):
        pass
    with pytest.raises(ValueError, match=r"objects \[1\]"), capture(toy, "blocks.0"):
        toy(torch.tensor([1.0, math.nan])[:, None, None].expand(2, 5, 6))


def test_memory_does_not_grow_with_windows(toy):
    def peak(windows):
        with capture(toy, "blocks.*"), torch.no_grad():
            toy(torch.randn(4, 5, 6))
            tracemalloc.start()
            for _ in range(windows):
                toy(torch.randn(4, 5, 6))
            now, _ = tracemalloc.get_traced_memory()
            tracemalloc.stop()
        return now

    assert peak(200) < peak(20) + 20_000


def test_memory_of_tensors_is_one_mean_and_one_covariance(toy):
    with capture(toy, "blocks.0") as records:
        for _ in range(50):
            toy(torch.randn(4, 5, 6))
    moments = records["blocks.0"].moments
    tensors = [value for value in vars(moments).values() if isinstance(value, torch.Tensor)]
    assert sorted(t.untyped_storage().nbytes() for t in tensors) == [6 * 8, 36 * 8]
    assert not [v for v in vars(records["blocks.0"]).values() if isinstance(v, (list, torch.Tensor))]


def test_normalised_by_layer_a_vector_has_no_scale(generator):
    x = torch.randn(4, 3, 5, 5, generator=generator)
    rows = [Record("BCHW", normalise="layer").read(scale * x + shift, (), {}) for scale, shift in ((1, 0), (7, 3))]
    torch.testing.assert_close(rows[0], rows[1], atol=1e-5, rtol=0)
    assert Record("BCHW", normalise="layer").read(torch.ones(2, 3, 4, 4), (), {}).abs().max() < 1e-6


def test_places_are_kept_if_wanted_and_must_stay(generator):
    model = nn.Sequential(nn.Identity())
    x = torch.randn(4, 3, 5, 6, generator=generator)
    with capture(model, "0", places=True) as records:
        model(x)
        model(3 * x)
    torch.testing.assert_close(records["0"].field, 2 * x.double().mean(0))
    record = Record("BCHW", places=True)
    record.read(x, (), {})
    with pytest.raises(ValueError, match="the grid changed"):
        record.read(x[..., 1:], (), {})
