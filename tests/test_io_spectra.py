"""DESI, MaNGA and images of WAVE, FLUX and IVAR, on real files, against astropy reading by hand."""

import numpy as np
import pytest
import torch

from astropy.io import fits

from aion.io import air_to_vacuum, object_ids, read, read_redshift, samples
from aion.io.fits import FitsFile
from aion.io.spectra import is_desi_coadd, is_manga, read_desi_coadd, read_manga

DESI = {name: path for name, path in samples().items() if name.endswith("galaxy")}
UNIT = "1e-17 erg/s/cm2/Angstrom"


@pytest.fixture
def manga(root):
    return root / "tests/data/MaNGA_test_spectra.fits.gz"


@pytest.fixture
def stack(root):
    return root / "tests/data/stack-LRG.fits.gz"


def changed(path, change) -> FitsFile:
    """Returns a file with its HDUs changed in memory."""
    with fits.open(path) as hdus:
        hdus = fits.HDUList([hdu.copy() for hdu in hdus])
    change(hdus)
    return FitsFile(hdus)


@pytest.mark.parametrize("name", DESI)
def test_desi_arms_are_joined_and_every_pixel_is_kept(name):
    spectrum = read(DESI[name])["desi_spectrum"]
    with fits.open(DESI[name]) as hdus:
        wavelength = np.concatenate([hdus[f"{arm}_WAVELENGTH"].data for arm in "BRZ"]).astype(np.float32)
        flux = np.concatenate([hdus[f"{arm}_FLUX"].data[0] for arm in "BRZ"])
        ivar = np.concatenate([hdus[f"{arm}_IVAR"].data[0] for arm in "BRZ"])
    order = np.argsort(wavelength, kind="stable")
    assert spectrum.flux.shape == (1, 2751 + 2326 + 2881)
    np.testing.assert_array_equal(spectrum.wavelength[0], wavelength[order])
    np.testing.assert_allclose(spectrum.flux[0], flux[order], rtol=1e-6)
    np.testing.assert_allclose(spectrum.ivar[0], ivar[order], rtol=1e-6)
    assert spectrum.flux.dtype == torch.float32
    # Arms overlap by 51 and 126 pixels, the blue arm's pixel first.
    pairs = (spectrum.wavelength[0].diff() == 0).nonzero().flatten().numpy()
    assert len(pairs) == 51 + 126
    assert (order[pairs] < order[pairs + 1]).all()


def test_desi_targets_are_the_pipelines(root):
    for name, target, redshift in (
        ("desi-galaxy", "39633345008634465", 0.36874355),
        ("desi-nearby-galaxy", "39089837499744649", 0.00726967),
    ):
        assert object_ids(samples()[name]) == object_ids(samples()[f"{name}-redshift"]) == [target]
        assert read_redshift(samples()[f"{name}-redshift"]).item() == pytest.approx(redshift, abs=1e-7)


def test_desi_mask_nan_and_infinity_become_unmeasured():
    def spoil(hdus):
        hdus["B_MASK"].data[0, 3] = 2
        hdus["B_FLUX"].data[0, 5] = np.nan
        hdus["B_IVAR"].data[0, 7] = np.inf
        hdus["B_IVAR"].data[0, 9] = 0

    spectrum = read_desi_coadd(changed(DESI["desi-galaxy"], spoil))["desi_spectrum"]
    assert (spectrum.ivar[0] == 0).nonzero().flatten().tolist() == [3, 5, 7, 9]
    assert spectrum.flux[0, [3, 5, 7, 9]].tolist() == [0, 0, 0, 0]


def test_desi_units_are_those_of_the_header():
    def scale(hdus):
        for arm in "BRZ":
            hdus[f"{arm}_FLUX"].header["BUNIT"] = "10**-16 erg/(s cm2 Angstrom)"

    spectrum = read_desi_coadd(changed(DESI["desi-galaxy"], scale))["desi_spectrum"]
    plain = read(DESI["desi-galaxy"])["desi_spectrum"]
    torch.testing.assert_close(spectrum.flux, plain.flux * 10)
    torch.testing.assert_close(spectrum.ivar, plain.ivar / 100)

    def wrong(hdus):
        hdus["R_FLUX"].header["BUNIT"] = "Angstrom"

    with pytest.raises(ValueError, match="wanted a flux density"):
        read_desi_coadd(changed(DESI["desi-galaxy"], wrong))


def test_desi_reads_what_it_needs_and_no_more(monkeypatch):
    def add(hdus):
        hdus.append(fits.ImageHDU(np.zeros((1, 11, 2751)), name="B_RESOLUTION"))

    file, images = changed(DESI["desi-galaxy"], add), []
    array = file.array
    monkeypatch.setattr(file, "array", lambda name: images.append(name) or array(name))
    monkeypatch.setattr(file, "column", lambda *_: pytest.fail("no table is needed"))
    read_desi_coadd(file)
    assert sorted(images) == sorted(f"{a}_{n}" for a in "BRZ" for n in ("FLUX", "WAVELENGTH", "IVAR", "MASK"))


def test_desi_of_several_targets_and_two_arms():
    def two(hdus):
        for name in ("Z_WAVELENGTH", "Z_FLUX", "Z_IVAR", "Z_MASK", "FIBERMAP"):
            del hdus[name]
        for arm in "BR":
            for name in ("FLUX", "IVAR", "MASK"):
                hdus[f"{arm}_{name}"].data = np.repeat(hdus[f"{arm}_{name}"].data, 3, axis=0)

    file = changed(DESI["desi-galaxy"], two)
    spectrum = read_desi_coadd(file)["desi_spectrum"]
    assert spectrum.flux.shape == (3, 2751 + 2326)
    assert torch.equal(spectrum.flux[0], spectrum.flux[2])


def test_desi_without_an_image_it_needs():
    def drop(hdus):
        del hdus["R_IVAR"]

    file = changed(DESI["desi-galaxy"], drop)
    assert is_desi_coadd(file)
    with pytest.raises(ValueError, match="no HDU 'R_IVAR'"):
        read_desi_coadd(file)
    with pytest.raises(ValueError, match="no arm with B_WAVELENGTH"):
        read_desi_coadd(FitsFile([fits.PrimaryHDU()]))


def test_manga_agrees_with_astropy_and_keeps_the_redshift_apart(manga):
    observations = read(manga)
    assert list(observations) == ["sdss_spectrum"]
    spectrum = observations["sdss_spectrum"]
    with fits.open(manga) as hdus:
        wave, flux, ivar, mask, z = (hdus[n].data for n in ("WAVE", "FLUX", "IVAR", "MASK", "Z"))
        good = (mask == 0) & (ivar > 0)
        np.testing.assert_array_equal(spectrum.measured, good)
        np.testing.assert_allclose(spectrum.flux[good], flux[good], rtol=1e-6)
        np.testing.assert_allclose(spectrum.ivar[good], ivar[good], rtol=1e-6)
        np.testing.assert_allclose(spectrum.wavelength, np.broadcast_to(wave, flux.shape), rtol=1e-7)
        np.testing.assert_allclose(read_redshift(manga), z, rtol=1e-6)
    assert not spectrum.measured[5].any()  # a spaxel without light
    assert object_ids(manga) == [f"MaNGA_test_spectra-{row}" for row in range(8)]


def test_manga_cubes_are_refused(manga):
    def fold(hdus):
        for name in ("FLUX", "IVAR", "MASK"):
            hdus[name].data = hdus[name].data.T.reshape(-1, 2, 4)

    file = changed(manga, fold)
    assert is_manga(file)
    with pytest.raises(ValueError, match=r"flux must be \(L,\) or \(B, L\), given \(4563, 2, 4\)"):
        read_manga(file)


def test_a_stack_needs_its_unit_and_then_agrees_with_astropy(stack):
    with pytest.raises(ValueError, match=r"stack-LRG.*'FLUX' has no BUNIT: give unit="):
        read(stack)
    spectrum = read(stack, unit=UNIT)["spectrum"]
    with fits.open(stack) as hdus:
        np.testing.assert_allclose(spectrum.flux, hdus["FLUX"].data, rtol=1e-6)
        np.testing.assert_allclose(spectrum.ivar, hdus["IVAR"].data, rtol=1e-6)
        np.testing.assert_allclose(spectrum.wavelength[0], hdus["WAVE"].data, rtol=1e-7)
    assert object_ids(stack) == ["stack-LRG"]
    halved = read(stack, unit="0.5e-17 erg/s/cm2/Angstrom")["spectrum"]
    torch.testing.assert_close(halved.flux, spectrum.flux / 2)
    torch.testing.assert_close(halved.ivar, spectrum.ivar * 4)


@pytest.mark.parametrize("how", ["header", "option"])
def test_air_wavelengths_become_vacuum(stack, tmp_path, how):
    with fits.open(stack) as hdus:
        wave = hdus["WAVE"].data.astype(np.float64)
        hdus["WAVE"].header["AIRORVAC"] = "air" if how == "header" else "vac"
        hdus.writeto(tmp_path / "air.fits")
    options = {} if how == "header" else {"medium": "air"}
    spectrum = read(tmp_path / "air.fits", unit=UNIT, **options)["spectrum"]
    np.testing.assert_allclose(spectrum.wavelength[0], air_to_vacuum(wave), rtol=1e-7)


@pytest.mark.parametrize(
    ("name", "power"), [("IVAR", 1), ("INVVAR", 1), ("ERR", -0.5), ("SIGMA", -0.5), ("VAR", -1), ("VARIANCE", -1)]
)
def test_noise_goes_by_its_name(tmp_path, name, power):
    ivar = np.array([4.0, 0.25, 1.0])
    hdus = [
        fits.PrimaryHDU(),
        fits.ImageHDU(np.ones(3), fits.Header({"BUNIT": "Jy"}), name="FLUX"),
        fits.ImageHDU(np.array([500.0, 501.0, 502.0]), fits.Header({"BUNIT": "nm"}), name="WAVELENGTH"),
        fits.ImageHDU(ivar**power, name=name),
        fits.ImageHDU(np.array([0, 0, 1]), name="MASK"),
    ]
    fits.HDUList(hdus).writeto(tmp_path / "some.fits")
    spectrum = read(tmp_path / "some.fits")["spectrum"]
    factor = 2.99792458e18 * 1e-23 / 5000.0**2 / 1e-17
    assert spectrum.flux[0, 0].item() == pytest.approx(factor, rel=1e-5)
    assert (spectrum.flux * spectrum.ivar.sqrt())[0].tolist() == pytest.approx([2.0, 0.5, 0.0], rel=1e-5)


def test_logarithmic_wavelengths_and_missing_units(tmp_path):
    loglam = np.array([3.6, 3.7, 3.8])
    flux = fits.ImageHDU(np.ones(3), fits.Header({"BUNIT": "Jy"}), name="FLUX")
    ivar = fits.ImageHDU(np.ones(3), name="IVAR")
    fits.HDUList([fits.PrimaryHDU(), flux, ivar, fits.ImageHDU(loglam, name="LOGLAM")]).writeto(tmp_path / "log.fits")
    spectrum = read(tmp_path / "log.fits")["spectrum"]
    np.testing.assert_allclose(spectrum.wavelength[0], 10**loglam, rtol=1e-6)
    fits.HDUList([fits.PrimaryHDU(), flux, ivar, fits.ImageHDU(loglam, name="WAVE")]).writeto(tmp_path / "bare.fits")
    with pytest.raises(ValueError, match="'WAVE' has no BUNIT: give wavelength_unit="):
        read(tmp_path / "bare.fits")
    with pytest.raises(ValueError, match="not Angstrom"):
        read(tmp_path / "bare.fits", wavelength_unit="Angstrom")
