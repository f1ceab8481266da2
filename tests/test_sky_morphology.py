import math

import pytest
import torch

from aion.sky import Sky
from aion.sky.cameras import LEGACY
from aion.sky.draws import Draws
from aion.sky.images import observe_image
from aion.sky.morphology import arms, bar, disc_plane, draw_shape, ring, tail
from aion.sky.templates import Templates

TEMPLATES = Templates.load()
DRAWS = Draws(0, torch.arange(12))
NAMES = ("radius", "e1", "e2", "bulge", "arms", "ring", "bar", "companion")


def shape(**given: float) -> dict[str, torch.Tensor]:
    value = {**dict.fromkeys(NAMES, 0.0), "radius": 2.5, "bulge": 0.1, **given}
    return {name: torch.full((12,), number, dtype=torch.float64) for name, number in value.items()}


def image(**given: float) -> torch.Tensor:
    true = torch.full((12, 4), 1e4, dtype=torch.float64)
    star = torch.zeros(12, dtype=torch.bool)
    return observe_image(true, shape(**given), star, DRAWS, TEMPLATES, noise=False)[0]


def plane(**given: float) -> tuple[torch.Tensor, torch.Tensor]:
    north, east = LEGACY.axes(DRAWS)
    own = {name: value.float() for name, value in shape(**given).items()}
    return disc_plane(north[:, :, None], east[:, None, :], own)


def test_the_disc_is_stretched_along_its_minor_axis():
    """Axis ratio 0.5 north-south: half a radius east is one radius out in the plane."""
    e = (1 - 0.5) / (1 + 0.5)
    own = {name: torch.tensor([v], dtype=torch.float64) for name, v in {"radius": 2.0, "e1": e, "e2": 0.0}.items()}
    at = torch.tensor([[[0.0], [2.0]]], dtype=torch.float64), torch.tensor([[[0.0, 1.0]]], dtype=torch.float64)
    distance = torch.sqrt(sum(x**2 for x in disc_plane(*at, own)))
    expected = torch.tensor([[[0.0, 1.0], [1.0, math.sqrt(2)]]], dtype=torch.float64)
    torch.testing.assert_close(distance, expected)


@pytest.mark.parametrize("pattern", [arms, bar, ring, tail])
def test_patterns_lie_between_0_and_1_and_differ_from_galaxy_to_galaxy(pattern):
    value = pattern(DRAWS, *plane())
    assert value.shape == (12, 64, 64)
    assert value.min() >= 0
    assert value.max() <= 1
    assert (value > 0.5).flatten(1).any(1).all()
    assert (value > 0.5).float().mean() < 0.6
    assert not torch.equal(value[0], value[1])
    torch.testing.assert_close(pattern(DRAWS[torch.tensor([7])], *(x[7:8] for x in plane())), value[7:8])


@pytest.mark.parametrize(("name", "share"), [("arms", 0.5), ("ring", 0.35), ("bar", 0.3), ("companion", 0.4)])
def test_patterns_move_light_and_keep_it(name, share):
    plain, marked = image(), image(**{name: share})
    whole = plain[:, 1].sum((1, 2))
    torch.testing.assert_close(marked[:, 1].sum((1, 2)), whole, rtol=0.06 if name == "companion" else 0.01, atol=0)
    moved = (marked[:, 1] - plain[:, 1]).abs().sum((1, 2)) / whole
    assert (moved > 0.2 * share).all()
    assert (marked > 0).all()


def test_arms_are_brighter_and_bluer_where_the_map_has_them():
    plain, marked = image(), image(arms=0.5)
    inside = arms(DRAWS.of("morphology"), *plane()) > 0.5
    for row in range(12):
        gain = marked[row] / plain[row]
        assert gain[1][inside[row]].mean() > 1.1 * gain[1][~inside[row]].mean()
        bluer = gain[0] / gain[2]
        assert bluer[inside[row]].mean() > 1.02 * bluer[~inside[row]].mean()


def test_shapes_are_as_often_barred_and_armed_as_counted():
    n = 8000
    draws = Draws(1, torch.arange(n))
    z = torch.full((n,), 0.05, dtype=torch.float64)
    quiet = draws.uniform("quiet") < 0.4
    drawn = draw_shape(draws, z, z * 0 - 21, quiet)
    assert (drawn["arms"] > 0)[quiet].sum() == 0
    assert 0.5 < (drawn["arms"] > 0)[~quiet].double().mean() < 0.8
    assert 0.25 < (drawn["bar"] > 0)[~quiet].double().mean() < 0.45
    assert 0.03 < (drawn["companion"] > 0).double().mean() < 0.09
    assert ((drawn["arms"] > 0) & (drawn["ring"] > 0)).sum() == 0
    dwarfs = draw_shape(draws, z, z * 0 - 15, quiet)
    assert (dwarfs["arms"] > 0).double().mean() < 0.05
    for shares in (drawn["arms"] + drawn["bar"], drawn["ring"] + drawn["bar"], drawn["companion"]):
        assert shares.max() * 1.3 < 1.2


def test_maps_of_the_sky_are_of_those_that_have_arms_and_bars():
    names = ["legacysurvey_arms_map", "legacysurvey_bar_map"]
    sky = Sky(modalities=names, complete=True, max_redshift=0.1)
    seen, labels = sky.observe(range(60)), sky.labels(range(60))
    for name, label in zip(names, ("arms", "bar"), strict=True):
        has = labels[label].nan_to_num(0) > 0
        marked = (seen[name].value > 0.05).flatten(1).any(1)
        assert not marked[~has].any()
        assert marked[has].float().mean() > 0.5
        assert has.sum() > 2
