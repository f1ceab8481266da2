"""Images: griz stamps of a bulge and a disc, or of a star, with neighbours, seeing, noise and gaps.

Profiles are sums of Gaussians, so that the convolution with the seeing (two Gaussians, nearly a Moffat profile) is
exact: variances add. Row 0 is south, column 0 is east, pixels are 0.262 arcsec, and the object is within half a pixel
of the middle.

References:
    Replacing standard galaxy profiles with mixtures of Gaussians, Hogg and Lang, 2013, arXiv:1210.6563.
"""

__all__ = ["IMAGE_BANDS", "IMAGE_SHAPE", "legacy_image"]

import math

import torch

from torch import Tensor

from aion.observations import PIXEL_SCALES
from aion.sky.draws import Draws
from aion.sky.photometry import LEGACY_SIGMA
from aion.sky.templates import Templates

IMAGE_BANDS = ("decam-g", "decam-r", "decam-i", "decam-z")
IMAGE_SHAPE = (len(IMAGE_BANDS), 64, 64)
_SIZE = IMAGE_SHAPE[-1]
_SCALE = PIXEL_SCALES["decam"]
_BULGE_COLOUR = (0.75, 1.0, 1.1, 1.2)  # share of the bulge in griz over that in r: bulges are redder than discs
_SEEING = ((0.8, 1.0), (0.2, 1.9))  # share and width of the two Gaussians of the point-spread function
_PHOTONS = 12500.0  # electrons per nanomaggy of three exposures, which sets the noise of the source itself
_NEIGHBOURS = 3
_CHUNK = 16  # objects at a time on a CPU: their pixels stay in its cache


def _grid(draws: Draws) -> tuple[Tensor, Tensor]:
    """Returns the offset of every pixel from the object in arcsec to the north and to the east, `(B, 64, 1|64)`."""
    pixel = (torch.arange(_SIZE, device=draws.index.device) - (_SIZE - 1) / 2) * _SCALE
    offset = draws.uniform("offset", -0.5 * _SCALE, 0.5 * _SCALE, 2).float()
    return (pixel - offset[:, :1])[:, :, None], -(pixel - offset[:, 1:])[:, None, :]


def _gaussian(north: Tensor, east: Tensor, covariance: tuple[Tensor, Tensor, Tensor], flux: Tensor) -> Tensor:
    """Returns a Gaussian of given flux per band, `(B, C, 64, 64)` nanomaggy per pixel; covariance `(B, C)` arcsec^2."""
    a, b, c = covariance  # north-north, east-east, north-east
    det = a * b - c * c
    # Pixels average the profile: a square of side s adds s^2 / 12 to the variance (done by the caller).
    p, q, r = (x[:, :, None, None] for x in (-0.5 * b / det, -0.5 * a / det, c / det))
    value = torch.exp(p * north[:, None] ** 2 + q * east[:, None] ** 2 + r * (north * east)[:, None])
    return value * (flux * _SCALE**2 / (2 * math.pi * det.sqrt()))[:, :, None, None]


def _seeing(draws: Draws) -> Tensor:
    """Draws the variance of the core of the point-spread function, `(B, 4)` arcsec^2; FWHM 1.0 to 1.5 arcsec."""
    fwhm = draws.uniform("seeing", 1.0, 1.5, 4).float()
    return (fwhm / 2.3548) ** 2 + _SCALE**2 / 12


def _components(true: Tensor, shape: dict[str, Tensor], templates: Templates) -> list[tuple[Tensor, Tensor]]:
    """Returns variance along the major axis `(B,)` arcsec^2 and flux `(B, 4)` of every Gaussian of bulge and disc."""
    colour = true.new_tensor(_BULGE_COLOUR)
    bulge = (shape["bulge"][:, None] * colour).clamp(max=1).nan_to_num(0)
    out = []
    # Bulges are half as large as their galaxy, discs then a little larger.
    for name, share, size in (("devaucouleurs", bulge, 0.6), ("exponential", 1 - bulge, 1.15)):
        for sigma, weight in templates.data[f"profile.{name}"].T:
            out.append(((shape["radius"] * size * sigma) ** 2, true * share * weight))
    return out


def _scene(draws: Draws, true: Tensor, shape: dict[str, Tensor], star: Tensor, templates: Templates) -> Tensor:
    """Returns the noise-free image `(B, 4, 64, 64)`."""
    north, east = _grid(draws)
    core = _seeing(draws)
    ellipticity = torch.sqrt(shape["e1"] ** 2 + shape["e2"] ** 2)
    squared_ratio = ((1 - ellipticity) / (1 + ellipticity)) ** 2
    cos2 = torch.where(ellipticity > 0, shape["e1"] / ellipticity.clamp(min=1e-6), 1.0)
    sin2 = shape["e2"] / ellipticity.clamp(min=1e-6)
    image = true.new_zeros(len(true), len(IMAGE_BANDS), _SIZE, _SIZE)
    rows = (~star).nonzero().flatten()
    if len(rows):
        part = torch.zeros_like(image[rows])
        axes = [x[rows] for x in (squared_ratio, cos2, sin2)]
        for variance, flux in _components(true[rows], {k: v[rows] for k, v in shape.items()}, templates):
            mean, difference = variance * (1 + axes[0]) / 2, variance * (1 - axes[0]) / 2
            for share, width in _SEEING:
                psf = core[rows] * width**2
                along = (mean + difference * axes[1])[:, None] + psf
                across = (mean - difference * axes[1])[:, None] + psf
                mixed = (difference * axes[2])[:, None].expand_as(psf)
                part += _gaussian(north[rows], east[rows], (along, across, mixed), flux * share)
        image = image.index_copy(0, rows, part)
    rows = star.nonzero().flatten()
    if len(rows):
        image = image.index_copy(0, rows, _round(north[rows], east[rows], core[rows], true[rows]))
    return image + _neighbours(draws, north, east, core)


def _round(north: Tensor, east: Tensor, core: Tensor, flux: Tensor, size: Tensor | float = 0.0) -> Tensor:
    """Returns round sources of a given variance before the seeing: the product of a column and a row."""
    image = 0.0
    for share, width in _SEEING:
        variance = core * width**2 + size
        column, row = (torch.exp(-0.5 * x[:, None] ** 2 / variance[:, :, None, None]) for x in (north, east))
        image = image + column * (row * (flux * share * _SCALE**2 / (2 * math.pi * variance))[:, :, None, None])
    return image


def _neighbours(draws: Draws, north: Tensor, east: Tensor, core: Tensor) -> Tensor:
    """Returns up to three faint round neighbours."""
    u = draws.uniform("neighbours", count=6 * _NEIGHBOURS + 1)
    count = (u[:, -1:] * (_NEIGHBOURS + 1)).floor()
    image = 0.0
    for k in range(_NEIGHBOURS):
        v = u[:, 6 * k : 6 * k + 6]
        side = _SIZE * _SCALE
        dn, de = ((v[:, i] - 0.5)[:, None, None].float() * side for i in (0, 1))
        # Powers in double: in single precision torch rounds the last few numbers of a tensor differently.
        red = 10 ** (0.25 * (v[:, 2:3] * 1.6) * torch.arange(4, device=u.device))  # bluer or redder, g to z
        flux = (count > k) * 10 ** (-0.7 + 1.7 * v[:, 3:4] ** 2) * red / red[:, 1:2]
        size = (0.6 * v[:, 4:5] * v[:, 5:6]) ** 2
        image = image + _round(north - dn, east - de, core, flux.float(), size.float())
    return image


def legacy_image(
    true: Tensor, shape: dict[str, Tensor], star: Tensor, draws: Draws, templates: Templates, noise: bool = True
) -> tuple[Tensor, Tensor]:
    """Observes objects as the Legacy Surveys do.

    Arguments:
        true: true fluxes in griz in nanomaggy, `(B, 4)`.
        shape: `radius` (arcsec, major axis), `e1`, `e2` (Legacy ellipticity), `bulge` (share in r), each `(B,)`.
        star: whether an object is a star, `(B,)`.
        draws: of the same objects.
        templates: where the profiles are.
        noise: whether noise is added.

    Returns:
        flux and ivar `(B, 4, 64, 64)` float32 in nanomaggy per pixel; sometimes a band or some pixels have ivar 0.
    """
    draws = draws.of("image")
    shape = {key: value.float() for key, value in shape.items()}
    true, image = true.float(), []
    for rows in torch.arange(len(star), device=star.device).split(_CHUNK):
        own = {key: value[rows] for key, value in shape.items()}
        image.append(_scene(draws[rows], true[rows], own, star[rows], templates))
    image = torch.cat(image)
    depth = image.new_tensor([LEGACY_SIGMA[band[-1]] for band in IMAGE_BANDS])
    depth = depth * torch.exp(0.2 * draws.normal("depth", 4)).float()
    # The noise of a point source collects that of 4 pi sigma^2 pixels.
    pixel = depth / (math.sqrt(4 * math.pi) * 0.53 / _SCALE)
    variance = pixel[:, :, None, None] ** 2 + image.clamp(min=0) / _PHOTONS
    count = image[0].numel()
    if noise:
        image = image + variance.sqrt() * draws.noise("noise", count).view_as(image)
    lost = draws.uniform("lost", count=5)
    keep = (lost[:, :4] > 0.04)[:, :, None, None] & (draws.noise("bad", count).view_as(image).abs() < 3.5)
    return image, keep / variance
