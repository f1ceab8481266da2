import pytest
import torch

from aion.physics.builders import nano
from aion.physics.flow import Flow
from aion.physics.normalise import window_scales
from aion.physics.walrus import Walrus

FIELDS = ["tracer", "velocity_x", "velocity_y", "velocity_z", "pressure"]
PLANE = ["tracer", "velocity_x", "velocity_y"]


@pytest.fixture
def model():
    return nano(FIELDS, dim=32, depth=2, middle=8).eval()


def plane(generator, batch=2, frames=4, boundaries=("periodic", "wall"), space=(32, 16)):
    values = torch.randn(batch, frames, 3, *space, generator=generator)
    return Flow(values.cumsum(1), PLANE, boundaries, dt=0.1, system="drawn", regimes=["a"] * batch)


def volume(generator, batch=1):
    return Flow(torch.randn(batch, 3, 4, 16, 16, 16, generator=generator), FIELDS[1:], ["periodic", "open", "wall"])


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def test_planes_and_volumes_go_through_the_same_blocks(model, generator):
    seen = []
    handle = model.blocks[1].register_forward_hook(lambda module, given, result: seen.append(tuple(result.shape)))
    with torch.no_grad():
        assert model(plane(generator)).shape == (2, 4, 3, 32, 16)
        assert model(volume(generator), stride=8).shape == (1, 3, 4, 16, 16, 16)
        line = Flow(torch.randn(1, 3, 1, 32, generator=generator), ["tracer"], ["periodic"])
        assert model(line).shape == (1, 3, 1, 32)
    handle.remove()
    assert seen == [(2, 4, 8, 5, 1, 32), (1, 3, 2, 3, 3, 32), (1, 3, 8, 1, 1, 32)]


def test_gradients_reach_every_parameter(model, generator):
    model.train()
    loss = model.loss(plane(generator), generator)["loss"] + model.loss(volume(generator), generator)["loss"]
    loss.backward()
    assert [n for n, p in model.named_parameters() if p.grad is None or p.grad.abs().max() == 0] == []


def test_a_trajectory_does_not_depend_on_its_batch_mates(model, generator):
    window = plane(generator, 3)
    with torch.no_grad():
        together = model(window, generator=seeded())
        alone = torch.cat([model(window[i], generator=seeded()) for i in range(3)])
        torch.testing.assert_close(together, alone, atol=1e-5, rtol=1e-4)
        together, alone = model.rollout(window, 3), model.rollout(window[1], 3)
    torch.testing.assert_close(together.flow.values[1:2], alone.flow.values, atol=1e-4, rtol=1e-4)


def test_the_order_of_fields_does_not_matter(model, generator):
    window = plane(generator)
    turned = Flow(window.values.flip(2), PLANE[::-1], window.boundaries)
    with torch.no_grad():
        torch.testing.assert_close(model(turned).flip(2), model(window), atol=1e-5, rtol=1e-4)


def test_units_of_fields_pass_through(model, generator):
    window = plane(generator)
    with torch.no_grad():
        loud = model(window.replace(values=window.values * 1000))
        torch.testing.assert_close(loud, model(window) * 1000, rtol=1e-3, atol=1e-2)


def test_no_frame_sees_later_ones_but_through_the_scale(model, generator):
    window = plane(generator)
    other = window.values.clone()
    other[:, -1] = other[:, -1].roll(5, -2)  # the same scale of values
    axes = model.axes(window)
    one, two = torch.ones(2, 1, 3, 1, 1), window.replace(values=other)
    with torch.no_grad():
        first, second = model._increments(window, one, axes, None), model._increments(two, one, axes, None)
    torch.testing.assert_close(first[:, :-1], second[:, :-1], atol=1e-6, rtol=1e-5)
    assert not torch.allclose(first[:, -1], second[:, -1])


def test_roll_outs_are_steps_of_the_model_on_a_moving_window(model, generator):
    window = plane(generator, frames=6)
    result = model.rollout(window, 5, generator=seeded(3))
    assert result.diverged.tolist() == [-1, -1]
    assert result.flow.regimes == window.regimes
    values, draws = window.values[:, -model.context :], seeded(3)
    with torch.no_grad():
        for step in range(5):
            change = model(window.replace(values=values), generator=draws)
            values = torch.cat([values[:, 1:], values[:, -1:] + change[:, -1:]], dim=1)
            torch.testing.assert_close(result.flow.values[:, step], values[:, -1])


def test_the_same_draws_give_the_same_roll_out_and_others_another(model, generator):
    window = plane(generator)
    one, two = (model.rollout(window, 3, generator=seeded(1)).flow.values for _ in range(2))
    assert torch.equal(one, two)
    assert not torch.equal(one, model.rollout(window, 3, generator=seeded(2)).flow.values)
    still = [model.rollout(window, 3, jitter=False, generator=seeded(seed)).flow.values for seed in (1, 2)]
    assert torch.equal(*still)
    assert torch.equal(model.rollout(window, 3).flow.values, model.rollout(window, 3).flow.values)


def test_what_goes_astray_is_told_with_its_step_and_leaves_the_others_alone(model, generator):
    window, count = plane(generator), []

    def push(module, given, result):
        count.append(1)
        if len(count) != 2:
            return result
        result = result.clone()
        result[1] = 1e9
        return result

    sound = model.rollout(window[0], 4)
    handle = model.decoders["2"].register_forward_hook(
        lambda module, given, result: push(module, given, result.unflatten(0, (2, -1))).flatten(0, 1)
    )
    result = model.rollout(window, 4)
    assert result.diverged.tolist() == [-1, 1]
    assert torch.isfinite(result.flow.values[1, 0]).all()
    assert result.flow.values[1, 1:].isnan().all()
    torch.testing.assert_close(result.flow.values[:1], sound.flow.values, atol=1e-4, rtol=1e-4)
    handle.remove()
    handle = model.decoders["2"].register_forward_hook(lambda module, given, result: result * torch.nan)
    result = model.rollout(window, 3)
    handle.remove()
    assert result.diverged.tolist() == [0, 0]
    assert result.flow.values.isnan().all()
    assert len(model.decoders["2"]._forward_hooks) == 0


def test_constant_fields_stay(model):
    values = torch.full((1, 4, 3, 16, 16), 2.0)
    result = model.rollout(Flow(values, PLANE, ["periodic"] * 2), 3)
    torch.testing.assert_close(result.flow.values, values[:, :3], atol=1e-4, rtol=0)


def test_strides_are_chosen_by_the_caller_a_budget_or_the_model(model, generator):
    window = plane(generator, space=(64, 64), boundaries=("periodic",) * 2)
    assert [axis.stride for axis in model.axes(window)] == [8, 8, 1]
    assert [axis.stride for axis in model.axes(window, tokens=16)] == [16, 16, 1]
    assert [axis.stride for axis in model.axes(window, stride=(4, 16))] == [4, 16, 1]
    with torch.no_grad():
        assert model(window, stride=(4, 16)).shape == window.values.shape


def test_the_token_grid_rolls_between_blocks_and_comes_back(generator):
    model = nano(FIELDS, dim=32, depth=2, middle=8, roll_latent=True).eval()
    window = plane(generator)
    axes = model.axes(window)
    x = torch.randn(1, 2, 4, 3, 1, 32, generator=generator)
    for block in model.blocks:
        block.forward = lambda x, first=0: x
    assert torch.equal(model._mix(x, axes, seeded(1)), x)


def test_the_loss_falls(generator):
    model = nano(PLANE, dim=32, depth=1, middle=8)
    x = torch.arange(16) * 2 * torch.pi / 16
    waves = torch.stack([torch.sin(x[:, None] + x + 0.3 * t) for t in range(5)])[None, :, None].expand(1, 5, 3, 16, 16)
    flow = Flow(waves.contiguous(), PLANE, ["periodic"] * 2)
    optimizer, losses = torch.optim.AdamW(model.parameters(), 3e-3), []
    for _ in range(25):
        loss = model.loss((flow, {"stride": 4}), generator)["loss"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert sum(losses[-5:]) < 0.6 * sum(losses[:5])


def test_increments_lead_from_what_is_given_back_to_the_true_frames(model, generator):
    flow = plane(generator, frames=6)
    for parameter in model.decoders["2"].conv2.parameters():
        torch.nn.init.zeros_(parameter)  # predicts that nothing changes
    scale = window_scales(flow.values[:, :4], flow.fields)[1]
    pushed = model.loss((flow, {"pushed": True, "tokens": 64}), seeded())["loss"]  # given frames are those before
    torch.testing.assert_close(pushed, ((flow.values[:, 2:] - flow.values[:, :4]) / scale).abs().mean())
    window = flow.window(0, 5)
    still, alone = model.loss(window)["loss"], model.loss((window, {"noise": 0.7}))["loss"]
    assert torch.equal(still, alone)  # without a generator
    drawn = torch.randn(2, 4, 3, 32, 16, generator=seeded(1))
    wanted = (window.values.diff(dim=1) / scale - 0.7 * drawn).abs().mean()
    torch.testing.assert_close(model.loss((window, {"noise": 0.7}), seeded(1))["loss"], wanted)


def test_models_come_back_from_disk(model, generator, tmp_path):
    model.provenance = {"name": "tiny"}
    digest = model.save_pretrained(tmp_path / "model")
    loaded = Walrus.from_pretrained(tmp_path / "model")
    window = plane(generator)
    with torch.no_grad():
        assert torch.equal(loaded(window), model(window))
    assert loaded.config == model.config
    assert loaded.provenance == {"name": "tiny"}
    assert loaded.save_pretrained(tmp_path / "model") == digest
    loaded.blocks[0].time.proj.bias.data += 1
    assert loaded.save_pretrained(tmp_path / "model") != digest


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda flow: flow.replace(fields=["tracer", "velocity_x", "velocity_w"]), "did you mean 'velocity_"),
        (lambda flow: flow.window(0, 1), "at least 2 frames"),
        (lambda flow: flow.replace(values=flow.values[..., :30, :]), "30x16"),
        (lambda flow: flow.replace(values=flow.values[..., :4, :4]), "no strides"),
    ],
)
def test_windows_that_cannot_be_continued_are_refused(model, generator, change, message):
    for use in (model, lambda window: model.rollout(window, 2)):
        with pytest.raises(ValueError, match=message):
            use(change(plane(generator)))


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_values_that_are_not_finite_are_named(model, generator, value):
    window = plane(generator)
    window.values[1, 2, 1, 3, 3] = value
    with pytest.raises(ValueError, match=r"field 'velocity_x' of trajectory 1 is not in frame 2"):
        model(window)


def test_models_that_make_no_sense_are_refused(model, generator):
    for options in (
        {"dim": 30, "heads": 4},
        {"dim": 16, "heads": 4},
        {"depth": 0},
        {"heads": 0},
        {"context": 0},
        {"fields": ["a", "a"]},
    ):
        with pytest.raises(ValueError, match="Walrus: wanted"):
            Walrus(**{"fields": FIELDS, **options})
    with pytest.raises(ValueError, match="at least 1 step"):
        model.rollout(plane(generator), 0)


def test_other_precisions_change_rounding_alone(model, generator):
    window = plane(generator)
    with torch.no_grad():
        exact = model(window)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert (model(window) - exact).abs().mean() < 0.05 * exact.abs().mean()
        double = model.double()(window.to(torch.float64))
    torch.testing.assert_close(double, exact.double(), atol=1e-4, rtol=1e-3)
