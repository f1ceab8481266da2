"""Cells: what they hold, when they are kept, what stops or refuses them."""

import dataclasses
import json

import numpy as np
import pytest
import torch

from aion import AION, Scalar, io
from aion.benchmarks import embedder, evaluate, run, table, write_report
from aion.benchmarks.embedders import Brought, Frozen
from aion.benchmarks.raw import Raw
from aion.benchmarks.report import read_cells
from aion.benchmarks.task import Data, Task
from aion.benchmarks.tasks import SUITES
from aion.tokenizers import ScalarTokenizer

NAMES = ("legacysurvey_flux_g", "legacysurvey_flux_r")
LOADED = []


def load(root):
    """Draws a hundred objects, a number and a class of which follow from their fluxes."""
    LOADED.append(root)
    rng = np.random.default_rng(0)
    flux = rng.uniform(1, 40, (100, 2))
    observations = {name: Scalar(torch.from_numpy(flux[:, i])) for i, name in enumerate(NAMES)}
    z = np.log(flux[:, 0] / flux[:, 1]) * 0.1 + 0.5
    labels = {
        "z": z,
        "redshift": z,
        "kind": np.where(z > 0.5, "far", "near"),
        "same": np.ones(100),
        "none": np.full(100, np.nan),
    }
    return Data(np.array([f"o{i}" for i in range(100)]), observations, labels, np.arange(100) % 5)


TASK = Task(
    name="sky-galaxies",
    question="?",
    origin="simulated",
    kind="regression",
    inputs=NAMES,
    labels=("z",),
    metric="r2",
    load=load,
    version="1",
    split="modulo",
    tests=(0, 1, 2, 3, 4),
    licence="none",
    citation="none",
    contains=("invented",),
)
KINDS = {
    "regression": {},
    "classification": {"kind": "classification", "labels": ("kind",), "metric": "accuracy"},
    "retrieval": {"kind": "retrieval", "labels": ("redshift",), "metric": "ndcg@10"},
    "matching": {"kind": "matching", "labels": (), "metric": "recall@10", "tests": (0, 1)},
}


@pytest.fixture(scope="module")
def model():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)  # noqa: TID251
        values = torch.linspace(0.5, 42, 200)
        tokenizers = {"flux": ScalarTokenizer(bins=64).fit(Scalar(values))}
        tokenizers["z"] = ScalarTokenizer(bins=16).fit(Scalar(torch.linspace(0, 1, 50)))
        shape = {"dim": 16, "heads": 2, "encoder_depth": 1, "decoder_depth": 1}
        return AION(tokenizers, {**dict.fromkeys(NAMES, "flux"), "z": "z"}, shape)


@pytest.mark.parametrize("kind", KINDS)
def test_raw_measurements_tell_and_controls_do_not(kind, tmp_path):
    task = dataclasses.replace(TASK, **KINDS[kind])
    cell = evaluate(task, Raw(), tmp_path, tmp_path)
    value, error = cell["scores"][task.metric]
    assert (cell["status"], cell["inputs"], cell["objects"]) == ("scored", list(NAMES), 100)
    if kind == "matching":
        return  # two independent fluxes: there is nothing to match
    assert error > 0
    assert value > max(cell["controls"]["shuffled labels"][0], cell["controls"]["masks only"][0])
    if kind != "retrieval":
        assert value > 0.8


def test_a_cell_is_kept_until_something_changes(tmp_path, model):
    first = evaluate(TASK, Raw(), tmp_path, tmp_path)
    LOADED.clear()
    again = evaluate(TASK, Raw(), tmp_path, tmp_path)
    assert again == first | {"kept": True}
    assert not LOADED
    changed = [dataclasses.replace(TASK, version="2"), TASK]
    assert not evaluate(changed[0], Raw(), tmp_path, tmp_path).get("kept")
    assert not evaluate(TASK, Raw(), tmp_path, tmp_path, seed=1).get("kept")
    other = Raw()
    other.sha256 = "0" * 64
    assert not evaluate(TASK, other, tmp_path, tmp_path).get("kept")
    assert len(LOADED) == 3


def test_the_same_twice_and_embeddings_come_from_the_cache(tmp_path, model):
    def scores(cell):
        return {key: value for key, value in cell.items() if key not in {"seconds"}}

    frozen = Frozen(model, "tiny")
    first = evaluate(TASK, frozen, tmp_path / "a", tmp_path)
    assert scores(first) == scores(evaluate(TASK, Frozen(model, "tiny"), tmp_path / "b", tmp_path))
    assert set(first["controls"]) == {"shuffled labels", "random weights", "masks only"}
    (tmp_path / "a" / TASK.name / "tiny.json").unlink()
    frozen.readouts = None  # must not be needed
    assert evaluate(TASK, frozen, tmp_path / "a", tmp_path, controls=False)["scores"] == first["scores"]


def test_controls_leave_the_model_as_it_was(model):
    before = {key: value.clone() for key, value in model.state_dict().items()}
    others = Frozen(model, "tiny").controls(0)
    observations = load(None).observations
    own = Frozen(model, "tiny").embed([], observations)
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())
    assert not np.allclose(others["random weights"].embed([], observations), own)
    masked = others["masks only"].embed([], observations)
    assert np.allclose(masked, masked[0])


def test_not_applicable_and_refused(tmp_path, model):
    frozen = Frozen(model, "tiny")
    absent = evaluate(dataclasses.replace(TASK, inputs=("gaia_flux_g",)), frozen, tmp_path, tmp_path)
    assert (absent["status"], absent["why"]) == ("not applicable", "it reads none of gaia_flux_g")
    posterior = dataclasses.replace(TASK, kind="posterior", metric="nmad")
    assert evaluate(posterior, Raw(), tmp_path, tmp_path)["status"] == "not applicable"
    assert evaluate(posterior, frozen, tmp_path, tmp_path)["scores"]["crps"][0] > 0
    frozen.trained_on = ("invented",)
    LOADED.clear()
    refused = evaluate(TASK, frozen, tmp_path, tmp_path)
    assert refused["status"] == "refused"
    assert "invented" in refused["why"]
    assert not LOADED


def test_embeddings_that_someone_brings(tmp_path):
    data = load(None)
    vectors = np.stack([o.value.numpy() for o in data.observations.values()], axis=1)
    order = np.random.default_rng(0).permutation(100)
    path = io.write_embeddings(tmp_path / "mine.parquet", data.ids[order], vectors[order])
    cell = evaluate(TASK, embedder(str(path)), tmp_path, tmp_path)
    assert cell["scores"]["r2"][0] > 0.7
    assert set(cell["controls"]) == {"shuffled labels"}
    few = io.write_embeddings(tmp_path / "few.parquet", data.ids[:90], vectors[:90])
    with pytest.raises(ValueError, match=r"lack 10 of 100 objects of this task, such as 'o90'"):
        evaluate(TASK, Brought(few), tmp_path, tmp_path)
    twice = io.write_embeddings(tmp_path / "twice.parquet", ["a", "a"], vectors[:2])
    with pytest.raises(ValueError, match="more than once"):
        Brought(twice)


def test_bad_data_stop_the_cell(tmp_path):
    for label in ("same", "none"):
        with pytest.raises(ValueError, match="missing or constant"):
            evaluate(dataclasses.replace(TASK, labels=(label,)), Raw(), tmp_path, tmp_path)
    with pytest.raises(ValueError, match="no label 'absent'"):
        evaluate(dataclasses.replace(TASK, labels=("absent",)), Raw(), tmp_path, tmp_path)
    with pytest.raises(ValueError, match="fewer objects than folds"):
        evaluate(dataclasses.replace(TASK, tests=(7,)), Raw(), tmp_path, tmp_path)
    broken = Raw()
    broken.embed = lambda ids, observations: np.where(np.arange(100)[:, None] == 3, np.nan, np.ones((100, 2)))
    with pytest.raises(ValueError, match="1 embeddings hold NaN or inf, of the objects o3"):
        evaluate(TASK, broken, tmp_path, tmp_path)
    assert not list(tmp_path.glob("*/*.json"))
    cells = run(
        [TASK], [broken, Brought(io.write_embeddings(tmp_path / "e.parquet", ["a"], [[1.0]]))], tmp_path, tmp_path
    )
    assert [cell["status"] for cell in cells] == ["failed", "failed"]
    assert "objects o3" in cells[0]["why"]
    assert not list(tmp_path.glob("*/*.json"))
    assert table(cells).count("failed") == 2


def test_run_table_and_report(tmp_path, model):
    told = []
    tasks = [TASK, dataclasses.replace(TASK, name="sky-stars", inputs=("gaia_flux_g",), origin="real")]
    cells = run(tasks, [Frozen(model, "tiny<1>"), Raw()][:1], tmp_path, tmp_path, report=lambda *a: told.append(a[:2]))
    assert told == [(1, 2), (2, 2)]
    assert json.loads((tmp_path / "sky-galaxies" / "tiny-1-.json").read_text()) == cells[0]
    assert read_cells(tmp_path) == cells
    lines = table(cells).splitlines()
    assert "| `sky-galaxies` | simulated | R² |" in lines[2]
    assert "not applicable" in lines[3]
    page = write_report(cells, tmp_path).read_text()
    assert page.count("data:image/png;base64,") == 1
    assert "tiny&lt;1&gt;" in page
    assert "tiny<1>" not in page
    assert "http" not in page
    with pytest.raises(ValueError, match="two models are named 'raw'"):
        run([TASK], [Raw(), Raw()], tmp_path, tmp_path)


def test_an_interruption_keeps_what_is_done(tmp_path):
    def stop(done, total, cell):
        raise KeyboardInterrupt

    later = dataclasses.replace(TASK, name="sky-stars")
    with pytest.raises(KeyboardInterrupt):
        run([TASK, later], [Raw()], tmp_path, tmp_path, report=stop)
    kept = run([TASK, later], [Raw()], tmp_path, tmp_path)
    assert [cell.get("kept", False) for cell in kept] == [True, False]


def test_every_task_is_declared_whole():
    names = [task.name for task in SUITES["all"]]
    assert len(set(names)) == len(names)
    for task in SUITES["all"]:
        assert task.licence
        assert task.citation
        assert task.version or task.origin == "published"
        assert task.question
        assert task.split
        assert task.tests
        assert (task.origin == "published") == (task in SUITES["published"])
        if task.origin == "simulated":
            assert "simulated" in task.question
