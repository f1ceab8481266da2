import pytest

from aion.observations import PIXEL_SCALES
from aion.sky import MODALITIES, OPTIONAL, UNITS
from aion.sky.published import PUBLISHED


@pytest.mark.parametrize("name", sorted(PUBLISHED))
def test_every_survey_has_its_numbers_and_their_source(name):
    survey = PUBLISHED[name]
    assert "arXiv" in survey.source
    assert 0 < survey.calibration < 0.1
    assert survey.seeing
    if name in PIXEL_SCALES:
        assert survey.scale == PIXEL_SCALES[name]
        assert set(survey.depth) == set(survey.seeing)


def test_numbers_of_the_sky_have_units_that_astropy_knows():
    units = pytest.importorskip("astropy.units")
    known = {*MODALITIES, *OPTIONAL}
    assert set(UNITS) <= known
    known_to_astropy = set(UNITS.values()) - {"nmgy"}
    assert all(str(units.Unit(unit)) for unit in known_to_astropy)
