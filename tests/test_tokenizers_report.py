"""The measures of `tokenizers/` against cases with a known answer, and the table against the stored results."""

import math

from pathlib import Path

import numpy as np
import pytest
import torch

from aion import Spectrum

FOLDER = Path(__file__).resolve().parents[1] / "tokenizers"
WAVELENGTH = torch.linspace(4000, 9000, 3000)


def spectra(count: int, generator: torch.Generator, error: float = 0.05) -> tuple[Spectrum, torch.Tensor]:
    """Makes noisy mixtures of three shapes, and the truth."""
    x = (WAVELENGTH - 4000) / 5000
    shapes = torch.stack([torch.ones_like(x), x, torch.sin(12 * x)])
    true = (torch.rand(count, 3, generator=generator) + torch.tensor([1.0, 0, 0])) @ shapes
    flux = true + error * torch.randn(true.shape, generator=generator)
    return Spectrum(flux, torch.full_like(flux, error**-2), WAVELENGTH), true


@pytest.fixture
def components(script, generator):
    """Fits components to 200 of such mixtures."""
    batch, _ = spectra(200, generator)
    return script("pca").Components(8, 12).fit([batch[:100], batch[100:]])


def test_components_keep_what_has_few_dimensions_down_to_the_noise(generator, components, script):
    contender = script("measures").Contender("PCA", components)
    seen, true = spectra(20, generator)
    flux, known, bits = contender.round_trip(seen)
    assert known.all()
    assert (bits == 8 * 12 + 12).all()
    assert (flux - true).std() < 0.02  # a third of the noise of a pixel
    row = script("measures").quality(contender, seen)
    assert row["r2"] > 0.9
    assert row["chi2_median"] == pytest.approx(1, abs=0.1)
    assert row["coverage"] == 1


def test_components_do_not_see_pixels_that_were_not_measured(generator, components, script):
    seen, true = spectra(5, generator)
    ivar = seen.ivar.clone()
    ivar[:, 1000:1800] = 0
    spoilt = torch.where(ivar > 0, seen.flux, 1e6)
    flux, _ = components.round_trip(Spectrum(spoilt, ivar, WAVELENGTH))
    assert (flux - true)[:, 1000:1800].std() < 0.1
    fitted = script("pca").Components(8, 12).fit([Spectrum(spoilt, ivar, WAVELENGTH), *[spectra(100, generator)[0]]])
    assert fitted.basis.isfinite().all()
    assert fitted.mean.abs().max() < 10


def test_fewer_bits_keep_less(generator, components):
    seen, true = spectra(30, generator)
    errors = [(components.reduced(8, bits).round_trip(seen)[0] - true).std().item() for bits in (12, 6, 4)]
    assert errors == sorted(errors)
    assert errors[2] > 2 * errors[0]


def test_bits_are_the_logarithm_of_what_is_possible(tokenizers, observations, script):
    tokenizer = tokenizers["spectrum"]
    contender = script("measures").Contender("ours", tokenizer)
    spectrum = observations["desi_spectrum"][[0, 1]]
    _, known, bits = contender.round_trip(spectrum)
    tokens = tokenizer.encode(spectrum)
    expected = (tokens.valid.sum(1) - 1) * math.log2(80) + math.log2(64)
    torch.testing.assert_close(bits, expected.float(), rtol=1e-5, atol=1e-3)
    assert set(contender.codes_used()) == {"ids 0 to 79", "ids 80 to 143"}
    assert known.any(1).all()


def test_twins_that_are_the_same_are_found(tokenizers, generator, components, script):
    contender = script("measures").Contender("PCA", components)
    seen, _ = spectra(30, generator)
    row = script("measures").agreement(contender, seen, seen)
    assert row["cosine"] == row["nearest"] == row["nearest_centred"] == 1
    other, _ = spectra(30, generator)
    assert script("measures").agreement(contender, seen, other)["nearest_centred"] < 0.3


def test_more_noise_changes_little_where_much_is_known(generator, components, script):
    contender = script("measures").Contender("PCA", components)
    row = script("measures").noise_doubling(contender, spectra(10, generator)[0])
    assert 0 < row["rms_change_over_error"] < 0.3
    assert row["pixels_below_error"] > 0.99


def test_probes_find_what_is_there_and_nothing_else(script):
    draws = np.random.default_rng(0)
    x = draws.standard_normal((200, 12))
    targets = {"linear": x[:, 0] + 0.1 * x[:, 1], "nothing": draws.standard_normal(200)}
    found = script("measures").probe(x, targets, np.arange(200), (12,))
    assert max(found["linear"].values()) > 0.98
    assert max(found["nothing"].values()) < 0.15
    curved = script("measures").probe(x[:, :2], {"curved": x[:, 0] ** 2}, np.arange(200), (2,))["curved"]
    assert curved["PCA 2, kernel ridge"] > 0.8 > curved["PCA 2, ridge"] + 0.5


def test_components_are_kept(components, tmp_path, generator, script):
    components.save(tmp_path / "it.safetensors")
    loaded = script("pca").Components.load(tmp_path / "it.safetensors")
    seen, _ = spectra(3, generator)
    assert torch.equal(loaded.round_trip(seen)[0], components.round_trip(seen)[0])
    assert loaded.total == components.total


def test_half_light_radius_of_a_gaussian(script):
    at = torch.arange(64) - 31.5
    for sigma in (3.0, 5.0):
        image = torch.exp(-0.5 * (at[:, None] ** 2 + at**2) / sigma**2)[None] * 7
        flux, radius = script("images").light(image, 0.262)
        assert flux.item() == pytest.approx(7 * 2 * math.pi * sigma**2, rel=0.01)
        assert radius.item() == pytest.approx(0.262 * sigma * (2 * math.log(2)) ** 0.5, rel=0.03)


def test_stamps_are_put_into_blank_sky(script):
    image = script("images").stamps(2, 96)
    assert image.flux.shape == (2, 4, 96, 96)
    corner = (image.flux * image.ivar.sqrt())[..., :12, :]
    assert corner.std().item() == pytest.approx(1, abs=0.05)


def test_images_are_measured(tokenizers, script):
    rows = script("images").image_rows(tokenizers["image"], 16)
    row = rows["simulated: legacysurvey_image"]
    assert row["n"] == 16
    assert row["chi2_mean"] > 1
    assert len(row["codes"]) == 1


def test_held_out_data_are_there_and_have_signal(script):
    heldout, measures = script("heldout"), script("measures")
    real = heldout.real()
    assert {len(s) for s in real.values()} >= {184, 10, 2, 1}
    assert (measures.ratio(real["MaNGA galaxies, S/N >= 20"]) >= 20).all()
    for spectrum in (*real.values(), *heldout.simulated(4).values()):
        assert spectrum.measured.any(1).all()
    one, other = heldout.twins(5)
    assert len(one) == len(other) == 5
    assert (measures.ratio(one) >= 10).all()
    with pytest.raises(FileNotFoundError, match="or give --data"):
        heldout._read(Path("nowhere.fits"))


def test_the_table_is_written_between_its_markers(tmp_path, script):
    write = script("write")
    readme = tmp_path / "README.md"
    readme.write_text(f"before\n{write.BEGIN}\nwritten before\n{write.END}\nafter\n")
    write.write(FOLDER / "results", readme)
    text = readme.read_text()
    assert text.startswith("before\n")
    assert text.endswith("after\n")
    assert "written before" not in text
    write.write(FOLDER / "results", readme)
    assert readme.read_text() == text


def test_the_readme_shows_the_stored_results(script):
    write = script("write")
    text = (FOLDER / "README.md").read_text()
    shown = text.split(write.BEGIN)[1].split(write.END)[0].strip()
    assert shown == write.table(FOLDER / "results").strip()


def test_unknown_sections_are_refused(capsys, script):
    with pytest.raises(SystemExit):
        script("report").main(["--only", "spectre"])
    assert "did you mean 'spectra'" in capsys.readouterr().err


def test_families_are_measured_by_their_own_bins(tmp_path, script):
    from aion.recipes import fit_family

    recipe = tmp_path / "scalar.toml"
    recipe.write_text(
        'name = "s"\nseed = 0\n[fit]\nobjects = 400\nbatch = 400\n'
        '[tokenizer]\nkind = "scalar"\nbins = 16\nbeyond = "warn"\n'
        '[modalities.redshift]\n[modalities.legacysurvey_flux_g]\ntransform = "asinh"\n'
    )
    fit_family(recipe, tmp_path / "family", progress=False)
    rows = script("families").scalar_rows(tmp_path / "family", 500)
    assert set(rows) == {"redshift", "legacysurvey_flux_g"}
    for row in rows.values():
        assert 0.5 < row["largest_error_in_half_bins"] <= 1.0001
        assert 0.8 <= row["codes_used"] <= 1
        assert 0 <= row["clipped"] < 0.2


def test_twins_are_found_by_the_spectra_themselves_if_there_is_something_to_find(generator, script):
    flux = 1 + 0.3 * torch.randn(20, 30, generator=generator).repeat_interleave(100, dim=1)
    sigma = 0.05
    noise = sigma * torch.randn(2, 20, 3000, generator=generator)
    one, other = (Spectrum(flux + n, torch.full_like(flux, sigma**-2), WAVELENGTH) for n in noise)
    assert script("measures").matching(one, other) == {"n": 20, "nearest": 1.0}
    assert script("measures").matching(one, other[torch.randperm(20, generator=generator)])["nearest"] < 0.3
