r"""Images in any subset of the known bands as one token per patch.

Flux is compressed as :math:`\mathrm{asinh}(f/s_b)` with a softening :math:`s_b` per band, fitted once to the noise of
the survey. A band that was not measured contributes nothing, and the sum over bands is rescaled by
:math:`\sqrt{C/C_\mathrm{present}}` in each patch so that its size does not tell how many bands there are. A patch
without any measured pixel has no token.

References:
    | AION-1: Omnimodal Foundation Model for Astronomical Sciences (Parker et al., 2025), arXiv 2510.17960
"""

__all__ = ["ImageTokenizer"]

import math

from collections.abc import Sequence

import torch
import torch.nn.functional as F

from torch import Tensor, nn

from aion.nn.attention import layer_norm
from aion.nn.convolution import ConvBlock2d
from aion.nn.quantize import FSQ
from aion.observations import BANDS, Image, near_miss
from aion.tokenizers.base import Tokenizer, gaussian_nll, spread_penalty
from aion.tokens import Tokens


class ImageTokenizer(Tokenizer):
    """Tokenizes multi-band images on their native pixels.

    Arguments:
        bands: names of the bands it can read, see `aion.observations.BANDS`.
        patch: pixels on the side of a patch.
        width: channels of the convolutions.
        depth: number of residual blocks in the encoder and in the decoder.
        levels: levels of the quantiser, see `aion.nn.quantize.FSQ`.
    """

    kind = "image"
    observation = Image

    def __init__(
        self,
        bands: Sequence[str] = ("decam-g", "decam-r", "decam-i", "decam-z"),
        patch: int = 8,
        width: int = 96,
        depth: int = 2,
        levels: Sequence[int] = (7, 5, 5, 5, 5),
    ) -> None:
        super().__init__(bands=list(bands), patch=patch, width=width, depth=depth, levels=list(levels))
        for band in bands:
            if band not in BANDS:
                msg = f"ImageTokenizer: unknown band {band!r}; {near_miss(band, BANDS)}"
                raise ValueError(msg)
        self.bands, self.patch = tuple(bands), patch
        channels = len(self.bands)
        self.register_buffer("softening", torch.full((channels,), 0.01))
        self.quantizer = FSQ(levels)
        self.stem = nn.Conv2d(channels, width, patch, stride=patch, bias=False)
        self.encoder = nn.ModuleList(ConvBlock2d(width) for _ in range(depth))
        self.latent_norm = layer_norm(width)
        self.to_latent = nn.Linear(width, len(levels))
        self.from_latent = nn.Linear(len(levels), width)
        self.decoder = nn.ModuleList(ConvBlock2d(width) for _ in range(depth))
        self.pixels_norm = layer_norm(width)
        self.to_pixels = nn.Linear(width, channels * (patch**2 + 1))

    @property
    def size(self) -> int:
        """Returns the number of ids."""
        return self.quantizer.size

    def describe(self) -> str:
        """Says in a few words what is read and how."""
        return f"Image in {', '.join(self.bands)}, one of {self.size} codes per {self.patch} x {self.patch} pixels"

    def fit(self, image: Image) -> "ImageTokenizer":
        """Sets the softening of each band to the median error of its measured pixels; bands not seen keep theirs."""
        for i, band in enumerate(image.bands):
            ivar = image.ivar[:, i][image.ivar[:, i] > 0]
            if ivar.numel() and band in self.bands:
                self.softening[self.bands.index(band)] = ivar.median().rsqrt()
        return self

    def encode(self, observation: Image) -> Tokens:
        """Turns images into one token per patch, `(B, rows * columns)`, at its (row, column) offset in arcsec.

        Raises:
            ValueError: for a band the tokenizer does not read, with the near misses.
        """
        latent, measured = self._encode(*self._prepare(observation))
        _, ids = self.quantizer(latent.movedim(1, -1))
        valid = measured.flatten(1)
        return Tokens(
            ids=ids.flatten(1).masked_fill(~valid, 0),
            position=self._position(observation, measured.shape[1:]),
            valid=valid,
        )

    def embed(self, observation: Image) -> tuple[Tensor, Tensor]:
        """Returns what is known of each patch before quantisation, `(B, N, d)`, and which patches are measured."""
        latent, measured = self._encode(*self._prepare(observation))
        return (latent.tanh() * measured[:, None]).flatten(2).movedim(1, -1), measured.flatten(1)

    def decode(self, tokens: Tokens, like: Image | None = None) -> Image:
        """Renders tokens in the bands and on the pixels of `like`; ivar is 0 in patches without a token.

        Raises:
            ValueError: without `like`, for a band not read, or for a number of tokens that does not fit its pixels.
        """
        if like is None:
            msg = "image tokens have no grid of their own: give like=, an image with the pixels and bands wanted"
            raise ValueError(msg)
        channel = [self._channel(band) for band in like.bands]
        grid = self._grid(like.flux.shape[2:])
        if tokens.ids.shape[1] != math.prod(grid):
            msg = f"image tokens: {tokens.ids.shape[1]} tokens do not fill the {grid[0]} x {grid[1]} patches of like"
            raise ValueError(msg)
        if (bad := tokens.valid & ((tokens.ids < 0) | (tokens.ids >= self.size))).any():
            msg = f"image tokens: ids must lie in [0, {self.size}), given {tokens.ids[bad][0].item()}"
            raise ValueError(msg)
        measured = tokens.valid.unflatten(1, grid)
        values = self.quantizer.values(tokens.ids.unflatten(1, grid)).movedim(-1, 1)
        flux, error = self._decode(values, measured)
        top, left = self._margins(like.flux.shape[2:])
        window = (..., slice(top, top + like.flux.shape[2]), slice(left, left + like.flux.shape[3]))
        known = self._pixels(measured)[window].expand(-1, len(channel), -1, -1)
        ivar = torch.where(known, error[window][:, channel] ** -2, 0.0)
        return Image(flux[window][:, channel], ivar, like.bands, like.pixel_scale)

    def loss(self, observation: Image, generator: torch.Generator | None = None) -> dict[str, Tensor]:
        """Computes the likelihood of the measured pixels."""
        flux, ivar = self._prepare(observation)
        latent, measured = self._encode(flux, ivar)
        values, ids = self.quantizer(latent.movedim(1, -1))
        model, error = self._decode(values.movedim(-1, 1), measured)
        residual = (flux - model) * (ivar > 0)
        count = (ivar > 0).sum().clamp(min=1)
        likelihood = gaussian_nll(residual, ivar, error).sum() / count
        return {
            "loss": likelihood + 0.1 * spread_penalty(latent.movedim(1, -1)[measured]),
            "likelihood": likelihood,
            "chi2": (residual.square() * ivar).sum() / count,
            "codes": ids[measured].unique().numel() / torch.tensor(float(self.size)),
        }

    def codebook(self, dim: int = 64) -> Tensor:
        """Returns the code values `(size, d)`."""
        return self.quantizer.values(torch.arange(self.size, device=self.softening.device))

    def _channel(self, band: str) -> int:
        if band not in self.bands:
            msg = f"this image tokenizer does not read {band!r}; {near_miss(band, self.bands)}"
            raise ValueError(msg)
        return self.bands.index(band)

    def _grid(self, shape: Sequence[int]) -> tuple[int, int]:
        """Returns the number of rows and columns of patches: even, so that a patch begins at the middle pixel n // 2.

        The patches of a stamp are then the same whatever margin it is stacked or padded with.
        """
        rows, columns = (2 * math.ceil(math.ceil(n / 2) / self.patch) for n in shape)
        return rows, columns

    def _margins(self, shape: Sequence[int]) -> tuple[int, int]:
        """Returns how many unmeasured rows and columns go before the image."""
        rows, columns = self._grid(shape)
        return rows * self.patch // 2 - shape[0] // 2, columns * self.patch // 2 - shape[1] // 2

    def _prepare(self, image: Image) -> tuple[Tensor, Tensor]:
        """Puts flux and ivar into the channels known here, padded to whole patches."""
        self.check(image)
        channel = [self._channel(band) for band in image.bands]
        height, width = image.flux.shape[2:]
        (rows, columns), (top, left) = self._grid((height, width)), self._margins((height, width))
        shape = (len(image), len(self.bands), rows * self.patch, columns * self.patch)
        flux, ivar = image.flux.new_zeros(shape), image.flux.new_zeros(shape)
        flux[:, channel, top : top + height, left : left + width] = image.flux
        ivar[:, channel, top : top + height, left : left + width] = image.ivar
        return flux, ivar

    def _encode(self, flux: Tensor, ivar: Tensor) -> tuple[Tensor, Tensor]:
        """Returns latents `(B, d, h, w)` and which patches were measured `(B, h, w)`."""
        known = (ivar > 0).to(flux.dtype)
        compressed = (flux / self.softening[:, None, None]).clamp(-1e30, 1e30).asinh() * known  # never infinite
        share = F.avg_pool2d(known, self.patch).sum(1, keepdim=True)  # bands present in each patch
        measured = share > 0
        gain = (len(self.bands) / share.clamp(min=1e-6)).sqrt() * measured
        mask = measured.to(flux.dtype)
        x = self.stem(compressed) * gain
        for block in self.encoder:
            x = block(x, mask)
        return self.to_latent(self.latent_norm(x.movedim(1, -1))).movedim(-1, 1), measured[:, 0]

    def _decode(self, values: Tensor, measured: Tensor) -> tuple[Tensor, Tensor]:
        """Turns code values `(B, d, h, w)` into flux and its error `(B, C, H, W)` in nanomaggy."""
        mask = measured[:, None].to(values.dtype)
        x = self.from_latent(values.movedim(1, -1)).movedim(-1, 1) * mask
        for block in self.decoder:
            x = block(x, mask)
        out = self.to_pixels(self.pixels_norm(x.movedim(1, -1))).movedim(-1, 1).unflatten(1, (len(self.bands), -1))
        softening = self.softening[:, None, None]
        pixels = F.pixel_shuffle(out[:, :, :-1].flatten(1, 2), self.patch)
        error = out[:, :, -1].clamp(-7, 7).exp().repeat_interleave(self.patch, -1).repeat_interleave(self.patch, -2)
        return pixels.clamp(-12, 12).sinh() * softening, error * softening

    def _pixels(self, measured: Tensor) -> Tensor:
        return measured[:, None].repeat_interleave(self.patch, -1).repeat_interleave(self.patch, -2)

    def _position(self, image: Image, grid: Sequence[int]) -> Tensor:
        """Returns the offset of each patch from the centre of the image in arcsec, `(B, h * w, 2)`."""
        axes = [torch.arange(n, device=image.device) - (n - 1) / 2 for n in grid]
        offset = torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1).flatten(0, 1) * self.patch
        return offset * image.pixel_scale[:, None, None]
