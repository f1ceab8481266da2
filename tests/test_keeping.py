import json

import pytest

from aion import keeping
from aion.physics.builders import nano
from aion.physics.walrus import Walrus


@pytest.fixture
def folder(tmp_path):
    nano(["a"], dim=32, depth=1, middle=4).save_pretrained(tmp_path / "model")
    return tmp_path / "model"


def test_the_folder_says_what_is_in_it(folder):
    found, facts = keeping.read(folder, "walrus")
    assert found == folder
    assert facts["walrus"]["dim"] == 32
    assert set(facts["sha256"]) == {"walrus.safetensors"}
    assert {path.name for path in folder.iterdir()} == {"config.json", "walrus.safetensors"}


def test_what_was_altered_is_refused(folder):
    config = folder / "config.json"
    facts = json.loads(config.read_text())
    config.write_text(json.dumps({**facts, "walrus": {**facts["walrus"], "context": 5}}))
    with pytest.raises(ValueError, match="was altered"):
        Walrus.from_pretrained(folder)
    config.write_text("{}")
    with pytest.raises(ValueError, match="not the configuration of a model of flows"):
        Walrus.from_pretrained(folder)
    config.write_text(json.dumps(facts))
    weights = folder / "walrus.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x01")
    with pytest.raises(ValueError, match="altered or damaged"):
        Walrus.from_pretrained(folder)
    weights.unlink()
    with pytest.raises(FileNotFoundError):
        Walrus.from_pretrained(folder)
    with pytest.raises(FileNotFoundError):
        Walrus.from_pretrained(folder / "nowhere")


def test_a_folder_with_anything_else_is_kept(folder):
    (folder / "notes.txt").write_text("mine")
    with pytest.raises(FileExistsError, match="more than a model"):
        nano(["a"], dim=32, depth=1, middle=4).save_pretrained(folder)
    assert (folder / "notes.txt").read_text() == "mine"
