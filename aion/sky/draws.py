"""Random numbers that depend on nothing but (seed, object, name).

A counter-based generator: the number of object i, stream s and counter k is a 64-bit hash of (seed, i, s, k) by the
finaliser of SplitMix64. No state is carried from one draw to the next, so an object is the same in every batch, in
every order and whether or not other things are drawn for it.
"""

__all__ = ["Draws"]

import math
import zlib

from functools import cache

import torch

from torch import Tensor

_GOLDEN = -7046029254386353131  # 0x9E3779B97F4A7C15 as a signed integer
_FIRST = -4658895280553007687  # 0xBF58476D1CE4E5B9
_SECOND = -7723592293110705685  # 0x94D049BB133111EB
_SMALLEST = 2.0**-54


def _signed(value: int) -> int:
    """Wraps a Python integer to 64 signed bits, as integer tensors do by themselves."""
    return (value + 2**63) % 2**64 - 2**63


def _shift(x: Tensor, bits: int) -> Tensor:
    """Shifts right without copying the sign: torch has only the arithmetic shift."""
    return (x >> bits).bitwise_and_((1 << (64 - bits)) - 1)


def _mix(x: Tensor) -> Tensor:
    """Scrambles 64-bit integers; every input bit flips every output bit with probability one half."""
    x = _shift(x, 30).bitwise_xor_(x).mul_(_FIRST)
    x = _shift(x, 27).bitwise_xor_(x).mul_(_SECOND)
    return _shift(x, 31).bitwise_xor_(x)


@cache
def _stream(name: str) -> int:
    """Returns the key of a stream."""
    return int(_mix(torch.tensor(zlib.crc32(name.encode())) * _GOLDEN))


class Draws:
    """Draws the numbers of a batch of objects.

    Arguments:
        seed: any integer.
        index: one integer per object, with shape `(B,)`.

    References:
        Fast splittable pseudorandom number generators, Steele, Lea and Flood, 2014 (OOPSLA).
        Parallel random numbers: as easy as 1, 2, 3, Salmon et al., 2011 (SC11).
    """

    def __init__(self, seed: int, index: Tensor) -> None:
        self.index = index
        mixed = _mix(torch.tensor(_signed(seed * 2 + 1), device=index.device))
        self._key = _mix(_mix(index * _GOLDEN + mixed) + mixed)

    def __len__(self) -> int:
        return len(self.index)

    def __getitem__(self, rows: Tensor) -> "Draws":
        """Selects objects."""
        return self._with(self.index[rows], self._key[rows])

    def of(self, name: str) -> "Draws":
        """Returns independent draws for the same objects, so that two users may use the same names."""
        return self._with(self.index, _mix(self._key + zlib.crc32(name.encode())))

    def _with(self, index: Tensor, key: Tensor) -> "Draws":
        new = object.__new__(Draws)
        new.index, new._key = index, key
        return new

    def _bits(self, name: str, count: int) -> Tensor:
        counter = torch.arange(1, count + 1, device=self._key.device) * _GOLDEN
        return _mix((self._key ^ _stream(name))[:, None] + counter)

    def uniform(self, name: str, low: float = 0.0, high: float = 1.0, count: int | None = None) -> Tensor:
        """Draws float64 from [low, high): `(B,)`, or `(B, count)`."""
        value = _shift(self._bits(name, count or 1), 11).to(torch.float64) * 2.0**-53
        value = low + (high - low) * value
        return value[:, 0].contiguous() if count is None else value

    def normal(self, name: str, count: int | None = None) -> Tensor:
        """Draws float64 standard normals: `(B,)`, or `(B, count)`."""
        uniform = self.uniform(name, count=count or 1).clamp(_SMALLEST, 1 - _SMALLEST * 2)
        value = torch.special.ndtri(uniform)
        return value[:, 0].contiguous() if count is None else value

    def noise(self, name: str, count: int) -> Tensor:
        """Draws float32 standard normals `(B, count)` for pixels, by the transform of Box and Muller.

        One hash makes two normals of 24 bits each, so nothing beyond 5.9 sigma is drawn.
        """
        half = (count + 1) // 2
        bits = self._bits(name, half)
        radius = _shift(bits, 40).to(torch.float32).add_(0.5).mul_(2.0**-24).log_().mul_(-2).sqrt_()
        angle = bits.bitwise_and_(0xFFFFFF).to(torch.float32).mul_(2.0**-24 * 2 * torch.pi)
        out = torch.empty(len(self), 2 * half, device=bits.device)
        torch.mul(radius, angle.cos(), out=out[:, :half])
        torch.mul(radius, angle.sin(), out=out[:, half:])
        return out[:, :count].contiguous()

    def rare(self, name: str, count: int, chance: Tensor | float, most: float) -> Tensor:
        """Draws events that happen to a pixel by a chance, a number or `(B,)` up to `most`: `(B, count)` bool."""
        tries = math.ceil(count * most)
        u = self.uniform(name, count=2 * tries)
        share = torch.as_tensor(chance, dtype=u.dtype, device=u.device).expand(len(self)) * (count / tries)
        place = torch.where(u[:, :tries] < share[:, None], (u[:, tries:] * count).long(), count)
        return torch.zeros(len(self), count + 1, dtype=torch.bool, device=u.device).scatter_(1, place, True)[:, :count]
