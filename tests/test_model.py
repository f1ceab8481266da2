"""AION: invariances of the embedding, round trips of the bundle, refusals."""

import json
import shutil
import subprocess
import sys

from pathlib import Path

import pytest
import torch

from aion import AION, Image, Scalar, Spectrum

TOLERANCE = {"atol": 1e-5, "rtol": 1e-5}  # float32, sums in another order


@pytest.fixture
def bundle(tiny_model, tmp_path) -> Path:
    tiny_model.save_pretrained(tmp_path / "bundle")
    return tmp_path / "bundle"


def clone(observations):
    return {
        n: {k: v.clone() for k, v in vars(o).items() if isinstance(v, torch.Tensor)} for n, o in observations.items()
    }


# ---- invariances


@pytest.mark.parametrize("layer", ["context", "encoder"])
def test_one_object_alone_is_the_same_as_in_a_batch(tiny_model, observations, layer):
    together = tiny_model.embed(observations, layer=layer)
    assert together.shape == (6, tiny_model.dim)
    for i in range(6):
        alone = tiny_model.embed({n: o[i] for n, o in observations.items()}, layer=layer)
        torch.testing.assert_close(alone[0], together[i], **TOLERANCE)


def test_batch_size_does_not_matter(tiny_model, observations):
    whole = tiny_model.embed(observations)
    torch.testing.assert_close(tiny_model.embed(observations, batch_size=4), whole, **TOLERANCE)
    x, valid = tiny_model.embed(observations, pool="none")
    y, also = tiny_model.embed(observations, pool="none", batch_size=1)
    assert torch.equal(valid, also)
    torch.testing.assert_close(x, y, **TOLERANCE)
    assert (x[~valid] == 0).all()
    torch.testing.assert_close(x.sum(1) / valid.sum(1, keepdim=True), whole, **TOLERANCE)


def test_order_of_objects_and_of_modalities_does_not_matter(tiny_model, observations):
    whole, order = tiny_model.embed(observations), torch.tensor([4, 0, 5, 2, 3, 1])
    torch.testing.assert_close(
        tiny_model.embed({n: o[order] for n, o in observations.items()}), whole[order], **TOLERANCE
    )
    assert torch.equal(tiny_model.embed(dict(reversed(observations.items()))), whole)


def test_padding_of_the_spectra_does_not_matter(tiny_model, observations):
    spectrum = observations["desi_spectrum"]
    long = Spectrum(torch.ones(1, 999), torch.ones(1, 999), torch.linspace(4000, 7000, 999))
    padded = {**observations, "desi_spectrum": Spectrum.stack([spectrum, long])[:6]}
    torch.testing.assert_close(tiny_model.embed(padded), tiny_model.embed(observations), **TOLERANCE)


def test_a_modality_absent_for_one_object_is_as_if_not_given(tiny_model, observations):
    both = tiny_model.embed({k: observations[k][2] for k in ("desi_spectrum", "redshift")})
    torch.testing.assert_close(both, tiny_model.embed({"redshift": observations["redshift"][2]}), **TOLERANCE)


@pytest.mark.parametrize("name", ["desi_spectrum", "legacysurvey_image", "gaia_bp_coefficients", "redshift"])
def test_every_modality_influences_the_embedding(tiny_model, observations, name):
    rest = {n: o[0] for n, o in observations.items() if n != name}
    assert not torch.allclose(tiny_model.embed(rest), tiny_model.embed({n: o[0] for n, o in observations.items()}))


def test_nothing_of_the_callers_is_written_to(tiny_model, observations):
    before = clone(observations)
    tiny_model.embed(observations)
    tiny_model.predict(observations, "redshift")
    tiny_model.reconstruct(observations, "legacysurvey_image")
    for name, tensors in before.items():
        for key, value in tensors.items():
            assert torch.equal(value.nan_to_num(), getattr(observations[name], key).nan_to_num())


# ---- prediction


def test_prediction_does_not_look_at_the_answer(tiny_model, observations):
    others = {n: o for n, o in observations.items() if n != "redshift"}
    wrong = {**others, "redshift": Scalar(torch.full((6,), 0.123))}
    expected = tiny_model.predict(others, "redshift").probabilities
    torch.testing.assert_close(tiny_model.predict(wrong, "redshift").probabilities, expected)
    torch.testing.assert_close(
        tiny_model.predict(others, "redshift", batch_size=1).probabilities, expected, atol=1e-6, rtol=1e-4
    )
    assert expected.shape == (6, 32)


def test_reconstruction_of_what_is_observed_is_the_tokenizers_round_trip(tiny_model, observations):
    spectrum = observations["desi_spectrum"]
    own = tiny_model.tokenizer("desi_spectrum")
    expected = own.decode(own.encode(spectrum), like=spectrum)
    assert torch.equal(tiny_model.reconstruct(observations, "desi_spectrum").flux, expected.flux)


def test_reconstruction_of_what_is_not_observed_has_the_grid_of_like(tiny_model, observations):
    given = {"redshift": Scalar(torch.full((6,), 0.3))}
    flux = observations["desi_spectrum"].flux
    first = tiny_model.reconstruct(given, "desi_spectrum", like=observations["desi_spectrum"])
    other = Spectrum(flux * 3 + 1, observations["desi_spectrum"].ivar, observations["desi_spectrum"].wavelength)
    second = tiny_model.reconstruct(given, "desi_spectrum", like=other)
    assert torch.equal(first.flux, second.flux)  # the values of like are not looked at
    assert torch.equal(first.measured.any(1), observations["desi_spectrum"].measured.any(1))


# ---- storage


def test_save_and_load_in_a_fresh_process(tiny_model, observations, bundle, tmp_path, root):
    from safetensors.torch import load_file, save_file

    spectrum = observations["desi_spectrum"][:2]
    save_file({k: v.contiguous() for k, v in vars(spectrum).items()}, tmp_path / "spectrum.safetensors")
    code = (
        "import sys, aion; from safetensors.torch import load_file, save_file;"
        "model = aion.AION.from_pretrained(sys.argv[1], device='cpu');"
        "spectrum = aion.Spectrum(**load_file(sys.argv[2]));"
        "save_file({'x': model.embed({'desi_spectrum': spectrum})}, sys.argv[3]); print(model.sha256)"
    )
    paths = [str(bundle), str(tmp_path / "spectrum.safetensors"), str(tmp_path / "x.safetensors")]
    done = subprocess.run([sys.executable, "-c", code, *paths], capture_output=True, text=True, cwd=root, check=False)
    assert done.returncode == 0, done.stderr
    assert torch.equal(load_file(paths[2])["x"], tiny_model.embed({"desi_spectrum": spectrum}))
    assert done.stdout.strip() == tiny_model.sha256 == json.loads((bundle / "config.json").read_text())["model_sha256"]


def test_config_with_other_key_order_loads_the_same(tiny_model, observations, bundle):
    config = json.loads((bundle / "config.json").read_text())
    config["transformer"]["sizes"] = dict(reversed(config["transformer"]["sizes"].items()))
    config["modalities"] = dict(reversed(config["modalities"].items()))
    (bundle / "config.json").write_text(json.dumps(dict(reversed(config.items()))))
    torch.testing.assert_close(
        AION.from_pretrained(bundle).embed(observations), tiny_model.embed(observations), **TOLERANCE
    )


def test_saving_again_is_bit_identical(bundle, tmp_path):
    AION.from_pretrained(bundle).save_pretrained(tmp_path / "again")
    for path in bundle.rglob("*"):
        if path.is_file():
            assert path.read_bytes() == (tmp_path / "again" / path.relative_to(bundle)).read_bytes()


def test_the_card_has_metadata(bundle):
    card = (bundle / "README.md").read_text()
    assert card.startswith("---\nlibrary_name: aion\n")
    assert "`desi_spectrum`" in card


def test_saving_replaces_a_bundle_but_nothing_else(tiny_model, bundle, tmp_path):
    tiny_model.save_pretrained(bundle)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    (tmp_path / "file").write_text("mine too")
    shutil.copytree(bundle, tmp_path / "both")
    (tmp_path / "both" / "thesis.txt").write_text("years of work")
    for folder in ("mine", "both", "file"):
        with pytest.raises(FileExistsError, match="choose another folder"):
            tiny_model.save_pretrained(tmp_path / folder)
    (tmp_path / "mine" / "config.json").write_text("{}")  # many programs write a file of this name
    with pytest.raises(FileExistsError, match="choose another folder"):
        tiny_model.save_pretrained(tmp_path / "mine")
    for folder in ("mine", "both"):
        assert (tmp_path / folder / "thesis.txt").read_text() == "years of work"
    assert (tmp_path / "file").read_text() == "mine too"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["both", "bundle", "file", "mine"]


def test_a_failed_save_leaves_the_old_bundle(tiny_model, bundle, monkeypatch):
    before = (bundle / "config.json").read_bytes()

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("aion.bundle.save_file", full)
    with pytest.raises(OSError, match="No space left"):
        tiny_model.save_pretrained(bundle)
    assert (bundle / "config.json").read_bytes() == before
    assert sorted(p.name for p in bundle.parent.iterdir()) == ["bundle"]


def test_bfloat16_embeddings_are_near(observations, bundle):
    model, half = AION.from_pretrained(bundle), AION.from_pretrained(bundle, dtype=torch.bfloat16)
    x, y = model.embed(observations), half.embed(observations)
    assert torch.equal(model.tokenize(observations).ids, half.tokenize(observations).ids)
    assert ((x - y).norm() / x.norm()).item() < 0.02


def test_tokens_are_the_same_under_autocast(tiny_model, observations):
    expected = tiny_model.tokenize(observations)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        given = tiny_model.tokenize(observations)
    assert torch.equal(given.ids, expected.ids)


# ---- what bad input gets


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda f: (f / "transformer.safetensors").unlink(), "transformer.safetensors is missing"),
        (lambda f: (f / "config.json").unlink(), "is no bundle: it has no config.json"),
        (lambda f: (f / "config.json").write_text("{"), "is not JSON"),
        (lambda f: edit(f, lambda c: c.update(format=99)), "wanted a bundle of format 1, given 99"),
        (lambda f: edit(f, lambda c: c["transformer"].update(heads=2)), "was altered"),
        (lambda f: edit(f, lambda c: c.pop("sha256")), "lacks sha256"),
        (lambda f: flip(f / "tokenizers" / "spectrum.safetensors"), "was altered or damaged"),
        (lambda f: (f / "transformer.safetensors").write_bytes(b"\x80\x04."), "was altered or damaged"),
    ],
)
def test_damaged_bundles_are_refused(bundle, change, message):
    change(bundle)
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        AION.from_pretrained(bundle)


def edit(folder: Path, change) -> None:
    config = json.loads((folder / "config.json").read_text())
    change(config)
    (folder / "config.json").write_text(json.dumps(config))


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(bytes(data))


@pytest.mark.parametrize("name", ["aion-nan", "no/such/folder", "/no/such", "~/nothing"])
def test_an_unknown_model_is_refused(name):
    with pytest.raises(FileNotFoundError, match="no bundle"):
        AION.from_pretrained(name)


def test_an_unreachable_hub_id_is_one_clear_error():
    with pytest.raises(FileNotFoundError, match="'nobody/nothing' is no local folder and could not be fetched"):
        AION.from_pretrained("nobody/nothing")


def test_a_hub_id_in_the_cache_is_the_same_as_a_folder(bundle, observations, monkeypatch, tmp_path):
    asked = {}

    def snapshot(repo_id, revision, allow_patterns):
        asked.update(repo_id=repo_id, revision=revision)
        return str(shutil.copytree(bundle, tmp_path / "snapshot"))

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot)
    model = AION.from_pretrained("someone/aion", revision="v1")
    assert asked == {"repo_id": "someone/aion", "revision": "v1"}
    assert torch.equal(model.embed(observations), AION.from_pretrained(bundle).embed(observations))


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        (
            lambda o: {"desi_spectrm": o["desi_spectrum"]},
            ValueError,
            "no modality 'desi_spectrm'; did you mean 'desi_spectrum'",
        ),
        (lambda o: {}, ValueError, "wanted observations of at least one of"),
        (lambda o: o["desi_spectrum"], TypeError, "wanted a dict of name -> observation, given Spectrum"),
        (lambda o: {"desi_spectrum": o["redshift"]}, TypeError, "desi_spectrum: wanted Spectrum, given Scalar"),
        (
            lambda o: {"desi_spectrum": o["desi_spectrum"].flux},
            TypeError,
            "desi_spectrum: wanted Spectrum, given Tensor",
        ),
        (lambda o: {"redshift": 0.5}, TypeError, "redshift: wanted Scalar, given float"),
        (lambda o: {**o, "redshift": o["redshift"][:3]}, ValueError, "same number of objects"),
        (lambda o: {"desi_spectrum": o["desi_spectrum"]}, ValueError, "no token at all for row 2"),
    ],
)
def test_bad_observations_are_refused(tiny_model, observations, given, error, message):
    with pytest.raises(error, match=message):
        tiny_model.embed(given(observations))


def test_bad_requests_are_refused(tiny_model, observations):
    with pytest.raises(ValueError, match="pool must be 'mean' or 'none', given 'max'"):
        tiny_model.embed(observations, pool="max")
    with pytest.raises(ValueError, match="batch_size must be a whole number of at least 1, given 0"):
        tiny_model.embed(observations, batch_size=0)
    with pytest.raises(ValueError, match="'desi_spectrum' is no scalar"):
        tiny_model.predict(observations, "desi_spectrum")
    with pytest.raises(ValueError, match="wanted observations of at least one"):
        tiny_model.predict({"redshift": observations["redshift"]}, "redshift")
    with pytest.raises(ValueError, match="give like="):
        tiny_model.reconstruct({"redshift": Scalar([0.1])}, "desi_spectrum")
    with pytest.raises(TypeError, match="wanted a dict of name -> observation, given Spectrum"):
        tiny_model.predict(observations["desi_spectrum"], "redshift")
    with pytest.raises(TypeError, match="wanted a dict of name -> observation, given Spectrum"):
        tiny_model.reconstruct(observations["desi_spectrum"], "desi_spectrum")
    with pytest.raises(TypeError, match="like= must be of the kind Spectrum, given Scalar"):
        tiny_model.reconstruct(observations, "desi_spectrum", like=observations["redshift"])
    for given in ({"redshift": Scalar([0.1, 0.2])}, {"desi_spectrum": observations["desi_spectrum"][:2]}):
        with pytest.raises(ValueError, match="as many objects as the observations, 2, given 6"):
            tiny_model.reconstruct(given, "desi_spectrum", like=observations["desi_spectrum"])
    with pytest.raises(ValueError, match="desi_spectrum: row 0: measured from 400 to 700"):
        tiny_model.embed({"desi_spectrum": Spectrum(torch.ones(1, 9), torch.ones(1, 9), torch.linspace(400, 700, 9))})
    with pytest.raises(ValueError, match="does not read 'hsc-g'"):
        tiny_model.embed({"legacysurvey_image": Image(torch.ones(1, 1, 8, 8), torch.ones(1, 1, 8, 8), ("hsc-g",))})


def test_a_modality_needs_its_tokenizer(tokenizers):
    with pytest.raises(ValueError, match=r"no tokenizer \['spectra'\]"):
        AION(tokenizers, {"desi_spectrum": "spectra"}, {"dim": 8, "heads": 2})


def test_the_error_of_a_late_batch_says_where(tiny_model, observations):
    with pytest.raises(ValueError, match="batch that starts at object 2: no token at all for row 0"):
        tiny_model.embed({"desi_spectrum": observations["desi_spectrum"]}, batch_size=2)


def test_pushing_uploads_a_whole_bundle(tiny_model, observations, monkeypatch, tmp_path):
    calls = {}

    class Api:
        def __init__(self, token=None):
            calls["token"] = token

        def create_repo(self, repo_id, private, exist_ok):
            calls["repo"] = (repo_id, private, exist_ok)

        def upload_folder(self, repo_id, folder_path):
            shutil.copytree(folder_path, tmp_path / "uploaded")
            return type("Commit", (), {"commit_url": f"commit of {repo_id}"})

    monkeypatch.setattr("huggingface_hub.HfApi", Api)
    assert tiny_model.push_to_hub("someone/aion", private=True, token="t") == "commit of someone/aion"
    assert calls == {"token": "t", "repo": ("someone/aion", True, True)}
    assert torch.equal(AION.from_pretrained(tmp_path / "uploaded").embed(observations), tiny_model.embed(observations))


def test_the_hash_follows_the_weights(bundle):
    model = AION.from_pretrained(bundle)
    loaded = model.sha256
    assert loaded == json.loads((bundle / "config.json").read_text())["model_sha256"]
    with torch.no_grad():
        model.transformer.mask_token += 1
    assert model.sha256 != loaded


def test_a_half_precision_bundle_is_saved_again_as_it_was(tiny_model, tmp_path):
    tiny_model.transformer.to(torch.bfloat16)
    digest = tiny_model.save_pretrained(tmp_path / "half")
    model = AION.from_pretrained(tmp_path / "half")
    assert model.transformer.mask_token.dtype == torch.float32
    assert model.sha256 == digest == model.save_pretrained(tmp_path / "again")
    files = [(tmp_path / name / "transformer.safetensors").read_bytes() for name in ("half", "again")]
    assert files[0] == files[1]


def test_a_predicted_spectrum_has_flux_wherever_like_has_pixels(tiny_model, observations):
    like = observations["desi_spectrum"]
    given = {"redshift": Scalar(torch.full((6,), 0.3))}
    whole = tiny_model.reconstruct(given, "desi_spectrum", like=like)
    assert torch.equal(whole.measured.any(1), like.measured.any(1))
    assert torch.equal(tiny_model.reconstruct(given, "desi_spectrum", like=like, batch_size=2).flux, whole.flux)
    nothing = Spectrum(like.flux, torch.zeros_like(like.ivar), like.wavelength)
    with pytest.raises(ValueError, match="like= has nothing measured"):
        tiny_model.reconstruct(given, "desi_spectrum", like=nothing)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"device": "tpu"}, "cannot compute on device 'tpu'"),
        ({"dtype": "bfloat16"}, "dtype must be a type such as torch.float32"),
        ({"dtype": torch.int8}, "dtype must be a type such as torch.float32"),
    ],
)
def test_impossible_devices_and_types_are_refused(bundle, options, message):
    with pytest.raises(ValueError, match=message):
        AION.from_pretrained(bundle, **options)


def test_others_may_read_a_bundle(bundle):
    assert all(path.stat().st_mode & 0o044 == 0o044 for path in bundle.rglob("*") if path.is_file())
