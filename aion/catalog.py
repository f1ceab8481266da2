"""Which objects are seen around each target: ellipses on the sky."""

__all__ = ["Catalog"]

import math

from collections.abc import Sequence
from dataclasses import dataclass, fields

import torch
import torch.nn.functional as F

from torch import Tensor

from aion.observations import Observation, finite_or_nan, stackable


@dataclass(frozen=True, eq=False, repr=False)
class Catalog(Observation):
    """Holds the ellipses seen around each target, in any order.

    Arguments:
        x: offset from the target in arcsec along a row of its image, positive where columns increase, with shape
            `(B, K)` for at most K ellipses. NaN in all five arguments means that there is no such ellipse.
        y: offset along a column, positive where rows increase.
        e1: first component of the ellipticity as in the Legacy Surveys: (a - b) / (a + b) times the cosine of twice
            the position angle.
        e2: second component, with the sine.
        r: half-light radius along the major axis in arcsec, 0 for a point.

    Raises:
        TypeError: for values with a unit or that are not real numbers.
        ValueError: for shapes that disagree, an empty batch, infinite values or an ellipse with a value missing.
    """

    x: Tensor
    y: Tensor
    e1: Tensor
    e2: Tensor
    r: Tensor

    def __post_init__(self) -> None:
        columns = {f.name: finite_or_nan(f"Catalog.{f.name}", getattr(self, f.name)) for f in fields(self)}
        shapes = [tuple(value.shape) for value in columns.values()]
        shape = shapes[0]
        if len(set(shapes)) > 1 or len(shape) != 2 or 0 in shape:
            msg = f"Catalog: wanted five columns of one shape (B, K), not empty, given {shapes}"
            raise ValueError(msg)
        known = ~torch.isnan(torch.stack(list(columns.values())))
        if (bad := known.any(0) & ~known.all(0)).any():
            row, column = bad.nonzero()[0].tolist()
            msg = f"Catalog: object {column} of row {row} has some of its five values but not all (of shape {shape})"
            raise ValueError(msg)
        self._set(**columns)

    @property
    def measured(self) -> Tensor:
        """Tells which ellipses there are, `(B, K)`."""
        return ~torch.isnan(self.x)

    def _summary(self) -> str:
        return f"at most {self.x.shape[1]} ellipses each"

    @classmethod
    def stack(cls, catalogs: Sequence["Catalog"]) -> "Catalog":
        """Joins batches of catalogues; shorter ones are filled up with NaN.

        Raises:
            TypeError: for anything that is no catalogue.
            ValueError: for none at all.
        """
        longest = max(catalog.x.shape[1] for catalog in stackable(catalogs, cls))

        def fill(value: Tensor) -> Tensor:
            return F.pad(value, (0, longest - value.shape[1]), value=math.nan)

        return cls(**{f.name: torch.cat([fill(getattr(c, f.name)) for c in catalogs]) for f in fields(cls)})
