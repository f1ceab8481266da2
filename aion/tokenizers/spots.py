r"""Spots: what the codes of an image cannot carry, as round Gaussians in one band found by pursuit.

A spot is :math:`a\,g(x - c)` with :math:`g` a Gaussian of unit norm, its width and its signed amplitude on fixed
grids, its centre a pixel, in the bands of one colour, one id. With residual r and ivar w of the pixels, adding it lowers
the chi-square by

.. math:: 2 a \sum w r g - a^2 \sum w g^2.

In each round every tile of pixels offers its best spot; those that beat their neighbours are taken, the residual is
updated, until none lowers the chi-square by more than a threshold or the budget is spent. So however bright a source
is and however unlike what the codes were trained on, what is left of it is noise to any filter of the shape of a spot.

References:
    | Matching Pursuits with Time-Frequency Dictionaries (Mallat and Zhang, 1993), IEEE Trans. Signal Process. 41, 3397
    | The use of CLEAN in aperture synthesis (Högbom, 1974), Astron. Astrophys. Suppl. 15, 417
"""

__all__ = ["Spots"]

import math

from collections.abc import Sequence

import torch

from torch import Tensor, nn

from aion.observations import BANDS

COLOURS = (4100.0, 5500.0, 6900.0, 8300.0, 9400.0)  # Angstrom, the borders between u, g, r, i, z and y
SIGMAS = (0.5, 0.8, 1.3, 2.1, 3.4)  # pixels
LEVELS = 8  # of the amplitude; the sign doubles them
AMPLITUDES = (5.0, 2.0)  # the smallest in units of the noise, and the ratio of one to the next
REACH = 3.0  # in sigma; beyond, a spot is zero
TILE = 4  # pixels on the side of what offers one spot at a time
WORTH = 0.02  # spots worth less than this share of the best of an image in its band wait for the next round
CHUNK = 4096  # tiles at a time, so that they stay in the cache


class Spots(nn.Module):
    """Finds and renders spots; it has no parameters.

    Arguments:
        budget: most spots of an image.
        threshold: least decrease of the chi-square.
    """

    size = (len(COLOURS) + 1) * len(SIGMAS) * 2 * LEVELS

    def __init__(self, budget: int, threshold: float) -> None:
        super().__init__()
        self.budget, self.threshold = budget, threshold
        self.margin = math.ceil(max(SIGMAS) * REACH)
        sigma = torch.tensor(SIGMAS, device="cpu")[:, None]
        offset = torch.arange(-self.margin, self.margin + 1, device="cpu")
        line = torch.exp(-0.5 * (offset / sigma) ** 2) * (offset.abs() <= (sigma * REACH).ceil())
        line = line / line.square().sum(1, keepdim=True).sqrt()
        shifted = torch.stack([nn.functional.pad(line, (k, TILE - 1 - k)) for k in range(TILE)], 1)
        self.register_buffer("line", line, persistent=False)  # (shapes, 2 margin + 1)
        self.register_buffer("shifted", shifted, persistent=False)  # (shapes, places in a tile, side of a window)

    def describe(self, ids: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Returns the colour and the shape of ids, as numbers, and the amplitude in units of the noise."""
        shape, rest = ids % len(SIGMAS), ids // len(SIGMAS)
        level, colour = rest % (2 * LEVELS), rest // (2 * LEVELS)
        size = AMPLITUDES[0] * AMPLITUDES[1] ** (level % LEVELS)
        return colour, shape, torch.where(level < LEVELS, size, -size)

    @torch.no_grad()
    def find(self, residual: Tensor, ivar: Tensor, allowed: Tensor, bands: Sequence[str]) -> tuple[Tensor, ...]:
        """Finds the spots of images.

        Arguments:
            residual: observed flux minus that of the codes, in units of the usual noise, `(B, C, H, W)`.
            ivar: in the same units.
            allowed: pixels that may have spots, `(B, H, W)`.
            bands: names of the C bands.

        Returns:
            Object, row, column and id of every spot `(n,)`, in the order in which each object's were found.
        """
        colours = _colours(bands).to(residual.device)
        present = colours.unique()
        same = (present[:, None] == colours).to(residual.dtype)
        # Clamped: at a S/N of 1e6 a pixel the squares below still fit into float32.
        ivar = ivar.clamp(max=1e12)
        weight, signal = (torch.einsum("kc,bchw->bkhw", same, x).flatten(0, 1) for x in (ivar, ivar * residual))
        pad = (self.margin,) * 4
        weight, signal = nn.functional.pad(weight, pad), nn.functional.pad(signal, pad)
        windows = [x.unfold(1, self.shifted.shape[2], TILE).unfold(2, self.shifted.shape[2], TILE) for x in (weight, signal)]
        power = self._filter(windows[0], windows[0].new_ones(windows[0].shape[:3], dtype=torch.bool), 2)
        power = power.unflatten(0, windows[0].shape[:3])
        inside = allowed.unflatten(2, (-1, TILE)).unflatten(1, (-1, TILE)).movedim(3, 2)
        inside = inside.repeat_interleave(len(present), 0).flatten(3)
        gain, which = weight.new_zeros(inside.shape[:3]), torch.zeros(inside.shape[:3], dtype=torch.long, device=weight.device)
        left = torch.full((len(residual),), self.budget, device=weight.device)
        changed, found = inside.any(3), []
        while changed.any():
            gain[changed], which[changed] = self._best(
                self._filter(windows[1], changed, 1), power[changed], inside[changed]
            )
            row, i, j = self._take(gain, left, len(present))
            if not len(row):
                break
            place, rest = which[row, i, j] % TILE**2, which[row, i, j] // TILE**2
            y, x = i * TILE + place // TILE, j * TILE + place % TILE
            ids = rest + present[row % len(present)] * (2 * LEVELS * len(SIGMAS))
            found.append(torch.stack([row // len(present), y, x, ids]))
            left -= torch.bincount(found[-1][0], minlength=len(left))
            self._draw(signal, row, y, x, ids, weight)
            changed = self._touched(gain, row, i, j, ids) & inside.any(3) & (left > 0).repeat_interleave(len(present))[:, None, None]
        found = torch.cat(found, 1) if found else left.new_zeros(4, 0)
        return tuple(found[:, found[0].argsort(stable=True)])

    def render(self, spots: Sequence[Tensor], image: Tensor, bands: Sequence[str]) -> Tensor:
        """Adds up spots, as `find` returns them, on images like `image` `(B, C, H, W)`, in units of the usual noise."""
        canvas = nn.functional.pad(torch.zeros_like(image), (self.margin,) * 4)
        owner, y, x, ids = spots
        hit = self.describe(ids)[0][:, None] == _colours(bands).to(ids.device)
        spot, band = hit.nonzero(as_tuple=True)
        self._draw(canvas.flatten(0, 1), owner[spot] * len(bands) + band, y[spot], x[spot], ids[spot], None)
        m = self.margin
        return canvas[:, :, m : canvas.shape[2] - m, m : canvas.shape[3] - m]

    def _draw(self, canvas: Tensor, row: Tensor, y: Tensor, x: Tensor, ids: Tensor, weight: Tensor | None) -> None:
        """Adds spots to padded maps `(R, H, W)` in place, or, with weights, takes them times these off."""
        _, shape, amplitude = self.describe(ids)
        line = self.line[shape]
        value = amplitude[:, None, None] * line[:, :, None] * line[:, None]
        at = torch.arange(line.shape[1], device=row.device)
        index = (row[:, None, None], (y[:, None] + at)[:, :, None], (x[:, None] + at)[:, None])
        canvas.index_put_(index, value if weight is None else -value * weight[index], accumulate=True)

    def _filter(self, windows: Tensor, tiles: Tensor, power: int) -> Tensor:
        """Returns the sums of windows times shapes (to a power) at the pixels of the tiles chosen, `(n, shapes, t * t)`."""
        line, out = self.shifted**power, []
        for row, i, j in zip(*(x.split(CHUNK) for x in tiles.nonzero(as_tuple=True)), strict=True):
            along = (windows[row, i, j] @ line.flatten(0, 1).T).unflatten(2, line.shape[:2])
            out.append(torch.einsum("sit,ntsj->nsij", line, along).flatten(2))
        return torch.cat(out)

    def _best(self, signal: Tensor, power: Tensor, inside: Tensor) -> tuple[Tensor, Tensor]:
        """Returns the decrease of the chi-square by the best spot of each tile, and place in it, shape and level."""
        most, best = (signal.square() / power.clamp(min=1e-30) * inside[:, None]).flatten(1).max(1)
        signal, power = (x.flatten(1).gather(1, best[:, None])[:, 0] for x in (signal, power.clamp(min=1e-30)))
        level = ((signal / power).abs().clamp(min=1e-30) / AMPLITUDES[0]).log() / math.log(AMPLITUDES[1])
        level = level.round().clamp(0, LEVELS - 1).long() + LEVELS * (signal < 0)
        shape, place = best // TILE**2, best % TILE**2
        ids = shape + len(SIGMAS) * level
        amplitude = self.describe(ids)[2]
        return torch.where(most > 0, 2 * amplitude * signal - amplitude**2 * power, 0.0), place + TILE**2 * ids

    def _take(self, gain: Tensor, left: Tensor, colours: int) -> tuple[Tensor, Tensor, Tensor]:
        """Returns row and tile of the spots to take: worth it, better than their neighbours, within the budget."""
        worth = (gain.amax((1, 2), keepdim=True) * WORTH).clamp(min=self.threshold)
        taken = (gain > worth) & (gain >= nn.functional.max_pool2d(gain[:, None], 3, 1, 1)[:, 0])
        ranked = torch.where(taken, gain, 0.0).unflatten(0, (-1, colours)).flatten(1)
        rank = ranked.argsort(dim=1, descending=True, stable=True).argsort(dim=1)
        taken &= (rank < left[:, None]).view_as(taken)
        return taken.nonzero(as_tuple=True)

    def _touched(self, gain: Tensor, row: Tensor, i: Tensor, j: Tensor, ids: Tensor) -> Tensor:
        """Tells which tiles offer something else after spots were taken."""
        touched = torch.zeros_like(gain)
        shape = self.describe(ids)[1]
        for k, sigma in enumerate(SIGMAS):
            own = torch.zeros_like(gain)
            at = shape == k
            own[row[at], i[at], j[at]] = 1
            reach = math.ceil((math.ceil(sigma * REACH) + self.margin) / TILE)
            if at.any():
                touched = torch.maximum(touched, nn.functional.max_pool2d(own[:, None], 2 * reach + 1, 1, reach)[:, 0])
        return touched > 0


def _colours(bands: Sequence[str]) -> Tensor:
    """Returns the number of the colour of each band."""
    return torch.tensor([sum(BANDS[band] > border for border in COLOURS) for band in bands])
