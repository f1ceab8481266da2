import json

import pytest
import torch

from aion.__main__ import main
from aion.physics.flow import Flow
from aion.physics.recipe import HELD_OUT, Windows, load, read_data, train_recipe
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
frames = 5
cost = 2
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
accumulate = 2
noise = 0.1
pushed = 0.5
tokens = [64, 16]
"""


@pytest.fixture
def recipe(tmp_path):
    (tmp_path / "tiny.toml").write_text(RECIPE)
    return tmp_path / "tiny.toml"


def test_a_recipe_trains_the_same_model_twice_and_goes_on_where_it_stopped(recipe, tmp_path):
    model = train_recipe(recipe, tmp_path / "one", progress=False)
    loaded = Walrus.from_pretrained(tmp_path / "one" / "model")
    assert loaded.provenance["name"] == "tiny"
    assert loaded.provenance["data"] == {
        "shear": "4 simulated trajectories",
        "turbulence": "2 simulated trajectories",
    }
    again = train_recipe(recipe, tmp_path / "two", progress=False)
    done = train_recipe(recipe, tmp_path / "one", progress=False)  # nothing is left to do
    for name, value in model.state_dict().items():
        assert torch.equal(value, again.state_dict()[name])
        assert torch.equal(value, done.state_dict()[name])
    other = train_recipe(recipe, tmp_path / "three", seed=5, steps=1, progress=False)
    assert other.provenance["seed"] == 5
    assert other.provenance["steps"] == 1
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
    assert model.provenance["data"] == {"mine": "2 trajectories of files"}


def numbered(trajectories, frames):
    """Flows whose values tell trajectory and frame."""
    values = torch.arange(float(frames)).view(1, -1, 1, 1, 1) + 100 * torch.arange(trajectories).view(-1, 1, 1, 1, 1)
    return Flow(values.expand(-1, -1, 1, 4, 4).contiguous(), ["a"], ["wall"] * 2, dt=2.0)


def test_windows_are_of_all_trajectories_moments_and_data_sets():
    flows = {"long": numbered(3, 10), "short": numbered(2, 6)}
    windows = Windows(flows, {"long": 1.0, "short": 3.0}, 2, 6, together=2, pushed=0.5, noise=0.2, tokens=[5, 7])
    seen, sizes, options = set(), {}, []
    for number in range(400):
        flow, given = windows(number)
        first = flow.values[:, 0, 0, 0, 0]
        assert flow.frames == (4 if given.get("pushed") else 3)
        torch.testing.assert_close(flow.values[:, -1, 0, 0, 0] - first, torch.full((len(flow),), flow.frames - 1.0))
        seen |= set(first.tolist())
        sizes.setdefault(len(flow), 0)
        sizes[len(flow)] += 1
        options.append(given)
    assert seen == {100.0 * row + start for row in range(3) for start in range(7)}
    assert set(sizes) == {6, 2}  # of equal cost
    assert sizes[2] == pytest.approx(200, abs=50)
    assert options[0::2] == options[1::2]  # batches of a step are cut alike
    assert {given["tokens"] for given in options} == {5, 7}
    assert sum(given.get("pushed", False) for given in options) == pytest.approx(200, abs=50)
    noises = [given["noise"] for given in options if "noise" in given]
    assert 0 <= min(noises) < 0.05 < 0.15 < max(noises) <= 0.2
    assert torch.equal(windows(7)[0].values, windows(7)[0].values)


def test_data_are_simulated_once_if_there_is_a_folder_for_them(recipe, tmp_path):
    pytest.importorskip("h5py")
    first = read_data(load(recipe), folder=tmp_path / "flows")
    files = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "flows").iterdir()}
    assert len(files) == 2
    again = read_data(load(recipe), folder=tmp_path / "flows")
    assert files == {path.name: path.stat().st_mtime_ns for path in (tmp_path / "flows").iterdir()}
    simulated = read_data(load(recipe))
    for name, flow in simulated.items():
        for kept in (first[name], again[name]):
            assert torch.equal(kept.values, flow.values)
            assert (kept.fields, kept.boundaries, kept.regimes) == (flow.fields, flow.boundaries, flow.regimes)
    recipe.write_text(recipe.read_text().replace("n = 4", "n = 4\nseed = 1"))
    other = read_data(load(recipe), folder=tmp_path / "flows")
    assert not torch.equal(other["shear"].values, first["shear"].values)


def test_the_command_trains_says_what_it_wrote_and_goes_on(recipe, tmp_path, capsys):
    command = ["physics", "train", str(recipe), "-o", str(tmp_path / "run"), "--steps", "2"]
    assert main(command) in {None, 0}
    assert f"{tmp_path / 'run' / 'model'}  " in capsys.readouterr().out
    before = (tmp_path / "run" / "model" / "walrus.safetensors").read_bytes()
    assert main(command) in {None, 0}
    assert (tmp_path / "run" / "model" / "walrus.safetensors").read_bytes() == before


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("[model]", "[modle]"), "did you mean 'model'"),
        (("seed = 3", ""), "lacks seed"),
        (("n = 4", f"n = 4\nseed = {HELD_OUT}"), "for evaluation"),
        (("[model]", "[model"), "not TOML"),
        (("frames = 5", "frames = 4"), "at least 5 frames"),
        (("velocity_z", "velocity_w"), "unknown field .velocity_z."),
        (("cost = 2", "cost = 0"), "cost to be a number above 0, given 0"),
        (("batch = 2", "batch = 0"), "batch to be a whole number of at least 1, given 0"),
        (("batch = 2", "batch = '2'"), "batch to be a whole number"),
        (("batch = 2", ""), r"\[training\] lacks batch"),
        (("n = 4", ""), "lacks n"),
        (("n = 4", "files = []"), "files to be a list of at least one"),
        (("pushed = 0.5", "pushed = 2"), "pushed to be a share"),
        (("noise = 0.1", "noise = -1"), "noise to be a number of at least 0"),
        (("tokens = [64, 16]", "tokens = []"), "tokens to be a list"),
        (("size = 16", "size = 18"), "no strides cut a grid of 18x18 into at most 64 tokens"),
        (("cost = 2", "coast = 2"), "did you mean 'cost'"),
        (("dim = 16", "dimm = 16"), "did you mean 'dim'"),
        (("batch = 2", "bach = 2"), "did you mean 'batch'"),
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
