"""Pictures of objects of a survey: found by id, the image before the spectrum, small where they must be."""

import io

import numpy as np
import pytest
import torch

from PIL import Image as Picture

from aion import Image, Spectrum
from aion.survey.pictures import montage, pictures, thumbnail


def test_objects_are_found_with_their_image_or_spectrum(sky):
    found = dict(pictures([sky], ["f", "e", "none"]))
    assert {name: type(value) for name, value in found.items()} == {"e": Spectrum, "f": Image}  # e has no image
    assert all(len(value) == 1 for value in found.values())
    assert next(pictures([sky], list("abcdef")))[0] == "a"


def test_montage_draws_what_there_is(sky):
    figure = montage((name, value) for name, value in pictures([sky], ["a", "e"]))
    assert [f.get_suptitle() for f in figure.subfigs] == ["a", "e"]
    with pytest.raises(ValueError, match="none of the objects has"):
        montage([])


def test_a_small_picture_of_an_image_shows_it():
    flux = torch.zeros(1, 3, 64, 64)
    flux[:, :, 40:60, 4:24] = 50  # row 0 is at the bottom: above the middle, left
    data = thumbnail(Image(flux, torch.ones_like(flux), ("decam-g", "decam-r", "decam-z")))
    seen = np.asarray(Picture.open(io.BytesIO(data)).convert("L")).astype(float)
    assert seen.shape == (48, 48)
    assert seen[4:17, 4:17].mean() > 150 > 50 > seen[30:].mean()
    assert len(data) < 2000


def test_a_small_picture_of_a_spectrum_shows_its_shape():
    wavelength = torch.linspace(4000, 8000, 3000)[None]
    flux = (wavelength - 4000) / 100
    ivar = torch.ones_like(flux)
    ivar[:, 1000:1500] = 0
    data = thumbnail(Spectrum(flux, ivar, wavelength))
    seen = np.asarray(Picture.open(io.BytesIO(data)))
    assert seen.shape == (48, 96)
    line = [np.flatnonzero(column < 128).mean() for column in seen.T if (column < 128).any()]
    assert len(line) == pytest.approx(80, abs=2), "what is not measured is a gap"
    assert (np.diff(line) <= 0).all(), "it rises to the red"
    assert len(data) < 1000
