"""Principal components at equal bits: what a linear tokenizer of the same cost keeps.

Spectra are divided by their median and interpolated linearly to the fixed grid of `aion.official.spectrum` (8704
pixels of 0.8 Angstrom). Components are fitted to the training data by iteration: unmeasured and very noisy pixels are
filled by the mean, later by what the components say of them (EM for missing data); all others count alike. A spectrum
is encoded by the ivar-weighted least squares of its coefficients, with their variances over the training data as
prior. A coefficient is rounded to one of 2^bits steps within 8 sigma. Of 272 coefficients of 12 bits and 408 of 8,
which is the same, the better one on spectra that were not fitted is taken; where ours takes fewer bits, the first
coefficients alone.
"""

__all__ = ["Components"]

import math

from collections.abc import Iterable

import torch

from torch import Tensor

from aion.observations import Spectrum
from aion.official.spectrum import interpolate

GRID = 3500 + 0.8 * torch.arange(8704, dtype=torch.float32)
ROUNDS = 4
REACH = 8.0  # sigma, within which coefficients are quantised
NOISIEST = 0.3  # relative error of the pixels that are filled in the fit like those not measured


class Components:
    """Encodes spectra by principal components.

    Arguments:
        count: number K of components.
        bits: bits of each coefficient.
    """

    def __init__(self, count: int = 272, bits: int = 12) -> None:
        self.count, self.bits = count, bits

    def fit(self, batches: Iterable[Spectrum]) -> "Components":
        """Fits mean, components and variances."""
        rows, weights = zip(*(self._prepare(batch) for batch in batches), strict=True)
        flux, ivar = torch.cat(rows), torch.cat(weights)
        known = ivar > NOISIEST**-2
        some = known.float().mean(1) > 0.05
        flux, known = flux[some].clamp(-5, 30), known[some]
        self.mean = (flux * known).sum(0) / known.sum(0).clamp(min=1)
        filled = torch.where(known, flux - self.mean, 0.0)
        draws = torch.Generator().manual_seed(0)
        for _ in range(ROUNDS):
            basis, scores = _decompose(filled, self.count, draws)
            filled = torch.where(known, filled, scores @ basis)
        self.basis, self.sigma, self.spectra = basis, scores.std(0).clamp(min=1e-6), len(filled)
        return self

    def reduced(self, count: int, bits: int) -> "Components":
        """Returns the first of the components, with other bits."""
        new = Components(count, bits)
        new.mean, new.basis, new.sigma, new.spectra = self.mean, self.basis[:count], self.sigma[:count], self.spectra
        return new

    @property
    def total(self) -> int:
        """Returns the bits of a spectrum, 12 of them for the flux scale."""
        return self.count * self.bits + 12

    def coefficients(self, spectrum: Spectrum) -> Tensor:
        """Returns the coefficients in units of their sigma, `(B, K)`."""
        out = []
        for row, weight in zip(*self._prepare(spectrum), strict=True):
            weighted = self.basis * weight.clamp(max=1e6)
            normal = weighted @ self.basis.T + torch.diag(self.sigma**-2)
            out.append(torch.linalg.solve(normal.double(), (weighted @ (row - self.mean)).double()).float())
        return torch.stack(out) / self.sigma

    def round_trip(self, spectrum: Spectrum) -> tuple[Tensor, Tensor]:
        """Returns flux after quantisation at the wavelengths of the spectra, and which of them are on the grid."""
        step = 2 * REACH / 2**self.bits
        level = (
            (self.coefficients(spectrum) / step - 0.5).round().clamp(-(2 ** (self.bits - 1)), 2 ** (self.bits - 1) - 1)
        )
        flux = ((level + 0.5) * step * self.sigma) @ self.basis + self.mean
        at = interpolate(GRID[None].to(flux), flux[..., None], spectrum.wavelength)[..., 0]
        inside = (spectrum.wavelength >= GRID[0]) & (spectrum.wavelength <= GRID[-1])
        return at * self._scale(spectrum)[:, None], inside

    def _scale(self, spectrum: Spectrum) -> Tensor:
        """Returns the median of |flux|, rounded to 12 bits from 1e-5 to 1e7."""
        median = spectrum.flux.abs().masked_fill(~spectrum.measured, math.nan).nanmedian(1).values.nan_to_num(1.0)
        step = 12 / 2**12
        return 10 ** ((median.clamp(1e-5, 1e7).log10() / step).round() * step)

    def _prepare(self, spectrum: Spectrum) -> tuple[Tensor, Tensor]:
        """Returns flux over scale and its ivar on the grid."""
        scale = self._scale(spectrum)[:, None]
        good = spectrum.measured.float()
        channels = torch.stack([spectrum.flux / scale, spectrum.ivar * scale**2, good], -1)
        grid = interpolate(spectrum.wavelength, channels, GRID[None])
        whole = grid[..., 2] > 0.999  # no pixel that was not measured has a part in it
        # Neighbours that share a pixel know the same: as much as there are pixels, no more.
        step = torch.gradient(spectrum.wavelength, dim=1)[0].median(1, keepdim=True).values
        return grid[..., 0] * whole, grid[..., 1] * whole * (0.8 / step).clamp(max=1)


def _decompose(values: Tensor, count: int, draws: torch.Generator) -> tuple[Tensor, Tensor]:
    """Returns orthonormal components `(K, P)` and scores `(N, K)`, by random projection and two power iterations."""
    sketch = torch.randn(values.shape[1], min(count + 20, len(values)), generator=draws)
    space = torch.linalg.qr(values @ sketch).Q
    for _ in range(2):
        space = torch.linalg.qr(values @ (values.T @ space)).Q
    _, _, v = torch.linalg.svd(space.T @ values, full_matrices=False)
    return v[:count].contiguous(), values @ v[:count].T
