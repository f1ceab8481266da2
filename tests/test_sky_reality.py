"""The simulated sky beside real data, whose numbers `benchmarks/sky_reality.py` measured and keeps."""

import json
import sys

import numpy as np
import pytest


@pytest.fixture(scope="module")
def reality(root):
    sys.path.insert(0, str(root / "benchmarks"))
    try:
        import sky_reality
    finally:
        sys.path.remove(str(root / "benchmarks"))
    return sky_reality


@pytest.fixture(scope="module")
def real(reality):
    return json.loads(reality.RESULT.read_text())


@pytest.mark.parametrize("number", range(5))
def test_galaxies_have_the_colours_of_sdss(reality, real, number):
    """Medians within 0.1 mag and spreads within 30 % in bins of redshift."""
    part = real["sdss"]["bins"][number]
    found = reality.sdss_colours(part["redshift_and_r"])
    for k, name in enumerate(reality.COLOURS):
        (middle, spread), (truth, real_spread) = reality.middle(found[:, k]), part["colours"][name]
        assert middle == pytest.approx(truth, abs=0.1), name
        assert 0.7 < spread / real_spread < 1.3, name


def test_dwarfs_have_the_colours_of_hipparcos(reality, real):
    """Within 0.1 mag: the library is free of the dust that reddens the hotter, more distant of the real stars."""
    teff, colour = reality.star_colours()
    for part in real["stars"]["bins"]:
        near = (teff > part["teff"][0]) & (teff <= part["teff"][1])
        assert near.sum() > 10
        assert np.median(colour[near]) == pytest.approx(part["B-V"][0], abs=0.1)


@pytest.mark.parametrize("target", ["bgs", "qso"])
def test_targets_have_the_colours_of_the_legacy_surveys(reality, real, target):
    found = reality.legacy_colours(target, real["targets"][target]["r"])
    for k, name in enumerate(("g-r", "r-z")):
        middle, spread = reality.middle(found[:, k])
        assert middle == pytest.approx(real["targets"][target][name][0], abs=0.1)
        assert 0.6 < spread / real["targets"][target][name][1] < 1.4


def test_galaxies_lie_where_they_do_on_the_diagram_of_lines(reality):
    x, y, active = reality.line_ratios(600)
    above = y > 0.61 / (np.minimum(x, 0.4) - 0.47) + 1.19  # Kewley et al. (2001)
    assert above[active].mean() > 0.85
    assert above[~active].mean() < 0.05


@pytest.mark.parametrize("name", ["coadd-4-80613-thru20210324", "coadd-special-dark-27247"])
def test_the_noise_is_that_of_real_coadds(reality, real, name):
    """Within 30 % in every 500 Angstrom, of objects of the same flux in the fibre."""
    part = real["noise"][name]
    starts, sigma = reality.desi_noise(part["flux"])
    assert starts.tolist() == part["start"]
    ratio = sigma / np.array(part["sigma"])
    assert (abs(ratio - 1) < 0.3).all()
    # The level of the exposure lies in the range that is drawn: 0.22 at 1000 s, by a factor of 3 each way.
    assert 0.22 / 3.3 < part["level"] < 0.22 * 3
