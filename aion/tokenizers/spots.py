r"""Spots: what the codes of an image cannot carry, as round Gaussians in one colour found by pursuit.

A spot is :math:`a\,g(x - c)` in the bands of one colour: :math:`g` a Gaussian of unit norm, its width and its signed
amplitude on fixed grids, its centre a pixel, one id. In each round every tile of pixels offers its best spot (see
`aion.tokenizers.pursuit`); those that beat their neighbours are taken, until none is worth its price or the budget is
spent. The price is 24 in units of the chi-square: 2 ln 288 for the id, and as much again for the place of a spot that
stands alone, which noise hardly ever pays; where the chi-square is above that of noise all around, half is enough. So
of a source brighter than, or unlike, what the codes were trained on, little but noise is left.

References:
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
from aion.tokenizers.pursuit import Dictionary, Pursuit

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
        self.register_buffer("shapes", shapes, persistent=False)  # (shapes, side, side)
        moved = [F.pad(shapes, (x, TILE - 1 - x, y, TILE - 1 - y)) for y in range(TILE) for x in range(TILE)]
        amplitudes = AMPLITUDES[0] * AMPLITUDES[1] ** torch.arange(LEVELS, device="cpu")
        self.dictionary = Dictionary(torch.stack(moved, 1).flatten(0, 1), TILE, amplitudes)  # shapes, places in a tile

    def describe(self, ids: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Returns the colour and the shape of ids, as numbers, and the amplitude in units of the usual noise."""
        shape, rest = ids % len(SIGMAS), ids // len(SIGMAS)
        return rest // (2 * LEVELS), shape, self.dictionary.amplitudes[rest % (2 * LEVELS)]

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
        # Beyond the ends of rows and columns there are tiles in which nothing is allowed, see `Pursuit`.
        far, m, side = AROUND * TILE, self.margin, self.dictionary.shapes.shape[1]
        weight, signal = (F.pad(x, (m, m + far) * 2) for x in (weight, signal))
        crowd = _crowd(weight[:, m:-m, m:-m], signal[:, m:-m, m:-m])
        windows = weight.unfold(1, side, TILE).unfold(2, side, TILE)
        allowed = _tiles(F.pad(allowed, (0, far) * 2)).repeat_interleave(len(present), 0).flatten(0, 2)
        sums = self._filter(signal, 1), self._filter(weight, 2)
        pursuit = Pursuit(self.dictionary, *sums, allowed, crowd.shape)
        budget = torch.full((len(residual),), self.budget, device=weight.device)
        rows, left = torch.arange(len(weight), device=weight.device), budget
        owner = rows // len(present)
        while len(rows):
            row, i, j = self._take(pursuit.gain.view(crowd.shape), crowd, rows)
            tile = (row * crowd.shape[1] + i) * crowd.shape[2] + j
            gain = pursuit.gain[tile, None]
            around = pursuit.take(tile, windows[row, i, j])
            crowd.view(-1).index_add_(0, around.flatten(), gain.expand(around.shape).flatten(), alpha=-1)
            left = left - torch.bincount(owner[row], minlength=len(left))
            rows = row[left[owner[row]] > 0].unique_consecutive()
        owner, tile, spot = pursuit.taken(owner, budget)
        row, i, j = torch.unravel_index(tile, crowd.shape)
        place, rest = spot % TILE**2, spot // TILE**2
        ids = rest + present[row % len(present)] * (2 * LEVELS * len(SIGMAS))
        return owner, i * TILE + place // TILE, j * TILE + place % TILE, ids

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
        _, shape, amplitude = self.describe(ids)
        amplitude, shapes = amplitude[:, None, None], self.shapes[shape]
        at = torch.arange(shapes.shape[1], device=row.device)
        y, x = (y[:, None] + at)[:, :, None], (x[:, None] + at)[:, None]
        flux.flatten(0, 1).index_put_((row[:, None, None], y, x), amplitude * shapes, accumulate=True)
        inside = torch.where(shapes > 0, LEFT * amplitude.abs(), math.inf)
        index = (row[:, None, None] * flux.shape[2] + y) * flux.shape[3] + x
        error.view(-1).scatter_reduce_(0, index.flatten(), inside.flatten(), "amin")
        m = self.margin
        return flux[:, :, m:-m, m:-m], error[:, :, m:-m, m:-m]

    def codebook(self) -> Tensor:
        """Returns colour, width, sign and log amplitude of every id, scaled to [-1, 1], `(size, 4)`."""
        colour, shape, amplitude = self.describe(torch.arange(self.size, device=self.shapes.device))
        columns = [colour.float(), shape.float(), amplitude.sign(), amplitude.abs().log()]
        return torch.stack([2 * (c - c.min()) / (c.max() - c.min()) - 1 for c in columns], dim=-1)

    def _filter(self, maps: Tensor, power: int) -> Tensor:
        """Returns the sums of padded maps times the shapes of each tile (to a power), `(tiles, shapes * places)`."""
        # With the channels last, as the sums are wanted, the convolution takes a third of the time.
        maps, shapes = (x[:, None].to(memory_format=torch.channels_last) for x in (maps, self.dictionary.shapes**power))
        return F.conv2d(maps, shapes, stride=TILE).movedim(1, -1).flatten(0, 2)

    def _take(self, gain: Tensor, crowd: Tensor, rows: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Returns row and tile of the spots to take in some rows: worth it, and better than their neighbours."""
        gain, least = gain[rows], torch.where(crowd[rows] > 0, 0.5 * self.price, self.price)
        worth = torch.maximum(gain.amax((1, 2), keepdim=True) * WORTH, least)
        row, i, j = ((gain > worth) & (gain >= _around(gain, 1, torch.maximum))).nonzero(as_tuple=True)
        return rows[row], i, j


def _colours(bands: Sequence[str]) -> Tensor:
    """Returns the number of the colour of each band."""
    return torch.tensor([sum(BANDS[band] > border for border in COLOURS) for band in bands])


def _tiles(x: Tensor) -> Tensor:
    """Cuts `(R, H, W)` into tiles `(R, h, w, t * t)`."""
    return x.unflatten(2, (-1, TILE)).unflatten(1, (-1, TILE)).movedim(3, 2).flatten(3)


def _crowd(weight: Tensor, signal: Tensor) -> Tensor:
    """Returns by how much the chi-square around each tile exceeds the pixels, beyond what noise may do."""
    excess = signal.square() / weight.clamp(min=1e-30) - (known := (weight > 0).to(weight.dtype))
    count, excess = (_around(F.avg_pool2d(x, TILE, divisor_override=1)) for x in (known, excess))
    return excess - CROWDED * (2 * count).sqrt()


def _around(tiles: Tensor, reach: int = AROUND, combine: Callable[[Tensor, Tensor], Tensor] = torch.add) -> Tensor:
    """Adds up what there is in each tile and those around it, or combines it otherwise."""
    for dim, pad in ((1, (0, 0, reach, reach)), (2, (reach, reach))):
        padded = F.pad(tiles, pad)
        tiles = reduce(combine, (padded.narrow(dim, k, tiles.shape[dim]) for k in range(2 * reach + 1)))
    return tiles
