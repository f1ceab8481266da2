"""The bridges to specutils: always with objects like its own, and with specutils itself where it is installed."""

import sys

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from astropy import units
from astropy.nddata import InverseVariance

from aion import Spectrum
from aion.io import from_quantity, from_specutils, read, samples, to_specutils
from aion.io.units import FLUX_UNIT

FLAM = units.Unit(FLUX_UNIT)


@pytest.fixture
def arrays() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    wavelength = np.sort(rng.uniform(3600, 9800, 50))
    return rng.normal(5.0, 1.0, (2, 50)), wavelength, rng.uniform(0.5, 2.0, (2, 50))


def equal(one: Spectrum, other: Spectrum) -> bool:
    return all(torch.equal(getattr(one, n), getattr(other, n)) for n in ("flux", "ivar", "wavelength"))


def close(one: Spectrum, other: Spectrum, rtol: float = 1e-5) -> None:
    for name in ("flux", "ivar", "wavelength"):
        torch.testing.assert_close(getattr(one, name), getattr(other, name), rtol=rtol, atol=0)


def like_specutils(arrays, **changes) -> SimpleNamespace:
    flux, wavelength, ivar = arrays
    spectrum = {
        "flux": flux * units.uJy,
        "spectral_axis": wavelength / 10 * units.nm,
        "uncertainty": InverseVariance(ivar / units.uJy**2),
        "mask": None,
        **changes,
    }
    return SimpleNamespace(**spectrum)


def test_anything_like_specutils_is_read(arrays):
    flux, wavelength, ivar = arrays
    mask = flux > 6
    spectrum = from_specutils(like_specutils(arrays, mask=mask))
    close(spectrum, from_quantity(flux * units.uJy, wavelength * units.AA, ivar / units.uJy**2, mask=mask))
    np.testing.assert_array_equal(spectrum.measured, ~mask)


def test_a_list_is_stacked_each_on_its_own_grid(arrays):
    one = like_specutils(arrays)
    short = like_specutils([a[..., :20] for a in arrays])
    spectrum = from_specutils([one, short])
    assert spectrum.flux.shape == (4, 50)
    assert equal(spectrum[:2], from_specutils(one))
    assert not spectrum.measured[2:, 20:].any()


def test_without_uncertainty_the_user_decides(arrays):
    bare = like_specutils(arrays, uncertainty=None)
    with pytest.raises(ValueError, match="estimate"):
        from_specutils(bare)
    assert from_specutils(bare, ivar="estimate").measured.all()


@pytest.mark.parametrize("value", [3, object(), SimpleNamespace(flux=1)])
def test_what_is_not_like_specutils_is_refused(value):
    with pytest.raises(TypeError, match=r"wanted an object with \.flux and \.spectral_axis"):
        from_specutils(value)


def test_the_spectral_axis_must_be_the_last(arrays):
    assert from_specutils(like_specutils(arrays, spectral_axis_index=1)).flux.shape == (2, 50)
    with pytest.raises(ValueError, match="wanted the spectral axis last"):
        from_specutils(like_specutils(arrays, spectral_axis_index=0))


def stand_in(**given) -> SimpleNamespace:
    """Takes what specutils takes and insists on what it insists on."""
    assert (np.diff(given["spectral_axis"].value) > 0).all(), "specutils wants a strictly increasing axis"
    assert given["flux"].shape == given["spectral_axis"].shape == given["mask"].shape
    return SimpleNamespace(**given)


@pytest.mark.parametrize("name", ["Spectrum", "Spectrum1D"])
def test_there_and_back_through_an_object_like_specutils(monkeypatch, name):
    monkeypatch.setitem(sys.modules, "specutils", SimpleNamespace(**{name: stand_in}))
    arms = read(samples()["desi-galaxy"])["desi_spectrum"]  # its arms overlap: equal wavelengths
    assert (arms.wavelength.diff() == 0).any()
    arms.ivar[0, 100] = 0
    short = Spectrum(flux=[[1.0, 2.0, 3.0]], ivar=[[1.0, 0.0, 1.0]], wavelength=[4000.0, 4001.0, 4002.0])
    spectra = Spectrum.stack([arms, short])
    parts = to_specutils(spectra)
    assert [len(part.flux) for part in parts] == [7958, 3]
    assert parts[1].mask.tolist() == [False, True, False]
    back = from_specutils(parts)
    torch.testing.assert_close(back.ivar, spectra.ivar, rtol=1e-6, atol=0)
    assert torch.equal(back.wavelength, spectra.wavelength)
    assert torch.equal(back.flux, torch.where(spectra.measured, spectra.flux, 0))


def test_there_and_back_through_specutils():
    pytest.importorskip("specutils")
    spectrum = read(samples()["desi-galaxy"])["desi_spectrum"]
    (part,) = to_specutils(spectrum)
    assert type(part).__module__.startswith("specutils")
    assert part.flux.unit == FLAM
    close(from_specutils(part), spectrum, rtol=1e-6)


def test_a_spectrum_of_padding_alone_still_has_a_pixel(monkeypatch):
    monkeypatch.setitem(sys.modules, "specutils", SimpleNamespace(Spectrum=stand_in))
    (part,) = to_specutils(Spectrum(flux=[[0.0, 0.0]], ivar=[[0.0, 0.0]], wavelength=[4000.0, 4000.0]))
    assert part.mask.tolist() == [True]


def test_without_specutils_the_error_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "specutils", None)
    with pytest.raises(ImportError, match=r'pip install "aion-toolkit\[specutils\]"'):
        to_specutils(Spectrum(flux=[[1.0]], ivar=[[1.0]], wavelength=[4000.0]))
