import json
import math

import numpy as np
import pytest
import torch

from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn

from aion.steering import Direction, capture, fingerprint

STEER = [
    {"strength": 0.3},
    {"strength": -0.7, "relative": False},
    {"strength": 1.0, "mode": "ablate"},
    {"strength": 0.5, "mode": "clamp"},
    {"strength": -0.5, "mode": "clamp", "relative": False},
]


def groups(toy, count=40, gap=2.0, **options):
    draw = torch.Generator().manual_seed(3)
    x = torch.randn(2, count, 5, 6, generator=draw)
    x[0, ..., 0] += gap
    return {"positive": x[0], "negative": x[1], **options}


def fit(toy, layer="blocks.1", **options):
    return Direction.fit(toy, layer, **groups(toy, **options))


class Grid(nn.Module):
    """A module whose blocks give `(B, C, H, W)`."""

    def __init__(self):
        super().__init__()
        self.blocks = nn.ModuleList(nn.Conv2d(4, 4, 3, padding=1) for _ in range(2))

    def forward(self, x):
        for block in self.blocks:
            x = torch.tanh(block(x))
        return x


@pytest.fixture
def grid():
    return Grid().eval()


def fields(count=8, size=(6, 5)):
    x = torch.randn(2, count, 4, *size, generator=torch.Generator().manual_seed(4))
    x[0, :, 0, :2] += 2
    return {"positive": x[0], "negative": x[1]}


# ---- fitting


def test_the_mean_direction_is_the_difference_of_means(toy):
    given = groups(toy)
    rows = [toy.blocks[0](given[name]).double().mean(1) for name in ("positive", "negative")]
    direction = Direction.fit(toy, "blocks.0", **given, data={"made": "here"})
    torch.testing.assert_close(direction.vector.double(), rows[0].mean(0) - rows[1].mean(0), atol=1e-6, rtol=0)
    within = (np.cov(rows[0].detach().T) + np.cov(rows[1].detach().T)) / 2
    np.testing.assert_allclose(direction.covariance, within, atol=1e-6)
    unit = direction.unit().vector.double().numpy()
    gap = (rows[0].mean(0) - rows[1].mean(0)).detach().numpy() @ unit
    assert direction.separation == pytest.approx(gap / math.sqrt(unit @ within @ unit), rel=1e-4)
    assert direction.n == (40, 40)
    assert direction.model == fingerprint(toy)


def test_batches_and_layers_at_once_change_nothing(toy):
    given = groups(toy)
    one = fit(toy, "blocks.0")
    pieces = {name: iter([x[:7], x[7:8], x[8:]]) for name, x in given.items()}
    many = Direction.fit_layers(toy, "blocks.*", **pieces)
    assert list(many) == ["blocks.0", "blocks.1", "blocks.2"]
    torch.testing.assert_close(many["blocks.0"].vector, one.vector)
    torch.testing.assert_close(many["blocks.0"].covariance, one.covariance)


def test_lda_is_that_of_sklearn(toy):
    from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

    given = groups(toy)
    rows = [toy.blocks[0](given[name]).detach().double().mean(1).numpy() for name in ("positive", "negative")]
    y = np.repeat([1, 0], 40)
    theirs = LinearDiscriminantAnalysis(solver="lsqr", shrinkage=0.1).fit(np.concatenate(rows), y).coef_[0]
    ours = fit(toy, "blocks.0", method="lda", shrinkage=0.1).vector.double().numpy()
    cosine = ours @ theirs / np.linalg.norm(ours) / np.linalg.norm(theirs)
    assert cosine == pytest.approx(1, abs=1e-6)


def test_pairs_count_alike_however_far_apart_they_are(toy):
    x = torch.randn(6, 5, 6)
    direction = torch.tensor([1.0, 0, 0, 0, 0, 0])
    far = torch.tensor([0.0, 1, 0, 0, 0, 0])
    moved = x + torch.cat([direction.expand(5, 6), 1000 * far[None]])[:, None]
    paired = Direction.fit(nn.Sequential(nn.Identity()).eval(), "0", positive=moved, negative=x, method="paired")
    mean = Direction.fit(nn.Sequential(nn.Identity()).eval(), "0", positive=moved, negative=x)
    torch.testing.assert_close(paired.unit().vector, (5 * direction + far) / 26**0.5, atol=1e-4, rtol=0)
    assert mean.unit().vector[1] > 0.99
    with pytest.raises(ValueError, match="paired"):
        fit(toy, method="paired", negative=torch.randn(3, 5, 6))


def test_halves_differ_by_chance_alone(toy):
    direction = fit(toy, "blocks.0", halves=200, count=40)
    assert direction.halves.shape == (400, 6)
    expected = 4 * direction.covariance.trace() / 40
    assert direction.halves.square().sum(1).mean() == pytest.approx(expected.item(), rel=0.2)
    assert direction.halves.mean(0).norm() < 0.2 * direction.halves.norm(dim=1).mean()


def test_padding_does_not_count(toy):
    given = groups(toy)
    ragged = {name: torch.cat([x, torch.full((40, 3, 6), math.nan)], 1) for name, x in given.items()}
    valid = lambda x: torch.tensor([True] * 5 + [False] * 3)  # noqa: E731
    torch.testing.assert_close(
        Direction.fit(toy, "blocks.0", **ragged, valid=valid).vector, fit(toy, "blocks.0").vector
    )


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"method": "median"}, "did you mean 'mean'"),
        ({"shrinkage": 0.0}, "shrinkage"),
        ({"places": True, "method": "lda"}, "places"),
        ({"normalise": "batch"}, "normalisation"),
        ({"positive": []}, "no objects"),
        ({"layout": "BXC"}, "layout"),
        ({"layout": "BCHW"}, "does not fit"),
        ({"negative": torch.full((3, 5, 6), math.nan)}, "objects \\[0, 1, 2\\]"),
        ({"gap": 0.0, "negative": torch.zeros(4, 5, 6), "positive": torch.zeros(4, 5, 6)}, "no direction"),
    ],
)
def test_groups_that_give_no_direction_are_refused(toy, change, match):
    with pytest.raises(ValueError, match=match):
        Direction.fit(toy, "blocks.1", **{**groups(toy), **{k: v for k, v in change.items() if k != "gap"}})


def test_fit_wants_one_layer_that_exists_and_no_dropout(toy):
    with pytest.raises(ValueError, match=r"did you mean 'blocks\.1'"):
        fit(toy, "block.1")
    with pytest.raises(ValueError, match="fits 3 layers"):
        fit(toy, "blocks.*")
    with pytest.raises(ValueError, match="eval"):
        fit(toy.train())
    with pytest.raises(RuntimeError, match="did not run"):
        Direction.fit(toy.eval(), "idle", **groups(toy))


# ---- arithmetic


def test_arithmetic(toy):
    a, b = fit(toy), fit(toy, method="lda")
    torch.testing.assert_close((a + b).vector, a.vector + b.vector)
    torch.testing.assert_close((a - b).vector, a.vector - b.vector)
    torch.testing.assert_close((2 * -a).vector, -2 * a.vector)
    assert a.unit().length == pytest.approx(1)
    assert a.cosine(-3 * a) == pytest.approx(-1)
    assert (-a).separation == pytest.approx(a.separation)
    left = b.orthogonalize([a])
    assert left.cosine(a) == pytest.approx(0, abs=1e-6)
    assert left.orthogonalize(a).cosine(left) == pytest.approx(1)
    with pytest.raises(ValueError, match="nothing is left"):
        (3 * a).orthogonalize([b, a])


def test_directions_of_different_places_have_no_angle(toy):
    a, b = fit(toy), fit(toy, "blocks.0")
    for operation in (a.cosine, a.orthogonalize, a.__add__, a.__sub__):
        with pytest.raises(ValueError, match="different layer"):
            operation(b)
    with pytest.raises(ValueError, match="not zero"):
        a * 0.0
    with pytest.raises(TypeError):
        a + 1.0


# ---- storage


def test_a_saved_direction_is_the_same(toy, tmp_path):
    direction = fit(toy, data={"name": "toy"})
    direction.save(tmp_path / "d.safetensors")
    loaded = Direction.load(tmp_path / "d.safetensors", toy)
    for name in ("vector", "means", "covariance", "halves"):
        assert torch.equal(getattr(loaded, name), getattr(direction, name))
    for name in ("layer", "layout", "model", "method", "normalise", "n", "norm", "data"):
        assert getattr(loaded, name) == getattr(direction, name)
    assert [path.name for path in tmp_path.iterdir()] == ["d.safetensors"]
    with safe_open(tmp_path / "d.safetensors", "pt") as file:
        assert json.loads(file.metadata()["direction"])["layer"] == "blocks.1"


def test_what_is_no_direction_is_refused(toy, tmp_path):
    path = tmp_path / "d.safetensors"
    with pytest.raises(FileNotFoundError, match="no direction"):
        Direction.load(path)
    path.write_bytes(b"x" * 100)
    with pytest.raises(ValueError, match="holds no direction"):
        Direction.load(path)
    save_file({"vector": torch.ones(3)}, path)
    with pytest.raises(ValueError, match="holds no direction"):
        Direction.load(path)
    save_file({"vector": torch.ones(3)}, path, {"direction": json.dumps({"format": 99})})
    with pytest.raises(ValueError, match="another format"):
        Direction.load(path)
    fit(toy).save(path)
    toy.blocks[0].weight.data.mul_(2)
    with pytest.raises(ValueError, match="is of a model"):
        Direction.load(path, nn.Sequential(nn.Linear(2, 2)))


# ---- steering


@pytest.mark.parametrize("options", STEER)
def test_leaving_restores_every_bit(toy, options):
    direction, x = fit(toy), torch.randn(4, 5, 6)
    before, hooks = toy(x), [len(module._forward_hooks) for module in toy.modules()]
    with direction.applied(toy, **options):
        assert not torch.equal(toy(x), before)
        with direction.applied(toy, **options), direction.applied(toy, 0.1):
            toy(x)
    assert torch.equal(toy(x), before)
    with pytest.raises(KeyError), direction.applied(toy, **options):
        raise KeyError
    with pytest.raises(RuntimeError), direction.applied(toy, **options):
        toy(torch.randn(4, 5, 7))
    assert torch.equal(toy(x), before)
    assert hooks == [len(module._forward_hooks) for module in toy.modules()]


@pytest.mark.parametrize("mode", ["add", "ablate", "clamp"])
def test_strength_0_changes_no_bit(toy, mode):
    direction, x = fit(toy), torch.randn(4, 5, 6)
    before = toy(x)
    with direction.applied(toy, 0, mode):
        assert torch.equal(toy(x), before)
        with direction.applied(toy, 0.2):
            steered = toy(x)
    with direction.applied(toy, 0.2), direction.applied(toy, 0.0, mode):
        assert torch.equal(toy(x), steered)


def test_strength_is_in_units_of_the_activation(toy):
    direction, x = fit(toy, "blocks.0"), torch.randn(4, 5, 6)
    plain = toy.blocks[0](x)
    with direction.applied(toy, 0.3):
        push = toy.blocks[0](x) - plain
    torch.testing.assert_close(push.norm(dim=2), 0.3 * plain.norm(dim=2))
    with direction.applied(toy, 0.3, relative=False):
        push = toy.blocks[0](x) - plain
    torch.testing.assert_close(push, 0.3 * direction.vector.expand_as(push), atol=1e-6, rtol=0)


def test_a_push_on_a_grid_is_in_units_of_the_frame(grid):
    direction = Direction.fit(grid, "blocks.0", **fields(), places=True)
    x = fields()["negative"]
    plain = grid.blocks[0](x)
    for spatial in ("drop", "exact", "interp", "pad"):
        with direction.applied(grid, 0.3, spatial=spatial):
            push = grid.blocks[0](x) - plain
        torch.testing.assert_close(push.flatten(1).norm(dim=1), 0.3 * plain.flatten(1).norm(dim=1))
        flat = push.std((2, 3)).max() < 1e-6
        assert flat == (spatial == "drop")


def test_ablate_takes_the_coordinate_out_and_clamp_sets_it(toy):
    direction, x = fit(toy, "blocks.0"), torch.randn(4, 5, 6)
    unit = direction.unit().vector
    with direction.applied(toy, 1.0, "ablate"):
        assert (toy.blocks[0](x) @ unit).abs().max() < 1e-5
    for strength, group in ((1.0, 0), (-1.0, 1)):
        with direction.applied(toy, strength, "clamp", relative=False):
            coordinate = toy.blocks[0](x) @ unit
        torch.testing.assert_close(coordinate, (direction.means[group] @ unit).expand_as(coordinate))


def test_one_object_does_not_depend_on_its_batch_mates_or_padding(toy):
    direction, x = fit(toy), torch.randn(4, 5, 6)
    for options in STEER:
        with direction.applied(toy, **options):
            together, alone = toy(x), toy(x[2:3, :3])
        torch.testing.assert_close(together[2:3, :3], alone)


def test_steps_choose_calls_and_region_chooses_places(toy):
    direction, x = fit(toy, "blocks.0"), torch.randn(4, 5, 6)
    plain = toy.blocks[0](x)
    with direction.applied(toy, 0.3, steps=range(1, 3)):
        changed = [not torch.equal(toy.blocks[0](x), plain) for _ in range(4)]
    assert changed == [False, True, True, False]
    region = torch.tensor([True, False, False, True, False])
    with direction.applied(toy, 0.3, region=region):
        moved = (toy.blocks[0](x) != plain).any(2)
    assert torch.equal(moved, region.expand(4, 5))
    with direction.applied(toy, 0.3, region=torch.eye(4)[:, 0:1]):
        moved = (toy.blocks[0](x) != plain).any(2).any(1)
    assert moved.tolist() == [True, False, False, False]
    with pytest.raises(ValueError, match="region has the shape"), direction.applied(toy, 0.3, region=torch.ones(7)):
        toy(x)


def test_places_are_resized_cropped_or_must_fit(grid):
    direction = Direction.fit(grid, "blocks.0", **fields(size=(6, 5)), places=True)
    assert direction.vector.shape == (4, 6, 5)
    assert direction.channels().vector.shape == (4,)
    x = fields(size=(8, 4))["negative"]
    before = grid(x)
    for spatial in ("interp", "pad", "drop"):
        with direction.applied(grid, 0.2, spatial=spatial):
            assert not torch.equal(grid(x), before)
    wrong = pytest.raises(ValueError, match=r"places \(6, 5\), the layer \(8, 4\)")
    with wrong, direction.applied(grid, 0.2, spatial="exact"):
        grid(x)
    plain = grid.blocks[0](x)
    with direction.applied(grid, 1.0, spatial="pad", relative=False):
        push = grid.blocks[0](x) - plain
    torch.testing.assert_close(push[0, :, 1:7], direction.vector[:, :, :4], atol=1e-5, rtol=0)
    assert push[0, :, [0, 7]].abs().max() < 1e-5


def test_a_field_without_a_mean_cannot_be_dropped(grid):
    direction = Direction.fit(grid, "blocks.0", **fields(), places=True)
    field = direction.vector - direction.vector.flatten(1).mean(1)[:, None, None]
    level = Direction(field, direction.layer, direction.layout, direction.model)
    with pytest.raises(ValueError, match="leaves nothing"), level.applied(grid, 0.3):
        pass
    with level.applied(grid, 0.3, spatial="exact"):
        grid(fields()["negative"])


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"strength": math.nan}, "finite number"),
        ({"strength": "0.3"}, "finite number"),
        ({"mode": "adds"}, "did you mean 'add'"),
        ({"spatial": "droop"}, "did you mean 'drop'"),
        ({"spatial": "exact"}, "needs a direction with places"),
        ({"steps": []}, "steps"),
        ({"steps": 3}, "steps"),
        ({"region": torch.zeros(5)}, "selects no place"),
    ],
)
def test_options_that_mean_nothing_are_refused(toy, options, match):
    with pytest.raises(ValueError, match=match), fit(toy).applied(toy, **{"strength": 0.3, **options}):
        pass


def test_nothing_is_ever_steered_silently_not(toy):
    direction, x = fit(toy), torch.randn(2, 5, 6)
    with pytest.raises(RuntimeError, match="did not run"), direction.applied(toy, 0.3):
        pass
    with pytest.raises(RuntimeError, match="ran 1 times, none of them"), direction.applied(toy, 0.3, steps=[4]):
        toy(x)
    other = type(toy)().eval()
    other.blocks[0].weight.data.mul_(2)
    with pytest.raises(ValueError, match="of a model"), direction.applied(other, 0.3):
        pass
    with direction.applied(other, 0.3, strict=False):
        other(x)
    with pytest.raises(ValueError, match="no layer"), direction.applied(nn.Linear(6, 6), 0.3, strict=False):
        pass
    wide = nn.Module()
    wide.blocks = nn.ModuleList(nn.Linear(6, 9) for _ in range(2))
    wrong = pytest.raises(ValueError, match=r"6 channels, layer 'blocks\.1' 9")
    with wrong, direction.applied(wide, 0.3, strict=False):
        wide.blocks[1](x)
    summed = fit(toy) + fit(toy, method="lda")
    for direction in (summed, fit(toy, normalise="layer")):
        with pytest.raises(ValueError, match="clamp needs"), direction.applied(toy, 0.3, "clamp"):
            pass


def test_tuples_keep_what_else_they_hold(toy):
    direction, x = fit(toy, "pair"), torch.randn(2, 5, 6)
    plain = toy.pair(x)
    with direction.applied(toy, 0.3):
        steered, second = toy.pair(x)
    assert not torch.equal(steered, plain[0])
    assert torch.equal(second, plain[1])
    with pytest.raises(TypeError, match="returns dict"), capture(toy, "odd"):
        toy.odd(x)


# ---- where models run


def test_under_compile(toy):
    direction, x = fit(toy), torch.randn(2, 5, 6)
    compiled = torch.compile(toy, backend="eager")
    before = compiled(x)
    with direction.applied(toy, 0.3):
        expected = toy(x)
    with direction.applied(compiled, 0.3):
        assert torch.equal(compiled(x), expected)
    assert torch.equal(compiled(x), before)
    fresh = torch.compile(type(toy)().eval(), backend="eager")
    fresh.load_state_dict(compiled.state_dict())
    with direction.applied(fresh, 0.3):
        assert torch.equal(fresh(x), expected)
    assert torch.equal(fresh(x), before)
    torch._dynamo.reset()


def test_under_autocast(toy):
    direction, x = fit(toy), torch.randn(2, 5, 6)
    with torch.autocast("cpu", torch.bfloat16):
        before, half = toy(x), toy.blocks[1](x)
        with direction.applied(toy, 0.5):
            steered, pushed = toy(x), toy.blocks[1](x)
        assert torch.equal(toy(x), before)
    assert pushed.dtype == half.dtype == torch.bfloat16
    with direction.applied(toy, 0.5):
        torch.testing.assert_close(steered, toy(x), atol=0.05, rtol=0.05)
        torch.testing.assert_close(pushed.float(), toy.blocks[1](x), atol=0.05, rtol=0.05)


def test_under_distributed_data_parallel(toy, tmp_path):
    direction, x = fit(toy), torch.randn(2, 5, 6)
    with direction.applied(toy, 0.3):
        expected = toy(x)
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    try:
        wrapped = nn.parallel.DistributedDataParallel(toy)
        before = wrapped(x)
        with direction.applied(wrapped, 0.3):
            assert torch.equal(wrapped(x), expected)
        assert torch.equal(wrapped(x), before)
        torch.testing.assert_close(fit(wrapped).vector, direction.vector)
    finally:
        torch.distributed.destroy_process_group()


def test_gradients_flow_through_a_push(toy):
    direction = fit(toy)
    x = torch.randn(2, 5, 6, requires_grad=True)
    with direction.applied(toy, 0.3):
        toy(x).sum().backward()
    assert x.grad.isfinite().all()
    assert x.grad.any()
