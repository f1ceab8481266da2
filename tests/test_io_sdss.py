"""SDSS: a real quasar on its log-linear grid, and the official spec files.

No official spec file was at hand that may be kept here. The one tested is built in that layout from the real flux, ivar
and mask of the quasar, after the data model of spec-PLATE-MJD-FIBER.fits.
"""

import numpy as np
import pytest
import torch

from astropy.io import fits

from aion.io import air_to_vacuum, identify, object_ids, read, read_redshift


@pytest.fixture
def quasar(root):
    return root / "tests/data/SDSSJ220248.31+123656.3.fits.gz"


@pytest.fixture
def original(quasar):
    with fits.open(quasar) as hdus:
        flux, ivar, loglam, good = (hdu.data.astype(np.float64) for hdu in hdus)
        return hdus[0].header, flux, ivar, loglam, good.astype(bool)


def write_spec(path, original, case=str.lower, table="SPALL", **columns):
    header, flux, ivar, loglam, good = original
    data = {"flux": flux, "loglam": loglam, "ivar": ivar, "and_mask": np.where(good, 0, 2**18), **columns}
    formats = {"flux": "E", "loglam": "E", "ivar": "E", "and_mask": "J", "or_mask": "J"}
    coadd = fits.BinTableHDU.from_columns(
        [fits.Column(case(n), formats[n], array=a) for n, a in data.items() if a is not None], name="COADD"
    )
    primary = fits.PrimaryHDU(header=fits.Header({k: header[k] for k in ("PLATEID", "MJD", "TELESCOP")}))
    primary.header["FIBERID"] = 122
    result = fits.BinTableHDU.from_columns(
        [fits.Column("Z", "E", array=[2.5]), fits.Column("ZWARNING", "J", array=[0])]
    )
    result.name = table
    fits.HDUList([primary, coadd, result]).writeto(path)
    return path


def test_the_quasar_agrees_with_astropy(quasar, original):
    _, flux, ivar, loglam, good = original
    spectrum = read(quasar)["sdss_spectrum"]
    np.testing.assert_array_equal(spectrum.measured[0], good & (ivar > 0))
    np.testing.assert_allclose(spectrum.flux[0, good], flux[good], rtol=1e-6)
    np.testing.assert_allclose(spectrum.ivar[0, good], ivar[good], rtol=1e-5)
    np.testing.assert_allclose(spectrum.wavelength[0], 10**loglam, rtol=1e-6)
    assert spectrum.measured.sum() == 4525
    assert object_ids(quasar) == ["SDSSJ220248.31+123656.3"]


def test_the_nameless_noise_is_what_the_data_say(quasar, original, tmp_path):
    wanted = read(quasar)["sdss_spectrum"]
    with fits.open(quasar) as hdus:
        with np.errstate(divide="ignore"):
            error = hdus[1].data ** -0.5
        hdus[1].data = np.where(np.isfinite(error), error, 0).astype("f4")
        hdus.writeto(tmp_path / "error.fits")
        hdus[1].data = np.full_like(hdus[1].data, 1e4)
        hdus.writeto(tmp_path / "neither.fits")
        hdus[1].data = np.ones_like(hdus[1].data)
        hdus.writeto(tmp_path / "ambiguous.fits")
    spectrum = read(tmp_path / "error.fits")["sdss_spectrum"]
    torch.testing.assert_close(spectrum.ivar, wanted.ivar, rtol=1e-5, atol=0)
    for name in ("neither", "ambiguous"):
        with pytest.raises(ValueError, match="do not tell whether it is an inverse variance or an error"):
            read(tmp_path / f"{name}.fits")


def test_a_name_decides_over_the_data(quasar, tmp_path):
    with fits.open(quasar) as hdus:
        hdus[1].name = "ERR"
        hdus.writeto(tmp_path / "named.fits")
        noise = hdus[1].data[3000]
    assert read(tmp_path / "named.fits")["sdss_spectrum"].ivar[0, 3000].item() == pytest.approx(noise**-2.0, rel=1e-5)


def test_the_polarity_of_a_nameless_mask_is_what_the_data_say(quasar, tmp_path):
    wanted = read(quasar)["sdss_spectrum"]
    with fits.open(quasar) as hdus:
        hdus[3].data = (1 - hdus[3].data).astype("u1")
        hdus.writeto(tmp_path / "flipped.fits")
        hdus[1].data = np.where(hdus[1].data > 0, hdus[1].data, 0.1).astype("f4")
        hdus.writeto(tmp_path / "unknown.fits")
        del hdus[3]
        hdus.writeto(tmp_path / "without.fits")
    assert torch.equal(read(tmp_path / "flipped.fits")["sdss_spectrum"].ivar, wanted.ivar)
    assert read(tmp_path / "without.fits")["sdss_spectrum"].measured.all()
    with pytest.raises(ValueError, match="do not tell whether 0 or 1 is bad"):
        read(tmp_path / "unknown.fits")


def test_headers_decide_on_survey_unit_and_medium(quasar, tmp_path):
    wanted = read(quasar)["sdss_spectrum"]
    with fits.open(quasar) as hdus:
        header = hdus[0].header
        header["TELESCOP"], header["VACUUM"] = "Keck", False
        del header["COEFF0"], header["COEFF1"]
        hdus.writeto(tmp_path / "keck.fits")
        del header["BUNIT"]
        hdus.writeto(tmp_path / "bare.fits")
        del hdus[1:]
        hdus.writeto(tmp_path / "alone.fits")
    spectrum = read(tmp_path / "keck.fits")["spectrum"]
    np.testing.assert_allclose(spectrum.wavelength, air_to_vacuum(wanted.wavelength.double().numpy()), rtol=1e-6)
    with pytest.raises(ValueError, match="no BUNIT: give unit="):
        read(tmp_path / "bare.fits")
    torch.testing.assert_close(read(tmp_path / "bare.fits", unit="1e-17 erg/s/cm2/A")["spectrum"].flux, wanted.flux)
    with pytest.raises(ValueError, match="no image of the noise"):
        read(tmp_path / "alone.fits", unit="1e-17 erg/s/cm2/A")


def test_a_linear_grid_is_no_logarithmic_one(quasar, tmp_path):
    with fits.open(quasar) as hdus:
        header = hdus[0].header
        del header["COEFF0"], header["COEFF1"]
        header["CRVAL1"], header["CD1_1"], header["DC-FLAG"] = 3600.0, 1.0, 0
        hdus.writeto(tmp_path / "linear.fits")
    with pytest.raises(ValueError, match="no spectrum, image or catalogue in its HDUs PRIMARY, 1, 2, 3"):
        read(tmp_path / "linear.fits")
    with pytest.raises(ValueError, match="no grid linear in log10 wavelength"):
        read(tmp_path / "linear.fits", format="sdss-loglam")


@pytest.mark.parametrize("case", [str.lower, str.upper], ids=["lower", "upper"])
def test_spec_files_agree_with_what_they_were_built_of(original, quasar, tmp_path, case):
    path = write_spec(tmp_path / "spec-5063-55831-0122.fits", original, case)
    assert identify(path) == "sdss-spec"
    spectrum, wanted = read(path)["sdss_spectrum"], read(quasar)["sdss_spectrum"]
    assert torch.equal(spectrum.measured, wanted.measured)
    torch.testing.assert_close(spectrum.flux, wanted.flux)
    torch.testing.assert_close(spectrum.ivar, wanted.ivar)
    torch.testing.assert_close(spectrum.wavelength, wanted.wavelength, rtol=3e-6, atol=0)  # loglam is float32 there
    assert object_ids(path) == ["5063-55831-0122"]


@pytest.mark.parametrize("table", ["SPALL", "SPECOBJ"])
def test_spec_files_have_the_pipelines_redshift(original, tmp_path, table):
    assert read_redshift(write_spec(tmp_path / "spec.fits", original, table=table)).tolist() == [2.5]


def test_incomplete_spec_files(original, tmp_path):
    with pytest.raises(ValueError, match="no column 'and_mask'; did you mean 'or_mask'"):
        read(write_spec(tmp_path / "a.fits", original, and_mask=None, or_mask=np.zeros(4646)))
    path = write_spec(tmp_path / "b.fits", original, table="OTHER")
    with pytest.raises(ValueError, match="no table SPALL or SPECOBJ"):
        read_redshift(path)
    with fits.open(path) as hdus:
        del hdus[0].header["FIBERID"]
        hdus.writeto(tmp_path / "spec-1-2-3.fits")
    assert object_ids(tmp_path / "spec-1-2-3.fits") == ["spec-1-2-3"]
