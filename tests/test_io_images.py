"""Image cut-outs in the layouts of several surveys, with what may be left to the caller.

No real cut-out that may be kept here was at hand: the files are written as the surveys' services write them, with the
keywords of their headers.
"""

import numpy as np
import pytest
import torch

from astropy.io import fits
from astropy.wcs import WCS

from aion.io import identify, object_ids, read
from aion.io.images import image_ids, is_image

SHAPE = (12, 16)


def wcs_header(
    scale: float = 0.262, dec: float = 5.0, ra: float = 180.0, rotation: float = 0.0, **cards
) -> fits.Header:
    """Makes a header with a tangent-plane WCS of a scale in arcsec per pixel."""
    wcs = WCS(naxis=2)
    wcs.wcs.ctype, wcs.wcs.crval, wcs.wcs.crpix = ("RA---TAN", "DEC--TAN"), (ra, dec), (8, 6)
    cos, sin = np.cos(rotation), np.sin(rotation)
    wcs.wcs.cd = scale / 3600 * np.array([[-cos, sin], [sin, cos]])
    header = wcs.to_header()
    header.update(cards)
    return header


def plane(seed: int = 0, shape: tuple[int, ...] = SHAPE) -> np.ndarray:
    return np.random.default_rng(seed).normal(1.0, 0.5, shape).astype(">f4")


def write(path, *hdus):
    fits.HDUList([fits.PrimaryHDU(hdus[0][0], hdus[0][1]), *(fits.ImageHDU(*hdu) for hdu in hdus[1:])]).writeto(path)
    return path


@pytest.fixture
def simple(tmp_path):
    """Writes one decam-r image in nanomaggy with its inverse variance."""
    header = wcs_header(BUNIT="nanomaggy", FILTER="r", INSTRUME="DECam")
    return write(tmp_path / "cutout.fits", (plane(), header), (np.full(SHAPE, 4.0), None, "IVAR"))


def test_an_image_agrees_with_astropy(simple):
    assert identify(simple) == "image"
    observations = read(simple)
    assert list(observations) == ["legacysurvey_image"]
    image = observations["legacysurvey_image"]
    with fits.open(simple) as hdus:
        np.testing.assert_array_equal(image.flux[0, 0], hdus[0].data)
    assert image.flux.dtype == torch.float32
    assert image.bands == ("decam-r",)
    assert (image.ivar == 4).all()
    assert image.pixel_scale.item() == pytest.approx(0.262, rel=1e-5)
    assert object_ids(simple) == ["cutout"]


@pytest.mark.parametrize("rotation", [0.0, 0.5])
def test_the_scale_is_that_of_the_wcs(tmp_path, rotation):
    header = wcs_header(scale=0.5, rotation=rotation, BUNIT="nmgy", FILTER="decam-g")
    path = write(tmp_path / "a.fits", (plane(), header), (np.ones(SHAPE), None, "IVAR"))
    assert read(path)["legacysurvey_image"].pixel_scale.item() == pytest.approx(0.5, rel=1e-4)
    assert read(path, pixel_scale=0.7)["legacysurvey_image"].pixel_scale.item() == pytest.approx(0.7)


@pytest.mark.parametrize(
    ("cards", "options", "factor"),
    [
        ({"BUNIT": "nanomaggy"}, {}, 1.0),
        ({"BUNIT": "nanomaggies"}, {}, 1.0),
        ({"BUNIT": "uJy"}, {}, 1 / 3.631),
        ({"BUNIT": "nJy"}, {}, 1e-3 / 3.631),
        ({"BUNIT": "MJy/sr"}, {}, 1e12 * (0.262 / 206264.80625) ** 2 / 3.631),
        ({"BUNIT": "adu", "MAGZERO": 25.0}, {}, 0.1),
        ({"BUNIT": "counts", "ZEROPT": 27.5}, {}, 0.01),
        ({"FLUXMAG0": 10**10.8}, {}, 10 ** (-0.4 * 4.5)),  # zero point 27
        ({}, {"zero_point": 20.0}, 10.0),
        ({"MAGZERO": 1.0}, {"unit": "uJy"}, 1 / 3.631),
        ({"BUNIT": "nanomaggy"}, {"zero_point": 25.0}, 0.1),
        ({"SURVEY": "LegacySurvey"}, {}, 1.0),
    ],
)
def test_pixels_become_nanomaggy(tmp_path, cards, options, factor):
    header = wcs_header(FILTER="decam-r", **cards)
    path = write(tmp_path / "a.fits", (plane(), header), (np.full(SHAPE, 4.0), None, "IVAR"))
    image = read(path, **options)["legacysurvey_image"]
    np.testing.assert_allclose(image.flux[0, 0], plane() * factor, rtol=1e-5)
    np.testing.assert_allclose(image.ivar[0, 0], 4 / factor**2, rtol=1e-5)


@pytest.mark.parametrize(
    ("name", "value", "wanted"),
    [
        ("IVAR", 4.0, 4.0),
        ("INVVAR", 4.0, 4.0),
        ("WHT", 4.0, 4.0),
        ("VARIANCE", 0.25, 4.0),
        ("ERR", 0.5, 4.0),
        ("VARIANCE", 0.0, 0.0),
        ("ERR", np.nan, 0.0),
    ],
)
def test_noise_goes_by_its_name(tmp_path, name, value, wanted):
    header = wcs_header(FILTER="decam-r", BUNIT="nmgy")
    path = write(tmp_path / "a.fits", (plane(), header), (np.full(SHAPE, value), None, name))
    assert (read(path)["legacysurvey_image"].ivar == wanted).all()


def test_without_noise_the_user_decides(tmp_path):
    light = 50 * np.exp(-((np.mgrid[:100, :100] - 50) ** 2).sum(0) / 200)
    data = light + np.random.default_rng(0).normal(0, 0.2, light.shape)
    path = write(tmp_path / "a.fits", (data, wcs_header(FILTER="decam-r", BUNIT="nmgy")))
    with pytest.raises(ValueError, match=r'a\.fits: it has no inverse variance .* give ivar="estimate"'):
        read(path)
    with pytest.raises(ValueError, match="wanted \"estimate\" or nothing, given 'guess'"):
        read(path, ivar="guess")
    ivar = read(path, ivar="estimate")["legacysurvey_image"].ivar
    assert ivar.min() == ivar.max()
    assert ivar[0, 0, 0, 0].item() == pytest.approx(25, rel=0.3)
    flat = write(tmp_path / "b.fits", (np.ones(SHAPE), wcs_header(FILTER="decam-r", BUNIT="nmgy")))
    with pytest.raises(ValueError, match="do not scatter"):
        read(flat, ivar="estimate")


def test_a_cutout_of_the_legacy_surveys(tmp_path):
    header = wcs_header(SURVEY="LegacySurvey", VERSION="DR9", BANDS="grz", BAND0="g", BAND1="r", BAND2="z")
    cube, ivar = plane(shape=(3, *SHAPE)), np.full((3, *SHAPE), 2.0)
    noise = header.copy()
    header["IMAGETYP"], noise["IMAGETYP"] = "IMAGE", "INVVAR"
    image = read(write(tmp_path / "a.fits", (cube, header), (ivar, noise)))["legacysurvey_image"]
    assert image.bands == ("decam-g", "decam-r", "decam-z")
    np.testing.assert_array_equal(image.flux[0], cube)
    assert (image.ivar == 2).all()


@pytest.mark.parametrize(
    ("ra", "dec", "bands"),
    [
        (180.0, 60.0, ("bass-g", "bass-r", "mzls-z")),  # north Galactic cap
        (180.0, 30.0, ("decam-g", "decam-r", "decam-z")),
        (10.0, 33.0, ("decam-g", "decam-r", "decam-z")),  # south Galactic cap
    ],
)
def test_the_legacy_surveys_use_other_cameras_in_the_north(tmp_path, ra, dec, bands):
    header = wcs_header(ra=ra, dec=dec, SURVEY="LegacySurvey", BANDS="grz")
    path = write(tmp_path / "a.fits", (plane(shape=(3, *SHAPE)), header))
    image = read(path, ivar="estimate")["legacysurvey_image"]
    assert image.bands == bands


def test_resampled_legacy_pixels_have_no_known_unit(tmp_path):
    header = wcs_header(scale=0.5, SURVEY="LegacySurvey", BANDS="g")
    path = write(tmp_path / "a.fits", (plane(), header), (np.ones(SHAPE), None, "IVAR"))
    with pytest.raises(ValueError, match="given neither BUNIT nor a zero point: give unit="):
        read(path)


def test_a_cutout_of_hsc(tmp_path):
    planes = {"MP_BAD": 0, "MP_SAT": 1, "HIERARCH MP_DETECTED": 5, "HIERARCH MP_NO_DATA": 8}
    mask = np.full(SHAPE, 1 << 5, "i4")
    mask[0, :3] = [1 << 0, 1 << 1, 1 << 8]
    path = write(
        tmp_path / "hsc.fits",
        (None, fits.Header({"FLUXMAG0": 63095734448.0194, "INSTRUME": "Hyper Suprime-Cam", "FILTER": "HSC-R2"})),
        (plane(), wcs_header(scale=0.168), "IMAGE"),
        (mask, fits.Header(planes), "MASK"),
        (np.full(SHAPE, 0.25), None, "VARIANCE"),
    )
    image = read(path)["hsc_image"]
    assert image.bands == ("hsc-r",)
    assert image.measured.sum() == np.prod(SHAPE) - 3
    np.testing.assert_allclose(image.flux[0, 0, 1:], plane()[1:] * 10 ** (-0.4 * 4.5), rtol=1e-5)


def test_other_masks_are_bad_where_they_are_not_zero(tmp_path):
    mask = np.zeros(SHAPE, "i2")
    mask[3, 4] = 64
    header = wcs_header(FILTER="decam-r", BUNIT="nmgy")
    cube = plane(shape=(2, *SHAPE))
    cube[0, 5, 5] = np.nan
    hdus = ((cube, header), (np.ones(cube.shape), None, "IVAR"), (mask, None, "DQ"))
    image = read(write(tmp_path / "a.fits", *hdus), bands=("decam-g", "decam-r"))["legacysurvey_image"]
    assert (image.ivar[0] == 0).nonzero().tolist() == [[0, 3, 4], [0, 5, 5], [1, 3, 4]]
    assert image.flux[0, 0, 5, 5] == 0


def test_an_extension_for_each_band(tmp_path):
    hdus = [(None, fits.Header({"TELESCOP": "SDSS 2.5-M", "OBJECT": "NGC 1"}))]
    for i, band in enumerate("gri"):
        hdus.append((plane(i), wcs_header(0.396, BUNIT="nanomaggy", FILTER=band), "SCI"))
        hdus.append((np.full(SHAPE, i + 1.0), None, "IVAR"))
    path = write(tmp_path / "multi.fits", *hdus)
    image = read(path)["sdss_image"]
    assert image.bands == ("sdss-g", "sdss-r", "sdss-i")
    for i in range(3):
        np.testing.assert_array_equal(image.flux[0, i], plane(i))
        assert (image.ivar[0, i] == i + 1).all()
    assert object_ids(path) == ["NGC 1"]


@pytest.mark.parametrize(
    ("cards", "band"),
    [
        ({"FILTER": "hsc-i"}, "hsc-i"),
        ({"FILTER": "HSC-I2"}, "hsc-i"),
        ({"FILTER": "g.00000", "INSTRUME": "GPC1"}, "panstarrs-g"),
        ({"HIERARCH FPA.FILTER": "y.00000", "TELESCOP": "PS1"}, "panstarrs-y"),
        ({"FILTER": "z DECam SDSS c0004 9260.0 1520.0", "INSTRUME": "decam"}, "decam-z"),
        ({"BAND": "w2", "TELESCOP": "WISE"}, "wise-w2"),
        ({"FILTER": "r", "CAMERA": "90prime"}, "bass-r"),
        ({"FILTER": "u", "ORIGIN": "SDSS"}, "sdss-u"),
    ],
)
def test_bands_by_header(tmp_path, cards, band):
    header = wcs_header(BUNIT="nmgy", **cards)
    image = read(write(tmp_path / "a.fits", (plane(), header), (np.ones(SHAPE), None, "IVAR"))).popitem()[1]
    assert image.bands == (band,)


@pytest.mark.parametrize(
    ("cards", "options", "message"),
    [
        ({}, {}, "names no filter for 1 image"),
        ({"FILTER": "r"}, {}, "cannot tell the band of filter 'r': give bands="),
        ({"FILTER": "r", "INSTRUME": "DECam", "ORIGIN": "SDSS"}, {}, "cannot tell the band"),
        ({"FILTER": "q", "INSTRUME": "DECam"}, {}, "cannot tell the band of filter 'q'"),
        ({"FILTER": "decam-r"}, {"bands": ("decam-rr",)}, "unknown band 'decam-rr'; did you mean 'decam-r'"),
        ({"FILTER": "decam-r"}, {"bands": ("decam-r", "decam-g")}, "wanted 1 different bands"),
        ({"FILTER": "decam-r", "BUNIT": "adu"}, {}, "given the unit 'adu': give unit= or zero_point="),
        ({"FILTER": "decam-r", "BUNIT": ""}, {}, "given neither BUNIT nor a zero point"),
        ({"FILTER": "decam-r"}, {"unit": "adu"}, "given the unit 'adu'"),
        ({"FILTER": "decam-r"}, {"unit": "nmgy", "zero_point": 25}, "wanted one of unit= and zero_point="),
        ({"FILTER": "decam-r"}, {"pixel_scale": -1.0}, "pixel_scale must be positive"),
    ],
)
def test_what_an_image_must_say(tmp_path, cards, options, message):
    header = wcs_header(**{"BUNIT": "nanomaggy", **cards})
    path = write(tmp_path / "a.fits", (plane(), header), (np.ones(SHAPE), None, "IVAR"))
    with pytest.raises(ValueError, match=f"a.fits: .*{message}"):
        read(path, **options)


def test_images_that_do_not_fit_together(tmp_path):
    header = wcs_header(BUNIT="nmgy", FILTER="decam-r")
    small = write(tmp_path / "a.fits", (plane(), header), (np.ones((3, 3)), None, "IVAR"))
    with pytest.raises(ValueError, match=r"given 'IVAR' of shape \(3, 3\)"):
        read(small)
    two = write(tmp_path / "b.fits", (plane(), header), (plane(shape=(2, 3)), header, "SCI"))
    with pytest.raises(ValueError, match="differ in shape"):
        read(two, ivar="estimate", bands=("decam-r", "decam-g"))
    one = write(tmp_path / "c.fits", (plane(), header), (plane(), header, "SCI"), (np.ones(SHAPE), None, "IVAR"))
    with pytest.raises(ValueError, match="a noise or mask for each image"):
        read(one, bands=("decam-r", "decam-g"))


def test_images_without_a_place_on_the_sky(tmp_path):
    header = fits.Header({"BUNIT": "nmgy", "FILTER": "decam-r"})
    path = write(tmp_path / "a.fits", (plane(), header), (np.ones(SHAPE), None, "IVAR"))
    with pytest.raises(ValueError, match="no spectrum, image or catalogue"):
        read(path)
    with pytest.raises(ValueError, match="no celestial WCS: give pixel_scale="):
        read(path, format="image")
    assert read(path, format="image", pixel_scale=0.3)["legacysurvey_image"].pixel_scale.item() == pytest.approx(0.3)
    solar = wcs_header()
    solar["CTYPE1"], solar["CTYPE2"] = "HPLN-TAN", "HPLT-TAN"
    with pytest.raises(ValueError, match="no spectrum, image or catalogue"):
        read(write(tmp_path / "sun.fits", (plane(), solar)))


def test_files_without_images_are_none(tmp_path):
    path = write(tmp_path / "a.fits", (None, fits.Header()))
    with pytest.raises(ValueError, match="it has no image; it has PRIMARY"):
        read(path, format="image")
    assert not is_image(None)
    assert callable(image_ids)
