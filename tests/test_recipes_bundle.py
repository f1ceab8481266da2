"""Recipes: each fits the signatures it feeds, and a short one trains end to end and resumes."""

import inspect
import json

from pathlib import Path

import pytest
import torch

from aion import AION
from aion.masking import BudgetMasking
from aion.recipes import HELD_OUT, load, train_recipe
from aion.sky import Sky
from aion.tokenizers import ImageTokenizer, ScalarTokenizer, SpectrumTokenizer
from aion.training import train
from aion.transformer import Transformer

ROOT = Path(__file__).resolve().parents[1]
RECIPES = sorted((ROOT / "benchmarks" / "recipes").glob("*.toml"))
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
        assert tokenizer.keys() <= parameters(KINDS[tokenizer["kind"]]) | {"kind", "spacing", "fit_objects"}
    for part, settings in recipe["training"].items():
        assert settings.keys() <= parameters(train) | {"batch"}
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
    ],
)
def test_bad_recipes_are_refused(recipe, tmp_path, change, message):
    recipe.write_text(SHORT.replace(*change))
    with pytest.raises(ValueError, match=message):
        train_recipe(recipe, tmp_path / "run", progress=False)


def test_a_missing_recipe_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no recipe .*none\.toml"):
        load(tmp_path / "none.toml")
