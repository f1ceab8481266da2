r"""One octave of an image tokenizer: patches of one size, what they add to coarser ones, and the error left.

With the flux f, its inverse variance w and what the coarser octaves say, a model m with the error e (at the coarsest
m = 0 and e = s, the softening), the network sees :math:`\mathrm{asinh}((f - m)/e)` times the Wiener weight
:math:`1 - 1/(1 + w q)`, where q is the power to be expected of :math:`f - m`: :math:`e^2`, at the coarsest
:math:`s^2 + f^2`. A pixel that was not measured has the weight 0. The decoder answers with numbers d, a and b for each
band: :math:`m' = m + e\sinh d` and :math:`e'^2 = (e\,\mathrm{exp}\,a)^2 + (m'\,\mathrm{exp}\,b)^2`, a floor and a share
of the flux. So every octave works in units of the error of the one before, which whoever decodes knows too.
"""

__all__ = ["LARGEST", "Octave", "State"]

from collections.abc import Sequence
from dataclasses import dataclass

import torch.nn.functional as F

from torch import Tensor, nn

from aion.nn.activation import asinh
from aion.nn.attention import layer_norm
from aion.nn.convolution import ConvBlock2d
from aion.tokenizers.bands import BandWeights

_USUAL_BANDS = 4  # the sum over bands is scaled to that of as many
LARGEST = 1e18  # nanomaggy; its square is finite


@dataclass(frozen=True, eq=False)
class State:
    """Holds what is known after an octave.

    Arguments:
        model: flux in nanomaggy, `(B, C, H, W)`.
        error: its error, same shape.
        noise: usual noise of each band, `(C, 1, 1)`.
        context: features of the decoder of the last octave, `(B, D, h, w)`; None before the first.
    """

    model: Tensor
    error: Tensor
    noise: Tensor
    context: Tensor | None = None


class Octave(nn.Module):
    """Encodes and decodes all patches of one size together.

    Arguments:
        bands: names of the bands with corrections of their own.
        patch: pixels on the side of a patch.
        width: features of a patch.
        latent: dimensions of the latent.
        basis: number of functions of wavelength, see `BandWeights`.
        informed: whether the network is told the noise and the size of the pixels.
        depth: number of residual blocks in the encoder and in the decoder.
        coarser: features of the octave before; 0 for the first.
        times: patches along the side of one of the octave before: 2, or 1 for another look at patches of that size.
    """

    def __init__(
        self,
        bands: Sequence[str],
        patch: int,
        width: int,
        latent: int,
        basis: int,
        informed: bool,
        depth: int,
        coarser: int = 0,
        times: int = 1,
    ) -> None:
        super().__init__()
        self.patch, self.width, self.times = patch, width, times
        self.stem = BandWeights(bands, (width, patch, patch), _USUAL_BANDS * patch**2, basis)
        self.noise = BandWeights(bands, (width,), _USUAL_BANDS, basis) if informed else None
        self.to_latent = nn.Linear(width, latent)
        self.from_latent = nn.Linear(latent, width)
        self.head = BandWeights(bands, (patch**2 + 2, width), width, basis)
        self.head_bias = BandWeights(bands, (patch**2 + 2,), width, basis)
        self.scale = nn.Linear(1, 2 * width, bias=False) if informed else None
        self.expand = nn.Linear(coarser, times**2 * width) if coarser else None
        self.encoder = nn.ModuleList(ConvBlock2d(width) for _ in range(depth))
        self.decoder = nn.ModuleList(ConvBlock2d(width) for _ in range(depth))
        self.latent_norm, self.pixels_norm = layer_norm(width), layer_norm(width)

    def signal(self, flux: Tensor, ivar: Tensor, state: State) -> tuple[Tensor, Tensor]:
        """Returns the residual in units of its expected error, weighted by the noise, and the weight."""
        residual = (flux - state.model).clamp(-LARGEST, LARGEST)
        weight = (ivar > 0).to(flux.dtype)
        if self.noise is not None:
            power = state.error.square() + (residual.square() if state.context is None else 0)
            weight = 1 - 1 / (1 + power * ivar)
        return asinh(residual / state.error) * weight, weight

    def answer(self, x: Tensor, bands: Sequence[str], shift: Tensor | None) -> Tensor:
        """Turns features `(..., D)` into the numbers of every band, `(..., C, p * p + 2)`."""
        weights, bias = self.head(bands, shift), self.head_bias(bands, shift)
        return F.linear(x, weights.flatten(0, 1), bias.flatten()).unflatten(-1, (len(bands), -1))

    def pixels(self, patches: Tensor) -> Tensor:
        """Repeats what there is for each patch `(..., h, w)` for each of its pixels."""
        return patches.repeat_interleave(self.patch, -1).repeat_interleave(self.patch, -2)

    def update(self, model: Tensor, error: Tensor, change: Tensor, floor: Tensor, share: Tensor) -> tuple[Tensor, ...]:
        """Returns the new model and its error."""
        model = model + error * change.clamp(-12, 12).sinh()
        floor, share = error * floor.clamp(-7, 7).exp(), model * share.clamp(-20, 2).exp()
        return model, (floor.square() + share.square()).sqrt()

    def told(self, state: State, scale: Tensor) -> tuple[Tensor | float, Tensor | float]:
        """Returns what encoder and decoder know beforehand: coarser features and the size of the pixels `(B,)`."""
        encoder, decoder = 0.0, 0.0
        if self.expand is not None:
            fine = F.pixel_shuffle(self.expand(state.context.movedim(1, -1)).movedim(-1, 1), self.times)
            encoder, decoder = fine, fine
        if self.scale is not None:
            told = self.scale(scale.log()[:, None])[..., None, None].chunk(2, dim=1)
            encoder, decoder = encoder + told[0], decoder + told[1]
        return encoder, decoder

    def encode(
        self,
        flux: Tensor,
        ivar: Tensor,
        kept: Tensor,
        state: State,
        mask: Tensor,
        scale: Tensor,
        bands: Sequence[str],
        shift: Tensor | None = None,
    ) -> Tensor:
        """Returns latents `(M, d)` of the M patches `kept` `(B, h, w)`; `mask` `(B, 1, h, w)` is 1 where measured."""
        signal, weight = self.signal(flux, ivar, state)
        # bands present in each patch
        share = F.avg_pool2d((ivar > 0).to(flux.dtype), self.patch).sum(1, keepdim=True)
        x = F.conv2d(signal, self.stem(bands, shift).movedim(0, 1), stride=self.patch)
        if self.noise is not None:
            x = x + F.conv2d(F.avg_pool2d(weight, self.patch), self.noise(bands, shift).T[..., None, None])
        x = x * (_USUAL_BANDS / share.clamp(min=1e-6)).sqrt() * (share > 0) + self.told(state, scale)[0]
        for block in self.encoder:
            x = block(x, mask)
        return self.to_latent(self.latent_norm((x * mask).movedim(1, -1)[kept]))

    def decode(
        self,
        values: Tensor,
        kept: Tensor,
        state: State,
        mask: Tensor,
        scale: Tensor,
        bands: Sequence[str],
        shift: Tensor | None = None,
    ) -> State:
        """Adds what the codes `(M, d)` of the M tokens `kept` `(B, h, w)` say."""
        x = values.new_zeros(*kept.shape, self.width)
        x[kept] = self.from_latent(values)
        x = x.movedim(-1, 1) + self.told(state, scale)[1]
        for block in self.decoder:
            x = block(x, mask)
        x = x * mask
        out = self.answer(self.pixels_norm(x.movedim(1, -1)), bands, shift).movedim((-2, -1), (1, 2))
        change = F.pixel_shuffle(out[:, :, :-2].flatten(1, 2), self.patch)
        floor, share = (self.pixels(out[:, :, k]) for k in (-2, -1))
        return State(*self.update(state.model, state.error, change, floor, share), state.noise, x)
