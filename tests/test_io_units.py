"""Units as surveys write them, and air against vacuum with published numbers."""

import numpy as np
import pytest

from astropy import units

from aion.io.units import FLUX_UNIT, air_to_vacuum, medium_of, parse_unit, vacuum_to_air

FLAM = units.erg / units.s / units.cm**2 / units.AA


@pytest.mark.parametrize(
    "text",
    [
        FLUX_UNIT,
        "10**-17 erg/(s cm2 Angstrom)",
        "1E-17 erg/cm^2/s/Ang",
        "1E-17 erg/s/cm^2/Ang/spaxel",
        "1e-17 erg/s/cm2/A",
        "10-17 erg.s-1.cm-2.Angstrom-1",
        "1E-17 ergs/cm^2/s/Angstroms",
        "1e-19 W.m**-2.nm**-1",
    ],
)
def test_fluxes_as_surveys_write_them(text):
    assert parse_unit(text).to(FLAM) == pytest.approx(1e-17, rel=1e-12)


@pytest.mark.parametrize(
    ("text", "unit"),
    [
        ("Angstrom", units.AA),
        ("ANGSTROMS", units.AA),
        ("A", units.AA),
        ("nm", units.nm),
        ("microns", units.um),
        ("nanomaggies", units.nmgy),
        ("nanomaggy", units.nmgy),
        ("mJy", units.mJy),
        ("10**+34 (s2 cm4 Angstrom2) / erg2", 1e34 * FLAM**-2),
        (units.Jy, units.Jy),
    ],
)
def test_other_units(text, unit):
    assert parse_unit(text).to(unit) == pytest.approx(1.0)


@pytest.mark.parametrize("text", ["", "  ", "counts per hour", "???", "Unitless", "mag(AB)"])
def test_what_is_no_unit_is_refused(text):
    with pytest.raises(ValueError, match="wanted a unit such as"):
        parse_unit(text)


# Angstrom in vacuum and in air: the iodine-stabilised helium-neon laser (BIPM) with the refractivity of Ciddor 1996,
# and the strong lines of the SDSS table of emission lines, which is rounded to 0.01 and older in its formula.
@pytest.mark.parametrize(
    ("vacuum", "air", "tolerance"),
    [
        (6329.91398, 6328.1638, 5e-4),
        (6057.8019, 6056.125, 1e-3),
        (2000.0, 1999.3526, None),
        (3728.30, 3727.24, 0.03),
        (4862.69, 4861.33, 0.02),
        (5008.24, 5006.84, 0.02),
        (6564.61, 6562.80, 0.02),
        (6732.71, 6730.85, 0.02),
    ],
)
def test_air_and_vacuum_agree_with_published_lines(vacuum, air, tolerance):
    if tolerance is None:  # in air it would lie below 2000 Angstrom, where nobody uses air
        assert vacuum_to_air(vacuum) == vacuum
        return
    assert vacuum_to_air(vacuum) == pytest.approx(air, abs=tolerance)
    assert air_to_vacuum(air) == pytest.approx(vacuum, abs=tolerance)


def test_air_agrees_with_the_formula_of_birch_and_downs():
    vacuum = np.linspace(3000.0, 11000.0, 100)
    s2 = (1e4 / vacuum) ** 2
    index = 1 + 0.0000834254 + 0.02406147 / (130 - s2) + 0.00015998 / (38.9 - s2)  # Morton 2000, equation 8
    np.testing.assert_allclose(vacuum_to_air(vacuum), vacuum / index, atol=5e-4)


def test_conversion_is_exactly_inverse_and_keeps_the_order():
    air = np.concatenate([np.linspace(900, 2100, 500), np.linspace(2100, 25000, 500)])
    vacuum = air_to_vacuum(air)
    assert (np.diff(vacuum) >= 0).all()
    np.testing.assert_allclose(vacuum_to_air(vacuum)[air >= 2000], air[air >= 2000], rtol=1e-13)
    np.testing.assert_array_equal(vacuum[air < 2000], air[air < 2000])


@pytest.mark.parametrize(
    ("header", "medium"),
    [
        ({"AIRORVAC": "vac"}, "vacuum"),
        ({"airorvac": "AIR "}, "air"),
        ({"VACUUM": True}, "vacuum"),
        ({"VACUUM": False}, "air"),
        ({"medium": "air"}, "air"),
        ({"AIRMASS": 1.2}, None),
        ({}, None),
    ],
)
def test_medium_of_a_header(header, medium):
    assert medium_of(header) == medium


def test_an_unknown_medium_is_refused():
    with pytest.raises(ValueError, match="did you mean 'vacuum'"):
        medium_of({"AIRORVAC": "wacuum"})
