"""Where tokens stand, and putting groups together."""

import torch

from aion.tokenizers.ladder import Ladder
from aion.tokenizers.slots import ATOM, CODE, SCALE, SWELL, collect, compact, slots, stands
from aion.tokens import Tokens, join


def test_compacting_keeps_order_and_cuts_padding(generator):
    valid = torch.rand(7, 11, generator=generator) < 0.5
    valid[3] = False
    value = torch.arange(77).view(7, 11)
    kept, packed, twice = compact(valid, value, torch.stack([value, -value], dim=-1))
    assert kept.shape[1] == valid.sum(1).max()
    for i in range(7):
        assert packed[i, kept[i]].tolist() == value[i, valid[i]].tolist()
        assert twice[i, kept[i], 1].tolist() == (-value[i, valid[i]]).tolist()


def test_slots_stand_where_kinds_are_told_apart():
    ladder = Ladder(3000.0, 9000.0, 0.005, 16, (-2, 0, 2, 4))
    for octave in ladder.octaves:
        measured = torch.zeros(2, ladder.total(octave), dtype=torch.bool)
        measured[0, 3:9] = measured[1, 20] = True
        window = ladder.window(octave, measured)
        inside = measured[:, window.numbers]
        tokens = slots(window, inside, inside.long() * 7, torch.tensor([30, 31]))
        assert tokens.valid.sum(1).tolist() == [7, 2]
        assert stands(tokens.position)[0].tolist() == [SCALE] + [CODE] * 6
        assert (tokens.position[0, 1:, 1] * 2.0**octave).tolist() == [3, 4, 5, 6, 7, 8]
        assert tokens.ids[:, 0].tolist() == [30, 31]
    assert stands(torch.tensor([[2.0, 5.0], [9.0, 5.0]])).tolist() == [ATOM, ATOM]
    assert stands(torch.tensor([[-1.0, 16.0], [-7.0, 0.0]])).tolist() == [SWELL, SWELL]


def test_groups_return_to_their_rows(generator):
    def tokens(rows: int, length: int) -> Tokens:
        ids = torch.randint(1, 9, (rows, length), generator=generator)
        return Tokens(ids, torch.rand(rows, length, 2, generator=generator), torch.ones(rows, length, dtype=torch.bool))

    one, other = tokens(2, 3), join(tokens(1, 4), tokens(1, 1))
    whole = collect([(torch.tensor([4, 1]), one), (torch.tensor([0]), other)], 6, torch.device("cpu"))
    assert whole.valid.sum(1).tolist() == [5, 3, 0, 0, 3, 0]
    assert torch.equal(whole.ids[[4, 1], :3], one.ids)
    assert torch.equal(whole.position[0, :5], other.position[0])
    assert collect([], 2, torch.device("cpu")).valid.tolist() == [[False], [False]]
