"""The flux scale: medians by counting."""

import pytest
import torch

from aion.tokenizers.brightness import FluxScale


@pytest.mark.parametrize("bins", [64, 512])
def test_the_bin_is_that_of_the_median(bins, generator):
    scale = FluxScale(bins)
    flux = torch.randn(40, 301, generator=generator) * 10 ** (torch.arange(40)[:, None] / 4 - 4)
    used = torch.rand(flux.shape, generator=generator) < 0.6
    median = flux.abs().masked_fill(~used, float("nan")).nanmedian(dim=1).values
    expected = ((median.log10() + 5) / 12 * bins).floor().long().clamp(0, bins - 1)
    assert torch.equal(scale.ids(flux, used), expected)
    assert ((scale.values(expected) / median).log10().abs() <= 6 / bins + 1e-4).all()


@pytest.mark.parametrize("flux", [torch.zeros(1, 9), torch.full((1, 9), 1e-6)])
def test_nothing_and_next_to_nothing_fall_in_the_first_bin(flux):
    assert FluxScale(512).ids(flux, torch.ones(1, 9, dtype=torch.bool)).item() == 0
    assert FluxScale(512).ids(flux, torch.zeros(1, 9, dtype=torch.bool)).item() == 0


@pytest.mark.parametrize("size", [1e-35, 1e-17, 1e12])
def test_other_units_are_refused_by_row(size):
    flux = torch.ones(3, 9)
    flux[2] = size
    with pytest.raises(ValueError, match=r"row 2: the median of \|flux\| is .* is it in erg/s/cm2/A"):
        FluxScale(512).ids(flux, torch.ones(3, 9, dtype=torch.bool))


def test_unused_pixels_do_not_count():
    flux = torch.tensor([[1.0, 1.0, 1.0, 1e30, 0.0, 1e30, 1e30, 1e30]])
    used = torch.tensor([[True, True, True, False, False, False, False, False]])
    assert FluxScale(512).ids(flux, used).item() == int(5 / 12 * 512)
