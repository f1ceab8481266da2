"""The loop: it learns, logs, and resumes exactly."""

import json

from itertools import pairwise

import pytest
import torch

from torch import nn

from aion.training import learning_rate, train


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
    assert json.loads((tmp_path / "log.jsonl").read_text().splitlines()[0]).keys() == {"step", "loss", "twice"}
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


def test_learning_rate_rises_then_falls():
    rates = [learning_rate(step, 100, 1.0) for step in range(100)]
    assert rates[0] == pytest.approx(0.1)
    assert max(rates) == rates[9] == 1.0
    assert all(a > b for a, b in pairwise(rates[10:]))
    assert rates[-1] < 0.02
