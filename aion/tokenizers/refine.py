r"""Atoms: what the codes of a spectrum do not carry, as Gaussians in ln wavelength found by pursuit.

An atom is :math:`a\,\exp(-(x - c)^2/2\sigma^2)` with centre, width and signed amplitude on fixed grids, one id. The
sums of the pursuit (see `aion.tokenizers.pursuit`) are products of a fixed dictionary with what the pixels left on a
fine ladder. In each round every rung offers its best atom; those that beat their neighbours are taken, until none
lowers the chi-square by more than a threshold or the budget is spent. The threshold is the price of an atom: 12 bits
and the choice of its rung, 2 ln 2 each in units of chi-square, are 27.

Swells are the same on a ladder 16 times coarser, one cell for a rung: they set the continuum right. Half of what the
codes alone lose of a star is the level of whole rungs, and a third that of sixteen at a time.
"""

__all__ = ["Atoms", "clipped"]

import math

from collections.abc import Sequence

import torch

from torch import Tensor, nn

from aion.tokenizers.ladder import Window
from aion.tokenizers.pursuit import Dictionary, Pursuit

FINE = 4  # nodes of the fine ladder per cell
REACH = 4.0  # in sigma; beyond, an atom is zero
WORTH = 0.1  # atoms worth less than this share of a spectrum's best wait for the next round
CLIP = 4.0  # residuals larger than so many times the median one are lines, and not for swells


class Atoms(nn.Module):
    """Finds and renders atoms; it has no parameters.

    Arguments:
        cells: number of cells in a rung.
        offsets: centres in a rung.
        sigmas: widths in cells.
        levels: steps of the logarithm of the amplitude; the sign doubles them.
        amplitudes: the smallest and the largest, in units of the flux scale.
        threshold: least decrease of the chi-square.
    """

    def __init__(
        self,
        cells: int,
        offsets: int = 32,
        sigmas: Sequence[float] = (0.4, 0.8, 1.6, 3.2),
        levels: int = 16,
        amplitudes: tuple[float, float] = (0.01, 300.0),
        threshold: float = 30.0,
    ) -> None:
        super().__init__()
        self.cells, self.offsets, self.threshold = cells, offsets, threshold
        self.size = offsets * len(sigmas) * 2 * levels
        self.margin = math.ceil(max(sigmas) * FINE * REACH)
        self.near = math.ceil(self.margin / cells / FINE)  # rungs next to its own that an atom reaches
        self.register_buffer("sigmas", torch.tensor(sigmas, device="cpu"), persistent=False)
        offset = (torch.arange(offsets, device="cpu") + 0.5) / offsets * cells
        node = (torch.arange(cells * FINE + 2 * self.margin, device="cpu") - self.margin + 0.5) / FINE
        u = (node - offset[None, :, None]) / self.sigmas[:, None, None]
        shape = torch.exp(-0.5 * u**2) * (u.abs() <= REACH)
        sizes = torch.linspace(*(math.log(a) for a in amplitudes), levels, device="cpu").exp()
        self.dictionary = Dictionary(shape.flatten(0, 1), cells * FINE, sizes)  # of fine nodes, offsets first

    def describe(self, ids: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Returns centre (in cells from the blue end of the rung), width (cells) and amplitude (flux scales) of ids."""
        offset, rest = (ids % self.offsets + 0.5) / self.offsets * self.cells, ids // self.offsets
        return offset, self.sigmas[rest % len(self.sigmas)], self.dictionary.amplitudes[rest // len(self.sigmas)]

    @torch.no_grad()
    def find(
        self,
        residual: Tensor,
        ivar: Tensor,
        node: Tensor,
        used: Tensor,
        measured: Tensor,
        window: Window,
        budget: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Finds the atoms of spectra.

        Arguments:
            residual: observed flux minus that of the codes, in units of the flux scale, `(B, L)`.
            ivar: in the same units.
            node: where the pixels lie, see `Window.within`.
            used: pixels that count.
            measured: rungs that may have atoms, `(B, R)`.
            window: the rungs.
            budget: most atoms of each spectrum, `(B,)`.

        Returns:
            The rung (counted in the window) and id of every atom `(B, A)`, as they were found, and which there are.
        """
        # Clamped: at a S/N of 1e6 a pixel the squares below still fit into float32.
        weight = ivar.clamp(max=1e12)
        weight, signal = window.share(node, used, FINE, weight, weight * residual)
        shapes, far = self.dictionary.shapes, self.dictionary.around
        size, step = shapes.shape[1], self.dictionary.tile
        # Beyond the last rung there are some in which nothing is allowed, see `Pursuit`.
        pad = (self.margin, self.margin + far * step)
        weight, signal = (nn.functional.pad(x, pad).unfold(1, size, step) for x in (weight, signal))
        allowed, grid = nn.functional.pad(measured, (0, far)), weight.shape[:2]
        sums = signal.flatten(0, 1) @ shapes.T, weight.flatten(0, 1) @ shapes.square().T
        pursuit = Pursuit(self.dictionary, *sums, allowed.view(-1, 1), grid)
        rows, left = budget.nonzero()[:, 0], budget
        while len(rows):
            row, rung = self._take(pursuit.gain.view(grid), rows)
            pursuit.take(row * grid[1] + rung, weight[row, rung])
            left = left - torch.bincount(row, minlength=len(left))
            rows = row[left[row] > 0].unique_consecutive()
        row, tile, ids = pursuit.taken(torch.arange(len(budget), device=budget.device), budget)
        slot = torch.bincount(row, minlength=len(budget))
        valid = torch.arange(int(slot.max()), device=row.device) < slot[:, None]
        result = torch.zeros(2, *valid.shape, dtype=torch.long, device=row.device)
        result[:, valid] = torch.stack([tile % grid[1], ids])
        return result[0], result[1], valid

    def render(self, rung: Tensor, ids: Tensor, valid: Tensor, node: Tensor) -> Tensor:
        """Adds up atoms at pixels, `(B, L)` in units of the flux scale.

        Arguments:
            rung: number of the rung of each atom, `(B, A)`.
            ids: its id.
            valid: which there are.
            node: where the pixels lie, see `Ladder.nodes`, `(B, L)`.
        """
        flux = node.new_zeros(node.shape, dtype=torch.float32)
        offset, sigma, amplitude = self.describe(ids)
        centre, reach = (rung * self.cells + offset).double(), sigma.double() * REACH
        node = node.contiguous()
        low = torch.searchsorted(node, centre - reach)
        high = torch.searchsorted(node, centre + reach, right=True)
        row, slot = (valid & (high > low)).nonzero(as_tuple=True)
        if not len(row):
            return flux
        low, high, centre = low[row, slot, None], high[row, slot, None], centre[row, slot, None]
        pixel = low + torch.arange(int((high - low).max()), device=row.device)
        inside, pixel, row = pixel < high, pixel.clamp(max=node.shape[1] - 1), row[:, None].expand_as(pixel)
        u = ((node[row, pixel] - centre) / sigma[row[:, 0], slot, None]).float()
        value = amplitude[row[:, 0], slot, None] * torch.exp(-0.5 * u**2) * inside
        return flux.index_put_((row, pixel), value, accumulate=True)

    def codebook(self) -> Tensor:
        """Returns centre, width, sign and log amplitude of every id, scaled to [-1, 1], `(size, 4)`."""
        offset, sigma, amplitude = self.describe(torch.arange(self.size, device=self.sigmas.device))
        columns = [offset, sigma.log(), amplitude.sign(), amplitude.abs().log()]
        return torch.stack([2 * (c - c.min()) / (c.max() - c.min()) - 1 for c in columns], dim=-1)

    def _take(self, gain: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Returns row and rung of the atoms to take in some rows: worth it, and better than their neighbours."""
        gain = gain[rows]
        worth = (gain.amax(1, keepdim=True) * WORTH).clamp(min=self.threshold)
        padded = nn.functional.pad(gain, (self.near, self.near))
        row, rung = ((gain > worth) & (gain >= padded.unfold(1, 2 * self.near + 1, 1).amax(2))).nonzero(as_tuple=True)
        return rows[row], rung


def clipped(residual: Tensor, used: Tensor) -> Tensor:
    """Limits residuals `(B, L)` to `CLIP` times the median size of those used."""
    size = torch.where(used, residual.abs(), math.nan).nanmedian(1, keepdim=True).values.nan_to_num(0.0)
    return torch.maximum(torch.minimum(residual, CLIP * size), -CLIP * size)
