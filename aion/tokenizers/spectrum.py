r"""Spectra of any instrument as tokens at fixed physical wavelengths.

A ladder of rungs in ln wavelength is laid over all wavelengths, in octaves for coarse and for high resolution (see
`aion.tokenizers.ladder`). The pixels of a spectrum, on whatever grid they were measured, are shared out to the cells of
their rung, weighted by ivar: a sum over pixels, no interpolation of flux. Convolutions turn the cells of a rung and
its neighbours into one code; all octaves share them. A rung without a measured pixel has
no token. One more token carries the flux scale, the median of \|flux\|. What codes cannot carry, strong lines above
all, is left to atoms (see `aion.tokenizers.refine`).

The decoder turns codes into the cells again, reads the model there, between two cells, at any wavelength asked, and
adds the atoms. Where the tokens stand is told in `aion.tokenizers.slots`.

References:
    | Universal Spectral Tokenization via Self-Supervised Panchromatic Representation Learning (Shen et al., 2025),
      arXiv 2510.17959
    | AION-1: Omnimodal Foundation Model for Astronomical Sciences (Parker et al., 2025), arXiv 2510.17960
    | Representation Learning with Contrastive Predictive Coding (van den Oord et al., 2018), arXiv 1807.03748
"""

__all__ = ["SpectrumTokenizer"]

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch

from torch import Tensor, nn

from aion.nn.activation import asinh, gelu
from aion.nn.attention import layer_norm
from aion.nn.context import GlobalContext
from aion.nn.convolution import ConvBlock1d, conv1d
from aion.nn.embedding import sine_cosine, turn
from aion.nn.quantize import FSQ
from aion.observations import Spectrum
from aion.tokenizers.base import Tokenizer, correlation_penalty, gaussian_nll, spread_penalty
from aion.tokenizers.brightness import FluxScale
from aion.tokenizers.ladder import Ladder, Window
from aion.tokenizers.refine import Atoms, clipped
from aion.tokenizers.slots import (
    ATOM,
    CODE,
    SCALE,
    SWELL,
    Bounds,
    collect,
    compact,
    means,
    rendered,
    slots,
    sort,
    stands,
)
from aion.tokens import Tokens, join

SWOLLEN = 4  # octaves between the ladder of the codes and that of the swells, whose cells are rungs
TOLD = 64  # sines and cosines of the wavelength
TEMPERATURE = 0.02  # of the comparison of embeddings


@dataclass(frozen=True)
class _Laid:
    """Holds spectra of one octave on their window of the ladder; B of them with L pixels on R rungs."""

    rows: Tensor  # (B,) in the batch given
    octave: int  # index
    window: Window
    place: Tensor  # (B, L), nodes of the whole octave
    node: Tensor  # (B, L), those of the window
    inside: Tensor  # (B, L)
    measured: Tensor  # (B, R)
    scale_ids: Tensor  # (B,)
    scale: Tensor  # (B,)
    features: Tensor  # (B, R, D)
    latent: Tensor  # (B, R, d)


class SpectrumTokenizer(Tokenizer):
    """Tokenizes spectra on their native grids.

    Arguments:
        start: blue end of the ladder in vacuum Angstrom.
        stop: red end of the ladder.
        step: width of a rung of octave 0 in ln wavelength.
        cells: number of cells in a rung.
        width: channels of the convolutions.
        depth: number of residual blocks in the encoder and in the decoder.
        levels: levels of the quantiser, see `aion.nn.quantize.FSQ`.
        scale_bins: number of ids for the flux scale.
        octaves: octaves of the ladder. With octave 0 alone every spectrum is read with rungs of `step`; with several
            the convolutions are told at which octave and wavelength they are, and what the whole spectrum looks like.
        atoms: atoms, swells among them, that any spectrum may have.
        swells: most swells of a spectrum.
        tokens: a spectrum of fewer tokens may have more atoms, up to so many tokens in all.
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
        octaves: Sequence[int] = (0,),
        atoms: int = 0,
        swells: int = 0,
        tokens: int = 0,
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
            octaves=list(octaves),
            atoms=atoms,
            swells=swells,
            tokens=tokens,
        )
        self.ladder = Ladder(start, stop, step, cells, octaves)
        self.flux_scale = FluxScale(scale_bins)
        self.atoms = Atoms(cells) if atoms else None
        self.swells = Atoms(2**SWOLLEN, 16, (1.0, 2.0, 4.0, 8.0), 16, (0.002, 2.0)) if swells else None
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
        several = len(octaves) > 1
        self.told = nn.ModuleList(nn.Linear(TOLD + len(octaves), width) for _ in range(2)) if several else None
        self.context = nn.ModuleList(GlobalContext(width) for _ in range(2)) if several else None

    @property
    def size(self) -> int:
        """Returns the number of ids."""
        return self._bounds[-1]

    def describe(self) -> str:
        """Says in a few words what is read and how."""
        octaves = f", octaves {', '.join(map(str, self.ladder.octaves))}" if self.told is not None else ""
        atoms = f" + {self.atoms.size} atoms" if self.atoms else ""
        swells = f" + {self.swells.size} swells" if self.swells else ""
        return (
            f"Spectrum, {self.ladder.start:.0f} to {self.ladder.stop:.0f} A in {self.ladder.rungs} rungs of "
            f"{self.ladder.step} in ln wavelength{octaves}, {self.quantizer.size} codes + {self.flux_scale.bins} flux "
            f"scales{atoms}{swells}"
        )

    @torch.no_grad()
    def encode(self, observation: Spectrum) -> Tokens:
        """Turns spectra into tokens: the flux scale, then a code for each rung with a measured pixel, then swells and
        atoms.

        Pixels beyond the ends of the ladder are not read; `coverage` tells their share.

        Raises:
            ValueError: if all measured pixels of a spectrum lie outside the ladder, or its flux is off by more than a
                factor of 1000 from the scales known.
        """
        parts = []
        for laid in self._lay(observation):
            values, codes = self.quantizer(laid.latent)
            tokens = slots(laid.window, laid.measured, codes, laid.scale_ids + self.quantizer.size)
            if self.atoms or self.swells:
                tokens = join(tokens, *self._refine(laid, values, observation[laid.rows]))
            parts.append((laid.rows, tokens))
        return collect(parts, len(observation), observation.device)

    def places(self, observation: Spectrum) -> Tokens:
        """Returns where a spectrum on this grid has its flux scale and codes; its flux does not matter."""
        flat = Spectrum(torch.ones_like(observation.flux), observation.ivar, observation.wavelength)
        parts = []
        for rows, index in self._octaves(flat):
            *_, window, measured = self._place(flat[rows], index)
            scale_ids = torch.zeros(len(rows), dtype=torch.long, device=flat.device)
            parts.append((rows, slots(window, measured, measured.long() * 0, scale_ids)))
        return collect(parts, len(observation), observation.device)

    def embed(self, observation: Spectrum) -> tuple[Tensor, Tensor]:
        """Returns what is known of each rung before quantisation, `(B, N, D)`, and which of the N are measured.

        The vectors are normalised features of the encoder, D = `width`, half of their channels turned by the
        wavelength (see `aion.nn.embedding.turn`); their order is that of the codes of `encode`.
        """
        parts = [(laid.rows, *compact(laid.measured, laid.features)) for laid in self._lay(observation)]
        length = max((valid.shape[1] for _, valid, _ in parts), default=1)
        vectors = torch.zeros(len(observation), length, self.config["width"], device=observation.device)
        valid = torch.zeros(len(observation), length, dtype=torch.bool, device=observation.device)
        for rows, known, features in parts:
            vectors[rows, : known.shape[1]] = features * known[..., None]
            valid[rows, : known.shape[1]] = known
        return vectors, valid

    def decode(self, tokens: Tokens, like: Spectrum | None = None) -> Spectrum:
        """Renders tokens on the wavelengths of `like`, or on the cells of their rungs.

        The ivar of the result is the model's own; it is 0 outside the rungs that have a token, and everywhere for an
        object without a flux scale.

        Raises:
            ValueError: for ids out of range, or tokens where this tokenizer makes none.
        """
        self.check_tokens(tokens, like)
        kinds, octave = sort(tokens, self._bounds, self.ladder.octaves)
        scale_ids = torch.where(kinds[SCALE], tokens.ids - self._bounds[0], 0).amax(dim=1)
        scale = self.flux_scale.values(scale_ids) * kinds[SCALE].any(dim=1)
        if like is None:
            wavelength, wanted = rendered(tokens, kinds[CODE], octave, self.ladder)
        else:
            wavelength, wanted = like.wavelength, None
        flux, ivar = torch.zeros_like(wavelength), torch.zeros_like(wavelength)
        for index in octave[kinds[CODE].any(1)].unique().tolist():
            rows = (kinds[CODE].any(1) & (octave == index)).nonzero()[:, 0]
            parts = self._decode_octave(tokens[rows], [k[rows] for k in kinds], index, wavelength[rows])
            known = parts[2] & (scale[rows] > 0)[:, None]
            known = known if wanted is None else known & wanted[rows]
            flux[rows] = torch.where(known, parts[0] * scale[rows, None], 0.0)
            ivar[rows] = torch.where(known, 1 / (parts[1] * scale[rows, None]).clamp(min=1e-12) ** 2, 0.0)
        return Spectrum(flux=flux, ivar=ivar, wavelength=wavelength)

    def loss(
        self, observation: Spectrum | tuple[Spectrum, Spectrum], generator: torch.Generator | None = None
    ) -> dict[str, Tensor]:
        """Computes the likelihood of the measured pixels by the codes alone, part of which the encoder does not see.

        Arguments:
            observation: spectra, or two views of the same objects, by two instruments say, whose mean embeddings are
                then drawn together and away from those of the other objects.
            generator: draws which pixels are hidden, up to a third of each spectrum; None hides none.
        """
        if isinstance(observation, Spectrum):
            return self._loss(observation, generator)[0]
        terms, pooled = zip(*(self._loss(view, generator) for view in observation), strict=True)
        mean = {key: sum(term[key] for term in terms) / len(terms) for key in terms[0]}
        cosine, contrast = _agreement(*pooled)
        return {**mean, "loss": mean["loss"] + 0.5 * contrast + 1 - cosine, "cosine": cosine, "contrast": contrast}

    def codebook(self, dim: int = 64) -> Tensor:
        """Returns the code values, the rank of the flux scales, what atoms and swells are, in columns of their own."""
        codes = self.quantizer.values(torch.arange(self.quantizer.size, device=self.to_latent.weight.device))
        rank = torch.linspace(-1, 1, self.flux_scale.bins, device=codes.device)[:, None]
        found = [atoms.codebook() for atoms in (self.atoms, self.swells) if atoms]
        return torch.block_diag(codes, rank, *found)

    def possible(self, position: Tensor) -> Tensor:
        """Tells which ids may stand at `position` `(B, N, 2)`: flux scales, codes of rungs, atoms or swells."""
        return stands(position)[..., None] == means(torch.arange(self.size, device=position.device), self._bounds)

    def coverage(self, observation: Spectrum) -> Tensor:
        """Returns the share of the measured pixels that lies on the ladder, `(B,)`."""
        measured = observation.measured.sum(1)
        inside = (self.ladder.covers(observation.wavelength) & observation.measured).sum(1)
        return torch.where(measured > 0, inside / measured.clamp(min=1), 1.0)

    @property
    def _bounds(self) -> Bounds:
        """Returns the first ids of the flux scales, the atoms and the swells, and the number of ids."""
        scales = self.quantizer.size
        atoms = scales + self.flux_scale.bins
        swells = atoms + (self.atoms.size if self.atoms else 0)
        return scales, atoms, swells, swells + (self.swells.size if self.swells else 0)

    # ---- encoding

    def _octaves(self, spectrum: Spectrum) -> Iterator[tuple[Tensor, int]]:
        """Groups the spectra with something measured by their octave: rows and index."""
        self.check(spectrum)
        some = spectrum.measured.any(1)
        if (lost := some & ~(spectrum.measured & self.ladder.covers(spectrum.wavelength)).any(1)).any():
            row = int(lost.nonzero()[0])
            w = spectrum.wavelength[row][spectrum.measured[row]]
            msg = (
                f"row {row}: measured from {w.min().item():.5g} to {w.max().item():.5g}, but this tokenizer knows "
                f"{self.ladder.start:.0f} to {self.ladder.stop:.0f} Angstrom: is the wavelength in nm or micron? give "
                "its unit to aion.io.from_quantity"
            )
            raise ValueError(msg)
        octave = self.ladder.choose(spectrum.wavelength, spectrum.measured)
        for index in octave[some].unique().tolist():
            yield (some & (octave == index)).nonzero()[:, 0], index

    def _place(self, spectrum: Spectrum, index: int) -> tuple[Tensor, Tensor, Tensor, Tensor, Window, Tensor]:
        """Finds the rungs that spectra of one octave need: nodes of the octave and of the window, whether inside,
        used, window, measured rungs."""
        octave = self.ladder.octaves[index]
        node, inside = self.ladder.nodes(spectrum.wavelength, octave)
        used = inside & spectrum.measured
        measured = self.ladder.measured(node, used, octave)
        window = self.ladder.window(octave, measured)
        return node, *window.within(node), used, window, measured[:, window.numbers]

    def _lay(self, spectrum: Spectrum, shown: Tensor | None = None) -> Iterator[_Laid]:
        """Encodes spectra, octave by octave; of the pixels measured only those `shown` `(B, L)` are looked at."""
        for rows, index in self._octaves(spectrum):
            part = spectrum[rows]
            place, node, inside, used, window, measured = self._place(part, index)
            scale_ids = self.flux_scale.ids(part.flux, used)
            scale = self.flux_scale.values(scale_ids)
            seen = used if shown is None else used & shown[rows]
            x = self._deposit(part, node, seen, scale, window)
            mask = measured[:, None].to(x.dtype)
            x = self._patch(gelu(conv1d(x, self.stem)))
            if self.told is not None:
                x = x + self.told[0](self._where(window, index))
            x = x.movedim(-1, 1) * mask
            for depth, block in enumerate(self.encoder):
                if self.context is not None and depth == len(self.encoder) - 1:
                    x = self.context[0](x, mask, window.base)
                x = block(x, mask)
            features = self.latent_norm(x.movedim(1, -1))
            latent = self.to_latent(features)
            # Turned by wavelength, so that the mean over a spectrum keeps where its lines are.
            features = turn(features, window.base)
            yield _Laid(rows, index, window, place, node, inside, measured, scale_ids, scale, features, latent)

    def _where(self, window: Window, index: int) -> Tensor:
        """Returns what the convolutions are told: wavelength and octave, `(R, TOLD + octaves)`."""
        octave = nn.functional.one_hot(torch.tensor(index), len(self.ladder.octaves)).to(window.numbers.device)
        return torch.cat([sine_cosine(window.base[:, None], TOLD), octave.float().expand(window.rungs, -1)], dim=1)

    def _patch(self, x: Tensor) -> Tensor:
        """Turns the cells `(B, 32, R * cells)` of each rung into one vector, `(B, R, D)`: a matrix product."""
        x = x.movedim(1, -1).unflatten(1, (-1, self.ladder.cells)).flatten(2)
        return x @ self.patch.weight.permute(2, 1, 0).flatten(0, 1) + self.patch.bias

    def _deposit(self, spectrum: Spectrum, node: Tensor, used: Tensor, scale: Tensor, window: Window) -> Tensor:
        """Shares pixels out to the cells, `(B, 3, R * cells)`: asinh of the mean flux, its precision, whether known."""
        # Clamped: with an ivar near the end of float32 the product would be infinite, and the latents NaN.
        weight = (spectrum.ivar * scale[:, None] ** 2).clamp(max=1e30)
        precision, total = window.share(node, used, 1, weight, weight * (spectrum.flux / scale[:, None]))
        known = (precision > 0).to(total.dtype)
        mean = total / precision.clamp(min=1e-30)
        return torch.stack([asinh(mean) * known, precision.log1p() / 8, known], dim=-1).movedim(-1, 1)

    def _refine(self, laid: _Laid, values: Tensor, spectrum: Spectrum) -> list[Tokens]:
        """Finds the swells and the atoms of spectra, given the codes, as tokens."""
        cells, _ = self._decode(values, laid.measured, laid.window, laid.octave)
        flux, _, covered = laid.window.read(cells, laid.measured, laid.node, laid.inside)
        used = covered & spectrum.measured
        residual = torch.where(used, spectrum.flux / laid.scale[:, None] - flux, 0.0)
        ivar = torch.where(used, spectrum.ivar * laid.scale[:, None] ** 2, 0.0)
        left = (self.config["tokens"] - 1 - laid.measured.sum(1)).clamp(min=self.config["atoms"])
        parts = []
        if self.swells:
            octave = laid.window.octave - SWOLLEN
            node = laid.place / 2**SWOLLEN
            measured = self.ladder.measured(node, used, octave)
            window = self.ladder.window(octave, measured)
            measured = measured[:, window.numbers]
            budget = left.clamp(max=self.config["swells"])
            limited = clipped(residual, used)
            rung, ids, valid = self.swells.find(limited, ivar, window.within(node)[0], used, measured, window, budget)
            parts.append(_found(rung, ids + self._bounds[2], valid, window, SWELL))
            residual = residual - self.swells.render(window.numbers[rung], ids, valid, node) * used
            left = left - valid.sum(1)
        if self.atoms:
            rung, ids, valid = self.atoms.find(residual, ivar, laid.node, used, laid.measured, laid.window, left)
            parts.append(_found(rung, ids + self._bounds[1], valid, laid.window, ATOM))
        return parts

    # ---- decoding

    def _decode(self, values: Tensor, measured: Tensor, window: Window, index: int) -> tuple[Tensor, Tensor]:
        """Turns code values `(B, R, d)` into cells `(B, R * cells)` and errors `(B, R)`, in units of the flux scale."""
        mask = measured[:, None].to(values.dtype)
        x = self.from_latent(values)
        if self.told is not None:
            x = x + self.told[1](self._where(window, index))
        x = x.movedim(-1, 1) * mask
        for depth, block in enumerate(self.decoder):
            x = block(x, mask)
            if self.context is not None and depth == 0:
                x = self.context[1](x, mask, window.base)
        out = self.to_cells(self.cells_norm(x.movedim(1, -1)))
        return out[..., :-1].clamp(-8, 8).sinh().flatten(1), (out[..., -1] - 2).clamp(-7, 4).exp()

    def _decode_octave(self, tokens: Tokens, kinds: list[Tensor], index: int, wavelength: Tensor) -> tuple[Tensor, ...]:
        """Renders tokens of one octave: flux and error in units of the flux scale, and what is known, `(B, L)`."""
        octave = self.ladder.octaves[index]
        rung = (tokens.position[..., 1].double() * 2.0**octave).round().long()
        if (bad := kinds[CODE] & ((rung < 0) | (rung >= self.ladder.total(octave)))).any():
            msg = f"spectrum tokens: rungs must lie in [0, {self.ladder.total(octave)}), given {rung[bad][0].item()}"
            raise ValueError(msg)
        row = torch.arange(len(tokens), device=rung.device)[:, None].expand_as(rung)[kinds[CODE]]
        codes = tokens.ids.new_full((len(tokens), self.ladder.total(octave)), -1)
        codes[row, rung[kinds[CODE]]] = tokens.ids[kinds[CODE]]
        window = self.ladder.window(octave, codes >= 0)
        codes = codes[:, window.numbers]
        measured = codes >= 0
        cells, error = self._decode(self.quantizer.values(codes.clamp(min=0)), measured, window, index)
        node, _ = self.ladder.nodes(wavelength, octave)
        flux, at, known = window.read(cells, measured, *window.within(node))
        for atoms, kind, down in ((self.atoms, ATOM, 0), (self.swells, SWELL, SWOLLEN)):
            if kinds[kind].any():
                rung = (tokens.position[..., 1].double() * 2.0 ** (octave - down)).round().long()
                valid, rung, ids = compact(kinds[kind], rung, tokens.ids - self._bounds[kind - 1])
                flux = flux + atoms.render(rung, ids.clamp(0, atoms.size - 1), valid, node / 2.0**down)
        return flux, error.gather(1, at), known

    # ---- training

    def _loss(self, observation: Spectrum, generator: torch.Generator | None) -> tuple[dict[str, Tensor], Tensor]:
        """Returns the terms of the loss and the mean embedding of each object, `(B, D)`."""
        shown = None
        if generator is not None:
            draw = torch.rand(
                len(observation), observation.flux.shape[1] + 1, generator=generator, device=generator.device
            )
            shown = (draw[:, 1:] > draw[:, :1] / 3).to(observation.device)
        total, chi2, count, latents, ids = 0.0, 0.0, 0, [], []
        pooled = torch.zeros(len(observation), self.config["width"], device=observation.device)
        for laid in self._lay(observation, shown):
            part = observation[laid.rows]
            values, codes = self.quantizer(laid.latent)
            cells, error = self._decode(values, laid.measured, laid.window, laid.octave)
            flux, at, covered = laid.window.read(cells, laid.measured, laid.node, laid.inside)
            ivar = torch.where(covered, part.ivar * laid.scale[:, None] ** 2, 0.0)
            residual = (part.flux / laid.scale[:, None] - flux) * covered
            total = total + gaussian_nll(residual, ivar, error.gather(1, at)).sum()
            chi2 = chi2 + (residual.detach().square() * ivar).sum()
            count += (ivar > 0).sum()
            latents.append(laid.latent[laid.measured])
            ids.append(codes[laid.measured])
            mask = laid.measured[..., None].float()
            pooled = pooled.index_put((laid.rows,), (laid.features * mask).sum(1) / mask.sum(1))
        if not latents:
            msg = "loss: no spectrum of the batch has a measured pixel"
            raise ValueError(msg)
        likelihood = total / count.clamp(min=1)
        latent = torch.cat(latents)
        codes = torch.cat(ids).unique().numel() / self.quantizer.size
        terms = {
            "loss": likelihood + 0.1 * spread_penalty(latent) + 0.5 * correlation_penalty(latent),
            "likelihood": likelihood,
            "chi2": chi2 / count.clamp(min=1),
            "codes": torch.tensor(codes),
        }
        return terms, pooled


def _found(rung: Tensor, ids: Tensor, valid: Tensor, window: Window, kind: int) -> Tokens:
    """Returns atoms or swells as tokens: the k-th of a rung at (2 + k, rung) or (-1 - k, rung)."""
    same = (rung[:, :, None] == rung[:, None]) & valid[:, None] & valid[:, :, None]
    rank = same.tril(-1).sum(2)
    place = 2.0 + rank if kind == ATOM else -1.0 - rank
    return Tokens(ids, torch.stack([place, window.base[rung]], dim=-1), valid)


def _agreement(one: Tensor, other: Tensor) -> tuple[Tensor, Tensor]:
    """Returns the mean cosine of embeddings `(B, D)` of the same objects, and how hard it is to tell them by it."""
    one, other = nn.functional.normalize(one, dim=1), nn.functional.normalize(other, dim=1)
    cosine = one @ other.T
    target = torch.arange(len(one), device=one.device)
    logits = cosine / TEMPERATURE
    contrast = nn.functional.cross_entropy(logits, target) + nn.functional.cross_entropy(logits.T, target)
    return cosine.diagonal().mean(), contrast / 2
