"""Maps are observations like the others."""

import math

import numpy as np
import pytest
import torch

from astropy.units import arcsec, mag

from aion import Field, Scalar


def test_maps_are_observations():
    field = Field(np.ones((3, 2, 4), dtype=">i2"), pixel_scale=[0.1, 0.2, 0.3])
    assert field.value.dtype == torch.float32
    assert field[1].value.shape == (1, 2, 4)
    assert field[[2, 0]].pixel_scale.tolist() == pytest.approx([0.3, 0.1])
    assert field.to("cpu").measured.all()
    assert Field(torch.zeros(2, 1, 1)).pixel_scale.tolist() == pytest.approx([0.262, 0.262])


@pytest.mark.parametrize("size", [(1, 1), (2, 4), (5, 5), (4, 3)])
def test_stacking_centres_smaller_maps_in_what_was_not_measured(size):
    value = torch.rand(3, *size)
    stacked = Field.stack([Field(value, 0.2), Field(torch.zeros(1, 5, 6))])
    assert stacked.value.shape == (4, 5, 6)
    assert (stacked.measured[:3].flatten(1).sum(1) == math.prod(size)).all()
    assert torch.equal(stacked.value[:3, 2, 3], value[:, size[0] // 2, size[1] // 2])
    assert stacked.pixel_scale.tolist() == pytest.approx([0.2, 0.2, 0.2, 0.262])


@pytest.mark.parametrize(
    ("action", "error", "message"),
    [
        (lambda: Field(torch.zeros(3, 3)), ValueError, r"must be \(B, H, W\)"),
        (lambda: Field(np.zeros((0, 3, 3))), ValueError, "not empty"),
        (lambda: Field([[[math.inf]]]), ValueError, "infinite"),
        (lambda: Field(np.array([[["a"]]])), TypeError, "real numbers"),
        (lambda: Field([[[1.0]]], pixel_scale=0), ValueError, "pixel_scale must be positive"),
        (lambda: Field([[[1.0]]], pixel_scale=[1, 1]), ValueError, r"a number or \(1,\)"),
        (lambda: Field([[[1.0]]], pixel_scale=0.2 * arcsec), TypeError, r"Field.pixel_scale has a unit \(arcsec\)"),
        (lambda: Field([[[1.0]]] * mag), TypeError, r"Field.value has a unit \(mag\)"),
        (lambda: Field([[[1.0], [1.0, 2.0]]]), ValueError, "Field.value: wanted a rectangular array"),
        (lambda: Field([[[1.0]]], pixel_scale="0.2"), TypeError, "real numbers"),
        (lambda: Field.stack([]), ValueError, "at least one observation, given none"),
        (lambda: Field.stack([Scalar([1.0])]), TypeError, "wanted Field, given Scalar"),
    ],
)
def test_bad_maps_are_refused_at_the_door(action, error, message):
    with pytest.raises(error, match=message):
        action()


def test_a_map_says_what_it_is():
    assert repr(Field([[[1.0, math.nan]]])) == "Field(1 object, 1 x 2 pixels, 50 % measured)"
