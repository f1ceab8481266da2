r"""Segmentation maps as the published checkpoints read them: 96 x 96 pixels from 0 to 1, 12 x 12 tokens.

A convolutional encoder that halves the grid three times, finite scalar quantisation and a decoder that ends in a
sigmoid. The names of the parameters are those of the published files.

References:
    | AION-1: Omnimodal Foundation Model for Astronomical Sciences (Parker et al., 2025), arXiv 2510.17960
    | Finite Scalar Quantization: VQ-VAE Made Simple (Mentzer et al., 2023), arXiv 2309.15505
"""

__all__ = ["OfficialFieldTokenizer"]

import itertools
import math

from collections.abc import Sequence

import torch
import torch.nn.functional as F

from torch import Tensor, nn

from aion.field import Field
from aion.official.grid import PIXELS, chunked, place, places, window
from aion.official.quantize import check_levels, published_fsq
from aion.official.tokenizer import PublishedTokenizer
from aion.tokens import Tokens

# Published arguments that say nothing about a trained tokenizer.
TRAINING = {
    "begin_cosine_annealing",
    "ema_decay",
    "ema_update_freq",
    "lr",
    "lr_cosine_period",
    "lr_warmup",
    "quantisation_loss_weight",
}


class OfficialFieldTokenizer(PublishedTokenizer):
    """Tokenizes maps of values from 0 to 1 on a grid of 12 x 12 tokens of 8 x 8 pixels.

    Larger maps are cropped to their central 96 x 96 pixels, smaller ones centred in unmeasured pixels, which the
    network sees as 0. A token without a measured pixel is not valid; with `parity=True` all are, and values are not
    checked.

    Arguments:
        encoder_output_dim: channels at the end of the encoder.
        decoder_input_dim: channels at the start of the decoder; None for those of the encoder.
        embedding_dim: dimensions of the latent; as many as there are levels.
        res_hidden_dims: channels within a residual layer.
        num_res_layers: number of residual layers.
        num_downsamples: how many times the grid is halved.
        variational: must be False.
        output_activation_extension: how far beyond 0 and 1 the sigmoid is stretched; what lies beyond is cut.
        ema_model_weights: whether a file holds, beside the weights, running means of them; they are kept, not used.
        levels: levels of the quantiser.
        vocabulary: see `PublishedTokenizer`.
        parity: see above.
        training: published arguments that only training uses; they are kept.

    Raises:
        ValueError: for a number of levels that is not `embedding_dim`, or a variational latent, which has no published
            use.
        TypeError: for arguments that are not in the published configuration.
    """

    kind = "official-field"
    codec = "ScalarFieldCodec"
    observation = Field

    def __init__(
        self,
        encoder_output_dim: int,
        decoder_input_dim: int | None = None,
        embedding_dim: int | None = None,
        res_hidden_dims: int = 64,
        num_res_layers: int = 2,
        num_downsamples: int = 3,
        variational: bool = False,
        output_activation_extension: float | None = None,
        ema_model_weights: bool = False,
        levels: Sequence[int] = (8, 5, 5, 5),
        vocabulary: int | None = None,
        parity: bool = False,
        **training: object,
    ) -> None:
        if unknown := set(training) - TRAINING:
            msg = f"OfficialFieldTokenizer: unknown arguments {sorted(unknown)}"
            raise TypeError(msg)
        super().__init__(
            encoder_output_dim=encoder_output_dim,
            decoder_input_dim=decoder_input_dim,
            embedding_dim=embedding_dim,
            res_hidden_dims=res_hidden_dims,
            num_res_layers=num_res_layers,
            num_downsamples=num_downsamples,
            variational=variational,
            output_activation_extension=output_activation_extension,
            ema_model_weights=ema_model_weights,
            levels=list(levels),
            vocabulary=vocabulary,
            parity=parity,
            **training,
        )
        latent = embedding_dim or encoder_output_dim
        if variational or latent != len(levels):
            msg = (
                f"OfficialFieldTokenizer: wanted as many levels as dimensions and no variational latent, given "
                f"{latent}, {list(levels)}, variational={variational}"
            )
            raise ValueError(msg)
        self.grid = (PIXELS // 2**num_downsamples,) * 2
        self.stretch = output_activation_extension or 0.0
        widths = (encoder_output_dim, decoder_input_dim or encoder_output_dim)
        parts = _networks(widths, latent, levels, (res_hidden_dims, num_res_layers, num_downsamples))
        for name, part in parts.items():
            self.add_module(name, part)
        if ema_model_weights:
            again = _networks(widths, latent, levels, (res_hidden_dims, num_res_layers, num_downsamples))
            self.ema = nn.ModuleDict({"module": nn.ModuleDict(again)})

    @property
    def codes(self) -> int:
        """Returns the number of ids that the quantiser makes."""
        return self.quantizer.size

    def describe(self) -> str:
        """Says in a few words what is read and how."""
        patch = PIXELS // self.grid[0]
        return f"Field of {PIXELS} x {PIXELS} pixels, one of {self.codes} codes per {patch} x {patch}"

    def verify(self) -> None:
        """Refuses a quantiser in the file that is not that of the configuration."""
        super().verify()
        check_levels(self.quantizer, self.config["levels"])

    @torch.no_grad()
    def encode(self, observation: Field) -> Tokens:
        """Turns maps into tokens `(B, rows * columns)` at their (row, column).

        Raises:
            ValueError: for values beyond 0 to 1, unless in parity mode.
        """
        value, measured = self._prepare(observation)
        ids = chunked(lambda v: self.quantizer(self._encode(v))[1], value).flatten(1)
        if self.parity:
            valid = torch.ones_like(ids, dtype=torch.bool)
        else:
            valid = F.max_pool2d(measured.float(), PIXELS // self.grid[0]).flatten(1) > 0
        return Tokens(ids.masked_fill(~valid, 0), places(self.grid, ids), valid)

    @torch.no_grad()
    def decode(self, tokens: Tokens, like: Field | None = None) -> Field:
        """Renders tokens on the pixels of `like`, or on 96 x 96; NaN where there is no token.

        Raises:
            ValueError: for an id beyond the vocabulary or a place beyond the grid.
        """
        self.check_tokens(tokens, like)
        ids, valid = place(tokens, self.grid)
        values = self.quantizer.values(ids.clamp(max=self.codes - 1)) * valid[..., None]
        value = chunked(lambda v: self._decode(v.unflatten(1, self.grid)), values)
        patch = PIXELS // self.grid[0]
        known = valid.unflatten(1, self.grid).repeat_interleave(patch, 1).repeat_interleave(patch, 2)
        value = value.masked_fill(~known, math.nan)
        return Field(value) if like is None else Field(window(value, like.value.shape[1:], math.nan), like.pixel_scale)

    def loss(self, observation: Field, generator: torch.Generator | None = None) -> dict[str, Tensor]:
        """Computes the mean squared error over measured pixels."""
        value, measured = self._prepare(observation)
        error = (self._decode(self.quantizer(self._encode(value))[0]) - value[:, 0]) * measured
        return {"loss": error.square().sum() / measured.sum().clamp(min=1)}

    def codebook(self, dim: int = 64) -> Tensor:
        """Returns the code values `(size, d + 1)`."""
        return self._book(self.quantizer.values(torch.arange(self.codes, device=self.encode_proj.weight.device)))

    def _prepare(self, field: Field) -> tuple[Tensor, Tensor]:
        """Returns values `(B, 1, 96, 96)`, 0 where not measured, and which are measured `(B, 96, 96)`."""
        self.check(field)
        value = field.value
        if not self.parity and (bad := (value < 0) | (value > 1)).any():
            row = int(bad.nonzero()[0, 0])
            msg = f"row {row}: wanted values from 0 to 1, given {value[bad][0].item():.4g}"
            raise ValueError(msg)
        value = window(value, (PIXELS, PIXELS), math.nan)
        return value.nan_to_num(0.0)[:, None], ~torch.isnan(value)

    def _encode(self, value: Tensor) -> Tensor:
        """Returns latents `(B, h, w, d)` in float32, under any autocast of what lies before."""
        x = self.encoder["net"](value.contiguous(memory_format=torch.channels_last)).movedim(1, -1)
        with torch.autocast(value.device.type, enabled=False):
            return F.linear(x.float(), self.encode_proj.weight.flatten(1), self.encode_proj.bias)

    def _decode(self, values: Tensor) -> Tensor:
        """Turns code values `(B, h, w, d)` into values `(B, 96, 96)`."""
        x = F.linear(values, self.decode_proj.weight.flatten(1), self.decode_proj.bias).movedim(-1, 1)
        value = self.decoder["net"](x)[:, 0].float().sigmoid()
        return ((1 + 2 * self.stretch) * value - self.stretch).clamp(0, 1)


def _networks(
    widths: tuple[int, int], latent: int, levels: Sequence[int], shape: tuple[int, int, int]
) -> dict[str, nn.Module]:
    """Makes encoder, decoder, projections to and from the latent, and quantiser."""
    hidden, layers, halvings = shape
    (high, wide), down, up = widths, [], []
    channels = [1, *(high // 2 ** (halvings - 1 - i) for i in range(halvings))]
    for a, b in itertools.pairwise(channels):
        down += [nn.Conv2d(a, b, 4, stride=2, padding=1), nn.ReLU()]
    # The widths grow towards full resolution: that is how they were published.
    channels = [wide, *(wide // 2 ** (halvings - 1 - i) for i in range(halvings - 1)), 1]
    for a, b in itertools.pairwise(channels):
        up += [nn.ReLU(), nn.ConvTranspose2d(a, b, 4, stride=2, padding=1)]
    encoder = nn.Sequential(*down, nn.Conv2d(high, high, 3, padding=1), _Residual(high, hidden, layers))
    decoder = nn.Sequential(nn.ConvTranspose2d(wide, wide, 3, padding=1), _Residual(wide, hidden, layers), *up)
    return {
        "encode_proj": nn.Conv2d(high, latent, 1),
        "decode_proj": nn.Conv2d(latent, wide, 1),
        "quantizer": published_fsq(levels),
        "encoder": nn.ModuleDict({"net": encoder}),
        "decoder": nn.ModuleDict({"net": decoder}),
    }


class _Residual(nn.Module):
    """Adds residual layers one after the other."""

    def __init__(self, width: int, hidden: int, layers: int) -> None:
        super().__init__()
        self.net = nn.Sequential(*(_ResidualLayer(width, hidden) for _ in range(layers)))

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)


class _ResidualLayer(nn.Module):
    """Adds what a 3 x 3 and a 1 x 1 convolution make of its input."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.net = nn.Sequential(
            nn.ReLU(),
            nn.Conv2d(width, hidden, 3, padding=1),
            nn.BatchNorm2d(hidden),
            nn.ReLU(),
            nn.Conv2d(hidden, width, 1),
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.net(x)
