"""Images: stamps of a bulge and a disc, or of a star, with neighbours, seeing, noise and gaps.

Profiles are sums of Gaussians, so that the convolution with the seeing (two Gaussians, nearly a Moffat profile) is
exact: variances add. Row 0 is south, column 0 is east, and the object is within half a pixel of the middle. The two
cameras see the same object, each with its own neighbours.

References:
    Replacing standard galaxy profiles with mixtures of Gaussians, Hogg and Lang, 2013, arXiv:1210.6563.
    First data release of the Hyper Suprime-Cam Subaru Strategic Program, Aihara et al., 2018, arXiv:1702.08449.
"""

__all__ = ["Camera", "HSC", "LEGACY", "hsc_flux", "observe_image"]

import math

from dataclasses import dataclass

import torch

from torch import Tensor

from aion.observations import BANDS as WAVELENGTHS
from aion.observations import PIXEL_SCALES
from aion.sky.draws import Draws
from aion.sky.photometry import LEGACY_SIGMA
from aion.sky.templates import Templates

_SEEING = ((0.8, 1.0), (0.2, 1.9))  # share and width of the two Gaussians of the point-spread function
_NEIGHBOURS = 3
_CHUNK = 16  # objects at a time on a CPU: their pixels stay in its cache


@dataclass(frozen=True)
class Camera:
    """Says how a survey takes its images.

    Arguments:
        name: of its random draws.
        bands: names of its bands.
        size: pixels on the side of a stamp.
        bulge: share of the bulge in each band over that in r: bulges are redder than discs.
        seeing: smallest and largest FWHM of each band in arcsec.
        sigma: standard deviation of the flux of a point source of each band in nanomaggy.
        photons: electrons per nanomaggy, which sets the noise of the source itself.
        psf_sigma: typical width of the point-spread function in arcsec, to which the errors of point sources refer.
        saturation: magnitude of the faintest star that saturates in each band, in the best seeing; pixels as bright as
            its brightest one are not measured. Empty if nothing saturates.
    """

    name: str
    bands: tuple[str, ...]
    size: int
    bulge: tuple[float, ...]
    seeing: tuple[tuple[float, float], ...]
    sigma: tuple[float, ...]
    photons: float
    psf_sigma: float
    saturation: tuple[float, ...] = ()

    @property
    def scale(self) -> float:
        """Returns the arcsec per pixel."""
        return PIXEL_SCALES[self.bands[0].split("-")[0]]

    @property
    def shape(self) -> tuple[int, int, int]:
        """Returns the shape of the image of one object."""
        return len(self.bands), self.size, self.size


LEGACY = Camera(
    name="image",
    bands=("decam-g", "decam-r", "decam-i", "decam-z"),
    size=64,
    bulge=(0.75, 1.0, 1.1, 1.2),
    seeing=((1.0, 1.5),) * 4,
    sigma=tuple(LEGACY_SIGMA[band] for band in "griz"),
    photons=12500.0,  # of three exposures
    psf_sigma=0.53,
)

# The Wide layer: seeing, 5-sigma depths and saturation of the first data release, 10 minutes in g and r and 20 in the
# others on a mirror of 8.2 m.
HSC = Camera(
    name="hsc",
    bands=("hsc-g", "hsc-r", "hsc-i", "hsc-z", "hsc-y"),
    size=96,
    bulge=(0.75, 1.0, 1.1, 1.2, 1.2),
    seeing=tuple((0.85 * fwhm, 1.2 * fwhm) for fwhm in (0.72, 0.67, 0.56, 0.63, 0.64)),
    sigma=tuple(0.2 * 10 ** (-0.4 * (depth - 22.5)) for depth in (26.8, 26.4, 26.4, 25.5, 24.7)),
    photons=1e5,
    psf_sigma=0.27,
    saturation=(17.8, 17.8, 18.4, 17.4, 17.1),
)


def hsc_flux(griz: Tensor) -> Tensor:
    """Returns the fluxes in the bands of HSC `(B, 5)` from those in griz of DECam `(B, 4)`, along power laws.

    Each band of HSC lies within 4 % of the wavelength of DECam's of the same letter; y continues the slope from i to z.
    """
    log = griz.clamp(min=1e-30).log()
    known = torch.tensor([math.log(WAVELENGTHS[band]) for band in LEGACY.bands], dtype=log.dtype, device=log.device)
    wanted = torch.tensor([math.log(WAVELENGTHS[band]) for band in HSC.bands], dtype=log.dtype, device=log.device)
    left = torch.searchsorted(known, wanted).sub(1).clamp(0, len(known) - 2)
    t = (wanted - known[left]) / (known[left + 1] - known[left])
    return torch.exp(log[:, left] * (1 - t) + log[:, left + 1] * t)


def _grid(draws: Draws, camera: Camera) -> tuple[Tensor, Tensor]:
    """Returns the offset of every pixel from the object in arcsec, north `(B, H, 1)` and east `(B, 1, W)`."""
    pixel = (torch.arange(camera.size, device=draws.index.device) - (camera.size - 1) / 2) * camera.scale
    offset = draws.uniform("offset", -0.5 * camera.scale, 0.5 * camera.scale, 2).float()
    return (pixel - offset[:, :1])[:, :, None], -(pixel - offset[:, 1:])[:, None, :]


def _gaussian(north: Tensor, east: Tensor, covariance: tuple[Tensor, Tensor, Tensor], flux: Tensor) -> Tensor:
    """Returns a Gaussian of given flux per band in one pixel, `(B, C, H, W)`; covariance `(B, C)` arcsec^2."""
    a, b, c = covariance  # north-north, east-east, north-east
    det = a * b - c * c
    # Pixels average the profile: a square of side s adds s^2 / 12 to the variance (done by the caller).
    p, q, r = (x[:, :, None, None] for x in (-0.5 * b / det, -0.5 * a / det, c / det))
    value = torch.exp(p * north[:, None] ** 2 + q * east[:, None] ** 2 + r * (north * east)[:, None])
    return value * (flux / (2 * math.pi * det.sqrt()))[:, :, None, None]


def _seeing(draws: Draws, camera: Camera) -> Tensor:
    """Draws the variance of the core of the point-spread function, `(B, C)` arcsec^2."""
    low, high = torch.tensor(camera.seeing, dtype=torch.float64, device=draws.index.device).T
    fwhm = (low + (high - low) * draws.uniform("seeing", count=len(low))).float()
    return (fwhm / 2.3548) ** 2 + camera.scale**2 / 12


def _components(
    true: Tensor, shape: dict[str, Tensor], templates: Templates, camera: Camera
) -> list[tuple[Tensor, Tensor]]:
    """Returns variance along the major axis `(B,)` arcsec^2 and flux `(B, C)` of every Gaussian of bulge and disc."""
    colour = true.new_tensor(camera.bulge)
    bulge = (shape["bulge"][:, None] * colour).clamp(max=1).nan_to_num(0)
    out = []
    # Bulges are half as large as their galaxy, discs then a little larger.
    for name, share, size in (("devaucouleurs", bulge, 0.6), ("exponential", 1 - bulge, 1.15)):
        for sigma, weight in templates.data[f"profile.{name}"].T:
            out.append(((shape["radius"] * size * sigma) ** 2, true * share * weight))
    return out


def _scene(
    draws: Draws, true: Tensor, shape: dict[str, Tensor], star: Tensor, templates: Templates, camera: Camera
) -> Tensor:
    """Returns the noise-free image `(B, C, H, W)`."""
    north, east = _grid(draws, camera)
    core = _seeing(draws, camera)
    ellipticity = torch.sqrt(shape["e1"] ** 2 + shape["e2"] ** 2)
    squared_ratio = ((1 - ellipticity) / (1 + ellipticity)) ** 2
    cos2 = torch.where(ellipticity > 0, shape["e1"] / ellipticity.clamp(min=1e-6), 1.0)
    sin2 = shape["e2"] / ellipticity.clamp(min=1e-6)
    image = true.new_zeros(len(true), *camera.shape)
    rows = (~star).nonzero().flatten()
    if len(rows):
        part = torch.zeros_like(image[rows])
        axes = [x[rows] for x in (squared_ratio, cos2, sin2)]
        for variance, flux in _components(true[rows], {k: v[rows] for k, v in shape.items()}, templates, camera):
            mean, difference = variance * (1 + axes[0]) / 2, variance * (1 - axes[0]) / 2
            for share, width in _SEEING:
                psf = core[rows] * width**2
                along = (mean + difference * axes[1])[:, None] + psf
                across = (mean - difference * axes[1])[:, None] + psf
                mixed = (difference * axes[2])[:, None].expand_as(psf)
                part += _gaussian(north[rows], east[rows], (along, across, mixed), flux * share * camera.scale**2)
        image = image.index_copy(0, rows, part)
    rows = star.nonzero().flatten()
    if len(rows):
        image = image.index_copy(0, rows, _round(north[rows], east[rows], core[rows], true[rows], camera))
    return image + _neighbours(draws, north, east, core, camera)


def _round(
    north: Tensor, east: Tensor, core: Tensor, flux: Tensor, camera: Camera, size: Tensor | float = 0.0
) -> Tensor:
    """Returns round sources of a given variance before the seeing: the product of a column and a row."""
    image = 0.0
    for share, width in _SEEING:
        variance = core * width**2 + size
        column, row = (torch.exp(-0.5 * x[:, None] ** 2 / variance[:, :, None, None]) for x in (north, east))
        image = image + column * (row * (flux * share * camera.scale**2 / (2 * math.pi * variance))[:, :, None, None])
    return image


def _neighbours(draws: Draws, north: Tensor, east: Tensor, core: Tensor, camera: Camera) -> Tensor:
    """Returns up to three faint round neighbours."""
    u = draws.uniform("neighbours", count=6 * _NEIGHBOURS + 1)
    count = (u[:, -1:] * (_NEIGHBOURS + 1)).floor()
    image = 0.0
    for k in range(_NEIGHBOURS):
        v = u[:, 6 * k : 6 * k + 6]
        side = camera.size * camera.scale
        dn, de = ((v[:, i] - 0.5)[:, None, None].float() * side for i in (0, 1))
        # Powers in double: in single precision torch rounds the last few numbers of a tensor differently.
        red = 10 ** (0.25 * (v[:, 2:3] * 1.6) * torch.arange(len(camera.bands), device=u.device))  # by band
        flux = (count > k) * 10 ** (-0.7 + 1.7 * v[:, 3:4] ** 2) * red / red[:, 1:2]
        size = (0.6 * v[:, 4:5] * v[:, 5:6]) ** 2
        image = image + _round(north - dn, east - de, core, flux.float(), camera, size.float())
    return image


def observe_image(
    true: Tensor,
    shape: dict[str, Tensor],
    star: Tensor,
    draws: Draws,
    templates: Templates,
    noise: bool = True,
    camera: Camera = LEGACY,
) -> tuple[Tensor, Tensor]:
    """Observes objects as a survey does.

    Arguments:
        true: true fluxes in the bands of the camera in nanomaggy, `(B, C)`.
        shape: `radius` (arcsec, major axis), `e1`, `e2` (Legacy ellipticity), `bulge` (share in r), each `(B,)`.
        star: whether an object is a star, `(B,)`.
        draws: of the same objects.
        templates: where the profiles are.
        noise: whether noise is added.
        camera: how the survey takes its images.

    Returns:
        flux and ivar `(B, C, H, W)` float32 in nanomaggy per pixel; sometimes a band or some pixels have ivar 0.
    """
    draws = draws.of(camera.name)
    shape = {key: value.float() for key, value in shape.items()}
    true, image = true.float(), []
    for rows in torch.arange(len(star), device=star.device).split(_CHUNK):
        own = {key: value[rows] for key, value in shape.items()}
        image.append(_scene(draws[rows], true[rows], own, star[rows], templates, camera))
    image = torch.cat(image)
    bands = len(camera.bands)
    depth = image.new_tensor(camera.sigma) * torch.exp(0.2 * draws.normal("depth", bands)).float()
    # The noise of a point source collects that of 4 pi sigma^2 pixels.
    pixel = depth / (math.sqrt(4 * math.pi) * camera.psf_sigma / camera.scale)
    variance = pixel[:, :, None, None] ** 2 + image.clamp(min=0) / camera.photons
    count = image[0].numel()
    keep = ~_saturated(image, camera)
    if noise:
        image = image + variance.sqrt() * draws.noise("noise", count).view_as(image)
    lost = draws.uniform("lost", count=bands + 1)
    keep = keep & (lost[:, :bands] > 0.04)[:, :, None, None]
    keep = keep & (draws.noise("bad", count).view_as(image).abs() < 3.5)
    return image, keep / variance


def _saturated(image: Tensor, camera: Camera) -> Tensor:
    """Tells which pixels are brighter than the brightest of the faintest star that saturates."""
    if not camera.saturation:
        return torch.zeros_like(image, dtype=torch.bool)
    flux = image.new_tensor([10 ** (-0.4 * (magnitude - 22.5)) for magnitude in camera.saturation])
    core = image.new_tensor([(low / 2.3548) ** 2 + camera.scale**2 / 12 for low, _ in camera.seeing])
    peak = sum(share * flux * camera.scale**2 / (2 * math.pi * core * width**2) for share, width in _SEEING)
    return image > peak[:, None, None]
