import importlib
import sys

import pytest
import torch

from aion.physics.flow import Flow
from aion.physics.metrics import persistence


@pytest.fixture(scope="module")
def scripts(root):
    sys.path.insert(0, str(root / "benchmarks"))
    try:
        yield importlib.import_module("physics"), importlib.import_module("physics_baselines")
    finally:
        sys.path.remove(str(root / "benchmarks"))


def turning(batch=4, frames=40, size=8):
    """Waves that move along x at one speed: a linear system of two components."""
    x = torch.arange(size) * 2 * torch.pi / size
    phase = torch.arange(batch)[:, None, None] + 0.4 * torch.arange(frames)[:, None] + x
    values = torch.sin(phase)[:, :, None, :, None].expand(-1, -1, 1, -1, size)
    return Flow(values.contiguous(), ["a"], ["periodic"] * 2)


def test_the_linear_model_continues_a_linear_system(scripts):
    _, baselines = scripts
    flow = turning()
    forecast = baselines.LinearModel(flow, rank=4, ridge=1e-9).forecast(flow.window(0, 4), 30)
    torch.testing.assert_close(forecast.values, flow.window(4, 30).values, atol=1e-2, rtol=0)


def test_the_unet_is_as_large_as_asked_and_moves_with_periodic_grids(scripts, generator):
    _, baselines = scripts
    width = baselines.width_for(["a", "b"], 3, 500_000)
    unet = baselines.UNet(["a", "b"], width, 3)
    assert sum(p.numel() for p in unet.parameters()) == pytest.approx(500_000, rel=0.2)
    unet.reset_parameters(generator)
    flow = Flow(torch.randn(2, 4, 1, 32, 32, generator=generator), ["b"], ["periodic"] * 2)
    unet.loss((flow, {}))["loss"].backward()
    moved = flow.replace(values=flow.values.roll((16, 16), (3, 4)))
    one, other = (unet.forecast(given.window(0, 3), 2).values for given in (flow, moved))
    torch.testing.assert_close(one.roll((16, 16), (3, 4)), other, atol=1e-4, rtol=1e-4)


def test_scores(scripts):
    script, _ = scripts
    flow = turning()
    perfect = script.evaluate(lambda window, steps: flow.window(4, steps), flow, 4, "frame")
    assert perfect == {"1": 0, "6-12": 0, "13-30": 0}
    assert min(script.evaluate(persistence, flow, 4, "frame").values()) > 0.3


def test_the_summary_counts_where_the_model_is_ahead(scripts):
    script, _ = scripts

    def cells(*values):
        return [None if v is None else {"scores": {"1": v, "6-12": 2 * v}} for v in values]

    rows = {
        "walrus": cells(0.1, 0.2),
        "no jitter": cells(0.2, 0.4),
        "walrus, short": cells(0.05),
        "persistence": cells(1.0, None),
    }
    strides = [{"strides": {"8x8": [0.1, 2.0], **{key: [0.2, 1.0] for key in ("4x4", "4x8", "8x16", "16x16")}}}]
    text = script.summary(
        {"shear": {**rows, "linear": cells(0.1, 0.1), "strides": strides}, "sound": {"walrus": cells(0.3)}}
    )
    assert "| shear | 1 | 0.150 ± 0.050 | 0.300 ± 0.100 | 0.050 | 1.000 | 0.100 ± 0.000 | - |" in text
    assert "| sound | 6-12 | 0.600 | - | - | - | - | - |" in text
    assert "walrus in 0 of 2 cells." in text  # of those that have a contender
    assert "walrus, short in 2 of 2 cells." in text
    assert "- steps 1: 50 % (1 systems)" in text
    assert "| shear | 1.000 (1.00) | 2.000 (0.50) |" in text


def test_cells_are_made_once_and_again_if_what_they_depend_on_changed(scripts, tmp_path):
    cells = importlib.import_module("cells")
    made = []

    def make():
        made.append(1)
        return {"value": len(made)}

    assert cells.Cells(tmp_path).get("a/b", {"seed": 1}, make)["value"] == 1
    assert cells.Cells(tmp_path).get("a/b", {"seed": 1}, make)["value"] == 1
    assert cells.Cells(tmp_path).get("a/b", {"seed": 2}, make)["value"] == 2
    dry = cells.Cells(tmp_path, dry=True)
    assert dry.get("c", {}, make) is None
    assert dry.missing == ["c"]
    assert cells.Cells(tmp_path, only=("d",)).get("c", {}, make) is None
    assert cells.Cells(tmp_path).get("c", {}, make, ready=False) is None
    lost = cells.Cells(tmp_path)
    assert lost.get("lost", {}, lambda: int("no number")) is None
    assert (lost.missing, (tmp_path / "lost.json").exists()) == (["lost"], False)
    parts = [cells.Cells(tmp_path, part=(part, 2)) for part in (0, 1)]
    wanted = [[part.get(f"p{part.part[0]}{k}", {}, make) is not None for k in range(3)] for part in parts]
    assert wanted == [[True, False, True], [False, True, False]]


def test_the_summary_of_steering_says_what_was_reached(scripts):
    summary = importlib.import_module("steering_summary").summary
    name = "cross-stream fraction"

    def regime(odd, p, ratio):
        response = {"strengths": [0.1, 0.2], "odd": [odd / 2, odd], "even": [0.0, 0.1], "success": [1.0, 0.95]}
        response |= {"spearman": 1.0, "slope_interval": [0.1, 0.3]}
        null = {name: {"p": p, "ratio": ratio}}
        return {"regime": {"responses": {name: response}, "nulls": dict.fromkeys(("covariance", "split_half"), null)}}

    found = {("layer", "shear", 0): {"layer": "blocks.1"}, ("cosines", "shear", 0): {"cosines": {"speed": -0.5}}}
    for kind in ("dose", "covariance", "split_half"):
        found["shear", "shear", "vortex", kind, 0] = regime(0.4, 0.005, 3.5)
        found["shear", "shear", "laminar", kind, 0] = regime(0.2, 0.2, 0.5) if kind != "split_half" else None
    text = summary(found, ["shear"], ["shear"], 1)
    assert "Layers chosen: blocks.1." in text
    assert "| shear → shear | vortex | 1 | +0.400 | +0.100 | +1.00 | 1 | 95 % | 0.0050 | +3.5 |" in text
    assert "| laminar | 1 of 1 | 0 of 1 | 0 of 1 | 1 of 1 |" in text  # controls are not whole
    assert "| vortex | 1 of 1 | 1 of 1 | 1 of 1 | 1 of 1 |" in text
    assert "| speed | -0.50 |" in text


def test_flows_to_steer_are_pairs_that_no_recipe_trains_on(scripts, tmp_path):
    pytest.importorskip("h5py")
    flows = importlib.import_module("steering_flows")
    one, other = flows.pairs("shear", 2, 5, 4, tmp_path, 16)
    assert set(one.regimes) == {"vortex"}
    assert set(other.regimes) == {"laminar"}
    torch.testing.assert_close(one.values[:, 0], other.values[:, 0], atol=1e-4, rtol=0)
    assert not torch.allclose(one.values[:, -1], other.values[:, -1], atol=1e-4)
    seed = {path.name for path in tmp_path.iterdir()}
    flows.pairs("shear", 2, 5, 4, tmp_path, 16)
    assert {path.name for path in tmp_path.iterdir()} == seed


class Numbered:
    """A sky of bright galaxies of which every hundredth is dusty and all others are dust-free."""

    def labels(self, number):
        dusty = number % 100 == 0
        facts = {"magnitude": 17.0, "kind": 0.0, "log_ssfr": -12.0, "dust": torch.where(dusty, 0.5, 0.0)}
        return {name: torch.as_tensor(value).expand(len(number)) for name, value in facts.items()}


def test_galaxies_are_looked_for_until_there_are_enough_or_none_are_left(scripts, monkeypatch):
    script = importlib.import_module("steering_galaxies")
    found = script.bright_galaxies(Numbered(), {"dusty": 96, "quiescent": 3})
    assert found["dusty"].tolist() == list(range(0, 9600, 100))
    assert found["quiescent"].tolist() == [0, 1, 2]
    monkeypatch.setattr(script, "SEARCHED", 7000)
    with pytest.raises(SystemExit, match="hold 70 bright dusty galaxies, wanted 96: take at most 73% of"):
        script.bright_galaxies(Numbered(), {"dusty": 96, "quiescent": 3})
