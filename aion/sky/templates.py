"""The committed ingredients, the grids they are stored on, and how light is dimmed on its way.

Two grids in log10 wavelength: the *fine* one (1e-4 dex, 1343 to 11210 A) for spectra and the *wide* one (1e-3 dex,
891 A to 31 micron) for photometry. Both reach beyond everything that any instrument sees at any redshift allowed, so
no edge of a template lies inside an observed window. `aion/sky/README.md` names every source and licence.
"""

__all__ = [
    "BANDS",
    "Templates",
    "calzetti",
    "gaussian",
    "interpolate",
    "luminosity_distance",
    "milky_way",
    "shift_wide",
]

from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch

from safetensors import safe_open
from torch import Tensor

LIGHT = 299792.458  # km/s
FINE_START, FINE_STEP, FINE_SIZE = 3.1280, 1e-4, 9216
WIDE_START, WIDE_STEP, WIDE_SIZE = 2.95, 1e-3, 2540
NOISE_START = 3.544068044350276  # log10 of 3500 A; the noise curves have the step of the fine grid
# Extinction curve of Fitzpatrick (1999, table 3): 1/micron, A / E(B-V).
_KNOTS = ((0, 0), (0.377, 0.265), (0.820, 0.829), (1.667, 2.688), (1.828, 3.055), (2.141, 3.806), (2.433, 4.315))
_KNOTS += ((3.704, 6.265), (3.846, 6.591))
BANDS = (
    "decam-g",
    "decam-r",
    "decam-i",
    "decam-z",
    "wise-w1",
    "wise-w2",
    "wise-w3",
    "wise-w4",
    "gaia-g",
    "gaia-bp",
    "gaia-rp",
    *(f"hsc-{band}" for band in "grizy"),
    *(f"sdss-{band}" for band in "ugriz"),
)


def _read(name: str, device: str) -> dict[str, Tensor]:
    with safe_open(Path(__file__).with_name(f"{name}.safetensors"), framework="pt", device=device) as file:
        return {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118


@dataclass(frozen=True, eq=False)
class Templates:
    """Holds every ingredient on one device; made once by `Templates.load`.

    Fluxes are f_lambda, 1 at 5500 A. Galaxies are float64 because all their values are multiples of 2^-24 below 2^5:
    mixed with weights that are multiples of 2^-22, every product and sum is exact, hence the same in any batch.
    """

    data: dict[str, Tensor]
    fine: Tensor
    wide: Tensor
    star_fine: Tensor
    star_wide: Tensor
    bands: dict[str, tuple[Tensor, slice]]  # weights on the wide grid, and where they are not 0

    def lines(self, names: tuple[str, ...]) -> Tensor:
        """Returns the vacuum rest wavelengths of emission lines in Angstrom, `(E,)` float64."""
        return torch.cat([self.data[f"line.{name}"] for name in names]).to(torch.float64)

    @staticmethod
    @cache
    def load(device: str = "cpu") -> "Templates":
        """Reads the ingredients, once per device."""
        data = _read("templates", device) | _read("instruments", device)
        fine = 10 ** (FINE_START + FINE_STEP * torch.arange(FINE_SIZE, dtype=torch.float64, device=device))
        wide = 10 ** (WIDE_START + WIDE_STEP * torch.arange(WIDE_SIZE, dtype=torch.float64, device=device))
        for name in ("galaxy.fine", "galaxy.wide"):
            data[name] = data[name].to(torch.float64)
        for name, grid in (("fine", fine), ("wide", wide)):
            data[f"calzetti.{name}"] = calzetti(grid).float()
        data["milky_way.wide"], data["milky_way.fine"] = milky_way(wide), milky_way(fine).float()
        curve = data.pop("filter.curve").to(torch.float64)
        # Nanomaggies of a source of f_lambda in 1e-17 erg/s/cm2/A are the photon-weighted mean over that of 1 nmgy.
        one = 3.631e-29 * 2.99792458e18 / 1e-17 / wide**2
        data["filter.weight"] = curve * wide**2 / (curve * wide**2 * one).sum(1, keepdim=True)
        bands = {}
        for name, weight in zip(BANDS, data["filter.weight"], strict=True):
            first, last = weight.nonzero().flatten()[[0, -1]].tolist()
            bands[name] = weight, slice(first, last + 1)
        # By instrument: sky and smooth, by arm, against wavelength.
        suffixes = ("", ".smooth")
        data["noise.desi"] = torch.stack([torch.stack([data.pop(f"noise.{a}{s}") for a in "brz"]) for s in suffixes])
        data["noise.sdss"] = torch.stack([data.pop(f"noise.sdss{s}")[None] for s in suffixes])
        data |= {name: data[name].float() for name in ("noise.desi", "noise.sdss")}
        first = int(data["star.first"])
        stars = torch.ones(len(data["star.fine"]), FINE_SIZE, device=device)
        stars[:, first:] = data.pop("star.fine").float()
        star_wide = _widen(stars, data["star.labels"][:, 0], fine, wide, first)
        return Templates(data, fine, wide, stars, star_wide, bands)


def _widen(stars: Tensor, teff: Tensor, fine: Tensor, wide: Tensor, first: int) -> Tensor:
    """Averages stars over the cells of the wide grid and continues them by black bodies that agree at the ends."""
    start = round((WIDE_START - FINE_START) / FINE_STEP)  # of the wide grid, in cells of the fine grid: negative
    low = torch.arange(WIDE_SIZE, device=stars.device) * 10 + start - 5
    inside = (low >= first) & (low + 10 <= FINE_SIZE)
    cells = low[inside][:, None] + torch.arange(10, device=stars.device)
    value = stars.to(torch.float64)[:, cells].mean(-1)
    x = 1.438777e8 / (wide * teff.to(torch.float64)[:, None])
    body = wide**-5 / torch.expm1(x.clamp(max=600))
    out = torch.empty(len(stars), WIDE_SIZE, dtype=torch.float64, device=stars.device)
    rows = inside.nonzero().flatten()
    left, right = int(rows[0]), int(rows[-1]) + 1
    out[:, left:right] = value
    blue = value[:, :5].mean(1, keepdim=True) / body[:, left : left + 5].mean(1, keepdim=True)
    red = value[:, -9:].mean(1, keepdim=True) / body[:, right - 9 : right].mean(1, keepdim=True)
    out[:, :left] = body[:, :left] * blue
    out[:, right:] = body[:, right:] * red
    return out.float()


def gaussian(x: Tensor) -> Tensor:
    """Returns exp(-x^2 / 2), at least e^-40: on numbers too small for float32 an exponential takes 50 times as long."""
    return x.square().mul_(-0.5).clamp_(min=-40).exp_()


def interpolate(values: Tensor, position: Tensor) -> Tensor:
    """Evaluates rows `(B, N)` at fractional indices `(B, L)` by the cubic of Catmull and Rom; ends are held."""
    count, size = values.shape
    position = position.clamp(0, size - 1)
    # Looking up by 32-bit indices in one long row takes half the time of `gather`.
    whole = torch.int32 if values.numel() < 2**31 else torch.int64
    index, t = position.to(whole), position.frac()
    start, flat = size * torch.arange(count, dtype=whole, device=values.device)[:, None], values.flatten()
    a, b, c, d = (
        flat.index_select(0, ((index + k).clamp_(0, size - 1) + start).flatten()).view_as(t) for k in (-1, 0, 1, 2)
    )
    cubic = (d - a).add_(b - c, alpha=3)
    square = (a + c).sub_(b, alpha=2).sub_(cubic)
    return torch.addcmul(c - a, t, square.addcmul_(t, cubic)).mul_(t).mul_(0.5).add_(b)


def shift_wide(values: Tensor, log_stretch: Tensor, window: slice = slice(None)) -> Tensor:
    """Moves rows on the wide grid `(B, N)` to the red by `(B,)` dex, by linear interpolation; returns a window."""
    place = torch.arange(values.shape[1], device=values.device)[window]
    position = place - (log_stretch / WIDE_STEP)[:, None]
    floor = position.floor()
    index = floor.long().clamp(0, values.shape[1] - 2)
    t = (position - floor).to(values.dtype)
    return values.gather(1, index) * (1 - t) + values.gather(1, index + 1) * t


def calzetti(wavelength: Tensor) -> Tensor:
    """Returns k = A / E(B-V) of starburst galaxies; wavelength in Angstrom, rest frame.

    References:
        The dust content and opacity of actively star-forming galaxies, Calzetti et al., 2000, arXiv:astro-ph/9911459.
    """
    x = 1e4 / wavelength.clamp(1200, 1e7)
    blue = 2.659 * (-2.156 + 1.509 * x - 0.198 * x**2 + 0.011 * x**3) + 4.05
    red = 2.659 * (-1.857 + 1.040 * x) + 4.05
    # The published red branch ends at 2.2 micron: continue it by a power law that agrees there.
    far = (2.659 * (-1.857 + 1.040 / 2.2) + 4.05) * (x * 2.2) ** 1.7
    return torch.where(x > 1 / 0.63, blue, torch.where(x > 1 / 2.2, red, far))


@cache
def _curve(device: str) -> tuple[Tensor, Tensor, Tensor]:
    """Returns knots in 1/micron, A / E(B-V) there and second derivatives of the natural cubic spline through them."""
    knots, value = torch.tensor(_KNOTS, dtype=torch.float64).T
    step, slope = knots.diff(), value.diff() / knots.diff()
    matrix = torch.diag(2 * (step[:-1] + step[1:])) + torch.diag(step[1:-1], 1) + torch.diag(step[1:-1], -1)
    bend = torch.nn.functional.pad(torch.linalg.solve(matrix, 6 * slope.diff()), (1, 1))
    return knots.contiguous().to(device), value.to(device), bend.to(device)


def milky_way(wavelength: Tensor) -> Tensor:
    """Returns A / E(B-V) of the Milky Way for the E(B-V) that catalogues hold; wavelength in Angstrom, observed frame.

    The curve of Fitzpatrick for R_V = 3.1, scaled as Schlafly and Finkbeiner found the reddening of stars to be: 0.884
    times gives the coefficients published for the bands of DECam, HSC and SDSS within 1.5 %. Beyond 3.3 micron, where
    the two agree, it is the power law of Cardelli, Clayton and Mathis.

    References:
        Correcting for the effects of interstellar extinction, Fitzpatrick, 1999, arXiv:astro-ph/9809387.
        Measuring reddening with SDSS stellar spectra and recalibrating SFD, Schlafly and Finkbeiner, 2011,
        arXiv:1012.4804.
        The relationship between infrared, optical, and ultraviolet extinction, Cardelli, Clayton and Mathis, 1989.
    """
    x = (1e4 / wavelength).clamp(max=3.3)
    knots, value, bend = (table.to(x.dtype) for table in _curve(str(x.device)))
    right = torch.searchsorted(knots, x, right=True).clamp(1, len(knots) - 1)
    low, high, step = x - knots[right - 1], knots[right] - x, knots.diff()[right - 1]
    curve = (bend[right - 1] * high**3 + bend[right] * low**3) / (6 * step)
    curve = curve + (value[right - 1] / step - bend[right - 1] * step / 6) * high
    curve = curve + (value[right] / step - bend[right] * step / 6) * low
    return torch.where(x > 0.3, 0.884 * curve, x**1.61 * (0.574 * 3.1 - 0.527))


@cache
def _distance_table(device: str) -> tuple[Tensor, Tensor]:
    z = torch.linspace(0, 5, 10001, dtype=torch.float64, device=device)
    inverse = 1 / torch.sqrt(0.3 * (1 + z) ** 3 + 0.7)
    comoving = torch.cat([z.new_zeros(1), ((inverse[1:] + inverse[:-1]) / 2 * z.diff()).cumsum(0)])
    return z, LIGHT / 70 * comoving * (1 + z)


def luminosity_distance(redshift: Tensor) -> Tensor:
    """Returns the luminosity distance in Mpc for flat cosmology with H0 = 70 km/s/Mpc and Omega_m = 0.3."""
    z, distance = _distance_table(str(redshift.device))
    index = (redshift / z[1]).floor().long().clamp(0, len(z) - 2)
    t = redshift / z[1] - index
    return distance[index] * (1 - t) + distance[index + 1] * t
