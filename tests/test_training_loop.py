"""The loop: it learns, logs, and resumes exactly."""

import json
import math
import os
import re
import signal
import subprocess
import sys

from pathlib import Path

import pytest
import torch

from safetensors.torch import load_file
from torch import nn

from aion.device import fast_dtype
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


# One process that loads torch and forks a training for each line of the story.
STORY = """
import os, signal, sys, torch
from torch import nn
from aion.device import fast_dtype
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

def run(folder, at=-1, sent=None):
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        def data(number):
            if number == at:
                os.write(writer, b"x")
            return torch.randn(16, 3, generator=torch.Generator().manual_seed(number))
        try:
            train(Line(), data, 60, accumulate=2, ema=0.9, ahead=2, log=f"{folder}/log.jsonl", log_every=1,
                  checkpoint=f"{folder}/c", checkpoint_every=7)
        except SystemExit as end:
            os._exit(end.code)
        os._exit(0)
    if sent:
        os.read(reader, 1)
        os.kill(child, sent)
    print(os.waitpid(child, 0)[1], flush=True)

run("whole")
for at in (21, 50, 97):
    run("killed", at, signal.SIGKILL)
run("killed")
run("asked", 40, signal.SIGTERM)
run("asked")
"""


@pytest.fixture(scope="module")
def story(tmp_path_factory):
    folder = tmp_path_factory.mktemp("story")
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[1]), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", STORY],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=600,
        check=True,
    )
    return folder, done


def curve(folder: Path) -> list[dict]:
    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if k != "seconds"} for line in lines]


@pytest.mark.parametrize("name", ["killed", "asked"])
def test_a_training_that_was_stopped_goes_on_as_if_nothing_had_happened(story, name):
    folder, _ = story
    assert len(curve(folder / "whole")) == 60
    assert curve(folder / name) == curve(folder / "whole")
    one, other = (load_file(folder / part / "c" / "checkpoint.safetensors") for part in ("whole", name))
    assert one.keys() == other.keys()
    assert all(torch.equal(value, other[key]) for key, value in one.items())


def test_a_training_that_is_asked_to_stop_ends_without_an_error_and_says_how_to_go_on(story):
    _, done = story
    assert done.stdout.split() == ["0", *["9"] * 3, "0", "0", "0"]
    [said] = [line for line in done.stderr.splitlines() if "stopped" in line]
    match = re.fullmatch(
        r"stopped after step (\d+) of 60, which asked/c/checkpoint\.safetensors holds: run the .*", said
    )
    assert 18 <= int(match[1]) <= 30


def test_without_a_checkpoint_folder_signals_are_not_touched():
    before = signal.getsignal(signal.SIGTERM)
    seen = []
    train(Line(), lambda step: seen.append(signal.getsignal(signal.SIGTERM)) or data(step), 2)
    assert seen == [before] * 2


@pytest.mark.parametrize("options", [{"ahead": 3}, {"activation_checkpointing": True}, {"compile": "eager"}])
def test_options_that_change_no_result(options):
    class Blocks(Line):
        def __init__(self) -> None:
            super().__init__()
            self.blocks = nn.ModuleList([nn.Linear(3, 3), nn.Linear(3, 3)])
            for parameter in self.blocks.parameters():
                nn.init.constant_(parameter, 0.3)

        def loss(self, batch, generator):
            for block in self.blocks:
                batch = torch.tanh(block(batch))
            return super().loss(batch, generator)

    plain = train(Blocks(), data, 8, accumulate=2)
    other = train(Blocks(), data, 8, accumulate=2, **options)
    for a, b in zip(plain.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(a, b)
    assert all("forward" not in vars(block) and block._compiled_call_impl is None for block in other.blocks)


def test_a_step_is_the_mean_over_its_batches():
    class Still(Line):
        def loss(self, batch, generator):
            return {"loss": (self.layer(batch) - batch.sum(1, keepdim=True)).square().mean()}

    halves = train(Still(), data, 5, accumulate=2)
    whole = train(Still(), lambda step: torch.cat([data(2 * step), data(2 * step + 1)]), 5)
    for a, b in zip(halves.parameters(), whole.parameters(), strict=True):
        torch.testing.assert_close(a, b)


def test_the_average_of_the_weights_is_released_when_asked_for(tmp_path):
    options = {"lr": 0.05, "checkpoint": tmp_path, "checkpoint_every": 5}
    averaged = train(Line(), data, 10, ema=0.5, **options)
    plain = train(Line(), data, 10, lr=0.05)
    assert not torch.equal(averaged.layer.weight, plain.layer.weight)
    stored = load_file(tmp_path / "checkpoint.safetensors")
    assert torch.equal(stored["average.layer.weight"], averaged.layer.weight)
    assert torch.equal(stored["module.layer.weight"], plain.layer.weight)


def test_bfloat16_on_request():
    seen = []

    class Seen(Line):
        def loss(self, batch, generator):
            seen.append(self.layer(batch).dtype)
            return super().loss(batch, generator)

    train(Seen(), data, 1, precision="bfloat16")
    train(Seen(), data, 1, precision="auto")
    assert seen == [torch.bfloat16, fast_dtype(torch.device("cpu"))]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"accumulate": 0}, "accumulate: wanted a whole number of at least 1, given 0"),
        ({"steps": -1}, "steps: wanted a whole number of at least 0, given -1"),
        ({"steps": 1e4}, "steps: wanted a whole number of at least 0, given 10000.0"),
        ({"log_every": 0}, "log_every: wanted a whole number of at least 1, given 0"),
        ({"checkpoint_every": 0}, "checkpoint_every: wanted a whole number of at least 1, given 0"),
        ({"ahead": -1}, "ahead: wanted a whole number of at least 0, given -1"),
        ({"lr": -1e-3}, r"lr: wanted a number from 0 to inf, given -0\.001"),
        ({"lr": math.nan}, "lr: wanted a number from 0 to inf, given nan"),
        ({"warmup": 2}, "warmup: wanted a number from 0 to 1, given 2"),
        ({"weight_decay": -1.0}, "weight_decay: wanted a number from 0 to inf"),
        ({"clip": 0.0}, r"clip: wanted a number above 0, given 0\.0"),
        ({"ema": 1.0}, "ema: wanted a decay of at least 0 and below 1, given 1.0"),
        ({"parallel": "both"}, "wanted parallel of .* given 'both'"),
        ({"precision": "float16"}, "given 'ddp' and 'float16'"),
        ({"compile": True}, "no nn.ModuleList"),
    ],
)
def test_bad_options_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        train(Line(), data, **{"steps": 1, **options})


def test_gradients_that_are_not_finite_stop_the_training_before_they_spoil_it():
    class Rooted(Line):
        def loss(self, batch, generator):
            return {"loss": self.layer.weight.sum().abs().sqrt()}  # 0, where the slope is infinite

    model = Rooted()
    with pytest.raises(FloatingPointError, match=r"the norm of the gradient is (inf|nan) at step 0"):
        train(model, data, 3)
    assert torch.equal(model.layer.weight, torch.zeros(1, 3))
