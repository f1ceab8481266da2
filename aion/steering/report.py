"""`SteeringReport`: what was measured of a direction, as tables, figures and JSON."""

__all__ = ["Null", "Regime", "Response", "SteeringReport"]

import json
import math
import tempfile

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from aion.steering.figures import draw_report

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Response:
    """Holds how a diagnostic answers to strengths, means over objects: one number a strength unless said otherwise.

    Attributes:
        strengths: above 0.
        odd: odd effect; `odd_low` and `odd_high` are its bootstrap interval over objects at 95 %.
        even: even effect.
        plus: effect of the strength; `minus` that of its opposite.
        success: share of objects whose odd effect is above 0.
        raised: share that the strength raises; `lowered` the share that its opposite lowers.
        used: objects that no run lost.
        spearman: rank correlation of strength and odd effect, one number.
        slope: odd effect by strength, through the origin, one number; `slope_interval` at 95 % over objects.
    """

    strengths: list[float]
    odd: list[float]
    odd_low: list[float]
    odd_high: list[float]
    even: list[float]
    plus: list[float]
    minus: list[float]
    success: list[float]
    raised: list[float]
    lowered: list[float]
    used: list[int]
    spearman: float
    slope: float
    slope_interval: tuple[float, float]


@dataclass(frozen=True)
class Null:
    """Holds what controls of one kind do to a diagnostic.

    Attributes:
        effects: mean odd effect of each control.
        quantile: 95 % of their sizes lie below.
        ratio: effect of the direction over that.
        p: one-sided p-value of the direction.
        cosine: median size of the cosine between control and direction.
    """

    effects: list[float]
    quantile: float
    ratio: float
    p: float
    cosine: float


@dataclass(frozen=True)
class Regime:
    """Holds what was measured of the objects of one regime.

    Attributes:
        count: number of objects.
        base: mean of each diagnostic (its logarithm on a log scale) without steering.
        responses: by diagnostic.
        nulls: by kind of control and diagnostic.
        damage: mean of each measure by signed strength.
        damage_of_controls: mean of each measure by kind, at the strength of comparison.
        diverged: by signed strength the objects that were lost, and the step.
    """

    count: int
    base: dict[str, float]
    responses: dict[str, Response]
    nulls: dict[str, dict[str, Null]] = field(default_factory=dict)
    damage: dict[str, dict[str, float]] = field(default_factory=dict)
    damage_of_controls: dict[str, dict[str, float]] = field(default_factory=dict)
    diverged: dict[str, dict[str, int]] = field(default_factory=dict)


@dataclass(frozen=True)
class SteeringReport:
    """Holds what was measured of a direction.

    Attributes:
        direction: layer, method, number of objects and model.
        target: the diagnostic that the direction should raise.
        at: the strength of comparison.
        seed: of all draws.
        regimes: by name.
        layers: reports at other layers, at the strength of comparison.
        cosines: between the direction (`this`) and other concepts.
        systems: reports on other systems.
    """

    direction: dict[str, object]
    target: str
    at: float
    seed: int
    regimes: dict[str, Regime]
    layers: dict[str, "SteeringReport"] = field(default_factory=dict)
    cosines: dict[str, float] = field(default_factory=dict)
    systems: dict[str, "SteeringReport"] = field(default_factory=dict)

    def table(self) -> str:
        """Returns the report as tables in Markdown."""
        parts = [f"Direction at `{self.direction['layer']}` ({self.direction['method']}, n = {self.direction['n']})."]
        parts += [
            _dose_table(name, self.target, regime.responses[self.target]) for name, regime in self.regimes.items()
        ]
        parts.append(_control_table(self.regimes, self.at))
        if any(any(regime.damage.values()) for regime in self.regimes.values()):
            parts.append(_damage_table(self.regimes, self.at))
        lost = [
            f"{name} at {strength}: {len(rows)} of {regime.count} lost, the first at step {min(rows.values())}"
            for name, regime in self.regimes.items()
            for strength, rows in regime.diverged.items()
        ]
        parts += ["\n".join(lost)] if lost else []
        for title, reports in (("layer", self.layers), ("system", self.systems)):
            parts += [_overview(title, reports)] if reports else []
        if self.cosines:
            parts.append(_markdown(["concepts", "cosine"], [[k, f"{v:+.2f}"] for k, v in self.cosines.items()]))
        return "\n\n".join(parts) + "\n"

    def to_json(self) -> str:
        """Returns all numbers as JSON; NaN and infinities are null."""
        return json.dumps(_plain(asdict(self)), indent=1) + "\n"

    def plot(self) -> "Figure":
        """Draws dose-response, controls, specificity and, if measured, layers; save it by `figure.savefig`."""
        return draw_report(self)

    def save(self, folder: Path | str) -> None:
        """Writes `report.md`, `report.json` and `report.png` into a folder, each whole or not at all."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder, prefix=".report.") as temporary:
            new = Path(temporary)
            (new / "report.md").write_text(self.table(), encoding="utf-8")
            (new / "report.json").write_text(self.to_json(), encoding="utf-8")
            self.plot().savefig(new / "report.png", dpi=120)
            for path in sorted(new.iterdir()):
                path.replace(folder / path.name)


def _dose_table(name: str, target: str, response: Response) -> str:
    rows = [
        [
            f"{s:g}",
            f"{response.odd[i]:+.3g} [{response.odd_low[i]:+.3g}, {response.odd_high[i]:+.3g}]",
            f"{response.even[i]:+.3g}",
            f"{response.plus[i]:+.3g}",
            f"{response.minus[i]:+.3g}",
            *(f"{100 * share[i]:.0f} %" for share in (response.success, response.raised, response.lowered)),
            f"{response.used[i]}",
        ]
        for i, s in enumerate(response.strengths)
    ]
    low, high = response.slope_interval
    head = ["s", "odd effect [95 %]", "even", "of +s", "of -s", "odd > 0", "+s raises", "-s lowers", "objects"]
    caption = f"**{name}**, {target}: slope {response.slope:+.3g} [{low:+.3g}, {high:+.3g}], Spearman"
    return f"{caption} {response.spearman:+.2f}\n\n{_markdown(head, rows)}"


def _control_table(regimes: dict[str, Regime], at: float) -> str:
    rows = []
    for name, regime in regimes.items():
        for diagnostic, response in regime.responses.items():
            effect = _effect(response, at)
            rows.append([name, diagnostic, "the direction", effect, "", "", "", ""])
            for kind, nulls in regime.nulls.items():
                null = nulls[diagnostic]
                size = f"{null.quantile:.3g}"
                row = [f"{len(null.effects)} {kind}", "", size, f"{null.ratio:+.1f}", f"{null.p:.4f}"]
                rows.append([name, diagnostic, *row, f"{null.cosine:.2f}"])
    head = [
        "regime",
        "diagnostic",
        "direction",
        f"odd effect at {at:g}",
        "95 % of nulls",
        "ratio",
        "p",
        "median cosine",
    ]
    return _markdown(head, rows)


def _effect(response: Response, at: float) -> str:
    i = response.strengths.index(at) if at in response.strengths else -1
    return f"{response.odd[i]:+.3g}" if i >= 0 else ""


def _damage_table(regimes: dict[str, Regime], at: float) -> str:
    names = next(iter(next(iter(regimes.values())).damage.values()))
    rows = []
    for name, regime in regimes.items():
        rows += [[name, s, *(f"{values[k]:.3g}" for k in names)] for s, values in regime.damage.items()]
        for kind, values in regime.damage_of_controls.items():
            rows.append([name, f"{kind}, ±{at:g}", *(f"{values[k]:.3g}" for k in names)])
    return _markdown(["regime", "s", *names], rows)


def _overview(title: str, reports: dict[str, SteeringReport]) -> str:
    """Lists reports on layers or systems, a line a regime."""
    rows = []
    for key, report in reports.items():
        for name, regime in report.regimes.items():
            response = regime.responses[report.target]
            worst = [nulls[report.target] for nulls in regime.nulls.values()]
            ratio = f"{min((null.ratio for null in worst), key=abs):+.1f}" if worst else ""
            p = f"{max(null.p for null in worst):.4f}" if worst else ""
            i = response.strengths.index(report.at) if report.at in response.strengths else 0
            success = f"{100 * response.success[i]:.0f} %"
            rows.append([key, name, report.target, _effect(response, report.at), success, ratio, p])
    return _markdown([title, "regime", "target", "odd effect", "odd > 0", "lowest ratio", "highest p"], rows)


def _markdown(head: list[str], rows: list[list[str]]) -> str:
    return "\n".join(f"| {' | '.join(row)} |" for row in [head, ["---"] * len(head), *rows])


def _plain(value: object) -> object:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
