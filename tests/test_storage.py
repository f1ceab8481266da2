"""Saving and loading models: what comes back, and what bad folders and requests get."""

import json
import shutil
import subprocess
import sys

from pathlib import Path

import pytest
import torch

from aion import AION

TOLERANCE = {"atol": 1e-5, "rtol": 1e-5}  # float32, sums in another order


def edit(folder: Path, change) -> None:
    config = json.loads((folder / "config.json").read_text())
    change(config)
    (folder / "config.json").write_text(json.dumps(config))


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(bytes(data))


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


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda f: (f / "transformer.safetensors").unlink(), "transformer.safetensors is missing"),
        (lambda f: (f / "config.json").unlink(), "is no bundle: it has no config.json"),
        (lambda f: (f / "config.json").write_text("{"), "is not JSON"),
        (lambda f: edit(f, lambda c: c.update(format=99)), "wanted a bundle of format 1, given 99"),
        (lambda f: edit(f, lambda c: c["transformer"].update(heads=2)), "was altered"),
        (lambda f: edit(f, lambda c: c.pop("sha256")), "lacks sha256"),
        (lambda f: edit(f, lambda c: c.update(tokenizers=None, modalities=[])), "lacks modalities, tokenizers"),
        (lambda f: flip(f / "tokenizers" / "spectrum.safetensors"), "was altered or damaged"),
        (lambda f: (f / "transformer.safetensors").write_bytes(b"\x80\x04."), "was altered or damaged"),
    ],
)
def test_damaged_bundles_are_refused(bundle, change, message):
    change(bundle)
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        AION.from_pretrained(bundle)


@pytest.mark.parametrize("name", ["aion-nan", "no/such/folder", "/no/such", "~/nothing"])
def test_an_unknown_model_is_refused(name):
    with pytest.raises(FileNotFoundError, match="no bundle"):
        AION.from_pretrained(name)


def test_a_model_that_ships_has_no_revisions():
    with pytest.raises(FileNotFoundError, match="holds no revision 'v2'"):
        AION.from_pretrained("aion-nano", revision="v2")


@pytest.mark.parametrize("name", [None, 3, ""])
def test_what_is_no_name_is_refused(name):
    with pytest.raises(TypeError, match="wanted a name such as 'aion-nano', a folder, or a Hub id"):
        AION.from_pretrained(name)


def test_a_folder_may_be_given_from_the_home_directory(bundle, monkeypatch):
    monkeypatch.setenv("HOME", str(bundle.parent))
    assert AION.from_pretrained("~/bundle").sha256 == AION.from_pretrained(bundle).sha256


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


def test_types_of_numbers_go_by_their_names(bundle):
    assert AION.from_pretrained(bundle, dtype="bfloat16").transformer.mask_token.dtype == torch.bfloat16


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"device": "tpu"}, "cannot compute on device 'tpu'"),
        ({"dtype": "int8"}, "dtype must be a type such as torch.float32, its name, or 'auto', given 'int8'"),
        ({"dtype": "float31"}, "dtype must be a type such as torch.float32"),
        ({"dtype": torch.int8}, "dtype must be a type such as torch.float32"),
    ],
)
def test_impossible_devices_and_types_are_refused(bundle, options, message):
    with pytest.raises(ValueError, match=message):
        AION.from_pretrained(bundle, **options)


def test_others_may_read_a_bundle(bundle):
    assert all(path.stat().st_mode & 0o044 == 0o044 for path in bundle.rglob("*") if path.is_file())
