"""What a forecast starts from: the pasts, schemes and numbers that are refused, and the seeds that objects get."""

__all__ = ["check_numbers", "check_past", "check_scheme", "draw_seeds"]

import hashlib

import torch

from torch import Tensor

from aion.forecasting.template import Scheme, autoregressive


def check_numbers(**numbers: int) -> None:
    """Refuses what is not a whole number of at least 1.

    Raises:
        ValueError: naming it.
    """
    for name, number in numbers.items():
        if isinstance(number, bool) or not isinstance(number, int) or number < 1:
            msg = f"forecast: {name} must be a whole number of at least 1, given {number!r}"
            raise ValueError(msg)


def check_past(past: Tensor, shape: tuple[int, ...], scheme: Scheme) -> None:
    """Refuses a past that a scheme cannot start from.

    Arguments:
        past: `(B, P, C, *space)`; NaN is not measured.
        shape: of a frame, `(C, *space)`.
        scheme: to forecast with.

    Raises:
        TypeError: if it is no floating-point tensor.
        ValueError: if it has another shape, is too short, or holds nothing measured that the scheme looks at.
    """
    if not isinstance(past, Tensor) or not past.is_floating_point():
        msg = f"forecast: wanted a floating-point tensor, given {getattr(past, 'dtype', type(past).__name__)}"
        raise TypeError(msg)
    if past.ndim != 2 + len(shape) or past.shape[2:] != shape or not len(past):
        msg = f"forecast: wanted a past (B, P, {', '.join(map(str, shape))}), given {tuple(past.shape)}"
        raise ValueError(msg)
    if (length := past.shape[1]) <= scheme.reach():
        short = autoregressive(scheme.K)
        hint = f"; {short.name} needs {short.reach() + 1}" if length > short.reach() else ""
        msg = (
            f"forecast: the past has {length} frames, {scheme.name} looks {scheme.reach()} frames back and "
            f"needs {scheme.reach() + 1}: {scheme.reach() + 1 - length} are missing{hint}"
        )
        raise ValueError(msg)
    looked = sorted({t - 1 for call in scheme.round_ for t in call[0] if t <= 0})
    for row, seen in enumerate(past[:, looked].isfinite().flatten(1).any(1).tolist()):
        if not seen:
            msg = f"forecast: nothing was measured of object {row} in the frames that {scheme.name} looks at"
            raise ValueError(msg)


def check_scheme(scheme: Scheme, K: int, width: int) -> None:
    """Refuses a scheme whose calls make more than K frames, or are more than `width` frames wide.

    Raises:
        ValueError: saying by how much.
    """
    if scheme.K > K:
        msg = f"forecast: {scheme.name} makes {scheme.K} frames a call, the network {K} at most"
        raise ValueError(msg)
    if (wide := scheme.width()) > width:
        msg = f"forecast: the calls of {scheme.name} are {wide} frames wide, those of training {width} at most"
        raise ValueError(msg)


def draw_seeds(past: Tensor, members: int, generator: torch.Generator) -> list[int]:
    """Makes a seed for each member of each object, members first, of the generator and the past of the object alone."""
    base = int(torch.randint(2**62, (), generator=generator))
    marks = [hashlib.sha256(row.nan_to_num(nan=1e30).cpu().numpy().tobytes()).hexdigest() for row in past]
    texts = [f"{base} {member} {mark}" for member in range(members) for mark in marks]
    return [int.from_bytes(hashlib.sha256(text.encode()).digest()[:7], "big") for text in texts]
