"""The journal: what is made again is not noted twice."""

import json
import sys
import types

from aion.training.journal import Journal


def steps(path):
    return [json.loads(line)["step"] for line in path.read_text().splitlines()]


def test_steps_that_are_made_again_are_noted_once(tmp_path):
    path = tmp_path / "runs" / "log.jsonl"
    journal = Journal(path)
    for step in range(5):
        journal.write(step, {"loss": 1 / 3})
    with path.open("a") as file:
        file.write('{"step": 5, "lo')  # killed while it wrote
    journal = Journal(path, start=3)
    journal.write(3, {"loss": 0.5})
    assert steps(path) == [0, 1, 2, 3]
    assert json.loads(path.read_text().splitlines()[0]) == {"step": 0, "loss": 0.333333333}
    assert [p.name for p in path.parent.iterdir()] == ["log.jsonl"]


def test_a_new_training_does_not_keep_an_old_journal(tmp_path):
    (tmp_path / "log.jsonl").write_text('{"step": 0}\n')
    Journal(tmp_path / "log.jsonl").close()
    assert steps(tmp_path / "log.jsonl") == []


def test_without_a_path_nothing_is_written(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    journal = Journal(None)
    journal.write(0, {"loss": 1.0})
    journal.close()
    assert not list(tmp_path.iterdir())


def test_tensorboard_is_written_to_where_it_is_installed(tmp_path, monkeypatch):
    seen = []

    class SummaryWriter:
        def __init__(self, folder, purge_step):
            seen.append((folder, purge_step))

        def add_scalar(self, *arguments):
            seen.append(arguments)

        def close(self):
            seen.append("closed")

    module = types.ModuleType("torch.utils.tensorboard")
    module.SummaryWriter = SummaryWriter
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", module)
    journal = Journal(tmp_path / "spectrum.jsonl", start=4)
    journal.write(4, {"loss": 1.0, "lr": 0.1})
    journal.close()
    assert seen == [(str(tmp_path / "tensorboard" / "spectrum"), 4), ("loss", 1.0, 4), ("lr", 0.1, 4), "closed"]
