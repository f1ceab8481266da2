"""What people and pipelines mark in a stamp: ellipses of the objects in it, and which pixels are spiral arms or bars.

The catalogue lists the object and the neighbours that are in its image. A segmentation map is one of three: the
ellipses of that catalogue, filled by the type of the object as in AION-1, or the votes of fifteen people for the spiral
arms or for the bar of the galaxy, in a stamp scaled to it. Arms and bars are those that the image shows; on the pixels
of the image itself they are given by `pattern_map`.

References:
    | AION-1: Omnimodal Foundation Model for Astronomical Sciences (Parker et al., 2025), arXiv 2510.17960
    | Galaxy Zoo: 3D - crowdsourced bar, spiral, and foreground star masks for MaNGA target galaxies (Masters et al.,
      2021), arXiv 2108.02065
"""

__all__ = ["pattern_map", "segmentation_map", "stamp_catalog"]

import math

import torch

from torch import Tensor

from aion.sky.cameras import LEGACY
from aion.sky.draws import Draws
from aion.sky.morphology import arms, bar, disc_plane
from aion.sky.scene import neighbours

_VOTES = 15
_FILL = {"star": 0.2, "round": 0.4, "exponential": 0.6, "devaucouleurs": 0.8, "sersic": 1.0}
_SEEING = 0.6  # arcsec: no object looks smaller
_CHUNK = 64  # objects at once
_PATTERNS = {"arms": arms, "bar": bar}


def stamp_catalog(parameters: dict[str, Tensor], draws: Draws) -> dict[str, Tensor]:
    """Lists the object and its neighbours in the stamp of the Legacy Surveys, see `aion.Catalog`.

    Arguments:
        parameters: `radius` (arcsec, 0 for points), `e1` and `e2`, each `(B,)`.
        draws: of the same objects.

    Returns:
        `x`, `y` (arcsec), `e1`, `e2` and `r` (arcsec) `(B, 4)`, NaN for neighbours that there are not. Rows of the
        image go north, columns west.
    """
    near = neighbours(draws.of(LEGACY.name), LEGACY.size * LEGACY.scale, len(LEGACY.bands))
    nothing = torch.zeros_like(near["north"])
    others = {
        "x": -near["east"],
        "y": near["north"],
        "e1": nothing,
        "e2": nothing,
        # Half of the light of a round Gaussian lies within 1.18 sigma.
        "r": math.sqrt(2 * math.log(2)) * near["sigma"],
    }
    absent = near["flux"][..., 0] == 0
    target = {"x": nothing[:, 0], "y": nothing[:, 0], "e1": parameters["e1"], "e2": parameters["e2"]}
    target["r"] = parameters["radius"]
    return {
        name: torch.cat([target[name][:, None].double(), value.masked_fill(absent, math.nan)], dim=1)
        for name, value in others.items()
    }


def pattern_map(name: str, parameters: dict[str, Tensor], draws: Draws) -> Tensor:
    """Marks the spiral arms or the bar on the pixels of the image of the Legacy Surveys, `(B, 64, 64)` from 0 to 1.

    Arguments:
        name: `arms` or `bar`.
        parameters: `radius` (arcsec), `e1`, `e2` and the share of the pattern, each `(B,)`.
        draws: of the same objects.
    """
    north, east = LEGACY.axes(draws)
    return _pattern(name, parameters, draws.of("morphology"), north.double(), east.double())


def segmentation_map(parameters: dict[str, Tensor], star: Tensor, draws: Draws) -> tuple[Tensor, Tensor]:
    """Marks what there is in a stamp: ellipses, or for most galaxies that have them the arms or the bar.

    Arguments:
        parameters: of `aion.sky.morphology.draw_shape`, each `(B,)`.
        star: whether an object is a point, `(B,)`.
        draws: of the same objects.

    Returns:
        values from 0 to 1 `(B, 64, 64)` and arcsec per pixel `(B,)`, float32.
    """
    own, look, pieces = draws.of("map"), draws.of("morphology"), []
    u = own.uniform("kind")
    armed, barred = ((parameters[name] > 0) & (u > 0.25) for name in ("arms", "bar"))
    barred &= ~armed | (u > 0.7)
    votes = armed | barred
    pixels = own.uniform("pixels", 7, 13)  # on the half-light radius
    scale = torch.where(votes, parameters["radius"] / pixels, LEGACY.scale)
    catalog = stamp_catalog(parameters, draws)
    fill = torch.full_like(catalog["x"], _FILL["round"])
    bulge = parameters["bulge"].nan_to_num(0)
    kinds = torch.where(bulge > 0.6, _FILL["devaucouleurs"], torch.where(bulge < 0.2, _FILL["exponential"], 1.0))
    fill[:, 0] = torch.where(star, _FILL["star"], kinds)
    pixel = torch.arange(LEGACY.size, device=star.device, dtype=torch.float64) - (LEGACY.size - 1) / 2
    for rows in torch.arange(len(star), device=star.device).split(_CHUNK):
        part = {name: value[rows] for name, value in parameters.items()}
        value = _ellipses({name: column[rows] for name, column in catalog.items()}, fill[rows])
        axis = pixel * scale[rows, None]
        for name, chosen in (("arms", armed & ~barred), ("bar", barred)):
            seen = _pattern(name, part, look[rows], axis, -axis)
            value = torch.where(chosen[rows, None, None], (seen * _VOTES).round() / _VOTES, value)
        pieces.append(value)
    return torch.cat(pieces).float(), scale.float()


def _pattern(name: str, parameters: dict[str, Tensor], draws: Draws, north: Tensor, east: Tensor) -> Tensor:
    """Returns a pattern of the galaxies that have it on pixels at given offsets, 0 for the others, `(B, H, W)`."""
    out = torch.zeros(len(north), north.shape[1], east.shape[1], dtype=north.dtype, device=north.device)
    rows = (parameters[name] > 0).nonzero().flatten()
    if len(rows):
        shape = {key: parameters[key][rows].to(north.dtype) for key in ("radius", "e1", "e2")}
        plane = disc_plane(north[rows, :, None], east[rows, None, :], shape)
        out = out.index_copy(0, rows, _PATTERNS[name](draws[rows], *plane))
    return out


def _ellipses(catalog: dict[str, Tensor], fill: Tensor) -> Tensor:
    """Fills the ellipses of twice the half-light radius; where they overlap the larger number counts."""
    there = ~torch.isnan(catalog["x"])
    value = {name: column.nan_to_num(0).flatten() for name, column in catalog.items()}
    size = (2 * value["r"]).clamp(min=_SEEING)
    pixel = (torch.arange(LEGACY.size, device=fill.device, dtype=torch.float64) - (LEGACY.size - 1) / 2) * LEGACY.scale
    north, east = (pixel - value["y"][:, None])[:, :, None], -(pixel - value["x"][:, None])[:, None, :]
    major, minor = disc_plane(north, east, {"radius": size, "e1": value["e1"], "e2": value["e2"]})
    inside = ((major**2 + minor**2 < 1) & there.flatten()[:, None, None]).unflatten(0, fill.shape)
    return (inside * fill[..., None, None]).amax(1)
