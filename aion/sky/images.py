"""Images: scenes as a survey takes them, with its depth, its noise, lost bands and bad pixels.

The two cameras see the same object, each with its own neighbours.
"""

__all__ = ["observe_image"]

import math

import torch

from torch import Tensor

from aion.sky.cameras import LEGACY, Camera
from aion.sky.draws import Draws
from aion.sky.scene import SEEING, scene
from aion.sky.templates import Templates

_CHUNK = 16  # objects at a time on a CPU: their pixels stay in its cache


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
        shape: of `aion.sky.morphology.draw_shape`, each `(B,)`.
        star: whether an object is a point, `(B,)`.
        draws: of the same objects.
        templates: where the profiles are.
        noise: whether noise is added.
        camera: how the survey takes its images.

    Returns:
        flux and ivar `(B, C, H, W)` float32 in nanomaggy per pixel; sometimes a band or some pixels have ivar 0.
    """
    shape, true = {key: value.float() for key, value in shape.items()}, true.float()
    size = _CHUNK if true.device.type == "cpu" else len(star)
    parts = []
    for rows in torch.arange(len(star), device=star.device).split(size):
        own = {key: value[rows] for key, value in shape.items()}
        image = scene(draws[rows], true[rows], own, star[rows], templates, camera)
        parts.append(_measured(image, draws[rows].of(camera.name), camera, noise))
    flux, ivar = (torch.cat(values) for values in zip(*parts, strict=True))
    return flux, ivar


def _measured(image: Tensor, draws: Draws, camera: Camera, noise: bool) -> tuple[Tensor, Tensor]:
    """Returns flux and ivar of a scene."""
    bands, count = len(camera.bands), image[0].numel()
    depth = image.new_tensor(camera.sigma) * torch.exp(0.2 * draws.normal("depth", bands)).float()
    # The noise of a point source collects that of 4 pi sigma^2 pixels.
    pixel = depth / (math.sqrt(4 * math.pi) * camera.psf_sigma / camera.scale)
    variance = pixel[:, :, None, None] ** 2 + image.clamp(min=0) / camera.photons
    keep = ~_saturated(image, camera)
    if noise:
        image = image + variance.sqrt() * draws.noise("noise", count).view_as(image)
    keep = keep & (draws.uniform("lost", count=bands + 1)[:, :bands] > 0.04)[:, :, None, None]
    keep = keep & ~draws.rare("bad", count, 5e-4, 5e-4).view_as(image)
    return image, keep / variance


def _saturated(image: Tensor, camera: Camera) -> Tensor:
    """Tells which pixels are brighter than the brightest of the faintest star that saturates."""
    if not camera.saturation:
        return torch.zeros_like(image, dtype=torch.bool)
    flux = image.new_tensor([10 ** (-0.4 * (magnitude - 22.5)) for magnitude in camera.saturation])
    core = image.new_tensor([(low / 2.3548) ** 2 + camera.scale**2 / 12 for low, _ in camera.seeing])
    peak = sum(share * flux * camera.scale**2 / (2 * math.pi * core * width**2) for share, width in SEEING)
    return image > peak[:, None, None]
