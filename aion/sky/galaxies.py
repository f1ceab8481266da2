"""Galaxies: stars of many ages behind dust, gas that shines in lines, and the shapes both are seen in.

The light is a non-negative mixture of 54 MaStar populations (9 ages, 6 metallicities), weighted by a star-formation
history (`aion.sky.populations`); the lines follow its youngest stars (`aion.sky.nebula`). Brighter galaxies are more
often quiet, richer in metals and dispersed faster.

References:
    Stellar population models based on the SDSS-IV MaStar library of stellar spectra, Maraston et al., 2020,
    arXiv:1911.05748.
    COSMOS photometric redshifts with 30 bands, Ilbert et al., 2009, arXiv:0809.2101.
"""

__all__ = ["MAX_REDSHIFT", "galaxies_at", "galaxy_parameters", "galaxy_source", "galaxy_truth"]

import math

import torch

from torch import Tensor

from aion.sky.draws import Draws
from aion.sky.morphology import draw_shape
from aion.sky.nebula import line_flux
from aion.sky.photometry import synthetic_flux
from aion.sky.populations import draw_history
from aion.sky.source import Source
from aion.sky.templates import WIDE_START, WIDE_STEP, Templates, luminosity_distance

MAX_REDSHIFT = 1.55  # beyond it the templates would end inside the blue end of the spectrographs
_TEMPLATE_SIGMA = 70.0  # km/s, R = 1800 of MaStar
_NORMAL = round((math.log10(5500) - WIDE_START) / WIDE_STEP)  # cell of the wide grid in which templates are 1


def _truncated_normal(u: Tensor, mean: Tensor, scale: float, low: Tensor, high: Tensor) -> Tensor:
    """Maps uniform numbers to a normal distribution cut at both ends."""
    a, b = (torch.special.ndtr((edge - mean) / scale) for edge in (low, high))
    value = torch.special.ndtri((a + u * (b - a)).clamp(1e-12, 1 - 1e-12))
    return (mean + scale * value).clamp(low, high)


def _redshift(draws: Draws, highest: float) -> Tensor:
    """Draws redshifts: half uniform in ln(1+z), the rest in a bump like that of a shallow survey and towards zero."""
    u, which = draws.uniform("galaxy.redshift"), draws.uniform("galaxy.redshift.kind")
    lowest = min(0.002, highest / 10)
    wide = torch.expm1(math.log1p(lowest) + u * (math.log1p(highest) - math.log1p(lowest)))
    edges = (torch.full_like(u, math.log(edge)) for edge in (lowest, highest))
    bump = torch.exp(_truncated_normal(u, torch.full_like(u, math.log(0.14)), 0.6, *edges))
    near = lowest * (highest / lowest) ** u
    return torch.where(which < 0.5, wide, torch.where(which < 0.85, bump, near))


def _dimming(z: Tensor, quiet: Tensor | bool) -> Tensor:
    """Estimates distance modulus and K-correction in r together."""
    modulus = 5 * torch.log10(luminosity_distance(z)) + 25
    old, young = (z + 1.4 * z**2).clamp(max=3.6), 0.8 * z - 0.2 * z**2
    return modulus + torch.where(torch.as_tensor(quiet, device=z.device), old, young)


def galaxy_parameters(draws: Draws, max_redshift: float) -> dict[str, Tensor]:
    """Draws everything that is to know of a batch of galaxies but their history, each `(B,)` float64."""
    z = _redshift(draws, max_redshift)
    centre = _dimming(z, quiet=False) - 20.8
    brightest, low = (centre - 2.2).clamp(15, 23.4), torch.full_like(z, 15.0)
    high, u = torch.full_like(z, 23.5), draws.uniform("galaxy.magnitude")
    # One in five has any magnitude that is not brighter than galaxies are: faint dwarfs nearby are known too.
    anything = draws.uniform("galaxy.magnitude.kind") < 0.2
    usual = _truncated_normal(u, centre.clamp(15.5, 22.8), 1.0, torch.maximum(low, brightest), high)
    faint = torch.maximum(brightest + 0.1, high - 1.0)
    return galaxies_at(draws, z, torch.where(anything, brightest + (faint - brightest) * u, usual))


def galaxies_at(draws: Draws, z: Tensor, magnitude: Tensor) -> dict[str, Tensor]:
    """Draws what galaxies of given redshift and r magnitude are like, each `(B,)` float64."""
    absolute = magnitude - _dimming(z, quiet=True)
    # Quiet ones are bright, but none is brighter than galaxies are.
    share = 0.03 + 0.64 * torch.sigmoid((-20.4 - absolute) / 0.6) + 0.2 * torch.sigmoid((-22.2 - absolute) / 0.2)
    share = share * torch.sigmoid((absolute + 23.6) / 0.15)
    quiet = draws.uniform("galaxy.quiet") < share
    absolute = magnitude - _dimming(z, quiet)
    bright = (-21 - absolute).clamp(-5, 2)
    scatter = draws.normal("galaxy.metallicity")
    metallicity = torch.where(quiet, -0.16 + 0.06 * bright + 0.1 * scatter, -0.1 + 0.1 * bright + 0.12 * scatter)
    # Between exponential and normal: galaxies without dust are rare among those that form stars.
    dust = (0.25 * draws.normal("galaxy.dust") + 0.8).clamp(min=0) ** 2 * torch.where(
        quiet, 0.03, (0.17 + 0.06 * bright).clamp(min=0.03)
    )
    dust = dust * torch.exp(-1.2 * (z - 0.5).clamp(min=0))  # what is dusty there is too faint in r
    typical = torch.where(quiet, 180.0, 105.0) * 10 ** (0.08 * bright)
    return {
        "redshift": z,
        "quiet": quiet.double(),
        "agn": (draws.uniform("galaxy.agn") < 0.12).double(),
        "metallicity": metallicity.clamp(-1.35, 0.35),
        "dust": dust.clamp(max=1.0),
        "sigma": (typical * torch.exp(0.3 * draws.normal("galaxy.sigma"))).clamp(60, 350),
        "magnitude": magnitude,
        "absolute": absolute,
        **draw_shape(draws, z, absolute, quiet),
    }


def galaxy_source(draws: Draws, p: dict[str, Tensor], templates: Templates) -> Source:
    """Makes the light of galaxies, of arbitrary brightness (see `Source.scaled`)."""
    history = draw_history(draws, p["redshift"], p["quiet"] > 0, p["metallicity"], templates)
    fine, wide = (history.weight @ templates.data[f"galaxy.{grid}"] for grid in ("fine", "wide"))
    dust = -0.4 * math.log(10) * p["dust"].float()[:, None]
    fine = fine.float() * torch.exp(dust * templates.data["calzetti.fine"])
    wide = wide.float() * (5500 / templates.wide).float() ** 2 * torch.exp(dust * templates.data["calzetti.wide"])
    # Warm dust at 12 micron, as bright as spirals have it, follows the young stars and what the dust swallowed.
    warm = 10 ** (-2.7 + 0.25 * draws.normal("galaxy.warm")) * history.young * (0.3 + 4 * p["dust"])
    wide = wide + warm.float()[:, None] * templates.data["galaxy.dust"]
    share = draws.uniform("galaxy.gas", 0.45, 1.0) * torch.where(p["agn"] > 0, 1.3, 1.0)
    return Source(
        redshift=p["redshift"],
        frame=p["redshift"],
        fine=fine,
        wide=wide,
        line=line_flux(draws, p, history, templates).float(),
        line_sigma=(share * p["sigma"]).clamp(35, 350),
        sigma=p["sigma"],
        template_sigma=torch.full_like(p["sigma"], _TEMPLATE_SIGMA),
        ebv=p["ebv"],
    )


def galaxy_truth(draws: Draws, p: dict[str, Tensor], templates: Templates) -> dict[str, Tensor]:
    """Returns what follows from the histories of galaxies, each `(B,)` float64, see `Sky.labels`.

    The mass is that of stars and remnants, of the light in r that is seen.
    """
    history = draw_history(draws, p["redshift"], p["quiet"] > 0, p["metallicity"], templates)
    source = galaxy_source(draws, p, templates)
    factor = 10 ** (-0.4 * (p["magnitude"] - 22.5)) / synthetic_flux(source, templates, ("decam-r",))[:, 0]
    dust = 0.4 * p["dust"] * templates.data["calzetti.wide"][_NORMAL]
    seen = source.wide[:, _NORMAL] * factor * 10**dust * (1 + p["redshift"]) * 1e-17
    absolute = -2.5 * torch.log10(seen / 3.63e-9) - 5 * torch.log10(luminosity_distance(p["redshift"])) - 25
    return {
        "log_age": history.log_age,
        "mass_age": history.mass_age,
        "burst": history.young,
        "log_ssfr": history.log_ssfr,
        "log_mass": 0.4 * (history.magnitude - absolute) + torch.log10(history.surviving),
    }
