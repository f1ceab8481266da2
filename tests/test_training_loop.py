"""The loop: it learns, logs, and resumes exactly."""

import json
import os
import re
import signal
import subprocess
import sys

from pathlib import Path

import pytest
import torch

from safetensors import safe_open
from safetensors.torch import load_file
from torch import nn

from aion.training import train


class Line(nn.Module):
    """Fits a line to noisy batches, with a draw of its own in the loss."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 1)
        nn.init.zeros_(self.layer.weight)
        nn.init.zeros_(self.layer.bias)

    def loss(self, batch, generator):
        noise = 0.01 * torch.randn(batch.shape[0], 1, generator=generator)
        error = (self.layer(batch) - batch.sum(1, keepdim=True) + noise).square().mean()
        return {"loss": error, "twice": 2 * error}


def data(step: int) -> torch.Tensor:
    return torch.randn(16, 3, generator=torch.Generator().manual_seed(step))


def losses(path):
    return [json.loads(line)["loss"] for line in path.read_text().splitlines()]


def test_it_learns_and_logs_every_term(tmp_path):
    model = train(Line(), data, 200, lr=0.05, log=tmp_path / "log.jsonl", log_every=10)
    curve = losses(tmp_path / "log.jsonl")
    assert curve[-1] < 0.02 * curve[0]
    torch.testing.assert_close(model.layer.weight, torch.ones(1, 3), atol=0.1, rtol=0)
    assert json.loads((tmp_path / "log.jsonl").read_text().splitlines()[0]).keys() == {
        "step",
        "loss",
        "twice",
        "lr",
        "gradient",
        "seconds",
    }
    assert not model.training


def test_resuming_twice_gives_the_same_weights_and_curve(tmp_path):
    whole = train(Line(), data, 60, log=tmp_path / "whole.jsonl", log_every=1)

    class Stop(Exception):
        pass

    def stopping(at):
        def inner(step):
            if step == at:
                raise Stop
            return data(step)

        return inner

    options = {"checkpoint": tmp_path / "c", "checkpoint_every": 10, "log": tmp_path / "parts.jsonl", "log_every": 1}
    for at in (25, 47):
        with pytest.raises(Stop):
            train(Line(), stopping(at), 60, **options)
    parts = train(Line(), data, 60, **options)
    for a, b in zip(whole.parameters(), parts.parameters(), strict=True):
        assert torch.equal(a, b)
    lines = [json.loads(line) for line in (tmp_path / "parts.jsonl").read_text().splitlines()]
    curve = {line["step"]: line["loss"] for line in lines}
    assert [curve[step] for step in range(60)] == losses(tmp_path / "whole.jsonl")
    assert sorted(p.name for p in (tmp_path / "c").iterdir()) == ["checkpoint.safetensors"]


def test_a_loss_that_is_not_finite_stops_the_training():
    with pytest.raises(FloatingPointError, match="the loss is nan at step 3: lower lr"):
        train(Line(), lambda step: data(step) * (float("nan") if step == 3 else 1), 10)


def test_norms_and_biases_are_not_decayed():
    model = nn.Module()
    model.matrix, model.vector = nn.Parameter(torch.ones(2, 2)), nn.Parameter(torch.ones(2))
    model.loss = lambda batch, generator: {"loss": 0 * (model.matrix.sum() + model.vector.sum())}
    train(model, lambda step: None, 20, lr=0.1, weight_decay=0.5)
    assert (model.matrix < 0.9).all()
    assert torch.equal(model.vector, torch.ones(2))


LOOP = """
import sys, torch
from torch import nn
from aion.training import train

class Line(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList([nn.Linear(3, 1)])
        for p in self.parameters():
            nn.init.zeros_(p)

    def loss(self, batch, generator):
        noise = 0.1 * torch.randn(len(batch), 1, generator=generator)
        return {"loss": (self.layers[0](batch) - batch.sum(1, keepdim=True) + noise).square().mean()}

def data(number):
    if number == int(sys.argv[2]):
        print("here", flush=True)
    return torch.randn(16, 3, generator=torch.Generator().manual_seed(number))

folder = sys.argv[1]
train(Line(), data, 400, accumulate=2, ema=0.9, ahead=2, log=f"{folder}/log.jsonl", log_every=1,
      checkpoint=f"{folder}/c", checkpoint_every=7)
"""


def start(folder: Path, at: int) -> subprocess.Popen:
    """Starts a training in a process of its own, which says so when it asks for a batch."""
    folder.mkdir(exist_ok=True)
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[1]), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [sys.executable, "-c", LOOP, str(folder), str(at)],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def curve(folder: Path) -> list[dict]:
    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if k != "seconds"} for line in lines]


def test_a_training_killed_at_any_moment_goes_on_as_if_nothing_had_happened(tmp_path):
    with start(tmp_path / "whole", -1) as whole:
        for at in (90, 260, 610):
            with start(tmp_path / "parts", at) as process:
                assert process.stdout.readline() == "here\n"
                process.kill()
            assert process.returncode == -signal.SIGKILL
        with start(tmp_path / "parts", -1) as last:
            pass
    assert (last.returncode, whole.returncode) == (0, 0)
    assert len(curve(tmp_path / "whole")) == 400
    assert curve(tmp_path / "parts") == curve(tmp_path / "whole")
    one, other = (load_file(tmp_path / name / "c" / "checkpoint.safetensors") for name in ("whole", "parts"))
    assert one.keys() == other.keys()
    assert all(torch.equal(value, other[name]) for name, value in one.items())


def test_a_training_that_is_asked_to_stop_writes_a_checkpoint_and_says_how_to_go_on(tmp_path):
    with start(tmp_path, 90) as process:
        process.stdout.readline()
        process.terminate()
        _, said = process.communicate(timeout=60)
    assert process.returncode == 0
    match = re.search(r"stopped after step (\d+) of 400, which .*checkpoint\.safetensors holds: run the same", said)
    assert match
    with safe_open(tmp_path / "c" / "checkpoint.safetensors", framework="pt") as file:
        assert file.metadata()["step"] == match[1]
    assert len(curve(tmp_path)) == int(match[1])
