"""Stars: real MILES spectra, continued to the red and to the blue, moving at tens of km/s.

A star is a mixture of a library star and its nearest neighbour in (log Teff, log g, [Fe/H]), so that there are more
stars than templates. Every fifth MILES number is not in the library and stays for tests.

References:
    Medium-resolution Isaac Newton Telescope library of empirical spectra, Sanchez-Blazquez et al., 2006,
    arXiv:astro-ph/0607009.
"""

__all__ = ["star_parameters", "star_source"]

import torch

from torch import Tensor

from aion.sky.draws import Draws
from aion.sky.source import LINES, Source
from aion.sky.templates import LIGHT, Templates

_TEMPLATE_SIGMA = 58.0  # km/s, FWHM 2.5 A at 5500 A


def star_parameters(draws: Draws, templates: Templates) -> dict[str, Tensor]:
    """Draws everything that is to know of a batch of stars, each `(B,)` float64."""
    labels = templates.data["star.labels"].to(torch.float64)
    first = (draws.uniform("star.template") * len(labels)).long()
    second = templates.data["star.neighbour"][first]
    share = draws.uniform("star.share", 0.5, 1.0)
    mixed = share[:, None] * labels[first] + (1 - share)[:, None] * labels[second]
    teff, logg, feh = (mixed[:, k].contiguous() for k in range(3))
    magnitude = draws.uniform("star.magnitude", 14.0, 21.0)
    absolute = _absolute_magnitude(teff, logg)
    return {
        "first": first.double(),
        "second": second.double(),
        "share": share,
        "redshift": 60.0 / LIGHT * draws.normal("star.velocity"),
        "teff": teff,
        "logg": logg,
        "feh": feh,
        "magnitude": magnitude,
        "absolute": absolute,
        "parallax": 100 * 10 ** (0.2 * (absolute - magnitude)),
    }


def _absolute_magnitude(teff: Tensor, logg: Tensor) -> Tensor:
    """Estimates the absolute r magnitude from Stefan and Boltzmann, a crude mass and a crude bolometric correction."""
    log_mass = torch.where(logg > 3.8, 1.5 * torch.log10(teff / 5772), torch.full_like(teff, 0.05))
    log_luminosity = log_mass - (logg - 4.44) + 4 * torch.log10(teff / 5772)
    correction = -8.5 * (torch.log10(teff) - 3.80) ** 2
    return 4.74 - 2.5 * log_luminosity - correction


def star_source(draws: Draws, p: dict[str, Tensor], templates: Templates) -> Source:
    """Makes the light of stars, of arbitrary brightness (see `Source.scaled`)."""
    share = p["share"].float()[:, None]
    fine, wide = (
        share * table[p["first"].long()] + (1 - share) * table[p["second"].long()]
        for table in (templates.star_fine, templates.star_wide)
    )
    zero = torch.zeros_like(p["redshift"])
    return Source(
        redshift=p["redshift"],
        frame=p["redshift"],
        fine=fine,
        wide=wide,
        line=fine.new_zeros(len(fine), len(LINES)),
        line_sigma=zero + 50,
        sigma=zero,
        template_sigma=zero + _TEMPLATE_SIGMA,
        ebv=p["ebv"],
    )
