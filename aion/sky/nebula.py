"""Emission lines of galaxies: gas that young stars ionise, old stars, or an active nucleus.

The flux of H alpha follows from the stars formed in the last 10 Myr, the ratios of the strong lines from the oxygen
abundance of the gas (which is that of the stars), so that galaxies lie where they do on the diagrams of excitation.

References:
    | Dust-corrected star formation rates of galaxies II (Hao et al., 2011), arXiv 1108.2837: H alpha and rate, Kroupa
    | [O III]/[N II] as an abundance indicator at high redshift (Pettini & Pagel, 2004), arXiv astro-ph/0401128
    | The host galaxies and classification of active galactic nuclei (Kewley et al., 2006), arXiv astro-ph/0605681
"""

__all__ = ["line_flux"]

import torch

from torch import Tensor

from aion.sky.draws import Draws
from aion.sky.populations import History
from aion.sky.source import LINES
from aion.sky.templates import Templates, calzetti

# Balmer lines relative to H alpha for case B at 1e4 K.
_BALMER = {"halpha": 1.0, "hbeta": 1 / 2.86, "hgamma": 0.1640, "hdelta": 0.0906, "hepsilon": 0.0557, "h6": 0.0368}
_ALPHA = 10**41.27  # erg/s of H alpha for one solar mass a year
_VISUAL = 4.34e31  # erg/s/A at 5500 A of a source of absolute V = 0 (3.63e-9 erg/s/cm2/A at 10 pc)


def _ratios(draws: Draws, p: dict[str, Tensor]) -> dict[str, Tensor]:
    """Returns the flux of every line relative to H alpha, before dust."""
    n = draws.normal("galaxy.ratios", 8)
    oxygen = (8.69 + p["metallicity"] + 0.05 * n[:, 0]).clamp(7.7, 8.95)
    agn = p["agn"] > 0
    quiet = (p["quiet"] > 0) & ~agn
    n2 = (oxygen - 8.90) / 0.57
    o3 = (8.73 - oxygen) / 0.32 + n2
    x = (oxygen - 7.7) / 1.25

    def power(stars: Tensor | float, nucleus: float, weak: float, scatter: float, k: int) -> Tensor:
        centre = torch.where(agn, nucleus, torch.where(quiet, weak, stars + 0 * x))
        return 10 ** (centre + scatter * n[:, k])

    beta = _BALMER["hbeta"]
    nitrogen = power(n2, 0.0, 0.1, 0.10, 1)
    oxygen3 = beta * power(o3.clamp(max=0.85), 0.85, 0.3, 0.12, 2)
    oxygen2 = beta * power(0.60 - 0.45 * (x - 0.5).abs(), 0.4, 0.6, 0.12, 3)
    sulphur = power(-0.75 + 0.3 * x, -0.4, -0.2, 0.10, 4)
    sulphur3 = power(-1.2, -1.0, -1.5, 0.15, 5)
    magnesium = power(-1.6, -0.9, -3.0, 0.3, 6)
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
        "oi_6300": power(-1.6, -0.9, -0.8, 0.15, 7),
        "hei_5876": torch.full_like(x, 0.04),
        "heii_4686": beta * power(-2.3, -0.9, -2.3, 0.15, 0),
        "nev_3426": torch.where(agn, 0.1 * oxygen3, 0.0),
        "ariii_7135": torch.full_like(x, 0.03),
        "mgii_2796": magnesium / 1.6,
        "mgii_2803": magnesium * 0.6 / 1.6,
    }


def line_flux(draws: Draws, p: dict[str, Tensor], history: History, templates: Templates) -> Tensor:
    """Returns line fluxes `(B, E)` in Angstrom times f_lambda of the stars at 5500 A without dust, as observed.

    Arguments:
        draws: of the galaxies.
        p: their parameters: redshift, metallicity, dust, quiet, agn.
        history: of their stars.
        templates: where the wavelengths are.
    """
    n = draws.normal("galaxy.width")
    stars = history.rate * _ALPHA / (_VISUAL * 10 ** (-0.4 * history.magnitude)) * 10 ** (0.15 * n)
    # Old stars keep an equivalent width of some 1 A; active nuclei have ten times as much.
    alpha = stars + torch.where(p["agn"] > 0, 10 ** (0.9 + 0.4 * n), 10 ** (-0.1 + 0.3 * n))
    ratio = _ratios(draws, p)
    # Gas is reddened more than stars: E(B-V) of the stars is 0.44 of that of the gas.
    curve = calzetti(templates.lines(LINES))
    reddening = 10 ** (-0.4 * (p["dust"] / 0.44)[:, None] * curve)
    return torch.stack([ratio[name] for name in LINES], 1) * reddening * (alpha * (1 + p["redshift"]))[:, None]
