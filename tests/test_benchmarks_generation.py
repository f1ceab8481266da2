"""Predicted spectra: equivalent widths in closed form, and scores that brightness does not change."""

import numpy as np
import pytest
import torch

from aion import Spectrum
from aion.benchmarks.generation import LINES, generation, line_widths
from aion.benchmarks.task import Data

RNG = np.random.default_rng(0)
WAVE = np.arange(3700.0, 9500.0, 1.0)


def stars(count):
    """Makes spectra with a slope and absorption lines of known equivalent widths."""
    slope, strength = RNG.uniform(-1, 1, count), RNG.uniform(0.5, 5, (count, len(LINES)))
    flux = 1 + slope[:, None] * (WAVE - 6000) / 6000
    for i, centre in enumerate(LINES.values()):
        profile = np.exp(-0.5 * ((WAVE - centre) / 2.5) ** 2) / (2.5 * np.sqrt(2 * np.pi))
        flux = flux * (1 - strength[:, i : i + 1] * profile)
    return flux, slope, strength


class Seen:
    """Stands for an embedder that knows slope and lines, and may generate."""

    def __init__(self, flux, vectors, data):
        self.flux, self.own, self.data = flux, vectors, data
        self.embedder = type("E", (), {} if flux is None else {"generate": None})()

    def readouts(self):
        return {"vectors": self.own}

    def generated(self, rows, name, like):
        return Spectrum(self.flux[rows], torch.ones_like(like.flux), like.wavelength)


class Task:
    name, labels, tests, metric = "trial", ("desi_spectrum",), (0,), "r2"


@pytest.fixture(scope="module")
def data():
    flux, slope, strength = stars(200)
    noisy = flux + 0.02 * RNG.standard_normal(flux.shape)
    spectrum = Spectrum(noisy, np.full_like(flux, 0.02**-2), WAVE)
    ids, folds = np.array([str(i) for i in range(200)]), np.arange(200) % 4
    return Data(ids, {"desi_spectrum": spectrum}, {}, folds), flux, np.column_stack([slope, strength])


def test_equivalent_widths_in_closed_form():
    flux, _, strength = stars(20)
    wave = np.broadcast_to(WAVE, flux.shape)
    widths, errors = line_widths(wave, flux, np.full_like(flux, 1e4))
    np.testing.assert_allclose(widths, strength, rtol=0.02, atol=0.02)
    assert ((errors > 0.02) & (errors < 0.1)).all(), "0.01 of 20 pixels, over continua of 0.4 to 1.6"
    assert np.isinf(line_widths(wave, flux, np.zeros_like(flux))[1]).all()


def test_the_truth_has_a_chi_square_of_one_at_any_brightness(data):
    data, flux, vectors = data
    for factor in (1.0, 1000.0):
        found = generation(Task, Seen(factor * flux, vectors, data), 0).scores
        assert found["r2"][0] > 0.98
        assert found["chi2"][0] == pytest.approx(1, abs=0.05)
        assert found["lines"][0] > 0.98
        assert found["r2, generated"] == found["r2"]


def test_a_ridge_stands_in_for_who_cannot_generate_and_others_spectra_do_not_fit(data):
    data, flux, vectors = data
    found = generation(Task, Seen(None, vectors, data), 0)
    assert found.scores["r2"][0] > 0.9
    assert found.scores["lines"][0] > 0.5
    assert (found.tested, found.fitted) == (50, 150)
    assert found.arrays["spectra guess"].shape == (3, len(WAVE))
    for seen in (Seen(None, vectors, data), Seen(flux, vectors, data)):
        assert generation(Task, seen, 0, shuffled=True).scores["r2"][0] < 0.5
