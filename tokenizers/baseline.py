r"""The architecture of the published spectrum tokenizer at 12 bits a token, with a loss like that of ours.

A ConvNeXt on a fixed grid of 8704 pixels of 0.8 Angstrom and quantisation by sign, see `aion.official.spectrum`. What
differs: widths, given by the recipe; 4096 codes, so that a DESI spectrum costs 273 tokens of 12 bits; and the loss,
the likelihood of the measured pixels on their native grid with a predicted error, to which the decoder's second
channel is put. As in the paper the latents are drawn to their codes with a weight of a quarter; penalties on their
mean, variance and correlations keep codes in use, as in ours.
"""

__all__ = ["FixedGrid"]

import torch

from torch import Tensor

from aion.observations import Spectrum
from aion.official.grid import place
from aion.official.spectrum import LOWEST, OfficialSpectrumTokenizer, interpolate
from aion.tokenizers.base import correlation_penalty, gaussian_nll, spread_penalty
from aion.tokens import Tokens


class FixedGrid(OfficialSpectrumTokenizer):
    """Tokenizes spectra on the fixed grid; keyword arguments as of `OfficialSpectrumTokenizer`."""

    kind = "fixed-grid"

    def loss(
        self, observation: Spectrum | tuple[Spectrum, Spectrum], generator: torch.Generator | None = None
    ) -> dict[str, Tensor]:
        """Computes the likelihood of the measured pixels, a tenth of which the encoder does not see.

        Two views of the same objects are so many spectra: the published training compares none.
        """
        if isinstance(observation, tuple):
            observation = Spectrum.stack(observation)
        shown = observation
        if generator is not None:
            draw = torch.rand(observation.flux.shape, generator=generator, device=generator.device)
            hidden = draw.to(observation.device) < 0.1
            shown = Spectrum(observation.flux, observation.ivar.masked_fill(hidden, 0), observation.wavelength)
        grid, step = self._prepare(shown)
        latent = self._encode(grid)
        values = self.quantizer.quantizer(latent)
        channels = self._decode(values)
        native = interpolate(self._wavelength, channels, observation.wavelength)
        scale = (10 ** self._buckets[step] - 1).clamp(min=LOWEST)[:, None]
        inside = (observation.wavelength >= self._wavelength[0, 0]) & (
            observation.wavelength <= self._wavelength[0, -1]
        )
        ivar = observation.ivar * inside * scale**2
        residual = (observation.flux / scale - 1 - native[..., 0]) * inside
        error = (native[..., 1] - 2).clamp(-7, 4).exp()
        count = (ivar > 0).sum().clamp(min=1)
        likelihood = gaussian_nll(residual, ivar, error).sum() / count
        reached = (grid[..., 1] > 0).unflatten(1, (latent.shape[1], -1)).any(2)
        used = latent[reached]
        commitment = (used - values[reached].detach()).square().mean()
        ids = self.quantizer.quantizer.ids(used)
        return {
            "loss": likelihood + 0.25 * commitment + 0.1 * spread_penalty(used) + 0.5 * correlation_penalty(used),
            "likelihood": likelihood,
            "chi2": (residual.square() * ivar).sum() / count,
            "codes": ids.unique().numel() / torch.tensor(float(self.codes)),
        }

    @torch.no_grad()
    def embed(self, observation: Spectrum) -> tuple[Tensor, Tensor]:
        """Returns what is quantised of each token `(B, 272, 12)`, and which tokens are measured."""
        grid, _ = self._prepare(observation)
        latent = self._encode(grid)
        reached = (grid[..., 1] > 0).unflatten(1, (latent.shape[1], -1)).any(2)
        return latent * reached[..., None], reached

    @torch.no_grad()
    def decode(self, tokens: Tokens, like: Spectrum | None = None) -> Spectrum:
        """Renders tokens at the wavelengths of `like`, or on the grid; the ivar is the model's own, 0 without token."""
        self.check_tokens(tokens, like)
        ids, valid = place(tokens, self.grid)
        values = self.quantizer.quantizer.values(ids[:, 1:]) * valid[:, 1:, None]
        channels = self._decode(values)
        known = (valid[:, 1:] & valid[:, :1]).repeat_interleave(channels.shape[1] // (self.grid[1] - 1), dim=1)
        channels = torch.cat([channels, known[..., None].to(channels.dtype)], dim=-1)
        wavelength = self._wavelength.expand(len(ids), -1)
        if like is not None:
            channels, wavelength = interpolate(self._wavelength, channels, like.wavelength), like.wavelength
        scale = (10 ** self._buckets[ids[:, 0]] - 1).clamp(min=LOWEST)[:, None]
        error = (channels[..., 1] - 2).clamp(-7, 4).exp() * scale
        return Spectrum((channels[..., 0] + 1) * scale, (channels[..., 2] > 0.5) / error**2, wavelength)
