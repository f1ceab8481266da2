r"""A forest of stellar lines at high resolution: simulated, for no library of that resolution is at hand.

The templates of stars have R of some 2000; APOGEE and GALAH see ten times that. So lines are invented once, by a
fixed seed, at fixed wavelengths: neutral metals of low, middle and high excitation, ions, molecules, alpha elements.
Line e of kind k has the optical depth :math:`\tau_e\,w_k` with

.. math:: w_k = 10^{[\mathrm{Fe/H}]}\,10^{(2.2 - E_k)(\theta - \theta_0)}\,n_k(T), \qquad \theta = 5040\,\mathrm{K}/T

(ionisation and excitation; n is the share that is not yet ionised), so that depths follow Teff, log g and [Fe/H] as
they do in stars, and :math:`e^{-\tau}` saturates. Positions and strengths are no real star's. Where the template has
structure of its own, in the optical, the forest is divided by itself at the resolution of the template: smoothed to
that resolution the star is the template again, real lines and bands included.

The Brackett lines of hydrogen, which lie where APOGEE looks and where the templates are black bodies, are at their
true wavelengths.
"""

__all__ = ["forest"]

import math

from functools import cache

import torch

from torch import Tensor

from aion.sky.draws import Draws
from aion.sky.templates import LIGHT, interpolate

STEP = 5e-6  # of the grid in ln wavelength, 1.5 km/s
MARGIN = 0.006  # in ln wavelength around each window: 1800 km/s for what moves and what smooths
EXCITATION = (0.5, 2.2, 4.4, 2.2, 1.2, 3.0)  # eV: three of neutral metals, alpha elements, two of ions
KINDS = len(EXCITATION) + 2  # then molecules and hydrogen
WIDTH = 3.0  # km/s, of thermal motion and turbulence
RYDBERG = 10967758.3e-10  # of hydrogen, per Angstrom


def forest(
    windows: tuple[tuple[float, float], ...],
    spacing: float,
    labels: tuple[Tensor, Tensor, Tensor],
    draws: Draws,
    resolution: float,
    template_sigma: Tensor | None,
    wavelength: Tensor,
) -> Tensor:
    """Computes the share of the continuum that the lines leave, `(B, L)` float32.

    Arguments:
        windows: ends of the wavelengths wanted, rest frame, vacuum Angstrom.
        spacing: mean distance of two lines in Angstrom.
        labels: Teff in K, log g and [Fe/H] in dex, each `(B,)`.
        draws: of the same stars, for their rotation and the scatter of their abundances.
        resolution: R of the instrument.
        template_sigma: velocity resolution in km/s of the template that the result multiplies, `(B,)`; None for a
            template without lines.
        wavelength: rest-frame wavelengths of the pixels, `(B, L)` float64.
    """
    strength = _strengths(*labels, draws)
    rotation = _rotation(labels[0], draws)
    out = torch.ones(wavelength.shape, device=wavelength.device)
    for k, window in enumerate(windows):
        basis = _basis(window, spacing, k, str(wavelength.device))
        depth = torch.zeros(len(draws), basis.shape[1], device=wavelength.device)
        for kind in range(KINDS):  # a sum, no matrix product: that may round differently in another batch
            depth = depth + strength[:, kind, None] * basis[kind]
        left = torch.exp(-depth)
        own = _smooth(left, (rotation**2 + (LIGHT / (2.3548 * resolution)) ** 2).sqrt())
        if template_sigma is not None:
            own = own / _smooth(left, (rotation**2 + template_sigma**2).sqrt()).clamp(min=0.02)
        position = (wavelength.log() - math.log(window[0]) + MARGIN) / STEP
        inside = (position > 0) & (position < basis.shape[1] - 1)
        out = torch.where(inside, interpolate(own, position.float().clamp(0, basis.shape[1] - 1)), out)
    return out.clamp(min=0)


def _strengths(teff: Tensor, logg: Tensor, feh: Tensor, draws: Draws) -> Tensor:
    """Returns how strong each kind of line is, `(B, KINDS)` float32, about 1 for a star of 5500 K."""
    cooler = 5040 / teff - 5040 / 5500
    neutral = 1.14 / (1 + torch.exp((teff - 6800) / 500))
    ion = torch.exp(-0.2 * (logg - 4.4)) / (1 + torch.exp((teff - 8500) / 800))
    alpha = (-0.4 * feh).clamp(0, 0.4)
    scatter = 0.1 * draws.normal("abundance", KINDS)
    columns = []
    for k, energy in enumerate(EXCITATION):
        slope = (2.2 if k < 4 else 0.5) - energy
        metal = feh + (alpha if k == 3 else 0) + scatter[:, k]
        columns.append(10 ** (metal + (slope * cooler).clamp(-1.5, 1.5)) * (neutral if k < 4 else ion))
    columns.append(10 ** (0.7 * feh + scatter[:, -2] + (5 * cooler).clamp(-3, 1.2)) * 0.3)
    columns.append(torch.exp(-0.5 * ((teff.log10() - math.log10(9500)) / 0.13) ** 2) * (1 + 0.1 * scatter[:, -1]))
    return torch.stack(columns, 1).float()


def _rotation(teff: Tensor, draws: Draws) -> Tensor:
    """Draws the broadening of the star itself in km/s: some km/s, and tens in stars hotter than 6250 K."""
    hot = torch.sigmoid((teff - 6250) / 200)
    return 10 ** (0.45 + 0.15 * draws.normal("macroturbulence") + hot * draws.uniform("rotation", 0.2, 1.4))


@cache
def _basis(window: tuple[float, float], spacing: float, number: int, device: str) -> Tensor:
    """Makes the optical depth of each kind of line of unit strength on the grid of a window, `(KINDS, G)`."""
    start = math.log(window[0]) - MARGIN
    size = 1024 * math.ceil((math.log(window[1]) + MARGIN - start) / STEP / 1024)  # for the Fourier transform
    count = round((window[1] - window[0]) / spacing * size * STEP / math.log(window[1] / window[0]))
    draws = Draws(1000 + number, torch.arange(count)).of(f"{window[0]:.0f}")
    kind = (draws.uniform("kind") ** 0.8 * (KINDS - 1)).long()
    depth = 10 ** (-1.2 + 0.8 * draws.normal("depth")).clamp(-4, 0.5)
    position = draws.uniform("position", 0, size)
    sigma = torch.full_like(position, WIDTH / LIGHT / STEP)
    order = torch.arange(10, 25, dtype=torch.float64)
    brackett = ((1 / (RYDBERG * (1 / 16 - order**-2))).log() - start) / STEP
    near = (brackett > 0) & (brackett < size)
    position, kind = torch.cat([position, brackett[near]]), torch.cat([kind, torch.full_like(order[near], 7).long()])
    depth = torch.cat([depth, 4 / order[near]])
    sigma = torch.cat([sigma, torch.full_like(order[near], 400 / LIGHT / STEP)])
    out = torch.zeros(KINDS, size, dtype=torch.float64)
    pixel = torch.arange(size, dtype=torch.float64)
    for k, at, deep, width in zip(kind.tolist(), position.tolist(), depth.tolist(), sigma.tolist(), strict=True):
        low, high = max(0, int(at - 6 * width)), min(size, int(at + 6 * width) + 2)
        out[k, low:high] += deep * torch.exp(-0.5 * ((pixel[low:high] - at) / width) ** 2)
    return out.float().to(device)


def _smooth(values: Tensor, sigma: Tensor) -> Tensor:
    """Convolves rows on the grid with Gaussians of `(B,)` km/s."""
    size = values.shape[1]
    k = torch.arange(size // 2 + 1, dtype=torch.float64, device=values.device) * (2 * math.pi / size)
    window = torch.exp(-0.5 * ((sigma / LIGHT / STEP)[:, None] * k) ** 2)
    # In float64: what a transform rounds off depends on the batch.
    return torch.fft.irfft(torch.fft.rfft(values.double()) * window, n=size).float()
