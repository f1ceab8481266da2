r"""The ladder of rungs in ln wavelength that every spectrum is laid on.

Rung r of octave o covers :math:`\ln(\lambda/\lambda_0) \in [r, r + 1)\,\Delta\,2^{-o}` and holds a fixed number of cells. A
spectrum lies on one octave, the coarsest whose cells are at most `PIXELS` of its pixels wide: what an instrument resolves
decides how finely it is read, and instruments alike share rungs. A `Window` is the stretch of one octave that a batch
needs. Pixels are shared out to the two nearest cells, weighted by ivar, and models are read between two cells: sums over
pixels, no interpolation of flux.
"""

__all__ = ["PIXELS", "Ladder", "Window"]

import math

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from torch import Tensor

PIXELS = 3.0  # pixels per cell: 2.5 for DESI and 1.4 for SDSS on octave 0


@dataclass(frozen=True)
class Window:
    """Describes consecutive rungs of one octave.

    Arguments:
        start: blue end in vacuum Angstrom.
        step: width of a rung in ln wavelength.
        cells: number of cells in a rung.
        first: number of the first rung, counted on its octave.
        rungs: number of rungs R.
    """

    start: float
    step: float
    cells: int
    first: int
    rungs: int

    def nodes(self, wavelength: Tensor) -> tuple[Tensor, Tensor]:
        """Returns where pixels lie, in cells from the blue end, float64, and whether they are inside."""
        # In float64: the ladder has thousands of cells, and a tenth of a cell must not depend on the device.
        node = (wavelength.double() / self.start).log() * (self.cells / self.step) - self.first * self.cells
        return node, (node >= 0) & (node < self.rungs * self.cells)

    def share(self, node: Tensor, used: Tensor, fine: int, *values: Tensor) -> list[Tensor]:
        """Shares values of pixels out to the two nearest of `fine` times as many cells.

        Arguments:
            node: as of `nodes`, `(B, L)`.
            used: pixels that count; the others add nothing.
            fine: cells per cell of the window.
            values: what is summed, each `(B, L)`.

        Returns:
            For each of `values` the sums `(B, R * cells * fine)`.
        """
        total = self.rungs * self.cells * fine
        at = torch.where(used, node * fine - 0.5, 0.0)
        low = at.floor()
        right = torch.where(used, at - low, 0.0).float()
        low = low.long()
        left = torch.where(used, 1 - right, 0.0)
        sums = [value.new_zeros(len(node), total + 2) for value in values]
        for index, part in ((low + 1, left), (low + 2, right)):  # one cell more at each end, which is cut off
            for result, value in zip(sums, values, strict=True):
                result.scatter_add_(1, index, part * value)
        return [result[:, 1:-1] for result in sums]

    def read(self, cells: Tensor, measured: Tensor, node: Tensor, inside: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Reads cells `(B, R * cells)` at pixels: values, the rung of each pixel, whether a measured rung covers it."""
        node = torch.where(inside, node, 0.0)
        rung = (node / self.cells).long().clamp(max=self.rungs - 1)
        low = (node - 0.5).floor()
        right = (node - 0.5 - low).float()
        low, last = low.long(), cells.shape[1] - 1
        known = measured.to(cells.dtype).repeat_interleave(self.cells, dim=1)
        # A cell of a rung without token is unknown: the other one is used alone.
        below, above = low.clamp(min=0), (low + 1).clamp(max=last)
        left, right = (1 - right) * known.gather(1, below), right * known.gather(1, above)
        value = left * cells.gather(1, below) + right * cells.gather(1, above)
        return value / (left + right).clamp(min=1e-6), rung, inside & measured.gather(1, rung)

    def counts(self, node: Tensor, used: Tensor) -> Tensor:
        """Counts the pixels used in each rung, `(B, R)`."""
        rung = torch.where(used, node / self.cells, 0.0).long().clamp(0, self.rungs - 1)
        return torch.zeros(len(node), self.rungs, dtype=torch.int32, device=node.device).scatter_add_(
            1, rung, used.to(torch.int32)
        )


class Ladder:
    """Lays spectra on rungs at fixed physical wavelengths.

    Arguments:
        start: blue end in vacuum Angstrom.
        stop: red end, reached by the last rung of octave 0.
        step: width of a rung of octave 0 in ln wavelength.
        cells: number of cells in a rung.
        octaves: those there are; each is finer by 2 than the one before it in the count.

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

    def window(self, octave: int, first: int = 0, last: int | None = None) -> Window:
        """Returns the rungs `first` to `last` of an octave; all of them by default."""
        last = math.ceil(self.rungs * 2.0**octave) - 1 if last is None else last
        return Window(self.start, self.step * 2.0**-octave, self.cells, first, last - first + 1)

    def inside(self, wavelength: Tensor) -> Tensor:
        """Tells which wavelengths lie on the ladder."""
        return self.window(0).nodes(wavelength)[1]

    def choose(self, wavelength: Tensor, measured: Tensor) -> Tensor:
        """Returns the index in `octaves` of the octave of each spectrum, `(B,)`.

        The median spacing of pixels of which at least one of two neighbours is measured decides; pixels at one
        wavelength (overlaps, padding) are no neighbours. What is masked inside a spectrum does not change it.
        """
        index = torch.zeros(len(wavelength), dtype=torch.long, device=wavelength.device)
        if len(self.octaves) == 1 or wavelength.shape[1] < 2:
            return index + (self.octaves.index(0) if 0 in self.octaves else 0)
        spacing = wavelength.double().log().diff(dim=1)
        counted = (spacing > 0) & (measured[:, 1:] | measured[:, :-1])
        half = counted.sum(1) / 2
        for octave in self.octaves[:-1]:  # a finer one is needed if most pixels are too narrow for its cells
            narrow = spacing < self.step * 2.0**-octave / self.cells / PIXELS
            index += (counted & narrow).sum(1) > half
        return index
