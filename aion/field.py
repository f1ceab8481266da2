"""Maps of one quantity over a stamp, such as which pixels belong to an object."""

__all__ = ["Field"]

import math

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F

from torch import Tensor

from aion.observations import PIXEL_SCALES, Observation, finite_or_nan, pixel_scales, stackable


@dataclass(frozen=True, eq=False, repr=False)
class Field(Observation):
    """Holds maps of one quantity.

    Arguments:
        value: with shape `(B, H, W)`; row 0 is the first row of the array. NaN means "not measured".
        pixel_scale: arcsec per pixel, a number or `(B,)`; by default that of the Legacy Surveys.

    Raises:
        TypeError: for values with a unit or that are not real numbers.
        ValueError: for another shape, an empty batch, an infinite value or a pixel scale that is not positive.
    """

    value: Tensor
    pixel_scale: Tensor | float = PIXEL_SCALES["decam"]

    def __post_init__(self) -> None:
        value = finite_or_nan("Field.value", self.value)
        if value.ndim != 3 or 0 in value.shape:
            given = f"given shape {tuple(value.shape)}; for one map use value[None]"
            msg = f"Field: value must be (B, H, W), not empty, {given}"
            raise ValueError(msg)
        self._set(value=value, pixel_scale=pixel_scales("Field.pixel_scale", self.pixel_scale, value))

    @property
    def measured(self) -> Tensor:
        """Tells which pixels were measured, `(B, H, W)`."""
        return ~torch.isnan(self.value)

    def _summary(self) -> str:
        return f"{self.value.shape[1]} x {self.value.shape[2]} pixels"

    @classmethod
    def stack(cls, maps: Sequence["Field"]) -> "Field":
        """Joins batches of maps; smaller ones are centred in unmeasured pixels, so that pixel n // 2 is the middle one.

        Raises:
            TypeError: for anything that is no field.
            ValueError: for none at all.
        """
        height, width = (max(field.value.shape[axis] for field in stackable(maps, cls)) for axis in (1, 2))

        def place(value: Tensor) -> Tensor:
            h, w = value.shape[1:]
            top, left = height // 2 - h // 2, width // 2 - w // 2
            return F.pad(value, (left, width - w - left, top, height - h - top), value=math.nan)

        return cls(torch.cat([place(f.value) for f in maps]), torch.cat([f.pixel_scale for f in maps]))
