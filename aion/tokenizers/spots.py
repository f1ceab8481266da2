r"""Spots: what the codes of an image cannot carry, as round Gaussians in one colour found by pursuit.

A spot is :math:`a\,g(x - c)` in the bands of one colour: :math:`g` a Gaussian of unit norm, its width and its signed
amplitude on fixed grids, its centre a pixel, one id. With residual r and ivar w of the pixels, adding it lowers the
chi-square by

.. math:: 2 a \sum w r g - a^2 \sum w g^2.

In each round every tile of pixels offers its best spot; those that beat their neighbours are taken and the residual is
updated, until none is worth its price or the budget is spent. The price is 24 in units of the chi-square: 2 ln 288 for
the id, and as much again for the place of a spot that stands alone, which noise hardly ever pays; where the chi-square
is above that of noise all around, half is enough. So of a source brighter than, or unlike, what the codes
were trained on, little but noise is left.

References:
    | Matching Pursuits with Time-Frequency Dictionaries (Mallat and Zhang, 1993), IEEE Trans. Signal Process. 41, 3397
    | Aperture Synthesis with a Non-Regular Distribution of Interferometer Baselines (Högbom, 1974), A&AS 15, 417
"""

__all__ = ["Spots"]

import math

from collections.abc import Callable, Sequence
from functools import reduce

import torch
import torch.nn.functional as F

from torch import Tensor, nn

from aion.observations import BANDS

COLOURS = (4100.0, 5500.0, 6900.0, 8300.0, 9400.0)  # Angstrom, the borders between u, g, r, i, z and y
SIGMAS = (0.5, 0.9, 1.6)  # pixels
LEVELS = 8  # of the amplitude; the sign doubles them
AMPLITUDES = (5.0, 2.5)  # the smallest in units of the usual noise, and the ratio of one to the next
REACH = 2.5  # in sigma; beyond, a spot is zero
TILE = 4  # pixels on the side of what offers one spot at a time
WORTH = 0.02  # spots worth less than this share of the best of an image in its colour wait for the next round
CROWDED = 2.0  # standard deviations of the chi-square of a neighbourhood above which spots cost half
LEFT = 0.3  # error of a pixel, as a share of the amplitude of the faintest spot that covers it
AROUND = 2  # tiles that a neighbourhood goes on in each direction


class Spots(nn.Module):
    """Finds and renders spots; it has no parameters.

    Arguments:
        budget: most spots of an image.
        price: least decrease of the chi-square by a spot that stands alone.
    """

    def __init__(self, budget: int, price: float = 24.0) -> None:
        super().__init__()
        self.budget, self.price = budget, price
        self.size = (len(COLOURS) + 1) * len(SIGMAS) * 2 * LEVELS
        self.margin = math.ceil(max(SIGMAS) * REACH)
        sigma = torch.tensor(SIGMAS, device="cpu")[:, None]
        offset = torch.arange(-self.margin, self.margin + 1, device="cpu")
        line = torch.exp(-0.5 * (offset / sigma) ** 2) * (offset.abs() <= (sigma * REACH).ceil())
        line = line / line.square().sum(1, keepdim=True).sqrt()
        shapes = line[:, :, None] * line[:, None]
        moved = [F.pad(shapes, (x, TILE - 1 - x, y, TILE - 1 - y)) for y in range(TILE) for x in range(TILE)]
        self.register_buffer("shapes", shapes, persistent=False)  # (shapes, side, side)
        # (shapes * places in a tile, pixels of a window)
        self.register_buffer("dictionary", torch.stack(moved, 1).flatten(2).flatten(0, 1), persistent=False)

    def describe(self, ids: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Returns the colour and the shape of ids, as numbers, and the amplitude in units of the usual noise."""
        shape, rest = ids % len(SIGMAS), ids // len(SIGMAS)
        level, colour = rest % (2 * LEVELS), rest // (2 * LEVELS)
        size = AMPLITUDES[0] * AMPLITUDES[1] ** (level % LEVELS)
        return colour, shape, torch.where(level < LEVELS, size, -size)

    @torch.no_grad()
    def find(self, residual: Tensor, ivar: Tensor, allowed: Tensor, bands: Sequence[str]) -> tuple[Tensor, ...]:
        """Finds the spots of images.

        Arguments:
            residual: observed flux minus that of the codes in units of the usual noise, `(B, C, H, W)`; H and W are
                multiples of `TILE`.
            ivar: in the same units; pixels with 0 influence nothing.
            allowed: pixels that may have spots, `(B, H, W)`.
            bands: names of the C bands.

        Returns:
            Object, row, column and id of every spot, each `(n,)`, those of an object in the order they were found.
        """
        colours = _colours(bands).to(residual.device)
        present = colours.unique()
        same = (present[:, None] == colours).to(residual.dtype)
        # Clamped: at a S/N of 1e6 a pixel the squares below still fit into float32.
        ivar = ivar.clamp(max=1e12)
        weight, signal = (torch.einsum("kc,bchw->bkhw", same, x).flatten(0, 1) for x in (ivar, ivar * residual))
        limit, excess = _excess(weight, signal)
        weight, signal = (F.pad(x, (self.margin,) * 4) for x in (weight, signal))
        allowed = _tiles(allowed).repeat_interleave(len(present), 0)
        changed = possible = allowed.any(3)
        power = self._filter(weight, torch.ones_like(changed), 2).unflatten(0, changed.shape)
        gain, best = excess.new_zeros(excess.shape), torch.zeros_like(excess, dtype=torch.long)
        left = torch.full((len(residual),), self.budget, device=weight.device)
        names, found = torch.arange(len(gain), device=weight.device), []
        while changed.any():
            gain[changed], best[changed] = self._best(self._filter(signal, changed), power[changed], allowed[changed])
            least = self.price * (1 - 0.5 * (_around(excess) > limit))
            alive = (gain > least).flatten(1).any(1)  # what is not will never be again, and would only cost time
            if 2 * alive.sum() < len(alive):
                every = weight, signal, power, allowed, possible, gain, best, excess, limit, least, names
                every = (x[alive] for x in every)
                weight, signal, power, allowed, possible, gain, best, excess, limit, least, names = every
            row, i, j = self._take(gain, least)
            keep = _first(names[row] // len(present), gain[row, i, j], left)
            row, i, j = row[keep], i[keep], j[keep]
            owner = names[row] // len(present)
            place, rest = best[row, i, j] % TILE**2, best[row, i, j] // TILE**2
            y, x = i * TILE + place // TILE, j * TILE + place % TILE
            ids = rest + present[names[row] % len(present)] * (2 * LEVELS * len(SIGMAS))
            found.append(torch.stack([owner, y, x, ids]))
            excess[row, i, j] -= gain[row, i, j]
            left -= torch.bincount(owner, minlength=len(left))
            self._draw(signal, row, y, x, ids, weight)
            changed = self._touched(gain, row, i, j, ids) & possible
        found = torch.cat([left.new_zeros(4, 0), *found], 1)
        return tuple(found[:, found[0].argsort(stable=True)])

    def render(self, spots: Sequence[Tensor], image: Tensor, bands: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Adds up spots, as `find` returns them, on images like `image` `(B, C, H, W)`.

        Returns:
            flux and the error left, infinite where there is no spot, in units of the usual noise.
        """
        flux = F.pad(torch.zeros_like(image), (self.margin,) * 4)
        error = torch.full_like(flux, math.inf)
        owner, y, x, ids = spots
        spot, band = (self.describe(ids)[0][:, None] == _colours(bands).to(ids.device)).nonzero(as_tuple=True)
        row, y, x, ids = owner[spot] * len(bands) + band, y[spot], x[spot], ids[spot]
        self._draw(flux.flatten(0, 1), row, y, x, ids)
        _, shape, amplitude = self.describe(ids)
        inside = torch.where(self.shapes[shape] > 0, LEFT * amplitude.abs()[:, None, None], math.inf)
        at = torch.arange(inside.shape[1], device=row.device)
        index = (row[:, None, None] * flux.shape[2] + (y[:, None] + at)[:, :, None]) * flux.shape[3]
        index = index + (x[:, None] + at)[:, None]
        error.view(-1).scatter_reduce_(0, index.flatten(), inside.flatten(), "amin")
        m = self.margin
        return flux[:, :, m:-m, m:-m], error[:, :, m:-m, m:-m]

    def codebook(self) -> Tensor:
        """Returns colour, width, sign and log amplitude of every id, scaled to [-1, 1], `(size, 4)`."""
        colour, shape, amplitude = self.describe(torch.arange(self.size, device=self.shapes.device))
        columns = [colour.float(), shape.float(), amplitude.sign(), amplitude.abs().log()]
        return torch.stack([2 * (c - c.min()) / (c.max() - c.min()) - 1 for c in columns], dim=-1)

    def _draw(self, maps: Tensor, row: Tensor, y: Tensor, x: Tensor, ids: Tensor, weight: Tensor | None = None) -> None:
        """Adds spots to padded maps `(R, H, W)` in place or, with weights, takes them times these off."""
        _, shape, amplitude = self.describe(ids)
        value = amplitude[:, None, None] * self.shapes[shape]
        at = torch.arange(value.shape[1], device=row.device)
        index = (row[:, None, None], (y[:, None] + at)[:, :, None], (x[:, None] + at)[:, None])
        maps.index_put_(index, value if weight is None else -value * weight[index], accumulate=True)

    def _filter(self, maps: Tensor, tiles: Tensor, power: int = 1) -> Tensor:
        """Returns the sums of padded maps times shapes (to a power) for some tiles, `(n, shapes * places)`."""
        side = self.shapes.shape[1] + TILE - 1
        return maps.unfold(1, side, TILE).unfold(2, side, TILE)[tiles].flatten(1) @ (self.dictionary**power).T

    def _best(self, signal: Tensor, power: Tensor, allowed: Tensor) -> tuple[Tensor, Tensor]:
        """Returns the decrease of the chi-square by the best spot of tiles, and its place, shape and level."""
        power = power.clamp(min=1e-30)
        most, best = (signal.square() / power * allowed.repeat(1, len(SIGMAS))).max(1)
        signal, power = (x.gather(1, best[:, None])[:, 0] for x in (signal, power))
        level = ((signal / power).abs().clamp(min=1e-30) / AMPLITUDES[0]).log() / math.log(AMPLITUDES[1])
        level = level.round().clamp(0, LEVELS - 1).long() + LEVELS * (signal < 0)
        ids = best // TILE**2 + len(SIGMAS) * level
        amplitude = self.describe(ids)[2]
        gain = torch.where(most > 0, 2 * amplitude * signal - amplitude**2 * power, 0.0)
        return gain, best % TILE**2 + TILE**2 * ids

    def _take(self, gain: Tensor, least: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Returns row and tile of the spots to take: worth it, and better than their neighbours."""
        worth = torch.maximum(gain.amax((1, 2), keepdim=True) * WORTH, least)
        return ((gain > worth) & (gain >= _around(gain, 1, torch.maximum))).nonzero(as_tuple=True)

    def _touched(self, gain: Tensor, row: Tensor, i: Tensor, j: Tensor, ids: Tensor) -> Tensor:
        """Tells which tiles offer something else after spots were taken."""
        middle = self.shapes[self.describe(ids)[1], self.margin]
        own = (middle > 0).sum(1) // 2  # pixels from the middle of a spot to its end
        reach = -(-2 * self.margin // TILE)
        near = torch.arange(-reach, reach + 1, device=gain.device)
        hit = near.abs() <= -(-(own[:, None] + self.margin) // TILE)
        touched = F.pad(torch.zeros_like(gain, dtype=torch.bool), (reach,) * 4)
        index = row[:, None, None], (i[:, None] + near + reach)[:, :, None], (j[:, None] + near + reach)[:, None]
        touched.index_put_(index, hit[:, :, None] & hit[:, None], accumulate=True)
        return touched[:, reach:-reach, reach:-reach]


def _colours(bands: Sequence[str]) -> Tensor:
    """Returns the number of the colour of each band."""
    return torch.tensor([sum(BANDS[band] > border for border in COLOURS) for band in bands])


def _tiles(x: Tensor) -> Tensor:
    """Cuts `(R, H, W)` into tiles `(R, h, w, t * t)`."""
    return x.unflatten(2, (-1, TILE)).unflatten(1, (-1, TILE)).movedim(3, 2).flatten(3)


def _excess(weight: Tensor, signal: Tensor) -> tuple[Tensor, Tensor]:
    """Returns how far the chi-square around each tile may exceed the pixels, and how far that of each tile does."""
    known = weight > 0
    excess = torch.where(known, signal.square() / weight.clamp(min=1e-30) - 1, 0.0)
    return CROWDED * (2 * _around(_tiles(known).float().sum(3))).sqrt(), _tiles(excess).sum(3)


def _around(tiles: Tensor, reach: int = AROUND, combine: Callable[[Tensor, Tensor], Tensor] = torch.add) -> Tensor:
    """Adds up what there is in each tile and those around it, or combines it otherwise."""
    for dim, pad in ((1, (0, 0, reach, reach)), (2, (reach, reach))):
        padded = F.pad(tiles, pad)
        tiles = reduce(combine, (padded.narrow(dim, k, tiles.shape[dim]) for k in range(2 * reach + 1)))
    return tiles


def _first(owner: Tensor, gain: Tensor, left: Tensor) -> Tensor:
    """Returns which of some spots to keep, in the order of their gain: as many as are `left` to their owner."""
    order = gain.argsort(descending=True, stable=True)
    order = order[owner[order].argsort(stable=True)]
    count = torch.bincount(owner, minlength=len(left))
    rank = torch.arange(len(order), device=order.device) - (count.cumsum(0) - count)[owner[order]]
    return order[rank < left[owner[order]]]
