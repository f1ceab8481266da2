r"""Maps of values from 0 to 1, such as segmentation maps, as one token per patch.

A patch of pixels becomes one of about a thousand codes by finite scalar quantisation; convolutions over patches, before
and after it, let neighbours share what they know of an edge that crosses both. A patch without a measured pixel has
no token and is seen by none.

A value v is the probability that the pixel belongs to what is mapped, a share of votes for example, and the decoder's
p is held to it by the divergence :math:`v \ln(v/p) + (1 - v) \ln((1 - v)/(1 - p))` of each measured pixel, which is 0
for the right answer and only for that.

References:
    | AION-1: Omnimodal Foundation Model for Astronomical Sciences (Parker et al., 2025), arXiv 2510.17960
    | Finite Scalar Quantization: VQ-VAE Made Simple (Mentzer et al., 2023), arXiv 2309.15505
"""

__all__ = ["FieldTokenizer"]

import math

from collections.abc import Sequence

import torch
import torch.nn.functional as F

from torch import Tensor, nn

from aion.field import Field
from aion.nn.attention import layer_norm
from aion.nn.convolution import ConvBlock2d
from aion.nn.quantize import FSQ
from aion.tokenizers.base import Tokenizer, spread_penalty
from aion.tokenizers.patches import Patches
from aion.tokens import Tokens


class FieldTokenizer(Tokenizer):
    """Tokenizes maps of any size on their native pixels.

    Arguments:
        patch: pixels on the side of a patch.
        width: channels of the convolutions.
        depth: number of residual blocks in the encoder and in the decoder.
        levels: levels of the quantiser, see `aion.nn.quantize.FSQ`; 1000 codes by default.
    """

    kind = "field"
    observation = Field

    def __init__(self, patch: int = 8, width: int = 96, depth: int = 2, levels: Sequence[int] = (8, 5, 5, 5)) -> None:
        super().__init__(patch=patch, width=width, depth=depth, levels=list(levels))
        if patch < 1:
            msg = f"FieldTokenizer: wanted a patch of at least 1 pixel, given {patch}"
            raise ValueError(msg)
        self.patch = patch
        self.quantizer = FSQ(levels)
        self.patches = Patches([patch], [self.quantizer.size])
        self.stem = nn.Conv2d(2, width, patch, stride=patch)
        self.encoder = nn.ModuleList(ConvBlock2d(width) for _ in range(depth))
        self.latent_norm = layer_norm(width)
        self.to_latent = nn.Linear(width, len(levels))
        self.from_latent = nn.Linear(len(levels), width)
        self.decoder = nn.ModuleList(ConvBlock2d(width) for _ in range(depth))
        self.pixels_norm = layer_norm(width)
        self.to_pixels = nn.Linear(width, patch**2)

    @property
    def size(self) -> int:
        """Returns the number of ids."""
        return self.quantizer.size

    def describe(self) -> str:
        """Says in a few words what is read and how."""
        return f"Field of values from 0 to 1, one of {self.size} codes per {self.patch} x {self.patch} pixels"

    def encode(self, observation: Field) -> Tokens:
        """Turns maps into one token per patch, `(B, rows * columns)`, at its (row, column) offset in arcsec.

        Raises:
            TypeError: for another kind of observation.
            ValueError: for values beyond 0 to 1, named by their row.
        """
        latent, measured = self._encode(*self._prepare(observation))
        _, ids = self.quantizer(latent.movedim(1, -1))
        valid = measured.flatten(1)
        position = self.patches.position(observation.value.shape[1:], observation.pixel_scale)
        return Tokens(ids.flatten(1).masked_fill(~valid, 0), position, valid)

    def embed(self, observation: Field) -> tuple[Tensor, Tensor]:
        """Returns what is known of each patch before quantisation, `(B, N, d)`, and which patches are measured."""
        latent, measured = self._encode(*self._prepare(observation))
        return (latent.tanh() * measured[:, None]).flatten(2).movedim(1, -1), measured.flatten(1)

    def decode(self, tokens: Tokens, like: Field | None = None) -> Field:
        """Renders tokens on the pixels of `like`, in which order they may come; NaN in patches without a token.

        Raises:
            ValueError: without `like`, for an id that there is not or a token that is no patch of `like`.
        """
        if like is None:
            msg = "field tokens have no grid of their own: give like=, a map with the pixels wanted"
            raise ValueError(msg)
        self.check_tokens(tokens, like)
        shape = like.value.shape[1:]
        ids, measured = self.patches.place(tokens, shape, like.pixel_scale)[0][0]
        value = self._decode(self.quantizer.values(ids).movedim(-1, 1), measured).sigmoid()
        known = measured.repeat_interleave(self.patch, 1).repeat_interleave(self.patch, 2)
        return Field(value.masked_fill(~known, math.nan)[self.patches.window(shape)], like.pixel_scale)

    def loss(self, observation: Field, generator: torch.Generator | None = None) -> dict[str, Tensor]:
        """Computes the divergence of the decoded from the measured pixels."""
        value, known = self._prepare(observation)
        latent, measured = self._encode(value, known)
        values, ids = self.quantizer(latent.movedim(1, -1))
        logits = self._decode(values.movedim(-1, 1), measured)
        count = known.sum().clamp(min=1)
        cross = F.binary_cross_entropy_with_logits(logits, value, reduction="none")
        divergence = ((cross - F.binary_cross_entropy(value, value, reduction="none")) * known).sum() / count
        return {
            "loss": divergence + 0.01 * spread_penalty(latent.movedim(1, -1)[measured]),
            "divergence": divergence,
            "mse": ((logits.sigmoid() - value).square() * known).sum() / count,
            "codes": ids[measured].unique().numel() / torch.tensor(float(self.size)),
        }

    def codebook(self, dim: int = 64) -> Tensor:
        """Returns the code values `(size, d)`."""
        return self.quantizer.values(torch.arange(self.size, device=self.stem.weight.device))

    def _prepare(self, field: Field) -> tuple[Tensor, Tensor]:
        """Returns values `(B, H, W)`, 0 where not measured, and 1 where measured, both padded to whole patches."""
        self.check(field)
        if (bad := (field.value < 0) | (field.value > 1)).any():
            row = int(bad.nonzero()[0, 0])
            msg = f"row {row}: wanted values from 0 to 1, given {field.value[bad][0].item():.4g}"
            raise ValueError(msg)
        return self.patches.pad(field.value.nan_to_num(0)), self.patches.pad(field.measured.float())

    def _encode(self, value: Tensor, known: Tensor) -> tuple[Tensor, Tensor]:
        """Returns latents `(B, d, h, w)` and which patches were measured `(B, h, w)`."""
        measured = F.max_pool2d(known[:, None], self.patch)
        x = self.stem(torch.stack([(2 * value - 1) * known, known], dim=1))
        for block in self.encoder:
            x = block(x, measured)
        return self.to_latent(self.latent_norm(x.movedim(1, -1))).movedim(-1, 1), measured[:, 0] > 0

    def _decode(self, values: Tensor, measured: Tensor) -> Tensor:
        """Turns code values `(B, d, h, w)` into log odds `(B, H, W)`."""
        mask = measured[:, None].to(values.dtype)
        x = self.from_latent(values.movedim(1, -1)).movedim(-1, 1) * mask
        for block in self.decoder:
            x = block(x, mask)
        return F.pixel_shuffle(self.to_pixels(self.pixels_norm(x.movedim(1, -1))).movedim(-1, 1), self.patch)[:, 0]
