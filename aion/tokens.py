"""Tokens of one modality, the vocabulary that gives every modality its range of ids, and the packed sequence.

A vocabulary of modalities m with sizes V_m gives modality m the ids [o_m, o_m + V_m) where o_m sums the sizes of the
modalities before it **in alphabetical order**, so that neither the order in which modalities are given nor a JSON
file that sorts its keys can change an id.
"""

__all__ = ["TokenSequence", "Tokens", "Vocabulary", "join"]

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import TypeVar

import torch

from torch import Tensor

from aion.observations import near_miss, rows

Self = TypeVar("Self", bound="_Batch")


class _Batch:
    """Provides what tokens of one modality and of all have in common."""

    valid: Tensor

    def __len__(self) -> int:
        return self.valid.shape[0]

    def __getitem__(self: Self, index: int | slice | Sequence[int] | Tensor) -> Self:
        """Selects objects; the batch axis is kept, so one object is a batch of one."""
        index = rows(index, len(self))
        return type(self)(**{f.name: getattr(self, f.name)[index] for f in fields(self)})

    def __repr__(self) -> str:
        count, real = len(self), int(self.valid.sum())
        return f"{type(self).__name__}({count} object{'s' * (count != 1)}, {real} of {self.valid.numel()} valid)"

    def to(self: Self, device: torch.device | str) -> Self:
        """Moves every tensor to a device."""
        return type(self)(**{f.name: getattr(self, f.name).to(device) for f in fields(self)})


@dataclass(frozen=True, eq=False, repr=False)
class Tokens(_Batch):
    """Holds the tokens of one modality.

    Arguments:
        ids: integers in `[0, size)` of the modality's tokenizer, with shape `(B, N)`; ignored where not `valid`.
        position: where each token sits, with shape `(B, N, 2)`: (0, rung in ln wavelength) for spectra, sky offset in
            (row, column) arcsec for images, (0, component) for scalars.
        valid: True for a real token, with shape `(B, N)`.
    """

    ids: Tensor
    position: Tensor
    valid: Tensor

    def __post_init__(self) -> None:
        if self.ids.ndim != 2 or self.valid.shape != self.ids.shape or self.position.shape != (*self.ids.shape, 2):
            msg = (
                "Tokens: wanted ids (B, N), position (B, N, 2), valid (B, N); given "
                f"{tuple(self.ids.shape)}, {tuple(self.position.shape)}, {tuple(self.valid.shape)}"
            )
            raise ValueError(msg)
        if self.ids.is_floating_point() or not self.position.is_floating_point() or self.valid.dtype != torch.bool:
            msg = (
                "Tokens: wanted integer ids, floating-point position and boolean valid; given "
                f"{self.ids.dtype}, {self.position.dtype}, {self.valid.dtype}"
            )
            raise TypeError(msg)


@dataclass(frozen=True, eq=False, repr=False)
class TokenSequence(_Batch):
    """Holds the tokens of all modalities of a batch of objects.

    Arguments:
        ids: integers in `[0, V)` of the vocabulary, with shape `(B, N)`.
        modality: index of the modality in the vocabulary, with shape `(B, N)`.
        position: with shape `(B, N, 2)`, see `Tokens`.
        valid: True for a real token, with shape `(B, N)`.
    """

    ids: Tensor
    modality: Tensor
    position: Tensor
    valid: Tensor

    def gather(self, index: Tensor, valid: Tensor) -> "TokenSequence":
        """Picks tokens by index `(B, M)`; those not `valid` `(B, M)` become padding (id, modality, position 0)."""
        flat = {n: getattr(self, n).gather(1, index).masked_fill(~valid, 0) for n in ("ids", "modality")}
        position = self.position.gather(1, index[..., None].expand(-1, -1, 2)).masked_fill(~valid[..., None], 0)
        return TokenSequence(**flat, position=position, valid=valid)

    def select(self, keep: Tensor) -> "TokenSequence":
        """Keeps the tokens where `keep` `(B, N)` and `valid` hold, in their order, in the shortest length that fits."""
        keep = keep & self.valid
        length = max(int(keep.sum(1).max()), 1)
        index = (~keep).to(torch.uint8).argsort(dim=1, stable=True)[:, :length]
        return self.gather(index, keep.gather(1, index))


def join(*parts: Self) -> Self:
    """Joins tokens of the same objects, one part after the other."""
    return type(parts[0])(**{f.name: torch.cat([getattr(p, f.name) for p in parts], dim=1) for f in fields(parts[0])})


class Vocabulary:
    """Maps modality names to ranges of token ids.

    Arguments:
        sizes: number of ids of each modality, by name. The order given does not matter: names are sorted.
    """

    def __init__(self, sizes: Mapping[str, int]) -> None:
        if not sizes or any(not isinstance(size, int) or size < 1 for size in sizes.values()):
            msg = f"Vocabulary: wanted at least one modality and whole positive sizes, given {dict(sizes)}"
            raise ValueError(msg)
        self.sizes = {name: sizes[name] for name in sorted(sizes)}
        self.names = tuple(self.sizes)
        bounds = [0]
        for size in self.sizes.values():
            bounds.append(bounds[-1] + size)
        self.ranges = {name: (bounds[i], bounds[i + 1]) for i, name in enumerate(self.names)}

    def __len__(self) -> int:
        return sum(self.sizes.values())

    def __repr__(self) -> str:
        return f"Vocabulary({self.sizes})"

    def index(self, name: str) -> int:
        """Returns the index of a modality; an unknown name is a `ValueError` with the near misses."""
        if name not in self.sizes:
            msg = f"unknown modality {name!r}; {near_miss(name, self.names)}"
            raise ValueError(msg)
        return self.names.index(name)

    def pack(self, tokens: Mapping[str, Tokens]) -> TokenSequence:
        """Joins the tokens of several modalities; invalid tokens are dropped, ids shifted to the modality's range.

        Raises:
            ValueError: for an unknown modality, nothing given, batches that differ, an id outside the modality's size
                or an object without any token (named by its row).
        """
        if not tokens:
            msg = f"nothing to pack: wanted tokens of at least one of {', '.join(self.names)}"
            raise ValueError(msg)
        order = sorted(tokens, key=self.index)
        if len(lengths := {name: len(tokens[name]) for name in order}) and len(set(lengths.values())) > 1:
            msg = f"every modality must have the same number of objects, given {lengths}"
            raise ValueError(msg)
        for name in order:
            self._check_ids(name, tokens[name])
        sequence = TokenSequence(
            ids=torch.cat([tokens[name].ids.long() + self.ranges[name][0] for name in order], dim=1),
            modality=torch.cat([torch.full_like(tokens[name].ids.long(), self.index(name)) for name in order], dim=1),
            position=torch.cat([tokens[name].position for name in order], dim=1),
            valid=torch.cat([tokens[name].valid for name in order], dim=1),
        )
        if (empty := ~sequence.valid.any(dim=1)).any():
            without = empty.nonzero().flatten().tolist()
            msg = f"no token at all for row {without[0]} ({len(without)} such rows): nothing given was measured there"
            raise ValueError(msg)
        return sequence.select(sequence.valid)

    def unpack(self, sequence: TokenSequence, name: str) -> Tokens:
        """Takes the tokens of one modality out of a sequence."""
        index = self.index(name)
        part = sequence.select(sequence.modality == index)
        ids = (part.ids - self.ranges[name][0]).clamp(min=0)
        return Tokens(ids=ids, position=part.position, valid=part.valid)

    def _check_ids(self, name: str, tokens: Tokens) -> None:
        ids = tokens.ids[tokens.valid].long()
        if ids.numel() and (ids.min() < 0 or ids.max() >= self.sizes[name]):
            msg = f"{name}: ids must lie in [0, {self.sizes[name]}), given {ids.min().item()} to {ids.max().item()}"
            raise ValueError(msg)
