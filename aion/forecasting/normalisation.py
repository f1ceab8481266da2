"""From physical units to unit variance and back, one mean and scale for each channel."""

__all__ = ["Normalisation", "TRANSFORMS"]

import hashlib

from collections.abc import Callable, Sequence

import torch

from torch import Tensor, nn

from aion.observations import near_miss

FAR = 10.0  # scales from the mean where the middle of measured values betrays other units

TRANSFORMS: dict[str, tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]] = {
    "none": (lambda x: x, lambda x: x),
    "sqrt": (lambda x: x.sign() * x.abs().sqrt(), lambda x: x.sign() * x.square()),
}


class Normalisation(nn.Module):
    """Maps frames `(..., C, *space)` to unit variance; NaN stays NaN.

    Arguments:
        channels: names of the channels.
        units: of the channels, told in errors.
        axes: number of axes of space.
        transform: what is applied first, to every channel: `"none"` or the signed `"sqrt"`.

    Raises:
        ValueError: if there is no such transform.
    """

    def __init__(self, channels: Sequence[str], units: Sequence[str], axes: int, transform: str = "none") -> None:
        super().__init__()
        if transform not in TRANSFORMS:
            msg = f"no transform {transform!r}; {near_miss(transform, TRANSFORMS)}"
            raise ValueError(msg)
        self.channels, self.units, self.axes = tuple(channels), tuple(units), axes
        self._do, self._undo = TRANSFORMS[transform]
        self.register_buffer("mean", torch.zeros(len(self.channels)))
        self.register_buffer("scale", torch.ones(len(self.channels)))

    def fit(self, trajectories: Sequence[Tensor]) -> None:
        """Takes mean and standard deviation of what was measured of trajectories `(T, C, *space)`.

        Raises:
            ValueError: if a channel is constant or not measured at all.
        """
        for index, name in enumerate(self.channels):
            values = torch.cat([self._do(x[:, index].flatten().double().cpu()) for x in trajectories])
            values = values[values.isfinite()]
            spread = values.std(correction=0) if len(values) else torch.tensor(0.0)
            if not len(values) or spread <= 1e-6 * values.abs().max():
                state = f"constant ({values[0]:g})" if len(values) else "not measured at all"
                msg = f"channel {name!r} is {state}: there is nothing to learn of it, leave it out"
                raise ValueError(msg)
            self.mean[index], self.scale[index] = values.mean(), spread

    def forward(self, x: Tensor) -> Tensor:
        """Normalises."""
        return (self._do(x.to(self.mean)) - self._shaped(self.mean)) / self._shaped(self.scale)

    def undo(self, x: Tensor) -> Tensor:
        """Goes back to physical units."""
        return self._undo(x * self._shaped(self.scale) + self._shaped(self.mean))

    def check(self, x: Tensor) -> None:
        """Refuses frames `(B, P, C, *space)` whose values can only be in other units.

        Raises:
            ValueError: if the median of a channel is more than ten scales from the mean of training.
        """
        place = self(x).movedim(2, 1).flatten(2).nanmedian(2).values  # (B, C)
        for row, index in (place.abs() > FAR).nonzero().tolist():
            mean, scale = (self._undo(v).item() for v in (self.mean[index], self.mean[index] + self.scale[index]))
            unit = self.units[index] and f" {self.units[index]}"
            msg = (
                f"channel {self.channels[index]!r} of object {row} is {place[row, index]:.3g} scales from the mean of "
                f"training ({mean:.4g}{unit}, one scale above it {scale:.4g}{unit}): is it in other units?"
            )
            raise ValueError(msg)

    @property
    def sha256(self) -> str:
        """Returns the content hash of mean and scale."""
        return hashlib.sha256(torch.stack([self.mean, self.scale]).cpu().numpy().tobytes()).hexdigest()

    def _shaped(self, values: Tensor) -> Tensor:
        return values.view(-1, *[1] * self.axes)
