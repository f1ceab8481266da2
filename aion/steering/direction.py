r"""`Direction`: what a concept is at one layer of a model, as a vector.

The vector is fitted to the activations of two groups of inputs, :math:`a` with the concept and :math:`b` without it.
Each object is one vector of channels, the mean over its frames, tokens and places.

| method | vector |
|---|---|
| mean | :math:`\bar a - \bar b` |
| paired | mean of :math:`(a_i - b_i) / |a_i - b_i|`, times the mean length: pairs count alike |
| lda | :math:`\Sigma^{-1} (\bar a - \bar b)`, as long as the difference; :math:`\Sigma` within groups, shrunk |

References:
    | Physics Steering: Causal Control of Cross-Domain Concepts in a Physics Foundation Model (2025), arXiv 2511.20798
    | Steering Llama 2 via Contrastive Activation Addition (Rimsky et al., 2023), arXiv 2312.06681
"""

__all__ = ["Direction"]

import json

from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, fields, replace
from pathlib import Path

import torch

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from aion.steering.contrast import contrasts
from aion.steering.layers import edited, find_layers, fingerprint
from aion.steering.layout import Layout
from aion.steering.push import Push
from aion.whole import whole

FORMAT = 1
TENSORS = ("vector", "means", "covariance", "halves")


@dataclass(frozen=True, eq=False)
class Direction:
    """A vector in the activations of one layer, and what is known of the groups it was fitted to.

    `fit` makes one. Everything but the vector, layer, layout and model may be left out.

    Arguments:
        vector: `(C,)`, or `(C, *grid)` for one with a shape in space; finite and not zero.
        layer: dotted name of the layer.
        layout: letters of `aion.steering.Layout`.
        model: fingerprint of the model.
        method: how it was made.
        normalise: see `aion.steering.Record`.
        n: objects with the concept and without it.
        norm: mean norm of an activation at a place.
        means: of the two groups, `(2, C)`.
        covariance: within the groups, over objects, `(C, C)`.
        halves: differences of the means of two random halves of one group, `(K, C)`.
        data: plain JSON facts on the inputs.

    Raises:
        ValueError: for a vector that is zero, not finite or does not fit the layout.
    """

    vector: Tensor
    layer: str
    layout: str
    model: str
    method: str = "given"
    normalise: str = "none"
    n: tuple[int, int] | None = None
    norm: float | None = None
    means: Tensor | None = field(default=None, repr=False)
    covariance: Tensor | None = field(default=None, repr=False)
    halves: Tensor | None = field(default=None, repr=False)
    data: object = None

    def __post_init__(self) -> None:
        grid = len(Layout(self.layout).grid)
        if self.vector.ndim not in {1, 1 + grid}:
            shape = tuple(self.vector.shape)
            msg = f"Direction: the vector must be (C,), or (C, ...) with {grid} axes of the grid, given {shape}"
            raise ValueError(msg)
        if not self.vector.isfinite().all() or not self.vector.any():
            msg = "Direction: the vector must be finite and not zero: were the two groups the same?"
            raise ValueError(msg)

    def __repr__(self) -> str:
        size = f"{tuple(self.vector.shape)}, n={self.n}, method={self.method!r}"
        return f"Direction({self.layer!r}, {size}, length={self.length:.4g}, model={self.model[:8]})"

    @classmethod
    def fit(cls, model: nn.Module, layer: str, **options: object) -> "Direction":
        """Fits a direction at one layer.

        Arguments:
            model: any module, in evaluation mode.
            layer: its dotted name.
            options: see `fit_layers`.

        Raises:
            ValueError: for what `fit_layers` refuses, or if the pattern fits several layers.
        """
        if len(found := find_layers(model, layer)) > 1:
            msg = f"{layer!r} fits {len(found)} layers, {', '.join(list(found)[:3])}...: name one, or use fit_layers"
            raise ValueError(msg)
        return next(iter(cls.fit_layers(model, layer, **options).values()))

    @classmethod
    def fit_layers(
        cls,
        model: nn.Module,
        layers: str,
        *,
        positive: object,
        negative: object,
        method: str = "mean",
        forward: Callable[[nn.Module, object], object] | None = None,
        layout: str | None = None,
        valid: Callable[..., Tensor | None] | None = None,
        normalise: str = "none",
        places: bool = False,
        shrinkage: float = 0.1,
        halves: int = 64,
        data: object = None,
        generator: torch.Generator | None = None,
    ) -> dict[str, "Direction"]:
        """Fits a direction at each of several layers, in one pass over the inputs.

        A row of a batch is an object; what its layer puts out in one `forward`, if it runs several times, is averaged.

        Arguments:
            model: any module, in evaluation mode.
            layers: a pattern, see `aion.steering.layers`.
            positive: batches of inputs with the concept: a list or other iterable of them, or one batch.
            negative: the same without it; for `"paired"` row by row the partners of `positive`.
            method: `"mean"`, `"paired"` or `"lda"`.
            forward: runs the model on a batch; by default it is called with it (unpacked, if it is a tuple or dict).
            layout: see `aion.steering.Record` for this, `valid`, `normalise` and `places`.
            valid: see there.
            normalise: see there.
            places: keeps the shape in space of the difference; not with `"lda"` or `"paired"`.
            shrinkage: share of the covariance for `"lda"` that is replaced by a multiple of the identity, in (0, 1].
            halves: number of random halves of each group to keep for controls.
            data: plain JSON facts on the inputs, kept with the direction.
            generator: of the halves; by default one of seed 0.

        Raises:
            RuntimeError: if a layer did not run.
            ValueError: for a model in training mode, no such layer, an unknown method, groups without objects, pairs
                that do not fit, activations that are not finite, or groups whose means differ by less than 1e-4 of the
                norm of the activations.
        """
        found = contrasts(
            model,
            layers,
            positive,
            negative,
            method=method,
            forward=forward,
            layout=layout,
            valid=valid,
            normalise=normalise,
            places=places,
            shrinkage=shrinkage,
            halves=halves,
            generator=generator,
        )
        facts = {"model": fingerprint(model), "method": method, "normalise": normalise, "data": data}
        return {name: cls(layer=name, **facts, **contrast._asdict()) for name, contrast in found.items()}

    # ---- arithmetic

    @property
    def length(self) -> float:
        """Returns the norm of the vector."""
        return self.vector.double().norm().item()

    @property
    def separation(self) -> float | None:
        """Returns how many standard deviations within the groups lie between their means, along the direction."""
        if self.means is None or self.covariance is None:
            return None
        unit = self.channels().unit().vector.double()
        gap = (self.means[0] - self.means[1]).double() @ unit
        return (gap / (unit @ self.covariance.double() @ unit).sqrt().clamp(min=1e-12)).item()

    def __neg__(self) -> "Direction":
        return self * -1.0

    def __mul__(self, factor: float) -> "Direction":
        if not isinstance(factor, (int, float)):
            return NotImplemented
        means = self.means if factor >= 0 or self.means is None else self.means.flip(0)
        return replace(self, vector=self.vector * factor, means=means)

    __rmul__ = __mul__

    def __add__(self, other: "Direction") -> "Direction":
        if not isinstance(other, Direction):
            return NotImplemented
        self._check_same(other)
        # What was measured of the groups of either holds for neither's sum.
        known = {"means": None, "covariance": None, "halves": None, "n": None, "data": [self.data, other.data]}
        return replace(self, vector=self.vector + other.vector, method=f"{self.method} + {other.method}", **known)

    def __sub__(self, other: "Direction") -> "Direction":
        return self + -other if isinstance(other, Direction) else NotImplemented

    def unit(self) -> "Direction":
        """Returns the direction with length 1."""
        return self * (1 / self.length)

    def channels(self) -> "Direction":
        """Returns the mean over places, `(C,)`."""
        return replace(self, vector=self.vector.flatten(1).mean(1)) if self.vector.ndim > 1 else self

    def cosine(self, other: "Direction") -> float:
        """Computes the cosine of the angle between two directions of one layer and model."""
        self._check_same(other)
        a, b = self.vector.double().flatten(), other.vector.double().flatten()
        return (a @ b / (a.norm() * b.norm())).clamp(-1, 1).item()

    def orthogonalize(self, others: "Direction | Sequence[Direction]") -> "Direction":
        """Returns what is left of the direction without its part in the span of others.

        Raises:
            ValueError: if less than a millionth of its length is left, or others are of another layer or model.
        """
        others = [others] if isinstance(others, Direction) else list(others)
        for other in others:
            self._check_same(other)
        span = torch.stack([other.vector.double().flatten() for other in others], 1)
        basis, kept, _ = torch.linalg.svd(span, full_matrices=False)
        basis = basis[:, kept > 1e-9 * kept.max()]

        def left(x: Tensor) -> Tensor:
            flat = x.double().flatten(1 if x.ndim > self.vector.ndim else 0)
            return (flat - (flat @ basis) @ basis.T).reshape(x.shape).to(x.dtype)

        vector = left(self.vector)
        if vector.double().norm() < 1e-6 * self.length:
            msg = "orthogonalize: nothing is left, the direction lies in the span of the others"
            raise ValueError(msg)
        halves = left(self.halves) if self.halves is not None and self.vector.ndim == 1 else None
        return replace(self, vector=vector, halves=halves, method=f"{self.method}, orthogonal to {len(others)}")

    def _check_same(self, other: "Direction") -> None:
        for name in ("layer", "model", "layout", "normalise"):
            mine, its = getattr(self, name), getattr(other, name)
            if mine != its:
                msg = f"directions of different {name}, {mine!r} and {its!r}, have no angle or sum"
                raise ValueError(msg)
        if self.vector.shape != other.vector.shape:
            shapes = f"{tuple(self.vector.shape)} and {tuple(other.vector.shape)}"
            msg = f"directions of different shape, {shapes}, have no angle or sum; channels() averages over places"
            raise ValueError(msg)

    # ---- use

    @contextmanager
    def applied(
        self,
        model: nn.Module,
        strength: float,
        mode: str = "add",
        relative: bool = True,
        spatial: str = "drop",
        steps: Collection[int] | None = None,
        region: Tensor | None = None,
        strict: bool = True,
    ) -> Iterator[None]:
        r"""Steers a model until the context is left: nothing of it is written to, and contexts nest.

        With the direction :math:`u` of length 1 and an activation :math:`x`, all channels and places of one frame:

        | mode | becomes |
        |---|---|
        | add | :math:`x + s |x| u` |
        | ablate | :math:`x - s (x \cdot u) u`, at each place |
        | clamp | :math:`x + |s| (c - x \cdot u) u`, at each place, :math:`c` that of the mean of the group with the
          concept, without it for :math:`s < 0` |

        Arguments:
            model: the module it was fitted on, wrapped or compiled too.
            strength: s; 0 leaves every output as it is, bit for bit.
            mode: see above.
            relative: `add` takes s in units of the activation's norm and `clamp` scales c with it; otherwise s is in
                units of the direction's length and c as it was in the groups.
            spatial: `"drop"` pushes all places alike by the mean over places; with a direction that has places
                `"exact"` wants the same grid, `"interp"` resizes to it and `"pad"` crops it or fills with 0, centred. A
                model that shifts its grid at random (patch jitter) has no places: switch that off, or use `"drop"`.
            steps: which calls of the layer are steered, counted from 0 on entering; all by default.
            region: weights of places, bool or numbers that fit the activation without its channels from the right.
            strict: refuses weights other than those it was fitted on.

        Raises:
            RuntimeError: on leaving, if the layer did not run or no call was among `steps`.
            TypeError: by the layer, if it does not put out real numbers.
            ValueError: for another model, no such layer, an unknown mode, numbers out of range, a direction that lacks
                what the mode or `spatial` needs; by the layer, if a shape does not fit.
        """
        means = self.means if self.normalise == "none" else None  # else they are not of activations as they come
        about = {"layer": self.layer, "layout": self.layout, "means": means, "norm": self.norm}
        options = {"relative": relative, "spatial": spatial, "steps": steps, "region": region}
        push = Push(self.vector, strength, mode, **options, **about)
        layers = find_layers(model, self.layer)
        if strict and (given := fingerprint(model)) != self.model:
            msg = (
                f"the direction is of a model {self.model[:12]}, given {given[:12]}: pass the module it was fitted on, "
                "or strict=False for other weights of the same shapes"
            )
            raise ValueError(msg)
        if push.strength == 0:
            yield
            return
        with edited(model, layers, push):
            yield
        push.check_ran()

    # ---- storage

    def save(self, path: Path | str) -> None:
        """Writes one safetensors file with the facts as JSON in its header; it appears whole or not at all."""
        path = Path(path)
        tensors = {name: getattr(self, name) for name in TENSORS if getattr(self, name) is not None}
        facts = {f.name: getattr(self, f.name) for f in fields(self) if f.name not in TENSORS}
        metadata = {"direction": json.dumps({"format": FORMAT, **facts}, sort_keys=True)}
        with whole(path) as temporary:
            save_file({k: v.detach().cpu().contiguous() for k, v in tensors.items()}, temporary, metadata)

    @classmethod
    def load(cls, path: Path | str, model: nn.Module | None = None) -> "Direction":
        """Reads a direction, and checks that it is of a model if one is given.

        Raises:
            FileNotFoundError: if there is no such file.
            ValueError: if it holds no direction, or one of another model.
        """
        if not Path(path).is_file():
            msg = f"no direction at {path}"
            raise FileNotFoundError(msg)
        try:
            with safe_open(path, "pt") as file:
                facts = json.loads((file.metadata() or {})["direction"])
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            if facts.pop("format") != FORMAT:
                msg = "another format"
                raise ValueError(msg)
            facts["n"] = tuple(facts["n"]) if facts["n"] is not None else None
            direction = cls(**tensors, **facts)
        except (SafetensorError, KeyError, TypeError, ValueError) as error:
            msg = f"{path} holds no direction that this version can read: {error}"
            raise ValueError(msg) from error
        if model is not None and (given := fingerprint(model)) != direction.model:
            msg = f"{path} is of a model {direction.model[:12]}, given {given[:12]}"
            raise ValueError(msg)
        return direction
