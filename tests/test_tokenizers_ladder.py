"""The ladder: octaves, windows, and sums over pixels."""

import pytest
import torch

from aion.tokenizers.ladder import REACH, Ladder

OCTAVES = (-2, 0, 2, 4)


@pytest.fixture
def ladder():
    return Ladder(2992.0, 17540.0, 0.005, 16, OCTAVES)


def octave(ladder: Ladder, wavelength: torch.Tensor, measured: torch.Tensor | None = None) -> int:
    measured = torch.ones(1, len(wavelength), dtype=torch.bool) if measured is None else measured[None]
    return ladder.octaves[int(ladder.choose(wavelength[None].float(), measured))]


def log_grid(start: float, stop: float, spacing: float) -> torch.Tensor:
    count = int(torch.tensor(stop / start, dtype=torch.float64).log() / spacing)
    return start * (torch.arange(count, dtype=torch.float64) * spacing).exp()


def desi() -> torch.Tensor:
    arms = ((3600.0, 2751), (5760.0, 2326), (7520.0, 2881))
    return torch.cat([start + 0.8 * torch.arange(n, dtype=torch.float64) for start, n in arms]).sort().values


INSTRUMENTS = {
    "desi": (desi(), 0),
    "sdss": (log_grid(3600, 10300, 2.3026e-4), 0),
    "miles": (3541 + 0.9 * torch.arange(4300, dtype=torch.float64), 0),
    "gaia xp": (3360 + 20 * torch.arange(343, dtype=torch.float64), -2),
    "apogee": (log_grid(15140, 16960, 1.38e-5), 4),
    "galah": (torch.cat([torch.linspace(a, b, 4096) for a, b in ((4713, 4903), (5648, 5873), (6478, 6737))]), 4),
    "finer than anything": (torch.linspace(5000, 5010, 20_000, dtype=torch.float64), 4),
    "coarser than anything": (torch.linspace(3000, 17500, 100, dtype=torch.float64), -2),
}


@pytest.mark.parametrize("name", INSTRUMENTS)
def test_instruments_alike_share_an_octave(ladder, name):
    wavelength, expected = INSTRUMENTS[name]
    assert octave(ladder, wavelength) == expected


@pytest.mark.parametrize("name", INSTRUMENTS)
def test_masks_and_padding_do_not_change_the_octave(ladder, name, generator):
    wavelength, expected = INSTRUMENTS[name]
    measured = torch.rand(len(wavelength), generator=generator) < 0.5
    padded = torch.cat([wavelength, wavelength[-1].expand(30_000)])
    mask = torch.cat([measured, torch.zeros(30_000, dtype=torch.bool)])
    assert octave(ladder, padded, mask) == expected


def test_one_octave_is_taken_by_every_spectrum():
    one = Ladder(3000.0, 9000.0, 0.005, 16, (0,))
    assert {octave(one, wavelength) for wavelength, _ in INSTRUMENTS.values()} == {0}


@pytest.mark.parametrize("o", OCTAVES)
def test_octaves_cover_the_same_wavelengths(ladder, o):
    ends = torch.tensor([2992.01, ladder.stop - 1, 2991.9, ladder.stop + 200])
    assert ladder.nodes(ends, o)[1].tolist() == [True, True, False, False]


@pytest.mark.parametrize("o", OCTAVES)
def test_a_window_holds_what_is_needed_and_keeps_arms_apart(ladder, o):
    needed = torch.zeros(2, ladder.total(o), dtype=torch.bool)
    needed[0, 10:13] = needed[1, 12:15] = True
    needed[1, 60:62] = True
    window = ladder.window(o, needed)
    assert window.numbers.tolist() == [*range(10, 15 + REACH), 60, 61]
    width = ladder.step * 2.0**-o
    middle = 2992.0 * torch.exp((torch.tensor([9, 10, 14, 40, 60, 61, 62], dtype=torch.float64) + 0.5) * width)
    node, inside = window.within(ladder.nodes(middle[None], o)[0])
    assert inside[0].tolist() == [False, True, True, False, True, True, False]
    slot = (node[inside] / ladder.cells).floor().long()
    assert window.numbers[slot].tolist() == [10, 14, 60, 61]
    torch.testing.assert_close(window.base[slot], window.numbers[slot] / 2.0**o)


def test_sharing_keeps_sums_and_reading_keeps_straight_lines(ladder, generator):
    needed = torch.zeros(1, ladder.total(0), dtype=torch.bool)
    needed[0, 20:30] = True
    window = ladder.window(0, needed)
    node = torch.rand(1, 500, generator=generator, dtype=torch.float64) * 158 + 1
    value = torch.rand(1, 500, generator=generator)
    used = torch.rand(1, 500, generator=generator) < 0.7
    for fine in (1, 4):
        (total,) = window.share(node, used, fine, value)
        assert total.shape == (1, 160 * fine)
        torch.testing.assert_close(total.sum(), value[used].sum())
    line = (torch.arange(160) + 0.5)[None]
    everywhere = torch.ones(1, 10, dtype=torch.bool)
    read, rung, known = window.read(line, everywhere, node, torch.ones_like(used))
    torch.testing.assert_close(read, node.float(), rtol=1e-4, atol=1e-4)
    assert torch.equal(rung, (node / 16).long())
    assert known.all()


def test_a_cell_of_a_rung_without_token_is_not_read(ladder):
    needed = torch.zeros(1, ladder.total(0), dtype=torch.bool)
    needed[0, :3] = True
    window = ladder.window(0, needed)
    cells = torch.ones(1, 48)
    cells[:, 16:32] = 1e6
    node = torch.linspace(0.1, 47.9, 300, dtype=torch.float64)[None]
    measured = torch.tensor([[True, False, True]])
    value, rung, known = window.read(cells, measured, node, torch.ones_like(node, dtype=torch.bool))
    assert torch.equal(known, measured.gather(1, rung))
    torch.testing.assert_close(value[known], torch.ones(int(known.sum())))


@pytest.mark.parametrize(
    "arguments", [(0.0, 9000.0, 0.005, 16, (0,)), (9000.0, 3000.0, 0.005, 16, (0,)), (3e3, 9e3, 0.005, 16, ())]
)
def test_impossible_ladders_are_refused(arguments):
    with pytest.raises(ValueError, match="wanted 0 < start < stop"):
        Ladder(*arguments)
