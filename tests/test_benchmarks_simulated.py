"""Simulated data are of the kind asked for, and held out from training."""

import re

import numpy as np

from aion.benchmarks.simulated import SIMULATED, objects, patterned
from aion.recipes import HELD_OUT


def test_objects_are_of_the_kind_asked_for():
    data = objects(None, 24, 5, ("legacysurvey_flux_r",), galaxies=0.6, quasars=0.5, max_redshift=1.5)
    assert data.ids[0] == "sky-0-5"
    assert set(data.labels["kind"]) == {"galaxy", "quasar", "star"}
    galaxy = data.labels["kind"] == "galaxy"
    assert np.isfinite(data.labels["log_mass"][galaxy]).all()
    assert np.isnan(data.labels["teff"][galaxy]).all()
    assert (np.abs(data.labels["redshift"][data.labels["kind"] == "star"]) < 0.01).all()


def test_objects_that_an_input_cannot_see_are_left_out():
    data = objects(None, 24, 0, ("gaia_bp_coefficients", "legacysurvey_flux_r"), galaxies=0.0)
    assert 0 < len(data) < 24
    assert data.observations["gaia_bp_coefficients"].measured.all()


def test_patterns_are_visible_and_named():
    data = patterned(None, 64, 8000)
    assert 5 < len(data) < 40
    assert list(data.observations) == ["legacysurvey_image"]
    for name, pixels in (("arms", 40), ("bar", 20)):
        maps = data.labels[name]
        has = np.isfinite(maps).all((1, 2))
        assert has.any()
        assert not np.isfinite(maps[~has]).any()
        assert ((maps[has] > 0.5).sum((1, 2)) >= pixels).all()
    shapes = objects(None, 64, 8000, ("legacysurvey_image",), max_redshift=0.1).labels
    assert set(np.unique(shapes["shape"])) >= {"disc", "bulge", "spiral"}
    assert (shapes["arms"][shapes["shape"] == "spiral"] > 0).all()


def test_no_recipe_trains_on_what_is_tested():
    for task in SIMULATED:
        first, count = (int(re.search(rf"\b{name} (\d+)", task.version)[1]) for name in ("first", "count"))
        assert first + count <= HELD_OUT
