r"""Spectra of any instrument as tokens at fixed physical wavelengths.

A ladder of rungs :math:`r = \ln(\lambda/\lambda_0)/\Delta` is laid over all wavelengths. The pixels of a spectrum,
on whatever grid they were measured, are shared out to the cells of their rung (each pixel to its two nearest cells,
weighted by ivar): a sum over pixels, no interpolation of flux. Convolutions turn the cells of a rung and its neighbours
into one code. A rung without a measured pixel has no token. One more token carries the flux scale, the median of
\|flux\|.

The decoder turns codes into the cells again and reads the model there, between two cells, at any wavelength asked.

References:
    | Universal Spectral Tokenization via Self-Supervised Panchromatic Representation Learning (Shen et al., 2025),
      arXiv 2510.17959
    | AION-1: Omnimodal Foundation Model for Astronomical Sciences (Parker et al., 2025), arXiv 2510.17960
"""

__all__ = ["SpectrumTokenizer"]

import math

from collections.abc import Sequence

import torch

from torch import Tensor, nn

from aion.nn.attention import layer_norm
from aion.nn.convolution import ConvBlock1d
from aion.nn.quantize import FSQ
from aion.observations import Spectrum
from aion.tokenizers.base import Tokenizer, gaussian_nll, spread_penalty
from aion.tokens import Tokens

SCALE_RANGE = (-5.0, 7.0)  # log10 of the flux scale in 1e-17 erg/s/cm2/A that its bins cover


class SpectrumTokenizer(Tokenizer):
    """Tokenizes spectra on their native grids.

    Arguments:
        start: blue end of the ladder in vacuum Angstrom.
        stop: red end of the ladder.
        step: width of a rung in ln wavelength.
        cells: number of cells in a rung.
        width: channels of the convolutions.
        depth: number of residual blocks in the encoder and in the decoder.
        levels: levels of the quantiser, see `aion.nn.quantize.FSQ`.
        scale_bins: number of ids for the flux scale.
    """

    kind = "spectrum"
    observation = Spectrum

    def __init__(
        self,
        start: float = 3000.0,
        stop: float = 17500.0,
        step: float = 0.005,
        cells: int = 16,
        width: int = 96,
        depth: int = 3,
        levels: Sequence[int] = (8, 8, 8, 8),
        scale_bins: int = 512,
    ) -> None:
        super().__init__(
            start=start,
            stop=stop,
            step=step,
            cells=cells,
            width=width,
            depth=depth,
            levels=list(levels),
            scale_bins=scale_bins,
        )
        self.start, self.step, self.cells, self.scale_bins = start, step, cells, scale_bins
        self.rungs = math.ceil(math.log(stop / start) / step)
        self.quantizer = FSQ(levels)
        self.stem = nn.Conv1d(3, 32, 5, padding=2)
        self.patch = nn.Conv1d(32, width, cells, stride=cells)
        self.encoder = nn.ModuleList(ConvBlock1d(width) for _ in range(depth))
        self.latent_norm = layer_norm(width)
        self.to_latent = nn.Linear(width, len(levels))
        self.from_latent = nn.Linear(len(levels), width)
        self.decoder = nn.ModuleList(ConvBlock1d(width) for _ in range(depth))
        self.cells_norm = layer_norm(width)
        self.to_cells = nn.Linear(width, cells + 1)

    @property
    def size(self) -> int:
        """Returns the number of ids."""
        return self.quantizer.size + self.scale_bins

    def describe(self) -> str:
        """Says in a few words what is read and how."""
        stop = self.start * math.exp(self.rungs * self.step)
        return (
            f"Spectrum, {self.start:.0f} to {stop:.0f} A in {self.rungs} rungs of {self.step} in ln wavelength, "
            f"{self.quantizer.size} codes + {self.scale_bins} flux scales"
        )

    def encode(self, observation: Spectrum) -> Tokens:
        """Turns spectra into `(B, 1 + rungs)` tokens: the flux scale at (1, 0), then rung r at (0, r).

        Pixels beyond the ends of the ladder are not read; `coverage` tells their share.

        Raises:
            ValueError: if all measured pixels of a spectrum lie outside the ladder, or its flux is off by more than a
                factor of 1000 from the scales known.
        """
        latent, measured, scale_ids = self._encode(observation)
        _, codes = self.quantizer(latent)
        valid = torch.cat([measured.any(1, keepdim=True), measured], dim=1)
        ids = torch.cat([scale_ids[:, None] + self.quantizer.size, codes], dim=1).masked_fill(~valid, 0)
        return Tokens(ids=ids, position=self._position(len(observation), ids.device), valid=valid)

    def embed(self, observation: Spectrum) -> tuple[Tensor, Tensor]:
        """Returns what is known of each rung before quantisation, `(B, rungs, d)`, and which rungs are measured."""
        latent, measured, _ = self._encode(observation)
        return latent.tanh() * measured[..., None], measured

    def decode(self, tokens: Tokens, like: Spectrum | None = None) -> Spectrum:
        """Renders tokens on the wavelengths of `like`, or on the cells of the ladder.

        The ivar of the result is the model's own; it is 0 outside the rungs that have a token, and everywhere for an
        object without a flux scale.
        """
        codes, measured, scale = self._unpack(tokens)
        cells, error = self._decode(self.quantizer.values(codes), measured)
        if like is None:
            node = torch.arange(self.rungs * self.cells, device=codes.device).expand(len(tokens), -1) + 0.5
            wavelength = self.start * torch.exp(node / self.cells * self.step)
        else:
            wavelength = like.wavelength
        flux, error, inside = self._render(cells, error, measured, wavelength)
        known = inside & (scale > 0)[:, None]
        ivar = torch.where(known, 1 / (error * scale[:, None]).clamp(min=1e-12) ** 2, 0.0)
        return Spectrum(flux=torch.where(known, flux * scale[:, None], 0.0), ivar=ivar, wavelength=wavelength)

    def loss(self, observation: Spectrum, generator: torch.Generator | None = None) -> dict[str, Tensor]:
        """Computes the likelihood of the measured pixels, a tenth of which the encoder does not see."""
        self.check(observation)
        shown = observation
        if generator is not None:
            draw = torch.rand(observation.flux.shape, generator=generator, device=generator.device)
            hidden = draw.to(observation.device) < 0.1
            shown = Spectrum(observation.flux, observation.ivar.masked_fill(hidden, 0), observation.wavelength)
        latent, measured, scale_ids = self._encode(shown)
        values, ids = self.quantizer(latent)
        cells, error = self._decode(values, measured)
        flux, error, inside = self._render(cells, error, measured, observation.wavelength)
        scale = self._scale(scale_ids)[:, None]
        ivar = observation.ivar * inside * scale**2
        residual = (observation.flux / scale - flux) * inside
        count = (ivar > 0).sum().clamp(min=1)
        likelihood = gaussian_nll(residual, ivar, error).sum() / count
        return {
            "loss": likelihood + 0.1 * spread_penalty(latent[measured]),
            "likelihood": likelihood,
            "chi2": (residual.square() * ivar).sum() / count,
            "codes": ids[measured].unique().numel() / torch.tensor(float(self.quantizer.size)),
        }

    def codebook(self, dim: int = 64) -> Tensor:
        """Returns the code values, and the rank of the flux scales in a column of their own, `(size, d + 1)`."""
        codes = self.quantizer.values(torch.arange(self.quantizer.size, device=self.to_latent.weight.device))
        rank = torch.linspace(-1, 1, self.scale_bins, device=codes.device)
        book = codes.new_zeros(self.size, codes.shape[1] + 1)
        book[: self.quantizer.size, :-1] = codes
        book[self.quantizer.size :, -1] = rank
        return book

    def possible(self, position: Tensor) -> Tensor:
        """Tells which ids may stand at `position` `(B, N, 2)`: scales for the flux scale, codes for the rungs."""
        is_scale = torch.arange(self.size, device=position.device) >= self.quantizer.size
        return (position[..., :1] > 0.5) == is_scale

    def coverage(self, observation: Spectrum) -> Tensor:
        """Returns the share of the measured pixels that lies on the ladder, `(B,)`."""
        _, inside = self._nodes(observation.wavelength)
        measured = observation.measured.sum(1)
        return torch.where(measured > 0, (inside & observation.measured).sum(1) / measured.clamp(min=1), 1.0)

    def _encode(self, spectrum: Spectrum) -> tuple[Tensor, Tensor, Tensor]:
        """Returns latents `(B, R, d)`, which rungs were measured `(B, R)` and the ids of the flux scale `(B,)`."""
        self.check(spectrum)
        node, inside = self._nodes(spectrum.wavelength)
        used = inside & spectrum.measured
        if (lost := spectrum.measured.any(1) & ~used.any(1)).any():
            row = int(lost.nonzero()[0])
            w = spectrum.wavelength[row][spectrum.measured[row]]
            msg = (
                f"row {row}: measured from {w.min().item():.5g} to {w.max().item():.5g}, but this tokenizer knows "
                f"{self.start:.0f} to {self.start * math.exp(self.rungs * self.step):.0f} Angstrom: is the wavelength "
                "in nm or micron? give its unit to aion.io.from_quantity"
            )
            raise ValueError(msg)
        scale_ids = self._scale_ids(spectrum.flux, used)
        cells, measured = self._deposit(spectrum, node, used, self._scale(scale_ids))
        mask = measured[:, None].to(cells.dtype)
        x = self.patch(nn.functional.gelu(self.stem(cells))) * mask
        for block in self.encoder:
            x = block(x, mask)
        return self.to_latent(self.latent_norm(x.movedim(1, -1))), measured, scale_ids

    def _decode(self, values: Tensor, measured: Tensor) -> tuple[Tensor, Tensor]:
        """Turns code values `(B, R, d)` into cells `(B, R * cells)` and errors `(B, R)`, in units of the flux scale."""
        mask = measured[:, None].to(values.dtype)
        x = self.from_latent(values).movedim(-1, 1) * mask
        for block in self.decoder:
            x = block(x, mask)
        out = self.to_cells(self.cells_norm(x.movedim(1, -1)))
        return out[..., :-1].clamp(-8, 8).sinh().flatten(1), (out[..., -1] - 2).clamp(-7, 4).exp()

    def _nodes(self, wavelength: Tensor) -> tuple[Tensor, Tensor]:
        """Returns the position of each pixel in cells from the blue end of the ladder, and whether it is on it."""
        # In float64: the ladder has thousands of cells, and a tenth of a cell must not depend on the device.
        node = (wavelength.double() / self.start).log() * (self.cells / self.step)
        inside = (node >= 0) & (node < self.rungs * self.cells)
        return node, inside

    def _deposit(self, spectrum: Spectrum, node: Tensor, used: Tensor, scale: Tensor) -> tuple[Tensor, Tensor]:
        """Shares measured pixels out to the cells: asinh of the mean flux, its precision, and whether it is known."""
        batch, total = len(spectrum), self.rungs * self.cells
        # Clamped: with an ivar near the end of float32 the product would be infinite, and the latents NaN.
        weight = (torch.where(used, spectrum.ivar, 0.0) * scale[:, None] ** 2).clamp(max=1e30)
        flux = spectrum.flux / scale[:, None]
        low = torch.where(used, node - 0.5, 0.0).floor()
        right = torch.where(used, node - 0.5 - low, 0.0).float()
        sums = weight.new_zeros(2, batch, total)
        for index, share in ((low.long(), 1 - right), (low.long() + 1, right)):
            share = share * weight * ((index >= 0) & (index < total))
            index = index.clamp(0, total - 1)
            sums[0].scatter_add_(1, index, share)
            sums[1].scatter_add_(1, index, share * flux)
        precision, mean = sums[0], sums[1] / sums[0].clamp(min=1e-30)
        known = precision > 0
        measured = used.new_zeros(batch, self.rungs, dtype=torch.int32)
        rung = torch.where(used, node / self.cells, 0.0).long()
        measured.scatter_add_(1, rung, used.to(torch.int32))
        cells = torch.stack([mean.asinh() * known, precision.log1p() / 8, known.to(mean.dtype)], dim=1)
        return cells, measured > 0

    def _render(self, cells: Tensor, error: Tensor, measured: Tensor, wavelength: Tensor) -> tuple[Tensor, ...]:
        """Reads the decoded cells at wavelengths `(B, L)`: flux, error, and whether a token covers the pixel."""
        node, inside = self._nodes(wavelength)
        node = torch.where(inside, node, 0.0)
        rung = (node / self.cells).long()
        low = (node - 0.5).floor()
        right = (node - 0.5 - low).float()
        last = cells.shape[1] - 1
        known = measured.repeat_interleave(self.cells, dim=1).to(cells.dtype)
        total, flux = torch.zeros_like(right), torch.zeros_like(right)
        for index, share in ((low.long(), 1 - right), (low.long() + 1, right)):
            index = index.clamp(0, last)
            share = share * known.gather(1, index)  # a cell of a rung without token is unknown: use the other alone
            flux = flux + share * cells.gather(1, index)
            total = total + share
        return flux / total.clamp(min=1e-6), error.gather(1, rung), inside & measured.gather(1, rung)

    def _scale_ids(self, flux: Tensor, used: Tensor) -> Tensor:
        """Bins log10 of the median of \\|flux\\| over the used pixels; a median of zero or nothing falls in bin 0."""
        median = flux.abs().masked_fill(~used, math.nan).nanmedian(dim=1).values.nan_to_num(0.0)
        size = median.clamp(min=1e-30).log10()
        if (bad := (median > 0) & ((size < SCALE_RANGE[0] - 3) | (size > SCALE_RANGE[1] + 3))).any():
            row = int(bad.nonzero()[0])
            msg = (
                f"row {row}: the median of |flux| is {median[row].item():.3g} in units of 1e-17 erg/s/cm2/A, far from "
                "any spectrum: is it in erg/s/cm2/A? give its unit to aion.io.from_quantity"
            )
            raise ValueError(msg)
        level = (size - SCALE_RANGE[0]) / (SCALE_RANGE[1] - SCALE_RANGE[0])
        return (level * self.scale_bins).floor().long().clamp(0, self.scale_bins - 1)

    def _scale(self, scale_ids: Tensor) -> Tensor:
        """Returns the flux scale `(B,)` that an id stands for, the centre of its bin."""
        level = (scale_ids.float() + 0.5) / self.scale_bins
        return 10.0 ** (SCALE_RANGE[0] + level * (SCALE_RANGE[1] - SCALE_RANGE[0]))

    def _position(self, batch: int, device: torch.device) -> Tensor:
        rung = torch.arange(-1, self.rungs, device=device, dtype=torch.float32)
        position = torch.stack([(rung < 0).float(), rung.clamp(min=0)], dim=-1)
        return position.expand(batch, -1, -1)

    def _unpack(self, tokens: Tokens) -> tuple[Tensor, Tensor, Tensor]:
        """Returns codes `(B, R)`, which rungs have one `(B, R)`, and the flux scale `(B,)`, 0 where there is none."""
        if (bad := tokens.valid & ((tokens.ids < 0) | (tokens.ids >= self.size))).any():
            msg = f"spectrum tokens: ids must lie in [0, {self.size}), given {tokens.ids[bad][0].item()}"
            raise ValueError(msg)
        is_scale = tokens.valid & (tokens.ids >= self.quantizer.size)
        is_code = tokens.valid & ~is_scale
        codes = tokens.ids.new_zeros(len(tokens), self.rungs)
        rung = tokens.position[..., 1].long().clamp(0, self.rungs - 1)
        measured = torch.zeros_like(codes, dtype=torch.bool)
        rows = torch.arange(len(tokens), device=codes.device)[:, None].expand_as(rung)
        codes[rows[is_code], rung[is_code]] = tokens.ids[is_code]
        measured[rows[is_code], rung[is_code]] = True
        scale_ids = torch.where(is_scale, tokens.ids - self.quantizer.size, 0).amax(dim=1)
        return codes, measured, self._scale(scale_ids) * is_scale.any(dim=1)
