"""Photometry: fluxes through the real transmission curves, with errors of the depth of the Legacy Surveys.

The flux of f in a band is the photon-weighted mean of f over that of a source of 1 nanomaggy (AB, 3.631e-29
erg/s/cm2/Hz); a source of constant f_nu has therefore the same number of nanomaggies in every band, whatever its curve.
"""

__all__ = ["LEGACY_SIGMA", "legacy_photometry", "synthetic_flux"]

import math

import torch

from torch import Tensor

from aion.sky.draws import Draws
from aion.sky.source import LINES, Source
from aion.sky.templates import WIDE_START, WIDE_STEP, Templates, milky_way, shift_wide

# Standard deviation for a point source in nanomaggy, in the order of `aion.sky.templates.BANDS`: from the 5-sigma
# depths of DR9 (g 24.7, r 23.9, z 23.0; i as deep as its exposures allow) and from the ivar of real catalogue rows
# (W1 to W4).
LEGACY_SIGMA = {
    "g": 0.2 * 10 ** (-0.4 * (24.7 - 22.5)),
    "r": 0.2 * 10 ** (-0.4 * (23.9 - 22.5)),
    "i": 0.2 * 10 ** (-0.4 * (23.5 - 22.5)),
    "z": 0.2 * 10 ** (-0.4 * (23.0 - 22.5)),
    "w1": 0.62,
    "w2": 1.4,
    "w3": 35.0,
    "w4": 310.0,
}


def synthetic_flux(source: Source, templates: Templates) -> Tensor:
    """Returns the true fluxes in all of `BANDS` in nanomaggy, Milky Way included, `(B, 11)` float64.

    Arguments:
        source: the light of the objects.
        templates: where the transmission curves are.
    """
    stretch = torch.log10(1 + source.redshift)
    seen = shift_wide(source.wide, stretch).to(torch.float64)
    law = milky_way(templates.wide)
    seen = seen * torch.exp(-0.4 * math.log(10) * source.ebv[:, None] * law)
    weight = templates.data["filter.weight"]
    total = []
    for band in weight:  # band by band: a matrix product may round differently in another batch
        used = band.nonzero().flatten()
        window = slice(int(used[0]), int(used[-1]) + 1)
        total.append((seen[:, window] * band[window]).sum(1))
    rest = templates.lines(LINES)
    position = (torch.log10(rest) + stretch[:, None] - WIDE_START) / WIDE_STEP
    index = position.floor().long().clamp(0, weight.shape[1] - 2)
    t = (position - index)[:, :, None]
    cell = torch.diff(templates.wide)[index][:, :, None]
    per_flux = ((1 - t) * weight.T[index] + t * weight.T[index + 1]) / cell
    dimming = torch.exp(-0.4 * math.log(10) * source.ebv[:, None] * law[index])
    return torch.stack(total, 1) + (per_flux * (source.line * dimming)[:, :, None]).sum(1)


def legacy_photometry(true: Tensor, radius: Tensor, draws: Draws, noise: bool = True) -> dict[str, Tensor]:
    """Returns measured Legacy Survey fluxes in nanomaggy, each `(B,)` float64.

    Arguments:
        true: true fluxes, from `synthetic_flux`.
        radius: half-light radius in arcsec, `(B,)`: a larger source collects more of the sky's noise.
        draws: of the same objects.
        noise: whether noise is added.
    """
    error = draws.of("photometry").normal("noise", len(LEGACY_SIGMA))
    out = {}
    for k, (band, sigma) in enumerate(LEGACY_SIGMA.items()):
        flux = true[:, k]
        seeing = 1.2 if band in "griz" else 6.0
        total = torch.sqrt((sigma**2) * (1 + (2 * radius / seeing) ** 2) + (0.01 * flux) ** 2)
        out[f"legacysurvey_flux_{band}"] = flux + total * error[:, k] if noise else flux
    return out
