import copy
import pickle

from dataclasses import FrozenInstanceError, fields, replace

import numpy as np
import pytest
import torch

from astropy import units as u
from astropy.table import Column, MaskedColumn

from aion.observations import BAND_ALIASES, BANDS, PIXEL_SCALES, Image, Scalar, Spectrum, near_miss, rows

WAVELENGTH = np.linspace(4000.0, 5000.0, 6)


def spectrum(flux=None, ivar=None, wavelength=WAVELENGTH):
    flux = np.arange(18.0).reshape(3, 6) if flux is None else flux
    return Spectrum(flux, np.ones(np.shape(flux)) if ivar is None else ivar, wavelength)


def image(flux=None, ivar=None, bands=("decam-g", "decam-r"), pixel_scale=None):
    flux = np.arange(96.0).reshape(3, 2, 4, 4) if flux is None else flux
    return Image(flux, np.ones(np.shape(flux)) if ivar is None else ivar, bands, pixel_scale)


def scalar(value=(1.0, np.nan, 3.0)):
    return Scalar(value)


def vector():
    return Scalar(np.arange(12.0).reshape(3, 4))


MAKERS = [spectrum, image, scalar, vector]


def tensors(observation):
    values = {f.name: getattr(observation, f.name) for f in fields(observation)}
    return {name: value for name, value in values.items() if isinstance(value, torch.Tensor)}


def assert_same(a, b):
    assert type(a) is type(b)
    for name, value in tensors(a).items():
        torch.testing.assert_close(value, tensors(b)[name], rtol=0, atol=0, equal_nan=True)
    assert getattr(a, "bands", None) == getattr(b, "bands", None)


# Arrays of every kind come in, float32 comes out, and the caller's array stays as it was.

RECORD = np.zeros((3, 6), dtype=[("flux", "<f4"), ("flag", "<i2")])
RECORD["flux"] = np.arange(18.0).reshape(3, 6)
PLAIN = np.arange(18.0).reshape(3, 6)
ARRAYS = {
    "float64": PLAIN,
    "float32": PLAIN.astype("f4"),
    "float16": PLAIN.astype("f2"),
    "longdouble": PLAIN.astype(np.longdouble),
    "big-endian float64": PLAIN.astype(">f8"),
    "big-endian float32": PLAIN.astype(">f4"),
    "big-endian int16": PLAIN.astype(">i2"),
    "int64": PLAIN.astype("i8"),
    "uint8": PLAIN.astype("u1"),
    "uint16": PLAIN.astype("u2"),
    "uint64": PLAIN.astype("u8"),
    "Fortran order": np.asfortranarray(PLAIN),
    "negative strides": PLAIN[::-1, ::-1].copy()[::-1, ::-1],
    "strided": np.repeat(PLAIN, 2, axis=1)[:, ::2],
    "field of a packed record": RECORD["flux"],
    "list": PLAIN.tolist(),
    "column without unit": Column(PLAIN),
    "masked column without masked values": MaskedColumn(PLAIN, mask=np.zeros(PLAIN.shape, bool)),
    "masked array without masked values": np.ma.masked_array(PLAIN),
    "tensor": torch.from_numpy(PLAIN),
    "bfloat16 tensor": torch.from_numpy(PLAIN).bfloat16(),
    "int tensor": torch.from_numpy(PLAIN).int(),
}


@pytest.mark.parametrize("kind", ARRAYS)
def test_any_real_array_becomes_float32(kind):
    result = spectrum(flux=ARRAYS[kind], ivar=ARRAYS[kind])
    assert {value.dtype for value in tensors(result).values()} == {torch.float32}
    np.testing.assert_array_equal(result.flux.numpy(), PLAIN)
    np.testing.assert_array_equal(result.ivar.numpy(), PLAIN)
    np.testing.assert_array_equal(Scalar(ARRAYS[kind]).value.numpy(), PLAIN)


def test_boolean_ivar_means_measured_or_not():
    result = spectrum(ivar=PLAIN % 2 == 0)
    np.testing.assert_array_equal(result.measured.numpy(), PLAIN % 2 == 0)


@pytest.mark.parametrize("dtype", ["<f4", "<f8", ">f4"])
@pytest.mark.parametrize("writeable", [True, False])
def test_arrays_of_the_caller_are_neither_written_nor_kept(dtype, writeable):
    flux, ivar, wavelength = PLAIN.astype(dtype), np.ones((3, 6), dtype), WAVELENGTH.astype(dtype)
    flux[1, 2], ivar[1, 2] = np.nan, 0
    before = [array.copy() for array in (flux, ivar, wavelength)]
    for array in (flux, ivar, wavelength):
        array.flags.writeable = writeable
    result = spectrum(flux, ivar, wavelength)
    for array, old in zip((flux, ivar, wavelength), before, strict=True):
        np.testing.assert_array_equal(array, old)
        array.flags.writeable = True
        array[...] = -1  # a later write by the caller must not reach the observation
    assert (result.ivar >= 0).all()
    assert (result.wavelength > 0).all()
    assert result.flux[0, 1] == 1


def test_tensors_of_the_caller_are_not_written():
    flux = torch.tensor([[1.0, torch.nan]])
    ivar = torch.tensor([[1.0, 0.0]])
    spectrum(flux, ivar, torch.tensor([4000.0, 4001.0]))
    assert torch.isnan(flux[0, 1])


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 1e30])
def test_flux_that_was_not_measured_becomes_zero(bad):
    ivar = np.ones((3, 6))
    ivar[2, 3:] = 0
    flux = PLAIN.copy()
    flux[2, 3:] = bad
    result = spectrum(flux, ivar)
    assert (result.flux[2, 3:] == 0).all()
    assert (result.flux[2, :3] == torch.tensor([12.0, 13.0, 14.0])).all()
    assert not result.measured[2, 3:].any()
    assert result.measured[:2].all()
    pictures = image(np.full((1, 2, 1, 1), bad), np.zeros((1, 2, 1, 1)))
    assert (pictures.flux == 0).all()
    assert not pictures.measured.any()


# Refusals: what was wanted, what was given, what to try.


@pytest.mark.parametrize("quantity", [PLAIN * u.Jy, Column(PLAIN, unit="Jy"), u.Quantity(PLAIN)])
def test_units_are_refused_never_dropped(quantity):
    with pytest.raises(TypeError, match=r"Spectrum\.flux has a unit .*aion\.io"):
        spectrum(flux=quantity)
    with pytest.raises(TypeError, match=r"Scalar\.value has a unit"):
        Scalar(quantity)
    with pytest.raises(TypeError, match=r"Spectrum\.wavelength has a unit \(Angstrom\)"):
        spectrum(wavelength=WAVELENGTH * u.AA)


@pytest.mark.parametrize("kind", [np.ma.masked_array, MaskedColumn])
def test_masks_are_refused_never_dropped(kind):
    with pytest.raises(TypeError, match=r"Spectrum\.flux has masked values: set ivar to 0"):
        spectrum(flux=kind(PLAIN, mask=PLAIN == 3))


@pytest.mark.parametrize(
    "value", [PLAIN.astype(complex), torch.ones(3, 6, dtype=torch.complex64), PLAIN.astype(str), None, [[None, 1.0]]]
)
def test_what_is_not_a_real_number_is_refused(value):
    with pytest.raises(TypeError, match=r"Spectrum\.flux: wanted real numbers, given"):
        Spectrum(value, PLAIN, WAVELENGTH)
    with pytest.raises(TypeError, match="wanted real numbers, given"):
        Scalar(value)


def test_ragged_lists_are_refused():
    with pytest.raises(ValueError, match=r"Spectrum\.flux: wanted a rectangular array"):
        Spectrum([[1.0, 2.0], [3.0]], PLAIN, WAVELENGTH)


@pytest.mark.parametrize("make", [spectrum, image])
def test_bad_ivar_is_refused(make):
    good = make()
    for bad in (-1.0, np.nan, np.inf):
        ivar = good.ivar.numpy().copy()
        ivar.flat[7] = bad
        where = np.unravel_index(7, ivar.shape)
        with pytest.raises(ValueError, match="ivar must be finite and >= 0") as error:
            make(good.flux, ivar)
        assert f"1 of {ivar.size} values, first at index {tuple(int(i) for i in where)}" in str(error.value)
    with pytest.raises(ValueError, match="must have the shape and device of flux"):
        make(good.flux, good.ivar[..., :-1])
    with pytest.raises(ValueError, match="meta"):
        make(good.flux, good.ivar.to("meta"))


@pytest.mark.parametrize("make", [spectrum, image])
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 1e300])
def test_flux_that_is_not_finite_where_measured_is_refused(make, bad):
    flux = make().flux.numpy().astype(float)
    flux.flat[-1] = bad
    with pytest.raises(ValueError, match=r"flux must be finite where ivar > 0, but 1 of .* set ivar to 0 there"):
        make(flux)


@pytest.mark.parametrize(
    ("make", "shape", "message"),
    [
        (spectrum, (6,), r"\(B, L\), given shape \(6,\); for one object use flux\[None\]"),
        (spectrum, (1, 1, 6), r"\(B, L\), given shape"),
        (spectrum, (0, 6), "empty batch"),
        (spectrum, (2, 0), "empty batch"),
        (image, (2, 4, 4), r"\(B, C, H, W\), given shape \(2, 4, 4\); for one object use flux\[None\]"),
        (image, (0, 2, 4, 4), "empty batch"),
        (image, (1, 2, 0, 4), "empty batch"),
        (scalar, (), r"\(B,\) or \(B, K\)"),
        (scalar, (0,), r"\(B,\) or \(B, K\)"),
        (scalar, (2, 0), r"\(B,\) or \(B, K\)"),
        (scalar, (2, 2, 2), r"\(B,\) or \(B, K\)"),
    ],
)
def test_bad_shapes_are_refused(make, shape, message):
    with pytest.raises(ValueError, match=message):
        make(np.ones(shape))


@pytest.mark.parametrize("value", [np.inf, -np.inf, 1e300])
def test_infinite_scalars_are_refused(value):
    with pytest.raises(ValueError, match=r"1 of 2 values, first at index \(1,\) are infinite"):
        Scalar([0.0, value])


@pytest.mark.parametrize(
    ("wavelength", "message"),
    [
        (WAVELENGTH[::-1], "must not decrease.*sort the pixels"),
        (WAVELENGTH[:-1], "must have the shape and device of flux"),
        (WAVELENGTH * np.nan, "finite and positive"),
        (WAVELENGTH * 0, "finite and positive"),
        (-WAVELENGTH[::-1], "finite and positive"),
        (np.log10(WAVELENGTH), r"from 3\.602 to 3\.699, which is not Angstrom"),
        (WAVELENGTH / 1e4, r"from 0\.4 to 0\.5, which is not Angstrom .*from_quantity"),
        (np.stack([WAVELENGTH, np.log10(WAVELENGTH), WAVELENGTH]), r"from 3\.602 to 3\.699"),
        (4000.0, "must have the shape and device of flux"),
    ],
)
def test_bad_wavelengths_are_refused(wavelength, message):
    with pytest.raises(ValueError, match=message):
        spectrum(wavelength=wavelength)


def test_one_grid_serves_all_and_neighbours_may_be_equal():
    grid = np.array([4000.0, 4000, 4001, 4001, 4002, 4002])
    result = spectrum(wavelength=grid)
    assert result.wavelength.shape == (3, 6)
    assert_same(result, spectrum(wavelength=np.tile(grid, (3, 1))))
    square = Spectrum(np.ones((6, 6)), np.ones((6, 6)), grid)
    assert (square.wavelength[:, 0] == 4000).all()


# Images: bands and pixel scales.


@pytest.mark.parametrize(
    ("bands", "error", "message"),
    [
        (("decam-g", "decm-r"), ValueError, "unknown band 'decm-r'; did you mean 'decam-r'"),
        (("DECam-g", "decam-r"), ValueError, "unknown band 'DECam-g'; did you mean 'decam-g'"),
        (("g", "r"), ValueError, "unknown band 'g'; known: bass-g, bass-r"),
        (("decam-g", 3), ValueError, "unknown band 3"),
        (("decam-g",), ValueError, "wanted 2 different bands"),
        (("decam-g", "decam-g"), ValueError, "wanted 2 different bands"),
        (("decam-g", "decam-r", "decam-z"), ValueError, "wanted 2 different bands"),
        ("gr", TypeError, "sequence of names, given the string 'gr'"),
        ((["decam-g"], "decam-r"), ValueError, r"unknown band \['decam-g'\]"),
        ((), ValueError, "wanted 2 different bands"),
    ],
)
def test_bad_bands_are_refused(bands, error, message):
    with pytest.raises(error, match=message):
        image(bands=bands)


@pytest.mark.parametrize(("alias", "band"), BAND_ALIASES.items())
def test_published_band_names_are_aliases(alias, band):
    assert band in BANDS
    assert alias not in BANDS
    assert image(np.ones((1, 1, 2, 2)), bands=(alias,)).bands == (band,)
    assert alias.split("-")[1].lower() == band.split("-")[1]


def test_an_alias_and_its_band_are_the_same_band():
    with pytest.raises(ValueError, match="wanted 2 different bands"):
        image(bands=("DES-G", "decam-g"))


@pytest.mark.parametrize("survey", sorted(PIXEL_SCALES))
def test_the_standard_pixel_scale_is_that_of_the_survey(survey):
    bands = [band for band in BANDS if band.startswith(f"{survey}-")]
    result = image(np.ones((3, len(bands), 2, 2)), bands=bands)
    assert result.bands == tuple(bands)
    torch.testing.assert_close(result.pixel_scale, torch.full((3,), PIXEL_SCALES[survey]))


def test_pixel_scales_with_a_unit_are_refused_never_dropped():
    with pytest.raises(TypeError, match=r"Image.pixel_scale has a unit \(arcsec\)"):
        image(pixel_scale=0.2 * u.arcsec)


@pytest.mark.parametrize("bands", [("gaia-g", "gaia-bp"), ("decam-g", "hsc-r"), ("decam-g", "gaia-g")])
def test_a_pixel_scale_that_is_not_known_must_be_given(bands):
    with pytest.raises(ValueError, match=r"no one standard pixel scale.*give pixel_scale="):
        image(bands=bands)
    assert image(bands=bands, pixel_scale=0.5).pixel_scale.tolist() == [0.5] * 3


def test_bands_of_several_surveys_may_share_a_scale():
    torch.testing.assert_close(image(bands=("bass-g", "mzls-z")).pixel_scale, torch.full((3,), 0.262))


@pytest.mark.parametrize("scale", [0.0, -1.0, np.nan, np.inf, [1.0, 2.0], [1.0, 2.0, 0.0], np.ones((3, 1))])
def test_bad_pixel_scales_are_refused(scale):
    with pytest.raises(ValueError, match=r"pixel_scale must be positive, a number or \(3,\)"):
        image(pixel_scale=scale)


def test_a_pixel_scale_for_each_object():
    assert image(pixel_scale=[1.0, 2.0, 3.0])[[2, 0]].pixel_scale.tolist() == [3, 1]


def test_bands_are_ordered_surveys_in_lower_case():
    assert list(BANDS) == sorted(BANDS)
    assert all(band == band.lower() and band.count("-") == 1 for band in BANDS)
    assert {band.split("-")[0] for band in BANDS} - {"gaia"} == set(PIXEL_SCALES)
    for survey in PIXEL_SCALES:
        order = [b for b in ("u", "g", "r", "i", "z", "y", "w1", "w2", "w3", "w4") if f"{survey}-{b}" in BANDS]
        means = [BANDS[f"{survey}-{b}"] for b in order]
        assert means == sorted(means)


# What all observations share.


@pytest.mark.parametrize("make", MAKERS)
def test_observations_are_frozen_data(make):
    observation = make()
    for field in fields(observation):
        with pytest.raises(FrozenInstanceError):
            setattr(observation, field.name, None)
    assert len(observation) == 3
    assert observation.device == torch.device("cpu")
    assert hash(observation) != hash(make())
    assert_same(copy.deepcopy(observation), observation)
    assert_same(pickle.loads(pickle.dumps(observation)), observation)  # as workers of a DataLoader do
    assert_same(replace(observation), observation)


@pytest.mark.parametrize("make", MAKERS)
@pytest.mark.parametrize(
    ("index", "expected"),
    [
        (1, [1]),
        (-1, [2]),
        (np.int64(2), [2]),
        (np.array(2), [2]),
        (torch.tensor(0), [0]),
        (slice(1, None), [1, 2]),
        (slice(None, None, 2), [0, 2]),
        (slice(None, None, -1), [2, 1, 0]),
        ([2, 0], [2, 0]),
        ([1, 1, 1, 1], [1, 1, 1, 1]),
        ([-1], [2]),
        (range(2), [0, 1]),
        (np.array([2, 1]), [2, 1]),
        (np.array([2, 1], "u1"), [2, 1]),
        (torch.tensor([0, 2]), [0, 2]),
        ([True, False, True], [0, 2]),
        (np.array([False, True, False]), [1]),
        (torch.tensor([True, True, False]), [0, 1]),
    ],
    ids=str,
)
def test_indexing_selects_objects_and_keeps_the_batch(make, index, expected):
    observation = make()
    result = observation[index]
    assert len(result) == len(expected)
    for name, value in tensors(result).items():
        wanted = tensors(observation)[name][expected]
        torch.testing.assert_close(value, wanted, rtol=0, atol=0, equal_nan=True)
    assert result.measured.shape == tensors(result)[fields(result)[0].name].shape


@pytest.mark.parametrize(
    ("index", "error"),
    [
        (3, IndexError),
        (-4, IndexError),
        ([0, 3], IndexError),
        ([True, False], IndexError),
        (True, TypeError),
        ((0, 1), TypeError),
        ((slice(None), slice(2)), TypeError),
        ([[0, 1]], TypeError),
        (1.0, TypeError),
        ([0.0, 1.0], TypeError),
        ("flux", TypeError),
        (None, TypeError),
        ([], ValueError),
        (slice(3, 3), ValueError),
        ([False] * 3, ValueError),
    ],
    ids=str,
)
def test_bad_indices_are_refused(index, error):
    for make in MAKERS:
        with pytest.raises(error):
            make()[index]
    with pytest.raises(error):
        rows(index, 3)


@pytest.mark.parametrize("make", MAKERS)
def test_iteration_gives_batches_of_one_that_stack_back(make):
    observation = make()
    parts = list(observation)
    assert [len(part) for part in parts] == [1, 1, 1]
    assert_same(type(observation).stack(parts), observation)


@pytest.mark.parametrize("make", MAKERS)
def test_to_moves_every_tensor_and_nothing_else(make):
    observation = make()
    moved = observation.to("meta")
    assert {value.device.type for value in tensors(moved).values()} == {"meta"}
    assert moved.device == torch.device("meta")
    assert observation.device == torch.device("cpu")
    assert getattr(moved, "bands", None) == getattr(observation, "bands", None)
    assert_same(observation.to("cpu"), observation)


@pytest.mark.parametrize("kind", [Spectrum, Image, Scalar])
def test_stack_wants_observations_of_its_kind(kind):
    with pytest.raises(ValueError, match=rf"{kind.__name__}\.stack: wanted at least one"):
        kind.stack([])
    other = scalar() if kind is not Scalar else spectrum()
    with pytest.raises(
        TypeError, match=rf"{kind.__name__}\.stack: wanted {kind.__name__}, given {type(other).__name__}"
    ):
        kind.stack([other])


def test_stacked_spectra_keep_their_grids_and_pad_with_unmeasured_pixels():
    short, long = spectrum(), Spectrum(np.ones((2, 9)), np.ones((2, 9)), np.linspace(6000, 7000, 9))
    both = Spectrum.stack([short, long])
    assert both.flux.shape == both.ivar.shape == both.wavelength.shape == (5, 9)
    assert not both.measured[:3, 6:].any()
    assert (both.flux[:3, 6:] == 0).all()
    assert (both.wavelength[:3, 6:] == 5000).all()
    for name in ("flux", "ivar", "wavelength"):
        assert torch.equal(getattr(both, name)[:3, :6], getattr(short, name))
        assert torch.equal(getattr(both, name)[3:], getattr(long, name))
    assert_same(Spectrum.stack([short]), short)


def test_stacked_images_are_centred_and_missing_bands_are_unmeasured():
    small = image(np.ones((1, 2, 2, 3)), bands=("decam-r", "decam-g"), pixel_scale=0.3)
    large = image(np.full((2, 2, 5, 4), 2.0), bands=("decam-g", "decam-z"))
    both = Image.stack([small, large])
    assert both.bands == ("decam-r", "decam-g", "decam-z")
    assert both.flux.shape == (3, 3, 5, 4)
    torch.testing.assert_close(both.pixel_scale, torch.tensor([0.3, 0.262, 0.262]))
    assert (both.flux[0, :2, 1:3, 1:4] == 1).all()  # the middle pixel, n // 2, stays the middle pixel
    assert both.flux[0].sum() == 12
    assert both.measured[0].sum() == 12
    assert not both.measured[0, 2].any()
    assert not both.measured[1:, 0].any()
    assert (both.flux[1:, 1:] == 2).all()


def test_stacking_does_not_depend_on_how_objects_were_grouped():
    parts = [image(np.full((1, 1, n, n), float(n)), bands=("hsc-r",)) for n in (1, 2, 4, 6)]
    assert_same(Image.stack(parts), Image.stack([Image.stack(parts[:2]), Image.stack(parts[2:])]))
    parts = [Spectrum(np.full((1, n), float(n)), np.ones((1, n)), WAVELENGTH[:n]) for n in (1, 2, 4, 6)]
    assert_same(Spectrum.stack(parts), Spectrum.stack([Spectrum.stack(parts[:2]), Spectrum.stack(parts[2:])]))


def test_stacked_scalars_must_have_one_width():
    assert Scalar.stack([scalar(), scalar([4.0])]).value.shape == (4,)
    assert Scalar.stack([vector(), vector()[1]]).value.shape == (4, 4)
    with pytest.raises(ValueError, match="widths differ"):
        Scalar.stack([scalar(), vector()])


def test_a_scalar_that_is_nan_was_not_measured():
    assert scalar().measured.tolist() == [True, False, True]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("desi_spectrm", "did you mean 'desi_spectrum'"),
        ("DESI_SPECTRUM", "did you mean 'desi_spectrum'"),
        ("zzz", "known: desi_spectrum, redshift, sdss_spectrum"),
        (7, "known: "),
    ],
)
def test_near_miss_hints(name, message):
    assert near_miss(name, ["sdss_spectrum", "redshift", "desi_spectrum"]).startswith(message)


def test_observations_say_what_they_are():
    ivar = np.ones((2, 4))
    ivar[1] = 0
    assert repr(Spectrum(ivar, ivar, [4000, 4001, 4002, 4003.5])) == (
        "Spectrum(2 objects, 4 pixels from 4000 to 4003.5 Angstrom, 50 % measured)"
    )
    assert repr(image(np.ones((1, 2, 5, 4)))) == "Image(1 object, decam-g, decam-r, 5 x 4 pixels, 100 % measured)"
    assert repr(Scalar([0.25, np.nan, 3])) == "Scalar(3 objects, a number each from 0.25 to 3, 66.7 % measured)"
    assert repr(Scalar([[np.nan] * 5])) == "Scalar(1 object, 5 numbers each, 0 % measured)"
