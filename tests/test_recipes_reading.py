"""Recipes are read: those that are like others, and what is wrong with the others."""

import pytest

from aion.recipes import load, load_tokenizer
from aion.recipes.reading import digest

WHOLE = """
name = "whole"
seed = 1
[sky]
max_redshift = 0.3
[tokenizers.spectrum]
kind = "spectrum"
width = 8
[modalities]
desi_spectrum = "spectrum"
[transformer]
dim = 16
heads = 2
[training.default]
steps = 3
batch = 2
"""
DATA = """
[data]
path = "shards"
[data.columns.desi_spectrum]
flux = "flux"
wavelength = "wave"
ivar = "ivar"
"""


@pytest.fixture
def write(tmp_path):
    def write(text: str, name: str = "recipe.toml"):
        (tmp_path / name).write_text(text)
        return tmp_path / name

    return write


def test_a_recipe_like_another_says_what_is_different(write):
    write(WHOLE, "whole.toml")
    other = 'like = "whole.toml"\nname = "other"\n[transformer]\ndim = 32\n[tokenizers.spectrum]\nstored = "spectrum"\n'
    recipe = load(write(other))
    assert recipe["name"] == "other"
    assert recipe["transformer"] == {"dim": 32, "heads": 2}
    assert recipe["tokenizers"] == {"spectrum": {"stored": "spectrum"}}
    assert recipe["sky"] == {"max_redshift": 0.3}
    assert digest(recipe) != digest(load(write(WHOLE)))
    data = load(write('like = "whole.toml"\n' + DATA))
    assert "sky" not in data
    assert data["data"]["path"] == "shards"
    with pytest.raises(ValueError, match="given neither"):
        load(write('like = "whole.toml"\nsky = false'))


def test_recipes_like_each_other_are_refused(write):
    write('like = "b.toml"', "a.toml")
    with pytest.raises(ValueError, match="in a circle"):
        load(write('like = "a.toml"', "b.toml"))
    with pytest.raises(FileNotFoundError, match=r"no recipe .*none\.toml"):
        load(write('like = "none.toml"'))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (WHOLE + DATA, r"wanted one of \[sky\] and \[data\], given both"),
        (WHOLE.replace("[sky]\nmax_redshift = 0.3", ""), "given neither"),
        (DATA.replace("path", "pth"), r"\[data\] knows no 'pth'; did you mean 'path'"),
        (DATA + "[data.options]\nname = 'x'\n", "with path takes no 'options', which is for dataset"),
        (DATA.replace('path = "shards"', 'path = "a"\ndataset = "b"'), "wants one of path and dataset"),
        (DATA.replace("desi_spectrum", "sdss_spectrum"), "'sdss_spectrum' has no tokenizer: name one in"),
        (DATA.split("[data.columns")[0], "wants one of path and dataset, and columns; given path"),
    ],
)
def test_bad_data_sections_are_refused(write, text, message):
    base = "" if text.startswith(WHOLE[:10]) or "name" in text[:20] else WHOLE.replace("[sky]\nmax_redshift = 0.3", "")
    with pytest.raises(ValueError, match=message):
        load(write(base + text))


def test_modalities_without_columns_are_refused(write):
    text = WHOLE.replace("[sky]\nmax_redshift = 0.3", "").replace(
        'desi_spectrum = "spectrum"', 'desi_spectrum = "spectrum"\nsdss_spectrum = "spectrum"'
    )
    with pytest.raises(ValueError, match="'sdss_spectrum' has no columns: name them in"):
        load(write(text + DATA))


def test_a_source_of_a_tokenizer_is_one_thing(write):
    text = 'name = "t"\nseed = 0\n[tokenizer]\nkind = "spectrum"\n[training]\nsteps = 1\nbatch = 2\n[sources.a]\n'
    with pytest.raises(ValueError, match="source 'a' must name either a modality of the sky or a reader"):
        load_tokenizer(write(text + "weight = 2\n"))


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("max_redshift", "max_redshif", r"\[sky\] knows no 'max_redshif'; did you mean 'max_redshift'"),
        ("heads = 2", "head = 2", r"\[transformer\] knows no 'head'; did you mean 'heads'"),
        ("batch = 2", "bach = 2", r"\[training.default\] knows no 'bach'; did you mean 'batch'"),
        ("[training", "[short]\nobjects = 3\nmodalities = []\n[training", r"\[short\] wants tokens that are kept"),
        ("[training", "[short]\nobject = 3\n[training", r"knows no 'object'; did you mean 'objects'"),
        ("batch = 2", "batch = 2\nseed = 3", r"\[training.default\] knows no 'seed'"),
        (
            "[training.default]",
            "[training.spectrun]\nsteps = 3\n[training.default]",
            "knows no 'spectrun'; did you mean",
        ),
        ("batch = 2", "", r"\[training.transformer\] lacks batch"),
        ("seed = 1", 'seed = 1\ndtype = "bfloat"', "dtype of the stored transformer: .* given 'bfloat'"),
        ("[training", "[masking]\ninput_buget = 3\n[training", r"knows no 'input_buget'; did you mean 'input_budget'"),
    ],
)
def test_unknown_keys_are_refused_before_anything_is_made(write, old, new, message):
    with pytest.raises(ValueError, match=message):
        load(write(WHOLE.replace(old, new, 1)))
