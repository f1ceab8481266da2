"""`Layout`: which axis of an activation is what.

A layout is a string of one letter an axis: B objects, T frames, N tokens, C channels, and H, W, D for a grid of places.
The channels and the grid of one frame of one object are one vector to steering. Frames, and tokens, of which some may
be padding, are each a vector of their own, so that what happens to one depends on no other.
"""

__all__ = ["Layout"]

from dataclasses import dataclass

import torch

from torch import Tensor

LETTERS = "BTNCHWD"
USUAL = {2: "BC", 3: "BNC", 4: "BCHW", 5: "BCHWD", 6: "BTHWDC"}


@dataclass(frozen=True)
class Layout:
    """Names the axes of an activation.

    Arguments:
        letters: such as `"BNC"` for a transformer of tokens or `"BTHWDC"` for frames on a grid; one B and one C.

    Raises:
        ValueError: for other letters, or a letter that is missing or twice there.

    Example:
        >>> Layout("TBCHW").rows(torch.ones(3, 2, 4, 5, 5)).shape
        torch.Size([2, 4])
    """

    letters: str

    def __post_init__(self) -> None:
        given = self.letters
        wrong = not isinstance(given, str) or set(given) - set(LETTERS) or len(set(given)) < len(given)
        if wrong or "B" not in given or "C" not in given:
            msg = f"a layout has one letter an axis, each of {LETTERS} at most once, with B and C; given {given!r}"
            raise ValueError(msg)

    @classmethod
    def of(cls, x: Tensor, letters: str | None = None) -> "Layout":
        """Returns the layout of an activation: that of these letters, else the usual one for its number of axes.

        Raises:
            ValueError: if the number of axes is another, or there is no usual layout for it.
        """
        letters = USUAL.get(x.ndim) if letters is None else letters
        if letters is None or len(letters) != x.ndim:
            wanted = f"the layout {letters!r}" if letters else f"one of {', '.join(USUAL.values())}: give layout="
            msg = f"the activation has the shape {tuple(x.shape)}, which does not fit {wanted}"
            raise ValueError(msg)
        return cls(letters)

    @property
    def channel(self) -> int:
        """Returns the axis of the channels."""
        return self.letters.index("C")

    @property
    def grid(self) -> tuple[int, ...]:
        """Returns the axes of the grid, in their order."""
        return tuple(i for i, letter in enumerate(self.letters) if letter in "HWD")

    @property
    def vector(self) -> tuple[int, ...]:
        """Returns the axes that make one vector: the channels and the grid."""
        return (self.channel, *self.grid)

    def grid_shape(self, x: Tensor) -> tuple[int, ...]:
        """Returns the shape of the grid of an activation; `()` without one."""
        return tuple(x.shape[axis] for axis in self.grid)

    def norm(self, x: Tensor) -> Tensor:
        """Computes the norm of each vector, in its own axes of length 1."""
        return torch.linalg.vector_norm(x, dim=self.vector, keepdim=True)

    def rows(self, x: Tensor, valid: Tensor | None = None) -> Tensor:
        """Averages over all but objects and channels, `(B, C)` in float64.

        Sums are in float32 at least: in float64 they take ten times as long and differ by 1e-7.

        Arguments:
            x: an activation.
            valid: which of the tokens count, bool, broadcastable to the activation without its channels.

        Raises:
            ValueError: if `valid` does not fit or an object has nothing valid.
        """
        x, others = x.detach(), [i for i, letter in enumerate(self.letters) if letter not in "BC"]
        if valid is None:
            mean = x.mean(others, dtype=_wide(x)).double() if others else x.double()
            return mean if self.letters.index("B") < self.channel else mean.T
        shape = tuple(size for axis, size in enumerate(x.shape) if axis != self.channel)
        if _broadcast(valid, shape) != shape:
            msg = f"valid has the shape {tuple(valid.shape)}, which does not fit {shape}"
            raise ValueError(msg)
        weight = valid.to(_wide(x)).expand(shape).movedim(self.letters.replace("C", "").index("B"), 0).flatten(1)
        total = weight.sum(1)
        if (total == 0).any():
            msg = f"object {int((total == 0).nonzero()[0])} of the batch has nothing valid"
            raise ValueError(msg)
        rows = x.movedim((self.letters.index("B"), self.channel), (0, -1)).flatten(1, -2).to(weight)
        weight = (weight / total[:, None])[:, None]
        mean = torch.bmm(weight, rows)[:, 0]
        if not mean.isfinite().all():  # what stands in padding may be NaN, and 0 times NaN is NaN
            mean = torch.bmm(weight, rows.masked_fill(weight.transpose(1, 2) == 0, 0.0))[:, 0]
        return mean.double()

    def field(self, x: Tensor) -> Tensor:
        """Averages over objects, frames and tokens, `(C, *grid)` in float64."""
        others = tuple(i for i in range(x.ndim) if i not in self.vector)
        x = x.detach().double().mean(others, keepdim=True)
        return x.permute(*self.vector, *others).reshape(x.shape[self.channel], *self.grid_shape(x))

    def spread(self, field: Tensor) -> Tensor:
        """Gives a vector `(C,)` or a field `(C, *grid)` the axes of an activation, those it lacks of length 1."""
        shape = [1] * len(self.letters)
        for axis, size in zip(sorted(self.vector), self._in_order(field).shape, strict=True):
            shape[axis] = size
        return self._in_order(field).reshape(shape)

    def _in_order(self, field: Tensor) -> Tensor:
        """Moves the channels, which come first, to their place among the axes of the grid."""
        field = field.reshape(*field.shape, *[1] * (1 + len(self.grid) - field.ndim))
        return field.movedim(0, sorted(self.vector).index(self.channel))


def _wide(x: Tensor) -> torch.dtype:
    return torch.promote_types(x.dtype, torch.float32)


def _broadcast(valid: Tensor, shape: tuple[int, ...]) -> tuple[int, ...] | None:
    try:
        return tuple(torch.broadcast_shapes(valid.shape, shape))
    except RuntimeError:
        return None
