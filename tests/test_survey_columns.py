"""Column maps: which columns are found, and that what is read is what was written."""

import numpy as np
import pyarrow
import pytest
import torch

from aion import Image, Scalar, Spectrum
from aion.catalog import Catalog
from aion.survey.columns import find_columns, observe, salvage

KINDS = {
    "desi_spectrum": Spectrum,
    "legacysurvey_catalog": Catalog,
    "legacysurvey_flux_r": Scalar,
    "legacysurvey_image": Image,
    "redshift": Scalar,
}


def spectra(*rows, unit=None):
    """Makes a column of spectra of (flux, ivar, wavelength)."""
    names = ("flux", "ivar", "lambda")
    arrays = [
        pyarrow.array([None if r is None else list(r[i]) for r in rows], pyarrow.list_(pyarrow.float64()))
        for i in range(3)
    ]
    fields = [
        pyarrow.field(n, a.type, metadata={"unit": unit} if unit and n == "flux" else None)
        for n, a in zip(names, arrays, strict=True)
    ]
    missing = pyarrow.array([row is None for row in rows])
    return pyarrow.StructArray.from_arrays(arrays, fields=fields, mask=missing)


def read(table, given=None, name=""):
    columns = find_columns(table.schema, KINDS, given, name)
    return observe(table, columns, KINDS)


ONE = ([1.0, 2.0, 3.0], [1.0, 1.0, 0.0], [4000.0, 4001.0, 4002.0])
TWO = ([5.0, 6.0], [2.0, 2.0], [5000.0, 5002.0])


def test_our_own_names_and_those_of_the_legacy_surveys():
    table = pyarrow.table(
        {
            "TARGETID": [7, 8],
            "Redshift": [0.1, None],
            "FLUX_R": [1.0, 2.0],
            "FLUX_IVAR_R": [1.0, 0.0],
            "RA": [1.0, 2.0],
            "DEC": [3.0, 4.0],
        }
    )
    columns = find_columns(table.schema, KINDS)
    assert columns.modalities == {"legacysurvey_flux_r": "FLUX_R", "redshift": "Redshift"}
    assert (columns.identifier, columns.position) == (("TARGETID",), ("RA", "DEC"))
    assert columns.needed == ["DEC", "FLUX_IVAR_R", "FLUX_R", "RA", "Redshift", "TARGETID"]
    observations, faults = observe(table, columns, KINDS)
    assert not faults
    np.testing.assert_allclose(observations["redshift"].value, [0.1, np.nan], rtol=1e-6)
    np.testing.assert_allclose(observations["legacysurvey_flux_r"].value, [1.0, np.nan])  # ivar 0: not measured


@pytest.mark.parametrize(("name", "found"), [("mmu/desi/x.parquet", True), ("mmu/other/x.parquet", False)])
def test_the_name_of_a_data_set_tells_the_survey(name, found):
    table = pyarrow.table({"spectrum": spectra(ONE)})
    assert set(find_columns(table.schema, KINDS, name=name).modalities) == ({"desi_spectrum"} if found else set())
    assert find_columns(table.schema, KINDS, {"desi_spectrum": "spectrum"}).modalities == {"desi_spectrum": "spectrum"}


def test_ragged_and_missing_spectra():
    observations, faults = read(pyarrow.table({"desi_spectrum": spectra(ONE, None, TWO)}))
    spectrum = observations["desi_spectrum"]
    assert not faults
    assert spectrum.measured.sum(1).tolist() == [2, 0, 2]
    torch.testing.assert_close(spectrum.flux[2][spectrum.measured[2]], torch.tensor([5.0, 6.0]))
    torch.testing.assert_close(spectrum.wavelength[0][:2], torch.tensor([4000.0, 4001.0]))


def test_units_are_honoured_or_refused():
    good = read(pyarrow.table({"desi_spectrum": spectra(ONE, unit="1e-16 erg/(s cm2 Angstrom)")}))[0]["desi_spectrum"]
    torch.testing.assert_close(good.flux[0], torch.tensor([10.0, 20.0, 0.0]))
    torch.testing.assert_close(good.ivar[0], torch.tensor([0.01, 0.01, 0.0]))
    observations, faults = read(pyarrow.table({"desi_spectrum": spectra(ONE, unit="km/s")}))
    assert not observations
    assert "flux density" in faults[0]


def numbers(unit):
    fields = [pyarrow.field("legacysurvey_flux_r", pyarrow.float64(), metadata={"unit": unit} if unit else None)]
    return pyarrow.table([pyarrow.array([2.0, None])], schema=pyarrow.schema(fields))


def test_units_of_numbers_are_honoured_or_refused():
    for unit, factor in (("", 1), ("nmgy", 1), ("mgy", 1e9), ("uJy", 1 / 3.6307805), ("Jy", 1e6 / 3.6307805)):
        value = read(numbers(unit))[0]["legacysurvey_flux_r"].value
        np.testing.assert_allclose(value, [2 * factor, np.nan], rtol=1e-6)
    observations, faults = read(numbers("mag"))
    assert not observations
    assert faults == {0: "legacysurvey_flux_r: wanted the unit 'nmgy' or one like it, given 'mag'"}


def test_bad_rows_are_found_and_spoil_no_other():
    bad = ([1.0, 2.0], [1.0, -1.0], [4000.0, 4001.0])
    observations, faults = read(pyarrow.table({"desi_spectrum": spectra(ONE, bad, TWO)}))
    assert list(faults) == [1]
    assert faults[1].startswith("desi_spectrum: ")
    assert observations["desi_spectrum"].measured.sum(1).tolist() == [2, 0, 2]


def image(bands, size):
    flux = [[[1.0] * size] * size for _ in bands]
    return {
        "band": list(bands),
        "flux": flux,
        "ivar": flux,
        "mask": [[[False] * size] * size for _ in bands],
        "scale": [0.262] * len(bands),
    }


def test_images_of_several_bands_and_sizes():
    rows = [image(("DES-G", "DES-R"), 3), image(("DES-R",), 5), None]
    observations, faults = read(pyarrow.table({"legacysurvey_image": pyarrow.array(rows)}))
    stamps = observations["legacysurvey_image"]
    assert not faults
    assert stamps.bands == ("decam-g", "decam-r")
    assert stamps.measured.sum((2, 3)).tolist() == [[9, 9], [0, 25], [0, 0]]


def test_catalogues_and_vectors():
    row = {name: [1.0, 2.0] for name in ("x", "y", "e1", "e2", "r")}
    observations, faults = read(pyarrow.table({"legacysurvey_catalog": [row, None]}))
    assert not faults
    assert observations["legacysurvey_catalog"].measured.any(1).tolist() == [True, False]


@pytest.mark.parametrize(
    ("given", "said"), [({"redshif": "z"}, "did you mean 'redshift'"), ({"redshift": "zz"}, "did you mean 'z'")]
)
def test_wrong_names_are_refused(given, said):
    with pytest.raises(ValueError, match=said):
        find_columns(pyarrow.schema({"z": pyarrow.float64()}), KINDS, given)


def test_salvage_finds_each_bad_row():
    def function(rows):
        if set(rows.tolist()) & {3, 4, 9}:
            msg = f"bad among {len(rows)}"
            raise KeyError(msg)
        return rows.sum()

    done, why = salvage(function, np.arange(10))
    assert sorted(why) == [3, 4, 9]
    assert np.concatenate([rows for rows, _ in done]).tolist() == [0, 1, 2, 5, 6, 7, 8]
