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
AROUND = 2  # tiles that a neighbourhood goes on in each direction, and that a spot may reach


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
        level = torch.arange(LEVELS, device="cpu")
        self.register_buffer("amplitudes", AMPLITUDES[0] * AMPLITUDES[1] ** torch.cat([level, level]), persistent=False)
        self.amplitudes[LEVELS:] *= -1
        self.register_buffer("shapes", shapes, persistent=False)  # (shapes, side, side)
        moved = [F.pad(shapes, (x, TILE - 1 - x, y, TILE - 1 - y)) for y in range(TILE) for x in range(TILE)]
        dictionary = torch.stack(moved, 1).flatten(0, 1)
        self.register_buffer("dictionary", dictionary, persistent=False)  # (shapes * places in a tile, side, side)
        # What a window holds times the dictionaries of the tiles around: (pixels, tiles * shapes * places).
        side = dictionary.shape[1]
        others = F.pad(dictionary, (AROUND * TILE,) * 4).unfold(1, side, TILE).unfold(2, side, TILE).flip(1, 2)
        others = others.permute(3, 4, 1, 2, 0).flatten(2).flatten(0, 1).contiguous()
        self.register_buffer("others", others, persistent=False)

    def describe(self, ids: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Returns the colour and the shape of ids, as numbers, and the amplitude in units of the usual noise."""
        shape, rest = ids % len(SIGMAS), ids // len(SIGMAS)
        return rest // (2 * LEVELS), shape, self.amplitudes[rest % (2 * LEVELS)]

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
        # Beyond the ends of rows and columns there are tiles, in which nothing is allowed, for what is around others.
        weight, signal, allowed = (F.pad(x, (0, AROUND * TILE) * 2) for x in (weight, signal, allowed))
        crowd = _crowd(weight, signal)
        weight, signal = (F.pad(x, (self.margin,) * 4) for x in (weight, signal))
        match, root = self._filter(signal, 1), self._filter(weight, 2).clamp_(min=1e-30).rsqrt_()
        root.unflatten(1, (len(SIGMAS), -1)).mul_(_tiles(allowed).repeat_interleave(len(present), 0).view(len(root), 1, -1))
        gain, spot = self._best(match, root)
        grid, windows = crowd.shape, weight.unfold(1, self.dictionary.shape[1], TILE).unfold(2, self.dictionary.shape[1], TILE)
        step = torch.arange(-AROUND, AROUND + 1, device=weight.device)
        around = (step[:, None] * grid[2] + step).flatten()
        left = torch.full((len(residual),), self.budget, device=weight.device)
        rows, found = torch.arange(len(weight), device=weight.device), []
        while len(rows):
            row, i, j = self._take(gain.view(grid), crowd, rows)
            tile = (row * grid[1] + i) * grid[2] + j
            worth, taken = gain[tile], spot[tile]
            found.append((tile, taken, worth))
            owner = row // len(present)
            left -= torch.bincount(owner, minlength=len(left))
            rows = row[left[owner] > 0].unique_consecutive()
            near = ((tile[:, None] + around) % len(gain)).flatten()
            match.index_add_(0, near, self._effect(taken, windows[row, i, j]), alpha=-1)
            crowd.view(-1).index_add_(0, near, worth.repeat_interleave(len(around)), alpha=-1)
            gain[near], spot[near] = self._best(match.index_select(0, near), root.index_select(0, near))
        return self._listed(found, grid, present)

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

    def _filter(self, maps: Tensor, power: int) -> Tensor:
        """Returns the sums of padded maps times the spots of each tile (to a power), `(tiles, shapes * places)`."""
        kernel = (self.dictionary**power)[:, None].contiguous(memory_format=torch.channels_last)
        sums = F.conv2d(maps[:, None].contiguous(memory_format=torch.channels_last), kernel, stride=TILE)
        return sums.movedim(1, -1).flatten(0, 2)

    def _best(self, match: Tensor, root: Tensor) -> tuple[Tensor, Tensor]:
        """Returns the decrease of the chi-square by the best spot of tiles, and its place, shape and level."""
        most, best = (match * root).abs_().max(1)
        match, root = (x.gather(1, best[:, None])[:, 0] for x in (match, root))
        level = ((most * root).clamp(min=1e-30) / AMPLITUDES[0]).log() / math.log(AMPLITUDES[1])
        level = level.round().clamp(0, LEVELS - 1).long()
        size = self.amplitudes[level] / root
        gain = torch.where(most > 0, size * (2 * most - size), 0.0)
        return gain, best + len(self.dictionary) * (level + LEVELS * (match < 0))

    def _take(self, gain: Tensor, crowd: Tensor, rows: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Returns row and tile of the spots to take in some rows: worth it, and better than their neighbours."""
        gain, least = gain[rows], torch.where(crowd[rows] > 0, 0.5 * self.price, self.price)
        worth = torch.maximum(gain.amax((1, 2), keepdim=True) * WORTH, least)
        row, i, j = ((gain > worth) & (gain >= _around(gain, 1, torch.maximum))).nonzero(as_tuple=True)
        return rows[row], i, j

    def _effect(self, taken: Tensor, weight: Tensor) -> Tensor:
        """Returns what spots add to the sums of the tiles around, with the weights of their windows."""
        amplitude = self.amplitudes[taken // len(self.dictionary)]
        window = amplitude[:, None, None] * self.dictionary[taken % len(self.dictionary)] * weight
        return (window.flatten(1) @ self.others).view(-1, len(self.dictionary))

    def _listed(self, found: list[tuple[Tensor, ...]], grid: Sequence[int], present: Tensor) -> tuple[Tensor, ...]:
        """Returns object, row, column and id of the spots found round by round, the best of a round first.

        Of each object there are as many as there may be.
        """
        tile, spot, worth = (torch.cat(parts) for parts in zip(*found, strict=True))
        order = worth.argsort(descending=True, stable=True)
        rounds = torch.cat([torch.full_like(part[0], k) for k, part in enumerate(found)])
        order = order[rounds[order].argsort(stable=True)]
        row = tile // (grid[1] * grid[2])
        owner = row // len(present)
        order = order[owner[order].argsort(stable=True)]
        count = torch.bincount(owner)
        rank = torch.arange(len(order), device=order.device) - (count.cumsum(0) - count)[owner[order]]
        order = order[rank < self.budget]
        tile, spot, row, owner = (x[order] for x in (tile, spot, row, owner))
        place, rest = spot % TILE**2, spot // TILE**2
        y, x = (tile // grid[2] % grid[1]) * TILE + place // TILE, tile % grid[2] * TILE + place % TILE
        return owner, y, x, rest + present[row % len(present)] * (2 * LEVELS * len(SIGMAS))


def _colours(bands: Sequence[str]) -> Tensor:
    """Returns the number of the colour of each band."""
    return torch.tensor([sum(BANDS[band] > border for border in COLOURS) for band in bands])


def _tiles(x: Tensor) -> Tensor:
    """Cuts `(R, H, W)` into tiles `(R, h, w, t * t)`."""
    return x.unflatten(2, (-1, TILE)).unflatten(1, (-1, TILE)).movedim(3, 2).flatten(3)


def _crowd(weight: Tensor, signal: Tensor) -> Tensor:
    """Returns by how much the chi-square around each tile exceeds the pixels, beyond what noise may do."""
    known = weight > 0
    excess = torch.where(known, signal.square() / weight.clamp(min=1e-30) - 1, 0.0)
    count, excess = (_around(_tiles(x).sum(3)) for x in (known.float(), excess))
    return excess - CROWDED * (2 * count).sqrt()


def _around(tiles: Tensor, reach: int = AROUND, combine: Callable[[Tensor, Tensor], Tensor] = torch.add) -> Tensor:
    """Adds up what there is in each tile and those around it, or combines it otherwise."""
    for dim, pad in ((1, (0, 0, reach, reach)), (2, (reach, reach))):
        padded = F.pad(tiles, pad)
        tiles = reduce(combine, (padded.narrow(dim, k, tiles.shape[dim]) for k in range(2 * reach + 1)))
    return tiles
