"""Gaia: broad-band fluxes, the coefficients of the XP spectra and the parallax of stars.

The mean BP and RP spectra are published as 55 coefficients each of Hermite functions of the pseudo-wavelength. The
coefficients of a simulated star are those of least squares, through the published bases, dispersion and response.

References:
    Gaia Data Release 3: Processing and validation of BP/RP low-resolution spectral data, De Angeli et al., 2023,
    arXiv:2206.06143.
    Gaia Data Release 3: External calibration of BP/RP low-resolution spectroscopic data, Montegriffo et al., 2023,
    arXiv:2206.06205.
"""

__all__ = ["gaia_catalog"]

import math

import torch

from torch import Tensor

from aion.sky.draws import Draws
from aion.sky.published import PUBLISHED
from aion.sky.source import Source
from aion.sky.templates import WIDE_START, WIDE_STEP, Templates, interpolate, milky_way

# AB, of fluxes in electrons per second: Gaia Early Data Release 3: Photometric content and validation (Riello et al.,
# 2021), arXiv 2012.01916.
_ZERO_POINT = {"g": 25.8010, "bp": 25.3540, "rp": 25.1040}


def gaia_catalog(
    source: Source, true: Tensor, parallax: Tensor, draws: Draws, templates: Templates, noise: bool = True
) -> dict[str, Tensor]:
    """Returns what Gaia DR3 publishes of points, float64.

    Arguments:
        source: the light of stars and quasars.
        true: their true fluxes in G, BP and RP in nanomaggy, `(B, 3)`.
        parallax: true, in mas, `(B,)`.
        draws: of the same stars.
        templates: where the matrices are.
        noise: whether noise is added.

    Returns:
        `gaia_flux_g|bp|rp` (electrons/s) and `gaia_parallax` (mas) `(B,)`, NaN for G > 20.7, and
        `gaia_bp|rp_coefficients` (electrons/s) `(B, 55)`, NaN for G > 17.65, as in the release.
    """
    draws, survey = draws.of("gaia"), PUBLISHED["gaia"]
    error = draws.normal("flux", 4) * noise
    out = {}
    for k, (band, zero) in enumerate(_ZERO_POINT.items()):
        flux = true[:, k] * 10 ** (0.4 * (zero - 22.5))
        # Photons of some hundred seconds of exposure, background, and calibration.
        sigma = torch.sqrt(flux / 40 + (4.0 if band == "g" else 64.0) + (survey.calibration * flux) ** 2)
        out[f"gaia_flux_{band}"] = flux + sigma * error[:, k]
    magnitude = 22.5 - 2.5 * torch.log10(true[:, 0])
    faint = 10 ** (0.4 * (magnitude.clamp(min=13.5) - 15))
    sigma = torch.sqrt(40 + 800 * faint + 30 * faint**2) / 1000
    out["gaia_parallax"] = parallax + sigma * error[:, 3]
    out = {name: torch.where(magnitude < survey.depth["g"], value, math.nan) for name, value in out.items()}
    for band in ("bp", "rp"):
        coefficients, bright = _coefficients(band, source, draws, templates, noise), magnitude < survey.depth["xp"]
        out[f"gaia_{band}_coefficients"] = torch.where(bright[:, None], coefficients, math.nan)
    return out


def _coefficients(band: str, source: Source, draws: Draws, templates: Templates, noise: bool) -> Tensor:
    """Returns the coefficients of one band, `(B, 55)`."""
    data = {key: templates.data[f"xp.{band}.{key}"].double() for key in ("wavelength", "matrix", "error", "level")}
    position = (torch.log10(data["wavelength"]) - torch.log10(1 + source.frame)[:, None] - WIDE_START) / WIDE_STEP
    flux = interpolate(source.wide.double(), position)
    flux = flux * torch.exp(-0.4 * math.log(10) * source.ebv[:, None] * milky_way(data["wavelength"]))
    # A sum, no matrix product: that may round differently in another batch.
    value = torch.stack([(flux * row).sum(1) for row in data["matrix"]], 1)
    if not noise:
        return value
    # Errors of one real source, which grow with the square root of the light, and the background of the faintest.
    relative = (value[:, :1].clamp(min=0) / data["level"] + 0.02).sqrt()
    return value + relative * data["error"] * draws.normal(f"xp.{band}", 55)
