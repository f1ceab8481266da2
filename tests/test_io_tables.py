"""Spectra in tables of every container and shape, and what a table must say."""

import numpy as np
import pytest
import torch

from astropy import units
from astropy.io import fits
from astropy.table import MaskedColumn, QTable, Table

from aion.io import air_to_vacuum, from_quantity, from_table, identify, object_ids, read, samples
from aion.io.tables import column, column_names
from aion.io.units import FLUX_UNIT

FLAM = units.Unit(FLUX_UNIT)


@pytest.fixture
def real():
    """Returns the blue arm of a real spectrum: flux, ivar, wavelength."""
    spectrum = read(samples()["desi-galaxy"])["desi_spectrum"]
    return [getattr(spectrum, name)[0, :2500].double().numpy() for name in ("flux", "ivar", "wavelength")]


@pytest.fixture
def wanted(real):
    flux, ivar, wavelength = real
    return from_quantity(flux * FLAM, wavelength * units.AA, ivar / FLAM**2)


def close(one, other):
    for name in ("flux", "ivar", "wavelength"):
        torch.testing.assert_close(getattr(one, name), getattr(other, name), rtol=2e-6, atol=1e-9)


def quantity_table(real) -> QTable:
    flux, ivar, wavelength = real
    return QTable({"wavelength": wavelength / 10 * units.nm, "flux": flux * FLAM, "error": ivar**-0.5 * FLAM})


def test_a_quantity_table(real, wanted):
    table = quantity_table(real)
    close(from_table(table), wanted)
    assert table.colnames == ["wavelength", "flux", "error"]


@pytest.mark.parametrize("ending", ["fits", "fits.gz", "ecsv", "parquet"])
def test_containers_that_know_units(real, wanted, tmp_path, ending):
    path = tmp_path / f"spectrum.{ending}"
    quantity_table(real).write(path)
    assert identify(path) == "table"
    close(read(path)["spectrum"], wanted)
    assert object_ids(path) == ["spectrum"]


def test_csv_knows_no_units(real, wanted, tmp_path):
    path = tmp_path / "spectrum.csv"
    quantity_table(real).write(path, format="ascii.csv")
    with pytest.raises(ValueError, match=r"spectrum\.csv: column 'flux' has no unit: give unit="):
        read(path)
    with pytest.raises(ValueError, match="column 'wavelength' has no unit: give wavelength_unit="):
        read(path, unit=FLUX_UNIT)
    close(read(path, unit=FLUX_UNIT, wavelength_unit="nm")["spectrum"], wanted)


@pytest.mark.parametrize(
    ("name", "power"), [("ivar", 1), ("INVVAR", 1), ("Error", -0.5), ("variance", -1), ("flux_err", -0.5)]
)
def test_noise_goes_by_its_column(real, wanted, name, power):
    flux, ivar, wavelength = real
    table = Table({"FLUX": flux, "Wave": wavelength, name: ivar**power})  # the noise without a unit: by the flux's
    close(from_table(table, unit=FLUX_UNIT, wavelength_unit="Angstrom"), wanted)


def test_noise_in_a_unit_of_its_own(real, wanted):
    table = quantity_table(real)
    table["error"] = table["error"].to(units.Unit("W m-2 nm-1"))
    close(from_table(table), wanted)
    table["error"] = table["error"].value * units.s
    with pytest.raises(ValueError, match=r"column 'error': wanted the unit .* given 's'"):
        from_table(table)


def test_named_columns_and_logarithms(real, wanted):
    flux, ivar, wavelength = real
    table = Table({"f": flux, "log_lam": np.log10(wavelength), "w": ivar, "s": ivar**-0.5})
    close(from_table(table, flux="f", ivar="w", unit=FLUX_UNIT), wanted)
    close(from_table(table, flux="f", error="s", unit=FLUX_UNIT), wanted)
    close(from_table(table, flux="F", wavelength="LOG_LAM", ivar="W", unit=FLUX_UNIT), wanted)


def test_frequencies_are_converted(real):
    flux, ivar, wavelength = real
    frequency = (wavelength * units.AA).to(units.GHz, units.spectral())
    spectrum = from_table(QTable({"frequency": frequency, "flux": flux * units.mJy, "ivar": ivar}))
    close(spectrum, from_quantity(flux * units.mJy, wavelength * units.AA, ivar / units.mJy**2))


@pytest.mark.parametrize("how", ["option", "metadata", "name"])
def test_air_is_converted(real, how):
    flux, ivar, wavelength = real
    name = "wave_air" if how == "name" else "wave"
    table = QTable({name: wavelength * units.AA, "flux": flux * FLAM, "ivar": ivar / FLAM**2})
    table.meta = {"AIRORVAC": "air"} if how == "metadata" else {}
    spectrum = from_table(table, medium="air" if how == "option" else None)
    np.testing.assert_allclose(spectrum.wavelength[0], air_to_vacuum(wavelength), rtol=1e-7)
    if how != "option":
        np.testing.assert_allclose(from_table(table, medium="vacuum").wavelength[0], wavelength, rtol=1e-7)


def test_fits_tables_say_air_in_their_header(real, tmp_path):
    table = quantity_table(real)
    table.meta["VACUUM"] = False
    table.write(tmp_path / "air.fits")
    spectrum = read(tmp_path / "air.fits")["spectrum"]
    np.testing.assert_allclose(spectrum.wavelength[0], air_to_vacuum(real[2]), rtol=1e-7)


def test_masks_and_nan_are_unmeasured(real):
    flux, ivar, wavelength = (values[:6].copy() for values in real)
    flux[0] = np.nan
    table = Table({"wave": wavelength, "mask": [0, 4, 0, 0, 0, 0]})
    table["flux"] = MaskedColumn(flux, mask=[False, False, True, False, False, False])
    table["ivar"] = MaskedColumn(ivar, mask=[False, False, False, True, False, False])
    spectrum = from_table(table, unit=FLUX_UNIT, wavelength_unit="Angstrom")
    assert spectrum.measured.tolist() == [[False, False, False, False, True, True]]
    assert np.isnan(flux).sum() == 1


def test_noise_can_be_estimated(real):
    flux, ivar, wavelength = real
    table = QTable({"wave": wavelength * units.AA, "flux": flux * FLAM})
    with pytest.raises(ValueError, match="no column of the noise; wanted ivar, error, variance, given wave, flux"):
        from_table(table)
    estimate = from_table(table, ivar="estimate").ivar[0].numpy()
    assert 0.5 < np.median(estimate / ivar) < 2  # the errors of the survey are those of its data


def rows_table(real, ragged: bool) -> Table:
    flux, ivar, wavelength = real
    lengths = [2500, 2000 if ragged else 2500]
    cells = {
        name: [values[:n] for n in lengths]
        for name, values in zip(("flux", "ivar", "wave"), (flux, ivar, wavelength), strict=True)
    }
    table = Table({"object_id": ["a", "b"]})
    for name, values in cells.items():
        array = np.empty(2, dtype=object)
        array[:] = values
        table[name] = array if ragged else np.stack(values)
    return table


@pytest.mark.parametrize("ending", ["fits", "parquet"])
@pytest.mark.parametrize("ragged", [False, True], ids=["equal", "ragged"])
def test_a_row_per_object(real, wanted, tmp_path, ending, ragged):
    path = tmp_path / f"rows.{ending}"
    table = rows_table(real, ragged)
    if ending == "fits":
        kind = "PD()" if ragged else "2500D"
        columns = [fits.Column(n, kind, array=table[n].data) for n in ("flux", "ivar", "wave")]
        columns.append(fits.Column("object_id", "4A", array=["a", "b"]))
        fits.HDUList([fits.PrimaryHDU(), fits.BinTableHDU.from_columns(columns)]).writeto(path)
    else:
        import pyarrow
        import pyarrow.parquet

        data = {n: [row.tolist() for row in table[n]] for n in ("flux", "ivar", "wave")}
        pyarrow.parquet.write_table(pyarrow.table({"object_id": ["a", "b"], **data}), path)
    spectrum = read(path, unit=FLUX_UNIT, wavelength_unit="Angstrom")["spectrum"]
    assert spectrum.flux.shape == (2, 2500)
    close(spectrum[0], wanted)
    assert spectrum.measured[1].sum() == (2000 if ragged else 2500)
    assert object_ids(path) == ["a", "b"]


def test_rows_without_identifiers(real, tmp_path):
    table = rows_table(real, ragged=False)
    table.remove_column("object_id")
    table.write(tmp_path / "rows.fits")
    assert object_ids(tmp_path / "rows.fits") == ["rows-0", "rows-1"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"flux": "fluxes"}, "no column 'fluxes'; did you mean 'flux'"),
        ({"wavelength": "wavelenght"}, "no column 'wavelenght'; did you mean 'wavelength'"),
        ({"ivar": "eror"}, "no column 'eror'; did you mean 'error'"),
        ({"unit": "photons"}, "wanted a unit such as"),
        ({"unit": "m"}, "wanted a flux density|wanted the unit"),
        ({"wavelength_unit": "Jy"}, "wanted a spectral unit"),
        ({"medium": "water"}, "unknown medium"),
    ],
)
def test_wrong_options(real, options, message):
    with pytest.raises(ValueError, match=message):
        from_table(quantity_table(real), **options)


def test_nothing_of_the_callers_is_changed(real):
    table = Table({"flux": real[0], "wavelength": real[2][::-1].copy(), "ivar": real[1]})
    before = table.copy()
    from_table(table, unit=FLUX_UNIT, wavelength_unit="Angstrom")
    assert table.colnames == before.colnames
    for name in table.colnames:
        np.testing.assert_array_equal(table[name], before[name])


def test_columns_of_other_things():
    assert column_names(None) == ()
    assert column_names({"a": 1}) == ()
    with pytest.raises(ValueError, match="no column 'flux'; known: x"):
        column(Table({"x": [1]}), "flux")
