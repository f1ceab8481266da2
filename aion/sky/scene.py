"""Scenes: what a camera would see without noise: a galaxy or a point, its neighbours, and the seeing.

Bulges and discs are sums of Gaussians, arms, rings and bars patterns on the disc (`aion.sky.morphology`). The seeing is
two Gaussians, nearly a Moffat profile, and a product in the Fourier transform.

References:
    Replacing standard galaxy profiles with mixtures of Gaussians, Hogg and Lang, 2013, arXiv:1210.6563.
"""

__all__ = ["SEEING", "neighbours", "scene"]

import math

import torch

from torch import Tensor

from aion.sky.cameras import Camera
from aion.sky.draws import Draws
from aion.sky.morphology import PATTERNS, arms, bar, disc_plane, ring, tail
from aion.sky.templates import Templates, gaussian

SEEING = ((0.8, 1.0), (0.2, 1.9))  # share and width of the two Gaussians of the point-spread function
_NEIGHBOURS = 3
_MAKE = {"arms": arms, "ring": ring, "bar": bar}
# Light of a pattern in griz(y) over that in r: young stars are blue, bars are old.
_COLOURS = {
    "arms": (1.3, 1.0, 0.9, 0.85, 0.85),
    "ring": (1.3, 1.0, 0.9, 0.85, 0.85),
    "bar": (0.85, 1.0, 1.05, 1.1, 1.1),
}


def neighbours(draws: Draws, side: float, bands: int) -> dict[str, Tensor]:
    """Draws up to three faint round neighbours.

    Arguments:
        draws: of the camera and the objects.
        side: of the stamp in arcsec.
        bands: how many there are, from blue to red.

    Returns:
        `north`, `east` (arcsec), `sigma` (arcsec, of a Gaussian) `(B, 3)`, and `flux` `(B, 3, bands)`, 0 for those that
        there are not.
    """
    u = draws.uniform("neighbours", count=6 * _NEIGHBOURS + 1)
    count, v = (u[:, -1:] * (_NEIGHBOURS + 1)).floor(), u[:, :-1].unflatten(1, (_NEIGHBOURS, 6))
    there = torch.arange(_NEIGHBOURS, device=u.device) < count
    red = 10 ** (0.25 * 1.6 * v[..., 2:3] * (torch.arange(bands, device=u.device) - 1))
    return {
        "north": (v[..., 0] - 0.5) * side,
        "east": (v[..., 1] - 0.5) * side,
        "sigma": 0.6 * v[..., 4] * v[..., 5],
        "flux": (there * 10 ** (-0.7 + 1.7 * v[..., 3] ** 2))[..., None] * red,
    }


def _points(draws: Draws, axes: tuple[Tensor, Tensor], core: Tensor, flux: Tensor, camera: Camera) -> Tensor:
    """Returns the object as a point of given flux `(B, C)` and its neighbours: products of a column and a row."""
    near = neighbours(draws, camera.size * camera.scale, len(camera.bands))
    place = {name: torch.nn.functional.pad(near[name], (1, 0)).float() for name in ("north", "east", "sigma")}
    brightness = torch.cat([flux[:, None].double(), near["flux"]], 1).float().transpose(1, 2)  # (B, C, R)
    share, width = core.new_tensor(SEEING).T
    variance = core[:, :, None, None] * width**2 + place["sigma"][:, None, :, None] ** 2  # (B, C, R, 2)
    scale = brightness[..., None] * share * (camera.scale**2 / (2 * math.pi)) / variance
    north, east = (a[:, None] - place[n][:, :, None] for a, n in zip(axes, ("north", "east"), strict=True))
    inverse = variance.rsqrt()[..., None]
    column, row = (gaussian(x[:, None, :, None] * inverse).flatten(2, 3) for x in (north, east))
    return column.transpose(2, 3) @ (row * scale.flatten(2)[..., None])


def _ellipse(
    north: Tensor, east: Tensor, shape: dict[str, Tensor], sigma: Tensor, share: Tensor, blur: float
) -> Tensor:
    """Returns a sum of Gaussians of total 1 that share an ellipticity, per square arcsec, `(B, H, W)`.

    Arguments:
        north, east: offsets in arcsec, `(B, H, 1)` and `(B, 1, W)`.
        shape: `radius` along the major axis, `e1` and `e2`, each `(B,)`.
        sigma: of the Gaussians along the major axis in radii, `(N,)`.
        share: of each in the light, `(N,)`.
        blur: variance in arcsec^2 that is added in all directions.
    """
    e1, e2 = shape["e1"], shape["e2"]
    ellipticity = torch.sqrt(e1**2 + e2**2).clamp(min=1e-6)
    squared_ratio = ((1 - ellipticity) / (1 + ellipticity)) ** 2
    both = north * east
    image = torch.zeros_like(both)
    for s, f in zip(sigma, share, strict=True):
        variance = (shape["radius"] * s) ** 2
        mean, difference = variance * (1 + squared_ratio) / 2 + blur, variance * (1 - squared_ratio) / 2
        a, b, c = (
            mean + difference * e1 / ellipticity,
            mean - difference * e1 / ellipticity,
            difference * e2 / ellipticity,
        )
        det = a * b - c * c
        p, q, r = (x[:, None, None] for x in (-0.5 * b / det, -0.5 * a / det, c / det))
        # Not to numbers too small for float32, as in `gaussian`.
        value = torch.addcmul(p * north**2 + q * east**2, r, both).clamp_(min=-40).exp_()
        image.addcmul_(value, (f / (2 * math.pi * det.sqrt()))[:, None, None])
    return image


def _galaxies(
    draws: Draws,
    axes: tuple[Tensor, Tensor],
    core: Tensor,
    true: Tensor,
    shape: dict[str, Tensor],
    templates: Templates,
    camera: Camera,
) -> Tensor:
    """Returns galaxies as they are seen, `(B, C, H, W)`: parts of one shape in all bands, then the seeing of each."""
    north, east = axes[0][:, :, None], axes[1][:, None, :]
    blur = 0.5 * camera.scale**2  # the part of the seeing that the profiles have already: they fit on the pixels
    # Bulges are half as large as their galaxy, discs then a little larger.
    bulge, disc = (
        _ellipse(north, east, {**shape, "radius": shape["radius"] * size}, *templates.data[f"profile.{name}"], blur)
        for name, size in (("devaucouleurs", 0.6), ("exponential", 1.15))
    )
    share = (shape["bulge"][:, None] * true.new_tensor(camera.bulge)).clamp(max=1)
    parts, weights, left = [bulge], [share], torch.ones_like(share)
    plane = disc_plane(north, east, shape)
    for name in PATTERNS:
        rows = (shape[name] > 0).nonzero().flatten()
        if len(rows):
            pattern = _MAKE[name](draws[rows], *(x[rows] for x in plane)) * disc[rows]
            # As much light as its share of the disc, within the stamp.
            pattern = pattern * (disc[rows].sum((1, 2)) / pattern.sum((1, 2)).clamp(min=1e-12))[:, None, None]
            parts.append(torch.zeros_like(disc).index_copy(0, rows, pattern))
            weights.append((1 - share) * shape[name][:, None] * true.new_tensor(_COLOURS[name][: len(camera.bands)]))
            left = left - shape[name][:, None] * true.new_tensor(_COLOURS[name][: len(camera.bands)])
    parts.append(disc)
    weights.append((1 - share) * left)
    rows = (shape["companion"] > 0).nonzero().flatten()
    if len(rows):
        merging = _merging(
            draws[rows], north[rows], east[rows], {k: v[rows] for k, v in shape.items()}, templates, blur
        )
        weights = [weight * (1 - shape["companion"])[:, None] for weight in weights]
        parts.append(torch.zeros_like(disc).index_copy(0, rows, merging))
        weights.append(shape["companion"][:, None].expand_as(share))
    weight = torch.stack(weights, 2) * (true * camera.scale**2)[:, :, None]
    image = (weight @ torch.stack(parts, 1).flatten(2)).unflatten(2, disc.shape[1:])
    return _blurred(image, core / camera.scale**2, blur / camera.scale**2)


def _merging(
    draws: Draws, north: Tensor, east: Tensor, shape: dict[str, Tensor], templates: Templates, blur: float
) -> Tensor:
    """Returns a companion one to three radii away and the tail it draws out of the galaxy, of total light 1."""
    u = draws.uniform("companion", count=7).float()
    distance = (1 + 2 * u[:, 0]) * shape["radius"]
    angle, turn = 2 * math.pi * u[:, 1], 2 * math.pi * u[:, 2]
    dn, de = ((distance * f(angle))[:, None, None] for f in (torch.cos, torch.sin))
    own = {"radius": shape["radius"] * (0.4 + 0.5 * u[:, 3])}
    own |= {"e1": 0.5 * u[:, 4] * torch.cos(turn), "e2": 0.5 * u[:, 4] * torch.sin(turn)}
    profile = templates.data["profile.exponential"]
    companion = _ellipse(north - dn, east - de, own, *profile, blur)
    far = _ellipse(north, east, {**shape, "radius": 2 * shape["radius"]}, *profile, blur)
    drawn = far * tail(draws, *disc_plane(north, east, shape))
    drawn = drawn * (far.sum((1, 2)) / drawn.sum((1, 2)).clamp(min=1e-12))[:, None, None]
    share = (0.15 + 0.3 * u[:, 5])[:, None, None]
    return companion * (1 - share) + drawn * share


def _blurred(image: Tensor, core: Tensor, done: float) -> Tensor:
    """Convolves `(B, C, H, W)` with the point-spread function of each band, variances in pixels^2.

    By the Fourier transform, on a border of 32 empty pixels: 6 sigma of the widest seeing.
    """
    size = image.shape[-1]
    whole = (size + 32, size + 32)
    columns = 2 * math.pi * torch.fft.fftfreq(whole[0], device=image.device)[:, None]
    rows = 2 * math.pi * torch.fft.rfftfreq(whole[1], device=image.device)
    transfer = 0.0
    for share, width in SEEING:
        sigma = (core * width**2 - done).sqrt()[:, :, None, None]
        transfer = transfer + share * gaussian(sigma * columns) * gaussian(sigma * rows)
    seen = torch.fft.irfft2(torch.fft.rfft2(image, s=whole) * transfer, s=whole)
    return seen[..., :size, :size].clamp(min=0)


def scene(
    draws: Draws, true: Tensor, shape: dict[str, Tensor], star: Tensor, templates: Templates, camera: Camera
) -> Tensor:
    """Returns stamps without noise, `(B, C, H, W)` in nanomaggy per pixel.

    Arguments:
        draws: of the objects.
        true: fluxes in the bands of the camera in nanomaggy, `(B, C)`.
        shape: of `aion.sky.morphology.draw_shape`, each `(B,)`.
        star: whether an object is a point, `(B,)`.
        templates: where the profiles are.
        camera: what it is seen by.
    """
    axes, core, look = camera.axes(draws), camera.core(draws), draws.of("morphology")
    image = _points(draws.of(camera.name), axes, core, true * star[:, None], camera)
    rows = (~star).nonzero().flatten()
    if len(rows):
        own = {k: v[rows] for k, v in shape.items()}
        seen = _galaxies(look[rows], (axes[0][rows], axes[1][rows]), core[rows], true[rows], own, templates, camera)
        image = image.index_add(0, rows, seen)
    return image
