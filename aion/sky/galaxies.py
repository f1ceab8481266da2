"""Galaxies: mixtures of old and young stars behind dust, with emission lines.

The stars are a non-negative mixture of 54 MaStar populations (9 ages, 6 metallicities): an old and an intermediate
component and a burst whose share of the light separates quiescent from star-forming galaxies. The lines follow the
burst (equivalent width of H alpha), the metallicity ([N II], [O III]) or, sometimes, an active nucleus.

References:
    Stellar population models based on the SDSS-IV MaStar library of stellar spectra, Maraston et al., 2020,
    arXiv:1911.05748.
    COSMOS photometric redshifts with 30 bands, Ilbert et al., 2009, arXiv:0809.2101.
"""

__all__ = ["MAX_REDSHIFT", "galaxy_parameters", "galaxy_source"]

import math

import torch

from torch import Tensor

from aion.sky.draws import Draws
from aion.sky.source import LINES, Source
from aion.sky.templates import FINE_START, FINE_STEP, Templates, calzetti, luminosity_distance

MAX_REDSHIFT = 1.05  # beyond it the templates would end inside the blue end of the spectrographs
_SIZES = (9, 6)
_STEP = 2.0**-22  # of the mixing weights, see `Templates`
_TEMPLATE_SIGMA = 70.0  # km/s, R = 1800 of MaStar

# Balmer lines relative to H alpha for case B at 1e4 K.
_BALMER = {"halpha": 1.0, "hbeta": 1 / 2.86, "hgamma": 0.1640, "hdelta": 0.0906, "hepsilon": 0.0557, "h6": 0.0368}


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


def galaxy_parameters(draws: Draws, max_redshift: float) -> dict[str, Tensor]:
    """Draws everything that is to know of a batch of galaxies, each `(B,)` float64."""
    z = _redshift(draws, max_redshift)
    quiet = draws.uniform("galaxy.quiet") < 0.35
    u = draws.uniform("galaxy.burst")
    burst = torch.where(quiet, 0.04 * u**2, 0.05 + 0.9 * u**1.3)
    metallicity = draws.uniform("galaxy.metallicity", -1.35, 0.35)
    metallicity = torch.where(quiet, metallicity.clamp(min=-0.7), metallicity)
    young = draws.uniform("galaxy.age.young", -2.5, 0.0)
    old = draws.uniform("galaxy.age.old", 0.3, 1.146)
    middle = draws.uniform("galaxy.age.middle", -0.7, 0.6)
    middle_share = (1 - burst) * draws.uniform("galaxy.middle") * torch.where(quiet, 0.3, 0.8)
    dust = (-draws.uniform("galaxy.dust").clamp(min=1e-9).log()) * torch.where(quiet, 0.03, 0.18)
    agn = draws.uniform("galaxy.agn") < 0.12
    typical = torch.where(quiet, 180.0, 105.0)
    sigma = (typical * torch.exp(0.35 * draws.normal("galaxy.sigma"))).clamp(60, 350)
    modulus = 5 * torch.log10(luminosity_distance(z)) + 25
    centre = (modulus - 21.0 + 1.2 * z).clamp(15.5, 21.5)
    low, high = torch.full_like(z, 15.0), torch.full_like(z, 22.5)
    u = draws.uniform("galaxy.magnitude")
    # One in five has any magnitude that is not brighter than galaxies are: faint dwarfs nearby are known too.
    brightest = torch.maximum(low, centre - 2)
    anything = draws.uniform("galaxy.magnitude.kind") < 0.2
    usual = _truncated_normal(u, centre, 1.0, low, high)
    magnitude = torch.where(anything, brightest + (high - brightest) * u, usual)
    absolute = magnitude - modulus - 0.9 * z
    log_age = burst * young + middle_share * middle + (1 - burst - middle_share) * old
    log_mass = -0.4 * (absolute - 4.65) + 0.62 * log_age - 0.2 + 0.2 * metallicity
    return {
        "redshift": z,
        "quiet": quiet.double(),
        "agn": agn.double(),
        "burst": burst,
        "age.young": young,
        "age.middle": middle,
        "age.old": old,
        "middle": middle_share,
        "metallicity": metallicity,
        "log_age": log_age,
        "dust": dust.clamp(max=1.0),
        "sigma": sigma,
        "magnitude": magnitude,
        "absolute": absolute,
        "log_mass": log_mass,
        **_shape(draws, z, absolute, quiet),
    }


def _shape(draws: Draws, z: Tensor, absolute: Tensor, quiet: Tensor) -> dict[str, Tensor]:
    """Draws the half-light radius in arcsec, the ellipticity of the Legacy Surveys and the share of the bulge."""
    log_kpc = 0.5 - 0.12 * (absolute + 21) + 0.2 * draws.normal("galaxy.radius") - torch.where(quiet, 0.1, 0.0)
    kpc_per_arcsec = luminosity_distance(z) / (1 + z) ** 2 * 1e3 / 206265
    radius = (10**log_kpc / kpc_per_arcsec).clamp(0.1, 25)
    ratio = torch.where(quiet, 0.5, 0.2) + torch.where(quiet, 0.5, 0.8) * draws.uniform("galaxy.ratio")
    ellipticity = (1 - ratio) / (1 + ratio)
    angle = draws.uniform("galaxy.angle", 0, math.pi)
    bulge = torch.where(quiet, 0.5, 0.0) + 0.5 * draws.uniform("galaxy.bulge")
    return {
        "radius": radius,
        "e1": ellipticity * torch.cos(2 * angle),
        "e2": ellipticity * torch.sin(2 * angle),
        "bulge": bulge,
    }


def _weights(p: dict[str, Tensor], templates: Templates) -> Tensor:
    """Returns the share of each of the 54 populations, `(B, 54)`, bilinear in log age and metallicity."""
    grids = [templates.data[name].to(torch.float64) for name in ("galaxy.log_age", "galaxy.metallicity")]
    weight = torch.zeros(len(p["redshift"]), *_SIZES, dtype=torch.float64, device=grids[0].device)
    shares = (p["burst"], p["middle"], 1 - p["burst"] - p["middle"])
    for share, age in zip(shares, (p["age.young"], p["age.middle"], p["age.old"]), strict=True):
        hats = []
        for value, grid in zip((age, p["metallicity"]), grids, strict=True):
            value = value.clamp(grid[0], grid[-1])
            index = (torch.searchsorted(grid, value, right=True) - 1).clamp(0, len(grid) - 2)
            t = ((value - grid[index]) / (grid[index + 1] - grid[index]))[:, None]
            cell = torch.arange(len(grid), device=grid.device)
            hats.append((cell == index[:, None]) * (1 - t) + (cell == index[:, None] + 1) * t)
        weight = weight + share[:, None, None] * hats[0][:, :, None] * hats[1][:, None, :]
    return (weight.flatten(1) / _STEP).round() * _STEP


def _line_ratios(draws: Draws, p: dict[str, Tensor]) -> dict[str, Tensor]:
    """Returns the flux of every line relative to H alpha, before dust."""
    x = (p["metallicity"] + 1.35) / 1.7
    n = draws.normal("galaxy.ratios", 8)
    agn = p["agn"] > 0
    quiet = (p["quiet"] > 0) & ~agn

    def power(stars: Tensor | float, nucleus: float, weak: float, scatter: float, k: int) -> Tensor:
        centre = torch.where(agn, nucleus, torch.where(quiet, weak, stars + 0 * x))
        return 10 ** (centre + scatter * n[:, k])

    beta = _BALMER["hbeta"]
    nitrogen = power(-1.6 + 1.2 * x, 0.0, 0.1, 0.12, 0)
    oxygen3 = beta * power(0.75 - 1.2 * x, 0.85, 0.3, 0.15, 1)
    oxygen2 = beta * power(0.55 - 0.3 * x, 0.4, 0.6, 0.15, 2)
    sulphur = power(-0.65, -0.4, -0.2, 0.12, 3)
    sulphur3 = power(-1.2, -1.0, -1.5, 0.15, 4)
    magnesium = power(-1.6, -0.9, -3.0, 0.3, 5)
    doublet2 = draws.uniform("galaxy.doublet.oii", 1.1, 1.5)
    doublet6 = draws.uniform("galaxy.doublet.sii", 1.05, 1.45)
    return {
        **{name: torch.full_like(x, value) for name, value in _BALMER.items()},
        "nii_6584": nitrogen,
        "nii_6548": nitrogen / 2.94,
        "oiii_5007": oxygen3,
        "oiii_4959": oxygen3 / 2.98,
        "oii_3726": oxygen2 / (1 + doublet2),
        "oii_3729": oxygen2 * doublet2 / (1 + doublet2),
        "neiii_3869": oxygen3 * 0.08,
        "sii_6731": sulphur / (1 + doublet6),
        "sii_6716": sulphur * doublet6 / (1 + doublet6),
        "siii_9069": sulphur3,
        "siii_9532": sulphur3 * 2.47,
        "oi_6300": power(-1.6, -0.9, -0.8, 0.15, 6),
        "hei_5876": torch.full_like(x, 0.04),
        "heii_4686": beta * power(-2.3, -0.9, -2.3, 0.15, 7),
        "nev_3426": torch.where(agn, 0.1 * oxygen3, 0.0),
        "ariii_7135": torch.full_like(x, 0.03),
        "mgii_2796": magnesium / 1.6,
        "mgii_2803": magnesium * 0.6 / 1.6,
    }


def _lines(draws: Draws, p: dict[str, Tensor], templates: Templates, fine: Tensor) -> Tensor:
    """Returns line fluxes `(B, E)` in the flux unit of `fine` times Angstrom, as observed."""
    n = draws.normal("galaxy.width")
    young = 0.5 + 1.7 * p["burst"].clamp(min=0).sqrt() - 0.45 * (p["age.young"] + 2).clamp(min=0) + 0.3 * n
    log_width = torch.where(p["quiet"] > 0, -0.4 + 0.4 * n, young)
    log_width = torch.where(p["agn"] > 0, log_width.clamp(min=0.2) + 0.3, log_width)
    width = 10**log_width
    pixel = [round((math.log10(w) - FINE_START) / FINE_STEP) for w in (6480.0, 6640.0)]
    continuum = ((fine[:, pixel[0]] + fine[:, pixel[1]]) / 2).to(torch.float64)
    ratio = _line_ratios(draws, p)
    rest, alpha = templates.lines(LINES), templates.lines(("halpha",))
    # Gas is reddened more than stars: E(B-V) of the stars is 0.44 of that of the gas.
    curve = calzetti(rest) - calzetti(alpha)
    reddening = 10 ** (-0.4 * (p["dust"] / 0.44)[:, None] * curve)
    flux = torch.stack([ratio[name] for name in LINES], 1) * reddening
    return flux * (width * continuum * (1 + p["redshift"]))[:, None]


def galaxy_source(draws: Draws, p: dict[str, Tensor], templates: Templates) -> Source:
    """Makes the light of galaxies, of arbitrary brightness (see `Source.scaled`)."""
    weight = _weights(p, templates)
    attenuation = [
        torch.exp(-0.4 * math.log(10) * p["dust"].float()[:, None] * calzetti(grid).float())
        for grid in (templates.fine, templates.wide)
    ]
    fine = (weight @ templates.data["galaxy.fine"]).float() * attenuation[0]
    wide = (weight @ templates.data["galaxy.wide"]).float() * (5500 / templates.wide).float() ** 2 * attenuation[1]
    # Warm dust at 12 micron, as bright as spirals have it, follows the burst and what the dust swallowed.
    warm = 10 ** (-2.7 + 0.25 * draws.normal("galaxy.warm")) * p["burst"] * (0.3 + 4 * p["dust"])
    wide = wide + warm.float()[:, None] * templates.data["galaxy.dust"]
    line = _lines(draws, p, templates, fine)
    share = draws.uniform("galaxy.gas", 0.45, 1.0) * torch.where(p["agn"] > 0, 1.3, 1.0)
    return Source(
        redshift=p["redshift"],
        fine=fine,
        wide=wide,
        line=line.float(),
        line_sigma=(share * p["sigma"]).clamp(35, 350),
        sigma=p["sigma"],
        template_sigma=torch.full_like(p["sigma"], _TEMPLATE_SIGMA),
        ebv=p["ebv"],
    )
