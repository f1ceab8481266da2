"""The border of units: against conversions by hand, against astropy, there and back, and all that it must refuse."""

import subprocess
import sys

import numpy as np
import pytest
import torch

from astropy import constants, units
from astropy.nddata import InverseVariance, StdDevUncertainty, UnknownUncertainty, VarianceUncertainty

from aion import Spectrum
from aion.io import from_quantity, to_quantity
from aion.io.quantities import assemble, canonical, estimate_ivar
from aion.io.units import FLUX_UNIT, air_to_vacuum

FLAM = units.Unit(FLUX_UNIT)


@pytest.fixture
def arrays() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    wavelength = np.sort(rng.uniform(3600, 9800, 50))
    flux = rng.normal(5.0, 1.0, (2, 50))
    return flux, wavelength, rng.uniform(0.5, 2.0, (2, 50))


def equal(one: Spectrum, other: Spectrum) -> bool:
    return all(torch.equal(getattr(one, n), getattr(other, n)) for n in ("flux", "ivar", "wavelength"))


def close(one: Spectrum, other: Spectrum, rtol: float = 1e-5) -> None:
    for name in ("flux", "ivar", "wavelength"):
        torch.testing.assert_close(getattr(one, name), getattr(other, name), rtol=rtol, atol=0)


def test_canonical_quantities_pass_unchanged(arrays):
    flux, wavelength, ivar = arrays
    spectrum = from_quantity(flux * FLAM, wavelength * units.AA, ivar / FLAM**2)
    assert equal(spectrum, Spectrum(flux=flux, ivar=ivar, wavelength=wavelength))


def test_there_and_back(arrays):
    flux, wavelength, ivar = arrays
    ivar[0, 3] = 0
    spectrum = Spectrum(flux=flux, ivar=ivar, wavelength=wavelength)
    quantities = to_quantity(spectrum)
    assert [q.unit for q in quantities] == [FLAM, units.AA, FLAM**-2]
    assert equal(from_quantity(*quantities), spectrum)
    quantities[0][:] = 0 * FLAM
    assert spectrum.flux.abs().sum() > 0  # the quantities are copies


@pytest.mark.parametrize(
    "axis",
    [
        lambda w: w.to(units.nm),
        lambda w: w.to(units.um),
        lambda w: w.to(units.Hz, units.spectral()),
        lambda w: w.to(units.eV, units.spectral()),
        lambda w: w.to(1 / units.cm, units.spectral()),
        lambda w: w[::-1],
    ],
    ids=["nm", "um", "Hz", "eV", "wavenumber", "decreasing"],
)
def test_spectral_axes_of_any_kind_agree(arrays, axis):
    flux, wavelength, ivar = arrays
    wanted = from_quantity(flux * FLAM, wavelength * units.AA, ivar / FLAM**2)
    other = axis(wavelength * units.AA)
    step = -1 if other.value[0] == wavelength[-1] else 1
    close(from_quantity(flux[:, ::step] * FLAM, other, ivar[:, ::step] / FLAM**2), wanted)


def test_flux_per_frequency_is_converted_pixel_by_pixel(arrays):
    flux, wavelength, ivar = arrays
    # f_lambda = f_nu c / lambda^2, by hand in cgs
    factor = 1e-29 * constants.c.to_value("Angstrom/s") / wavelength**2 / 1e-17  # of a micro-Jansky
    spectrum = from_quantity(flux * units.uJy, wavelength * units.AA, ivar / units.uJy**2)
    np.testing.assert_allclose(spectrum.flux, flux * factor, rtol=1e-5)
    np.testing.assert_allclose(spectrum.ivar, ivar / factor**2, rtol=1e-5)
    mixed = from_quantity(flux * units.uJy, wavelength * units.AA, ivar * factor**-2 / FLAM**2)
    close(mixed, spectrum)


def test_watts_are_converted():
    spectrum = from_quantity([1.0] * units.Unit("W m-2 nm-1") * 1e-19, [500] * units.nm, [4.0] * FLAM**-2)
    assert spectrum.flux.item() == pytest.approx(1.0)
    assert spectrum.wavelength.item() == 5000


@pytest.mark.parametrize("kind", ["std", "var", "ivar"])
@pytest.mark.parametrize("wrapped", [False, True], ids=["quantity", "nddata"])
def test_uncertainties_of_each_kind_agree(arrays, kind, wrapped):
    flux, wavelength, ivar = arrays
    value, unit = {"std": (ivar**-0.5, FLAM), "var": (1 / ivar, FLAM**2), "ivar": (ivar, FLAM**-2)}[kind]
    uncertainty = value * unit
    if wrapped:
        container = {"std": StdDevUncertainty, "var": VarianceUncertainty, "ivar": InverseVariance}[kind]
        uncertainty = container(value)  # without a unit: that of the flux
    spectrum = from_quantity(flux * FLAM, wavelength * units.AA, uncertainty=uncertainty)
    close(spectrum, from_quantity(flux * FLAM, wavelength * units.AA, ivar / FLAM**2))


def test_one_error_for_all_pixels():
    spectrum = from_quantity([1.0, 2.0] * FLAM, [5000, 5001] * units.AA, uncertainty=0.5 * FLAM)
    assert spectrum.ivar.tolist() == [[4.0, 4.0]]


def test_what_is_bad_is_not_measured(arrays):
    flux, wavelength, ivar = (a.copy() for a in arrays)
    error = ivar**-0.5
    flux[0, 0], flux[0, 1], error[0, 2], error[0, 3], error[0, 4] = np.nan, np.inf, np.nan, np.inf, 0.0
    mask = np.zeros(flux.shape, int)
    mask[0, 5] = 4
    before = [a.copy() for a in (flux, wavelength, error, mask)]
    spectrum = from_quantity(flux * FLAM, wavelength * units.AA, uncertainty=error * FLAM, mask=mask)
    assert (spectrum.ivar[0, :6] == 0).all()
    assert (spectrum.flux[0, :6] == 0).all()
    assert spectrum.measured[0, 6:].all()
    assert spectrum.measured[1].all()
    for array, copy in zip((flux, wavelength, error, mask), before, strict=True):
        np.testing.assert_array_equal(array, copy)


def test_lost_wavelengths_go_to_the_end_unmeasured():
    spectrum = assemble([1.0, 2.0, 3.0], [1.0, 1.0, 1.0], [5000.0, np.nan, 4000.0])
    assert spectrum.wavelength.tolist() == [[4000.0, 5000.0, 5000.0]]
    assert spectrum.flux.tolist() == [[3.0, 1.0, 0.0]]
    assert spectrum.ivar.tolist() == [[1.0, 1.0, 0.0]]


def test_sorting_is_stable_and_each_row_has_its_own_order():
    wavelength = [[5000.0, 4000.0, 5000.0], [4000.0, 4500.0, 4200.0]]
    spectrum = assemble([[1, 2, 3], [4, 5, 6]], np.ones((2, 3)), wavelength)
    assert spectrum.flux.tolist() == [[2, 1, 3], [4, 6, 5]]


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("kind", ["f4", "f8", "i4"])
def test_byte_order_and_type_do_not_matter(order, kind):
    flux = np.arange(1, 6).astype(order + kind)
    spectrum = canonical(flux, np.arange(5000, 5005).astype(order + kind), np.ones(5).astype(order + kind), None)
    assert spectrum.flux.dtype == torch.float32
    assert spectrum.flux.tolist() == [[1, 2, 3, 4, 5]]
    assert flux.dtype == np.dtype(order + kind)


def test_air_is_converted(arrays):
    flux, wavelength, ivar = arrays
    spectrum = from_quantity(flux * FLAM, wavelength * units.AA, ivar / FLAM**2, medium="air")
    np.testing.assert_allclose(spectrum.wavelength[0], air_to_vacuum(wavelength), rtol=1e-7)
    assert (spectrum.wavelength[0].numpy() - wavelength > 0.9).all()


def test_estimated_noise_is_that_of_the_data():
    rng = np.random.default_rng(0)
    wavelength = np.arange(4000.0, 8000.0)
    sigma = np.where(wavelength < 6000, 0.2, 1.0)
    flux = 10 + np.sin(wavelength / 300) + rng.normal(0, sigma)
    flux[::97] += 50  # lines do not enter
    flux[1000:1200] = 0.0  # a gap
    ivar = estimate_ivar(flux)
    assert np.median(ivar[:900]) == pytest.approx(25, rel=0.2)
    assert np.median(ivar[2100:]) == pytest.approx(1, rel=0.2)
    assert (ivar[1010:1090] == 0).all()
    order = rng.permutation(len(flux))
    direct = from_quantity(flux * FLAM, wavelength * units.AA, "estimate")
    shuffled = from_quantity(flux[order] * FLAM, wavelength[order] * units.AA, "estimate")
    assert equal(direct, shuffled)
    np.testing.assert_allclose(direct.ivar[0], ivar, rtol=1e-4)


def test_a_spectrum_without_scatter_has_no_noise_to_estimate():
    with pytest.raises(ValueError, match="do not scatter"):
        from_quantity(np.ones(50) * FLAM, np.arange(5000, 5050) * units.AA, "estimate")


ONES, WAVES = np.ones(4), np.arange(5000.0, 5004.0) * units.AA


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"flux": ONES}, TypeError, "flux has no unit: multiply it"),
        ({"wavelength": WAVES.value}, TypeError, "wavelength has no unit"),
        ({"ivar": ONES}, TypeError, "ivar has no unit"),
        ({"flux": ONES * units.m}, ValueError, "wanted a flux density .* given the unit 'm'"),
        ({"flux": ONES * units.dimensionless_unscaled}, ValueError, "wanted a flux density"),
        ({"flux": ONES * units.ABmag}, ValueError, r"wanted a flux density .* given the logarithmic unit 'mag\(AB\)'"),
        ({"flux": ONES * units.mag}, ValueError, "wanted a flux density"),
        ({"flux": ONES * units.Unit("erg/s")}, ValueError, "wanted a flux density"),
        ({"wavelength": ONES * units.Jy}, ValueError, "wanted a spectral unit .* given 'Jy'"),
        ({"wavelength": ONES * units.km / units.s}, ValueError, "wanted a spectral unit"),
        ({"ivar": ONES * FLAM**-1}, ValueError, "wanted the unit .* its square or its inverse square"),
        ({"ivar": None}, ValueError, "given neither: .*estimate"),
        ({"uncertainty": ONES * FLAM}, ValueError, "given both"),
        ({"ivar": "guess"}, ValueError, "wanted a quantity or \"estimate\", given 'guess'"),
        ({"ivar": None, "uncertainty": UnknownUncertainty(ONES)}, ValueError, "wanted one of ivar, std, var"),
        ({"ivar": None, "uncertainty": -ONES * FLAM}, ValueError, "ivar must be finite and >= 0"),
        ({"ivar": -ONES * FLAM**-2}, ValueError, "ivar must be finite and >= 0"),
        ({"medium": "water"}, ValueError, "unknown medium of wavelengths 'water'; did you mean 'air'"),
        ({"wavelength": WAVES[:3]}, ValueError, r"wavelength has the shape \(3,\)"),
        ({"ivar": np.ones(3) * FLAM**-2}, ValueError, r"ivar has the shape \(3,\)"),
        ({"mask": np.ones(3)}, ValueError, r"mask has the shape \(3,\)"),
        ({"flux": np.ones((1, 2, 4)) * FLAM}, ValueError, r"flux must be \(L,\) or \(B, L\)"),
        ({"flux": ONES[:0] * FLAM, "wavelength": WAVES[:0], "ivar": ONES[:0] * FLAM**-2}, ValueError, "empty batch"),
    ],
)
def test_bad_quantities_are_refused(arguments, error, message):
    given = {"flux": ONES * FLAM, "wavelength": WAVES, "ivar": ONES * FLAM**-2, **arguments}
    with pytest.raises(error, match=message):
        from_quantity(**given)


def test_masked_quantities_are_unmeasured_where_masked():
    from astropy.utils.masked import Masked

    flux = Masked(ONES * FLAM, mask=[True, False, False, False])
    wavelength = Masked(WAVES, mask=[False, True, False, False])
    spectrum = from_quantity(flux, wavelength, ONES * FLAM**-2)
    assert spectrum.measured.tolist() == [[False, False, True, True]]


def test_shapes_of_assembled_arrays_are_checked():
    with pytest.raises(ValueError, match="wanted flux and ivar of one shape"):
        assemble(np.ones(3), np.ones(4), np.ones(3))


def test_importing_loads_nothing_heavy():
    heavy = "{'astropy', 'datasets', 'matplotlib', 'pandas', 'pyarrow', 'sklearn', 'specutils'}"
    code = f"import sys, aion.io; assert not {heavy} & set(sys.modules), {heavy} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
