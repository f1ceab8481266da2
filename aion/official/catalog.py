r"""Catalogues of the objects in a stamp as the published checkpoints read them: five tokens for each object.

An object is its pixel (x, y) in the 96 x 96 stamp of the Legacy Surveys, two components of its ellipticity and its
half-light radius. Pixels are ids as they are; the other three are ranks in tables, see `aion.official.table`. The
transformer counts them all in one vocabulary, whose first 204 ids are taken by marks of a text tokenizer (end of
sequence and others): x begins at 204, y at 300, the components of the ellipticity at 396 and 1420, the radius at 2444.

References:
    | AION-1: Omnimodal Foundation Model for Astronomical Sciences (Parker et al., 2025), arXiv 2510.17960
"""

__all__ = ["OFFSET", "OfficialCatalogTokenizer"]

import math
import warnings

from itertools import pairwise

import torch

from torch import Tensor, nn

from aion.catalog import Catalog
from aion.observations import PIXEL_SCALES
from aion.official.grid import PIXELS, place
from aion.official.table import Reservoir
from aion.official.tokenizer import PublishedTokenizer
from aion.tokens import Tokens

OFFSET = 204  # ids of the vocabulary before the first that stands for a number
CODES, SAMPLE = 1024, 100_000  # of the tables, in all published files
LONGEST = 50  # tokens
SCALE = PIXEL_SCALES["decam"]  # arcsec per pixel


class OfficialCatalogTokenizer(PublishedTokenizer):
    """Tokenizes catalogues of at most ten objects.

    Tokens stand one after the other, at (0, n). In what order the published models were trained on objects, and whether
    with a mark of the end, is not known: they are kept in the order given, without one. A shape beyond its table
    gets the outermost id, with a warning.

    The target is at pixel (48, 48); positions are rounded to the nearest pixel.

    With `parity=True` a catalogue may be longer, which the published package does not check, and there is no warning.

    Arguments:
        mask_value: what stands for "no object" in the published package.
        vocabulary: see `PublishedTokenizer`.
        parity: see above.
    """

    kind = "official-catalog"
    codec = "CatalogCodec"
    observation = Catalog

    def __init__(self, mask_value: int = 9999, vocabulary: int | None = None, parity: bool = False) -> None:
        super().__init__(mask_value=mask_value, vocabulary=vocabulary, parity=parity)
        parts = nn.ModuleDict()
        for name in ("X", "Y"):
            parts[name] = nn.Module()
            parts[name].register_buffer("codebook_size", torch.tensor(PIXELS))
        for name in ("SHAPE_E1", "SHAPE_E2", "SHAPE_R"):
            parts[name] = Reservoir(CODES, SAMPLE)
        self.quantizer = nn.Module()
        self.quantizer.quantizers = parts

    @property
    def codes(self) -> int:
        """Returns the number of ids up to the last that stands for a number."""
        return OFFSET + 2 * PIXELS + 3 * CODES

    def describe(self) -> str:
        """Says in a few words what is read and how."""
        return f"Catalog of at most {LONGEST // 5} objects in {PIXELS} x {PIXELS} pixels, five tokens each"

    def verify(self) -> None:
        """Refuses another number of pixels and tables that are not finite or decrease."""
        super().verify()
        sizes = [self.quantizer.quantizers[name].codebook_size.item() for name in ("X", "Y")]
        if sizes != [PIXELS, PIXELS] or not torch.isfinite(self._tables).all() or (self._tables.diff() < 0).any():
            msg = f"{self.codec}: wanted {PIXELS} pixels, given {sizes}, and tables that are finite and in order"
            raise ValueError(msg)

    def encode(self, observation: Catalog) -> Tokens:
        """Turns catalogues into `(B, 5 * K)` tokens, those of the objects that are there at (0, 0), (0, 1), ...

        Raises:
            ValueError: for too many objects, or one outside the stamp.
        """
        self.check(observation)
        measured = observation.measured
        if not self.parity and (long := measured.sum(1) > LONGEST // 5).any():
            row = int(long.nonzero()[0])
            msg = f"row {row} has {int(measured[row].sum())} objects: the published models take {LONGEST // 5} at most"
            raise ValueError(msg)
        offset = torch.stack([observation.x, observation.y], dim=-1)
        pixels = (offset / SCALE).round() + PIXELS // 2
        wrong = (pixels < 0) | (pixels > PIXELS - 1)
        if (bad := measured & wrong.any(-1)).any():
            row, column = bad.nonzero()[0].tolist()
            msg = (
                f"object {column} of row {row} is at {tuple(offset[row, column].tolist())} arcsec, outside the "
                f"published stamp of {PIXELS} x {PIXELS} pixels of {SCALE} arcsec"
            )
            raise ValueError(msg)
        shapes = torch.stack([observation.e1, observation.e2, observation.r])
        tables = self._tables
        beyond = (shapes < tables[:, :1, None]) | (shapes > tables[:, -1:, None])
        if not self.parity and beyond.any():
            warnings.warn("shapes beyond the published tables share the outermost ids", stacklevel=2)
        ranks = torch.searchsorted(tables[:, :-1].contiguous(), shapes.flatten(1)).unflatten(1, measured.shape)
        codes = torch.cat([pixels.nan_to_num(0).long(), ranks.movedim(0, -1)], dim=-1) + self._starts
        valid = measured.repeat_interleave(5, dim=1)
        index = (valid.long().cumsum(1) - 1).clamp(min=0)
        position = torch.stack([torch.zeros_like(index), index], dim=-1).float()
        return Tokens(codes.flatten(1).masked_fill(~valid, 0), position, valid)

    def decode(self, tokens: Tokens, like: Catalog | None = None) -> Catalog:
        """Returns the objects that five tokens in a row stand for; one with a token missing or out of place is NaN.

        Raises:
            ValueError: for an id beyond the vocabulary.
        """
        self.check_tokens(tokens, like)
        last = int(tokens.position[..., 1][tokens.valid].max()) if tokens.valid.any() else 0
        ids, valid = place(tokens, (1, 5 * (last // 5 + 1)))
        codes, valid = (v.unflatten(1, (-1, 5)) for v in (ids, valid))
        codes = codes - self._starts
        ends = codes.new_tensor([PIXELS, PIXELS, CODES, CODES, CODES])
        known = (valid & (codes >= 0) & (codes < ends)).all(-1, keepdim=True)
        codes = torch.where(known, codes, 0)
        shapes = [table[codes[..., 2 + i]] for i, table in enumerate(self._tables)]
        offset = (codes[..., :2] - PIXELS // 2) * SCALE
        values = torch.stack([*offset.unbind(-1), *shapes])
        return Catalog(*values.masked_fill(~known[..., 0], math.nan))

    def loss(self, observation: Catalog, generator: torch.Generator | None = None) -> dict[str, Tensor]:
        """Computes the mean squared error of the shapes in a round trip, a figure to watch: nothing is trained."""
        decoded = self.decode(self.encode(observation))
        pairs = [(getattr(o, n)[o.measured] for o in (observation, decoded)) for n in ("e1", "e2", "r")]
        return {
            "loss": torch.stack([(a - b).square().sum() for a, b in pairs]).sum() / observation.measured.sum().clamp(1)
        }

    def codebook(self, dim: int = 64) -> Tensor:
        """Returns a column for each kind of number and the rank in it, `(size, 12)`; marks are numbered."""
        book = torch.zeros(self.codes, 11, device=self._starts.device)
        book[:OFFSET, 0] = torch.arange(1, OFFSET + 1, device=book.device) / OFFSET
        for i, (low, high) in enumerate(pairwise([*self._starts.tolist(), self.codes])):
            book[low:high, 1 + 2 * i] = 1
            book[low:high, 2 + 2 * i] = torch.linspace(-1, 1, high - low, device=book.device)
        return self._book(book)

    @property
    def _tables(self) -> Tensor:
        parts = self.quantizer.quantizers
        return torch.stack([parts[name].index_to_val for name in ("SHAPE_E1", "SHAPE_E2", "SHAPE_R")])

    @property
    def _starts(self) -> Tensor:
        """Returns the first id of each of the five."""
        starts = [0, PIXELS, 2 * PIXELS, 2 * PIXELS + CODES, 2 * PIXELS + 2 * CODES]
        return torch.tensor(starts, device=self._tables.device) + OFFSET
