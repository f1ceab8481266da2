r"""Catalogues of ellipses as five tokens each, from the target outwards: x, y, two components of ellipticity, radius.

The sky is divided into cells of an arcsec. The tokens of an ellipse stand in the cell where its centre is, an eighth of
a cell apart in the order above; further ellipses in the same cell stand a sixteenth of a cell further up each. So the
position of a token is that of its ellipse on the sky to within a cell, no two tokens share one, and what a token tells
(where within the cell, what shape) follows from its position. The ids of x and y are even steps within the cell, those
of the shape are bins of `aion.tokenizers.edges`.

Ellipses are sorted by their distance from the target; of equal ones by y, x, then shape, all as encoded. The order in
which they were given never matters, and any number is encoded.

References:
    | AION-1: Omnimodal Foundation Model for Astronomical Sciences (Parker et al., 2025), arXiv 2510.17960
"""

__all__ = ["CatalogTokenizer"]

import math

from collections.abc import Iterable

import torch

from torch import Tensor

from aion.catalog import Catalog
from aion.observations import Scalar
from aion.tokenizers.base import Tokenizer
from aion.tokenizers.reservoir import Reservoir
from aion.tokenizers.scalar import ScalarTokenizer
from aion.tokens import Tokens

NAMES = ("x", "y", "e1", "e2", "r")
SHAPES = NAMES[2:]
PARTS, SLOTS = 8, 16  # tokens across a cell, of which five are used, and ellipses up a cell
REACH = 4096  # cells from the target: further out float32 could not tell the steps within a cell apart


class CatalogTokenizer(Tokenizer):
    """Tokenizes catalogues of any length, after `fit` to some.

    Arguments:
        steps: number of steps across a cell, in x and in y.
        bins: number of bins of each component of the ellipticity and of the radius.
        cell: side of a cell in arcsec.
        largest: largest radius in arcsec.

    Raises:
        ValueError: for fewer than two steps or bins, or a cell or radius that is not positive.
    """

    kind = "catalog"
    observation = Catalog

    def __init__(self, steps: int = 512, bins: int = 1024, cell: float = 1.0, largest: float = 1000.0) -> None:
        super().__init__(steps=steps, bins=bins, cell=cell, largest=largest)
        if steps < 2 or bins < 2 or not 0 < cell < math.inf or not 0 < largest < math.inf:
            msg = (
                "CatalogTokenizer: wanted steps, bins >= 2 and cell, largest > 0, given "
                f"{steps}, {bins}, {cell} and {largest}"
            )
            raise ValueError(msg)
        self.steps, self.cell, self.largest = steps, cell, largest
        self.e1, self.e2 = (ScalarTokenizer(bins, limits=(-1, 1)) for _ in range(2))
        # Straight up to about the seeing, where a radius means little, and relative beyond.
        self.r = ScalarTokenizer(bins, transform="asinh", softening=0.5, limits=(0, largest))

    @property
    def size(self) -> int:
        """Returns the number of ids: those of x, y, both components of the ellipticity and the radius, in turn."""
        return self._starts[-1]

    def describe(self) -> str:
        """Says in a few words what is read and how."""
        return f"Catalog of ellipses, five of {self.size} codes each, at their places to {self.cell:g} arcsec"

    def fit(self, catalog: Catalog | Iterable[Catalog], spacing: str = "normal") -> "CatalogTokenizer":
        """Sets the bins of the shapes from catalogues, all at once or batch after batch; see `ScalarTokenizer.fit`.

        Raises:
            TypeError: for another kind of observation.
            ValueError: for shapes that no ellipse has, or fewer than two different ones.
        """
        samples = {name: Reservoir() for name in SHAPES}
        for batch in [catalog] if isinstance(catalog, Catalog) else catalog:
            self.check(batch)
            self._check_values(batch)
            if batch.measured.any():
                for name, sample in samples.items():
                    sample.update(Scalar(getattr(batch, name)[batch.measured]))
        for name, sample in samples.items():
            try:
                getattr(self, name).fit(sample, spacing)
            except ValueError as error:
                msg = f"{name}: {error}"
                raise ValueError(msg) from error
        return self

    def encode(self, observation: Catalog) -> Tokens:
        """Turns catalogues into `(B, 5 * K)` tokens; an ellipse that is not there has no valid ones.

        Raises:
            TypeError: for another kind of observation.
            ValueError: for an ellipticity beyond -1 to 1, a radius beyond 0 to `largest`, a place too far from the
                target or more than 16 ellipses in one cell, named by their row.
        """
        self.check(observation)
        self._check_values(observation)
        cell, codes = self._codes(observation)
        order = self._order(cell, codes, observation.measured)
        cell, codes = (value.gather(1, order[..., None].expand_as(value)) for value in (cell, codes))
        there = observation.measured.gather(1, order)
        slot = _count_within(cell, there)
        if (bad := there & (slot >= SLOTS)).any():
            row, column = bad.nonzero()[0].tolist()
            x, y = (cell[row, column] * self.cell).tolist()
            msg = f"row {row} has more than {SLOTS} objects within {self.cell:g} arcsec of each other near ({x}, {y})"
            raise ValueError(msg)
        part = torch.arange(5, device=cell.device).expand_as(codes)
        place = torch.stack([cell[..., 1:] + slot[..., None] / SLOTS + 0 * part, cell[..., :1] + part / PARTS], dim=-1)
        valid = there.repeat_interleave(5, dim=1)
        ids = (codes + self._first).flatten(1)
        position = (place * self.cell).flatten(1, 2).masked_fill(~valid[..., None], 0)
        return Tokens(ids.masked_fill(~valid, 0), position.float(), valid)

    def decode(self, tokens: Tokens, like: Catalog | None = None) -> Catalog:
        """Returns the ellipses, `(B, K)`, sorted from the target outwards, K being no less than that of `like`.

        Tokens may come in any order. An ellipse of which a token is missing is none.

        Raises:
            ValueError: for an id that there is not, or not at that position, or two tokens at one position.
        """
        self.check_tokens(tokens, like)
        row = torch.arange(len(tokens), device=tokens.ids.device)[:, None].expand_as(tokens.ids)[tokens.valid]
        across, up = self._places(tokens.position[tokens.valid])
        part, ids = across % PARTS, tokens.ids[tokens.valid].long()
        self._check_parts(part, ids, tokens.position[tokens.valid])
        where = torch.stack([row, across // PARTS, up // SLOTS, up % SLOTS], dim=1)
        where, index = where.unique(dim=0, return_inverse=True)
        codes = torch.full((len(where), 5), -1, device=ids.device)
        codes[index, part] = ids - self._first[part]
        if (codes >= 0).sum() < len(ids):
            msg = "catalog tokens: two tokens of one object have the same position"
            raise ValueError(msg)
        whole = (codes >= 0).all(1)
        where, codes = where[whole], codes[whole]
        count = torch.bincount(where[:, 0], minlength=len(tokens))
        column = torch.arange(len(where), device=ids.device) - (count.cumsum(0) - count)[where[:, 0]]
        length = max(int(count.max()), 1 if like is None else like.x.shape[1])
        there = torch.zeros(len(tokens), length, dtype=torch.bool, device=ids.device)
        cell, table = (torch.zeros(len(tokens), length, n, dtype=torch.long, device=ids.device) for n in (2, 5))
        place = (where[:, 0], column)
        there[place], cell[place], table[place] = True, where[:, 1:3], codes
        order = self._order(cell, table, there)
        values = self._values(cell, table).masked_fill(~there[..., None], math.nan)
        return Catalog(*values.gather(1, order[..., None].expand_as(values)).unbind(-1))

    def loss(self, observation: Catalog, generator: torch.Generator | None = None) -> dict[str, Tensor]:
        """Computes the mean squared error of a round trip, a figure to watch: there is nothing to train but `fit`."""
        self._check_values(observation)
        given = torch.stack([getattr(observation, name) for name in NAMES], dim=-1)[observation.measured]
        error = (self._values(*self._codes(observation))[observation.measured] - given).square()
        error = error.sum(0) / max(len(error), 1)
        return {"loss": error.sum(), **dict(zip(NAMES, error, strict=True))}

    def possible(self, position: Tensor) -> Tensor:
        """Tells which ids a token at `position` `(B, N, 2)` may have, `(B, N, size)`."""
        part = self._places(position)[0] % PARTS
        ids = torch.arange(self.size, device=position.device)
        return torch.bucketize(ids, self._first[1:].contiguous(), right=True) == part[..., None]

    def codebook(self, dim: int = 64) -> Tensor:
        """Returns a column for each of the five and sines and cosines of the rank, eight octaves, `(size, 21)`."""
        device, book = self.r.edges.device, []
        for part, (low, high) in enumerate(zip(self._starts[:-1], self._starts[1:], strict=True)):
            rank = (torch.arange(high - low, device=device) + 0.5) / (high - low)
            angle = math.pi * rank[:, None] * 2.0 ** torch.arange(8, device=device)
            kind = torch.eye(5, device=device)[part].expand(high - low, -1)
            book.append(torch.cat([kind, angle.sin(), angle.cos()], dim=-1))
        return torch.cat(book)

    @property
    def _starts(self) -> list[int]:
        """Returns the first id of each of the five, and the number of all."""
        sizes = [self.steps, self.steps, *(getattr(self, name).size for name in SHAPES)]
        return [sum(sizes[:i]) for i in range(6)]

    @property
    def _first(self) -> Tensor:
        return torch.tensor(self._starts[:-1], device=self.r.edges.device)

    def _check_values(self, catalog: Catalog) -> None:
        reach = self.cell * REACH
        ends = {"x": (-reach, reach), "y": (-reach, reach), "e1": (-1, 1), "e2": (-1, 1), "r": (0, self.largest)}
        for name, (low, high) in ends.items():
            value = getattr(catalog, name)
            # The upper edge of the last bin of a shape belongs to it, that of the last cell does not.
            if (bad := (value < low) | (value >= high if name in "xy" else value > high)).any():
                row, column = bad.nonzero()[0].tolist()
                given = value[row, column].item()
                msg = f"object {column} of row {row}: wanted {name} from {low:g} to {high:g}, given {given:.6g}"
                raise ValueError(msg)

    def _check_parts(self, part: Tensor, ids: Tensor, position: Tensor) -> None:
        known = part < 5
        first, last = self._first, torch.tensor(self._starts[1:], device=ids.device)
        part = part.clamp(max=4)
        if (bad := ~known | (ids < first[part]) | (ids >= last[part])).any():
            where = tuple(position[bad][0].tolist())
            msg = f"catalog tokens: no token at {where} may have the id {ids[bad][0].item()}; see possible()"
            raise ValueError(msg)

    def _places(self, position: Tensor) -> tuple[Tensor, Tensor]:
        """Returns how many eighths of a cell a token is across, and how many sixteenths up."""
        row, column = (position.double() / self.cell).unbind(-1)
        return (column * PARTS).round().long(), (row * SLOTS).round().long()

    def _codes(self, catalog: Catalog) -> tuple[Tensor, Tensor]:
        """Returns the cell (x, y) of each ellipse `(B, K, 2)` and its five codes `(B, K, 5)`, each from 0."""
        place = torch.stack([catalog.x, catalog.y], dim=-1).double().nan_to_num(0) / self.cell
        cell = place.floor()
        within = ((place - cell) * self.steps).long().clamp(max=self.steps - 1)
        shapes = []
        for name in SHAPES:
            value = getattr(catalog, name).nan_to_num(0)
            shapes.append(getattr(self, name).encode(Scalar(value.flatten())).ids.view_as(value))
        return cell.long(), torch.cat([within, torch.stack(shapes, dim=-1)], dim=-1)

    def _values(self, cell: Tensor, codes: Tensor) -> Tensor:
        """Returns what ellipses in their cells `(B, K, 2)` with their codes stand for, `(B, K, 5)`."""
        place = (cell + (codes[..., :2].double() + 0.5) / self.steps) * self.cell
        shapes = [getattr(self, name).centers[0][codes[..., 2 + i]] for i, name in enumerate(SHAPES)]
        return torch.cat([place.to(shapes[0]), torch.stack(shapes, dim=-1)], dim=-1)

    def _order(self, cell: Tensor, codes: Tensor, there: Tensor) -> Tensor:
        """Returns the order of the ellipses `(B, K)`: by distance, then y, x and shape; those not there come last."""
        place = 2 * (cell * self.steps + codes[..., :2]) + 1  # twice the middle of a step: a whole number
        distance = place.square().sum(-1)
        keys = [codes[..., 4], codes[..., 3], codes[..., 2], place[..., 0], place[..., 1], distance, ~there]
        order = torch.arange(there.shape[1], device=there.device).expand(there.shape)
        for key in keys:  # the last one decides first
            order = order.gather(1, key.long().gather(1, order).argsort(dim=1, stable=True))
        return order


def _count_within(cell: Tensor, there: Tensor) -> Tensor:
    """Counts the earlier ellipses in the same cell, for cells `(B, K, 2)`."""
    number = (cell[..., 0] * (4 * REACH) + cell[..., 1]).masked_fill(~there, 2**62)
    number, order = number.sort(dim=1, stable=True)
    index = torch.arange(number.shape[1], device=number.device).expand_as(number)
    new = torch.ones_like(there)
    new[:, 1:] = number[:, 1:] != number[:, :-1]
    first = torch.where(new, index, 0).cummax(1).values
    return torch.zeros_like(index).scatter(1, order, index - first)
