"""The shapes of galaxies: bulge and disc, spiral arms, bars, rings and companions.

Arms, rings and bars are patterns from 0 to 1 in the plane of the disc, in units of the half-light radius. In an image
they hold a share of the light of the disc; as segmentation they say which pixels belong to them. How often each occurs
and how strong it is follows what is counted in nearby galaxies, roughly.

References:
    | Galaxy Zoo 2: detailed morphological classifications for 304 122 galaxies (Willett et al., 2013), arXiv 1308.3496
    | Galaxy Zoo: Hubble, bar fractions (Melvin et al., 2014), arXiv 1401.3334
    | The size evolution of galaxies since z = 3 (van der Wel et al., 2014), arXiv 1404.2844
"""

__all__ = ["PATTERNS", "arms", "bar", "disc_plane", "draw_shape", "ring", "tail"]

import math

import torch

from torch import Tensor

from aion.sky.draws import Draws
from aion.sky.templates import gaussian, luminosity_distance

PATTERNS = ("arms", "ring", "bar")  # parts of a disc that have a share of its light


def draw_shape(draws: Draws, z: Tensor, absolute: Tensor, quiet: Tensor) -> dict[str, Tensor]:
    """Draws how galaxies look, each `(B,)` float64.

    Returns:
        `radius` (half-light, arcsec), `e1`, `e2` (of the Legacy Surveys), `bulge` (share of the light in r), `arms`,
        `ring` and `bar` (shares of the light of the disc, 0 without), `companion` (share of all light that is that
        of a merging galaxy and the tail it draws out, 0 without).
    """
    log_kpc = 0.5 - 0.12 * (absolute + 21) + 0.2 * draws.normal("galaxy.radius") - torch.where(quiet, 0.1, 0.0)
    kpc_per_arcsec = luminosity_distance(z) / (1 + z) ** 2 * 1e3 / 206265
    ratio = torch.where(quiet, 0.5, 0.2) + torch.where(quiet, 0.5, 0.8) * draws.uniform("galaxy.ratio")
    ellipticity = (1 - ratio) / (1 + ratio)
    angle = draws.uniform("galaxy.angle", 0, math.pi)
    u = draws.uniform("galaxy.patterns", count=8)
    bright = torch.sigmoid((-18.5 - absolute) / 0.7)
    armed = ~quiet & (u[:, 0] < 0.75 * bright)
    barred = u[:, 1] < torch.where(quiet, 0.12, 0.35) * bright
    ringed = (u[:, 2] < 0.07 * bright) & ~armed
    return {
        "radius": (10**log_kpc / kpc_per_arcsec).clamp(0.1, 25),
        "e1": ellipticity * torch.cos(2 * angle),
        "e2": ellipticity * torch.sin(2 * angle),
        "bulge": torch.where(quiet, 0.5, 0.0) + 0.5 * draws.uniform("galaxy.bulge"),
        "arms": armed * (0.2 + 0.35 * u[:, 3]),
        "ring": ringed * (0.15 + 0.25 * u[:, 4]),
        "bar": barred * (0.08 + 0.22 * u[:, 5]),
        "companion": (u[:, 6] < 0.06) * (0.15 + 0.3 * u[:, 7]),
    }


def disc_plane(north: Tensor, east: Tensor, shape: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    """Returns places in the plane of the disc in half-light radii, along and across the major axis, `(B, H, W)`.

    Arguments:
        north, east: offsets from the galaxy in arcsec, `(B, H, 1)` and `(B, 1, W)`.
        shape: `radius`, `e1` and `e2`, each `(B,)`.
    """
    e1, e2, radius = (shape[name][:, None, None] for name in ("e1", "e2", "radius"))
    ellipticity = torch.sqrt(e1**2 + e2**2)
    angle = torch.atan2(e2, e1) / 2  # from north through east
    cos, sin = torch.cos(angle) / radius, torch.sin(angle) / radius
    stretch = (1 + ellipticity) / (1 - ellipticity).clamp(min=0.05)
    return north * cos + east * sin, (north * sin - east * cos) * stretch


def _soft_step(x: Tensor) -> Tensor:
    """Returns 1 / (1 + exp(-x)) by the exponential alone, which rounds alike wherever in a tensor a number stands."""
    return 1 / (1 + torch.exp(-x.clamp(-30, 30)))


def _numbers(draws: Draws, name: str, count: int, like: Tensor) -> Tensor:
    """Draws uniform numbers, one row each, that broadcast over pixels: `(count, B, 1, 1)`."""
    return draws.uniform(f"pattern.{name}", count=count).T[:, :, None, None].to(like.dtype)


def _spiral(major: Tensor, minor: Tensor, pitch: Tensor, sense: Tensor, count: Tensor, start: Tensor) -> Tensor:
    """Returns the cosine of the phase of logarithmic spirals."""
    log_distance = 0.5 * torch.log((major**2 + minor**2).clamp(min=0.01))
    return torch.cos(count * (torch.atan2(minor, major) - log_distance / torch.tan(pitch) * sense) + start)


def arms(draws: Draws, major: Tensor, minor: Tensor) -> Tensor:
    """Returns logarithmic spirals, two to four arms wound by 10 to 35 degrees from a circle, `(B, H, W)` from 0 to 1.

    Arguments:
        draws: of the galaxies.
        major, minor: places in the plane of the disc, see `disc_plane`.
    """
    u = _numbers(draws, "arms", 6, major)
    pitch, sense = (10 + 25 * u[0]) * (math.pi / 180), torch.where(u[1] < 0.5, -1.0, 1.0).to(major.dtype)
    cosine = _spiral(major, minor, pitch, sense, 2 + (3 * u[2] ** 2).floor(), 2 * math.pi * u[3])
    distance = torch.sqrt(major**2 + minor**2)
    ends = _soft_step((distance - 0.5) / 0.06) * _soft_step((1.6 + u[5] - distance) / 0.12)
    return _soft_step((cosine - 0.3 - 0.4 * u[4]) / 0.12) * ends


def tail(draws: Draws, major: Tensor, minor: Tensor) -> Tensor:
    """Returns a tidal tail: one open, wide arm that reaches three half-light radii, `(B, H, W)` from 0 to 1."""
    u = _numbers(draws, "tail", 4, major)
    sense = torch.where(u[0] < 0.5, -1.0, 1.0).to(major.dtype)
    cosine = _spiral(
        major, minor, (30 + 25 * u[1]) * (math.pi / 180), sense, torch.ones_like(sense), 2 * math.pi * u[2]
    )
    distance = torch.sqrt(major**2 + minor**2)
    ends = _soft_step((distance - 0.9) / 0.1) * _soft_step((2.5 + u[3] - distance) / 0.2)
    return _soft_step((cosine - 0.7) / 0.1) * ends


def ring(draws: Draws, major: Tensor, minor: Tensor) -> Tensor:
    """Returns a ring of 0.8 to 1.5 half-light radii, `(B, H, W)` from 0 to 1."""
    u = _numbers(draws, "ring", 2, major)
    distance = torch.sqrt(major**2 + minor**2)
    return gaussian((distance - 0.8 - 0.7 * u[0]) / (0.1 + 0.1 * u[1]))


def bar(draws: Draws, major: Tensor, minor: Tensor) -> Tensor:
    """Returns a bar: between an ellipse and a box, a fifth to a half as wide as long, `(B, H, W)` from 0 to 1."""
    u = _numbers(draws, "bar", 4, major)
    angle, length = math.pi * u[0], 0.4 + 0.8 * u[1]
    along = (major * torch.cos(angle) + minor * torch.sin(angle)) / length
    across = (minor * torch.cos(angle) - major * torch.sin(angle)) / (length * (0.2 + 0.3 * u[2]))
    cube = (along.abs() ** 3 + across.abs() ** 3).clamp(min=1e-6)
    return _soft_step((1 - torch.exp(torch.log(cube) / 3)) / (0.05 + 0.1 * u[3]))
