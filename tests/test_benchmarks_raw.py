"""The baseline: what two surveys see of one object is alike in one space."""

import numpy as np
import pytest
import torch

from aion import Image, Scalar, Spectrum
from aion.benchmarks.raw import Raw

RNG = np.random.default_rng(0)


def test_the_same_spectra_on_other_grids_have_the_same_features():
    slope = RNG.uniform(-1, 1, (30, 1))
    parts = []
    for wave in (np.arange(3600.0, 9800, 1.0), np.arange(3650.0, 9750, 2.0)):
        flux = 5 + slope * (wave - 6500) / 3000
        parts.append(Spectrum(flux, np.ones_like(flux), wave))
    first, second = Raw().embed_both({"desi_spectrum": parts[0]}, {"sdss_spectrum": parts[1]})
    assert first.shape == second.shape == (30, 41)
    order = [np.corrcoef(first[:, 0], second[:, 0])[0, 1], np.corrcoef(first[:, 0], slope[:, 0])[0, 1] ** 2]
    assert min(order) > 0.95


def test_images_are_compared_in_the_bands_that_both_have():
    flux = torch.from_numpy(RNG.uniform(0, 1, (20, 1, 8, 8))).float()
    coarse = Image(flux.expand(-1, 2, -1, -1), torch.ones(20, 2, 8, 8), ("decam-g", "decam-r"), 0.4)
    fine = flux.repeat_interleave(2, 2).repeat_interleave(2, 3) / 4
    fine = Image(fine.expand(-1, 3, -1, -1), torch.ones(20, 3, 16, 16), ("hsc-g", "hsc-y", "hsc-r"), 0.2)
    first, second = Raw().embed_both({"a": coarse}, {"b": fine})
    np.testing.assert_allclose(first, second, atol=1e-4)
    grid = Raw().grids({"a": coarse}, 4)
    assert grid.shape == (20, 8, 4, 4)  # 2 x 2 pixels of 2 bands


def test_kinds_that_differ_are_refused():
    number, spectrum = Scalar(torch.ones(2)), Spectrum(np.ones((2, 3)), np.ones((2, 3)), [4000.0, 4001.0, 4002.0])
    with pytest.raises(TypeError, match=r"of the same kind, given \['Scalar', 'Spectrum'\]"):
        Raw().embed_both({"a": number}, {"b": spectrum})


def test_masks_alone_can_do_what_the_baseline_can():
    """What an embedder lacks, its control lacks too, or tasks would ask for it."""
    raw, masked = Raw(), Raw().controls(0)["masks only"]
    for name in ("embed_both", "generate"):
        assert hasattr(masked, name) == hasattr(raw, name)
