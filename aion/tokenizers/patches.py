"""Where the patches of an image or map lie: anchored at the middle pixel, of sizes that halve from octave to octave."""

__all__ = ["Patches"]

import math

from collections.abc import Sequence
from itertools import accumulate

import torch
import torch.nn.functional as F

from torch import Tensor

from aion.tokens import Tokens, join


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
        """Pads `(..., H, W)` with zeros to whole patches."""
        height, width = value.shape[-2:]
        (rows, columns), (top, left) = self.grid((height, width)), self.margins((height, width))
        return F.pad(value, (left, columns * self.sizes[0] - width - left, top, rows * self.sizes[0] - height - top))

    def window(self, shape: Sequence[int]) -> tuple:
        """Returns the index that undoes `pad`."""
        top, left = self.margins(shape)
        return ..., slice(top, top + shape[0]), slice(left, left + shape[1])

    def position(self, shape: Sequence[int], scale: Tensor, k: int = 0) -> Tensor:
        """Returns the offset of each patch of octave k from the centre in arcsec, `(B, h * w, 2)`.

        Arguments:
            shape: rows and columns of the pixels.
            scale: arcsec per pixel, `(B,)`.
            k: which octave.
        """
        axes = [torch.arange(n, device=scale.device) - (n - 1) / 2 for n in self.grid(shape, k)]
        offset = torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1).flatten(0, 1) * self.sizes[k]
        return offset * scale[:, None, None]

    def append(self, spots: tuple[Tensor, ...], shape: Sequence[int], scale: Tensor, tokens: Tokens) -> Tokens:
        """Appends spots (object, row and column of the padded pixels, id) to the tokens of patches."""
        owner, row, column, code = spots
        count = torch.bincount(owner, minlength=len(scale))
        there = torch.arange(int(count.max()), device=owner.device) < count[:, None]
        whole = torch.tensor(self.grid(shape), device=owner.device) * self.sizes[0]
        ids, position = torch.zeros_like(there, dtype=tokens.ids.dtype), scale.new_zeros(*there.shape, 2)
        ids[there] = code + self.starts[-2]
        position[there] = (torch.stack([row, column], 1) - (whole - 1) / 2) * scale[owner, None]
        return join(tokens, Tokens(ids, position, there))

    def place(
        self, tokens: Tokens, shape: Sequence[int], scale: Tensor
    ) -> tuple[list[tuple[Tensor, Tensor]], tuple[Tensor, ...]]:
        """Puts tokens, in whatever order, where they belong by their positions.

        Where several octaves have patches of one size, the id tells the octave.

        Arguments:
            tokens: with ids in range.
            shape: rows and columns of the pixels.
            scale: arcsec per pixel, `(B,)`.

        Returns:
            ids from 0 and kept, each `(B, h, w)`, of each octave; object, row, column and id from 0 of spots, `(n,)`.

        Raises:
            ValueError: for a token that is no patch or spot of these pixels.
        """
        pixel = tokens.position / scale[:, None, None]  # from the middle of all patches
        octave = torch.bucketize(
            tokens.ids.contiguous(), torch.tensor(self.starts[1:], device=pixel.device), right=True
        )
        left, placed = tokens.valid, []
        for k, size in enumerate(self.sizes):
            grid = torch.tensor(self.grid(shape, k), device=pixel.device)
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
            grid = torch.tensor(self.grid(shape), device=pixel.device) * self.sizes[0]
            at, own = self._at(pixel, 1, grid, left)
            spots = own.nonzero()[:, 0], *at[own].T, (tokens.ids[own] - self.starts[-2]) % self.spots
            left = left & ~own
        if left.any():
            row, column = tokens.position[left][0].tolist()
            msg = (
                f"tokens: one at ({row:.3f}, {column:.3f}) arcsec is no patch of like, which has "
                f"{shape[0]} x {shape[1]} pixels of {scale[0].item():.3f} arcsec"
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
