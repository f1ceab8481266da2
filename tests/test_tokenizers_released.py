"""The released spectrum tokenizer: what it promises, on real and on simulated spectra."""

import math

import pytest
import torch

from aion import Spectrum, io
from aion.bundle import BUNDLED
from aion.sky import Sky
from aion.tokenizers.slots import ATOM, CODE, SCALE, SWELL, stands
from aion.tokenizers.store import load
from aion.tokens import Tokens


@pytest.fixture(scope="module")
def tokenizer():
    return load("spectrum")


@pytest.fixture(scope="module")
def desi() -> Spectrum:
    files = io.samples()
    return Spectrum.stack([io.read(files[name])["desi_spectrum"] for name in ("desi-galaxy", "desi-nearby-galaxy")])


@pytest.fixture(scope="module")
def sky() -> dict[str, Spectrum]:
    names = ["desi_spectrum", "sdss_spectrum", "gaia_xp_spectrum", "galah_spectrum"]
    return Sky(seed=3, modalities=names, complete=True, galaxies=0.5).observe(torch.arange(16))


def chi2(one: Spectrum, decoded: Spectrum) -> torch.Tensor:
    use = one.measured & decoded.measured
    return ((one.flux - decoded.flux).square() * one.ivar * use).sum(1) / use.sum(1)


def test_it_is_small():
    assert sum(path.stat().st_size for path in (BUNDLED / "spectrum").iterdir()) < 6e6


def test_a_desi_spectrum_costs_at_most_273_tokens_of_12_bits(tokenizer, desi, sky):
    for spectrum in (desi, sky["desi_spectrum"]):
        tokens = tokenizer.encode(spectrum)
        assert tokens.valid.sum(1).max() <= 273
        kinds = stands(tokens.position)
        bounds = {CODE: (0, 4096), SCALE: (4096, 4608), ATOM: (4608, 8704)}
        for kind, (low, high) in bounds.items():
            ids = tokens.ids[tokens.valid & (kinds == kind)]
            assert ((ids >= low) & (ids < high)).all()
            assert high - low <= 4096


@pytest.mark.parametrize("first", [0, 1500, 3000, 4500, 6000, 7300])
def test_no_part_of_a_desi_spectrum_costs_more_than_the_whole(tokenizer, desi, first):
    cut = desi.ivar.clone()
    cut[:, :first] = 0
    part = Spectrum(desi.flux, cut, desi.wavelength)
    assert tokenizer.encode(part).valid.sum(1).max() <= 273


def test_real_desi_coadds_are_kept_nearly_to_their_noise(tokenizer, desi):
    decoded = tokenizer.decode(tokenizer.encode(desi), like=desi)
    assert (chi2(desi, decoded) <= torch.tensor([1.4, 1.05])).all()


def test_most_of_the_lines_of_a_real_galaxy_are_in_its_atoms(tokenizer, desi):
    tokens = tokenizer.encode(desi[0])
    codes = Tokens(tokens.ids, tokens.position, tokens.valid & (stands(tokens.position) != ATOM))
    with_atoms, without = (chi2(desi[0], tokenizer.decode(t, like=desi[0])) for t in (tokens, codes))
    assert without > 10 * with_atoms


def test_the_order_of_tokens_and_batch_mates_do_not_matter_to_what_is_decoded(tokenizer, sky, generator):
    spectrum = sky["desi_spectrum"]
    spectrum = spectrum[spectrum.measured.any(1)]
    tokens = tokenizer.encode(spectrum)
    assert (tokens.valid & (stands(tokens.position) == SWELL)).any()
    alone = [tokenizer.decode(tokens[i], like=spectrum[i]).flux for i in range(len(spectrum))]
    expected = torch.cat(alone)
    scale = expected.abs().amax(1, keepdim=True)
    order = torch.randperm(tokens.ids.shape[1], generator=generator)
    shuffled = Tokens(tokens.ids[:, order], tokens.position[:, order], tokens.valid[:, order])
    decoded = tokenizer.decode(shuffled, like=spectrum).flux
    torch.testing.assert_close(decoded / scale, expected / scale, atol=1e-5, rtol=0)


def test_every_instrument_comes_back(tokenizer, sky):
    for spectrum in sky.values():
        seen = spectrum[spectrum.measured.any(1)]
        decoded = tokenizer.decode(tokenizer.encode(seen), like=seen)
        level = seen.flux.abs().masked_fill(~seen.measured, math.nan).nanmedian(1, keepdim=True).values
        noise = seen.ivar.clamp(min=1e-30).rsqrt() / level
        error = (decoded.flux - seen.flux).abs() / level
        use = seen.measured & decoded.measured
        assert error[use].median() < 0.05 + noise[use].median()


def test_unmeasured_pixels_influence_nothing(tokenizer, sky):
    for spectrum in sky.values():
        changed = Spectrum(torch.where(spectrum.measured, spectrum.flux, 1e6), spectrum.ivar, spectrum.wavelength)
        assert torch.equal(tokenizer.encode(changed).ids, tokenizer.encode(spectrum).ids)


def test_doubling_the_noise_of_half_of_the_pixels_moves_the_others_by_less_than_their_error(tokenizer, desi, generator):
    noisy = torch.rand(desi.flux.shape, generator=generator) < 0.5
    sigma = desi.ivar.clamp(min=1e-30).rsqrt() * desi.measured
    more = desi.flux + noisy * sigma * math.sqrt(3) * torch.randn(desi.flux.shape, generator=generator)
    other = Spectrum(more, torch.where(noisy, desi.ivar / 4, desi.ivar), desi.wavelength)
    a, b = (tokenizer.decode(tokenizer.encode(s), like=desi).flux for s in (desi, other))
    use = desi.measured & ~noisy
    change = ((a - b).square() * desi.ivar * use).sum(1) / use.sum(1)
    assert (change.sqrt() < 1).all()


@pytest.mark.parametrize("factor", [1e-3, 1e6])
def test_any_scale_of_flux_comes_back(tokenizer, desi, factor):
    scaled = Spectrum(desi.flux * factor, desi.ivar / factor**2, desi.wavelength)
    assert (chi2(scaled, tokenizer.decode(tokenizer.encode(scaled), like=scaled)) <= 1.4).all()


@pytest.mark.parametrize("level", [-0.03, -0.01, 0.0])  # of flux with errors of 0.1: sky taken off somewhat too much
def test_medians_of_zero_and_below_survive(tokenizer, level, generator):
    wavelength = torch.linspace(3700, 9700, 4000)
    flux = level + 0.1 * torch.randn(1, 4000, generator=generator)
    spectrum = Spectrum(flux, torch.full_like(flux, 100.0), wavelength)
    decoded = tokenizer.decode(tokenizer.encode(spectrum), like=spectrum)
    assert decoded.measured.all()
    assert chi2(spectrum, decoded).item() < 1.5


def test_a_spectrum_that_is_negative_everywhere_stays_finite(tokenizer):
    wavelength = torch.linspace(3700, 9700, 4000)
    spectrum = Spectrum(torch.full((1, 4000), -1.0), torch.full((1, 4000), 100.0), wavelength)
    decoded = tokenizer.decode(tokenizer.encode(spectrum), like=spectrum)
    assert decoded.measured.all()
    assert torch.isfinite(decoded.flux).all()


@pytest.mark.parametrize(("pixels", "wanted"), [(100, 0.15), (343, 0.1), (2000, 0.05), (8000, 0.05), (20_000, 0.05)])
def test_grids_finer_and_coarser_than_any_trained_on_lose_gracefully(tokenizer, pixels, wanted):
    wavelength = torch.linspace(3500, 10_000, pixels)
    flux = 1 + 0.3 * torch.sin(wavelength / 700) - 0.3 * torch.exp(-0.5 * ((wavelength - 5900) / 120) ** 2)
    spectrum = Spectrum(flux[None], torch.full((1, pixels), 2500.0), wavelength)
    decoded = tokenizer.decode(tokenizer.encode(spectrum), like=spectrum)
    assert decoded.measured.all()
    assert (decoded.flux - spectrum.flux).abs().median() < wanted


def test_a_spectrum_wholly_outside_the_ladder_is_refused(tokenizer):
    wavelength = torch.linspace(20_000, 24_000, 500)
    with pytest.raises(ValueError, match=r"row 0: measured from 20000 to 24000, but .* knows 2992 to 17566 Angstrom"):
        tokenizer.encode(Spectrum(torch.ones(1, 500), torch.ones(1, 500), wavelength))


def test_twins_are_alike(tokenizer, sky):
    one, other = (tokenizer.embed(sky[name]) for name in ("desi_spectrum", "sdss_spectrum"))
    a, b = ((v * known[..., None]).sum(1) / known.sum(1, keepdim=True) for v, known in (one, other))
    cosine = torch.nn.functional.cosine_similarity(a, b)
    assert cosine.median() > 0.95
    others = torch.nn.functional.cosine_similarity(a, b.roll(1, 0))
    assert cosine.median() > others.median()
