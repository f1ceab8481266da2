"""Where the tokens of a spectrum stand, and how those of groups of spectra are put together.

Codes stand at (-octave / 8, rung in units of a rung of octave 0), the flux scale at (1, 0), the k-th atom of a rung at
(2 + k, rung), the k-th swell of sixteen rungs at (-1 - k, the first of them). Only what was measured has a slot.
"""

__all__ = [
    "ATOM",
    "CODE",
    "OCTAVE",
    "SCALE",
    "SWELL",
    "collect",
    "compact",
    "means",
    "rendered",
    "slots",
    "sort",
    "stands",
]

import math

from collections.abc import Sequence

import torch

from torch import Tensor

from aion.tokenizers.ladder import Ladder, Window
from aion.tokens import Tokens

CODE, SCALE, ATOM, SWELL = 0, 1, 2, 3
Bounds = tuple[int, int, int, int]
OCTAVE = 8  # octaves per unit of the first coordinate: codes stay nearer to 0 than the flux scale at 1


def stands(position: Tensor) -> Tensor:
    """Returns what stands at positions `(..., 2)`: `CODE`, `SCALE`, `ATOM` or `SWELL`."""
    place = position[..., 0]
    return (place > 0.5).long() + (place > 1.5) + SWELL * (place < -0.75)


def means(ids: Tensor, bounds: Bounds) -> Tensor:
    """Returns what ids are; `bounds` are the first ids of flux scales, atoms and swells, and the number of ids."""
    return sum((ids >= bound).long() for bound in bounds[:-1])


def sort(tokens: Tokens, bounds: Bounds, octaves: Sequence[int]) -> tuple[list[Tensor], Tensor]:
    """Tells codes, flux scales, atoms and swells apart, each `(B, N)`, and finds the octave of each object, `(B,)`.

    Arguments:
        tokens: in any order; their ids are in range.
        bounds: see `means`.
        octaves: those there are.

    Raises:
        ValueError: for ids where they cannot stand, or codes of several octaves in one object.
    """
    place = stands(tokens.position)
    kinds = [tokens.valid & (place == k) for k in (CODE, SCALE, ATOM, SWELL)]
    if (tokens.valid & (place != means(tokens.ids, bounds))).any():
        msg = "spectrum tokens: the position of some says code, flux scale, atom or swell where their id says another"
        raise ValueError(msg)
    coordinate = torch.where(kinds[CODE], -tokens.position[..., 0] * OCTAVE, math.nan)
    octave = coordinate.nan_to_num(-1e9).amax(1)
    known = octave.new_tensor(octaves)
    different = kinds[CODE] & (coordinate != octave[:, None])
    if (bad := kinds[CODE].any(1) & (different.any(1) | ~torch.isin(octave, known))).any():
        msg = (
            f"spectrum tokens: row {int(bad.nonzero()[0])} has codes of several octaves, or of none of "
            f"{', '.join(map(str, octaves))}"
        )
        raise ValueError(msg)
    return kinds, (octave[:, None] == known).long().argmax(1)


def rendered(tokens: Tokens, is_code: Tensor, octave: Tensor, ladder: Ladder) -> tuple[Tensor, Tensor]:
    """Returns the wavelengths of the cells of the codes `(B, N * cells)` in order, and which are no padding."""
    rung = tokens.position[..., 1].double()
    order = torch.where(is_code, rung, math.inf).argsort(dim=1)[:, : max(int(is_code.sum(1).max()), 1)]
    rung, wanted = rung.gather(1, order), is_code.gather(1, order)
    width = 2.0 ** -rung.new_tensor(ladder.octaves)[octave]
    cell = (torch.arange(ladder.cells, device=rung.device) + 0.5) / ladder.cells
    wavelength = ladder.start * ((rung[..., None] + cell * width[:, None, None]) * ladder.step).exp()
    wanted = wanted[..., None].expand_as(wavelength).flatten(1)
    wavelength = torch.where(wanted, wavelength.flatten(1), 0.0)
    last = wavelength.amax(1, keepdim=True).clamp(min=ladder.start)
    return torch.where(wanted, wavelength, last).float(), wanted


def slots(window: Window, measured: Tensor, codes: Tensor, scale_ids: Tensor) -> Tokens:
    """Returns the tokens of flux scales `(B,)` and of codes `(B, R)`, without those of rungs not measured."""
    valid, codes, rung = compact(measured, codes, window.base.expand(codes.shape))
    position = torch.stack([torch.full_like(rung, -window.octave / OCTAVE), rung], dim=-1)
    scale = position.new_tensor([1.0, 0.0]).expand(len(codes), 1, 2)
    return Tokens(
        ids=torch.cat([scale_ids[:, None], codes], dim=1),
        position=torch.cat([scale, position], dim=1),
        valid=torch.cat([valid.any(1, keepdim=True), valid], dim=1),
    )


def compact(valid: Tensor, *values: Tensor) -> tuple[Tensor, ...]:
    """Moves what is valid `(B, N, ...)` to the front, in order, and cuts the rest off; valid comes first."""
    index = (~valid).to(torch.uint8).argsort(dim=1, stable=True)[:, : max(int(valid.sum(1).max()), 1)]
    rows = torch.arange(len(valid), device=valid.device)[:, None]
    return valid[rows, index], *(value[rows, index] for value in values)


def collect(parts: list[tuple[Tensor, Tokens]], count: int, device: torch.device) -> Tokens:
    """Puts the tokens of groups of rows together, `(count, N)`; rows in none have no valid token."""
    length = max((tokens.ids.shape[1] for _, tokens in parts), default=1)
    ids = torch.zeros(count, length, dtype=torch.long, device=device)
    position = torch.zeros(count, length, 2, device=device)
    valid = torch.zeros(count, length, dtype=torch.bool, device=device)
    for rows, tokens in parts:
        n = tokens.ids.shape[1]
        ids[rows, :n] = tokens.ids.masked_fill(~tokens.valid, 0)
        position[rows, :n] = tokens.position.masked_fill(~tokens.valid[..., None], 0)
        valid[rows, :n] = tokens.valid
    return Tokens(ids, position, valid)
