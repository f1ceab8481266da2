r"""Images in any subset of the known bands: a token per patch, finer ones where there is more to say, and spots.

Patches come in octaves, each as large as those of the one before or half. Every measured patch of the first octave has
a token. A later one has a token only where it pays: with what the octaves before leave, :math:`r`, a patch is kept
if :math:`\sum (r^2 w - 1) > c \cdot 2\ln K` over its measured pixels, K codes; at c = 1 a token must be able to raise
the likelihood by what it takes to write it down. `Spots`, as many as it takes, make up for what the octaves leave,
until noise is left. Blank sky costs one token in a coarse patch, a bright galaxy hundreds. The centre of a patch or
spot tells what it is, so a part of the tokens, such as the coarsest alone, decodes as well.

Each octave is an `Octave`: it sees the residual in units of its expected error, weighted by the noise, and hands on a
model and an error. The softening of the asinh is the noise that is usual in a band, fixed for each band, because
whoever decodes must know it; how noisy an image really is enters by the weight of its pixels.

References:
    | AION-1: Omnimodal Foundation Model for Astronomical Sciences (Parker et al., 2025), arXiv 2510.17960
    | Finite Scalar Quantization: VQ-VAE Made Simple (Mentzer et al., 2023), arXiv 2309.15505
    | Modeling by shortest data description (Rissanen, 1978), Automatica 14, 465
"""

__all__ = ["ImageTokenizer"]

import math

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
import torch.nn.functional as F

from torch import Tensor, nn

from aion.nn.quantize import FSQ
from aion.observations import BANDS, Image, near_miss
from aion.tokenizers.bands import BandWeights, expected_noise, known_bands
from aion.tokenizers.base import Tokenizer, correlation_penalty, gaussian_nll, spread_penalty
from aion.tokenizers.octave import LARGEST, Octave, State
from aion.tokenizers.patches import Patches
from aion.tokenizers.spots import TILE, Spots
from aion.tokens import Tokens

_MOST = 6000  # fine tokens of a batch and pass in training: an untrained tokenizer wants one for every bright pixel
_JITTER = 0.02  # of ln wavelength while training, so that bands between those trained on have sensible weights


@dataclass(frozen=True, eq=False)
class _Step:
    """Holds what became of an octave: latents `(M, d)` of its tokens, ids and kept `(B, h, w)`, the state after it."""

    latent: Tensor
    ids: Tensor
    kept: Tensor
    state: State


class ImageTokenizer(Tokenizer):
    """Tokenizes multi-band images on their native pixels.

    Arguments:
        bands: names of the bands with weights of their own, see `aion.observations.BANDS`. With a basis, others of
            which the usual noise is known (see `aion.tokenizers.bands`) are read and rendered by their wavelength.
        patch: pixels on the side of a patch; one number, or one for each octave, none larger than the one before or
            smaller than its half.
        width: features of a patch; one number, or one for each octave.
        depth: number of residual blocks in the encoder and in the decoder of an octave; the same.
        levels: levels of the quantiser, see `aion.nn.quantize.FSQ`; of all octaves, or a list for each.
        spots: most spots of an image, see `Spots`; with them the first patch is a multiple of 4 and the last even.
        basis: number of functions of wavelength that the weights of bands are made of; 0 reads `bands` alone.
        informed: whether the network is told the noise and the size of the pixels.
        worth: what a finer token must be able to gain, over its cost.
        hidden: share of the objects of which training hides some bands, to be told from the others.

    Raises:
        ValueError: for an unknown band (with the near misses), or sizes that do not go together.
    """

    kind = "image"
    observation = Image

    def __init__(
        self,
        bands: Sequence[str] = ("decam-g", "decam-r", "decam-i", "decam-z"),
        patch: int | Sequence[int] = 8,
        width: int | Sequence[int] = 96,
        depth: int | Sequence[int] = 2,
        levels: Sequence[int] | Sequence[Sequence[int]] = (7, 5, 5, 5, 5),
        spots: int = 0,
        basis: int = 0,
        informed: bool = False,
        worth: float = 2.0,
        hidden: float = 0.0,
    ) -> None:
        patches = [patch] if isinstance(patch, int) else list(patch)
        octaves = len(patches)
        widths, depths = ([x] * octaves if isinstance(x, int) else list(x) for x in (width, depth))
        each = [list(levels)] * octaves if isinstance(levels[0], int) else [list(x) for x in levels]
        super().__init__(
            bands=list(bands),
            patch=patch if isinstance(patch, int) else patches,
            width=width if isinstance(width, int) else widths,
            depth=depth if isinstance(depth, int) else depths,
            levels=list(levels) if isinstance(levels[0], int) else each,
            spots=spots,
            basis=basis,
            informed=informed,
            worth=worth,
            hidden=hidden,
        )
        for band in bands:
            if band not in BANDS:
                msg = f"ImageTokenizer: unknown band {band!r}; {near_miss(band, BANDS)}"
                raise ValueError(msg)
        fits = len(widths) == len(depths) == len(each) == octaves > 0 <= spots
        fits = fits and all(coarse in (fine, 2 * fine) for coarse, fine in pairwise(patches))
        fits = fits and not (spots and (patches[0] % TILE or patches[-1] % 2))
        if not fits:
            msg = (
                "ImageTokenizer: wanted patches each as large as the one before or half, a width, a depth and levels "
                "for each, and for spots a first patch that is a multiple of 4 and a last that is even, given "
                f"patch={patch}, width={width}, depth={depth}, levels={levels}, spots={spots}"
            )
            raise ValueError(msg)
        self.bands, self.patch, self.worth, self.hidden = tuple(bands), patches[0], worth, hidden
        self.readable = tuple(dict.fromkeys((*self.bands, *known_bands()))) if basis else self.bands
        usual = [expected_noise(band) if band in known_bands() else 0.01 for band in self.bands]
        self.register_buffer("softening", torch.tensor(usual))
        self.quantizers = nn.ModuleList(FSQ(levels) for levels in each)
        self.octaves = nn.ModuleList()
        for k in range(octaves):
            before = (widths[k - 1], patches[k - 1] // patches[k]) if k else ()
            common = (self.bands, patches[k], widths[k], len(each[k]), basis, informed, depths[k])
            self.octaves.append(Octave(*common, *before))
        self.spots = Spots(spots) if spots else None
        codes = [quantizer.size for quantizer in self.quantizers]
        self.patches = Patches(patches, codes, self.spots.size if spots else 0)

    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        """Draws all weights anew."""
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                nn.init.kaiming_uniform_(module.weight, a=5**0.5, generator=generator)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
            elif isinstance(module, BandWeights):
                module.reset_parameters(generator)

    @property
    def size(self) -> int:
        """Returns the number of ids: those of the first octave come first, those of spots last."""
        return self.patches.starts[-1]

    def describe(self) -> str:
        """Says in a few words what is read and how."""
        each = f"one of {self.quantizers[0].size} codes per {self.patch} x {self.patch} pixels"
        more = (
            f", where needed one of {self.quantizers[-1].size} per {self.octaves[-1].patch} x {self.octaves[-1].patch}"
        )
        rest = f" and up to {self.spots.budget} spots" if self.spots else ""
        return f"Image in {', '.join(self.bands)}, {each}{more * (len(self.octaves) > 1)}{rest}"

    def fit(self, image: Image) -> "ImageTokenizer":
        """Sets the softening of each band to the median error of its measured pixels; bands not seen keep theirs."""
        for i, band in enumerate(image.bands):
            ivar = image.ivar[:, i][image.ivar[:, i] > 0]
            if ivar.numel() and band in self.bands:
                self.softening[self.bands.index(band)] = ivar.median().rsqrt()
        return self

    def encode(self, observation: Image) -> Tokens:
        """Turns images into tokens `(B, N)` at the (row, column) offset of their patches in arcsec, coarsest first.

        Where a finer patch has no token, it is not valid.

        Raises:
            ValueError: for a band the tokenizer does not read, with the near misses.
        """
        flux, ivar, bands = self._prepare(observation)
        shape, scale = observation.flux.shape[2:], observation.pixel_scale
        steps = self._steps(flux, ivar, bands, scale, complete=self.spots is not None)
        ids = torch.cat([(step.ids + n).flatten(1) for step, n in zip(steps, self.patches.starts, strict=False)], 1)
        valid = torch.cat([step.kept.flatten(1) for step in steps], 1)
        position = torch.cat([self.patches.position(shape, scale, k) for k in range(len(steps))], 1)
        tokens = Tokens(ids.masked_fill(~valid, 0), position, valid)
        if self.spots is None:
            return tokens
        return self.patches.append(self._spots(flux, ivar, bands, steps[-1].state), shape, scale, tokens)

    def places(self, observation: Image) -> Tokens:
        """Returns the tokens that any image on these pixels has: those of the coarsest octave, ids unset."""
        _, ivar, _ = self._prepare(observation)
        valid = self._measured(ivar).flatten(1)
        position = self.patches.position(observation.flux.shape[2:], observation.pixel_scale)
        return Tokens(torch.zeros_like(valid, dtype=torch.long), position, valid)

    def embed(self, observation: Image) -> tuple[Tensor, Tensor]:
        """Returns what is known of each patch before quantisation, `(B, N, d)`, and which patches have a token.

        Octaves of fewer dimensions are filled up with zeros; spots are left out.
        """
        flux, ivar, bands = self._prepare(observation)
        steps = self._steps(flux, ivar, bands, observation.pixel_scale, complete=False)
        kept = torch.cat([step.kept.flatten(1) for step in steps], 1)
        most, latent = max(step.latent.shape[1] for step in steps), []
        for step in steps:
            empty = step.latent.new_zeros(*step.kept.shape, most)
            own = F.pad(step.latent.tanh(), (0, most - step.latent.shape[1]))
            latent.append(empty.index_put((step.kept,), own).flatten(1, 2))
        return torch.cat(latent, 1), kept

    def decode(self, tokens: Tokens, like: Image | None = None) -> Image:
        """Renders tokens in the bands and on the pixels of `like`; ivar is 0 in coarse patches without a token.

        Tokens may come in any order, and any of the finer ones may be left out. A band that was not given to `encode`
        is a guess from the others, and its ivar does not tell how good.

        Raises:
            ValueError: without `like`, for a band not read, an id out of range or a token that is no patch of `like`.
        """
        if like is None:
            msg = "image tokens have no grid of their own: give like=, an image with the pixels and bands wanted"
            raise ValueError(msg)
        self.check_tokens(tokens, like)
        self._check_bands(like.bands)
        placed, spots = self.patches.place(tokens, like.flux.shape[2:], like.pixel_scale)
        measured, state = placed[0][1], None
        for octave, quantizer, (ids, kept) in zip(self.octaves, self.quantizers, placed, strict=True):
            mask = self._mask(measured, octave)
            state = self._start(like.bands, mask, octave) if state is None else state
            kept = kept & (mask[:, 0] > 0)
            values = quantizer.values(ids[kept])
            state = octave.decode(values, kept, state, mask, like.pixel_scale, like.bands)
        model, error = state.model, state.error
        if self.spots is not None:
            flux, left = self.spots.render(spots, model, like.bands)
            model, error = model + state.noise * flux, torch.minimum(error, state.noise * left)
        window, known = self.patches.window(like.flux.shape[2:]), self.octaves[0].pixels(measured[:, None])
        known = known[window].expand(-1, len(like.bands), -1, -1)
        return Image(model[window] * known, torch.where(known, error[window] ** -2, 0.0), like.bands, like.pixel_scale)

    def loss(self, observation: Image, generator: torch.Generator | None = None) -> dict[str, Tensor]:
        """Computes the likelihood of the measured pixels after each pass, and how well hidden bands are guessed.

        Bands are hidden, and wavelengths of bands shaken a little, only with a generator.
        """
        flux, ivar, bands = self._prepare(observation)
        given, shift = self._hide(ivar, generator), None
        if generator is not None and len(self.readable) > len(self.bands):
            shift = _JITTER * torch.randn(len(bands), generator=generator).to(flux.device)
        steps = self._steps(flux, given, bands, observation.pixel_scale, shift, generator=generator)
        known = given > 0
        count = known.sum().clamp(min=1)
        out = {"loss": _guess(flux, ivar * ~known, steps[-1].state.model, self._noise(bands))}
        for step in steps:
            residual = (flux - step.state.model) * known
            likelihood = gaussian_nll(residual, given, step.state.error).sum() / count
            spread = spread_penalty(step.latent) + correlation_penalty(step.latent)
            out["loss"] = out["loss"] + likelihood + 0.1 * spread
        used = sum(step.ids[step.kept].unique().numel() for step in steps)
        return out | {
            "likelihood": likelihood,
            "chi2": (residual.square() * given).sum() / count,
            "codes": used / torch.tensor(float(self.size)),
            "tokens": sum(step.kept.sum() for step in steps) / torch.tensor(float(len(flux))),
        }

    def codebook(self, dim: int = 64) -> Tensor:
        """Returns the code values, filled up with zeros, of spots what they are, and of which octave, `(size, d)`."""
        device = self.softening.device
        parts = [quantizer.values(torch.arange(quantizer.size, device=device)) for quantizer in self.quantizers]
        if self.spots is not None:
            parts.append(self.spots.codebook())
        most = max(part.shape[1] for part in parts)
        values = torch.cat([F.pad(part, (0, most - part.shape[1])) for part in parts])
        if len(parts) == 1:
            return values
        which = torch.tensor([k for k, part in enumerate(parts) for _ in part], device=device)
        return torch.cat([values, F.one_hot(which, len(parts)).to(values.dtype)], 1)

    def _check_bands(self, bands: Sequence[str]) -> None:
        for band in bands:
            if band not in self.readable:
                msg = f"this image tokenizer does not read {band!r}; {near_miss(band, self.readable)}"
                raise ValueError(msg)

    def _prepare(self, image: Image) -> tuple[Tensor, Tensor, tuple[str, ...]]:
        """Returns flux and ivar padded to whole patches, bands in the order of `readable`, and these."""
        self.check(image)
        self._check_bands(image.bands)
        order = sorted(range(len(image.bands)), key=lambda i: self.readable.index(image.bands[i]))
        flux, ivar = (self.patches.pad(value[:, order]) for value in (image.flux, image.ivar))
        return flux, ivar, tuple(image.bands[i] for i in order)

    def _start(self, bands: Sequence[str], mask: Tensor, octave: Octave) -> State:
        """Returns what is known beforehand: no flux, with the usual noise of each band."""
        error = self._noise(bands).expand(len(mask), -1, *(octave.patch * n for n in mask.shape[2:]))
        return State(torch.zeros_like(error), error, self._noise(bands))

    def _noise(self, bands: Sequence[str]) -> Tensor:
        """Returns the softening of bands, `(C, 1, 1)` in nanomaggy."""
        usual = [
            self.softening[self.bands.index(b)] if b in self.bands else self.softening.new_tensor(expected_noise(b))
            for b in bands
        ]
        return torch.stack(usual)[:, None, None]

    def _mask(self, measured: Tensor, octave: Octave) -> Tensor:
        """Returns 1 for the patches of an octave that lie in a measured coarse one `(B, h, w)`, as `(B, 1, h', w')`."""
        times = self.patch // octave.patch
        return measured[:, None].repeat_interleave(times, 2).repeat_interleave(times, 3).to(self.softening.dtype)

    def _measured(self, ivar: Tensor) -> Tensor:
        """Tells which of the coarsest patches have a measured pixel, `(B, h, w)`."""
        return F.max_pool2d((ivar > 0).any(1, keepdim=True).to(ivar.dtype), self.patch)[:, 0] > 0

    def _steps(
        self,
        flux: Tensor,
        ivar: Tensor,
        bands: Sequence[str],
        scale: Tensor,
        shift: Tensor | None = None,
        complete: bool = True,
        generator: torch.Generator | None = None,
    ) -> list[_Step]:
        """Encodes pass by pass; unless `complete`, the last is not decoded. A generator drops some tokens of many."""
        measured = self._measured(ivar)
        steps, state = [], None
        for octave, quantizer in zip(self.octaves, self.quantizers, strict=True):
            mask = self._mask(measured, octave)
            state = self._start(bands, mask, octave) if state is None else state
            kept = measured if not steps else self._pays(flux, ivar, state, octave, quantizer.size)
            if generator is not None and steps and (count := int(kept.sum())) > _MOST:
                kept = kept & (torch.rand(kept.shape, generator=generator) < _MOST / count).to(kept.device)
            latent = octave.encode(flux, ivar, kept, state, mask, scale, bands, shift)
            values, codes = quantizer(latent)
            if complete or len(steps) < len(self.octaves) - 1:
                state = octave.decode(values, kept, state, mask, scale, bands, shift)
            ids = torch.zeros_like(kept, dtype=torch.long)
            ids[kept] = codes
            steps.append(_Step(latent, ids, kept, state))
        return steps

    def _pays(self, flux: Tensor, ivar: Tensor, state: State, octave: Octave, codes: int) -> Tensor:
        """Tells for which patches a token is worth what it costs, `(B, h, w)`."""
        residual = (flux - state.model.detach()).clamp(-LARGEST, LARGEST)
        excess = (residual.square() * ivar - 1) * (ivar > 0)
        gain = F.avg_pool2d(excess.sum(1, keepdim=True), octave.patch)[:, 0] * octave.patch**2
        return gain > self.worth * 2 * math.log(codes)

    def _spots(self, flux: Tensor, ivar: Tensor, bands: Sequence[str], state: State) -> tuple[Tensor, ...]:
        """Returns the spots of what the octaves leave, see `Spots.find`."""
        residual = (flux - state.model).clamp(-LARGEST, LARGEST) * (ivar > 0)
        allowed = self.octaves[0].pixels(self._measured(ivar))
        return self.spots.find(residual / state.noise, ivar * state.noise**2, allowed, bands)

    def _hide(self, ivar: Tensor, generator: torch.Generator | None) -> Tensor:
        """Hides each band with a chance of a half, of some of the objects."""
        if generator is None or not self.hidden:
            return ivar
        draw = torch.rand(ivar.shape[0], ivar.shape[1] + 1, generator=generator).to(ivar.device)
        shown = (draw[:, 1:] < 0.5) | (draw[:, :1] >= self.hidden)
        left = ((ivar > 0).flatten(2).any(2) & shown).any(1, keepdim=True)  # or the object is shown as it is
        return ivar * (shown | ~left)[:, :, None, None]


def _guess(flux: Tensor, ivar: Tensor, model: Tensor, softening: Tensor) -> Tensor:
    """Penalises wrong guesses of pixels that were hidden, by the compressed flux, so that no error need cover them."""
    signal = flux.square() * ivar
    weight = signal / (1 + signal)
    miss = ((flux / softening).asinh() - (model / softening).asinh()).abs() * weight
    return 0.1 * miss.sum() / (ivar > 0).sum().clamp(min=1)
