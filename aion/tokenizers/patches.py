"""Where the patches of an image lie: sizes that halve from octave to octave, anchored at the middle pixel."""

__all__ = ["Patches"]

import math

from collections.abc import Sequence
from itertools import accumulate

import torch
import torch.nn.functional as F

from torch import Tensor

from aion.observations import Image
from aion.tokens import Tokens


class Patches:
    """Counts, pads and finds patches.

    Arguments:
        sizes: pixels on the side of a patch of each octave, the coarsest first; each a multiple of those after it.
        codes: number of ids of each octave; those of the first come first.
        spots: number of ids of spots, which stand on pixels and come last.
    """

    def __init__(self, sizes: Sequence[int], codes: Sequence[int], spots: int = 0) -> None:
        self.sizes, self.codes, self.spots = tuple(sizes), tuple(codes), spots
        self.starts = tuple(accumulate((*codes, spots), initial=0))

    def grid(self, shape: Sequence[int], k: int = 0) -> tuple[int, int]:
        """Returns the rows and columns of octave k: even, so that a patch begins at the middle pixel n // 2.

        The patches of a stamp are then the same whatever margin it is stacked or padded with.
        """
        times = self.sizes[0] // self.sizes[k]
        rows, columns = (2 * math.ceil(math.ceil(n / 2) / self.sizes[0]) * times for n in shape)
        return rows, columns

    def margins(self, shape: Sequence[int]) -> tuple[int, int]:
        """Returns how many unmeasured rows and columns go before an image."""
        rows, columns = self.grid(shape)
        return rows * self.sizes[0] // 2 - shape[0] // 2, columns * self.sizes[0] // 2 - shape[1] // 2

    def pad(self, value: Tensor) -> Tensor:
        """Pads `(B, C, H, W)` with zeros to whole patches."""
        height, width = value.shape[2:]
        (rows, columns), (top, left) = self.grid((height, width)), self.margins((height, width))
        return F.pad(value, (left, columns * self.sizes[0] - width - left, top, rows * self.sizes[0] - height - top))

    def window(self, shape: Sequence[int]) -> tuple:
        """Returns the index that undoes `pad`."""
        top, left = self.margins(shape)
        return ..., slice(top, top + shape[0]), slice(left, left + shape[1])

    def position(self, image: Image, k: int) -> Tensor:
        """Returns the offset of each patch of octave k from the centre of the image in arcsec, `(B, h * w, 2)`."""
        axes = [torch.arange(n, device=image.device) - (n - 1) / 2 for n in self.grid(image.flux.shape[2:], k)]
        offset = torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1).flatten(0, 1) * self.sizes[k]
        return offset * image.pixel_scale[:, None, None]

    def append(
        self, spots: tuple[Tensor, ...], image: Image, ids: Tensor, position: Tensor, valid: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Appends spots (object, row and column of the padded pixels, id) to ids, positions and valid of patches."""
        owner, row, column, code = spots
        count = torch.bincount(owner, minlength=len(image))
        there = torch.arange(int(count.max()), device=owner.device) < count[:, None]
        shape = torch.tensor(self.grid(image.flux.shape[2:]), device=owner.device) * self.sizes[0]
        own = torch.zeros_like(there, dtype=ids.dtype), position.new_zeros(*there.shape, 2)
        own[0][there] = code + self.starts[-2]
        own[1][there] = (torch.stack([row, column], 1) - (shape - 1) / 2) * image.pixel_scale[owner, None]
        return tuple(torch.cat(pair, 1) for pair in ((ids, own[0]), (position, own[1]), (valid, there)))

    def place(self, tokens: Tokens, like: Image) -> tuple[list[tuple[Tensor, Tensor]], tuple[Tensor, ...]]:
        """Puts tokens where they belong by their positions.

        Where several octaves have patches of one size, the id tells the octave.

        Returns:
            ids from 0 and kept, each `(B, h, w)`, of each octave; object, row, column and id from 0 of spots, `(n,)`.

        Raises:
            ValueError: for a token that is no patch or spot of `like`.
        """
        pixel = tokens.position / like.pixel_scale[:, None, None]  # from the middle of all patches
        octave = torch.bucketize(tokens.ids, torch.tensor(self.starts[1:], device=pixel.device), right=True)
        left, placed = tokens.valid, []
        for k, size in enumerate(self.sizes):
            grid = torch.tensor(self.grid(like.flux.shape[2:], k), device=pixel.device)
            at, own = self._at(pixel, size, grid, left)
            alike = [other for other, same in enumerate(self.sizes) if same == size]
            own = own & (octave.clamp(alike[0], alike[-1]) == k)
            ids = torch.zeros(len(tokens), *grid.tolist(), dtype=torch.long, device=pixel.device)
            kept = torch.zeros_like(ids, dtype=torch.bool)
            index = (own.nonzero()[:, 0], *at[own].T)
            ids[index], kept[index] = (tokens.ids[own] - self.starts[k]) % self.codes[k], True
            placed.append((ids, kept))
            left = left & ~own
        spots = tuple(left.new_zeros(4, 0, dtype=torch.long))
        if self.spots:
            grid = torch.tensor(self.grid(like.flux.shape[2:]), device=pixel.device) * self.sizes[0]
            at, own = self._at(pixel, 1, grid, left)
            spots = own.nonzero()[:, 0], *at[own].T, (tokens.ids[own] - self.starts[-2]) % self.spots
            left = left & ~own
        if left.any():
            row, column = tokens.position[left][0].tolist()
            msg = (
                f"image tokens: one at ({row:.3f}, {column:.3f}) arcsec is no patch of like, which has "
                f"{like.flux.shape[2]} x {like.flux.shape[3]} pixels of {like.pixel_scale[0].item():.3f} arcsec"
            )
            raise ValueError(msg)
        return placed, spots

    def _at(self, pixel: Tensor, size: int, grid: Tensor, left: Tensor) -> tuple[Tensor, Tensor]:
        """Returns the row and column of tokens on a grid, and which lie on it."""
        cell = pixel / size + (grid - 1) / 2
        at = cell.round().long()
        # The centres of the finest patches, or spots, are half of one off those of the coarsest.
        near = 0.1 * (1 if self.spots else self.sizes[-1]) / self.sizes[0]
        return at, left & ((cell - at).abs() < near).all(-1) & ((at >= 0) & (at < grid)).all(-1)
