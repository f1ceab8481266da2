"""The scripts of `tokenizers/`: recipes fit the signatures they feed, and a short one trains, resumes and loads."""

import inspect
import warnings

from pathlib import Path

import numpy as np
import pytest
import torch

from aion import Spectrum
from aion.recipes import fit_family, is_family, load_family, load_tokenizer, train_tokenizer
from aion.sky import MODALITIES, OPTIONAL, Sky
from aion.tokenizers import build
from aion.tokenizers.store import load
from aion.training import train

FOLDER = Path(__file__).resolve().parents[1] / "tokenizers"
RECIPES = sorted(FOLDER.glob("*.toml"))
EVERY = pytest.mark.parametrize("path", [p for p in RECIPES if not is_family(p)], ids=lambda p: p.stem)
FAMILIES = pytest.mark.parametrize("path", [p for p in RECIPES if is_family(p)], ids=lambda p: p.stem)


def parameters(function) -> set[str]:
    return set(inspect.signature(function).parameters)


@EVERY
def test_every_setting_is_an_argument_of_what_it_is_for(path, script):
    recipe = load_tokenizer(path)
    tokenizer = build(recipe["tokenizer"], (script("baseline").FixedGrid,))
    assert recipe["training"].keys() <= parameters(train) | {"batch"}
    for source in recipe["sources"].values():
        assert {*recipe.get("sky", {}), *source.get("sky", {})} <= parameters(Sky)
        if "modality" in source:
            names = [source["modality"]] if isinstance(source["modality"], str) else source["modality"]
            assert {*names} <= {*MODALITIES, *OPTIONAL}
        else:
            settings = source.keys() - {"batch", "reader", "weight"}
            reader = {"binned": script("binned").binned_reader, "miles": script("miles")._source}[source["reader"]]
            assert settings <= parameters(reader)
    if "fit" in recipe:
        assert recipe["fit"].keys() <= parameters(tokenizer.fit) | {"modality", "objects"}


@FAMILIES
def test_every_setting_of_a_family_is_an_argument_of_what_it_is_for(path):
    recipe = load_family(path)
    assert recipe.get("sky", {}).keys() <= parameters(Sky)
    assert recipe["fit"].keys() <= {"objects", "batch"}
    for name, own in recipe["modalities"].items():
        assert name in {*MODALITIES, *OPTIONAL}
        tokenizer = build({k: v for k, v in {**recipe["tokenizer"], **own}.items() if k != "spacing"})
        assert {*own} <= {*parameters(type(tokenizer)), *parameters(tokenizer.fit)}


@FAMILIES
def test_families_are_fitted_and_load(path, tmp_path):
    fitted = fit_family(path, tmp_path, objects=1200, progress=False)
    assert fitted.keys() == load_family(path)["modalities"].keys()
    seen = Sky(**load_family(path).get("sky", {}), modalities=list(fitted)).observe(torch.arange(100))
    for name, tokenizer in fitted.items():
        loaded = load(tmp_path / name)
        assert loaded.config == tokenizer.config
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "values beyond the bins")  # so few objects have not seen the extremes
            assert torch.equal(loaded.encode(seen[name]).ids, tokenizer.encode(seen[name]).ids)


@pytest.fixture
def short(tmp_path) -> Path:
    path = tmp_path / "short.toml"
    path.write_text(
        'name = "short"\nseed = 1\n[tokenizer]\nkind = "spectrum"\nstep = 0.05\nwidth = 8\ndepth = 1\nlevels = [4, 4]\n'
        "[sky]\ncomplete = true\n"
        '[sources.desi]\nmodality = "desi_spectrum"\nweight = 2\n'
        '[sources.sdss]\nmodality = "sdss_spectrum"\nbatch = 2\n'
        '[sources.miles]\nreader = "miles"\n'
        "[training]\nsteps = 5\nbatch = 3\nlr = 1e-3\ncheckpoint_every = 2\nlog_every = 1\n"
    )
    return path


@pytest.fixture
def run(script):
    def run(recipe: Path, folder: Path, *arguments: str) -> None:
        script("train").main([str(recipe), "-o", str(folder), *arguments])

    return run


def test_a_short_recipe_trains_resumes_and_loads(short, tmp_path, monkeypatch, run):
    run(short, tmp_path / "whole")
    real, calls = train, []

    def broken(module, data, steps, **options):
        def interrupted(step):
            calls.append(step)
            if step == 3 and calls.count(3) == 1:
                raise KeyboardInterrupt
            return data(step)

        return real(module, interrupted, steps, **options)

    monkeypatch.setattr("aion.recipes.part.train", broken)
    with pytest.raises(KeyboardInterrupt):
        run(short, tmp_path / "parts")
    run(short, tmp_path / "parts")
    assert calls == [0, 1, 2, 3, 2, 3, 4]
    a, b = (load(tmp_path / name / "tokenizer") for name in ("whole", "parts"))
    assert all(torch.equal(v, b.state_dict()[k]) for k, v in a.state_dict().items())
    spectrum = Sky(modalities=["desi_spectrum"], complete=True).observe([0, 1])["desi_spectrum"]
    assert a.encode(spectrum).valid.any()


def test_fewer_steps_and_a_missing_reader(short, tmp_path, run):
    run(short, tmp_path / "few", "--steps", "1")
    assert len((tmp_path / "few" / "short.jsonl").read_text().splitlines()) == 1
    with pytest.raises(ValueError, match="no reader 'miles'"):
        train_tokenizer(short, tmp_path / "none", progress=False)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("[sky]", "[skey]"), "unknown section 'skey'; did you mean 'sky'"),
        (('reader = "miles"', ""), "source 'miles' must name either"),
        (('reader = "miles"', 'reader = "mils"'), "no reader 'mils'; did you mean 'miles'"),
        (("weight = 2", "wait = 2"), "one of the sky takes no 'wait'"),
        (("width = 8", "widht = 8"), "widht"),
    ],
)
def test_bad_recipes_are_refused(short, tmp_path, change, message, run):
    short.write_text(short.read_text().replace(*change))
    with pytest.raises(ValueError, match=message):
        run(short, tmp_path / "run")


def test_missing_data_is_named(tmp_path, script):
    with pytest.raises(FileNotFoundError, match=r"miles\.safetensors: it is in the repository"):
        script("miles").miles_stars(tmp_path)


def test_held_out_stars_are_in_no_training_data(script):
    stars = script("miles").miles_stars()
    assert len(stars.number) == 944
    assert 0.18 < stars.held_out.mean() < 0.22
    from aion.sky.templates import Templates

    used = Templates.load().data["star.miles_id"].numpy()
    assert not np.isin(stars.number[stars.held_out], used).any()
    names = dict(zip(stars.name, stars.held_out, strict=True))
    assert names["HD023439A"] == names["HD023439B"]  # two components of one star


def test_training_stars_are_varied_but_none_is_held_out(script):
    miles = script("miles")
    stars = miles.miles_stars()
    source = miles.miles_reader()(batch=32, seed=0)
    batch = source(5)
    again = source(5)
    assert torch.equal(batch.flux, again.flux)
    assert not torch.equal(batch.flux, source(6).flux)
    seen = torch.nn.functional.normalize(torch.where(batch.measured, batch.flux, 0.0)[:, 1500:3000])
    known = torch.nn.functional.normalize(stars.spectrum.flux[:, 1500:3000])
    nearest = (seen @ known.T).argmax(1).numpy()
    assert stars.held_out[nearest].mean() < 0.15  # noise and velocities leave some stars nearer to another
    ratio = batch.flux.median(1).values
    assert ratio.max() / ratio.min() > 10


def test_the_baseline_learns_and_gives_every_parameter_a_gradient(generator, script):
    tokenizer = script("baseline").FixedGrid(
        encoder_depths=[1, 1, 1, 1],
        encoder_dims=[8, 8, 8, 16],
        decoder_depths=[1, 1, 1, 1],
        decoder_dims=[8, 8, 8, 2],
        latent_channels=16,
        embedding_dim=12,
        dim=12,
        codebook_size=4096,
    )
    spectrum = Sky(modalities=["desi_spectrum"], complete=True).observe(range(4))["desi_spectrum"]
    pair = tokenizer.loss((spectrum, spectrum))
    assert pair["likelihood"].item() == pytest.approx(tokenizer.loss(spectrum)["likelihood"].item(), rel=1e-4)
    terms = tokenizer.loss(spectrum, generator)
    terms["loss"].backward()
    without = [name for name, p in tokenizer.named_parameters() if p.grad is None or not p.grad.any()]
    assert not [name for name in without if "grn" not in name]
    tokens = tokenizer.encode(spectrum)
    assert tokens.ids.shape == (4, 273)
    assert int(tokens.ids.max()) < 4096
    decoded = tokenizer.decode(tokens, like=spectrum)
    residual = (decoded.flux - spectrum.flux)[spectrum.measured]
    chi2 = (residual**2 * spectrum.ivar[spectrum.measured]).mean()  # what is decoded is what the loss is of
    assert chi2.item() == pytest.approx(tokenizer.loss(spectrum)["chi2"].item(), rel=0.02)
    assert decoded.measured[spectrum.measured].float().mean() > 0.99
    latent, measured = tokenizer.embed(spectrum)
    assert latent.shape == (4, 272, 12)
    assert torch.equal(measured, tokens.valid[:, 1:])


def test_binning_keeps_the_flux_and_adds_up_the_weights(generator, script):
    wavelength = torch.cat([torch.linspace(4000, 4100, 101), torch.linspace(5000, 5100, 101)])
    ivar = torch.rand(3, 202, generator=generator)
    ivar[:, 30:50] = 0
    spectrum = Spectrum(torch.full((3, 202), 2.5), ivar, wavelength)
    coarse = script("binned").binned(spectrum, 4)
    assert coarse.flux.shape == (3, 50)
    assert (coarse.wavelength.diff() > 0).all()
    torch.testing.assert_close(coarse.flux[coarse.measured], torch.full((int(coarse.measured.sum()),), 2.5))
    across = (coarse.wavelength > 4101) & (coarse.wavelength < 4999)
    assert across.any()
    assert not coarse.measured[across].any()
    torch.testing.assert_close(coarse.ivar[:, :5], ivar[:, :20].unflatten(1, (5, 4)).sum(2))
    assert not coarse.measured[:, 8:12].any()
