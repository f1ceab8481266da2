r"""Quasars: a broken power law, hot dust, broad and narrow lines, and the forest of absorption in front of them.

No template: the continuum is a power law on either side of 5000 A, reddened a little, with the blends of Fe II, the
Balmer continuum and hot dust on top; the lines are Gaussians of the equivalent widths of the composite of SDSS,
scattered from object to object, weaker in brighter quasars (Baldwin effect) and shifted where the ionisation is high.

The forest is lognormal: the optical depth is :math:`a(z)\,e^{s\,g}` of a smooth Gaussian field g, with a chosen so that
the mean transmission is the published one. Lyman beta repeats it, a Lyman-limit system may end the light. As the forest
does not stand in the rest frame of the quasar, its light is kept on grids in the observer's frame.

References:
    | Composite quasar spectra from the Sloan Digital Sky Survey (Vanden Berk et al., 2001), arXiv astro-ph/0105231
    | An improved measurement of the flux distribution of the Ly-alpha forest in QSO absorption spectra (Kim et al.,
      2007), arXiv 0711.1862: mean optical depth 0.0023 (1 + z)^3.65
    | The evolution of Lyman limit absorption systems to redshift six (Songaila & Cowie, 2010), arXiv 1007.3262
    | Evolution of structure in the intergalactic medium (Bi & Davidsen, 1997), arXiv astro-ph/9611062: lognormal forest
"""

__all__ = ["QUASAR_REDSHIFTS", "quasar_parameters", "quasar_source"]

import math

from functools import cache

import torch

from torch import Tensor

from aion.sky.draws import Draws
from aion.sky.source import LINES, Source
from aion.sky.templates import FINE_SIZE, FINE_START, FINE_STEP, LIGHT, WIDE_START, WIDE_STEP, Templates, gaussian

QUASAR_REDSHIFTS = (0.1, 4.0)
_ALPHA, _BETA, _LIMIT = 1215.67, 1025.72, 911.76  # Lyman alpha, beta and limit, Angstrom
# Broad lines: wavelength in Angstrom, equivalent width in Angstrom, width over that of Mg II, shift in km/s.
_BROAD = (
    (1033.0, 9.8, 1.1, -400),
    (1215.67, 72.0, 1.2, 0),
    (1240.1, 20.0, 1.2, -300),
    (1304.4, 1.7, 1.0, 0),
    (1396.8, 8.1, 1.2, -400),
    (1549.1, 23.8, 1.15, -700),
    (1640.4, 4.5, 1.6, -500),
    (1857.4, 2.5, 1.1, -200),
    (1908.7, 19.0, 1.3, -300),
    (2798.8, 32.3, 1.0, 0),
    (4102.9, 5.1, 0.9, 0),
    (4341.7, 12.6, 1.0, 0),
    (4862.7, 46.2, 1.1, 0),
    (5877.3, 4.9, 1.2, 0),
    (6564.6, 195.0, 1.0, 0),
    (12821.6, 30.0, 0.9, 0),
    (18756.1, 40.0, 0.9, 0),
    # Blends of Fe II, so wide that no more is known of them than where they are.
    (2080.0, 12.0, 6.0, 0),
    (2380.0, 26.0, 6.5, 0),
    (2550.0, 22.0, 6.5, 0),
    (2950.0, 18.0, 6.0, 0),
    (4570.0, 22.0, 4.2, 0),
    (5280.0, 22.0, 4.6, 0),
)
_FE = 6  # how many of the last are blends
# Narrow lines: equivalent widths in Angstrom where the composite has them.
_NARROW = {
    "nev_3426": 1.2,
    "oii_3726": 0.7,
    "oii_3729": 0.9,
    "neiii_3869": 1.4,
    "hgamma": 0.6,
    "hbeta": 1.3,
    "oiii_4959": 4.4,
    "oiii_5007": 13.2,
    "oi_6300": 1.0,
    "nii_6548": 1.3,
    "halpha": 5.0,
    "nii_6584": 3.8,
    "sii_6716": 1.6,
    "sii_6731": 1.6,
}
_SPREAD = 1.8  # of the logarithm of the optical depth of the forest
_PROFILE = (1.5, 8.0)  # widths in pixels of the two equal parts of the field


def quasar_parameters(draws: Draws) -> dict[str, Tensor]:
    """Draws redshift and r magnitude of quasars, each `(B,)` float64."""
    low, high = (math.log1p(z) for z in QUASAR_REDSHIFTS)
    u = draws.uniform("quasar.redshift", count=2)
    bump = math.log(2.6) + 0.28 * torch.special.ndtri(u[:, 0].clamp(1e-6, 1 - 1e-6))
    log = torch.where((u[:, 1] < 0.5) & (bump > low) & (bump < high), bump, low + (high - low) * u[:, 0])
    z = torch.expm1(log)
    magnitude = (19.2 + 0.25 * z + 1.1 * draws.normal("quasar.magnitude")).clamp(15.5, 22.5)
    return {"redshift": z, "magnitude": magnitude}


def quasar_source(draws: Draws, p: dict[str, Tensor], templates: Templates) -> Source:
    """Makes the light of quasars, of arbitrary brightness (see `Source.scaled`)."""
    z = p["redshift"]
    n = draws.normal("quasar.light", 8)
    lines = _broad_lines(draws, p, n)
    light = []
    for grid, start, step in ((templates.fine, FINE_START, FINE_STEP), (templates.wide, WIDE_START, WIDE_STEP)):
        rest = (grid / (1 + z)[:, None]).float()
        flux = _continuum(rest, n.float())
        light.append(_with_lines(flux, lines, z, n, start, step) * _transmission(draws, grid, z, step))
    rest = templates.lines(LINES)
    width = rest.new_tensor([_NARROW.get(name, 0.0) for name in LINES]) * 10 ** (0.3 * n[:, 4:5])
    narrow = width * _continuum(rest.expand(len(z), -1), n) * (1 + z)[:, None]
    zero = torch.zeros_like(z)
    return Source(
        redshift=z,
        frame=zero,
        fine=light[0],
        wide=light[1],
        line=narrow.float(),
        line_sigma=10 ** (2.35 + 0.1 * n[:, 5]),
        sigma=zero,
        template_sigma=zero,
        ebv=p["ebv"],
    )


def _continuum(rest: Tensor, n: Tensor) -> Tensor:
    """Returns f_lambda, 1 at 5000 A without dust, from rest-frame wavelengths `(B, L)` and normal numbers `(B, 8)`."""
    log = torch.log(rest / 5000)
    blue, red = -1.50 + 0.25 * n[:, :1], -0.55 + 0.2 * n[:, 1:2]
    flux = torch.exp(log * torch.where(log < 0, blue, red).clamp(-2.4, 0.2))
    hot = (0.9 * 10 ** (0.15 * n[:, 2:3])) * torch.exp(-log) / (1 + torch.exp(-4 * (log - math.log(3.2))))
    cut = torch.exp(-((rest / 2.5e5) ** 2)) + 1e-3
    balmer = 0.25 * torch.exp(0.3 * n[:, 3:4]) * gaussian((rest - 3300) / 500)
    dust = 0.03 * (-torch.special.ndtr(n[:, 6:7]).clamp(min=1e-6).log()) * torch.where(n[:, 7:] > 1.0, 3.0, 1.0)
    # The extinction of the Small Magellanic Cloud is a power law, 1.39 / lambda^1.2 in micron.
    dimming = torch.exp(-0.4 * math.log(10) * dust * 1.39 * torch.exp(-1.2 * (log + math.log(0.5))))
    return ((flux + balmer) * dimming + hot) * cut


def _broad_lines(draws: Draws, p: dict[str, Tensor], n: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Draws equivalent width (A, rest), width and shift (km/s) of every broad line, each `(B, lines)`."""
    table = torch.tensor(_BROAD, dtype=torch.float64, device=n.device)
    scatter = draws.normal("quasar.lines", len(_BROAD) + 2)
    own, strength, speed = scatter[:, :-2], scatter[:, -2:-1], scatter[:, -1:]
    luminous = (p["magnitude"] - 5 * torch.log10(p["redshift"] + 0.05) - 18.5)[:, None]  # faint is positive
    baldwin = (0.05 * luminous).clamp(-0.25, 0.25) * (table[:, 0] < 2000)
    width = 10 ** (baldwin + 0.10 * own + 0.12 * strength)
    width[:, -_FE:] = 10 ** (0.08 * own[:, -_FE:] + 0.25 * n[:, 3:4])
    velocity = 10 ** (3.24 + 0.15 * speed)
    shift = table[:, 3] * (1 + 0.5 * own)
    return table[:, 1] * width, velocity * table[:, 2], shift


def _with_lines(
    flux: Tensor, lines: tuple[Tensor, Tensor, Tensor], z: Tensor, n: Tensor, start: float, step: float
) -> Tensor:
    """Adds the broad lines on a grid that starts at a log10 wavelength."""
    equivalent, velocity, shift = lines
    place = torch.tensor([line[0] for line in _BROAD], dtype=torch.float64, device=flux.device)
    height = equivalent * _continuum(place.expand(len(z), -1), n) / (place * velocity / LIGHT * math.sqrt(2 * math.pi))
    centre = (torch.log10(place * (1 + z)[:, None] * (1 + shift / LIGHT)) - start) / step
    sigma = velocity / (LIGHT * step * math.log(10))
    for chosen, reach in ((slice(-_FE), 5.0 * 4200), (slice(-_FE, None), 4.0 * 16000)):  # km/s: what few exceed
        most = math.ceil(reach / (LIGHT * step * 2.3026))
        offset = torch.arange(-most, most + 1, device=flux.device)
        index = centre[:, chosen].round().long()[:, :, None] + offset
        inside = (index >= 0) & (index < flux.shape[1])
        x = ((index - centre[:, chosen, None]) / sigma[:, chosen, None]).float()
        value = gaussian(x) * inside * height[:, chosen, None].float()
        flux = flux.scatter_add(1, index.clamp(0, flux.shape[1] - 1).flatten(1), value.flatten(1))
    return flux


def _field(draws: Draws) -> Tensor:
    """Returns a smooth Gaussian field of variance 1 on the fine grid, `(B, 9216)` float32."""
    field = torch.zeros(len(draws), FINE_SIZE, device=draws.index.device)
    for number, sigma in enumerate(_PROFILE):
        reach = math.ceil(3 * sigma)
        kernel = [math.exp(-0.5 * (k / sigma) ** 2) for k in range(-reach, reach + 1)]
        norm = math.sqrt(sum(value**2 for value in kernel) * len(_PROFILE))
        noise = draws.noise(f"quasar.forest.{number}", FINE_SIZE + 2 * reach)
        for k, value in enumerate(kernel):  # slices: a convolution may round differently in another batch
            field += noise[:, k : k + FINE_SIZE] * (value / norm)
    return field


@cache
def _amplitude(device: str) -> Tensor:
    """Returns log a on the fine grid, `(9216,)` float32, from a table of `-log <exp(-a e^{s g})>` against log a."""
    log_a = torch.linspace(-12, 8, 201, dtype=torch.float64)
    g = torch.linspace(-6, 6, 601, dtype=torch.float64)
    density = torch.exp(-0.5 * g**2)
    mean = -((torch.exp(-torch.exp(log_a[:, None] + _SPREAD * g)) * density).sum(1) / density.sum()).log()
    grid = 10 ** (FINE_START + FINE_STEP * torch.arange(FINE_SIZE, dtype=torch.float64))
    wanted = 0.0023 * (grid / _ALPHA) ** 3.65
    index = torch.searchsorted(mean, wanted).clamp(1, len(mean) - 1)
    t = ((wanted - mean[index - 1]) / (mean[index] - mean[index - 1])).clamp(0, 1)
    return (log_a[index - 1] * (1 - t) + log_a[index] * t).float().to(device)


def _optical_depth(draws: Draws) -> Tensor:
    """Returns the optical depth of Lyman alpha in front of a quasar at infinity, `(B, 9216)` float32."""
    return _field(draws).mul_(_SPREAD).add_(_amplitude(str(draws.index.device))).exp_().clamp_(max=50)


def _transmission(draws: Draws, grid: Tensor, z: Tensor, step: float) -> Tensor:
    """Returns the share of the light that reaches us, `(B, L)` float32: by pixel, or its mean on the wide grid."""
    one = torch.ones(len(z), len(grid), device=grid.device)
    rows = ((1 + z) * _ALPHA > 10**FINE_START).nonzero().flatten()
    if not len(rows):
        return one
    far, own = (1 + z)[rows, None], draws[rows]
    shift = round(math.log10(_ALPHA / _BETA) / step)
    if step == FINE_STEP:
        depth = _optical_depth(own)
    else:
        depth = (0.0023 * (grid / _ALPHA) ** 3.65).float().expand(len(rows), -1)
    beta = 0.16 * torch.cat([depth[:, shift:], depth[:, -1:].expand(-1, shift)], 1)
    total = depth * (grid < _ALPHA * far) + beta * (grid < _BETA * far)
    return one.index_copy(0, rows, torch.exp(-total) * _limit(own, grid, far))


def _limit(draws: Draws, grid: Tensor, far: Tensor) -> Tensor:
    """Returns the transmission of the first Lyman-limit system in front of a quasar, `(B, L)` float32."""
    u = draws.uniform("quasar.limit", count=2)
    last = (far / 4.5) ** 2.94 + u[:, :1].clamp(min=1e-9).log() * 2.94 / (2.8 * 4.5)
    edge = _LIMIT * 4.5 * last.clamp(min=1e-6) ** (1 / 2.94)
    depth = ((2 + 8 * u[:, 1:]) * (grid / edge) ** 3).float()
    return torch.exp(-depth * (grid < edge))
