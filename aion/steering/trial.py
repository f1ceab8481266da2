"""`Trial`: runs of a model on the same inputs with the same random numbers, steered and not."""

__all__ = ["Outcome", "Trial"]

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch

from torch import Tensor, nn

from aion.observations import near_miss
from aion.steering.direction import Direction

SCALES = ("linear", "log")


@dataclass(frozen=True)
class Outcome:
    """Holds what came of one run of B objects.

    Attributes:
        values: each diagnostic, `(B,)` in float64, its logarithm on a log scale; NaN where the object was lost.
        damage: each measure of damage against the unsteered run, `(B,)`.
        diverged: the step at which an object was lost, else -1, `(B,)`.
    """

    values: dict[str, Tensor]
    damage: dict[str, Tensor]
    diverged: Tensor


class Trial:
    """Runs a model on some inputs.

    Arguments:
        model: any module.
        inputs: what `run` takes.
        run: `run(model, inputs, generator)`, which draws from the generator only; if what it returns has an attribute
            `diverged` `(B,)` that is the step at which each object was lost, or -1.
        diagnostics: functions of what `run` returns, each `(B,)`.
        damage: functions of what `run` returns steered and unsteered, each `(B,)`.
        scale: `"log"` (a diagnostic must then be positive) or `"linear"`, for all or by name.
        seed: of the generator of every run.
        options: keyword arguments of `Direction.applied`.

    Raises:
        ValueError: if two runs with the same generator differ, or a diagnostic has another shape, is not finite or, on
            a log scale, not positive for the unsteered run.
    """

    def __init__(
        self,
        model: nn.Module,
        inputs: object,
        run: Callable[[nn.Module, object, torch.Generator], object],
        diagnostics: Mapping[str, Callable[[object], Tensor]],
        damage: Mapping[str, Callable[[object, object], Tensor]] | None = None,
        scale: str | Mapping[str, str] = "log",
        seed: int = 0,
        options: Mapping[str, object] | None = None,
    ) -> None:
        self.model, self.inputs, self.run, self.seed = model, inputs, run, seed
        self.diagnostics, self.damage, self.options = dict(diagnostics), dict(damage or {}), dict(options or {})
        given = {name: scale if isinstance(scale, str) else scale.get(name, "log") for name in diagnostics}
        if wrong := [value for value in given.values() if value not in SCALES]:
            msg = f"unknown scale {wrong[0]!r}; {near_miss(wrong[0], SCALES)}"
            raise ValueError(msg)
        self.logarithmic = {name for name, value in given.items() if value == "log"}
        self.before = self._run()
        self.base = self._outcome(self.before)
        for name, value in self.base.values.items():
            if not value.isfinite().all():
                rows = (~value.isfinite()).nonzero().flatten()[:5].tolist()
                wanted = "finite and positive (or give scale='linear')" if name in self.logarithmic else "finite"
                msg = f"diagnostic {name!r} must be {wanted} without steering, but is not for objects {rows}"
                raise ValueError(msg)
        again = self._outcome(self._run()).values
        if moved := [name for name, value in self.base.values.items() if not torch.equal(value, again[name])]:
            msg = f"two runs with the same generator differ in {moved[0]!r}: run must draw from its generator only"
            raise ValueError(msg)

    def __len__(self) -> int:
        return len(self.base.diverged)

    def steered(self, direction: Direction, strength: float) -> Outcome:
        """Runs the model steered by a relative strength."""
        with direction.applied(self.model, strength, **self.options):
            return self._outcome(self._run())

    def effects(self, direction: Direction, strength: float) -> tuple[Outcome, Outcome, dict[str, Tensor]]:
        """Returns the runs with the strength and its opposite, and the odd effect of each diagnostic, `(B,)`."""
        plus, minus = self.steered(direction, strength), self.steered(direction, -strength)
        return plus, minus, {name: (plus.values[name] - minus.values[name]) / 2 for name in self.diagnostics}

    @torch.no_grad()
    def _run(self) -> object:
        return self.run(self.model, self.inputs, torch.Generator().manual_seed(self.seed))

    @torch.no_grad()
    def _outcome(self, result: object) -> Outcome:
        values = {name: self._value(name, function(result)) for name, function in self.diagnostics.items()}
        damage = {name: _finite(function(result, self.before)) for name, function in self.damage.items()}
        shapes = {tuple(value.shape) for value in (*values.values(), *damage.values())}
        if len(shapes) != 1 or len(next(iter(shapes))) != 1:
            msg = f"diagnostics and damage must be one number an object, (B,), given shapes {sorted(shapes)}"
            raise ValueError(msg)
        count = next(iter(shapes))[0]
        diverged = getattr(result, "diverged", None)
        diverged = torch.full((count,), -1) if diverged is None else diverged.detach().cpu()
        return Outcome(values, damage, diverged)

    def _value(self, name: str, value: Tensor) -> Tensor:
        return _finite(value.detach().double().log() if name in self.logarithmic else value)


def _finite(value: Tensor) -> Tensor:
    """Converts to float64 on the CPU, with NaN for what is infinite too."""
    value = value.detach().double().cpu()
    return torch.where(value.isfinite(), value, torch.nan)
