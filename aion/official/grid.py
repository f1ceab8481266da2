"""The fixed grids of the published tokenizers: cutting observations to them, and finding the place of a token on
them."""

__all__ = ["PIXELS", "chunked", "place", "places", "window"]

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F

from torch import Tensor

from aion.tokens import Tokens

PIXELS = 96  # on the side of what the published networks for images and maps read
CHUNK, CPU_CHUNK = 64, 8  # objects at once: at the published size one takes 20 to 30 MB on its way


def places(grid: tuple[int, int], ids: Tensor) -> Tensor:
    """Returns the positions `(B, rows * columns, 2)` of all places of a grid, for ids of that many places."""
    row, column = (torch.arange(n, device=ids.device, dtype=torch.float32) for n in grid)
    return torch.cartesian_prod(row, column).expand(len(ids), -1, -1)


def place(tokens: Tokens, grid: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Puts tokens where their position says, whatever their order: ids and valid, both `(B, rows * columns)`.

    Raises:
        ValueError: for a valid token beyond the grid.
    """
    row, column = tokens.position.round().long().unbind(-1)
    inside = (row >= 0) & (row < grid[0]) & (column >= 0) & (column < grid[1])
    if (bad := tokens.valid & ~inside).any():
        where = tuple(tokens.position[bad][0].tolist())
        msg = f"wanted tokens on a grid of {grid[0]} x {grid[1]}, given one at {where}"
        raise ValueError(msg)
    cells = grid[0] * grid[1]
    # What is not valid goes to one more cell that is then cut off.
    index = torch.where(tokens.valid, row * grid[1] + column, cells)
    ids = tokens.ids.new_zeros(len(tokens), cells + 1).long().scatter(1, index, tokens.ids.long())
    valid = torch.zeros_like(ids, dtype=torch.bool).scatter(1, index, tokens.valid)
    return ids[:, :cells], valid[:, :cells]


def chunked(function: Callable[..., Tensor], *inputs: Tensor) -> Tensor:
    """Applies a function to a few objects at a time, which bounds the memory that a large batch takes.

    On a CPU it is faster, too: what one object leaves between two layers fits into the cache.
    """
    size = CPU_CHUNK if inputs[0].device.type == "cpu" else CHUNK
    pieces = [function(*piece) for piece in zip(*(value.split(size) for value in inputs), strict=True)]
    return pieces[0] if len(pieces) == 1 else torch.cat(pieces)


def window(value: Tensor, shape: Sequence[int], fill: float = 0) -> Tensor:
    """Crops `(..., H, W)` to its central `shape`, or centres it in a filling; pixel n // 2 stays the middle one."""
    for axis, wanted in zip((-2, -1), shape, strict=True):
        given = value.shape[axis]
        if given > wanted:
            value = value.narrow(axis, given // 2 - wanted // 2, wanted)
        elif given < wanted:
            before = wanted // 2 - given // 2
            edges = [(0, 0), (0, 0)]
            edges[axis] = (before, wanted - given - before)
            value = F.pad(value, (*edges[1], *edges[0]), value=fill)
    return value
