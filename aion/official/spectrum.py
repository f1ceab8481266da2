r"""Spectra as the published checkpoints read them: 8704 pixels of 0.8 Angstrom from 3500 Angstrom on, 273 tokens.

Flux and the root of its inverse variance are divided by a scale, interpolated linearly to the fixed grid and compressed
by asinh. The scale is the mean of the measured flux, m, in 1024 steps of :math:`\log_{10}(m+1)`; its step is the first
token. A convolutional encoder gives the other 272, one for each 32 pixels of the grid: the signs of ten numbers.

References:
    | AION-1: Omnimodal Foundation Model for Astronomical Sciences (Parker et al., 2025), arXiv 2510.17960
"""

__all__ = ["OfficialSpectrumTokenizer", "interpolate"]

import math

from collections.abc import Sequence

import torch
import torch.nn.functional as F

from torch import Tensor, nn

from aion.observations import Spectrum
from aion.official.convnext import ConvNeXtDecoder, ConvNeXtEncoder
from aion.official.grid import chunked, place, places
from aion.official.quantize import LookupFree
from aion.official.tokenizer import PublishedTokenizer
from aion.tokens import Tokens

LOWEST = 0.1  # of the flux scale
FAR = 99999.0  # wavelength in Angstrom of the pixel that padding adds


class OfficialSpectrumTokenizer(PublishedTokenizer):
    """Tokenizes spectra on a fixed grid, as the step of the flux scale and one token for each 32 pixels.

    The published network sees pixels that were not measured as zero flux with zero inverse variance, like those beyond
    the ends of the spectrum that `padding` adds. A token is valid if anything measured reached its pixels.

    With `padding=True` the grid beyond the red end of a spectrum is filled by the line from its last pixel to zero flux
    at 99999 Angstrom, as in later versions of the published package and, from what is known, in the spectra that the
    network was trained on. (They pad DESI to 7808 pixels and SDSS to 4800; the number has no effect.) By default it is
    filled by zeros, as in version 0.0.2. Tokens beyond the red end differ, and a few per cent of the others.

    With `parity=True` every token is valid.

    Arguments:
        encoder_depths: number of blocks of each stage of the encoder.
        encoder_dims: channels of each stage of the encoder.
        decoder_depths: number of blocks of each stage of the decoder.
        decoder_dims: channels of each stage of the decoder; the last is 1 for flux, 2 for flux and mask.
        lambda_min: first wavelength of the grid in Angstrom.
        resolution: step of the grid in Angstrom.
        num_pixels: pixels of the grid.
        latent_channels: channels of the latent before quantisation.
        embedding_dim: numbers that are quantised; `dim`.
        clip_ivar: largest inverse variance.
        clip_flux: largest absolute flux; None for no limit.
        input_scaling: factor on the scaled flux.
        normalization_range: limits of the steps of log10(m + 1).
        codebook_size: number of steps, and of codes: a power of 2.
        dim: numbers that go into the quantiser.
        vocabulary: see `PublishedTokenizer`.
        parity: see above.
        padding: see above.

    Raises:
        ValueError: for widths that do not fit together.
    """

    kind = "official-spectrum"
    codec = "SpectrumCodec"
    observation = Spectrum
    adjustable = PublishedTokenizer.adjustable | {"padding"}

    def __init__(
        self,
        encoder_depths: Sequence[int] = (3, 3, 9, 3),
        encoder_dims: Sequence[int] = (96, 192, 384, 768),
        decoder_depths: Sequence[int] = (3, 3, 9, 3),
        decoder_dims: Sequence[int] = (384, 192, 96, 1),
        lambda_min: float = 3500.0,
        resolution: float = 0.8,
        num_pixels: int = 8704,
        latent_channels: int = 512,
        embedding_dim: int = 4,
        clip_ivar: float | None = 100,
        clip_flux: float | None = None,
        input_scaling: float = 0.2,
        normalization_range: Sequence[float] = (-1, 5),
        codebook_size: int = 1024,
        dim: int = 10,
        vocabulary: int | None = None,
        parity: bool = False,
        padding: bool = False,
    ) -> None:
        super().__init__(
            encoder_depths=list(encoder_depths),
            encoder_dims=list(encoder_dims),
            decoder_depths=list(decoder_depths),
            decoder_dims=list(decoder_dims),
            lambda_min=lambda_min,
            resolution=resolution,
            num_pixels=num_pixels,
            latent_channels=latent_channels,
            embedding_dim=embedding_dim,
            clip_ivar=clip_ivar,
            clip_flux=clip_flux,
            input_scaling=input_scaling,
            normalization_range=list(normalization_range),
            codebook_size=codebook_size,
            dim=dim,
            vocabulary=vocabulary,
            parity=parity,
            padding=padding,
        )
        factor = 4 * 2 ** (len(encoder_dims) - 1)
        if encoder_dims[-1] != latent_channels or embedding_dim != dim or num_pixels % factor:
            msg = (
                "OfficialSpectrumTokenizer: wanted encoder_dims that end in latent_channels, embedding_dim equal to "
                f"dim and num_pixels a multiple of {factor}; given {list(encoder_dims)}, {latent_channels}, "
                f"{embedding_dim}, {dim}, {num_pixels}"
            )
            raise ValueError(msg)
        if decoder_dims[-1] not in {1, 2} or len(decoder_dims) != len(encoder_dims):
            msg = (
                "OfficialSpectrumTokenizer: wanted decoder_dims as many as encoder_dims that end in 1 or 2, "
                f"given {list(decoder_dims)}"
            )
            raise ValueError(msg)
        self.clip_ivar, self.clip_flux, self.scaling, self.padding = clip_ivar, clip_flux, input_scaling, padding
        self.grid = (1, 1 + num_pixels // factor)
        self.encoder = ConvNeXtEncoder(2, encoder_depths, encoder_dims)
        self.decoder = ConvNeXtDecoder(latent_channels, decoder_depths, decoder_dims)
        self.quantizer = nn.Module()
        self.quantizer.quantizer = LookupFree(codebook_size, dim)
        self.normalization_quantizer = nn.Module()
        self.normalization_quantizer.register_buffer("buckets", torch.linspace(*normalization_range, codebook_size))
        self.latent_grid = nn.Module()
        self.latent_grid.register_buffer("lambda_min", torch.tensor(float(lambda_min)))
        self.latent_grid.register_buffer("resolution", torch.tensor(float(resolution)))
        self.latent_grid.register_buffer("length", torch.tensor(num_pixels))
        wavelength = torch.arange(num_pixels, dtype=torch.float32) * resolution + lambda_min
        self.latent_grid.register_buffer("wavelength", wavelength[None])
        self.pre_quant_norm = nn.LayerNorm(latent_channels)
        self.quant_conv = nn.Conv1d(latent_channels, embedding_dim, 1)
        self.post_quant_conv = nn.Conv1d(embedding_dim, latent_channels, 1)

    @property
    def codes(self) -> int:
        """Returns the number of ids of the quantiser, and of steps of the flux scale."""
        return self.config["codebook_size"]

    def describe(self) -> str:
        """Says in a few words what is read and how."""
        first, step, pixels = (self.config[key] for key in ("lambda_min", "resolution", "num_pixels"))
        return (
            f"Spectrum, {first:.0f} to {first + step * (pixels - 1):.0f} A in {pixels} pixels, "
            f"one of {self.codes} codes per {pixels // (self.grid[1] - 1)} pixels and one for the flux scale"
        )

    def verify(self) -> None:
        """Refuses a grid, scale or quantiser in the file that is not that of the configuration."""
        super().verify()
        grid, config = self.latent_grid, self.config
        given = (grid.lambda_min.item(), grid.resolution.item(), grid.length.item())
        wanted = (config["lambda_min"], config["resolution"], config["num_pixels"])
        if any(not math.isclose(a, b, rel_tol=1e-6) for a, b in zip(given, wanted, strict=True)):
            msg = f"latent_grid holds first wavelength, step and length {given}, the configuration says {wanted}"
            raise ValueError(msg)
        for name, value in (("latent_grid.wavelength", grid.wavelength[0]), ("buckets", self._buckets)):
            if not (value.diff() > 0).all():
                msg = f"{name} does not increase: the file is damaged"
                raise ValueError(msg)
        self.quantizer.quantizer.verify()

    @torch.no_grad()
    def encode(self, observation: Spectrum) -> Tokens:
        """Turns spectra into tokens `(B, 273)` at (0, n): the step of the flux scale, then the codes from blue to red.

        Raises:
            ValueError: if a spectrum was measured, but nowhere on the grid.
        """
        grid, step = self._prepare(observation)
        codes = chunked(lambda x: self.quantizer.quantizer.ids(self._encode(x)), grid)
        ids = torch.cat([step[:, None], codes], dim=1)
        if self.parity:
            valid = torch.ones_like(ids, dtype=torch.bool)
        else:
            reached = (grid[..., 1] > 0).unflatten(1, (codes.shape[1], -1)).any(2)
            self._check_reached(observation, reached)
            valid = torch.cat([reached.any(1, keepdim=True), reached], dim=1)
        return Tokens(ids.masked_fill(~valid, 0), places(self.grid, ids), valid)

    @torch.no_grad()
    def decode(self, tokens: Tokens, like: Spectrum | None = None) -> Spectrum:
        """Renders tokens at the wavelengths of `like`, or on the grid.

        The published tokenizer knows no errors: an ivar of 1 says that there is a flux; 0 that the network takes the
        pixel for a bad one, that its token or the flux scale is missing, or that it lies beyond the grid. With
        `parity=True` pixels beyond the grid have the flux of the scale, as the published package gives it.

        Raises:
            ValueError: for an id beyond the vocabulary or a place beyond the grid.
        """
        self.check_tokens(tokens, like)
        ids, valid = place(tokens, self.grid)
        ids = ids.clamp(max=self.codes - 1)
        values = self.quantizer.quantizer.values(ids[:, 1:]) * valid[:, 1:, None]
        channels = chunked(self._decode, values)
        known = (valid[:, 1:] & valid[:, :1]).repeat_interleave(channels.shape[1] // (self.grid[1] - 1), dim=1)
        channels = torch.cat([channels, known[..., None].to(channels.dtype)], dim=-1)
        wavelength = self._wavelength.expand(len(ids), -1)
        if like is not None:
            channels = interpolate(wavelength[:1], channels, like.wavelength)
            wavelength = like.wavelength
        scale = (10 ** self._buckets[ids[:, 0]] - 1).clamp(min=LOWEST)[:, None]
        good = channels[..., -1] > 0.5
        if self.parity:
            good = torch.ones_like(good)
        if channels.shape[-1] == 3:
            good = good & (channels[..., 1].sigmoid().round() == 0)
        return Spectrum((channels[..., 0] + 1) * scale, good.to(scale.dtype), wavelength)

    def loss(self, observation: Spectrum, generator: torch.Generator | None = None) -> dict[str, Tensor]:
        """Computes the mean squared error of the scaled flux where the grid was measured."""
        grid, _ = self._prepare(observation)
        values = self.quantizer.quantizer(self._encode(grid))
        seen = grid[..., 1] > 0
        error = (self._decode(values)[..., 0] - grid[..., 0].sinh() / self.scaling) * seen
        return {"loss": error.square().sum() / seen.sum().clamp(min=1)}

    def codebook(self, dim: int = 64) -> Tensor:
        """Returns the values of the codes `(size, d + 1)`; the steps of the flux scale go by the same ids."""
        return self._book(self.quantizer.quantizer.values(torch.arange(self.codes, device=self._buckets.device)))

    @property
    def _buckets(self) -> Tensor:
        return self.normalization_quantizer.buckets

    @property
    def _wavelength(self) -> Tensor:
        return self.latent_grid.wavelength

    def _check_reached(self, spectrum: Spectrum, reached: Tensor) -> None:
        if (lost := spectrum.measured.any(1) & ~reached.any(1)).any():
            row = int(lost.nonzero()[0])
            seen = spectrum.wavelength[row][spectrum.measured[row]]
            first, last = self._wavelength[0, [0, -1]].tolist()
            msg = (
                f"row {row}: measured from {seen.min().item():.5g} to {seen.max().item():.5g}, but the published "
                f"tokenizer knows {first:.0f} to {last:.0f} Angstrom: is the wavelength in nm or micron? "
                "give its unit to aion.io.from_quantity"
            )
            raise ValueError(msg)

    def _prepare(self, spectrum: Spectrum) -> tuple[Tensor, Tensor]:
        """Returns compressed flux and root of ivar on the grid `(B, L, 2)`, and the step of the scale `(B,)`."""
        self.check(spectrum)
        flux, good = spectrum.flux, spectrum.measured.to(spectrum.flux.dtype)
        if self.clip_flux is not None:
            flux = flux.clamp(-self.clip_flux, self.clip_flux)
        error = spectrum.ivar.clamp(max=self.clip_ivar).sqrt()
        mean = (flux * good).sum(1) / (good.sum(1) + 1)
        level = (mean.clamp(min=LOWEST) + 1).log10()
        step = torch.bucketize(level, self._buckets).clamp(max=self.codes - 1)
        scale = (10 ** self._buckets[step] - 1).clamp(min=LOWEST)[:, None]
        channels = torch.stack([(flux / scale - 1) * self.scaling, error / scale * self.scaling], dim=-1)
        wavelength = spectrum.wavelength
        if wavelength.shape[0] > 1 and torch.equal(wavelength, wavelength[:1].expand_as(wavelength)):
            wavelength = wavelength[:1]  # one grid for all: one search
        if self.padding:
            blank = channels.new_tensor([-self.scaling, 0.0]).expand(len(channels), 1, 2)
            channels = torch.cat([channels, blank], dim=1)
            wavelength = torch.cat([wavelength, wavelength.new_full((len(wavelength), 1), FAR)], dim=1)
        return interpolate(wavelength, channels, self._wavelength).asinh(), step

    def _encode(self, grid: Tensor) -> Tensor:
        """Returns what is quantised, `(B, 272, d)`, in float32, under any autocast of what lies between."""
        x = self.encoder(grid)
        with torch.autocast(grid.device.type, enabled=False):
            return F.linear(self.pre_quant_norm(x.float()), self.quant_conv.weight[..., 0], self.quant_conv.bias)

    def _decode(self, values: Tensor) -> Tensor:
        """Turns values of codes `(B, 272, d)` into scaled flux, and logit of the mask if there is one, on the grid."""
        with torch.autocast(values.device.type, enabled=False):
            x = F.linear(values, self.post_quant_conv.weight[..., 0], self.post_quant_conv.bias)
        return self.decoder(x)


def interpolate(x: Tensor, y: Tensor, at: Tensor) -> Tensor:
    """Interpolates linearly, with 0 outside: y `(B, L, C)` at x `(B or 1, L)`, wanted at `(B or 1, M)`, as `(B, M, C)`.

    Of equal neighbours in x the left one counts to their left and the right one to their right.
    """
    if x.shape[1] == 1:  # a single point is an interval of no width
        x, y = x.expand(-1, 2), y.expand(-1, 2, -1)
    batch, rows = len(y), max(len(x), len(at))
    x, at = x.expand(rows, -1).contiguous(), at.expand(rows, -1).contiguous()
    left = (torch.searchsorted(x, at) - 1).clamp(0, x.shape[1] - 2)
    x0, x1 = x.gather(1, left), x.gather(1, left + 1)
    width = x1 - x0
    share = torch.where(width > 0, (at - x0) / width, 0.0)
    inside = (at >= x[:, :1]) & (at <= x[:, -1:])
    left, share, inside = (v[..., None].expand(batch, -1, y.shape[2]) for v in (left, share, inside))
    y0, y1 = y.gather(1, left), y.gather(1, left + 1)
    return torch.where(inside, y0 + share * (y1 - y0), 0.0)
