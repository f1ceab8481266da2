"""Photometry: fluxes through the real transmission curves, with errors of the depth of each survey.

The flux of f in a band is the photon-weighted mean of f over that of a source of 1 nanomaggy (AB, 3.631e-29
erg/s/cm2/Hz); a source of constant f_nu has therefore the same number of nanomaggies in every band, whatever its curve.
"""

__all__ = ["LEGACY_SIGMA", "hsc_photometry", "legacy_photometry", "legacy_shape", "synthetic_flux"]

import math

from collections.abc import Sequence

import torch

from torch import Tensor

from aion.sky.draws import Draws
from aion.sky.published import EXTINCTION, PUBLISHED
from aion.sky.source import LINES, Source
from aion.sky.templates import BANDS, WIDE_START, WIDE_STEP, Templates, shift_wide

# Standard deviation for a point source in nanomaggy.
LEGACY_SIGMA = {**PUBLISHED["decam"].sigma, **PUBLISHED["wise"].sigma}
ROUND = 0.45  # arcsec: smaller galaxies are fitted by round profiles
_HSC = tuple(band for band in BANDS if band.startswith("hsc-"))


def synthetic_flux(source: Source, templates: Templates, bands: Sequence[str] = BANDS) -> Tensor:
    """Returns the true fluxes in nanomaggy, Milky Way included, `(B, bands)` float64.

    Arguments:
        source: the light of the objects.
        templates: where the transmission curves are.
        bands: some of `BANDS`.
    """
    moved = torch.log10(1 + source.frame)
    law = templates.data["milky_way.wide"]
    dust = -0.4 * math.log(10) * source.ebv[:, None]
    rest = templates.lines(LINES)
    position = (torch.log10(rest) + torch.log10(1 + source.redshift)[:, None] - WIDE_START) / WIDE_STEP
    index = position.floor().long().clamp(0, len(law) - 2)
    t = position - index
    cell = torch.diff(templates.wide)[index]
    lines = source.line * torch.exp(dust * law[index]) / cell
    total = []
    for name in bands:  # band by band: a matrix product may round differently in another batch
        weight, window = templates.bands[name]
        seen = shift_wide(source.wide, moved, window).to(torch.float64) * torch.exp(dust * law[window])
        continuum = (seen * weight[window]).sum(1)
        total.append(continuum + (((1 - t) * weight[index] + t * weight[index + 1]) * lines).sum(1))
    return torch.stack(total, 1)


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
        flux, survey = true[:, k], PUBLISHED["decam" if band in "griz" else "wise"]
        size = 1 + (2 * radius / survey.seeing[band]) ** 2
        total = torch.sqrt(sigma**2 * size + (survey.calibration * flux) ** 2)
        out[f"legacysurvey_flux_{band}"] = flux + total * error[:, k] if noise else flux
    return out


def legacy_shape(shape: dict[str, Tensor], star: Tensor) -> dict[str, Tensor]:
    """Returns half-light radius (arcsec) and ellipticity as the catalogue has them, each `(B,)`.

    As `aion.io` reads them from the catalogue: a point has no size and no shape (NaN), and a galaxy so small that a
    round profile fits has no ellipticity.
    """
    round_ = shape["radius"] < ROUND
    fixed = {"r": star, "e1": star | round_, "e2": star | round_}
    own = {"r": shape["radius"], "e1": shape["e1"], "e2": shape["e2"]}
    return {f"legacysurvey_shape_{name}": value.masked_fill(fixed[name], math.nan) for name, value in own.items()}


def hsc_photometry(
    true: Tensor, shape: dict[str, Tensor], ebv: Tensor, star: Tensor, draws: Draws, noise: bool = True
) -> dict[str, Tensor]:
    """Returns what the Wide layer of HSC publishes, each `(B,)` float64.

    Arguments:
        true: true fluxes in its five bands in nanomaggy, `(B, 5)`.
        shape: `radius`, `e1` and `e2`, each `(B,)`.
        ebv: E(B-V) of the Milky Way, `(B,)`.
        star: whether an object is a point, `(B,)`.
        draws: of the same objects.
        noise: whether noise is added.

    Returns:
        `hsc_mag_*` (AB, not dereddened, NaN where the flux is not positive), `hsc_extinction_*` (mag), and
        `hsc_shape11|22|12` (arcsec^2): second moments in i along columns, rows and both, widened by the seeing.
    """
    draws, survey = draws.of("hsc.photometry"), PUBLISHED["hsc"]
    error = draws.normal("noise", len(_HSC) + 3) * noise
    out = {}
    for k, ((band, sigma), name) in enumerate(zip(survey.sigma.items(), _HSC, strict=True)):
        size = 1 + (2 * shape["radius"] / survey.seeing[band]) ** 2
        total = torch.sqrt(sigma**2 * size + (survey.calibration * true[:, k]) ** 2)
        out[f"hsc_mag_{band}"] = 22.5 - 2.5 * torch.log10(true[:, k] + total * error[:, k])
        out[f"hsc_extinction_{band}"] = EXTINCTION[name] * ebv
    out = {name: torch.where(value.isfinite(), value, math.nan) for name, value in out.items()}
    e1, e2 = (torch.where(star, 0.0, shape[name]) for name in ("e1", "e2"))
    ellipticity = torch.sqrt(e1**2 + e2**2)
    major = (0.7 * shape["radius"]) ** 2  # of the weighted moments of an exponential disc
    minor = major * ((1 - ellipticity) / (1 + ellipticity)) ** 2
    psf = (survey.seeing["i"] * draws.uniform("seeing", 0.85, 1.2) / 2.3548) ** 2
    mean, difference = (major + minor) / 2 + psf, (major - minor) / 2 / ellipticity.clamp(min=1e-6)
    scatter = 0.01 + 0.2 * (survey.sigma["i"] / true[:, 2].clamp(min=1e-9)).clamp(max=1)
    # Columns go west and rows north: an ellipse that leans from north to east leans the other way in pixels.
    moments = {"11": mean - difference * e1, "22": mean + difference * e1, "12": -difference * e2}
    for k, (name, value) in enumerate(moments.items()):
        out[f"hsc_shape{name}"] = value + scatter * mean * error[:, len(_HSC) + k]
    return out
