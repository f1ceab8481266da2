"""Ranks: two processes learn what one does, and neither waits for the other in vain."""

import json
import os
import socket
import subprocess
import sys

from pathlib import Path

import pytest
import torch

from aion.training import ranks

ROOT = Path(__file__).resolve().parents[1]

# A module with blocks, a part that some batches leave out, and draws of its own.
MODULE = """
import json, signal, sys, torch
from pathlib import Path
from torch import nn
from aion.training import ranks, train

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.inside = nn.Linear(5, 8)
        self.layers = nn.ModuleList(nn.Linear(8, 8) for _ in range(3))
        self.last = nn.ModuleDict({"even": nn.Linear(8, 2), "odd": nn.Linear(8, 2)})
        draws = torch.Generator().manual_seed(5)
        for p in self.parameters():
            nn.init.normal_(p, std=0.3, generator=draws)

    def loss(self, batch, generator):
        x, kind = batch
        h = self.inside(x)
        for layer in self.layers:
            h = h + torch.tanh(layer(h))
        noise = 0.1 * torch.randn(len(x), 2, generator=generator)
        error = (self.last[kind](h) - x[:, :2] ** 2 + noise).square().mean()
        return {"loss": error, kind: error}

class Whole(Net):  # every batch uses every parameter
    def loss(self, batch, generator):
        even, odd = (super(Whole, self).loss((batch[0], kind), generator)["loss"] for kind in ("even", "odd"))
        return {"loss": even + odd, "even": even}

def data(number):
    x = torch.randn(6, 5, generator=torch.Generator().manual_seed(number))
    return x, ("even", "odd")[number // 2 % 2]

OPTIONS = {"accumulate": 4, "log_every": 1, "lr": 0.02, "seed": 3}

def weights(module):
    return {k: v.tolist() for k, v in module.state_dict().items()}
"""


TRAIN = """
with ranks.joined() as device:
    for parallel in ("ddp", "fsdp", "zero2"):
        net = Net() if parallel == "ddp" else Whole()
        train(net, data, 6, log=f"{parallel}.jsonl", parallel=parallel, checkpoint=parallel, ema=0.9,
              activation_checkpointing=parallel == "fsdp", **OPTIONS)
        if ranks.rank() == 0:
            Path(f"{parallel}.json").write_text(json.dumps(weights(net)))
    # a checkpoint of two ranks, shared out again
    net = train(Whole(), data, 6, parallel="fsdp", checkpoint="fsdp", ema=0.9, **OPTIONS)
    said = ranks.everyone({"rank": ranks.rank(), "text": "x" * ranks.rank()})
    errors = []
    for attempt in (
        lambda: ranks.agree("recipe", ranks.rank()),
        lambda: train(Net(), data, 2, accumulate=3),
        lambda: train(Net(), lambda number: data(number // 4), 2, accumulate=4),
        lambda: train(Net(), data, 2, accumulate=2, identity=f"recipe {ranks.rank()}"),
        lambda: train(Net(), lambda number: (data(number)[0] * (float("inf") if number == 3 else 1), "odd"), 2,
                      accumulate=2),
    ):
        try:
            attempt()
        except (FloatingPointError, SystemExit, ValueError) as error:
            errors.append(str(error))
    def asked(number):  # one rank only, in its third step
        if number == 9:
            os.kill(os.getpid(), signal.SIGTERM)
        return data(number)
    try:
        train(Net(), asked, 6, checkpoint="asked", **OPTIONS)
    except SystemExit as end:
        report = {"said": said, "errors": errors, "again": weights(net), "asked": end.code}
    Path(f"rank{ranks.rank()}.json").write_text(json.dumps(report))
    def fail():
        with ranks.together():
            if ranks.rank() == 1:
                raise ValueError("a shard is missing here")
    fail()
"""


# Ranks forked by hand: what `torchrun` does, without loading torch three times.
FORK = """
import os
def fork():
    children = []
    for rank in range(2):
        children.append(os.fork())
        if not children[-1]:
            os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank))
            sys.stderr = open(f"rank{rank}.txt", "w", buffering=1)
            return
    for child in children:
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
    os._exit(0)
fork()
"""


@pytest.fixture(scope="module")
def pair(tmp_path_factory) -> tuple[Path, list[tuple[int, str]]]:
    """Trains with two ranks and returns the folder, and how each rank ended and what it said."""
    folder = tmp_path_factory.mktemp("ranks")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": "2", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", MODULE + FORK + TRAIN],
        cwd=folder,
        env={**os.environ, **environment, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=600,
        check=True,
    )
    ends = [int(code) for code in done.stdout.split()]
    return folder, [(code, (folder / f"rank{rank}.txt").read_text()) for rank, code in enumerate(ends)]


def close(one: dict, other: dict) -> None:
    for name, value in one.items():
        torch.testing.assert_close(torch.tensor(value), torch.tensor(other[name]), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("parallel", ["ddp", "fsdp", "zero2"])
def test_two_ranks_learn_what_one_process_does(pair, parallel, tmp_path):
    folder, ends = pair
    assert (folder / f"{parallel}.json").exists(), ends
    here: dict = {}
    exec(MODULE, here)
    net = here["Net" if parallel == "ddp" else "Whole"]()
    here["train"](net, here["data"], 6, log=tmp_path / "one.jsonl", ema=0.9, **here["OPTIONS"])
    one, two = (
        [json.loads(line) for line in path.read_text().splitlines()]
        for path in (tmp_path / "one.jsonl", folder / f"{parallel}.jsonl")
    )
    for a, b in zip(one, two, strict=True):
        assert a.keys() == b.keys()
        assert {k: v for k, v in b.items() if k != "seconds"} == pytest.approx(
            {k: v for k, v in a.items() if k != "seconds"}, rel=1e-5
        )
    close(here["weights"](net), json.loads((folder / f"{parallel}.json").read_text()))


def test_a_checkpoint_of_one_rank_number_serves_another(pair, tmp_path):
    folder, _ = pair
    here: dict = {}
    exec(MODULE, here)
    again = json.loads((folder / "rank1.json").read_text())["again"]
    net = here["train"](here["Whole"](), here["data"], 6, checkpoint=folder / "fsdp", ema=0.9, **here["OPTIONS"])
    close(here["weights"](net), again)


def test_ranks_that_disagree_are_told_so_together(pair):
    folder, _ = pair
    reports = [json.loads((folder / f"rank{rank}.json").read_text()) for rank in range(2)]
    assert reports[0]["said"] == reports[1]["said"] == [{"rank": 0, "text": ""}, {"rank": 1, "text": "x"}]
    assert reports[1]["errors"] == ["2"] * 5  # one rank says it
    errors = reports[0]["errors"]
    assert errors[0] == "the ranks disagree on the recipe: rank 0 has 0, rank 1 1"
    assert errors[1] == "accumulate: wanted a multiple of the number of ranks, 2, given 3"
    assert errors[2].startswith("ranks 0 and 1 train on the same batch: data(number) must")
    assert "disagree on the training: rank 0 has ['recipe 0'" in errors[3]
    assert "is inf at step 1" in errors[4] or "is nan at step 1" in errors[4]


def test_ranks_stop_together_if_one_is_asked_to(pair):
    folder, ends = pair
    assert [json.loads((folder / f"rank{rank}.json").read_text())["asked"] for rank in range(2)] == [0, 0]
    assert "stopped after step 3 of 6, which asked/checkpoint.safetensors holds: run the same command" in ends[0][1]
    assert "stopped" not in ends[1][1]


def test_the_first_rank_that_fails_says_why_and_the_others_end(pair):
    _, ends = pair
    assert ends[0][0] == 2
    assert "missing" not in ends[0][1]
    assert ends[1][0] == 1
    assert "ValueError: a shard is missing here" in ends[1][1]


def test_a_rank_that_dies_stops_the_others(tmp_path):
    (tmp_path / "script.py").write_text(
        f"{MODULE}\nimport os\n"
        "def dying(number):\n"
        "    if number == 5: os._exit(3)\n"
        "    return data(number)\n"
        "with ranks.joined(): train(Net(), dying, 50, accumulate=2)\n"
    )
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    done = subprocess.run(
        [*command, str(tmp_path / "script.py")],
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 1
    assert "exitcode  : 3" in done.stderr


def test_a_process_alone_says_everything_to_itself():
    assert (ranks.size(), ranks.rank()) == (1, 0)
    assert ranks.everyone({"a": 1}) == [{"a": 1}]
    ranks.agree("recipe", "x")
    with pytest.raises(ValueError, match="as it was"), ranks.together():
        raise ValueError("as it was")  # noqa: EM101
    value = torch.arange(3.0)
    assert torch.equal(ranks.total(value.clone()), value)
    assert torch.equal(ranks.full(value), value)
    with ranks.joined("cpu") as device:
        assert device == "cpu"
