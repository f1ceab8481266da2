"""Where the patches of an image lie: sizes that halve from octave to octave, anchored at the middle pixel."""

__all__ = ["Patches"]

import math

from collections.abc import Sequence

import torch
import torch.nn.functional as F

from torch import Tensor

from aion.observations import Image
from aion.tokens import Tokens


class Patches:
    """Counts, pads and finds patches.

    Arguments:
        sizes: pixels on the side of a patch at each pass, the coarsest first; each a multiple of those after it.
        codes: number of ids of one pass; those of pass k begin at `k * codes`.
    """

    def __init__(self, sizes: Sequence[int]) -> None:
        self.sizes = tuple(sizes)

    def grid(self, shape: Sequence[int], k: int = 0) -> tuple[int, int]:
        """Returns the rows and columns of pass k: even, so that a patch begins at the middle pixel n // 2.

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
        """Returns the offset of each patch of pass k from the centre of the image in arcsec, `(B, h * w, 2)`."""
        axes = [torch.arange(n, device=image.device) - (n - 1) / 2 for n in self.grid(image.flux.shape[2:], k)]
        offset = torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1).flatten(0, 1) * self.sizes[k]
        return offset * image.pixel_scale[:, None, None]

    def place(self, tokens: Tokens, like: Image) -> list[tuple[Tensor, Tensor]]:
        """Puts tokens on the patches of each pass by their positions: ids below `codes` and kept, each `(B, h, w)`.

        Where several passes have patches of one size, the id tells the pass.

        Raises:
            ValueError: for a token that is no patch of `like`.
        """
        pixel = tokens.position / like.pixel_scale[:, None, None]  # from the middle of all patches
        left, placed = tokens.valid, []
        turn = (tokens.ids // self.codes).clamp(min=self.sizes.index(self.sizes[-1]))
        # The centres of the finest patches are half of one off those of the coarsest.
        near = 0.1 * self.sizes[-1] / self.sizes[0]
        for k, size in enumerate(self.sizes):
            grid = torch.tensor(self.grid(like.flux.shape[2:], k), device=pixel.device)
            cell = pixel / size + (grid - 1) / 2
            index = cell.round().long()
            own = tokens.valid & ((cell - index).abs() < near).all(-1) & ((index >= 0) & (index < grid)).all(-1)
            if self.sizes.count(size) > 1:
                own = own & (turn == k)
            ids = torch.zeros(len(tokens), *grid.tolist(), dtype=torch.long, device=pixel.device)
            kept = torch.zeros_like(ids, dtype=torch.bool)
            at = (own.nonzero()[:, 0], *index[own].T)
            ids[at], kept[at] = tokens.ids[own] % self.codes, True
            placed.append((ids, kept))
            left = left & ~own
        if left.any():
            row, column = tokens.position[left][0].tolist()
            msg = (
                f"image tokens: one at ({row:.3f}, {column:.3f}) arcsec is no patch of like, which has "
                f"{like.flux.shape[2]} x {like.flux.shape[3]} pixels of {like.pixel_scale[0].item():.3f} arcsec"
            )
            raise ValueError(msg)
        return placed
