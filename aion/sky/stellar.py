"""Surveys of stars: sampled Gaia XP spectra, the three chips of APOGEE and the four arms of GALAH.

Wavelengths, pixels, resolving power and typical S/N are those published (see `SURVEYS` and the references). The light
at high resolution is simulated, see `aion.sky.forest`. Stars of this sky are fainter than those that APOGEE and GALAH
observe: their S/N is drawn as the surveys have it, whatever the magnitude. The r magnitude stands in for Gaia's G.

With `varied=True` every star gets a grid of its own (shifted, slightly stretched) and trimmed ends, as in
`aion.sky.spectra`; gaps, bad pixels and the errors of calibration know nothing of the star.

References:
    | Gaia Data Release 3: Processing and validation of BP/RP low-resolution spectral data (De Angeli et al., 2023),
      arXiv 2206.06143: 330-1050 nm, S/N above 100 at G = 15, published to G = 17.65
    | Internal calibration of Gaia BP/RP low-resolution spectra (Carrasco et al., 2021), arXiv 2106.01752: R of 30 to
      100 in BP and 70 to 100 in RP
    | The Data Reduction Pipeline for the Apache Point Observatory Galactic Evolution Experiment (Nidever et al., 2015),
      arXiv 1501.03742: steps of 6e-6 dex in vacuum, S/N above 100 per half-resolution element
    | The Apache Point Observatory Galactic Evolution Experiment (Majewski et al., 2017), arXiv 1509.05420: R = 22500 on
      1.514-1.581, 1.585-1.644 and 1.647-1.696 micron
    | The GALAH survey: scientific motivation (De Silva et al., 2015), arXiv 1502.04767: R = 28000 in 4713-4903,
      5648-5873, 6478-6737 and 7585-7887 A (air), 4096 pixels an arm, S/N of 100 per resolution element at V = 14
"""

__all__ = ["SURVEYS", "empty_star", "observe_star"]

import math

from collections.abc import Callable
from dataclasses import dataclass

import torch

from torch import Tensor

from aion.sky.draws import Draws
from aion.sky.forest import forest
from aion.sky.published import PUBLISHED
from aion.sky.source import Source
from aion.sky.templates import FINE_START, FINE_STEP, WIDE_SIZE, WIDE_START, WIDE_STEP, gaussian, interpolate, milky_way

_APOGEE = ((15140.0, 15810.0), (15850.0, 16440.0), (16470.0, 16960.0))  # vacuum
_GALAH = ((4713.0, 4903.0), (5648.0, 5873.0), (6478.0, 6737.0), (7585.0, 7887.0))  # air
_GALAH_PIXELS = 4096
# Errors of the sampled spectrum of Gaia DR3 5937083312263887616, a star like the Sun, over their median.
_XP_ERROR = ((336, 7.1), (356, 4.1), (376, 5.2), (396, 3.6), (416, 2.4), (456, 1.83), (496, 1.31), (536, 1.08))
_XP_ERROR += ((576, 0.92), (616, 0.68), (636, 0.52), (656, 1.2), (696, 0.96), (756, 0.76), (856, 0.69), (896, 0.82))
_XP_ERROR += ((936, 0.98), (976, 1.35), (996, 2.16), (1020, 4.9))


@dataclass(frozen=True)
class Survey:
    """Describes a survey of stars.

    Arguments:
        arms: wavelengths of the pixels of each arm, vacuum Angstrom.
        stretch: largest change of the scale of a varied grid.
        move: largest shift of a varied grid in Angstrom.
        light: from source, Teff, log g, [Fe/H], draws and wavelength `(B, L)`, the flux `(B, L)` before the Milky Way.
        level: from magnitude and draws, log10 of the median S/N per pixel.
        noise: from one grid `(L,)`, the relative size of the noise `(L,)`.
        limit: faintest magnitude observed.
        gaps: whether there are bad pixels and gaps.
    """

    arms: tuple[Tensor, ...]
    stretch: float
    move: float
    light: Callable[..., Tensor]
    level: Callable[[Tensor, Draws], Tensor]
    noise: Callable[[Tensor], Tensor]
    limit: float = math.inf
    gaps: bool = True


def _vacuum(air: Tensor) -> Tensor:
    """Converts wavelengths in Angstrom from air to vacuum.

    References:
        Atomic data for resonance absorption lines II, Morton, 2000.
    """
    s2 = (1e4 / air) ** 2
    n = 1 + 8.336624212083e-5 + 2.408926869968e-2 / (130.1065924522 - s2) + 1.599740894897e-4 / (38.92568793293 - s2)
    return air * n


def _xp_light(source: Source, labels: tuple[Tensor, ...], draws: Draws, wavelength: Tensor) -> Tensor:
    """Smooths the template to R of 100 falling to 30 in BP, and rising from 70 to 100 in RP."""
    blue = 100 - 70 * (wavelength - 3300) / 3500
    red = 70 + 30 * (wavelength - 6400) / 4100
    resolution = torch.where(wavelength < 6600, blue, red).clamp(20, 110)
    sigma = 1 / (2.3548 * resolution) / math.log(10) / WIDE_STEP  # in cells, at most 8
    centre = (torch.log10(wavelength) - torch.log10(1 + source.frame)[:, None] - WIDE_START) / WIDE_STEP
    offset = torch.arange(-32, 33, device=wavelength.device)
    cell = centre.round().long()[..., None] + offset
    weight = gaussian(((cell - centre[..., None]) / sigma[..., None]).float())
    value = source.wide.gather(1, cell.clamp(0, WIDE_SIZE - 1).flatten(1)).view(cell.shape)
    return (value * weight).sum(-1) / weight.sum(-1)


def _apogee_light(source: Source, labels: tuple[Tensor, ...], draws: Draws, wavelength: Tensor) -> Tensor:
    """Puts the forest on the black body that the template is here."""
    rest = wavelength / (1 + source.redshift)[:, None]
    continuum = interpolate(source.wide, ((torch.log10(rest) - WIDE_START) / WIDE_STEP).float())
    return continuum * forest(_APOGEE, 0.8, labels, draws, 22500.0, None, rest)


def _galah_light(source: Source, labels: tuple[Tensor, ...], draws: Draws, wavelength: Tensor) -> Tensor:
    """Adds the detail that the template lacks: the forest over itself at the resolution of the template."""
    rest = wavelength / (1 + source.redshift)[:, None]
    template = interpolate(source.fine, ((torch.log10(rest) - FINE_START) / FINE_STEP).float())
    return template * forest(_GALAH, 0.35, labels, draws, 28000.0, source.template_sigma, rest)


def _xp_noise(wavelength: Tensor) -> Tensor:
    """Interpolates the errors of a real source."""
    knots = torch.tensor(_XP_ERROR, dtype=torch.float64, device=wavelength.device)
    position = wavelength.clamp(3360, 10199) / 10
    right = torch.searchsorted(knots[:, 0].contiguous(), position, right=True).clamp(1, len(knots) - 1)
    low, high = knots[right - 1], knots[right]
    share = (position - low[:, 0]) / (high[:, 0] - low[:, 0])
    return low[:, 1] + share * (high[:, 1] - low[:, 1])


def _airglow_noise(wavelength: Tensor) -> Tensor:
    """Draws, by a fixed seed, 60 lines of airglow that raise the noise up to tenfold; their places are simulated."""
    draws = Draws(7, torch.arange(60, device=wavelength.device))
    centre, height = draws.uniform("centre", 15100, 17000), 10 ** draws.uniform("height", 0.0, 1.0)
    return 1 + (height * gaussian((wavelength[:, None] - centre) / 0.35)).sum(1)


def _level(middle: float, spread: float, low: float, high: float) -> Callable[[Tensor, Draws], Tensor]:
    def level(magnitude: Tensor, draws: Draws) -> Tensor:
        return (middle + spread * draws.normal("noise.level")).clamp(math.log10(low), math.log10(high))

    return level


def _xp_level(magnitude: Tensor, draws: Draws) -> Tensor:
    return (2.0 - 0.2 * (magnitude - 15) + 0.15 * draws.normal("noise.level")).clamp(math.log10(3), math.log10(500))


def _log_steps(low: float, high: float) -> Tensor:
    count = round(math.log10(high / low) / 6e-6)
    return 10 ** (math.log10(low) + 6e-6 * torch.arange(count, dtype=torch.float64))


def _linear(low: float, high: float) -> Tensor:
    return _vacuum(torch.linspace(low, high, _GALAH_PIXELS, dtype=torch.float64))


SURVEYS = {
    "gaia_xp_spectrum": Survey(
        arms=(3360 + 20 * torch.arange(343, dtype=torch.float64),),
        stretch=0.01,
        move=10.0,
        light=_xp_light,
        level=_xp_level,
        noise=_xp_noise,
        limit=PUBLISHED["gaia"].depth["xp"],
        gaps=False,
    ),
    "apogee_spectrum": Survey(
        arms=tuple(_log_steps(*chip) for chip in _APOGEE),
        stretch=0.0005,
        move=3.0,
        light=_apogee_light,
        level=_level(1.9, 0.35, 8, 500),
        noise=_airglow_noise,
    ),
    "galah_spectrum": Survey(
        arms=tuple(_linear(*arm) for arm in _GALAH),
        stretch=0.0005,
        move=1.5,
        light=_galah_light,
        level=_level(1.6, 0.25, 5, 300),
        noise=lambda wavelength: torch.where(wavelength < 5000, 1.7, 1.0).double(),  # the blue arm has half the S/N
    ),
}


def _grid(survey: Survey, draws: Draws, varied: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Returns wavelengths `(B, L)` float64, the published grid `(L,)` and the arm of each pixel `(L,)`."""
    device = draws.index.device
    base = torch.cat(survey.arms).to(device)
    arm = torch.cat([torch.full_like(a, k, dtype=torch.long) for k, a in enumerate(survey.arms)]).to(device)
    if not varied:
        return base.expand(len(draws), -1), base, arm
    u = draws.uniform("grid", -1, 1, count=2)
    middle = (base[0] + base[-1]) / 2
    return middle + (base - middle) * (1 + survey.stretch * u[:, :1]) + survey.move * u[:, 1:], base, arm


def _calibration(draws: Draws, base: Tensor, arm: Tensor) -> Tensor:
    """Returns a smooth factor near 1: 2 % from arm to arm, and a parabola of 1 % per order in each."""
    n = draws.normal("calibration", 12).clamp(-2.5, 2.5).float()
    arms = int(arm[-1]) + 1
    low, high = (torch.stack([base[arm == k][end] for k in range(arms)])[arm] for end in (0, -1))
    x = (2 * (base - low) / (high - low) - 1).float()
    return 1 + 0.02 * n[:, :4][:, arm] + 0.01 * n[:, 4:8][:, arm] * x + 0.01 * n[:, 8:][:, arm] * (1.5 * x**2 - 0.5)


def _measured(survey: Survey, draws: Draws, count: int, varied: bool) -> Tensor:
    """Draws which pixels were measured, `(B, count)`."""
    pixel = torch.arange(count, device=draws.index.device)
    keep = torch.ones(len(draws), count, dtype=torch.bool, device=pixel.device)
    if survey.gaps:
        rate = 10 ** draws.uniform("bad.rate", -3.5, -2.0)
        keep &= ~draws.rare("bad.pixels", count, rate, 0.01)
        u = draws.uniform("gaps", count=9)
        for k in range(0, 9, 3):
            half = 10 ** (0.3 + math.log10(0.02 * count) * u[:, k + 1]) / 2
            gap = (pixel - (count * u[:, k + 2])[:, None]).abs() < half[:, None]
            keep &= ~(gap & (u[:, k] < 0.3)[:, None])
    if varied:
        u = draws.uniform("trim", count=4)
        low = torch.where(u[:, 0] < 0.5, 0.06 * count * u[:, 1] ** 2, 0)
        high = count - torch.where(u[:, 2] < 0.5, 0.06 * count * u[:, 3] ** 2, 0)
        keep &= (pixel >= low[:, None]) & (pixel < high[:, None])
    return keep


def observe_star(
    name: str,
    source: Source,
    parameters: dict[str, Tensor],
    draws: Draws,
    varied: bool = True,
    noise: bool = True,
) -> tuple[Tensor, Tensor, Tensor]:
    """Observes stars in one survey.

    Arguments:
        name: of the modality, a key of `SURVEYS`.
        source: the light of the stars, of the right brightness.
        parameters: `teff`, `logg`, `feh` and `magnitude` of the stars, each `(B,)`.
        draws: of the same stars.
        varied: whether each star has a grid, ends and a flux scale of its own.
        noise: whether noise is added; without it everything else, ivar too, stays the same.

    Returns:
        flux, ivar and wavelength, each `(B, L)` float32, in the units of `Spectrum`.
    """
    survey, star = SURVEYS[name], draws.of("star")
    draws = draws.of(name)
    wavelength, base, arm = _grid(survey, draws, varied)
    labels = tuple(parameters[key] for key in ("teff", "logg", "feh"))
    flux = survey.light(source, labels, star, wavelength).float()
    flux = flux * torch.exp(-0.4 * math.log(10) * source.ebv.float()[:, None] * milky_way(wavelength.float()))
    if varied:
        flux = flux * 10 ** draws.uniform("scale", -0.3, 0.3).float()[:, None]
    typical = flux.median(1, keepdim=True).values.clamp(min=1e-12)
    share = survey.noise(base).float() ** 2 * (0.3 + 0.7 * flux.clamp(min=0) / typical)
    sigma = typical * share.sqrt() / 10 ** survey.level(parameters["magnitude"], draws).float()[:, None]
    calibration = _calibration(draws, base, arm)
    flux, sigma = flux * calibration, sigma * calibration
    if noise:
        flux = flux + sigma * draws.noise("noise", flux.shape[1])
    misjudged = torch.exp(0.04 * draws.normal("noise.misjudged")).float()[:, None]
    keep = _measured(survey, draws, flux.shape[1], varied) & (parameters["magnitude"] < survey.limit)[:, None]
    return flux, keep / (sigma * misjudged) ** 2, wavelength.float()


def empty_star(name: str, count: int, device: torch.device | str) -> tuple[Tensor, Tensor, Tensor]:
    """Returns flux, ivar and wavelength of objects that this survey did not observe."""
    base = torch.cat(SURVEYS[name].arms).to(device).float().expand(count, -1)
    return torch.zeros_like(base), torch.zeros_like(base), base.clone()
