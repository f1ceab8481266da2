"""Spectrographs: the light of a source on the native pixels of DESI and of SDSS, with errors as they occur.

What is measured is

    flux = calibration(wavelength) * (source seen through the Milky Way, the fibre and the line-spread function) + noise

with noise of variance n^2 [s^2 + t^2 f / b]: n is the level of the exposure, s the noise of the sky against wavelength
(from real coadds), t the same without the sky lines, f the flux and b that of the sky. Reported ivar is 1 / variance.

With `varied=True` every object gets a grid of its own (shifted, stretched), trimmed ends, gaps and a flux scale, so
that nothing can be learned from the pixel grid. All of this is drawn without knowledge of the object, whose photons
alone make noise of their own.
"""

__all__ = ["INSTRUMENTS", "Instrument", "empty_spectrum", "observe_spectrum"]

import math

from collections.abc import Callable
from dataclasses import dataclass

import torch

from torch import Tensor

from aion.sky.draws import Draws
from aion.sky.published import PUBLISHED
from aion.sky.source import LINES, Source
from aion.sky.templates import FINE_SIZE, FINE_START, FINE_STEP, NOISE_START, Templates, interpolate

_LIGHT = 299792.458
_ARMS = ((3600.0, 2751), (5760.0, 2326), (7520.0, 2881))  # first wavelength and pixels of DESI, 0.8 A each
_CHUNK = 16  # objects at a time on a CPU: their pixels stay in its cache
_REACH = 96  # pixels each side on which an emission line is drawn: 4 sigma or more


@dataclass(frozen=True)
class Instrument:
    """Describes a spectrograph.

    Arguments:
        name: of its noise curves.
        grid: from draws and `varied`, the wavelengths `(B, L)` float64 and the arm of each pixel `(L,)`.
        resolution: R of each pixel, from its wavelength and arm, of shapes that broadcast.
        sigma: typical velocity resolution in km/s, for the smoothing of the continuum.
        noise: typical level of the noise of the sky, the median over the pixels.
        spread: of that level from exposure to exposure, in dex.
        background: flux of an object that has as many photons as the sky.
    """

    name: str
    grid: Callable[[Draws, bool], tuple[Tensor, Tensor]]
    resolution: Callable[[Tensor, Tensor], Tensor]
    sigma: float
    noise: float
    spread: float
    background: float

    @property
    def calibration(self) -> float:
        """Returns the published error of the flux scale."""
        return PUBLISHED[f"{self.name}_spectrum"].calibration


def _affine(draws: Draws, grid: Tensor, middle: float, stretch: tuple[float, float], move: float) -> Tensor:
    """Shifts half of the grids by a few pixels and stretches and moves the other half; order is kept."""
    u = draws.uniform("grid", count=3)
    whole = u[:, 0] < 0.5
    scale = torch.where(whole, 1.0, stretch[0] + (stretch[1] - stretch[0]) * u[:, 1])
    shift = (2 * u[:, 2] - 1) * torch.where(whole, move / 15, move)
    return middle + (grid - middle) * scale[:, None] + shift[:, None]


def _desi_grid(draws: Draws, varied: bool) -> tuple[Tensor, Tensor]:
    """Returns the three arms joined in order of wavelength, overlapping pixels kept: 7958 pixels."""
    device = draws.index.device
    # In whole tenths of an Angstrom, so that pixels at one wavelength in two arms are equal.
    pixels = [start * 10 + 8 * torch.arange(n, dtype=torch.float64, device=device) for start, n in _ARMS]
    arms = torch.cat([torch.full_like(p, k, dtype=torch.long) for k, p in enumerate(pixels)])
    joined = torch.cat(pixels)
    order = joined.argsort(stable=True)
    grid, arms = (joined[order] / 10).expand(len(draws), -1), arms[order]
    return (_affine(draws, grid, 6712.0, (0.9, 1.01), 60.0) if varied else grid), arms


def _sdss_grid(draws: Draws, varied: bool) -> tuple[Tensor, Tensor]:
    """Returns a grid of 1e-4 dex of 4620 pixels from about 3580 to 10370 A."""
    pixel = torch.arange(4620, dtype=torch.float64, device=draws.index.device)
    grid = (3.5539 + 1e-4 * pixel).expand(len(draws), -1)
    if varied:
        grid = _affine(draws, grid, 3.785, (0.93, 1.0), 0.0015)
    return 10**grid, torch.zeros_like(pixel, dtype=torch.long)


def _desi_resolution(wavelength: Tensor, arm: Tensor) -> Tensor:
    """Returns R, rising inside each arm: 2000-3200, 3700-5000 and 4300-5300 (measured on two real coadds)."""
    knots = wavelength.new_tensor([[3600, 5800, 2000, 3200], [5760, 7620, 3700, 5000], [7520, 9824, 4300, 5300]])[arm]
    low, high, first, last = knots.unbind(-1)
    return (first + (last - first) / (high - low) * (wavelength - low)).clamp(1500, 6000)


def _sdss_resolution(wavelength: Tensor, arm: Tensor) -> Tensor:
    """Returns R of SDSS, 1850 in the blue to 2200 in the red."""
    return (1850 + 350 * (wavelength - 3600) / 5600).clamp(1800, 2250)


INSTRUMENTS = {
    # Effective exposures of 1000 s within a factor of 9: the two real coadds, of some 2400 s and 12 000 s, have 0.14
    # and 0.068. A dark sky of r = 21 per square arcsec puts 2 units into a fibre of 1.5 arcsec, 8 into one of 3.
    "desi_spectrum": Instrument("desi", _desi_grid, _desi_resolution, 35.0, noise=0.22, spread=0.19, background=2.0),
    "sdss_spectrum": Instrument("sdss", _sdss_grid, _sdss_resolution, 64.0, noise=0.6, spread=0.15, background=8.0),
}


def _blur(fine: Tensor, sigma: Tensor) -> Tensor:
    """Convolves rows with Gaussians of `(B,)` km/s in log wavelength, by the Fourier transform."""
    pixels = sigma / (_LIGHT * FINE_STEP * math.log(10))
    k = torch.arange(FINE_SIZE // 2 + 1, dtype=torch.float32, device=fine.device) * (2 * math.pi / FINE_SIZE)
    window = torch.exp(-0.5 * (pixels.float()[:, None] * k) ** 2)
    return torch.fft.irfft(torch.fft.rfft(fine) * window, n=FINE_SIZE)


def _add_lines(
    flux: Tensor, source: Source, wavelength: Tensor, arm: Tensor, instrument: Instrument, rest: Tensor
) -> Tensor:
    """Adds emission lines as Gaussians of the gas and of the line-spread function."""
    centre = rest * (1 + source.redshift)[:, None]
    index = torch.searchsorted(wavelength, centre)
    index = index[:, :, None] + torch.arange(-_REACH, _REACH + 1, device=flux.device)
    inside = (index >= 0) & (index < flux.shape[1])
    index = index.clamp(0, flux.shape[1] - 1).flatten(1)
    shape = (len(flux), len(rest), 2 * _REACH + 1)
    at = wavelength.gather(1, index).view(shape)
    lsf = _LIGHT / (2.3548 * instrument.resolution(at, arm[index].view(shape)))
    sigma = centre[:, :, None] * torch.sqrt(source.line_sigma[:, None, None] ** 2 + lsf**2) / _LIGHT
    profile = torch.exp(-0.5 * ((at - centre[:, :, None]) / sigma).float() ** 2) / sigma.float()
    value = profile * inside * (source.line / math.sqrt(2 * math.pi))[:, :, None]
    return flux.scatter_add(1, index, value.flatten(1))


def _true_flux(
    source: Source, wavelength: Tensor, log: Tensor, arm: Tensor, instrument: Instrument, templates: Templates
) -> Tensor:
    """Returns what a perfect instrument on this grid would measure, `(B, L)` float32; `log` is log10(wavelength)."""
    variance = source.sigma**2 + instrument.sigma**2 - source.template_sigma**2
    fine = _blur(source.fine, variance.clamp(min=0).sqrt())
    position = (log - (torch.log10(1 + source.frame)[:, None] + FINE_START)) / FINE_STEP
    flux = interpolate(fine, position.float())
    flux = _add_lines(flux, source, wavelength, arm, instrument, templates.lines(LINES))
    law = templates.data["milky_way.fine"][((log - FINE_START) / FINE_STEP).long()]  # flat from cell to cell
    return flux * torch.exp((-0.4 * math.log(10) * source.ebv).float()[:, None] * law)


def _calibration(draws: Draws, wavelength: Tensor, arm: Tensor, size: float) -> Tensor:
    """Returns a smooth factor near 1: polynomials of a size per order, and 2 % from arm to arm."""
    n = draws.normal("calibration", 7).clamp(-2.5, 2.5).float()
    x = (wavelength - 6750) / 3300
    error = size * (n[:, :1] + n[:, 1:2] * x + n[:, 2:3] * (1.5 * x**2 - 0.5) + n[:, 3:4] * (2.5 * x**3 - 1.5 * x))
    return 1 + error + 0.02 * n[:, 4:][:, arm]


def _measured(draws: Draws, wavelength: Tensor, varied: bool) -> Tensor:
    """Draws which pixels were measured; knows nothing of the object."""
    count = wavelength.shape[1]
    rate = 10 ** draws.uniform("bad.rate", -3.5, -2.0)
    keep = ~draws.rare("bad.pixels", count, rate, 0.01)
    u = draws.uniform("gaps", count=12)
    if not varied:
        u = torch.cat([torch.ones_like(u[:, :6]), u[:, 6:]], 1)
    start, stop = wavelength[:, 0], wavelength[:, -1]
    for k, longest in ((0, 2.5), (3, 2.5), (6, 1.2), (9, 1.2)):
        width = 10 ** (0.3 + (longest - 0.3) * u[:, k + 1])
        centre = start + (stop - start) * u[:, k + 2]
        width = torch.where(u[:, k] < 0.3, width, 0)
        keep &= (wavelength - centre.float()[:, None]).abs() >= (width / 2).float()[:, None]
    if varied:
        u = draws.uniform("trim", count=4)
        low = start + torch.where(u[:, 0] < 0.5, 600 * u[:, 1] ** 2, 0)
        high = stop - torch.where(u[:, 2] < 0.5, 900 * u[:, 3] ** 2, 0)
        keep &= (wavelength >= low.float()[:, None]) & (wavelength <= high.float()[:, None])
    return keep


def _sigma(draws: Draws, flux: Tensor, log: Tensor, arm: Tensor, instrument: Instrument, curves: Tensor):
    """Returns the standard deviation of the noise, `(B, L)`: that of the sky and of the photons of the object."""
    level = instrument.noise * 10 ** (instrument.spread * draws.normal("noise.level").clamp(-2.5, 2.5))
    last = curves.shape[-1]
    index = ((log - NOISE_START) / FINE_STEP).round().long().clamp(0, last - 1) + arm * last
    sky, smooth = (curve.flatten()[index] for curve in curves)
    variance = sky**2 + smooth**2 * (flux.clamp(min=0) / instrument.background)
    return level.float()[:, None] * variance.sqrt()


def observe_spectrum(
    name: str,
    source: Source,
    draws: Draws,
    templates: Templates,
    varied: bool = True,
    noise: bool = True,
) -> tuple[Tensor, Tensor, Tensor]:
    """Observes objects with one spectrograph.

    Arguments:
        name: of the modality, a key of `INSTRUMENTS`.
        source: the light of the objects, of absolute brightness.
        draws: of the same objects.
        templates: where the noise curves are.
        varied: whether each object has a grid, ends, gaps and a scale of its own.
        noise: whether noise is added; without it everything else, ivar too, stays the same.

    Returns:
        flux, ivar and wavelength, each `(B, L)` float32, in the units of `Spectrum`.
    """
    draws = draws.of(name)
    size = _CHUNK if source.fine.device.type == "cpu" else len(source)
    parts = [
        _observe(INSTRUMENTS[name], source[rows], draws[rows], templates, varied, noise)
        for rows in torch.arange(len(source), device=source.fine.device).split(size)
    ]
    flux, ivar, wavelength = (torch.cat(values) for values in zip(*parts, strict=True))
    return flux, ivar, wavelength


def _observe(
    instrument: Instrument, source: Source, draws: Draws, templates: Templates, varied: bool, noise: bool
) -> tuple[Tensor, Tensor, Tensor]:
    wavelength, arm = instrument.grid(draws, varied)
    wavelength = wavelength.contiguous()
    log = torch.log10(wavelength)
    flux = _true_flux(source, wavelength, log, arm, instrument, templates)
    log_loss, log_scale = draws.uniform("fibre", -0.6, -0.05), draws.uniform("scale", -0.3, 0.3) * varied
    flux = flux * (10**log_loss).float()[:, None]
    sigma = _sigma(draws, flux, log, arm, instrument, templates.data[f"noise.{instrument.name}"])
    wavelength = wavelength.float()
    calibration = _calibration(draws, wavelength, arm, instrument.calibration) * (10**log_scale).float()[:, None]
    flux, sigma = flux * calibration, sigma * calibration
    if noise:
        flux = flux + sigma * draws.noise("noise", flux.shape[1])
    misjudged = torch.exp(0.04 * draws.normal("noise.misjudged")).float()[:, None]
    ivar = _measured(draws, wavelength, varied) / (sigma * misjudged) ** 2
    return flux, ivar, wavelength


def empty_spectrum(name: str, count: int, device: torch.device | str) -> tuple[Tensor, Tensor, Tensor]:
    """Returns flux, ivar and wavelength of objects that this instrument did not observe."""
    grid, _ = INSTRUMENTS[name].grid(Draws(0, torch.zeros(count, dtype=torch.long, device=device)), False)
    return torch.zeros_like(grid, dtype=torch.float32), torch.zeros_like(grid, dtype=torch.float32), grid.float()
