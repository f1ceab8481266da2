"""The pursuit: its sums stay those of the residual, whatever is taken."""

import pytest
import torch
import torch.nn.functional as F

from aion.tokenizers.pursuit import Dictionary, Pursuit

TILE, SIDE, TILES = 3, 7, 6
SIZES = torch.tensor([1.0, 2.0, 4.0])


def windows(maps: torch.Tensor) -> torch.Tensor:
    for dim in range(1, maps.ndim):
        maps = maps.unfold(dim, SIDE, TILE)
    return maps


def pixels(dim: int) -> int:
    return (TILES + 2 - 1) * TILE + SIDE  # two tiles beyond the end, where nothing is allowed


@pytest.fixture(params=[1, 2])
def case(request, generator):
    """Returns a dictionary, residual and weight of two maps, in one dimension and in two."""
    dim = request.param
    shapes = torch.randn(5, *[SIDE] * dim, generator=generator)
    shape = (2, *[pixels(dim)] * dim)
    residual, weight = torch.randn(shape, generator=generator) * 9, torch.rand(shape, generator=generator)
    return Dictionary(shapes, TILE, SIZES), residual, weight


def sums(dictionary: Dictionary, residual: torch.Tensor, weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    flat, dim = dictionary.shapes.flatten(1), residual.ndim - 1
    signal, power = (windows(x).flatten(-dim).flatten(0, -2) for x in (weight * residual, weight))
    return signal @ flat.T, power @ flat.T.square()


def start(dictionary: Dictionary, residual: torch.Tensor, weight: torch.Tensor) -> Pursuit:
    grid = windows(weight).shape[: residual.ndim]
    allowed = F.pad(torch.ones(2, *[TILES] * (residual.ndim - 1), dtype=torch.bool), (0, 2) * (residual.ndim - 1))
    return Pursuit(dictionary, *sums(dictionary, residual, weight), allowed.view(-1, 1), grid)


def test_windows_that_meet_are_around(case):
    assert case[0].around == 2


def test_sums_stay_those_of_the_residual(case):
    dictionary, residual, weight = case
    pursuit = start(*case)
    for _ in range(4):
        tile = pursuit.gain.view(2, -1).argmax(1) + torch.tensor([0, len(pursuit.gain) // 2])
        ids, row, *at = pursuit.best[tile], *torch.unravel_index(tile, pursuit.grid)
        expected = pursuit.gain[tile]
        before = (residual.square() * weight).flatten(1).sum(1)
        pursuit.take(tile, windows(weight)[(row, *at)])
        for k in range(2):
            place = (k, *(slice(int(x[k]) * TILE, int(x[k]) * TILE + SIDE) for x in at))
            residual[place] -= dictionary.amplitudes[ids[k] // 5] * dictionary.shapes[ids[k] % 5]
        drop = before - (residual.square() * weight).flatten(1).sum(1)
        torch.testing.assert_close(drop, expected, rtol=1e-3, atol=1e-2)
        assert (drop > 0).all()
        allowed, now = pursuit.root.amax(1) > 0, sums(dictionary, residual, weight)[0]
        torch.testing.assert_close(pursuit.match[allowed], now[allowed], rtol=1e-4, atol=1e-3)


def test_the_best_is_the_best_of_all_shapes_with_the_nearest_amplitude(case):
    dictionary, residual, weight = case
    pursuit = start(*case)
    match, power = sums(dictionary, residual, weight)
    allowed = pursuit.root.amax(1) > 0
    gains = 2 * dictionary.amplitudes[:, None, None] * match - dictionary.amplitudes[:, None, None] ** 2 * power
    shape, level = pursuit.best % 5, pursuit.best // 5
    assert shape[allowed].equal((match.square() / power).argmax(1)[allowed])
    chosen = gains[level, torch.arange(len(match)), shape]
    torch.testing.assert_close(pursuit.gain[allowed], chosen[allowed], rtol=1e-3, atol=1e-2)
    assert (pursuit.gain[~allowed] == 0).all()


def test_what_was_taken_is_listed_by_object_round_and_gain_within_the_budget(case):
    pursuit, windowed = start(*case), windows(case[2])
    first, second = torch.tensor([len(pursuit.gain) // 2, 0]), torch.tensor([3, 5])
    for tile in (first, second):
        gain = pursuit.gain[tile]
        pursuit.take(tile, windowed[torch.unravel_index(tile, pursuit.grid)])
    owner, best_first = torch.tensor([1, 0]), second[gain.argsort(descending=True)].tolist()
    objects, tiles, _ = pursuit.taken(owner, torch.tensor([5, 5]))
    assert objects.tolist() == [0, 1, 1, 1]
    assert tiles.tolist() == [*first.tolist(), *best_first]
    assert pursuit.taken(owner, torch.tensor([5, 2]))[1].tolist() == [*first.tolist(), best_first[0]]
    assert pursuit.taken(owner, torch.tensor([0, 0]))[0].numel() == 0
