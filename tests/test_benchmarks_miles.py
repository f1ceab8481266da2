"""The library of MILES: whose spectra are in which part, and how their errors are estimated."""

from pathlib import Path

import numpy as np
import pytest

from aion.benchmarks.miles import _noise, read_stars

PATH = Path(__file__).resolve().parents[1] / "tokenizers" / "data" / "miles.safetensors"


@pytest.fixture(scope="module")
def stars():
    return read_stars(PATH)


def test_all_spectra_of_a_star_are_in_one_part(stars):
    assert stars.labels.shape == (944, 3)
    assert len(stars.spectrum) == len(stars.number) == len(stars.name) == len(stars.part) == 944
    assert set(stars.part) == set(range(5))
    whose = {
        name: {part for other, part in zip(stars.name, stars.part, strict=True) if other == name} for name in stars.name
    }
    assert all(len(parts) == 1 for parts in whose.values())
    assert stars.held_out.sum() == (stars.part == 0).sum() == 184


def test_estimated_errors_are_those_of_white_noise():
    draws = np.random.default_rng(0)
    smooth = 1 + 0.2 * np.sin(np.linspace(0, 9, 2000))
    flux = smooth + 0.02 * draws.standard_normal((5, 2000)) * np.linspace(0.5, 2, 2000)
    ratio = _noise(flux) / (0.02 * np.linspace(0.5, 2, 2000))
    assert abs(ratio.mean() - 1) < 0.05
    assert ratio.std() < 0.15
