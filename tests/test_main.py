"""The command line: help, each verb, and what wrong input gets."""

import argparse
import os
import subprocess
import sys
import warnings

import numpy as np
import pytest
import torch

from aion import AION, Scalar, __version__, demo, io
from aion.__main__ import _parser, main
from aion.tokenizers import ScalarTokenizer, SpectrumTokenizer

KNOWN = ("desi_spectrum", "sdss_spectrum", "legacysurvey_flux_r", "legacysurvey_flux_z", "redshift")
VERBS = ("benchmark", "demo", "embed", "explore", "forecast", "info", "physics", "search", "sky", "train")
RECIPE = """
name = "trial"
seed = 1
[sky]
[tokenizers.redshift]
kind = "scalar"
bins = 8
fit_objects = 20
[tokenizers.flux]
kind = "scalar"
bins = 8
fit_objects = 20
[modalities]
redshift = "redshift"
legacysurvey_flux_r = "flux"
[transformer]
dim = 8
heads = 2
encoder_depth = 1
decoder_depth = 1
[masking]
input_budget = [1, 1]
target_budget = 1
[training.default]
batch = 8
steps = 3
"""


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    """Saves a small untrained model."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)  # noqa: TID251
        flux = Scalar(torch.linspace(0, 50, 100))
        tokenizers = {
            "spectrum": SpectrumTokenizer(start=3300, stop=10700, width=16, depth=1, levels=[4, 4], scale_bins=32),
            "flux": ScalarTokenizer(bins=16).fit(flux),
            "redshift": ScalarTokenizer(bins=32).fit(Scalar(torch.linspace(0, 1, 100)), spacing="log1p"),
        }
        parts = dict(zip(KNOWN, ("spectrum", "spectrum", "flux", "flux", "redshift"), strict=True))
        shape = {"dim": 16, "heads": 2, "encoder_depth": 1, "decoder_depth": 1}
        model = AION(tokenizers, parts, shape, provenance={"name": "tiny", "parts": {"flux": {"fitted_on": 100}}})
    folder = tmp_path_factory.mktemp("models") / "bundle"
    model.eval().save_pretrained(folder)
    return folder


@pytest.fixture
def aion(capsys):
    """Runs the command and returns exit status, standard output and standard error."""

    def run(*arguments: object) -> tuple[int, str, str]:
        status = main([str(a) for a in arguments])
        captured = capsys.readouterr()
        return status, captured.out, captured.err

    return run


@pytest.fixture(scope="module")
def samples():
    return io.samples()


def refused(result, *said: str) -> None:
    """Asserts one line of error, no output and exit status 2; notes may come before the error."""
    status, out, err = result
    err = "".join(line for line in err.splitlines(keepends=True) if not line.startswith("aion: note: "))
    assert status == 2
    assert out == ""
    assert err.startswith("aion: error: ")
    assert err.count("\n") == 1
    assert "Traceback" not in err
    for text in said:
        assert text in err


# ---- help


@pytest.mark.parametrize("verb", [None, *VERBS])
def test_help_explains_every_argument_and_gives_an_example(verb, capsys):
    parser = _parser()
    (verbs,) = (a for a in parser._actions if isinstance(a, argparse._SubParsersAction))
    assert tuple(verbs.choices) == VERBS
    chosen = parser if verb is None else verbs.choices[verb]
    assert all(action.help for action in chosen._actions if action is not verbs)
    with pytest.raises(SystemExit) as ended:
        main(["--help"] if verb is None else [verb, "--help"])
    text = capsys.readouterr().out
    assert ended.value.code == 0
    assert "example:\n  aion " in text
    assert max(map(len, text.splitlines())) <= 120
    assert set(VERBS) <= set(text.split()) or verb is not None


@pytest.mark.parametrize("verb", VERBS)
def test_the_examples_of_the_help_parse(verb, root):
    (verbs,) = (a for a in _parser()._actions if isinstance(a, argparse._SubParsersAction))
    words = verbs.choices[verb].epilog.split()[1:]
    arguments = _parser().parse_args(words[1:])
    assert words[:2] == ["aion", verb]
    if verb == "train":
        assert (root / arguments.recipe).is_file()


def test_help_loads_nothing_heavy():
    code = (
        "import sys\nfrom aion.__main__ import main\n"
        "try: main(['embed', '--help'])\nexcept SystemExit: pass\n"
        "print({'torch', 'numpy', 'astropy', 'matplotlib', 'pyarrow'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.endswith("set()\n")


def test_version(capsys):
    with pytest.raises(SystemExit) as ended:
        main(["--version"])
    assert ended.value.code == 0
    assert capsys.readouterr().out == f"aion {__version__}\n"


@pytest.mark.parametrize(
    "words", [[], ["embd"], ["embed"], ["embed", "a.fits"], ["embed", "a.fits", "-o", "b", "--batch-size", "0"]]
)
def test_wrong_usage_exits_with_2(words, capsys):
    with pytest.raises(SystemExit) as ended:
        main(words)
    assert ended.value.code == 2
    assert "error: " in capsys.readouterr().err


# ---- embed


def test_embed_writes_what_the_model_gives(aion, bundle, samples, tmp_path):
    out = tmp_path / "x.parquet"
    status, text, err = aion("embed", samples["desi-galaxy"], "-o", out, "--model", bundle)
    assert (status, err) == (0, ""), "no progress bar away from a terminal"
    assert text == f"{out}  1 objects x 16\n"
    model, table = AION.from_pretrained(bundle), io.read_embeddings(out)
    read = io.read(samples["desi-galaxy"])
    torch.testing.assert_close(table.embedding, model.embed(read))
    assert table.ids == io.object_ids(samples["desi-galaxy"])
    made = {"model": str(bundle), "model_sha256": model.sha256, "pool": "mean", "layer": "context", "dtype": "float32"}
    assert made.items() <= table.metadata.items()
    assert list(table.columns["source"]) == [str(samples["desi-galaxy"])]
    assert list(table.columns["modalities"]) == ["desi_spectrum"]
    assert table.columns["tokens"].tolist() == model.tokenize(read).valid.sum(1).tolist()


@pytest.mark.parametrize("batch", [1, 64])
def test_embed_keeps_files_apart_in_their_order(aion, bundle, samples, tmp_path, root, batch):
    sweep = root / "tests" / "data" / "sweep-310m005-320p000.fits.gz"
    files = [samples["desi-nearby-galaxy"], sweep, samples["desi-galaxy"]]
    out = tmp_path / "x.parquet"
    assert aion("embed", *files, "-o", out, "--model", bundle, "--batch-size", batch)[0] == 0
    table, model = io.read_embeddings(out), AION.from_pretrained(bundle)
    assert table.ids == [i for file in files for i in io.object_ids(file)]
    assert list(table.columns["source"]) == [str(file) for file in files for _ in io.object_ids(file)]
    expected = [{k: v for k, v in io.read(file).items() if k in KNOWN} for file in files]
    torch.testing.assert_close(table.embedding, torch.cat([model.embed(e) for e in expected]), atol=1e-5, rtol=1e-5)
    assert set(table.columns["modalities"][1:-1]) == {"legacysurvey_flux_r,legacysurvey_flux_z"}
    assert set(table.columns["tokens"][1:-1]) == {2}


def test_embed_joins_files_of_the_same_objects(aion, bundle, samples, tmp_path):
    files, out = [samples["desi-galaxy"], samples["desi-galaxy-tractor"]], tmp_path / "x.parquet"
    assert aion("embed", *files, "-o", out, "--model", bundle, "--join")[0] == 0
    table = io.read_embeddings(out)
    read = {k: v for file in files for k, v in io.read(file).items() if k in KNOWN}
    torch.testing.assert_close(table.embedding, AION.from_pretrained(bundle).embed(read))
    assert table.ids == io.object_ids(files[0])
    assert list(table.columns["modalities"]) == ["desi_spectrum,legacysurvey_flux_r,legacysurvey_flux_z"]
    assert list(table.columns["source"]) == [" + ".join(map(str, files))]


def test_embed_leaves_out_what_it_is_told_to(aion, bundle, samples, tmp_path):
    out = tmp_path / "x.parquet"
    without = ["--without", "legacysurvey_flux_r,ra", "--without", "dec"]
    words = ["embed", samples["desi-galaxy-tractor"], "-o", out, "--model", bundle, *without]
    assert aion(*words)[0] == 0
    assert list(io.read_embeddings(out).columns["modalities"]) == ["legacysurvey_flux_z"]
    out.unlink()
    refused(aion(*words, "--without", "legacysurvey_flux_z"), "nothing to embed", "desi_spectrum")
    refused(aion(*words, "--without", "legacysurvey_flux_rr"), "did you mean 'legacysurvey_flux_r'")
    assert not out.exists()


def test_embed_notes_what_the_model_does_not_know(aion, bundle, samples, tmp_path):
    file, out = samples["desi-galaxy-tractor"], tmp_path / "x.parquet"
    status, _, err = aion("embed", file, "-o", out, "--model", bundle)
    assert status == 0
    assert err.startswith("aion: note: left out dec, legacysurvey_ebv, ")
    assert err.count("\n") == 1


def test_embed_takes_a_spectrum_of_no_known_survey_as_one_that_the_model_knows(aion, bundle, tmp_path, root):
    file, out = root / "tests" / "data" / "stack-LRG.fits.gz", tmp_path / "x.parquet"
    words = ["embed", file, "-o", out, "--model", bundle]
    refused(aion(*words), "unit=")
    words += ["--unit", "1e-17 erg/(s cm2 Angstrom)"]
    refused(aion(*words), "nothing to embed", "desi_spectrum", "given spectrum", "--as")
    refused(aion(*words, "--as", "desi_spectrm"), "did you mean 'desi_spectrum'")
    assert not out.exists()
    assert aion(*words, "--as", "desi_spectrum")[0] == 0
    assert list(io.read_embeddings(out).columns["modalities"]) == ["desi_spectrum"]


@pytest.mark.parametrize("kind", ["truncated", "foreign", "empty"])
def test_embed_marks_a_bad_file_and_goes_on(aion, bundle, samples, tmp_path, kind):
    good, bad, out = samples["desi-galaxy"], tmp_path / "bad.fits", tmp_path / "x.parquet"
    if kind == "truncated":
        bad.write_bytes(good.read_bytes()[:30_000])
    else:
        bad.write_bytes(b"" if kind == "empty" else b"not a FITS file at all\n" * 100)
    status, text, err = aion("embed", good, bad, "-o", out, "--model", bundle)
    assert (status, text) == (3, f"{out}  1 objects x 16\n")
    assert err.startswith(
        f"aion: note: 1 rows or files failed, see the column status; the first: {bad}: cannot be read"
    )
    assert io.read_embeddings(out).ids == io.object_ids(good)
    out.unlink()
    refused(aion("embed", bad, "-o", out, "--model", bundle), "nothing could be embedded", str(bad))
    assert not out.exists()


def test_embed_refuses_a_file_that_does_not_exist(aion, bundle, samples, tmp_path):
    out = tmp_path / "x.parquet"
    refused(aion("embed", samples["desi-galaxy"], tmp_path / "none.fits", "-o", out, "--model", bundle), "none.fits")
    assert list(tmp_path.iterdir()) == []


def test_embed_shows_what_it_would_do(aion, bundle, samples, tmp_path):
    status, text, _ = aion("embed", samples["desi-galaxy"], "-o", tmp_path / "x", "--model", bundle, "--dry-run")
    tokens = AION.from_pretrained(bundle).tokenize(io.read(samples["desi-galaxy"])).valid.sum().item()
    assert status == 0
    assert f"  desi_spectrum  {tokens:.1f}\n" in text
    assert list(tmp_path.iterdir()) == []


def test_embed_keeps_an_older_output_after_an_error(aion, bundle, tmp_path):
    out = tmp_path / "x.parquet"
    out.write_bytes(b"older")
    refused(aion("embed", tmp_path / "none.fits", "-o", out, "--model", bundle), "none.fits")
    assert out.read_bytes() == b"older"


def test_embed_refuses_an_output_it_cannot_write_first(aion, tmp_path, monkeypatch):
    monkeypatch.setattr(AION, "from_pretrained", lambda *_, **__: pytest.fail("something was computed"))
    refused(aion("embed", "a.fits", "-o", tmp_path), "is a folder")
    refused(
        aion("embed", "a.fits", "-o", tmp_path / "none" / "x.parquet"), "there is no folder", str(tmp_path / "none")
    )
    (tmp_path / "file").write_text("mine")
    refused(aion("embed", "a.fits", "-o", tmp_path / "file" / "x.parquet"), "there is no folder")


def test_embed_refuses_a_join_of_other_objects(aion, bundle, samples, tmp_path, root):
    sweep, out = root / "tests" / "data" / "sweep-310m005-320p000.fits.gz", tmp_path / "x.parquet"
    options = ["-o", out, "--model", bundle, "--join"]
    refused(aion("embed", samples["desi-galaxy"], sweep, *options), "same objects", f"{sweep}: ")
    twice = aion("embed", samples["desi-galaxy"], samples["desi-nearby-galaxy"], *options)
    refused(twice, "'desi_spectrum'", samples["desi-nearby-galaxy"].name)
    assert not out.exists()


def test_embed_names_format_and_model_that_do_not_exist(aion, bundle, samples, tmp_path):
    words = ["embed", samples["desi-galaxy"], "-o", tmp_path / "x.parquet"]
    refused(aion(*words, "--model", bundle, "--format", "desi-coad"), "did you mean 'desi-coadd'")
    refused(aion(*words, "--model", tmp_path / "none"), "no bundle")
    refused(aion(*words, "--model", bundle, "--device", "gpu"), "device 'gpu'", "try 'cpu'")


# ---- explore and search


@pytest.fixture(scope="module")
def embeddings(bundle, root, tmp_path_factory):
    """Embeds a sweep."""
    out = tmp_path_factory.mktemp("embeddings") / "x.parquet"
    sweep = root / "tests" / "data" / "sweep-310m005-320p000.fits.gz"
    assert main(["embed", str(sweep), "-o", str(out), "--model", str(bundle)]) == 0
    return out


def test_search_prints_the_nearest(aion, bundle, embeddings, samples, tmp_path):
    ids = io.read_embeddings(embeddings).ids
    status, text, err = aion("search", embeddings, "--id", ids[0], "-k", 3, "--save", tmp_path / "i.safetensors")
    lines = text.splitlines()
    assert (status, err, lines[0]) == (0, "", "nearest")
    assert lines[1].split() == ["object_id", "ra", "dec", "distance"]
    assert [line.split()[0] in ids[1:] for line in lines[2:5]] == [True] * 3
    assert aion("search", tmp_path / "i.safetensors", "--id", ids[0], "-k", 3)[1] == text
    refused(aion("search", tmp_path / "i.safetensors", embeddings, "--id", ids[0]), "wanted one saved index or files")
    other = aion("search", tmp_path / "i.safetensors", "--id", ids[0], "--metric", "euclidean")
    refused(other, "was saved with --metric cosine")
    refused(
        aion("search", embeddings, "--id", ids[0], "--save", tmp_path / "no" / "i.safetensors"), "there is no folder"
    )
    like = aion("search", embeddings, "--like", samples["desi-galaxy-tractor"], "-k", 2, "--model", bundle)
    assert like[0] == 0
    assert like[1].count("\n") == 5


def test_search_refuses_what_it_cannot_do(aion, bundle, embeddings, samples, tmp_path):
    refused(aion("search", embeddings), "either --like or --id")
    refused(aion("search", embeddings, "--id", "none"), "no object 'none'")
    refused(aion("search", embeddings, "--like", samples["desi-galaxy"]), "the index was made by the model")
    refused(aion("search", tmp_path / "none.parquet", "--id", "a"), "no such file")


def test_explore_writes_a_page(aion, embeddings, tmp_path):
    out, count = tmp_path / "map.html", len(io.read_embeddings(embeddings).ids)
    assert aion("explore", embeddings, "-o", out) == (0, f"{out}  {count} objects\n", "")
    assert out.read_text().startswith("<!DOCTYPE html>")
    refused(aion("explore", tmp_path / "none.parquet", "-o", out), "no such file")


# ---- the other verbs


def test_info_says_what_the_model_is(aion, bundle):
    status, text, err = aion("info", bundle)
    assert (status, err) == (0, "")
    model = AION.from_pretrained(bundle)
    for name in model.modalities:
        assert f"{name} " in text
        assert model.tokenizer(name).describe() in text
    assert model.sha256 in text
    assert f"{sum(p.numel() for p in model.transformer.parameters()):,}" in text
    for file in bundle.rglob("*.safetensors"):
        assert f"{file.relative_to(bundle).as_posix()} " in text
        assert f"{file.stat().st_size:,} bytes" in text
    assert "parts flux  fitted_on 100" in text
    assert "format" in text
    assert not any(line.endswith(" ") for line in text.splitlines())


def test_info_refuses_a_damaged_model(aion, bundle, tmp_path):
    import shutil

    copy = tmp_path / "copy"
    shutil.copytree(bundle, copy)
    weights = copy / "transformer.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    refused(aion("info", copy), "altered")
    weights.unlink()
    refused(aion("info", copy), "missing")
    refused(aion("info", tmp_path), "config.json")


def test_train_makes_a_bundle_that_info_reads(aion, tmp_path):
    recipe, out = tmp_path / "trial.toml", tmp_path / "run"
    recipe.write_text(RECIPE)
    status, text, _ = aion("train", recipe, "-o", out, "--steps", 1)
    assert status == 0
    assert str(out / "bundle") in text
    status, text, _ = aion("info", out / "bundle")
    assert status == 0
    assert "steps 1" in text
    assert "trial" in text


def test_train_refuses_what_is_no_recipe(aion, tmp_path):
    recipe, out = tmp_path / "trial.toml", tmp_path / "run"
    refused(aion("train", recipe, "-o", out), "no recipe", str(recipe))
    recipe.write_text(RECIPE.replace("[sky]", "[skies]"))
    refused(aion("train", recipe, "-o", out), "did you mean 'sky'")
    assert not out.exists()


def test_sky_writes_shards_once(aion, tmp_path):
    pytest.importorskip("pyarrow")
    path = tmp_path / "sky.parquet"
    status, out, _ = aion("sky", "--n", 5, "--shard", 3, "-o", path, "--modalities", "redshift,ra", "--seed", 4)
    assert status == 0
    assert "5 objects, 2 modalities" in out
    assert len(list(path.iterdir())) == 2
    for arguments, words in ((["-o", path], "exists already"), (["--modalities", "redshft", "-o", path], "redshift")):
        status, _, error = aion("sky", "--n", 5, *arguments)
        assert status == 2
        assert words in error


def test_demo_hands_its_arguments_on(aion, monkeypatch, tmp_path):
    calls = []
    monkeypatch.setattr(demo, "run", lambda *args, **kwargs: calls.append((args, kwargs)))
    assert aion("demo", "--out", tmp_path / "d", "--model", "m", "--device", "cpu")[0] == 0
    assert calls == [((tmp_path / "d",), {"model": "m", "device": "cpu"})]


# ---- interruptions


def test_an_interruption_is_no_traceback(aion, monkeypatch):
    def interrupt(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(demo, "run", interrupt)
    assert aion("demo") == (130, "", "aion: interrupted\n")


def test_a_warning_is_one_line(aion, monkeypatch):
    before = warnings.formatwarning
    monkeypatch.setattr(demo, "run", lambda *_, **__: print(warnings.formatwarning("the sky", UserWarning, "x.py", 3)))
    assert aion("demo") == (0, "aion: warning: the sky\n\n", "")
    assert warnings.formatwarning is before


def test_errors_of_the_system_name_the_file(aion, monkeypatch):
    def fail(*_, **__):
        raise PermissionError(13, "Permission denied", "/some/where")

    monkeypatch.setattr(demo, "run", fail)
    refused(aion("demo"), "/some/where: permission denied")


def test_faults_of_ours_keep_their_traceback(aion, monkeypatch):
    monkeypatch.setattr(demo, "run", lambda *_, **__: {}["ours"])
    with pytest.raises(KeyError):
        aion("demo")


def test_a_reader_that_has_gone_is_no_error(bundle, root):
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run(
        [sys.executable, "-m", "aion", "info", str(bundle)],
        env={**os.environ, "PYTHONPATH": str(root)},
        stdout=write,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    os.close(write)
    assert (done.returncode, done.stderr) == (141, "")


# ---- the shipped model


def test_the_shipped_model_is_small_and_reads_what_ships(aion, samples, tmp_path):
    status, text, err = aion("info")
    assert status == 0, err
    assert "aion-nano" in text
    from aion.bundle import BUNDLED

    assert sum(path.stat().st_size for path in (BUNDLED / "aion-nano").rglob("*") if path.is_file()) <= 25_000_000
    out = tmp_path / "x.parquet"
    files = [samples["desi-galaxy"], samples["desi-galaxy-tractor"]]
    assert aion("embed", *files, "-o", out, "--join", "--without", "ra,dec")[0] == 0
    assert np.isfinite(io.read_embeddings(out).embedding.numpy()).all()


def test_embed_leaves_out_objects_of_which_nothing_is_measured(aion, bundle, tmp_path, root):
    file, out = root / "tests" / "data" / "MaNGA_test_spectra.fits.gz", tmp_path / "x.parquet"
    status, _, err = aion("embed", file, "-o", out, "--model", bundle)
    ids, measured = io.object_ids(file), io.read(file)["sdss_spectrum"].measured.any(1)
    lost = [name for name, some in zip(ids, measured.tolist(), strict=True) if not some]
    assert status == 0
    assert f"{len(lost)} objects have no embedding: nothing is measured of them\n" in err
    assert io.read_embeddings(out).ids == [name for name in ids if name not in lost]


def test_physics_data_writes_simulated_flows(capsys, tmp_path):
    pytest.importorskip("h5py")
    output = tmp_path / "shear.hdf5"
    arguments = ["physics", "data", "--system", "shear", "--n", "2", "--size", "16", "--frames", "3", "-o", str(output)]
    assert main(arguments) == 0
    assert "2 x 3 frames of tracer, velocity_x, velocity_y on 16 x 16, simulated" in capsys.readouterr().out
    assert output.exists()
    arguments[3] = "sheer"
    assert main(arguments) == 2
    assert "did you mean 'shear'" in capsys.readouterr().err


def test_benchmark_scores_and_keeps_what_it_scored(tmp_path, capsys):
    command = ["benchmark", "--task", "sky-stars", "--model", "raw", "--no-controls", "-o", str(tmp_path / "out")]
    embeddings = io.write_embeddings(tmp_path / "x.parquet", [f"sky-0-{i}" for i in range(2000, 2100)], torch.eye(100))
    for kept in (0, 1):
        assert main(command) == 0
        printed = capsys.readouterr().out
        assert "| `sky-stars` | simulated | R² |" in printed
        assert f"1 cells, {kept} kept from before" in printed
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"cache", "report.html", "sky-stars", "table.md"}
    for wrong, message in (
        (["--task", "sky-star"], "no task 'sky-star'; did you mean 'sky-stars'"),
        (["--suite", "ofline"], "no suite 'ofline'"),
        (["--task", "miles-labels", "--model", "raw", "--data", str(tmp_path)], "name a checkout by --data"),
    ):
        assert main(["benchmark", *wrong, "-o", str(tmp_path / "wrong")]) == 2
        assert message in capsys.readouterr().err
    lacking = ["benchmark", "--task", "sky-stars", "--model", str(embeddings), "-o", str(tmp_path / "lacking")]
    assert main(lacking) == 3
    assert "sky-stars, x: failed: x: the embeddings lack 100 of 200 objects" in capsys.readouterr().out
    assert main(["benchmark", "--task", "sky-redshifts", "--model", "raw", "-o", str(tmp_path / "out")]) == 0
    assert "sky-redshifts, raw: not applicable: it predicts no distribution" in capsys.readouterr().out
    assert main([*command[:-1], str(embeddings)]) == 2
    assert "wanted a folder, and there is a file of that name" in capsys.readouterr().err
