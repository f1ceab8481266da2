"""Recipes: each fits the signatures it feeds, and a short one trains end to end and resumes."""

import inspect
import json
import shutil

from pathlib import Path

import pytest
import torch

from aion import AION
from aion.masking import BudgetMasking
from aion.recipes import HELD_OUT, load, train_recipe
from aion.sky import Sky
from aion.tokenizers import ImageTokenizer, ScalarTokenizer, SpectrumTokenizer, build
from aion.tokenizers.store import load as load_tokenizer
from aion.training import train
from aion.transformer import Transformer

ROOT = Path(__file__).resolve().parents[1]
RECIPES = [ROOT / "benchmarks" / "recipes" / f"{name}.toml" for name in ("nano", "tiny", "base", "large", "xlarge")]
KINDS = {"image": ImageTokenizer, "scalar": ScalarTokenizer, "spectrum": SpectrumTokenizer}

SHORT = """
name = "short"
seed = 1
[sky]
max_redshift = 0.3
[tokenizers.spectrum]
kind = "spectrum"
start = 3300.0
stop = 10700.0
step = 0.02
width = 8
depth = 1
levels = [4, 4]
[tokenizers.redshift]
kind = "scalar"
bins = 16
spacing = "log1p"
fit_objects = 64
[modalities]
desi_spectrum = "spectrum"
redshift = "redshift"
[transformer]
dim = 16
heads = 2
encoder_depth = 1
decoder_depth = 1
[masking]
input_budget = 20
target_budget = 10
[masking.hide]
redshift = 1.0
[training.default]
batch = 4
steps = 3
lr = 1e-3
checkpoint_every = 1
log_every = 1
"""


def parameters(function) -> set[str]:
    return set(inspect.signature(function).parameters)


@pytest.mark.parametrize("path", RECIPES, ids=lambda p: p.stem)
def test_every_setting_is_an_argument_of_what_it_is_for(path):
    recipe = load(path)
    assert recipe["sky"].keys() <= parameters(Sky)
    assert recipe["transformer"].keys() <= parameters(Transformer) - {"sizes"}
    assert recipe.get("masking", {}).keys() <= parameters(BudgetMasking) - {"vocabulary"}
    for tokenizer in recipe["tokenizers"].values():
        if "stored" in tokenizer:
            assert tokenizer.keys() == {"stored"}
            assert load_tokenizer(tokenizer["stored"]).size > 1
            continue
        assert tokenizer.keys() <= parameters(KINDS[tokenizer["kind"]]) | {"kind", "spacing", "fit_objects"}
    for part, settings in recipe["training"].items():
        assert settings.keys() <= parameters(train) | {"batch", "kept"}
        assert part in {"default", "transformer", *recipe["tokenizers"]}
    assert set(recipe["modalities"].values()) == set(recipe["tokenizers"])


@pytest.fixture
def recipe(tmp_path) -> Path:
    (tmp_path / "short.toml").write_text(SHORT)
    return tmp_path / "short.toml"


def test_a_short_recipe_trains_saves_and_says_where_it_comes_from(recipe, tmp_path):
    model = train_recipe(recipe, tmp_path / "run", progress=False)
    loaded = AION.from_pretrained(tmp_path / "run" / "bundle")
    sky = Sky(seed=1, modalities=["desi_spectrum"], complete=True).observe(torch.arange(3))
    torch.testing.assert_close(loaded.embed(sky), model.eval().embed(sky))
    facts = dict(loaded.provenance["parts"]["transformer"])
    assert facts.pop("seconds") > 0
    assert facts == {"steps": 3, "batch": 4, "objects": 12}
    assert loaded.provenance["data"].startswith("simulated")
    lines = (tmp_path / "run" / "transformer.jsonl").read_text().splitlines()
    assert json.loads(lines[0]).keys() >= {"step", "loss", "redshift"}


def test_a_trial_of_a_recipe_without_defaults_takes_fewer_steps(recipe, tmp_path):
    trained = SHORT.split("[training.default]")[1]
    recipe.write_text(SHORT.replace("[training.default]", "[training.transformer]") + "[training.spectrum]" + trained)
    model = train_recipe(recipe, tmp_path / "run", steps=2, progress=False)
    assert model.provenance["parts"]["transformer"]["steps"] == 2
    assert model.provenance["parts"]["redshift"] == {"fitted_on": 64}


def test_objects_may_be_tokenized_once_for_many_epochs(recipe, tmp_path, monkeypatch):
    recipe.write_text(SHORT + "[training.transformer]\nbatch = 4\nsteps = 9\nlr = 1e-3\nkept = 12\n")
    first = train_recipe(recipe, tmp_path / "run", progress=False)
    assert first.provenance["parts"]["transformer"]["kept"] == 12
    shutil.rmtree(tmp_path / "run" / "checkpoints" / "transformer")
    (tmp_path / "run" / "transformer.jsonl").unlink()
    monkeypatch.setattr(AION, "tokenize", None)  # nothing is tokenized again
    again = train_recipe(recipe, tmp_path / "run", progress=False)
    a, b = first.state_dict(), again.state_dict()
    assert all(torch.equal(a[k], b[k]) for k in a)


def test_every_second_batch_may_be_of_many_objects_of_which_little_is_shown(recipe, tmp_path, monkeypatch):
    kept = "[training.transformer]\nbatch = 4\nsteps = 4\naccumulate = 2\nlr = 1e-3\nkept = 12\n"
    recipe.write_text(SHORT + kept + '[short]\nobjects = 10\nmodalities = ["desi_spectrum"]\n')
    seen, loss = [], Transformer.loss
    monkeypatch.setattr(Transformer, "loss", lambda self, batch, g: seen.append(batch) or loss(self, batch, g))
    train_recipe(recipe, tmp_path / "run", progress=False)
    assert [len(visible) for visible, _ in seen[0::2]] == [4] * 4
    assert all(len(visible) > 4 for visible, _ in seen[1::2])
    assert all(set(target.modality[target.valid].tolist()) == {0} for _, target in seen[1::2])


def test_training_twice_gives_the_same_model(recipe, tmp_path):
    models = [train_recipe(recipe, tmp_path / run, progress=False) for run in ("a", "b")]
    a, b = (m.state_dict() for m in models)
    assert all(torch.equal(a[k], b[k]) for k in a)


def test_a_finished_run_is_resumed_from_its_checkpoints(recipe, tmp_path, monkeypatch):
    first = train_recipe(recipe, tmp_path / "run", progress=False)
    log = (tmp_path / "run" / "transformer.jsonl").read_text()
    again = train_recipe(recipe, tmp_path / "run", progress=False)
    assert (tmp_path / "run" / "transformer.jsonl").read_text() == log
    a, b = first.state_dict(), again.state_dict()
    assert all(torch.equal(a[k], b[k]) for k in a)


def test_held_out_objects_are_never_trained_on(recipe, tmp_path, monkeypatch):
    seen, observe = [], Sky.observe

    def spy(self, indices, **options):
        seen.append(torch.as_tensor(indices))
        return observe(self, indices, **options)

    monkeypatch.setattr(Sky, "observe", spy)
    train_recipe(recipe, tmp_path / "run", progress=False)
    assert torch.cat(seen).min() >= HELD_OUT


@pytest.mark.parametrize("change", [("seed = 1", "seed = 2"), ("lr = 1e-3", "lr = 2e-3"), ("steps = 3", "steps = 2")])
def test_a_folder_of_another_recipe_is_refused(recipe, tmp_path, change):
    train_recipe(recipe, tmp_path / "run", progress=False)
    recipe.write_text(SHORT.replace(*change))
    with pytest.raises(ValueError, match=r"is of another training: .* choose another folder"):
        train_recipe(recipe, tmp_path / "run", progress=False)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("[sky]", "[skie]"), "unknown section 'skie'; did you mean 'sky'"),
        (
            ('desi_spectrum = "spectrum"', 'desi_spectrum = "spectra"'),
            "wants tokenizer 'spectra'; did you mean 'spectrum'",
        ),
        (("[transformer]", "[transformer"), "is not TOML"),
        (("width = 8", "widht = 8"), "spectrum tokenizer: .*widht"),
        (('name = "short"', ""), "lacks name"),
        # What is made last is looked at before the first part is trained.
        (("heads = 2", "heads = 3"), "dim must be a multiple of heads"),
        (("redshift = 1.0", "redshfit = 1.0"), "unknown modality 'redshfit'"),
        (("[training.default]", "[training.transformer]"), r"\[training.spectrum\] lacks batch, steps"),
    ],
)
def test_bad_recipes_are_refused_before_anything_is_made(recipe, tmp_path, monkeypatch, change, message):
    monkeypatch.setattr(Sky, "observe", None)
    recipe.write_text(SHORT.replace(*change))
    with pytest.raises(ValueError, match=message):
        train_recipe(recipe, tmp_path / "run", progress=False)


def test_a_device_that_cannot_be_used_is_refused(recipe, tmp_path):
    with pytest.raises(ValueError, match="cannot compute on device 'gpu'"):
        train_recipe(recipe, tmp_path / "run", device="gpu", progress=False)
    assert not (tmp_path / "run").exists()


def test_a_missing_recipe_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no recipe .*none\.toml"):
        load(tmp_path / "none.toml")


def test_the_second_part_of_a_training_goes_on_from_what_the_first_makes(tmp_path):
    text = (ROOT / "benchmarks" / "recipes" / "nano-second.toml").read_text()
    (tmp_path / "second.toml").write_text(text.replace("runs/nano/bundle", "aion-nano"))
    first, second = load(RECIPES[0]), load(tmp_path / "second.toml")
    assert second["modalities"] == first["modalities"]
    for own in ("name", "seed", "sky", "dtype", "masking"):
        assert second[own] == first[own]
    # What was tokenized for the first part serves the second.
    for setting in ("batch", "kept"):
        assert second["training"]["transformer"][setting] == first["training"]["transformer"][setting]


# Width, depth and heads as published.
PUBLISHED = {"base": (768, 12, 12), "large": (1024, 24, 16), "xlarge": (2048, 24, 32)}
PARAMETERS = {"tiny": (55e6, 75e6), "base": (230e6, 330e6), "large": (700e6, 900e6), "xlarge": (2.8e9, 3.3e9)}


@pytest.mark.parametrize("name", PARAMETERS)
def test_sizes_are_those_that_the_names_promise(name):
    recipe = load(ROOT / "benchmarks" / "recipes" / f"{name}.toml")
    sizes = {}
    with torch.device("meta"):
        for modality, tokenizer in recipe["modalities"].items():
            config = recipe["tokenizers"][tokenizer]
            plain = {k: v for k, v in config.items() if k not in {"fit_objects", "spacing"}}
            sizes[modality] = (load_tokenizer(config["stored"]) if "stored" in config else build(plain)).size
        count = sum(p.numel() for p in Transformer(sizes, **recipe["transformer"]).parameters())
    assert PARAMETERS[name][0] < count < PARAMETERS[name][1]


@pytest.mark.parametrize("name", PUBLISHED)
def test_large_recipes_have_the_published_settings(name):
    recipe = load(ROOT / "benchmarks" / "recipes" / f"{name}.toml")
    shape, training = recipe["transformer"], recipe["training"]["transformer"]
    assert (shape["dim"], shape["encoder_depth"], shape["heads"]) == PUBLISHED[name]
    assert shape["encoder_depth"] == shape["decoder_depth"]
    assert training["batch"] * training["accumulate"] == 8192
    assert (training["steps"], training["lr"], training["warmup"]) == (205_000, 2e-4, 0.1)
    assert (training["weight_decay"], recipe["masking"]["alpha"]) == (0.05, 0.1)
    assert (recipe["masking"]["input_budget"], recipe["masking"]["target_budget"]) == (256, 128)
    assert training["parallel"] == "zero2"


def test_what_another_way_of_training_would_not_change_may_change(recipe, tmp_path):
    train_recipe(recipe, tmp_path / "run", progress=False)
    recipe.write_text(SHORT.replace("log_every = 1", "log_every = 2\nahead = 1\nactivation_checkpointing = true"))
    train_recipe(recipe, tmp_path / "run", progress=False)
    assert len((tmp_path / "run" / "transformer.jsonl").read_text().splitlines()) == 3


@pytest.fixture
def shards(tmp_path, recipe):
    """Writes observations of the sky as shards, and the recipe that trains on them."""
    import pyarrow as pa

    from pyarrow import parquet

    seen = Sky(modalities=["desi_spectrum", "redshift"], complete=True, max_redshift=0.3).observe(torch.arange(24))
    spectrum, redshift = seen["desi_spectrum"], seen["redshift"].value.flatten()
    table = pa.table(
        {
            "spectrum": [
                {"flux": f, "ivar": i, "lambda": w}
                for f, i, w in zip(
                    *(v.tolist() for v in (spectrum.flux, spectrum.ivar, spectrum.wavelength)), strict=True
                )
            ],
            "Z": redshift.tolist(),
        }
    )
    (tmp_path / "shards").mkdir()
    for number in range(2):
        parquet.write_table(table.slice(12 * number, 12), tmp_path / "shards" / f"{number}.parquet", row_group_size=6)
    columns = f"""
[data]
path = '{tmp_path / "shards"}'
[data.columns.desi_spectrum]
flux = "spectrum.flux"
ivar = "spectrum.ivar"
wavelength = "spectrum.lambda"
unit = "1e-17 erg/(s cm2 Angstrom)"
[data.columns.redshift]
value = "Z"
"""
    recipe.write_text(SHORT.replace("[sky]\nmax_redshift = 0.3\n", columns))
    return recipe


def test_data_are_trained_on_as_the_sky_is(shards, tmp_path):
    model = train_recipe(shards, tmp_path / "run", progress=False)
    assert model.provenance["data"] == {"path": "shards", "shards": 2, "objects": 24, "skipped": {}}
    again = train_recipe(shards, tmp_path / "other", progress=False)
    assert all(torch.equal(value, again.state_dict()[key]) for key, value in model.state_dict().items())


def test_a_recipe_may_start_from_a_model(shards, tmp_path):
    first = train_recipe(shards, tmp_path / "first", progress=False)
    text = shards.read_text()
    own = f"""
name = "second"
seed = 2
start = '{tmp_path / "first" / "bundle"}'
[masking]
input_budget = 20
target_budget = 10
[training.transformer]
batch = 4
steps = 2
lr = 1e-12
weight_decay = 0.0
"""
    data = text[text.index("[data]") : text.index("[data.columns.redshift]")]  # some of what the model reads
    shards.write_text(own + data)
    second = train_recipe(shards, tmp_path / "run", progress=False)
    assert second.tokenizers_sha256 == first.tokenizers_sha256
    for key, value in first.transformer.state_dict().items():
        torch.testing.assert_close(second.transformer.state_dict()[key], value)
    begun = second.provenance["parts"]["start"]
    assert begun["sha256"] == first.sha256
    assert begun["provenance"]["data"]["path"] == "shards"
    shards.write_text(own + data + "[transformer]\ndim = 16\n")
    with pytest.raises(ValueError, match=r"\[transformer\] is that of the model to start from"):
        train_recipe(shards, tmp_path / "run", progress=False)
    shards.write_text(own.replace("/bundle'", "/bundel'") + data)
    with pytest.raises(FileNotFoundError, match="no bundle"):
        train_recipe(shards, tmp_path / "run", progress=False)


def test_missing_data_are_an_error(shards, tmp_path):
    shards.write_text(shards.read_text().replace("/shards'", "/shard'"))
    with pytest.raises(FileNotFoundError, match=r"no data .*/shard: wanted a Parquet file or a folder of them"):
        train_recipe(shards, tmp_path / "run", progress=False)


def test_stored_tokenizers_are_taken_as_they_are(recipe, tmp_path):
    text = SHORT[: SHORT.index("[tokenizers.spectrum]")] + '[tokenizers.spectrum]\nstored = "spectrum"\n'
    recipe.write_text(text + SHORT[SHORT.index("[tokenizers.redshift]") :])
    model = train_recipe(recipe, tmp_path / "run", steps=1, progress=False)
    stored = model.provenance["parts"]["spectrum"]
    assert stored["stored"] == "spectrum"
    assert stored["data"]["miles"]["held_out"] == 184, "what the tokenizer has seen the model has seen"
    released = load_tokenizer("spectrum").state_dict()
    assert all(torch.equal(v, released[k]) for k, v in model.parts["spectrum"].state_dict().items())
    recipe.write_text(recipe.read_text().replace('stored = "spectrum"', 'stored = "spectrum"\nwidth = 8'))
    with pytest.raises(ValueError, match="tokenizer 'spectrum' is stored and takes no 'width'"):
        train_recipe(recipe, tmp_path / "other", progress=False)
