"""`Flow`: trajectories of fields on a uniform grid, what solvers make, files hold and the model continues.

A window of a few frames and a whole simulation are the same thing, so that one class serves both. Components of a
vector or tensor are fields of their own, named `velocity_x`, `stress_xy`: what stands before the last underscore is
the quantity they belong to.
"""

__all__ = ["BOUNDARIES", "Flow", "quantity"]

import dataclasses
import re

from collections.abc import Mapping, Sequence

import torch

from torch import Tensor

from aion.observations import near_miss, rows

BOUNDARIES = ("wall", "open", "periodic")  # the number of each is its code in The Well


def quantity(field: str) -> str:
    """Returns the quantity of which a field is a component: `velocity` for `velocity_x`, the field itself if none."""
    return re.sub(r"_[xyz]{1,2}$", "", field)


@dataclasses.dataclass(frozen=True)
class Flow:
    """Holds B trajectories of T frames of F fields on a grid of one to three axes.

    Arguments:
        values: `(B, T, F, *space)`, of a floating-point type. NaN is allowed (a roll-out that went astray); the model
            refuses it.
        fields: name of each of the F fields.
        boundaries: for each axis of space the name or code of its boundary (`"wall"` 0, `"open"` 1, `"periodic"` 2),
            or a pair of them, that of the low edge first.
        dt: time between two frames, in the units of the system.
        extent: length of each axis of space, in the units of the system; 1 if not given.
        system: name of the system.
        regimes: name of the regime of each trajectory, or nothing.
        parameters: of each trajectory, each `(B,)`.

    Raises:
        TypeError: for values that are no tensor of floating-point numbers.
        ValueError: for shapes, names or codes that do not fit.
    """

    values: Tensor
    fields: Sequence[str]
    boundaries: Sequence[str | int | Sequence[str | int]]
    dt: float = 1.0
    extent: Sequence[float] | None = None
    system: str = ""
    regimes: Sequence[str] = ()
    parameters: Mapping[str, Tensor] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        if not isinstance(self.values, Tensor) or not self.values.is_floating_point():
            given = getattr(self.values, "dtype", type(self.values).__name__)
            msg = f"Flow: values must be a tensor of floating-point numbers, given {given}"
            raise TypeError(msg)
        shape = tuple(self.values.shape)
        if not 4 <= len(shape) <= 6 or 0 in shape:
            msg = f"Flow: values must be (B, T, F, *space) with one to three axes of space, given shape {shape}"
            raise ValueError(msg)
        fields, space = tuple(self.fields), shape[3:]
        if isinstance(self.fields, str) or len(set(fields)) != shape[2] or len(fields) != shape[2]:
            msg = f"Flow: wanted {shape[2]} different names of fields for values {shape}, given {self.fields!r}"
            raise ValueError(msg)
        extent = (1.0,) * len(space) if self.extent is None else tuple(float(e) for e in self.extent)
        if len(extent) != len(space) or not all(0 < e < float("inf") for e in extent) or not self.dt > 0:
            msg = f"Flow: wanted dt > 0 and {len(space)} lengths > 0, given dt={self.dt}, extent={self.extent}"
            raise ValueError(msg)
        if self.regimes and len(self.regimes) != shape[0]:
            msg = f"Flow: wanted a regime for each of {shape[0]} trajectories, given {len(self.regimes)}"
            raise ValueError(msg)
        parameters = {name: torch.as_tensor(value) for name, value in self.parameters.items()}
        for name, value in parameters.items():
            if value.shape != shape[:1]:
                msg = f"Flow: parameter {name!r} must be ({shape[0]},), given shape {tuple(value.shape)}"
                raise ValueError(msg)
        own = {"fields": fields, "boundaries": _boundaries(self.boundaries, len(space)), "extent": extent}
        for name, value in {**own, "regimes": tuple(self.regimes), "parameters": parameters}.items():
            object.__setattr__(self, name, value)

    def __len__(self) -> int:
        return len(self.values)

    def __getitem__(self, index: int | slice | Sequence[int] | Tensor) -> "Flow":
        """Picks trajectories; the batch axis stays."""
        picked = rows(index, len(self))
        number = torch.arange(len(self))[picked].tolist()
        return self.replace(
            values=self.values[picked],
            regimes=[self.regimes[i] for i in number] if self.regimes else (),
            parameters={name: value[picked] for name, value in self.parameters.items()},
        )

    @property
    def frames(self) -> int:
        """Returns the number T of frames."""
        return self.values.shape[1]

    @property
    def space(self) -> tuple[int, ...]:
        """Returns the number of points along each axis of space."""
        return tuple(self.values.shape[3:])

    @property
    def periodic(self) -> tuple[bool, ...]:
        """Tells which axes of space are periodic."""
        return tuple(low == "periodic" for low, _ in self.boundaries)

    def field(self, name: str) -> Tensor:
        """Returns one field, `(B, T, *space)`.

        Raises:
            ValueError: if there is none of that name, with the near misses.
        """
        if name not in self.fields:
            msg = f"no field {name!r}; {near_miss(name, self.fields)}"
            raise ValueError(msg)
        return self.values[:, :, self.fields.index(name)]

    def window(self, start: int, frames: int) -> "Flow":
        """Returns the frames from `start` on, as a view.

        Raises:
            ValueError: if there are not so many.
        """
        if not 0 <= start <= start + frames <= self.frames or frames < 1:
            msg = f"window: wanted at least one of frames 0 to {self.frames - 1}, given {frames} from {start} on"
            raise ValueError(msg)
        return self.replace(values=self.values[:, start : start + frames])

    @staticmethod
    def concatenate(flows: "Sequence[Flow]") -> "Flow":
        """Returns the trajectories of all flows, which must differ in nothing else; what only some tell is left out."""
        shared = set.intersection(*(set(flow.parameters) for flow in flows))
        labelled = all(flow.regimes for flow in flows)
        kinds = {(flow.fields, flow.boundaries, flow.dt, flow.extent, flow.values.shape[1:]) for flow in flows}
        if len(kinds) > 1:
            msg = f"concatenate: wanted flows of one grid, number of frames and set of fields, given {sorted(kinds)}"
            raise ValueError(msg)
        return flows[0].replace(
            values=torch.cat([flow.values for flow in flows]),
            regimes=[name for flow in flows for name in flow.regimes] if labelled else (),
            parameters={name: torch.cat([flow.parameters[name] for flow in flows]) for name in sorted(shared)},
        )

    def to(self, target: torch.device | torch.dtype | str) -> "Flow":
        """Moves or converts the values."""
        return self.replace(values=self.values.to(target))

    def replace(self, **changes: object) -> "Flow":
        """Returns a flow that differs in what is given."""
        return dataclasses.replace(self, **changes)


def _boundaries(given: Sequence, axes: int) -> tuple[tuple[str, str], ...]:
    given = given.tolist() if hasattr(given, "tolist") else given  # codes as The Well's reader gives them
    if isinstance(given, str | int) or len(given) != axes:
        msg = f"Flow: wanted boundaries of {axes} axes of space, given {given!r}"
        raise ValueError(msg)
    pairs = []
    for axis, value in enumerate(given):
        pair = tuple(value) if isinstance(value, list | tuple) else (value, value)
        names = [BOUNDARIES[c] if type(c) is int and 0 <= c < len(BOUNDARIES) else c for c in pair]
        if wrong := [name for name in names if name not in BOUNDARIES]:
            codes = ", ".join(f"{name!r} ({code})" for code, name in enumerate(BOUNDARIES))
            msg = f"Flow: unknown boundary {wrong[0]!r} of axis {axis}: wanted one of {codes}"
            raise ValueError(msg)
        if len(names) != 2 or (names[0] == "periodic") != (names[1] == "periodic"):
            msg = f"Flow: wanted two edges of axis {axis}, both periodic or neither, given {value!r}"
            raise ValueError(msg)
        pairs.append(tuple(names))
    return tuple(pairs)
