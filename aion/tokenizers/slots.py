"""Where the tokens of a spectrum stand, and how those of groups of spectra are put together.

Codes stand at (-octave / 8, rung in units of a rung of octave 0), the flux scale at (1, 0), the k-th atom of a rung at
(2 + k, rung). Only what was measured has a slot.
"""

__all__ = ["ATOM", "CODE", "OCTAVE", "SCALE", "collect", "compact", "join", "slots", "stands"]

import torch

from torch import Tensor

from aion.tokenizers.ladder import Window
from aion.tokens import Tokens

CODE, SCALE, ATOM = 0, 1, 2
OCTAVE = 8  # octaves per unit of the first coordinate: codes stay nearer to 0 than the flux scale at 1


def stands(position: Tensor) -> Tensor:
    """Returns what stands at positions `(..., 2)`: `CODE`, `SCALE` or `ATOM`."""
    return (position[..., 0] > 0.5).long() + (position[..., 0] > 1.5)


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


def join(*parts: Tokens) -> Tokens:
    """Joins tokens of the same objects."""
    return Tokens(**{key: torch.cat([getattr(part, key) for part in parts], dim=1) for key in vars(parts[0])})


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
