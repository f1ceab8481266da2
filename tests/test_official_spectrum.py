"""The spectrum tokenizer: what the published package gives, and the right answer where that goes wrong."""

from pathlib import Path

import numpy as np
import pytest
import torch

from safetensors.torch import load_file

from aion import Spectrum
from aion.official.codecs import read_codecs
from aion.official.spectrum import OfficialSpectrumTokenizer, interpolate

DATA = Path(__file__).parent / "data" / "official"
SEVEN = (slice(None), slice(None, None, 7))  # the pixels that are kept of what was decoded
NAME = "desi_spectrum"


@pytest.fixture(scope="module")
def expected() -> dict:
    return load_file(DATA / "codecs_expected.safetensors")


@pytest.fixture(scope="module")
def tokenizer() -> OfficialSpectrumTokenizer:
    return read_codecs(DATA / "tiny", [NAME])[NAME]


@pytest.fixture(scope="module")
def parity() -> OfficialSpectrumTokenizer:
    return read_codecs(DATA / "tiny", ["sdss_spectrum"], parity=True)["sdss_spectrum"]


@pytest.fixture
def spectrum(expected) -> Spectrum:
    flux, ivar, wavelength = (
        expected[f"spectrum.{name}"].float() * expected[f"spectrum.{name}.step"]
        for name in ("flux", "ivar", "wavelength")
    )
    return Spectrum(flux, ivar, wavelength.sort(dim=1).values)


def draw(objects=2, pixels=1000, start=3600.0, stop=9800.0) -> Spectrum:
    flux = 5 + torch.randn(objects, pixels)
    return Spectrum(flux, torch.ones(objects, pixels), torch.linspace(start, stop, pixels))


def test_tokens_are_the_published_ones(parity, tokenizer, spectrum, expected):
    tokens = parity.encode(spectrum)
    assert torch.equal(tokens.ids, expected["spectrum.ids"].long())
    assert tokens.valid.all()
    own = tokenizer.encode(spectrum)
    assert torch.equal(own.ids[own.valid], tokens.ids[own.valid])
    assert not own.valid.all()


def test_padding_gives_the_tokens_of_padded_spectra(spectrum, expected):
    padding = read_codecs(DATA / "tiny", [NAME], parity=True, padding=True)[NAME]
    assert torch.equal(padding.encode(spectrum).ids, expected["spectrum.padded.ids"].long())
    assert (expected["spectrum.padded.ids"] != expected["spectrum.ids"]).any()
    own = read_codecs(DATA / "tiny", [NAME], padding=True)[NAME].encode(spectrum)
    reach = read_codecs(DATA / "tiny", [NAME])[NAME].encode(spectrum)
    assert own.valid.sum() > reach.valid.sum()  # the line from the last pixel reaches beyond it


@pytest.mark.parametrize("grid", ["grid", "own"])
def test_decoded_flux_and_mask_are_the_published_ones(parity, spectrum, expected, grid):
    decoded = parity.decode(parity.encode(spectrum), spectrum if grid == "own" else None)
    good = ~expected[f"spectrum.{grid}.mask"]
    flux = expected[f"spectrum.{grid}.flux"] * good
    assert torch.equal(decoded.measured[SEVEN], good)
    torch.testing.assert_close(decoded.flux[SEVEN], flux, rtol=1e-5, atol=1e-5 * flux.abs().max().item())


def test_the_flux_scale_is_the_first_token_and_takes_no_part_in_the_others(tokenizer):
    spectrum = draw()
    tokens = tokenizer.encode(spectrum)
    assert torch.equal(tokens.position[0], torch.stack([torch.zeros(273), torch.arange(273.0)], -1))
    faint = tokenizer.encode(Spectrum(spectrum.flux * 0 - 1, spectrum.ivar, spectrum.wavelength))
    assert faint.ids[:, 0].tolist() == [178, 178]  # the lowest that there is
    bright = tokenizer.encode(Spectrum(spectrum.flux * 0 + 1e9, spectrum.ivar, spectrum.wavelength))
    assert bright.ids[:, 0].tolist() == [1023, 1023]
    assert ((tokens.ids[:, 0] > 178) & (tokens.ids[:, 0] < 1023)).all()


def test_masked_pixels_are_not_seen(tokenizer):
    spectrum = draw()
    ivar = torch.where(torch.rand(2, 1000) < 0.3, 0.0, 1.0)
    tokens = tokenizer.encode(Spectrum(spectrum.flux, ivar, spectrum.wavelength))
    spoiled = torch.where(ivar > 0, spectrum.flux, spectrum.flux + 100)
    assert torch.equal(tokens.ids, tokenizer.encode(Spectrum(spoiled, ivar, spectrum.wavelength)).ids)
    spoiled[ivar == 0] = torch.nan
    assert torch.equal(tokens.ids, tokenizer.encode(Spectrum(spoiled, ivar, spectrum.wavelength)).ids)


def test_tokens_are_where_something_was_measured(tokenizer):
    spectrum = draw(start=3612.0, stop=8000.0, pixels=5000)
    ivar = spectrum.ivar.clone()
    ivar[:, 2000:3000] = 0
    tokens = tokenizer.encode(Spectrum(spectrum.flux, ivar, spectrum.wavelength))
    start = 3500 + 25.6 * torch.arange(272)
    gap = spectrum.wavelength[0, [2000, 3000]]
    covered = (start + 25.6 > 3612) & (start < 8000) & ~((start > gap[0] + 2) & (start + 25.6 < gap[1] - 2))
    wrong = tokens.valid[0, 1:] != covered
    assert wrong.sum() <= 2  # those that a pixel touches or not
    assert tokens.valid[:, 0].all()


def test_padding_of_a_stack_changes_nothing(tokenizer):
    short, long = draw(1, 700, 4000, 7000), draw(1, 1000)
    stacked = tokenizer.encode(Spectrum.stack([short, long]))
    assert torch.equal(stacked.ids[:1], tokenizer.encode(short).ids)
    assert torch.equal(stacked.valid[:1], tokenizer.encode(short).valid)


def test_spectra_on_one_grid_are_the_same_as_each_on_its_own(tokenizer):
    spectrum = draw(3)
    shared = tokenizer.encode(spectrum)
    shifted = spectrum.wavelength.clone()
    shifted[2] += 1
    own = tokenizer.encode(Spectrum(spectrum.flux, spectrum.ivar, shifted))
    assert torch.equal(own.ids[:2], shared.ids[:2])
    assert not torch.equal(own.ids[2], shared.ids[2])


def test_nothing_is_known_beyond_the_grid(tokenizer, parity):
    spectrum, like = draw(1), draw(1, 400, 3000, 12000)
    decoded = tokenizer.decode(tokenizer.encode(spectrum), like)
    outside = (like.wavelength < 3500) | (like.wavelength > 10462.4)
    assert outside.any()
    assert not decoded.measured[outside].any()
    assert decoded.measured.any()
    constant = parity.decode(parity.encode(spectrum), like).flux[outside]
    assert len(constant.unique()) == 1  # the flux scale
    assert constant[0] > 0


def test_without_the_flux_scale_nothing_is_known(tokenizer):
    tokens = tokenizer.encode(draw(1))
    few = type(tokens)(tokens.ids[:, 1:], tokens.position[:, 1:], tokens.valid[:, 1:])
    assert not tokenizer.decode(few).measured.any()


@pytest.mark.parametrize("dtype", [np.float64, np.int16, ">f8"])
def test_arrays_of_any_kind_are_read(tokenizer, dtype):
    spectrum = draw()
    array = (spectrum.flux * 10).round().numpy().astype(dtype)
    tokens = tokenizer.encode(Spectrum(array, np.ones(array.shape), spectrum.wavelength[0].numpy()))
    reference = Spectrum((spectrum.flux * 10).round(), spectrum.ivar, spectrum.wavelength)
    assert torch.equal(tokens.ids, tokenizer.encode(reference).ids)


def test_autocast_changes_few_tokens(tokenizer):
    spectrum = draw()
    with torch.autocast("cpu", torch.bfloat16):
        rounded = tokenizer.encode(spectrum)
    assert (rounded.ids == tokenizer.encode(spectrum).ids).float().mean() > 0.8


@pytest.mark.parametrize(
    ("flux", "wavelength", "message"),
    [
        ([[1.0, 2, 3]], [5000.0, 4000, 6000], "must not decrease"),
        ([[1.0, 2, 3]], [3.6, 3.7, 3.8], "not Angstrom"),
        ([[1.0, 2, 3]], [4000, float("nan"), 6000], "finite and positive"),
        ([[1.0, float("inf"), 3]], [4000.0, 5000, 6000], "finite where ivar > 0"),
        ([1.0, 2, 3], [4000.0, 5000, 6000], "for one object use"),
    ],
)
def test_bad_spectra_are_refused_at_the_door(flux, wavelength, message):
    with pytest.raises(ValueError, match=message):
        Spectrum(flux, np.ones(np.shape(flux)), wavelength)


def test_a_spectrum_beyond_the_grid_is_refused_unless_in_parity_mode(tokenizer, parity):
    nanometres = Spectrum.stack([draw(1), draw(1, 1000, 360, 980)])
    with pytest.raises(ValueError, match=r"row 1: measured from 360 to 980.* knows 3500 to 10462 Angstrom"):
        tokenizer.encode(nanometres)
    assert parity.encode(nanometres).valid.all()


@pytest.mark.parametrize("pixels", [1, 2])
def test_very_short_spectra_are_read(tokenizer, pixels):
    tokens = tokenizer.encode(draw(1, pixels, 5000, 5000.8))
    assert 0 <= tokens.valid.sum() <= 3
    assert tokens.ids.max() < 1024


def test_interpolation_agrees_with_numpy(generator):
    x = torch.rand(3, 50, generator=generator).sort(dim=1).values
    y, at = torch.randn(3, 50, 2, generator=generator), torch.rand(3, 70, generator=generator) * 1.4 - 0.2
    for i in range(3):
        for c in range(2):
            wanted = np.interp(at[i].numpy(), x[i].numpy(), y[i, :, c].numpy(), left=0, right=0)
            np.testing.assert_allclose(interpolate(x, y, at)[i, :, c].numpy(), wanted, atol=1e-5)
    step = interpolate(
        torch.tensor([[0.0, 1, 1, 2]]), torch.tensor([[[0.0], [0], [8], [8]]]), torch.tensor([[0.5, 1, 1.5]])
    )
    assert step[0, :, 0].tolist() == [0, 0, 8]
    assert torch.isfinite(interpolate(torch.ones(1, 3), torch.ones(1, 3, 1), torch.tensor([[0.5, 1, 2]]))).all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({}, "encoder_dims that end in latent_channels"),
        ({"latent_channels": 768}, "embedding_dim equal to dim"),
        ({"latent_channels": 768, "embedding_dim": 10, "num_pixels": 8700}, "multiple of 32"),
        ({"latent_channels": 768, "embedding_dim": 10, "decoder_dims": (8, 8, 8, 3)}, "end in 1 or 2"),
        ({"latent_channels": 768, "embedding_dim": 10, "codebook_size": 1000}, "power of 2"),
    ],
)
def test_widths_that_do_not_fit_are_refused(change, message):
    with pytest.raises(ValueError, match=message), torch.device("meta"):
        OfficialSpectrumTokenizer(**change)


def test_one_decoded_channel_has_no_mask():
    shape = {"encoder_depths": (1,) * 4, "encoder_dims": (8,) * 4, "latent_channels": 8, "embedding_dim": 10}
    tokenizer = OfficialSpectrumTokenizer(**shape, decoder_depths=(1,) * 4, decoder_dims=(8, 8, 8, 1)).eval()
    decoded = tokenizer.decode(tokenizer.encode(draw(1)), draw(1))
    assert decoded.measured.float().mean() > 0.95
