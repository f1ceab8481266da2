import json
import math

from typing import NamedTuple

import pytest
import torch

from aion.steering import Direction, capture, steering_report
from aion.steering.study import measured
from aion.steering.trial import Trial

DIAGNOSTICS = {"first": lambda y: y[..., 0].mean(1).exp(), "second": lambda y: y[..., 1].mean(1).exp()}


class Chain(torch.nn.Module):
    """A map that is linear in its hidden vector: the effect of a push is known."""

    def __init__(self):
        super().__init__()
        self.blocks = torch.nn.ModuleList(torch.nn.Linear(6, 6, bias=False) for _ in range(2))
        for block in self.blocks:
            torch.nn.init.eye_(block.weight)

    def forward(self, x):
        for block in self.blocks:
            x = block(x)
        return x


def draw(count, mean, seed):
    x = torch.randn(count, 3, 6, generator=torch.Generator().manual_seed(seed))
    x[..., 0] += mean
    return x


def run(model, x, generator):
    return model(x + 0.1 * torch.randn(x.shape, generator=generator))


@pytest.fixture
def chain():
    return Chain().eval()


@pytest.fixture
def direction(chain):
    return Direction.fit(chain, "blocks.0", positive=draw(40, 2, 1), negative=draw(40, -2, 2))


FLOWS = {"with": draw(12, 2, 3), "without": draw(12, -2, 4)}


def report_of(chain, direction, **changes):
    given = {"flows": FLOWS, "strengths": [0.1, 0.2, 0.4], "diagnostics": DIAGNOSTICS, "controls": 8, "run": run}
    return steering_report(chain, direction, **{**given, **changes})


def test_the_dose_response_of_a_linear_map_is_exact(chain, direction):
    report = report_of(chain, direction)
    for name, flows in FLOWS.items():
        x = flows + 0.1 * torch.randn(flows.shape, generator=torch.Generator().manual_seed(0))
        expected = x.norm(dim=2).mean(1) * direction.unit().vector[0]
        response = report.regimes[name].responses["first"]
        for i, strength in enumerate(response.strengths):
            assert response.odd[i] == pytest.approx(strength * expected.mean().item(), rel=1e-4)
            assert response.even[i] == pytest.approx(0, abs=1e-5)
            assert response.odd_low[i] < response.odd[i] < response.odd_high[i]
        assert response.spearman == pytest.approx(1)
        assert response.slope == pytest.approx(expected.mean().item(), rel=1e-4)
        assert response.slope_interval[0] < response.slope < response.slope_interval[1]
        assert response.success == response.raised == response.lowered == [1, 1, 1]


def test_controls_do_less_and_the_other_diagnostic_stays(chain, direction):
    regime = report_of(chain, direction).regimes["with"]
    for kind in ("covariance", "split_half", "split_half_orthogonal"):
        null = regime.nulls[kind]["first"]
        assert len(null.effects) == 8
        assert null.ratio > 3
        assert null.p == pytest.approx(1 / 17)
        assert abs(regime.nulls[kind]["second"].ratio) < 1
    assert regime.nulls["covariance"]["first"].cosine < 1e-5


def test_a_direction_without_meaning_is_found_out(chain, direction):
    other = Direction(torch.randn(6), "blocks.0", "BNC", direction.model).orthogonalize(direction)
    regime = report_of(chain, other, controls={"direction": [direction]}).regimes["with"]
    assert regime.nulls["direction"]["first"].p > 0.5
    assert abs(regime.nulls["direction"]["first"].ratio) < 0.5


def test_steered_and_unsteered_runs_draw_the_same_numbers(chain, direction):
    trial = Trial(chain, FLOWS["with"], run, DIAGNOSTICS)
    assert torch.equal(trial.steered(direction, 0.0).values["first"], trial.base.values["first"])
    assert torch.equal(trial.steered(direction, 0.3).values["first"], trial.steered(direction, 0.3).values["first"])
    with pytest.raises(ValueError, match="must draw from its generator only"):
        Trial(chain, FLOWS["with"], lambda m, x, g: m(x + torch.randn(x.shape)), DIAGNOSTICS)


def test_a_trial_serves_several_directions_and_runs_unsteered_but_once(chain, direction):
    runs = []
    trial = Trial(chain, FLOWS["with"], lambda *given: runs.append(1) or run(*given), DIAGNOSTICS)
    assert len(runs) == 2  # and once more, to see whether it repeats itself
    for given in (direction, -direction):
        report = measured({"with": trial}, given, [0.1, 0.2], 0.2, 0, 0)
        assert report == report_of(
            chain, given, flows={"with": FLOWS["with"]}, strengths=[0.1, 0.2], at=0.2, controls=0
        )
    assert len(runs) == 2 + 2 * 4


def test_a_report_repeats_itself(chain, direction):
    assert report_of(chain, direction).to_json() == report_of(chain, direction).to_json()
    assert report_of(chain, direction).to_json() != report_of(chain, direction, seed=1).to_json()


def test_layers_concepts_and_systems(chain, direction):
    later = Direction.fit(chain, "blocks.1", positive=draw(40, 2, 1), negative=draw(40, -2, 2))
    report = report_of(
        chain,
        direction,
        layers={"blocks.0": direction, "blocks.1": later},
        concepts={"opposite": -direction},
        systems={"other": {"flows": {"alone": draw(5, 0, 9)}, "controls": 4}},
        damage={"distance": lambda y, before: (y - before).abs().mean((1, 2))},
    )
    assert list(report.layers) == ["blocks.0", "blocks.1"]
    own = report.regimes["with"].responses["first"]
    assert report.layers["blocks.0"].regimes["with"].responses["first"].odd == [own.odd[1]]
    assert report.cosines == {"this / opposite": pytest.approx(-1)}
    assert report.systems["other"].regimes["alone"].count == 5
    damage = report.regimes["with"].damage
    assert damage["+0.4"]["distance"] == pytest.approx(4 * damage["-0.1"]["distance"], rel=1e-3)
    assert set(report.regimes["with"].damage_of_controls) == set(report.regimes["with"].nulls)
    table = report.table()
    for text in ("blocks.1", "this / opposite", "other", "8 split_half", "distance"):
        assert text in table


class Result(NamedTuple):
    values: torch.Tensor
    diverged: torch.Tensor


def test_what_blows_up_is_flagged_with_its_step_and_left_out(chain, direction):
    def fragile(model, x, generator):
        y = model(x)
        lost = y[..., 0].mean(1) > 3.2
        return Result(y.masked_fill(lost[:, None, None], math.nan), torch.where(lost, 7, -1))

    calm = {"calm": FLOWS["with"][FLOWS["with"][..., 0].mean(1) < 2.2]}
    first = {"first": lambda result: DIAGNOSTICS["first"](result.values)}
    report = report_of(chain, direction, flows=calm, run=fragile, diagnostics=first, strengths=[0.1, 0.6], at=0.1)
    regime = report.regimes["calm"]
    assert set(regime.diverged) == {"+0.6"}
    assert set(regime.diverged["+0.6"].values()) == {7}
    response = regime.responses["first"]
    assert response.used == [regime.count, regime.count - len(regime.diverged["+0.6"])]
    assert "lost, the first at step 7" in report.table()


def test_a_report_is_kept_as_table_json_and_figure(chain, direction, tmp_path):
    report = report_of(chain, direction, layers={"blocks.0": direction})
    report.save(tmp_path / "out")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["report.json", "report.md", "report.png"]
    read = json.loads((tmp_path / "out" / "report.json").read_text())
    assert read["regimes"]["with"]["responses"]["first"]["odd"] == report.regimes["with"].responses["first"].odd
    assert read["layers"]["blocks.0"]["regimes"]["with"]["responses"]["first"]["spearman"] is None
    assert len(report.plot().axes) == 9


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"flows": {}}, "wanted flows"),
        ({"strengths": []}, "strengths above 0"),
        ({"strengths": [0.1, 0.0]}, "strengths above 0"),
        ({"strengths": [-0.1]}, "strengths above 0"),
        ({"scale": "logs"}, "did you mean 'log'"),
        ({"diagnostics": {"a": lambda y: y[..., 0].mean(1)}}, "positive .or give scale='linear'."),
        ({"diagnostics": {"a": lambda y: y.exp()}}, "one number an object"),
        ({"options": {"spatial": "exact"}}, "needs a direction with places"),
    ],
)
def test_reports_that_cannot_be(chain, direction, change, match):
    with pytest.raises(ValueError, match=match):
        report_of(chain, direction, **change)


def test_a_linear_scale_takes_any_sign(chain, direction):
    diagnostics = {"first": lambda y: y[..., 0].mean(1)}
    report = report_of(chain, direction, diagnostics=diagnostics, scale={"first": "linear"}, controls=0)
    log = report_of(chain, direction, controls=0)
    ours, theirs = (r.regimes["without"].responses["first"].odd for r in (report, log))
    assert ours == pytest.approx(theirs, abs=1e-5)
    assert not report.regimes["without"].nulls


def test_capture_inside_steering_sees_the_steered(chain, direction):
    with direction.applied(chain, 0.5), capture(chain, "blocks.1") as records:
        chain(FLOWS["with"])
    assert records["blocks.1"].moments.mean[0] > FLOWS["with"][..., 0].mean() + 0.5
