"""Cameras: what a survey's stamps are like, and where their pixels lie on the sky.

Row 0 is south, column 0 is east, and the object is within half a pixel of the middle.
"""

__all__ = ["Camera", "HSC", "LEGACY"]

from dataclasses import dataclass

import torch

from torch import Tensor

from aion.sky.draws import Draws
from aion.sky.published import PUBLISHED, Published


@dataclass(frozen=True)
class Camera:
    """Says how a survey takes its images.

    Arguments:
        name: of its random draws.
        survey: what is published of it.
        size: pixels on the side of a stamp.
        bulge: share of the bulge in each band over that in r: bulges are redder than discs.
        photons: electrons per nanomaggy, which sets the noise of the source itself.
        saturation: magnitude of the faintest star that saturates in each band, in the best seeing; pixels as bright as
            its brightest one are not measured. Empty if nothing saturates.
    """

    name: str
    survey: str
    size: int
    bulge: tuple[float, ...]
    photons: float
    saturation: tuple[float, ...] = ()

    @property
    def published(self) -> Published:
        """Returns what is published of the survey."""
        return PUBLISHED[self.survey]

    @property
    def bands(self) -> tuple[str, ...]:
        """Returns the names of the bands."""
        return tuple(f"{self.survey}-{band}" for band in self.published.seeing)

    @property
    def scale(self) -> float:
        """Returns the arcsec per pixel."""
        return self.published.scale

    @property
    def seeing(self) -> tuple[tuple[float, float], ...]:
        """Returns the smallest and the largest FWHM of each band in arcsec."""
        return tuple((0.85 * fwhm, 1.2 * fwhm) for fwhm in self.published.seeing.values())

    @property
    def sigma(self) -> tuple[float, ...]:
        """Returns the error of the flux of a point source of each band in nanomaggy."""
        return tuple(self.published.sigma.values())

    @property
    def psf_sigma(self) -> float:
        """Returns the typical width of the point-spread function in arcsec, to which the errors of points refer."""
        return sum(self.published.seeing.values()) / len(self.bands) / 2.3548

    @property
    def shape(self) -> tuple[int, int, int]:
        """Returns the shape of the image of one object."""
        return len(self.bands), self.size, self.size

    def axes(self, draws: Draws) -> tuple[Tensor, Tensor]:
        """Draws the offset of every pixel from the object in arcsec, north `(B, H)` and east `(B, W)`."""
        draws = draws.of(self.name)
        pixel = (torch.arange(self.size, device=draws.index.device) - (self.size - 1) / 2) * self.scale
        offset = draws.uniform("offset", -0.5 * self.scale, 0.5 * self.scale, 2).float()
        return pixel - offset[:, :1], offset[:, 1:] - pixel

    def core(self, draws: Draws) -> Tensor:
        """Draws the variance of the core of the point-spread function, `(B, C)` arcsec^2, that of the pixel added."""
        low, high = torch.tensor(self.seeing, dtype=torch.float64, device=draws.index.device).T
        fwhm = (low + (high - low) * draws.of(self.name).uniform("seeing", count=len(low))).float()
        return (fwhm / 2.3548) ** 2 + self.scale**2 / 12


LEGACY = Camera(
    name="image",
    survey="decam",
    size=64,
    bulge=(0.75, 1.0, 1.1, 1.2),
    photons=12500.0,  # of three exposures
)

# The Wide layer, 10 minutes in g and r and 20 in the others on a mirror of 8.2 m.
HSC = Camera(
    name="hsc",
    survey="hsc",
    size=96,
    bulge=(0.75, 1.0, 1.1, 1.2, 1.2),
    photons=1e5,
    saturation=(17.8, 17.8, 18.4, 17.4, 17.1),
)
