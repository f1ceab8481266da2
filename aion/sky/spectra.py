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
from aion.sky.templates import FINE_SIZE, FINE_START, FINE_STEP, LIGHT, NOISE_START, Templates, gaussian, interpolate

_ARMS = ((3600.0, 2751), (5760.0, 2326), (7520.0, 2881))  # first wavelength and pixels of DESI, 0.8 A each
_CHUNK = 16  # objects at a time on a CPU: their pixels stay in its cache
_NOISE_FIRST = (NOISE_START - FINE_START) / FINE_STEP  # of the noise curves, in cells of the fine grid
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
    return ((grid - middle) * scale[:, None]).add_(middle).add_(shift[:, None])


def _desi_grid(draws: Draws, varied: bool) -> tuple[Tensor, Tensor]:
    """Returns the three arms joined in order of wavelength, overlapping pixels kept: 7958 pixels."""
    device = draws.index.device
    # In whole tenths of an Angstrom, so that pixels at one wavelength in two arms are equal.
    pixels = [start * 10 + 8 * torch.arange(n, dtype=torch.float64, device=device) for start, n in _ARMS]
    arms = torch.cat([torch.full_like(p, k, dtype=torch.long) for k, p in enumerate(pixels)])
    joined = torch.cat(pixels)
    order = joined.argsort(stable=True)
    grid, arms = joined[order] / 10, arms[order]
    return (_affine(draws, grid, 6712.0, (0.9, 1.01), 60.0) if varied else grid.expand(len(draws), -1)), arms


def _sdss_grid(draws: Draws, varied: bool) -> tuple[Tensor, Tensor]:
    """Returns a grid of 1e-4 dex of 4620 pixels from about 3580 to 10370 A."""
    pixel = torch.arange(4620, dtype=torch.float64, device=draws.index.device)
    grid = 3.5539 + 1e-4 * pixel
    grid = _affine(draws, grid, 3.785, (0.93, 1.0), 0.0015) if varied else grid.expand(len(draws), -1)
    return 10**grid, torch.zeros_like(pixel, dtype=torch.long)


def _desi_resolution(wavelength: Tensor, arm: Tensor) -> Tensor:
    """Returns R, rising inside each arm: 2000-3200, 3700-5000 and 4300-5300 (measured on two real coadds)."""
    knots = wavelength.new_tensor([[3600, 5800, 2000, 3200], [5760, 7620, 3700, 5000], [7520, 9824, 4300, 5300]])[arm]
    low, high, first, last = knots.unbind(-1)
    slope = (last - first) / (high - low)
    return torch.addcmul(first - slope * low, slope, wavelength).clamp_(1500, 6000)


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
    pixels = sigma / (LIGHT * FINE_STEP * math.log(10))
    k = torch.arange(FINE_SIZE // 2 + 1, dtype=torch.float32, device=fine.device) * (2 * math.pi / FINE_SIZE)
    window = gaussian(pixels.float()[:, None] * k)
    return torch.fft.irfft(torch.fft.rfft(fine) * window, n=FINE_SIZE)


def _add_lines(flux: Tensor, source: Source, wavelength: Tensor, resolution: Tensor, rest: Tensor) -> None:
    """Adds to `flux` emission lines as Gaussians of the gas and of the line-spread function."""
    size = flux.shape[1]
    centre = rest * (1 + source.redshift)[:, None]
    seen = (source.line > 0) & (centre > 0.99 * wavelength[:, :1]) & (centre < 1.01 * wavelength[:, -1:])
    row, line = seen.nonzero(as_tuple=True)
    # The pixels around the line, all of them on the detector.
    first = torch.searchsorted(wavelength, centre)[row, line].clamp(_REACH, size - 1 - _REACH) - _REACH + size * row
    pixel = first[:, None] + torch.arange(2 * _REACH + 1, device=flux.device)
    flat, centre = pixel.flatten(), centre[row, line][:, None]
    offset = (wavelength.flatten().index_select(0, flat).view_as(pixel) - centre).float()
    lsf = (LIGHT / 2.3548) / resolution.flatten().index_select(0, flat).view_as(pixel)
    sigma = torch.sqrt(source.line_sigma[row, None].float() ** 2 + lsf**2) * (centre / LIGHT).float()
    height = source.line[row, line] / math.sqrt(2 * math.pi)
    value = gaussian(offset / sigma) / sigma * height[:, None]
    flux.view(-1).scatter_add_(0, flat, value.flatten())


def _true_flux(
    source: Source, wavelength: Tensor, position: Tensor, resolution: Tensor, instrument: Instrument, data: Templates
) -> Tensor:
    """Returns what a perfect instrument on this grid would measure, `(B, L)` float32.

    Arguments:
        source: the light of the objects.
        wavelength: `(B, L)` float64.
        position: of the pixels on the fine grid in the frame of the observer, `(B, L)` float64.
        resolution: R of the pixels, `(B, L)`.
        instrument: which sees them.
        data: the ingredients.
    """
    variance = source.sigma**2 + instrument.sigma**2 - source.template_sigma**2
    fine = _blur(source.fine, variance.clamp(min=0).sqrt())
    flux = interpolate(fine, (position - (torch.log10(1 + source.frame) / FINE_STEP)[:, None]).float())
    _add_lines(flux, source, wavelength, resolution, data.lines(LINES))
    law = data.data["milky_way.fine"].index_select(0, position.int().flatten()).view_as(flux)  # flat from cell to cell
    return flux.mul_(law.mul_((-0.4 * math.log(10) * source.ebv).float()[:, None]).exp_())


def _calibration(n: Tensor, wavelength: Tensor, arm: Tensor, size: float) -> Tensor:
    """Returns a smooth factor near 1: Legendre polynomials of a size per order, and 2 % from arm to arm.

    Arguments:
        n: seven normal numbers per object, `(B, 7)`.
        wavelength: `(B, L)`.
        arm: of each pixel, `(L,)`.
        size: of the error in each order.
    """
    n = n.clamp(-2.5, 2.5).float()
    a, b, c, d = (size * n[:, k : k + 1] for k in range(4))
    x = (wavelength - 6750).mul_(1 / 3300)
    arms = (0.02 * n[:, 4:] + (1 + a - 0.5 * c)).index_select(1, arm)
    return torch.addcmul(1.5 * c, x, 2.5 * d).mul_(x).add_(b - 1.5 * d).mul_(x).add_(arms)


def _measured(u: dict[str, Tensor], draws: Draws, wavelength: Tensor, varied: bool) -> Tensor:
    """Tells which pixels were measured; knows nothing of the object."""
    count, gaps = wavelength.shape[1], u["gaps"].unflatten(1, (4, 3))
    bad = draws.rare("bad.pixels", count, u["bad.rate"], 0.01)
    start, stop = wavelength[:, :1].double(), wavelength[:, -1:].double()
    longest = gaps.new_tensor([2.5, 2.5, 1.2, 1.2])
    half = 10 ** (0.3 + (longest - 0.3) * gaps[..., 1]) / 2
    there = gaps[..., 0] < 0.3
    centre = start + (stop - start) * gaps[..., 2]
    low, high = centre - half, centre + half
    if varied:
        trim = u["trim"].unflatten(1, (2, 2))
        cut = torch.where(trim[..., 0] < 0.5, trim.new_tensor([600.0, 900.0]) * trim[..., 1] ** 2, 0)
        low = torch.cat([low, start - 1, stop - cut[:, 1:]], 1)
        high = torch.cat([high, start + cut[:, :1], stop + 1], 1)
        there = torch.cat([there, torch.ones_like(there[:, :2])], 1)
    else:
        there = there & (torch.arange(4, device=there.device) > 1)
    # Each gap opens at one pixel and closes at another: open ones are counted along the row.
    edges = torch.zeros(len(u["gaps"]), count + 1, dtype=torch.int8, device=wavelength.device)
    step = there.to(torch.int8)
    edges.scatter_add_(1, torch.searchsorted(wavelength, low.float(), right=True), step)
    edges.scatter_add_(1, torch.searchsorted(wavelength, high.float()), -step)
    return (edges.cumsum_(1)[:, :count] == 0) & ~bad


def _variance(flux: Tensor, position: Tensor, arm: Tensor, background: float, curves: Tensor) -> Tensor:
    """Returns the variance of the noise for a level of 1, `(B, L)`: of the sky and of the photons of the object."""
    last = curves.shape[-1]
    index = (position - _NOISE_FIRST).round_().clamp_(0, last - 1).int().add_(last * arm).flatten()
    sky, smooth = (curve.square().flatten().index_select(0, index).view_as(flux) for curve in curves)
    return sky.addcmul_(smooth, flux.clamp(min=0).mul_(1 / background))


def _exposure(draws: Draws) -> dict[str, Tensor]:
    """Draws what exposures are like, whatever the objects."""
    return {
        "loss": 10 ** draws.uniform("fibre", -0.6, -0.05),
        "scale": 10 ** draws.uniform("scale", -0.3, 0.3),
        "level": 10 ** draws.normal("noise.level").clamp(-2.5, 2.5),
        "misjudged": torch.exp(0.04 * draws.normal("noise.misjudged")),
        "calibration": draws.normal("calibration", 7),
        "bad.rate": 10 ** draws.uniform("bad.rate", -3.5, -2.0),
        "gaps": draws.uniform("gaps", count=12),
        "trim": draws.uniform("trim", count=4),
    }


def observe_spectrum(
    name: str,
    source: Source,
    draws: Draws,
    templates: Templates,
    varied: bool = True,
    noise: bool = True,
    has: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Observes objects with one spectrograph.

    Arguments:
        name: of the modality, a key of `INSTRUMENTS`.
        source: the light of the objects, of absolute brightness.
        draws: of the same objects.
        templates: where the noise curves are.
        varied: whether each object has a grid, ends, gaps and a scale of its own.
        noise: whether noise is added; without it everything else, ivar too, stays the same.
        has: which objects are observed, `(B,)` bool; the others have ivar 0 on the grid of the survey.

    Returns:
        flux, ivar and wavelength, each `(B, L)` float32, in the units of `Spectrum`.
    """
    draws, device = draws.of(name), source.fine.device
    rows = torch.arange(len(source), device=device) if has is None else has.nonzero().flatten()
    out, exposure = empty_spectrum(name, len(source), device), _exposure(draws)
    for part in rows.split(_CHUNK if device.type == "cpu" else max(1, len(rows))):
        if len(part):
            own = {key: value[part] for key, value in exposure.items()}
            seen = _observe(INSTRUMENTS[name], source[part], draws[part], own, templates, varied, noise)
            for whole, values in zip(out, seen, strict=True):
                whole.index_copy_(0, part, values)
    return out


def _observe(
    instrument: Instrument,
    source: Source,
    draws: Draws,
    exposure: dict[str, Tensor],
    templates: Templates,
    varied: bool,
    noise: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    grid, arm = instrument.grid(draws, varied)
    position = torch.log10(grid).sub_(FINE_START).mul_(1 / FINE_STEP)
    grid, wavelength = grid.contiguous(), grid.float()
    resolution = instrument.resolution(wavelength, arm)
    flux = _true_flux(source, grid, position, resolution, instrument, templates)
    flux.mul_(exposure["loss"].float()[:, None])
    curves = templates.data[f"noise.{instrument.name}"]
    sigma = _variance(flux, position, arm, instrument.background, curves).sqrt_()
    scale = exposure["scale"] if varied else torch.ones_like(exposure["scale"])
    factor = _calibration(exposure["calibration"], wavelength, arm, instrument.calibration)
    flux.mul_(factor.mul_(scale.float()[:, None]))
    sigma.mul_(factor).mul_((instrument.noise * exposure["level"] ** instrument.spread).float()[:, None])
    if noise:
        flux.addcmul_(sigma, draws.noise("noise", flux.shape[1]))
    ivar = sigma.mul_(exposure["misjudged"].float()[:, None]).square_().reciprocal_()
    return flux, ivar.mul_(_measured(exposure, draws, wavelength, varied)), wavelength


def empty_spectrum(name: str, count: int, device: torch.device | str) -> tuple[Tensor, Tensor, Tensor]:
    """Returns flux, ivar and wavelength of objects that this instrument did not observe."""
    grid, _ = INSTRUMENTS[name].grid(Draws(0, torch.zeros(1, dtype=torch.long, device=device)), False)
    wavelength = grid.float().repeat(count, 1)
    return torch.zeros_like(wavelength), torch.zeros_like(wavelength), wavelength
