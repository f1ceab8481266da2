import json

import pytest
import torch

from aion.physics.flow import Flow
from aion.physics.recipe import HELD_OUT, load, train_recipe, window_batch
from aion.physics.systems import simulate
from aion.physics.walrus import Walrus
from aion.physics.well import write_well

RECIPE = """
name = "tiny"
seed = 3
[data.shear]
n = 4
size = 16
frames = 6
[data.turbulence]
n = 2
size = 16
frames = 4
[model]
fields = ["tracer", "velocity_x", "velocity_y", "velocity_z"]
dim = 16
heads = 2
depth = 1
middle = 4
context = 3
tokens_2d = 16
tokens_3d = 64
[training]
steps = 4
batch = 2
tokens = [16, 4]
"""


@pytest.fixture
def recipe(tmp_path):
    (tmp_path / "tiny.toml").write_text(RECIPE.replace("tokens = [16, 4]", "tokens = [64, 16]"))
    return tmp_path / "tiny.toml"


def test_a_recipe_trains_the_same_model_twice_and_goes_on_where_it_stopped(recipe, tmp_path):
    model = train_recipe(recipe, tmp_path / "one", progress=False)
    loaded = Walrus.from_pretrained(tmp_path / "one" / "model")
    assert loaded.provenance["name"] == "tiny"
    assert loaded.provenance["data"] == {"shear": "4 trajectories", "turbulence": "2 trajectories"}
    again = train_recipe(recipe, tmp_path / "two", progress=False)
    done = train_recipe(recipe, tmp_path / "one", progress=False)  # nothing is left to do
    for name, value in model.state_dict().items():
        assert torch.equal(value, again.state_dict()[name])
        assert torch.equal(value, done.state_dict()[name])
    other = train_recipe(recipe, tmp_path / "three", seed=5, steps=1, progress=False)
    assert other.provenance["seed"] == 5
    with pytest.raises(ValueError, match="for evaluation"):
        train_recipe(recipe, tmp_path / "four", seed=HELD_OUT, progress=False)
    lines = [json.loads(line) for line in (tmp_path / "one" / "log.jsonl").read_text().splitlines()]
    assert lines[0]["step"] == 0
    assert set(lines[0]) >= {"step", "loss", "last"}


def test_data_may_be_files_of_the_well(recipe, tmp_path):
    pytest.importorskip("h5py")
    write_well(simulate("shear", 2, size=16, frames=5), tmp_path / "a.hdf5")
    text = recipe.read_text()
    start, stop = text.index("[data.shear]"), text.index("[model]")
    recipe.write_text(f"{text[:start]}[data.mine]\nfiles = ['{tmp_path / 'a.hdf5'}']\n{text[stop:]}")
    model = train_recipe(recipe, tmp_path / "out", steps=1, progress=False)
    assert model.provenance["steps"] == 1
    assert model.provenance["data"] == {"mine": "2 trajectories"}


def test_windows_are_drawn_from_trajectories_and_moments(generator):
    values = torch.arange(10.0).view(1, 10, 1, 1, 1) + 100 * torch.arange(3.0).view(3, 1, 1, 1, 1)
    flow = Flow(values.expand(3, 10, 1, 4, 4).contiguous(), ["a"], ["wall"] * 2, dt=2.0)
    batch = window_batch([flow], 4, 200, generator)
    first = batch.values[:, 0, 0, 0, 0]
    assert batch.boundaries == flow.boundaries
    assert set((first % 100).tolist()) == set(range(7))
    assert set((first // 100).tolist()) == {0, 1, 2}
    torch.testing.assert_close(batch.values[:, 3, 0, 0, 0] - first, torch.full((200,), 3.0))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("[model]", "[modle]"), "did you mean 'model'"),
        (("seed = 3", ""), "lacks seed"),
        (("n = 4", f"n = 4\nseed = {HELD_OUT}"), "for evaluation"),
        (("seed = 3", f"seed = {HELD_OUT}"), "for evaluation"),
        (("[model]", "[model"), "not TOML"),
        (("frames = 4", "frames = 3"), "more than 3 frames"),
        (("[data.turbulence]", "[data.turbulance]"), "did you mean 'turbulence'"),
    ],
)
def test_recipes_that_are_wrong_are_refused(recipe, tmp_path, change, message):
    recipe.write_text(recipe.read_text().replace(*change))
    with pytest.raises(ValueError, match=message):
        train_recipe(recipe, tmp_path / "out", progress=False)


def test_the_released_recipe_is_well_formed(root):
    recipe = load(root / "benchmarks" / "recipes" / "walrus-nano.toml")
    with torch.device("meta"):
        model = Walrus(**recipe["model"])
    assert sum(p.numel() for p in model.parameters()) * 4 < 20e6
    with pytest.raises(FileNotFoundError, match="no recipe"):
        load(root / "benchmarks" / "recipes" / "walrus-nono.toml")
