r"""Images of the Legacy Surveys and of HSC as the published checkpoints read them: 96 x 96 pixels, 24 x 24 tokens.

Flux is clamped to a limit for each band, compressed as :math:`m\,c\,\mathrm{asinh}(f/c)`, and its C bands are projected
to a few dozen channels by the columns of one matrix that belong to them, times :math:`\sqrt{9/C}`. A convolutional
encoder and finite scalar quantisation do the rest. The limits were set in the unit in which each survey publishes its
images; that of HSC has an AB zero point of 27 and is 63.0957 times smaller than the nanomaggy of `Image`. What the
published package gives for HSC counts is given here for the same image in nanomaggy.

References:
    | AION-1: Omnimodal Foundation Model for Astronomical Sciences (Parker et al., 2025), arXiv 2510.17960
    | Finite Scalar Quantization: VQ-VAE Made Simple (Mentzer et al., 2023), arXiv 2309.15505
"""

__all__ = ["HSC_ZERO_POINT", "LIMITS", "OfficialImageTokenizer"]

from collections.abc import Sequence

import torch
import torch.nn.functional as F

from torch import Tensor, nn

from aion.observations import Image
from aion.official.grid import PIXELS, chunked, place, places, window
from aion.official.magvit import MagViT
from aion.official.quantize import check_levels, published_fsq
from aion.official.tokenizer import PublishedTokenizer
from aion.tokens import Tokens

HSC_ZERO_POINT = 10 ** ((27.0 - 22.5) / 2.5)  # published unit of HSC images per nanomaggy

# Largest |flux| of each band, in the published unit of its survey and in the order of the channels.
LIMITS: dict[str, float] = {
    "hsc-g": 80.0,
    "hsc-r": 110.0,
    "hsc-i": 200.0,
    "hsc-z": 330.0,
    "hsc-y": 500.0,
    "decam-g": 6.0,
    "decam-r": 15.0,
    "decam-i": 20.0,
    "decam-z": 25.0,
}
BANDS = tuple(LIMITS)
SURVEYS = {"hsc_image": "hsc", "legacysurvey_image": "decam"}  # first part of the names of the bands of a modality


class OfficialImageTokenizer(PublishedTokenizer):
    """Tokenizes images in any of nine bands on a grid of 24 x 24 tokens of 4 x 4 pixels.

    Larger images are cropped to their central 96 x 96 pixels, smaller ones centred in unmeasured pixels. Flux beyond
    the limit of its band is clamped. A band that was not measured is the same as one that is absent. A token without a
    measured pixel in any band is not valid. What is not measured inside of an image is seen as zero flux: the published
    network cannot be told. Nor is the pixel scale looked at: the networks know that of each survey only.

    With `parity=True` every band given counts as present and every token is valid, and the unit of the first band is
    taken for that of all, as the published package does with images that mix surveys.

    Arguments:
        quantizer_levels: levels of the quantiser, one for each dimension of the latent.
        hidden_dims: channels of the latent before quantisation.
        multisurvey_projection_dims: channels to which the bands are projected.
        n_compressions: how many times the grid is halved.
        num_consecutive: residual units between two of those.
        embedding_dim: dimensions of the latent; as many as there are levels.
        range_compression_factor: softening c of the flux.
        mult_factor: factor m on the compressed flux.
        vocabulary: see `PublishedTokenizer`.
        parity: see above.

    Raises:
        ValueError: for a number of levels that is not `embedding_dim`, or a width that cannot be halved as often.
    """

    kind = "official-image"
    codec = "ImageCodec"
    observation = Image

    def __init__(
        self,
        quantizer_levels: Sequence[int],
        hidden_dims: int = 512,
        multisurvey_projection_dims: int = 54,
        n_compressions: int = 2,
        num_consecutive: int = 4,
        embedding_dim: int = 5,
        range_compression_factor: float = 0.01,
        mult_factor: float = 10.0,
        vocabulary: int | None = None,
        parity: bool = False,
    ) -> None:
        super().__init__(
            quantizer_levels=list(quantizer_levels),
            hidden_dims=hidden_dims,
            multisurvey_projection_dims=multisurvey_projection_dims,
            n_compressions=n_compressions,
            num_consecutive=num_consecutive,
            embedding_dim=embedding_dim,
            range_compression_factor=range_compression_factor,
            mult_factor=mult_factor,
            vocabulary=vocabulary,
            parity=parity,
        )
        if len(quantizer_levels) != embedding_dim:
            msg = f"OfficialImageTokenizer: {embedding_dim} dimensions need as many levels, given {quantizer_levels}"
            raise ValueError(msg)
        self.softening, self.factor = range_compression_factor, mult_factor
        self.grid = (PIXELS // 2**n_compressions,) * 2
        self.quantizer = published_fsq(quantizer_levels)
        self.subsample_in = nn.Linear(len(BANDS), multisurvey_projection_dims)
        self.subsample_out = nn.Linear(multisurvey_projection_dims, len(BANDS))
        self.model = MagViT(multisurvey_projection_dims, hidden_dims, n_compressions, num_consecutive)
        self.pre_quant_proj = nn.Conv2d(hidden_dims, embedding_dim, 1)
        self.post_quant_proj = nn.Conv2d(embedding_dim, hidden_dims, 1)
        # Weights in the memory order of what they meet: otherwise each call would reorder all of them.
        self.register_load_state_dict_post_hook(_order)
        _order(self)

    @property
    def codes(self) -> int:
        """Returns the number of ids that the quantiser makes."""
        return self.quantizer.size

    def describe(self) -> str:
        """Says in a few words what is read and how."""
        patch = PIXELS // self.grid[0]
        return (
            f"Image in {', '.join(BANDS)}, {PIXELS} x {PIXELS} pixels, one of {self.codes} codes per {patch} x {patch}"
        )

    def verify(self) -> None:
        """Refuses a quantiser in the file that is not that of the configuration."""
        super().verify()
        check_levels(self.quantizer, self.config["quantizer_levels"])

    def check_name(self, name: str, observation: Image) -> None:
        """Refuses an image all of whose bands are of the other survey: the transformer tells the two by their names.

        Raises:
            TypeError: for another kind of observation.
            ValueError: for such an image, with the name that it should have.
        """
        self.check(observation)
        surveys = {band.split("-")[0] for band in observation.bands}
        other = next((key for key, survey in SURVEYS.items() if surveys == {survey}), name)
        if name in SURVEYS and other != name:
            msg = f"its bands are {', '.join(observation.bands)}: give it as {other!r}"
            raise ValueError(msg)

    @torch.no_grad()
    def encode(self, observation: Image) -> Tokens:
        """Turns images into tokens `(B, rows * columns)` at their (row, column).

        Raises:
            ValueError: for a band that the tokenizer does not read.
        """
        flux, measured = self._prepare(observation)
        ids = chunked(lambda f, m: self.quantizer(self._encode(f, m))[1], flux, measured).flatten(1)
        patch = PIXELS // self.grid[0]
        if self.parity:
            valid = torch.ones_like(ids, dtype=torch.bool)
        else:
            valid = F.max_pool2d(measured.any(1).float(), patch).flatten(1) > 0
        return Tokens(ids.masked_fill(~valid, 0), places(self.grid, ids), valid)

    @torch.no_grad()
    def decode(self, tokens: Tokens, like: Image | None = None) -> Image:
        """Renders tokens in the bands and on the pixels of `like`, in nanomaggy.

        The published tokenizer knows no errors: an ivar of 1 says that there is a token, 0 that there is none or that
        the pixel lies outside of the central 96 x 96.

        Raises:
            ValueError: without `like`, for a band not read, an id beyond the vocabulary or a place beyond the grid.
        """
        if like is None:
            msg = "image tokens have no bands of their own: give like=, an image with the pixels and bands wanted"
            raise ValueError(msg)
        channel = [self._channel(band) for band in like.bands]
        self.check_tokens(tokens, like)
        ids, valid = place(tokens, self.grid)
        values = self.quantizer.values(ids.clamp(max=self.codes - 1)) * valid[..., None]
        flux = chunked(lambda v: self._decode(v.unflatten(1, self.grid), channel), values)
        flux = flux.clamp(-80, 80).sinh() * self.softening  # beyond that float32 ends
        known = valid.unflatten(1, self.grid)[:, None].repeat_interleave(PIXELS // self.grid[0], 2)
        known = known.repeat_interleave(PIXELS // self.grid[1], 3).expand_as(flux)
        shape = like.flux.shape[2:]
        return Image(window(flux, shape), window(known.to(flux.dtype), shape), like.bands, like.pixel_scale)

    def loss(self, observation: Image, generator: torch.Generator | None = None) -> dict[str, Tensor]:
        """Computes the mean squared error of the compressed flux over measured pixels."""
        flux, measured = self._prepare(observation)
        values, ids = self.quantizer(self._encode(flux, measured))
        channel = [self._channel(band) for band in observation.bands]
        model = self._decode(values, channel) * (self.softening * self.factor)
        seen = measured[:, channel]
        error = ((model - flux[:, channel]) * seen).square().sum() / seen.sum().clamp(min=1)
        return {"loss": error, "codes": ids.unique().numel() / torch.tensor(float(self.codes))}

    def codebook(self, dim: int = 64) -> Tensor:
        """Returns the code values `(size, d + 1)`."""
        return self._book(self.quantizer.values(torch.arange(self.codes, device=self.subsample_in.weight.device)))

    def _channel(self, band: str) -> int:
        if band not in BANDS:
            msg = f"the published image tokenizer does not read {band!r}, only {', '.join(BANDS)}"
            raise ValueError(msg)
        return BANDS.index(band)

    def _prepare(self, image: Image) -> tuple[Tensor, Tensor]:
        """Puts compressed flux, and which pixels were measured, into the nine channels `(B, 9, 96, 96)`."""
        self.check(image)
        channel = [self._channel(band) for band in image.bands]
        units = [HSC_ZERO_POINT if band.startswith("hsc") else 1.0 for band in image.bands]
        flux = window(image.flux, (PIXELS, PIXELS))
        # The published order of operations, in float32: clamp in the unit of the survey, then divide by the zero point.
        limit, unit = (
            torch.tensor(v, device=flux.device)[:, None, None] for v in ([LIMITS[b] for b in image.bands], units)
        )
        flux = flux.clamp(min=-limit / unit, max=limit / unit)
        if self.parity and len(set(units)) > 1:
            flux = flux * (unit / units[0])
        shape = (len(image), len(BANDS), PIXELS, PIXELS)
        compressed, measured = flux.new_zeros(shape), flux.new_zeros(shape, dtype=torch.bool)
        compressed[:, channel] = (flux / self.softening).asinh() * self.softening * self.factor
        measured[:, channel] = True if self.parity else window(image.measured, (PIXELS, PIXELS))
        return compressed, measured

    def _encode(self, flux: Tensor, measured: Tensor) -> Tensor:
        """Returns latents `(B, h, w, d)` in float32, under any autocast of what lies between."""
        present = measured.flatten(2).any(2).sum(1).to(flux.dtype)  # bands of each image
        gain = torch.where(present > 0, (len(BANDS) / present.clamp(min=1)).sqrt(), 0)[:, None, None, None]
        with torch.autocast(flux.device.type, enabled=False):
            # Nothing but a convolution follows the projection of the bands: both are one convolution of the bands and
            # of a channel of ones, which carries the bias of the projection (and ends, like it, at the border).
            project = torch.cat([self.subsample_in.weight, self.subsample_in.bias[:, None]], dim=1)
            weight = torch.einsum("dcyx,cb->dbyx", self.model.conv_in.conv.weight, project)
            x = torch.cat([flux * gain, gain.expand(-1, 1, *flux.shape[2:])], dim=1)
            x, weight = (v.contiguous(memory_format=torch.channels_last) for v in (x, weight))
            x = F.conv2d(x, weight, self.model.conv_in.conv.bias, padding=weight.shape[-1] // 2)
        x = self.model.encode(x)
        with torch.autocast(flux.device.type, enabled=False):
            return F.linear(x.float(), self.pre_quant_proj.weight.flatten(1), self.pre_quant_proj.bias)

    def _decode(self, values: Tensor, channel: Sequence[int]) -> Tensor:
        """Turns code values `(B, h, w, d)` into asinh of the flux over the softening, in float32, `(B, C, H, W)`."""
        with torch.autocast(values.device.type, enabled=False):
            x = F.linear(values, self.post_quant_proj.weight.flatten(1), self.post_quant_proj.bias)
        x = self.model.decode(x.movedim(-1, 1))
        with torch.autocast(values.device.type, enabled=False):
            project, last = self.subsample_out.weight[channel], self.model.conv_out.conv
            weight = torch.einsum("bc,cdyx->bdyx", project, last.weight).contiguous(memory_format=torch.channels_last)
            bias = project @ last.bias + self.subsample_out.bias[channel]
            x = F.conv2d(x.float(), weight, bias, padding=weight.shape[-1] // 2)
        return x / self.factor / self.softening


def _order(module: nn.Module, *_: object) -> None:
    module.to(memory_format=torch.channels_last)
