r"""The ladder of rungs in ln wavelength that every spectrum is laid on.

Rung r of octave o covers :math:`\ln(\lambda/\lambda_0) \in [r, r + 1)\,\Delta\,2^{-o}` and holds a fixed number of
cells. A spectrum lies on one octave, the coarsest whose cells are at most `PIXELS` of its pixels wide: what an
instrument resolves decides how finely it is read, and instruments alike share rungs. A `Window` holds the rungs of one
octave that a batch needs. Pixels are shared out to the two nearest cells, weighted by ivar, and models are read between
two cells: sums over pixels, no interpolation of flux.
"""

__all__ = ["Ladder", "Window"]

import math

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from torch import Tensor, nn

REACH = 3  # rungs without a token that keep those on their two sides apart: half the kernel of the convolutions
PIXELS = 4.0  # pixels per cell: 2.5 for DESI and 1.4 for SDSS on octave 0; at 3 the red half of DESI went to octave 2


@dataclass(frozen=True)
class Window:
    """Holds the rungs of one octave that a batch needs.

    Arguments:
        octave: which one.
        cells: number of cells in a rung.
        total: number of rungs of the octave.
        numbers: the rungs there are, rising, `(R,)`.
    """

    octave: int
    cells: int
    total: int
    numbers: Tensor

    @property
    def rungs(self) -> int:
        """Returns the number of rungs R."""
        return len(self.numbers)

    @property
    def base(self) -> Tensor:
        """Returns the rungs in units of those of octave 0, `(R,)`."""
        return self.numbers.float() * 2.0**-self.octave

    def within(self, node: Tensor) -> tuple[Tensor, Tensor]:
        """Turns nodes of the whole octave into nodes of the window, and tells which are inside."""
        first = int(self.numbers[0])
        if int(self.numbers[-1]) - first + 1 == self.rungs:
            node = node - first * self.cells
            return node, (node >= 0) & (node < self.rungs * self.cells)
        table = self.numbers.new_full((self.total,), -1)
        table[self.numbers] = torch.arange(self.rungs, device=table.device)
        rung = (node / self.cells).floor().clamp(0, self.total - 1)
        slot = table[rung.long()]
        on = (node >= 0) & (node < self.total * self.cells) & (slot >= 0)
        return node + (slot - rung) * self.cells, on

    def share(self, node: Tensor, used: Tensor, fine: int, *values: Tensor) -> list[Tensor]:
        """Shares values of pixels out to the two nearest of `fine` times as many cells.

        Arguments:
            node: as of `within`, `(B, L)`.
            used: pixels that count; the others add nothing.
            fine: cells per cell of the window.
            values: what is summed, each `(B, L)`.

        Returns:
            For each of `values` the sums `(B, R * cells * fine)`.
        """
        total = self.rungs * self.cells * fine
        at = torch.where(used, node * fine + 0.5, 0.0)  # one cell more at each end, which is cut off
        index = at.long()
        right = (at - index).float()
        sums = [value.new_zeros(len(node), total + 2) for value in values]
        for cell, part in ((index, 1 - right), (index + 1, right)):
            for result, value in zip(sums, values, strict=True):
                result.scatter_add_(1, cell, part * value)
        return [result[:, 1:-1] for result in sums]

    def read(self, cells: Tensor, measured: Tensor, node: Tensor, inside: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Reads cells `(B, R * cells)` at pixels: values, the rung of each pixel, whether a measured rung covers it."""
        at = torch.where(inside, node, 0.0)
        rung = (at / self.cells).long().clamp(max=self.rungs - 1)
        index, last = (at := at + 0.5).long(), cells.shape[1] - 1
        right = (at - index).float()
        known = measured.to(cells.dtype).repeat_interleave(self.cells, dim=1)
        # A cell of a rung without token is unknown: the other one is used alone.
        below, above = (index - 1).clamp(min=0), index.clamp(max=last)
        left, right = (1 - right) * known.gather(1, below), right * known.gather(1, above)
        value = left * cells.gather(1, below) + right * cells.gather(1, above)
        return value / (left + right).clamp(min=1e-6), rung, inside & measured.gather(1, rung)


class Ladder:
    """Lays spectra on rungs at fixed physical wavelengths.

    Arguments:
        start: blue end in vacuum Angstrom.
        stop: red end, reached by the last rung of octave 0.
        step: width of a rung of octave 0 in ln wavelength.
        cells: number of cells in a rung.
        octaves: those there are; rungs of octave o are 2^o times narrower than those of octave 0.

    Raises:
        ValueError: for ends that are not positive and in order, or no octave.
    """

    def __init__(self, start: float, stop: float, step: float, cells: int, octaves: Sequence[int]) -> None:
        if not 0 < start < stop or not step > 0 or cells < 1 or not octaves or len(set(octaves)) < len(octaves):
            msg = (
                "spectrum ladder: wanted 0 < start < stop, step > 0, cells >= 1 and different octaves, given "
                f"start={start}, stop={stop}, step={step}, cells={cells}, octaves={list(octaves)}"
            )
            raise ValueError(msg)
        self.start, self.step, self.cells, self.octaves = start, step, cells, tuple(sorted(octaves))
        self.rungs = math.ceil(math.log(stop / start) / step)
        self.stop = start * math.exp(self.rungs * step)

    def total(self, octave: int) -> int:
        """Returns the number of rungs of an octave."""
        return math.ceil(self.rungs * 2.0**octave)

    def covers(self, wavelength: Tensor) -> Tensor:
        """Tells which pixels are on octave 0."""
        return (wavelength >= self.start) & (wavelength < self.stop)

    def nodes(self, wavelength: Tensor, octave: int) -> tuple[Tensor, Tensor]:
        """Returns where pixels lie on an octave, in cells from the blue end, float64, and whether they are on it."""
        # In float64: the ladder has thousands of cells, and a tenth of a cell must not depend on the device.
        node = (wavelength.double() / self.start).log() * (self.cells / self.step * 2.0**octave)
        return node, (node >= 0) & (node < self.total(octave) * self.cells)

    def measured(self, node: Tensor, used: Tensor, octave: int) -> Tensor:
        """Tells which rungs of an octave have a pixel that is used, `(B, total)`."""
        result = torch.zeros(len(node), self.total(octave), dtype=torch.uint8, device=node.device)
        rung = torch.where(used, node / self.cells, 0.0).long().clamp(0, result.shape[1] - 1)
        return result.scatter_reduce_(1, rung, used.to(torch.uint8), "amax").bool()

    def window(self, octave: int, needed: Tensor) -> Window:
        """Returns the window of the rungs `needed` `(B, total)`, in which gaps are shortened to `REACH` rungs."""
        kept = some = needed.any(0)
        for shift in range(1, REACH + 1):
            kept = kept | nn.functional.pad(some[:-shift], (shift, 0))
        last = int(some.nonzero()[-1])
        return Window(octave, self.cells, len(some), kept[: last + 1].nonzero()[:, 0])

    def choose(self, wavelength: Tensor, measured: Tensor) -> Tensor:
        """Returns the index in `octaves` of the octave of each spectrum, `(B,)`.

        The median spacing of pixels of which at least one of two neighbours is measured decides; pixels at one
        wavelength (overlaps, padding) are no neighbours. What is masked inside a spectrum does not change it.
        """
        index = torch.zeros(len(wavelength), dtype=torch.long, device=wavelength.device)
        if len(self.octaves) == 1 or wavelength.shape[1] < 2:
            return index + (self.octaves.index(0) if 0 in self.octaves else 0)
        spacing = wavelength.diff(dim=1) / wavelength[:, :-1]
        counted = (spacing > 0) & (measured[:, 1:] | measured[:, :-1])
        half = counted.sum(1) / 2
        for octave in self.octaves[:-1]:  # a finer one is needed if most pixels are too narrow for its cells
            narrow = spacing < math.expm1(self.step * 2.0**-octave / self.cells / PIXELS)
            index += (counted & narrow).sum(1) > half
        return index
