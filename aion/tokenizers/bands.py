r"""What a network knows of the bands of images: weights as functions of wavelength, and the noise to be expected.

The weights of a band are :math:`W_b = \sum_k \phi_k(\ln\lambda_b) W_k + \delta_b` with the effective wavelength
:math:`\lambda_b`, normalised Gaussians :math:`\phi_k` whose centres are evenly spaced in :math:`\ln\lambda`, and a
correction :math:`\delta_b` that only bands trained on have. A band never trained on has the weights of its wavelength;
beyond the outermost centres they stay those of the ends.
"""

__all__ = ["BandWeights", "expected_noise", "known_bands"]

import math

from collections.abc import Sequence

import torch

from torch import Tensor, nn

from aion.observations import BANDS, PIXEL_SCALES

# 5-sigma depth of point sources (AB) and FWHM in arcsec of the images that each survey publishes, rounded: Legacy
# Surveys (Dey et al., 2019, arXiv:1804.08657), DES for y (Abbott et al., 2021, arXiv:2101.05765), HSC Wide (Aihara et
# al., 2018, arXiv:1702.08449), Pan-STARRS 3pi (Chambers et al., 2016, arXiv:1612.05560), SDSS (York et al., 2000,
# arXiv:astro-ph/0006396). Only the softening follows from them, so a quarter of a magnitude matters little.
_DEPTHS = {
    "bass-g": (24.2, 1.6),
    "bass-r": (23.6, 1.5),
    "decam-g": (24.7, 1.25),
    "decam-i": (23.5, 1.25),
    "decam-r": (23.9, 1.25),
    "decam-y": (22.3, 1.1),
    "decam-z": (23.0, 1.25),
    "hsc-g": (26.8, 0.72),
    "hsc-i": (26.4, 0.56),
    "hsc-r": (26.4, 0.67),
    "hsc-y": (24.7, 0.64),
    "hsc-z": (25.5, 0.63),
    "mzls-z": (23.0, 1.0),
    "panstarrs-g": (23.3, 1.3),
    "panstarrs-i": (23.1, 1.1),
    "panstarrs-r": (23.2, 1.2),
    "panstarrs-y": (21.3, 1.0),
    "panstarrs-z": (22.3, 1.1),
    "sdss-g": (23.1, 1.4),
    "sdss-i": (22.2, 1.2),
    "sdss-r": (22.7, 1.3),
    "sdss-u": (22.1, 1.5),
    "sdss-z": (20.7, 1.3),
}
_SHORTEST, _LONGEST = 4200.0, 10000.0  # Angstrom, the outermost centres


def known_bands() -> tuple[str, ...]:
    """Returns the bands whose noise is known, in alphabetical order."""
    return tuple(sorted(_DEPTHS))


def expected_noise(band: str) -> float:
    """Returns the typical error of one pixel in nanomaggy: that of a point source is shared by 4 pi sigma^2 pixels."""
    depth, fwhm = _DEPTHS[band]
    sigma = fwhm / 2.3548 / PIXEL_SCALES[band.split("-")[0]]
    return 0.2 * 10 ** (-0.4 * (depth - 22.5)) / (math.sqrt(4 * math.pi) * sigma)


class BandWeights(nn.Module):
    """Holds the weights of every band.

    Arguments:
        bands: names of the bands with a correction of their own.
        shape: shape of the weights of one band.
        fan_in: number of inputs that one output sums over, which sets the first weights.
        basis: number of functions of wavelength; with 0 each of `bands` is a function of its own, and there are no
            others.
    """

    def __init__(self, bands: Sequence[str], shape: Sequence[int], fan_in: int, basis: int) -> None:
        super().__init__()
        self.bands, self.shape, self.fan_in, self.basis = tuple(bands), tuple(shape), fan_in, basis
        self.shared = nn.Parameter(torch.empty(basis or len(self.bands), *self.shape))
        self.own = nn.Parameter(torch.empty(len(self.bands), *self.shape)) if basis else None
        self.reset_parameters()

    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        """Draws the weights anew; corrections are zero."""
        nn.init.uniform_(self.shared, -(self.fan_in**-0.5), self.fan_in**-0.5, generator=generator)
        if self.own is not None:
            nn.init.zeros_(self.own)

    def forward(self, bands: Sequence[str], shift: Tensor | None = None) -> Tensor:
        """Returns the weights of some bands, `(C, *shape)`; `shift` `(C,)` moves their ln wavelengths."""
        device = self.shared.device
        rows = [i for i, band in enumerate(bands) if band in self.bands]
        index = torch.tensor([self.bands.index(bands[i]) for i in rows], device=device, dtype=torch.long)
        if self.own is None:
            return self.shared[index]
        place = torch.tensor([math.log(BANDS[band]) for band in bands], device=device)
        place = self._functions(place if shift is None else place + shift)
        weights = (place @ self.shared.flatten(1)).unflatten(1, self.shape)
        return weights.index_add(0, torch.tensor(rows, device=device, dtype=torch.long), self.own[index])

    def _functions(self, place: Tensor) -> Tensor:
        centres = torch.linspace(math.log(_SHORTEST), math.log(_LONGEST), self.basis, device=place.device)
        width = (math.log(_LONGEST) - math.log(_SHORTEST)) / max(self.basis - 1, 1)
        return (-0.5 * ((place[:, None] - centres) / width) ** 2).softmax(1)
