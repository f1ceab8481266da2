import math

import pytest
import torch

from aion.sky.draws import Draws

INDEX = torch.arange(2000)


def test_draws_depend_on_nothing_but_seed_object_and_name():
    whole = Draws(7, INDEX)
    few = Draws(7, torch.tensor([1999, 3, 3]))
    for draw in ("uniform", "normal"):
        a, b = (getattr(d, draw)("x", count=5) for d in (whole, few))
        assert torch.equal(a[[1999, 3, 3]], b)
        assert torch.equal(getattr(whole, draw)("x")[[1999, 3, 3]], getattr(few, draw)("x"))
    assert torch.equal(whole.noise("x", 1001)[[1999, 3, 3]], few.noise("x", 1001))
    assert torch.equal(whole[torch.tensor([5, 9])].uniform("x"), whole.uniform("x")[[5, 9]])
    assert torch.equal(whole.of("y").uniform("x")[[3]], Draws(7, torch.tensor([3])).of("y").uniform("x"))


def test_draws_start_alike_whatever_their_number():
    draws = Draws(0, INDEX)
    assert torch.equal(draws.uniform("x", count=9)[:, :4], draws.uniform("x", count=4))
    assert torch.equal(draws.uniform("x"), draws.uniform("x", count=4)[:, 0])


@pytest.mark.parametrize(
    "other",
    [Draws(1, INDEX), Draws(-1, INDEX), Draws(0, INDEX + 2000), Draws(0, -INDEX - 1), Draws(0, INDEX).of("x")],
    ids=["seed", "negative seed", "objects", "negative objects", "of"],
)
def test_other_seeds_objects_and_users_are_independent(other):
    a, b = Draws(0, INDEX).normal("x"), other.normal("x")
    assert abs((a * b).mean()) < 4 / math.sqrt(len(a))
    assert (a != b).all()


def test_names_and_counters_are_independent():
    draws = Draws(0, INDEX)
    table = torch.cat([draws.normal("x", 6), draws.normal("y", 6), draws.noise("x", 6).double()], 1)
    correlation = torch.corrcoef(table.T) - torch.eye(18)
    assert correlation.abs().max() < 5 / math.sqrt(len(INDEX))
    along = draws.noise("z", 2000)
    assert abs((along[:-1] * along[1:]).mean()) < 5 / math.sqrt(along.numel())  # one object and the next
    assert abs((along[:, :-1] * along[:, 1:]).mean()) < 5 / math.sqrt(along.numel())  # one pixel and the next


def test_distributions():
    draws = Draws(3, INDEX)
    uniform = draws.uniform("u", -2.0, 3.0, count=100)
    assert uniform.min() >= -2
    assert uniform.max() < 3
    histogram = torch.histc((uniform + 2) / 5, 50, 0, 1)
    assert ((histogram - 4000) ** 2 / 4000).sum() < 49 + 5 * math.sqrt(98)
    for normal in (draws.normal("n", 100), draws.noise("n", 100).double()):
        assert normal.isfinite().all()
        for power, moment in ((1, 0), (2, 1), (3, 0), (4, 3)):
            assert (normal**power).mean().item() == pytest.approx(moment, abs=0.1)
        within = (normal.abs() < 1.959964).double().mean().item()
        assert within == pytest.approx(0.95, abs=0.003)


def test_rare_events_have_their_chance_and_are_those_of_the_object():
    draws = Draws(0, torch.arange(400))
    chance = torch.linspace(0.0, 0.01, 400, dtype=torch.float64)
    seen = draws.rare("bad", 5000, chance, 0.01)
    assert not seen[0].any()
    found = seen.double().mean(1)
    assert (found - chance).abs().max() < 5 * (0.01 / 5000) ** 0.5
    assert found[200:].mean().item() == pytest.approx(chance[200:].mean().item(), rel=0.03)
    rows = torch.tensor([399, 5])
    assert torch.equal(draws[rows].rare("bad", 5000, chance[rows], 0.01), seen[rows])
    assert not torch.equal(seen[398], seen[399])
