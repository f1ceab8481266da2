"""Tokens kept on disk: the same tokens, every object once in an epoch, and shards that are whole and of this recipe."""

import pytest
import torch

from aion.recipes.kept import KeptTokens
from aion.tokens import TokenSequence

BATCH, BATCHES, GONE = 4, 12, 3  # of the objects those whose number GONE divides have nothing measured


def made(number: int) -> TokenSequence:
    """Makes objects that tell their number by their ids: object n has n % 5 + 1 tokens n, modality n % 3."""
    objects = [n for n in range(number * BATCH, (number + 1) * BATCH) if n % GONE]
    valid = torch.arange(6) < torch.tensor([[n % 5 + 1] for n in objects])
    ids = torch.tensor(objects)[:, None].expand(-1, 6) * valid
    position = torch.stack([ids + 0.25, torch.arange(6.0).expand(len(objects), 6)], -1)
    return TokenSequence(ids, ids % 3, position, valid)


@pytest.fixture
def small(monkeypatch):
    monkeypatch.setattr("aion.recipes.kept.SHARD", 3 * BATCH)


def kept(folder, make=made, identity="a", seed=0) -> KeptTokens:
    return KeptTokens(folder, identity, make, BATCH * BATCHES, BATCH, seed)


@pytest.mark.usefixtures("small")
def test_every_object_comes_once_in_an_epoch_with_its_tokens(tmp_path):
    tokens = kept(tmp_path / "tokens")
    assert len(list((tmp_path / "tokens").iterdir())) == 4
    everything = [n for n in range(BATCH * BATCHES) if n % GONE]
    assert len(tokens) == len(everything)
    turns = len(tokens) // BATCH
    orders = []
    for epoch in range(2):
        seen = []
        for place in range(turns):
            batch = tokens(epoch * turns + place)
            assert batch.ids.dtype == batch.modality.dtype == torch.int64
            for row in range(BATCH):
                number, valid = int(batch.ids[row, 0]), batch.valid[row]
                assert valid.sum() == number % 5 + 1
                assert (batch.ids[row][valid] == number).all()
                assert (batch.modality[row][valid] == number % 3).all()
                assert (batch.position[row][valid][:, 0] == number + 0.25).all()
                assert batch.position[row][valid][:, 1].tolist() == list(range(int(valid.sum())))
                seen.append(number)
        assert sorted(seen) == everything
        orders.append(seen)
    assert orders[0] != orders[1]


@pytest.mark.usefixtures("small")
def test_batches_of_another_size_are_epochs_of_their_own(tmp_path):
    tokens = kept(tmp_path / "tokens")
    turns = len(tokens) // 8
    seen = [int(row[0]) for place in range(turns) for row in tokens(place, 8).ids]
    assert len(seen) == len(set(seen)) == 8 * turns
    assert len(tokens(0, 10 * len(tokens))) == len(tokens)


@pytest.mark.usefixtures("small")
def test_what_is_on_disk_is_not_made_again_and_what_is_missing_is(tmp_path):
    folder = tmp_path / "tokens"
    first = kept(folder)
    lost = sorted(folder.iterdir())[1]
    before = lost.read_bytes()
    lost.unlink()
    numbers = []
    again = kept(folder, lambda number: numbers.append(number) or made(number))
    assert numbers == [3, 4, 5]
    assert lost.read_bytes() == before
    for number in range(20):
        assert torch.equal(first(number).ids, again(number).ids)


@pytest.mark.usefixtures("small")
def test_the_order_is_that_of_the_seed(tmp_path):
    one, same, other = (kept(tmp_path / "tokens", seed=seed) for seed in (0, 0, 1))
    assert torch.equal(one(0).ids, same(0).ids)
    assert not all(torch.equal(one(n).ids, other(n).ids) for n in range(3))


def test_what_cannot_be_used_is_said(tmp_path):
    with pytest.raises(ValueError, match="at least the 4 objects of a batch, given 3"):
        KeptTokens(tmp_path / "few", "a", made, 3, BATCH)
    folder = tmp_path / "tokens"
    kept(folder)
    with pytest.raises(ValueError, match="another recipe or other tokenizers"):
        kept(folder, identity="b")
    shard = next(folder.iterdir())
    shard.write_bytes(shard.read_bytes()[:100])
    with pytest.raises(ValueError, match="is damaged"):
        kept(folder)


def test_a_failure_while_tokens_are_made_leaves_no_shard(tmp_path):
    def broken(number: int) -> TokenSequence:
        if number == 1:
            msg = "no more"
            raise RuntimeError(msg)
        return made(number)

    with pytest.raises(RuntimeError, match="no more"):
        kept(tmp_path / "tokens", broken)
    assert not list((tmp_path / "tokens").iterdir())
