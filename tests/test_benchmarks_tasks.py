"""The real data as the tasks split them, and how tasks are chosen."""

import numpy as np
import pytest

from aion.benchmarks import real
from aion.benchmarks.published import PUBLISHED
from aion.benchmarks.tasks import ROOT, TASKS, choose


def test_tasks_are_chosen_by_suite_or_name():
    assert choose("offline") == TASKS
    assert choose("published") == PUBLISHED
    assert [task.name for task in choose("offline", ["sky-stars", "gz10-morphology"])] == [
        "sky-stars",
        "gz10-morphology",
    ]
    with pytest.raises(ValueError, match="did you mean 'miles-labels'"):
        choose("offline", ["miles-label"])
    with pytest.raises(ValueError, match="no suite 'online'; did you mean 'offline'"):
        choose("online")


def test_miles_keeps_spectra_of_a_star_together():
    data = real.miles(ROOT)
    assert len(data) == 944
    assert len(set(data.ids)) == 944
    assert (data.folds == 0).sum() == 184
    assert set(data.labels["class"]) == {"OB", "A", "F", "G", "K", "M"}
    flux, measured = data.observations["sdss_spectrum"].flux, data.observations["sdss_spectrum"].measured
    assert measured.double().mean() > 0.99
    assert abs(flux[measured].median() - 10) < 1


def test_photometric_redshifts_are_split_as_in_their_source():
    data = real.photoz(ROOT)
    assert np.bincount(data.folds).tolist() == [5000, 5000]
    assert 0 < data.labels["redshift"].min() < data.labels["redshift"].max() < 0.3
    flux = data.observations["legacysurvey_flux_r"].value
    assert -2.5 * np.log10(flux[0].item()) + 22.5 == pytest.approx(17.298376, abs=1e-5)


def test_galaxies_of_the_catalogue_are_split_by_place():
    data = real.openngc(ROOT)
    assert len(data) > 5000
    assert set(data.labels["type"]) == {"elliptical", "lenticular", "spiral", "irregular"}
    assert (np.bincount(data.folds) / len(data) > 0.1).all()
    assert real._hubble("SBbc") == real._hubble("S") == "spiral"
    assert real._hubble("E-S0") is real._hubble("S0-a") is real._hubble("E?") is real._hubble("") is None


def test_galaxies_of_surveys():
    data = real.galaxies(ROOT)
    assert len(data) >= 9
    seen = [value.measured.any(1) for value in data.observations.values()]
    assert (seen[0] ^ seen[1]).all()
    assert data.labels["redshift"][0] == pytest.approx(0.36874, abs=1e-4)
