"""What people and pipelines mark in a stamp: ellipses of the objects in it, and which pixels are spiral arms or bars.

The catalogue lists the object and the neighbours that are in its image. A segmentation map is one of three: the
ellipses of that catalogue, filled by the type of the object as in AION-1, or the votes of fifteen people for spiral
arms or for a bar of the galaxy, in a stamp scaled to it. Shapes of arms and bars are drawn, not taken from real
galaxies.

References:
    | AION-1: Omnimodal Foundation Model for Astronomical Sciences (Parker et al., 2025), arXiv 2510.17960
    | Galaxy Zoo: 3D - crowdsourced bar, spiral, and foreground star masks for MaNGA target galaxies (Masters et al.,
      2021), arXiv 2108.02065
"""

__all__ = ["MAP_SIZE", "segmentation_map", "stamp_catalog"]

import math

import torch

from torch import Tensor

from aion.observations import PIXEL_SCALES
from aion.sky.draws import Draws

MAP_SIZE = 64  # pixels
_SCALE = PIXEL_SCALES["decam"]
_NEIGHBOURS = 3
_VOTES = 15
_FILL = {"star": 0.2, "round": 0.4, "exponential": 0.6, "devaucouleurs": 0.8, "sersic": 1.0}
_SEEING = 0.6  # arcsec: no object looks smaller
_CHUNK = 64  # objects at once


def stamp_catalog(parameters: dict[str, Tensor], draws: Draws) -> dict[str, Tensor]:
    """Lists the object and its neighbours in the stamp of the Legacy Surveys, see `aion.Catalog`.

    Arguments:
        parameters: `radius` (arcsec, 0 for stars), `e1` and `e2`, each `(B,)`.
        draws: of the same objects.

    Returns:
        `x`, `y` (arcsec), `e1`, `e2` and `r` (arcsec) `(B, 4)`, NaN for neighbours that there are not. Rows of the
        image go north, columns west.
    """
    u = draws.of("image").uniform("neighbours", count=6 * _NEIGHBOURS + 1)  # those of `aion.sky.images`
    count, v = (u[:, -1:] * (_NEIGHBOURS + 1)).floor(), u[:, :-1].unflatten(1, (_NEIGHBOURS, 6))
    side = MAP_SIZE * _SCALE
    nothing = torch.zeros_like(v[..., 0])
    others = {
        "x": -(v[..., 1] - 0.5) * side,
        "y": (v[..., 0] - 0.5) * side,
        "e1": nothing,
        "e2": nothing,
        # Half of the light of a round Gaussian lies within 1.18 sigma.
        "r": math.sqrt(2 * math.log(2)) * 0.6 * v[..., 4] * v[..., 5],
    }
    absent = torch.arange(_NEIGHBOURS, device=u.device) >= count
    target = {"x": nothing[:, 0], "y": nothing[:, 0], "e1": parameters["e1"], "e2": parameters["e2"]}
    target["r"] = parameters["radius"]
    return {
        name: torch.cat([target[name][:, None].double(), value.masked_fill(absent, math.nan)], dim=1)
        for name, value in others.items()
    }


def segmentation_map(parameters: dict[str, Tensor], star: Tensor, draws: Draws) -> tuple[Tensor, Tensor]:
    """Marks what there is in a stamp: half of the galaxies their ellipses, a third arms, the rest a bar.

    Arguments:
        parameters: `radius` (arcsec), `e1`, `e2` and `bulge` (share of the light), each `(B,)`.
        star: whether an object is a star, `(B,)`.
        draws: of the same objects.

    Returns:
        values from 0 to 1 `(B, 64, 64)` and arcsec per pixel `(B,)`, float32.
    """
    own, pieces = draws.of("map"), []
    which = own.uniform("kind").masked_fill(star, 0)
    radius = own.uniform("pixels", 7, 13)
    scale = torch.where(which < 0.5, _SCALE, parameters["radius"] / radius)
    catalog = stamp_catalog(parameters, draws)
    fill = torch.full_like(catalog["x"], _FILL["round"])
    bulge = parameters["bulge"].nan_to_num(0)
    kinds = torch.where(bulge > 0.6, _FILL["devaucouleurs"], torch.where(bulge < 0.2, _FILL["exponential"], 1.0))
    fill[:, 0] = torch.where(star, _FILL["star"], kinds)
    for rows in torch.arange(len(star), device=star.device).split(_CHUNK):
        ellipses = _ellipses({name: value[rows] for name, value in catalog.items()}, fill[rows])
        shape = (parameters["e1"][rows], parameters["e2"][rows])
        arms = _votes(_arms(own[rows], radius[rows], shape))
        bar = _votes(_bar(own[rows], radius[rows], shape))
        kind = which[rows][:, None, None]
        pieces.append(torch.where(kind < 0.5, ellipses, torch.where(kind < 0.83, arms, bar)))
    return torch.cat(pieces).float(), scale.float()


def _pixels(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Returns the offset in pixels of every pixel from places `(...)`, across and up `(..., 64, 64)`."""
    axis = torch.arange(MAP_SIZE, device=x.device, dtype=torch.float64) - (MAP_SIZE - 1) / 2
    return axis - x[..., None, None], axis[:, None] - y[..., None, None]


def _elliptical(across: Tensor, up: Tensor, e1: Tensor, e2: Tensor) -> tuple[Tensor, Tensor]:
    """Returns the distance along the major axis `(..., 64, 64)` and across it, stretched to a circle."""
    e1, e2 = e1[..., None, None], e2[..., None, None]
    ellipticity = torch.sqrt(e1**2 + e2**2)
    angle = torch.atan2(e2, e1) / 2  # from north (up) to east (left)
    major = up * torch.cos(angle) - across * torch.sin(angle)
    minor = up * torch.sin(angle) + across * torch.cos(angle)
    return major, minor * (1 + ellipticity) / (1 - ellipticity).clamp(min=0.05)


def _votes(share: Tensor) -> Tensor:
    return (share * _VOTES).round() / _VOTES


def _ellipses(catalog: dict[str, Tensor], fill: Tensor) -> Tensor:
    """Fills the ellipses of twice the half-light radius; where they overlap the larger number counts."""
    there = ~torch.isnan(catalog["x"])
    value = {name: column.nan_to_num(0) for name, column in catalog.items()}
    major, minor = _elliptical(*_pixels(value["x"] / _SCALE, value["y"] / _SCALE), value["e1"], value["e2"])
    size = (2 * value["r"]).clamp(min=_SEEING)[..., None, None] / _SCALE
    inside = (major**2 + minor**2 < size**2) & there[..., None, None]
    return (inside * fill[..., None, None]).amax(1)


def _arms(draws: Draws, radius: Tensor, shape: tuple[Tensor, Tensor]) -> Tensor:
    """Returns logarithmic spirals, two to four arms wound by 10 to 35 degrees from a circle."""
    u = draws.uniform("arms", count=6)[:, :, None, None]
    major, minor = _elliptical(*_pixels(torch.zeros_like(radius), torch.zeros_like(radius)), *shape)
    distance = torch.sqrt(major**2 + minor**2).clamp(min=0.5) / radius[:, None, None]
    pitch, sense = (10 + 25 * u[:, 0]) * math.pi / 180, torch.where(u[:, 1] < 0.5, -1.0, 1.0)
    winding = distance.log() / torch.tan(pitch) * sense
    phase = (2 + (3 * u[:, 2]).floor()) * (torch.atan2(minor, major) - winding) + 2 * math.pi * u[:, 3]
    crest = torch.sigmoid((torch.cos(phase) - 0.3 - 0.4 * u[:, 4]) / 0.12)
    ends = torch.sigmoid((distance - 0.5) / 0.06) * torch.sigmoid((1.6 + u[:, 5] - distance) / 0.12)
    return crest * ends


def _bar(draws: Draws, radius: Tensor, shape: tuple[Tensor, Tensor]) -> Tensor:
    """Returns a bar: between an ellipse and a box, a fifth to a half as wide as long, in any direction."""
    u = draws.uniform("bar", count=4)[:, :, None, None]
    major, minor = _elliptical(*_pixels(torch.zeros_like(radius), torch.zeros_like(radius)), *shape)
    angle, length = math.pi * u[:, 0], (0.4 + 0.8 * u[:, 1]) * radius[:, None, None]
    along, across = (
        major * torch.cos(angle) + minor * torch.sin(angle),
        minor * torch.cos(angle) - major * torch.sin(angle),
    )
    box = ((along / length).abs() ** 3 + (across / (length * (0.2 + 0.3 * u[:, 2]))).abs() ** 3) ** (1 / 3)
    return torch.sigmoid((1 - box) / (0.05 + 0.1 * u[:, 3]))
