"""Published checkpoints as models: found, loaded with their tokenizers, used, saved, written back."""

import importlib.util
import json
import re
import shutil
import textwrap

from pathlib import Path

import pytest
import torch

from safetensors.torch import load_file

from aion import AION, Image, Scalar, official
from aion.__main__ import main
from aion.official.names import PUBLISHED

PATH = Path(__file__).with_name("make_official_model_fixtures.py")
SPEC = importlib.util.spec_from_file_location("make_official_model_fixtures", PATH)
MAKE = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(MAKE)

TOLERANCE = {"atol": 1e-5, "rtol": 1e-5}


@pytest.fixture
def model(published_model):
    return published_model


@pytest.fixture
def given(published_observations):
    return published_observations


# ---- loading


def test_all_modalities_are_there(model):
    assert set(model.modalities) == set(PUBLISHED)
    assert len(model.parts) == 38  # both images share a tokenizer, and so do both spectra
    assert model.tokenizer("hsc_image") is model.tokenizer("legacysurvey_image")
    assert not model.training


def test_info_describes_it(repository, model, capsys):
    assert main(["info", str(repository)]) == 0
    text = capsys.readouterr().out
    assert "that of the published AION-1" in text
    for name in model.modalities:
        assert f"{name} " in text
    for file in repository.rglob("*.safetensors"):
        assert f"{file.relative_to(repository).as_posix()} " in text


def test_the_embedding_is_that_of_the_transformer(model, repository, given):
    sequence = model.tokenize(given)
    with torch.no_grad():  # as `embed` does; with gradients the same is computed in larger pieces
        assert torch.equal(model.embed(given, pool="none")[0], model.transformer.encode(sequence))
        raw = model.transformer.encode(sequence, "encoder")
    torch.testing.assert_close(model.embed(given, layer="encoder"), raw.mean(1), **TOLERANCE)
    assert sequence.ids.shape == (2, 273 + 55 + 15 + 576 + 1 + 1)


def test_half_precision(repository, model, given):
    half = AION.from_pretrained(repository, device="cpu", dtype=torch.bfloat16)
    assert half.transformer.head.dtype == torch.bfloat16
    assert torch.equal(half.tokenize(given).ids, model.tokenize(given).ids)
    x, y = model.embed(given), half.embed(given)
    assert ((x - y).norm() / x.norm()).item() < 0.01
    fast = AION.from_pretrained(repository, device="cpu", dtype="auto")
    assert fast.transformer.head.dtype in {torch.bfloat16, torch.float32}


def test_the_cache_of_the_hub_is_enough(repository, model, given, tmp_path, monkeypatch):
    commit = "0123456789abcdef0123456789abcdef01234567"
    for name in ("base", "large"):
        cache = tmp_path / f"models--polymathic-ai--aion-{name}"
        shutil.copytree(repository, cache / "snapshots" / commit)
        (cache / "refs").mkdir()
        (cache / "refs" / "main").write_text(commit)
    shutil.rmtree(cache / "snapshots" / commit / "codecs")  # only one of the published repositories has them
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    expected = model.embed(given)
    for name in ("polymathic-ai/aion-base", tmp_path / "models--polymathic-ai--aion-base", "polymathic-ai/aion-large"):
        found = AION.from_pretrained(name, device="cpu")
        torch.testing.assert_close(found.embed(given), expected, **TOLERANCE)
    with pytest.raises(FileNotFoundError, match="has no tokenizers: give codecs="):
        AION.from_pretrained(cache, device="cpu")
    found = AION.from_pretrained(cache, device="cpu", codecs=repository)
    torch.testing.assert_close(found.embed(given), expected, **TOLERANCE)


def test_what_is_fetched_of_a_repository_holds_no_pickle(repository, monkeypatch):
    asked = []

    def snapshot(name, revision, allow_patterns):
        asked.append((name, revision, allow_patterns))
        return str(repository)

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot)
    AION.from_pretrained("polymathic-ai/aion-base", revision="v1", device="cpu")
    [(name, revision, patterns)] = asked
    assert (name, revision) == ("polymathic-ai/aion-base", "v1")
    from fnmatch import fnmatch

    wanted = [p.relative_to(repository).as_posix() for p in repository.rglob("*") if p.is_file()]
    assert all(any(fnmatch(path, pattern) for pattern in patterns) for path in wanted)
    for path in ("pytorch_model.bin", "codecs/image/pytorch_model.bin", "model.pt", "setup.py"):
        assert not any(fnmatch(path, pattern) for pattern in patterns)


# ---- modes


def test_parity_is_a_mode_of_loading_that_is_kept(repository, model, given, tmp_path):
    parity = AION.from_pretrained(repository, device="cpu", parity=True)
    assert parity.provenance["parity"] is True
    assert parity.transformer.uniform
    assert not model.transformer.uniform
    assert parity.tokenizer("redshift").parity
    assert not model.tokenizer("redshift").parity
    torch.testing.assert_close(parity.embed(given), model.embed(given), **TOLERANCE)  # all is measured
    parity.save_pretrained(tmp_path / "bundle")
    again = AION.from_pretrained(tmp_path / "bundle", device="cpu")
    assert again.transformer.uniform
    assert again.tokenizer("redshift").parity
    spectra = [
        m.reconstruct({"ra": given["ra"]}, "desi_spectrum", like=given["desi_spectrum"]) for m in (parity, again)
    ]
    assert torch.equal(spectra[0].flux, spectra[1].flux)
    with pytest.raises(ValueError, match=r"are for published checkpoints, and .* is none"):
        AION.from_pretrained(tmp_path / "bundle", parity=True)


def test_generation_is_the_same_in_both_modes(repository, model, given):
    """The published generation attends fully where the published `forward` does not."""
    parity = AION.from_pretrained(repository, device="cpu", parity=True)
    options = {"members": 2, "steps": 2}
    one, two = (
        m.generate({"ra": given["ra"]}, "gaia_bp_coefficients", generator=torch.Generator().manual_seed(3), **options)
        for m in (model, parity)
    )
    assert all(torch.equal(a.value, b.value) for a, b in zip(one, two, strict=True))


def test_padding_is_an_option(repository, model):
    padded = AION.from_pretrained(repository, device="cpu", padding=True)
    assert padded.tokenizer("sdss_spectrum").padding
    assert not model.tokenizer("sdss_spectrum").padding


# ---- use


def test_every_scalar_can_be_predicted(model, given):
    for name in ("redshift", "legacysurvey_flux_g", "gaia_parallax", "dec"):
        posterior = model.predict(given, name)
        assert posterior.probabilities.shape[0] == 2
        torch.testing.assert_close(posterior.probabilities.sum(1), torch.ones(2, dtype=torch.float64))
    assert len(model.predict({}, "redshift")) == 1


def test_every_kind_can_be_drawn(model, given, generator):
    others = {key: given[key] for key in ("redshift", "ra")}
    options = {"members": 2, "steps": 2, "generator": generator}
    for name in sorted(set(PUBLISHED) - {"legacysurvey_catalog"}):
        like = given["legacysurvey_image"] if name.endswith("image") else None
        if name == "hsc_image":
            like = Image(like.flux, like.ivar, ("hsc-g", "hsc-r", "hsc-i", "hsc-z"))
        ensemble = model.generate({k: v for k, v in others.items() if k != name}, name, like, **options)
        assert [len(member) for member in ensemble] == [2, 2], name
        assert all(member.measured.any() for member in ensemble)


def test_the_catalogue_can_be_given_but_not_asked_for(model, given):
    assert not torch.allclose(
        model.embed(given), model.embed({k: v for k, v in given.items() if k != "legacysurvey_catalog"})
    )
    catalog = given["legacysurvey_catalog"]
    for ask in (
        lambda: model.generate({"ra": given["ra"]}, "legacysurvey_catalog"),
        lambda: model.reconstruct({"ra": given["ra"]}, "legacysurvey_catalog", like=catalog),
    ):
        with pytest.raises(ValueError, match="'legacysurvey_catalog' can be given but not asked for"):
            ask()


def test_one_sided_modalities_are_refused_on_the_other_side(repository, tmp_path, given):
    folder = MAKE.build(tmp_path / "some", domains_in=["tok_z", "tok_ra"], domains_out=["tok_z", "tok_dec"])
    model = AION.from_pretrained(folder, device="cpu", codecs=repository)
    sky = {"ra": given["ra"]}
    assert len(model.predict(sky, "dec")) == 2
    for ask in (model.predict, model.generate):
        with pytest.raises(ValueError, match="'ra' can be given but not asked for"):
            ask({"redshift": given["redshift"]}, "ra")
    with pytest.raises(ValueError, match="'dec' can be asked for but not given"):
        model.embed({"dec": given["ra"]})
    model.save_pretrained(tmp_path / "bundle")
    assert torch.equal(AION.from_pretrained(tmp_path / "bundle", device="cpu").embed(sky), model.embed(sky))


def test_unmeasured_things_are_left_out(model, given):
    some = {key: given[key] for key in ("redshift", "ra")}
    missing = {**some, "redshift": Scalar([0.2, float("nan")])}
    torch.testing.assert_close(model.embed(missing)[1:], model.embed({"ra": some["ra"][1]}), **TOLERANCE)


# ---- faults of the published package that are not shared


@pytest.mark.parametrize("parity", [True, False])
def test_every_token_counts_and_the_order_of_names_does_not(repository, given, parity):
    model = AION.from_pretrained(repository, device="cpu", parity=parity)
    sequence = model.tokenize(given)
    expected = model.embed_tokens(sequence)
    assert torch.equal(model.embed(dict(reversed(given.items()))), expected)
    for place in (0, 300, 600, sequence.ids.shape[1] - 1):
        ids = sequence.ids.clone()
        ids[:, place] += 1
        assert not torch.allclose(model.embed_tokens(type(sequence)(**{**vars(sequence), "ids": ids})), expected)


def test_nothing_of_the_callers_is_written_to(model, given):
    counts = Image(
        30 * given["legacysurvey_image"].flux, torch.ones(2, 4, 96, 96), ("hsc-g", "hsc-r", "hsc-i", "hsc-z")
    )
    flux = counts.flux.clone()
    first, second = (model.tokenize({"hsc_image": counts}).ids for _ in range(2))
    assert torch.equal(first, second)
    assert torch.equal(counts.flux, flux)


def test_the_default_dtype_does_not_matter(model, given):
    expected = model.embed(given)
    torch.set_default_dtype(torch.bfloat16)
    try:
        found = model.embed(given)
    finally:
        torch.set_default_dtype(torch.float32)
    torch.testing.assert_close(found, expected, **TOLERANCE)


def test_global_generators_are_left_alone(model, given):
    import random

    before = torch.random.get_rng_state(), random.getstate()
    model.embed(given)
    model.predict(given, "redshift")
    model.generate(given, "dec", generator=torch.Generator().manual_seed(1))
    assert torch.equal(torch.random.get_rng_state(), before[0])
    assert random.getstate() == before[1]


@pytest.mark.parametrize(
    ("ask", "error", "message"),
    [
        (lambda m, o: m.embed({"tok_image": o["legacysurvey_image"]}), ValueError, "no modality 'tok_image'"),
        (lambda m, o: m.embed({}), ValueError, "wanted observations of at least one"),
        (lambda m, o: m.embed({"redshift": Scalar([0.1]), "ra": o["ra"]}), ValueError, "same number of objects"),
        (lambda m, o: m.embed({"gaia_bp_coefficients": Scalar(torch.zeros(2, 54))}), ValueError, "wanted 55 component"),
        (lambda m, o: m.embed({"desi_spectrum": o["legacysurvey_image"]}), TypeError, "wanted Spectrum, given Image"),
        (lambda m, o: m.predict(o, "legacysurvey_image"), ValueError, "is no scalar"),
        (lambda m, o: m.predict(o, "legacysurvey_segmentation_map"), ValueError, "is no scalar"),
        (lambda m, o: m.predict(o, "gaia_bp_coefficients"), ValueError, "or a vector of them"),
        (lambda m, o: m.generate({"ra": o["ra"]}, "hsc_image"), ValueError, "give like="),
        (lambda m, o: AION.from_pretrained("aion-base"), FileNotFoundError, "not a Hub id owner/name"),
    ],
)
def test_bad_requests_get_one_clear_error(model, given, ask, error, message):
    with pytest.raises(error, match=message):
        ask(model, given)


def test_ids_beyond_a_vocabulary_are_refused(model):
    from aion.tokens import Tokens

    one = torch.ones(1, 1, dtype=torch.bool)
    for ids in (1025, -1):
        with pytest.raises(ValueError, match=rf"redshift: ids must lie in \[0, 1025\), given {ids}"):
            model.vocabulary.pack({"redshift": Tokens(torch.tensor([[ids]]), torch.zeros(1, 1, 2), one)})
    with pytest.raises(TypeError, match="wanted integer ids"):
        Tokens(torch.tensor([[3.9]]), torch.zeros(1, 1, 2), one)


def test_the_snippets_of_the_page_run(repository, given, monkeypatch, tmp_path):
    monkeypatch.setattr("huggingface_hub.snapshot_download", lambda *_, **__: str(repository))
    page = (Path(__file__).parents[1] / "docs" / "official.md").read_text()
    blocks = re.findall(r"^( *)```python\n(.*?)^\1```$", page, re.MULTILINE | re.DOTALL)
    assert len(blocks) == 1 + len(re.findall("```python published", page)) == 11
    image, spectrum = given["legacysurvey_image"], given["desi_spectrum"]
    names = {"torch": torch, "flux": image.flux, "ivar": image.ivar, "y": torch.tensor([1.0, 2.0])}
    names |= {"f": spectrum.flux, "w": spectrum.ivar, "wavelength": spectrum.wavelength, "folder": tmp_path / "saved"}
    for _, code in blocks:
        exec(textwrap.dedent(code), names)
    assert names["flux"].shape == (10, 2, 900)
    assert torch.equal(
        AION.from_pretrained(tmp_path / "saved").embed({"desi_spectrum": spectrum}).cpu(),
        names["model"].embed({"desi_spectrum": spectrum}).cpu(),
    )


# ---- storage


def test_bundles_and_the_published_layout_lead_to_each_other(repository, model, given, tmp_path):
    expected = model.embed(given)
    digest = model.save_pretrained(tmp_path / "bundle")
    assert digest == model.sha256
    bundle = AION.from_pretrained(tmp_path / "bundle", device="cpu")
    assert bundle.sha256 == digest
    assert torch.equal(bundle.embed(given), expected)
    for source, name in ((model, "first"), (bundle, "second")):
        official.export(source, tmp_path / name)
        for path in repository.rglob("*.safetensors"):
            before, after = load_file(path), load_file(tmp_path / name / path.relative_to(repository))
            assert before.keys() == after.keys()
            assert all(torch.equal(before[k], after[k]) and before[k].dtype == after[k].dtype for k in before), path
    assert all(path.stat().st_mode & 0o044 == 0o044 for path in (tmp_path / "first").rglob("*") if path.is_file())
    again = AION.from_pretrained(tmp_path / "second", device="cpu")
    assert torch.equal(again.embed(given), expected)
    assert again.sha256 == digest


def test_a_model_that_was_trained_further_is_written_with_what_it_learned(repository, given, tmp_path):
    model = AION.from_pretrained(repository, device="cpu")
    with torch.no_grad():
        model.transformer.head.mul_(0.5)
    official.export(model, tmp_path / "tuned")
    before, after = (load_file(folder / "model.safetensors") for folder in (repository, tmp_path / "tuned"))
    changed = {key for key in before if not torch.equal(before[key], after[key])}
    assert changed == {key for key in before if key.endswith("to_logits.weight")}
    assert torch.equal(load_file(repository / "model.safetensors")["mask_token"], before["mask_token"])


def test_only_published_models_have_a_published_layout(tiny_model, model, tmp_path):
    with pytest.raises((TypeError, ValueError), match="desi_spectrum"):
        official.export(tiny_model, tmp_path / "tiny")
    assert not list(tmp_path.iterdir()), "nothing is left of what failed"
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    with pytest.raises(FileExistsError, match="is not empty: choose another folder"):
        official.export(model, tmp_path / "mine")
    with pytest.raises(TypeError, match="wanted an AION model, given dict"):
        official.export({}, tmp_path / "new")


# ---- what bad repositories get


@pytest.fixture
def copy(repository, tmp_path):
    folder = MAKE.build(tmp_path / "copy", "untied")
    shutil.copytree(repository / "codecs", folder / "codecs")
    return folder


def test_a_tokenizer_that_is_missing_is_named(copy):
    shutil.rmtree(copy / "codecs" / "FLUX_R")
    with pytest.raises(FileNotFoundError, match=r"FLUX_R.*config\.json"):
        AION.from_pretrained(copy)


def test_pickles_in_place_of_weights_are_refused(copy):
    weights = copy / "codecs" / "Z" / "model.safetensors"
    weights.rename(weights.with_name("pytorch_model.bin"))
    with pytest.raises(FileNotFoundError, match="pickle"):
        AION.from_pretrained(copy)


@pytest.mark.parametrize("name", ["../evil", "/etc/evil", "a/b", "..", ".hidden", "", "a\\b"])
def test_names_that_lead_out_of_the_folder_are_refused(tiny_model, tmp_path, name):
    tiny_model.save_pretrained(tmp_path / "bundle")
    path = tmp_path / "bundle" / "config.json"
    config = json.loads(path.read_text())
    config["tokenizers"][name] = config["tokenizers"].pop("redshift")
    path.write_text(json.dumps(config))
    with pytest.raises(ValueError, match="cannot be the name of a tokenizer: its file would lie elsewhere"):
        AION.from_pretrained(tmp_path / "bundle")


def test_a_reference_that_leads_out_of_the_cache_is_not_followed(copy, tmp_path):
    cache = tmp_path / "models--someone--something"
    (cache / "refs").mkdir(parents=True)
    (cache / "snapshots").mkdir()
    (cache / "refs" / "main").write_text("../../copy")
    with pytest.raises(FileNotFoundError, match="is no bundle"):
        AION.from_pretrained(cache)
