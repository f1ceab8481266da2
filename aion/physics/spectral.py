r"""Fourier series on a periodic box, and a step in time that treats what is linear and diagonal exactly.

For :math:`\hat u_t = L \hat u + N(\hat u)` with a diagonal :math:`L` the variable :math:`e^{-L t} \hat u` obeys an
equation without :math:`L`; the classical Runge-Kutta method of order four on it is `step`. Products are made free of
aliases by dropping the upper third of the wave numbers.

References:
    | Fourth-Order Time-Stepping for Stiff PDEs (Kassam and Trefethen, 2005), doi 10.1137/S1064827502410633
    | On the Elimination of Aliasing in Finite-Difference Schemes (Orszag, 1971), J. Atmos. Sci. 28, 1074
"""

__all__ = ["kept", "step", "wavenumbers"]

from collections.abc import Callable, Sequence

import torch

from torch import Tensor


def wavenumbers(space: Sequence[int], extent: Sequence[float], dtype: torch.dtype, device: str) -> list[Tensor]:
    """Computes the wave numbers of each axis of a real transform, shaped to broadcast; the last axis is the half one.

    That of the highest frequency of an even axis is zero, since no derivative of it is on the grid.
    """
    result = []
    for axis, (points, length) in enumerate(zip(space, extent, strict=True)):
        spacing = length / points / (2 * torch.pi)
        last = axis == len(space) - 1
        k = (torch.fft.rfftfreq if last else torch.fft.fftfreq)(points, spacing, dtype=dtype, device=device)
        if points % 2 == 0:
            k[points // 2] = 0
        result.append(k.view([-1 if other == axis else 1 for other in range(len(space))]))
    return result


def kept(space: Sequence[int], device: str) -> Tensor:
    """Tells which coefficients of a real transform are below two thirds of the highest wave number of their axis."""
    result = torch.ones((), dtype=torch.bool, device=device)
    for axis, points in enumerate(space):
        last = axis == len(space) - 1
        n = (torch.fft.rfftfreq if last else torch.fft.fftfreq)(points, 1 / points, device=device).abs()
        result = result & (n < points / 3).view([-1 if other == axis else 1 for other in range(len(space))])
    return result


def step(state: Tensor, rate: Callable[[Tensor], Tensor], half: Tensor, dt: float) -> Tensor:
    """Advances coefficients by one step of order four.

    Arguments:
        state: coefficients.
        rate: gives the part N of their rate of change that is not in `half`.
        half: the factor that L alone has in half a step.
        dt: length of the step.
    """
    whole = half * half
    a = rate(state)
    b = rate(half * (state + dt / 2 * a))
    c = rate(half * state + dt / 2 * b)
    d = rate(whole * state + dt * half * c)
    return whole * state + dt / 6 * (whole * a + 2 * half * (b + c) + d)
