r"""Matching pursuit: what a dictionary explains of maps, tile by tile, found in sums that are kept up to date.

The K shapes :math:`g` of a tile, on the pixels of its window, come in steps of amplitude a and in both signs. With
residual r and ivar w of the pixels, adding one lowers the chi-square by

.. math:: 2 a \sum w r g - a^2 \sum w g^2.

Both sums are taken once, of every shape of every tile. The second stays; when a is taken, the first changes by
:math:`a \sum w g g'` for the shapes :math:`g'` of the tiles around: one matrix product for all that is taken at once,
where new sums over the windows of these tiles would read 25 times the pixels.

References:
    | Matching Pursuits with Time-Frequency Dictionaries (Mallat and Zhang, 1993), IEEE Trans. Signal Process. 41, 3397
"""

__all__ = ["Dictionary", "Pursuit"]

import math

from collections.abc import Sequence

import torch
import torch.nn.functional as F

from torch import Tensor, nn


class Dictionary(nn.Module):
    """Holds the shapes of a tile; it has no parameters. An id is shape + K (level + L sign).

    Arguments:
        shapes: on the window of a tile, `(K, *window)`, as long on all sides.
        tile: pixels from one tile to the next.
        amplitudes: the L there are, rising in equal ratios.
    """

    def __init__(self, shapes: Tensor, tile: int, amplitudes: Tensor) -> None:
        super().__init__()
        self.tile, self.levels = tile, len(amplitudes)
        self.around = -(-shapes.shape[1] // tile) - 1  # tiles in each direction whose windows meet that of one
        self.low = math.log(amplitudes[0])
        self.ratio = (math.log(amplitudes[-1]) - self.low) / (self.levels - 1)
        others = shapes
        for dim in range(1, shapes.ndim):
            others = F.pad(others.movedim(dim, -1), (self.around * tile,) * 2).movedim(-1, dim)
        for dim in range(1, shapes.ndim):
            others = others.unfold(dim, shapes.shape[1], tile).flip(dim)
        others = others.flatten(shapes.ndim).flatten(1, -2).permute(2, 1, 0).flatten(1)
        self.register_buffer("shapes", shapes, persistent=False)
        self.register_buffer("amplitudes", torch.cat([amplitudes, -amplitudes]), persistent=False)
        # The shapes of the tiles around on the window of one, (pixels, tiles * K).
        self.register_buffer("others", others.contiguous(), persistent=False)

    def best(self, match: Tensor, root: Tensor) -> tuple[Tensor, Tensor]:
        """Returns by how much the best of some tiles lowers the chi-square, and its id.

        Arguments:
            match: sums of w r g, `(n, K)`.
            root: sums of w g^2 to the power of -1/2, or 0 for what is not allowed.
        """
        most, best = (match * root).abs_().max(1)
        match, root = (x.gather(1, best[:, None])[:, 0] for x in (match, root))
        level = ((most * root).clamp(min=1e-30).log() - self.low) / self.ratio
        level = level.round().clamp(0, self.levels - 1).long()
        size = self.amplitudes[level] / root
        gain = torch.where(most > 0, size * (2 * most - size), 0.0)
        return gain, best + len(self.shapes) * (level + self.levels * (match < 0))

    def overlap(self, ids: Tensor, weight: Tensor) -> Tensor:
        """Returns what shapes add to the sums of the tiles around, with the weights of their windows `(n, *window)`."""
        amplitude = self.amplitudes[ids // len(self.shapes)]
        window = (self.shapes[ids % len(self.shapes)] * weight).flatten(1)
        return (amplitude[:, None] * window @ self.others).view(-1, len(self.shapes))


class Pursuit:
    """Keeps what the best shape of every tile is worth.

    Arguments:
        dictionary: what may be taken.
        match: sums of w r g, `(tiles, K)`; overwritten.
        power: sums of w g^2; overwritten.
        allowed: whether a shape may be taken, `(tiles, K)` or fewer, repeated.
        grid: number of maps and of tiles along their sides, with at least `dictionary.around` at the end of each in
            which nothing is allowed.
    """

    def __init__(
        self, dictionary: Dictionary, match: Tensor, power: Tensor, allowed: Tensor, grid: Sequence[int]
    ) -> None:
        self.dictionary, self.match, self.grid = dictionary, match, tuple(grid)
        self.root = power.clamp_(min=1e-30).rsqrt_()
        self.root.unflatten(1, (-1, allowed.shape[1])).mul_(allowed[:, None])
        self.gain, self.best = dictionary.best(match, self.root)
        step = torch.arange(-dictionary.around, dictionary.around + 1, device=match.device)
        self.steps = step
        for side in self.grid[2:]:
            self.steps = (self.steps[:, None] * side + step).flatten()
        self.found = [(self.best[:0], self.best[:0], self.gain[:0])]

    def take(self, tile: Tensor, weight: Tensor) -> Tensor:
        """Takes the best of some tiles, given the weights of their windows, and returns the tiles around `(n, t)`."""
        ids = self.best[tile]
        self.found.append((tile, ids, self.gain[tile]))
        around = (tile[:, None] + self.steps) % len(self.gain)
        near = around.flatten()
        self.match.index_add_(0, near, self.dictionary.overlap(ids, weight), alpha=-1)
        changed = self.match.index_select(0, near), self.root.index_select(0, near)
        self.gain[near], self.best[near] = self.dictionary.best(*changed)
        return around

    def taken(self, owner: Tensor, budget: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Lists what was taken, by object, then by round, the best of a round first, as many as its budget allows.

        Arguments:
            owner: object of each map, `(maps,)`.
            budget: most of each object, `(B,)`.

        Returns:
            object, tile and id of each, `(n,)`.
        """
        tile, ids, gain = (torch.cat(parts) for parts in zip(*self.found, strict=True))
        rounds = torch.cat([torch.full_like(part[0], k) for k, part in enumerate(self.found)])
        owner = owner[tile // math.prod(self.grid[1:])]
        order = gain.argsort(descending=True, stable=True)
        for key in (rounds, owner):
            order = order[key[order].argsort(stable=True)]
        count = torch.bincount(owner, minlength=len(budget))
        rank = torch.arange(len(order), device=order.device) - (count.cumsum(0) - count)[owner[order]]
        order = order[rank < budget[owner[order]]]
        return owner[order], tile[order], ids[order]
