r"""What second moments alone say of clean frames: the exact denoiser of a stationary Gaussian process.

Entries of a frame are :math:`x = \mu + B^T z + r` with components z, whose autocovariance :math:`R_h` is known, and
what they leave out, r, white of variance :math:`\psi^2`. Of what is known or noisy, the components get the information
:math:`J = B\,\mathrm{diag}(1 / s^2)\,B^T`, :math:`h = B\,(x - \mu) / s^2` with :math:`s^2 = \psi^2`, plus
:math:`\sigma^2` where noisy; with the covariance R of the components of all frames the best guess of them is
:math:`R\,(1 + J R)^{-1} h`, whatever is missing.

A network that adds to this only has to learn what is not Gaussian. With :math:`R = 0` and :math:`\psi = 1` it is
:math:`x / (1 + \sigma^2)`, the usual start of a diffusion network.

References:
    | Elucidating the Design Space of Diffusion-Based Generative Models (Karras et al., 2022), arXiv 2206.00364
"""

__all__ = ["GaussianDenoiser", "unfitted"]

import math

from collections.abc import Sequence

import numpy as np
import torch

from torch import Tensor, nn

FLOOR = 1e-6  # least variance, of a unit, that the components are taken to leave out
LARGEST = 4096  # numbers of a frame that has a prior, and of all frames of a call whose covariances are tried
ROUNDS = 20  # in which autocovariances that no process has become those of one
WHOLE = 0.5  # share of a frame that must be measured for its components to count


class GaussianDenoiser(nn.Module):
    """Denoises a stationary Gaussian process exactly.

    In place of a network it shows what a scheme loses and a sampler errs, and nothing else.

    Arguments:
        covariance: at lags 0, 1, ..., of frame t + lag with frame t; farther lags count as 0. `(n, P, P)` of the P
            components of a frame, or `(n,)` if every entry (channel, pixel) is a process for itself.
        basis: of the components, `(P, D)`, orthonormal, for frames of D entries; by default D is P.
        rest: variance of each entry that the components leave out.
    """

    def __init__(self, covariance: np.ndarray, basis: np.ndarray | None = None, rest: float = FLOOR) -> None:
        super().__init__()
        covariance = torch.as_tensor(np.asarray(covariance), dtype=torch.float64)
        self.alone = covariance.ndim == 1
        covariance = covariance[:, None, None] if self.alone else covariance
        basis = np.eye(covariance.shape[1]) if basis is None else basis
        self.register_buffer("covariance", covariance)
        self.register_buffer("basis", torch.as_tensor(basis, dtype=torch.float64))
        self.register_buffer("mean", torch.zeros(self.basis.shape[1], dtype=torch.float64))
        self.register_buffer("rest", torch.full(self.mean.shape, max(rest, FLOOR), dtype=torch.float64))

    def fit(self, trajectories: Sequence[Tensor]) -> None:
        """Takes mean, principal components and their autocovariance from trajectories `(T, C, *space)`; NaN is a gap.

        Frames of which less than half is measured are left out, other gaps of a field count as the mean.
        """
        rows = [x.flatten(1).double().cpu() for x in trajectories]
        x = nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=math.nan)  # (S, T, D)
        seen, (count, entries) = x.isfinite(), self.basis.shape
        mean = x.flatten(0, 1).nanmean(0)
        x = torch.where(seen, x - mean, 0)
        variance = (x**2).sum((0, 1)) / seen.sum((0, 1)).clamp(min=1)
        basis = torch.eye(entries, dtype=torch.float64)
        if count < entries:
            flat = x.flatten(0, 1)
            basis = torch.linalg.eigh(flat.T @ flat).eigenvectors[:, -count:].T
            seen = (seen.double().mean(-1, keepdim=True) > WHOLE).expand(*seen.shape[:2], count)
        covariance = _covariances(torch.where(seen, x @ basis.T, 0), seen.double(), len(self.covariance))
        rest = variance - torch.einsum("pd,pq,qd->d", basis, covariance[0], basis)
        for name, value in (("mean", mean), ("basis", basis), ("covariance", covariance), ("rest", rest)):
            getattr(self, name).copy_(value)
        self.rest.clamp_(min=FLOOR)

    def forward(
        self,
        x: Tensor,
        sigma: Tensor,
        known: Tensor,
        wanted: Tensor,
        offsets: Tensor,
        context: Tensor | None = None,
    ) -> Tensor:
        """Returns the mean of the clean frames, in float64; see `aion.forecasting.denoise.MaskedDenoiser.forward`."""
        values, given, asked = (self._rows(part) for part in (x, known, wanted))
        level, times = (part.repeat_interleave(len(values) // len(x), 0) for part in (sigma.double() ** 2, offsets))
        y, level = values.double() - self.mean, level[:, None, None]
        every = slice(None)
        if all(bool((part == part[:1]).all()) for part in (given, asked, level, times)):
            every = slice(1)  # one matrix serves all rows
        noise = self.rest + asked[every] * level[every]
        information = (given | asked)[every] / noise  # (R, N, D)
        inner = torch.einsum("pd,rnd,qd->rnpq", self.basis, information, self.basis)
        joint = _joint(self.covariance, times[every])
        told = torch.where(given | asked, y * information, 0) @ self.basis.T  # (B, N, P)
        matrix = torch.einsum("rnpq,rnqms->rnpms", inner, joint).flatten(3).flatten(1, 2)
        matrix.diagonal(dim1=1, dim2=2).add_(1)
        columns = told.flatten(1).T[None] if len(matrix) == 1 else told.flatten(1)[..., None]
        found = joint.flatten(3).flatten(1, 2) @ torch.linalg.solve(matrix, columns)
        found = found[0].T if len(matrix) == 1 else found[..., 0]
        guess = found.view_as(told) @ self.basis
        clean = self.mean + guess + self.rest / noise * (y - guess)
        clean = clean.view(len(x), -1, *clean.shape[1:]).transpose(1, 2).reshape(x.shape)
        return torch.where(known, x.double(), torch.where(wanted, clean, 0))

    def _rows(self, part: Tensor) -> Tensor:
        """Brings `(B, N, C, *space)` to `(B, N, D)`, or `(B * D, N, 1)` if entries are processes for themselves."""
        part = part.flatten(2)
        return part.transpose(1, 2).flatten(0, 1)[..., None] if self.alone else part


def unfitted(components: int, entries: int, lags: int) -> GaussianDenoiser | None:
    """Builds the prior that data are still to be given to, or None where there is none to be.

    Arguments:
        components: principal components at most, 0 for no prior.
        entries: numbers of a frame; above 4096 it has no prior, as the components take the cube of that.
        lags: number of lags.

    Raises:
        ValueError: if `components` is no whole number, or negative.
    """
    if isinstance(components, bool) or not isinstance(components, int) or components < 0:
        msg = f"Forecaster: prior must be a whole number of components, 0 for none, given {components!r}"
        raise ValueError(msg)
    count = min(components, entries)
    if not count or entries > LARGEST:
        return None
    return GaussianDenoiser(np.zeros((lags, count, count)), np.eye(count, entries), rest=1)


def _joint(covariance: Tensor, times: Tensor) -> Tensor:
    """Builds the covariance of the components of frames at times `(R, N)`, `(R, N, P, N, P)`."""
    lag = (times[:, :, None] - times[:, None]).round().long()
    far = len(covariance) - 1
    blocks = covariance[lag.abs().clamp(max=far)]  # (R, N, N, P, P)
    blocks = torch.where((lag < 0)[..., None, None], blocks.mT, blocks)
    return torch.where((lag.abs() <= far)[..., None, None], blocks, 0).transpose(2, 3)


def _covariances(z: Tensor, seen: Tensor, lags: int) -> Tensor:
    """Estimates autocovariances `(lags, P, P)` from series `(S, T, P)`, 0 where not seen.

    Products are divided by how many there are. Of short series these need not be the autocovariances of a process,
    whose power is nowhere negative: then negative power is set to zero and the estimates are put back in turn, while
    lags up to four times as far, which start out fading, are left to fit.
    """
    length = z.shape[1]
    near, far = min(length, lags), min(length, 4 * lags)
    products, pairs = (_correlate(part) for part in (z, seen))
    estimate = (products / pairs.round().clamp(min=1))[:far]
    if near == lags and _definite(estimate[:near]):
        return estimate[:near]
    fade = (torch.arange(far) - near).clamp(min=0) / max(1, far - near)
    result = estimate * (0.5 + 0.5 * torch.cos(math.pi * fade))[:, None, None]
    for _ in range(ROUNDS):
        result = _proper(torch.cat([estimate[:near], result[near:]]))
    return torch.cat([result[:near], result.new_zeros(lags - near, *result.shape[1:])])


def _definite(covariance: Tensor) -> bool:
    """Tells whether frames at lags 0 to n - 1 can have these covariances, `(n, P, P)`."""
    size = covariance.shape[0] * covariance.shape[1]
    if size > LARGEST:
        return False
    whole = _joint(covariance, torch.arange(len(covariance))[None])
    return not torch.linalg.cholesky_ex(whole.reshape(size, size)).info.item()


def _proper(covariance: Tensor) -> Tensor:
    """Sets negative power of autocovariances at lags 0 to n - 1 to zero, `(n, P, P)`."""
    circle = torch.cat([covariance, torch.zeros_like(covariance[:1]), covariance[1:].mT.flip(0)])
    power = torch.fft.fft(circle, dim=0)
    values, vectors = torch.linalg.eigh((power + power.mH) / 2)
    proper = (vectors * values.clamp(min=0)[:, None]) @ vectors.mH
    return torch.fft.ifft(proper, dim=0).real[: len(covariance)]


def _correlate(series: Tensor) -> Tensor:
    """Sums products of entries p at t + lag and q at t, by lag, `(T, P, P)`."""
    wave = torch.fft.rfft(series, 2 * series.shape[1], dim=1).transpose(0, 1)  # (F, S, P)
    return torch.fft.irfft(wave.mT @ wave.conj(), dim=0)[: series.shape[1]]
