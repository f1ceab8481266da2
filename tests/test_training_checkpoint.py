"""Checkpoints: whole or not at all, and of this training only."""

import resource

import pytest
import torch

from safetensors.torch import load_file, save_file
from torch import nn

from aion.training import elapsed, train

NAME = "checkpoint.safetensors"


class Wide(nn.Module):
    """Is large enough for its checkpoint to fill a small disk."""

    def __init__(self, width: int = 64) -> None:
        super().__init__()
        self.layer = nn.Linear(width, width)

    def loss(self, batch, generator):
        return {"loss": (self.layer(batch) - batch).square().mean()}


def data(step: int) -> torch.Tensor:
    return torch.randn(4, 64, generator=torch.Generator().manual_seed(step))


def test_a_full_disk_leaves_the_last_good_checkpoint(tmp_path):
    train(Wide(), data, 5, checkpoint=tmp_path, identity="wide")
    before = (tmp_path / NAME).read_bytes()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (8192, hard))  # what a full disk does: writing fails half-way
    try:
        with pytest.raises(OSError, match=r"checkpoint of step 7 could not be written .*; that of step 5 stays"):
            train(Wide(), data, 20, checkpoint=tmp_path, checkpoint_every=7, identity="wide")
        with pytest.raises(OSError, match=r"checkpoint of step 7 could not be written .*; there is none yet"):
            train(Wide(), data, 20, checkpoint=tmp_path / "new", checkpoint_every=7)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert (tmp_path / NAME).read_bytes() == before
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == [NAME]
    train(Wide(), data, 20, checkpoint=tmp_path, checkpoint_every=7, identity="wide")
    assert elapsed(tmp_path) >= 0


def test_a_checkpoint_of_another_training_is_refused(tmp_path):
    train(Wide(), data, 5, checkpoint=tmp_path, identity="wide")
    with pytest.raises(
        ValueError, match=r"of another training: wanted at most step 5 of deep, given step 5 of wide: ch"
    ):
        train(Wide(), data, 5, checkpoint=tmp_path, identity="deep")
    with pytest.raises(ValueError, match="wanted at most step 4 of wide, given step 5 of wide"):
        train(Wide(), data, 4, checkpoint=tmp_path, identity="wide")


def test_a_damaged_checkpoint_or_one_of_another_version_is_refused(tmp_path):
    train(Wide(), data, 2, checkpoint=tmp_path)
    path = tmp_path / NAME
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match=r"checkpoint\.safetensors is damaged .*: remove it to begin anew"):
        train(Wide(), data, 4, checkpoint=tmp_path)
    save_file(load_file_bytes(whole, tmp_path), path, metadata={"step": "2"})
    with pytest.raises(ValueError, match="is no checkpoint of this version of aion"):
        train(Wide(), data, 4, checkpoint=tmp_path)


def load_file_bytes(content: bytes, folder) -> dict[str, torch.Tensor]:
    (folder / "copy").write_bytes(content)
    return load_file(folder / "copy")


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_all_that_is_remembered_is_in_it(tmp_path, optimizer):
    train(Wide(), data, 2, checkpoint=tmp_path, ema=0.9, optimizer=optimizer)
    names = set(load_file(tmp_path / NAME))
    kinds = {"adamw": {"exp_avg", "exp_avg_sq", "step"}, "muon": {"momentum_buffer"}}[optimizer]
    assert {f"optimizer.{kind}.layer.weight" for kind in kinds} <= names
    assert {"module.layer.weight", "average.layer.weight", "optimizer.exp_avg.layer.bias"} <= names
