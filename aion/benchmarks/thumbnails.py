"""Small colour pictures of images, for figures."""

__all__ = ["thumbnails"]

import numpy as np
import torch

from aion.observations import Image, Observation

SIDE = 48
COLOURS = (("z", "i"), ("r",), ("g",))  # bands shown as red, green and blue: the first that there is


def thumbnails(value: Observation, rows: np.ndarray) -> np.ndarray | None:
    """Draws images as small pictures `(R, 48, 48, 3)`, uint8; of what is no image in three colours there is none."""
    if not isinstance(value, Image):
        return None
    letters = [band.split("-")[1] for band in value.bands]
    channels = [next((letters.index(b) for b in bands if b in letters), None) for bands in COLOURS]
    if None in channels:
        return None
    image = value[torch.from_numpy(np.asarray(rows))]
    flux = image.flux[:, channels] / image.pixel_scale[:, None, None, None] ** 2
    flux = torch.nn.functional.adaptive_avg_pool2d(flux.cpu(), SIDE)
    bright = torch.asinh(flux / 0.15).clamp(min=0)
    peak = bright.flatten(1).quantile(0.998, dim=1).clamp(min=1.0)[:, None, None, None]
    return ((bright / peak).clamp(max=1) * 255).byte().permute(0, 2, 3, 1).numpy()
