r"""`steering_report`: what a direction does to runs of a model, beside what meaningless directions do.

With :math:`q(s)` a diagnostic of a run steered by the strength s (its logarithm on a log scale), the effect is split:

.. math:: \mathrm{odd}(s) = [q(s) - q(-s)] / 2, \qquad \mathrm{even}(s) = [q(s) + q(-s)] / 2 - q(0).

Any push does something: most of it is even, the same for a push and its opposite, and says nothing of the concept. What
counts is the odd effect. It should grow with the strength, and more than with the controls of
`aion.steering.draw_controls`, which are applied with a strength in proportion to their length. Steered and unsteered
runs draw the same random numbers.
"""

__all__ = ["measured", "steering_report"]

import itertools
import math

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import torch

from torch import Tensor, nn

from aion.steering.controls import draw_controls
from aion.steering.direction import Direction
from aion.steering.report import Null, Regime, Response, SteeringReport
from aion.steering.statistics import interval, null_quantile, p_value, slope, spearman
from aion.steering.trial import Outcome, Trial

DRAWS = 1000  # of the bootstrap


def steering_report(
    model: nn.Module,
    direction: Direction,
    flows: Mapping[str, object],
    strengths: Sequence[float],
    diagnostics: Mapping[str, Callable[[object], Tensor]],
    controls: int | Mapping[str, Sequence[Direction]] = 64,
    *,
    run: Callable[[nn.Module, object, torch.Generator], object],
    at: float | None = None,
    damage: Mapping[str, Callable[[object, object], Tensor]] | None = None,
    scale: str | Mapping[str, str] = "log",
    seed: int = 0,
    options: Mapping[str, object] | None = None,
    layers: Mapping[str, Direction] | None = None,
    layer_controls: int = 8,
    concepts: Mapping[str, Direction] | None = None,
    systems: Mapping[str, Mapping[str, object]] | None = None,
) -> SteeringReport:
    """Measures what a direction does.

    Arguments:
        model: any module, in evaluation mode.
        direction: what to steer along; more of it should raise the first diagnostic.
        flows: inputs of `run` by the name of their regime, none of which the direction was fitted to.
        strengths: relative strengths above 0; each is run with its opposite.
        diagnostics: functions of what `run` returns, each `(B,)`. The first is the target; the others should stay as
            they are.
        controls: number of controls of each kind, 0 for none, or the controls themselves.
        run: see `aion.steering.trial.Trial` for this, `damage`, `scale`, `seed` and `options`.
        at: the strength that controls are compared at; by default the middle one. Choose it on other flows.
        damage: see there.
        scale: see there.
        seed: see there; also of bootstrap and controls.
        options: see there.
        layers: directions of the same concept at other layers, each measured at the strength `at`.
        layer_controls: number of controls of each kind there.
        concepts: other directions of the same layer, for a table of cosines.
        systems: by name of another system the arguments that differ there, such as `flows`, `diagnostics` and `run`.

    Raises:
        ValueError: for no flows or diagnostics, strengths that are not above 0, or what `Trial` and `Direction.applied`
            refuse.
    """
    strengths = sorted(float(s) for s in strengths)
    if not flows or not diagnostics or not strengths or not all(0 < s < math.inf for s in strengths):
        msg = f"steering_report: wanted flows, diagnostics and strengths above 0, given strengths {strengths}"
        raise ValueError(msg)
    at = strengths[len(strengths) // 2] if at is None else float(at)
    trials = {
        name: Trial(model, inputs, run, diagnostics, damage, scale, seed, options) for name, inputs in flows.items()
    }
    same = {"flows": flows, "strengths": strengths, "diagnostics": diagnostics, "controls": controls, "run": run}
    same |= {"at": at, "damage": damage, "scale": scale, "seed": seed, "options": options}
    named = {"this": direction, **(concepts or {})}
    return replace(
        measured(trials, direction, strengths, at, controls, seed),
        layers={
            name: measured(trials, other, [at], at, layer_controls, seed) for name, other in (layers or {}).items()
        },
        cosines={f"{a} / {b}": named[a].cosine(named[b]) for a, b in itertools.combinations(named, 2)},
        systems={
            name: steering_report(model, direction, **{**same, **changes}) for name, changes in (systems or {}).items()
        },
    )


def measured(
    trials: Mapping[str, Trial],
    direction: Direction,
    strengths: Sequence[float],
    at: float,
    controls: int | Mapping[str, Sequence[Direction]],
    seed: int,
) -> SteeringReport:
    """Measures what a direction does in trials by the name of their regime, which may serve several directions.

    The other arguments are those of `steering_report`.
    """
    generator = torch.Generator().manual_seed(seed)
    if not isinstance(controls, Mapping):
        controls = draw_controls(direction, controls, generator=generator) if controls else {}
    return SteeringReport(
        direction={"layer": direction.layer, "method": direction.method, "n": direction.n, "model": direction.model},
        target=next(iter(next(iter(trials.values())).diagnostics)),
        at=at,
        seed=seed,
        regimes={name: _regime(trial, direction, strengths, at, controls, generator) for name, trial in trials.items()},
    )


def _regime(
    trial: Trial,
    direction: Direction,
    strengths: Sequence[float],
    at: float,
    controls: Mapping[str, Sequence[Direction]],
    generator: torch.Generator,
) -> Regime:
    runs = {s: trial.effects(direction, s) for s in sorted({*strengths, at})}
    responses = {name: _response(trial, name, strengths, runs, generator) for name in trial.diagnostics}
    signed = {s: outcome for s, (plus, minus, _) in runs.items() for s, outcome in ((s, plus), (-s, minus))}
    effects = {name: runs[at][2][name].nanmean().item() for name in trial.diagnostics}
    nulls, hurt = {}, {}
    for kind, directions in controls.items():
        nulls[kind], hurt[kind] = _nulls(trial, direction, directions, at, effects)
    return Regime(
        count=len(trial),
        base={name: value.mean().item() for name, value in trial.base.values.items()},
        responses=responses,
        nulls=nulls,
        damage={f"{s:+g}": _means(signed[s].damage) for s in sorted(signed)},
        damage_of_controls=hurt,
        diverged={f"{s:+g}": _lost(signed[s]) for s in sorted(signed) if _lost(signed[s])},
    )


def _response(
    trial: Trial,
    name: str,
    strengths: Sequence[float],
    runs: Mapping[float, tuple[Outcome, Outcome, dict[str, Tensor]]],
    generator: torch.Generator,
) -> Response:
    base = trial.base.values[name]
    plus = torch.stack([runs[s][0].values[name] - base for s in strengths])
    minus = torch.stack([runs[s][1].values[name] - base for s in strengths])
    odd, even, given = (plus - minus) / 2, (plus + minus) / 2, torch.tensor(strengths)
    slopes = slope(given, odd)
    low, high = zip(*(interval(row, DRAWS, generator) for row in odd), strict=True)
    means = {"odd": odd, "even": even, "plus": plus, "minus": minus}
    return Response(
        strengths=list(strengths),
        odd_low=list(low),
        odd_high=list(high),
        success=_share(odd > 0, odd),
        raised=_share(plus > 0, plus),
        lowered=_share(minus < 0, minus),
        used=odd.isfinite().sum(1).tolist(),
        spearman=spearman(given, odd.nanmean(1)) if len(strengths) > 1 else math.nan,
        slope=slopes.nanmean().item(),
        slope_interval=interval(slopes, DRAWS, generator),
        **{key: value.nanmean(1).tolist() for key, value in means.items()},
    )


def _nulls(
    trial: Trial, direction: Direction, controls: Sequence[Direction], at: float, effects: Mapping[str, float]
) -> tuple[dict[str, Null], dict[str, float]]:
    """Measures controls at one strength: what they do to each diagnostic, and the damage they do."""
    odd, hurt, cosines = {name: [] for name in effects}, {name: [] for name in trial.damage}, []
    length = direction.channels().length
    for control in controls:
        plus, minus, effect = trial.effects(control, at * control.length / length)
        cosines.append(abs(control.cosine(direction.channels())))
        for name, value in effect.items():
            odd[name].append(value.nanmean())
        for name in trial.damage:
            hurt[name].append((plus.damage[name].nanmean() + minus.damage[name].nanmean()) / 2)
    nulls = {}
    for name, effect in effects.items():
        null = torch.stack(odd[name])
        null = null[null.isfinite()]
        size = null_quantile(null) if len(null) else math.nan
        nulls[name] = Null(
            effects=null.tolist(),
            quantile=size,
            ratio=effect / size if size else math.inf,
            p=p_value(effect, null),
            cosine=sorted(cosines)[len(cosines) // 2],
        )
    return nulls, {name: torch.stack(values).nanmean().item() for name, values in hurt.items()}


def _share(wanted: Tensor, values: Tensor) -> list[float]:
    """Returns the share of objects for each strength, of those that were not lost."""
    return ((wanted & values.isfinite()).sum(1) / values.isfinite().sum(1)).tolist()


def _means(values: Mapping[str, Tensor]) -> dict[str, float]:
    return {name: value.nanmean().item() for name, value in values.items()}


def _lost(outcome: Outcome) -> dict[str, int]:
    """Returns the objects that were lost and the step at which each was, -1 if that is not known."""
    values = torch.stack(list(outcome.values.values()))
    lost = (outcome.diverged >= 0) | ~values.isfinite().all(0)
    return {str(row): int(outcome.diverged[row]) for row in lost.nonzero().flatten().tolist()}
