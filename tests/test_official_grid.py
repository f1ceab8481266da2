"""Cutting to fixed grids, and finding tokens on them."""

import pytest
import torch

from aion.official.grid import chunked, place, places, window
from aion.tokens import Tokens


@pytest.mark.parametrize("size", [1, 4, 5, 8, 11, 12])
@pytest.mark.parametrize("wanted", [1, 4, 5, 8])
def test_windows_are_central_and_one_undoes_the_other(size, wanted):
    value = torch.arange(1.0, size * size + 1).reshape(1, 1, size, size)
    cut = window(value, (wanted, wanted))
    assert cut.shape == (1, 1, wanted, wanted)
    back = window(cut, (size, size))
    if wanted >= size:
        assert torch.equal(back, value)
        assert cut.sum() == value.sum()
    else:
        start = size // 2 - wanted // 2
        assert cut[0, 0, 0, 0] == value[0, 0, start, start]
        assert torch.equal(back[back > 0], cut.flatten())
        assert torch.equal(back[back > 0], value[back > 0])


def test_windows_fill_with_what_is_asked_for():
    assert window(torch.ones(1, 1, 2), (1, 4), torch.nan).isnan().tolist() == [[[True, False, False, True]]]
    assert window(torch.ones(1, 2, 2, dtype=torch.bool), (4, 2)).tolist()[0][0] == [False, False]


def test_tokens_find_their_place_in_any_order():
    grid = (3, 4)
    ids = torch.arange(24).reshape(2, 12)
    valid = ids % 5 != 0
    tokens = Tokens(ids, places(grid, ids), valid)
    order = torch.randperm(12)
    shuffled = Tokens(ids[:, order], tokens.position[:, order], valid[:, order])
    for given in (tokens, shuffled):
        placed, known = place(given, grid)
        assert torch.equal(known, valid)
        assert torch.equal(placed, ids.masked_fill(~valid, 0))
    few, known = place(Tokens(ids[:, :2], tokens.position[:, :2], valid[:, :2]), grid)
    assert few.shape == known.shape == (2, 12)
    assert known.sum() == valid[:, :2].sum()


def test_a_token_beyond_the_grid_is_refused():
    ids = torch.zeros(1, 4, dtype=torch.long)
    tokens = Tokens(ids, places((2, 2), ids), torch.ones(1, 4, dtype=torch.bool))
    with pytest.raises(ValueError, match=r"on a grid of 1 x 4, given one at \(1.0, 0.0\)"):
        place(tokens, (1, 4))


@pytest.mark.parametrize("objects", [1, 4, 9])
def test_pieces_join_to_the_whole(objects):
    a, b = torch.rand(objects, 3), torch.rand(objects, 3)
    assert torch.equal(chunked(torch.add, a, b), a + b)
