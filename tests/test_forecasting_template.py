"""Templates and schemes: the published example, the three rules, and what breaks them."""

import math
import re

import pytest

from aion.forecasting.template import Scheme, autoregressive, hierarchy2, multiscale, template

RATIOS = (1.0, 1.25, 1.5, 2.0, 2.5, 3.0)


def test_the_published_example():
    assert template(2.5, 3) == (-9, -3, -1, 0, 1, 3, 9)
    assert template(1, 3) == (-3, -2, -1, 0, 1, 2, 3)
    wanted = [((-9, -3, -1, 0), (1, 3, 9)), ((-3, 1, 3, 9), (2, 4, 5)), ((3, 4, 5, 9), (6, 7, 8))]
    scheme = multiscale(3, 2.5)
    assert scheme.calls(9) == wanted
    assert scheme.period == 9
    assert scheme.reach() == 9
    assert scheme.calls(18)[3:] == [tuple(tuple(t + 9 for t in frames) for frames in call) for call in wanted]


@pytest.mark.parametrize(
    ("K", "alpha", "period", "new", "oldest"),
    [
        (3, 2.0, 7, (3, 3, 1), (-7, -1, 1)),
        (3, 3.0, 13, (3, 3, 3, 3, 1), (-13, -9, -1, 5, 7)),
        (4, 2.0, 15, (4, 4, 4, 3), (-15, -9, 1, 7)),
        (5, 2.0, 31, (5, 5, 5, 5, 5, 5, 1), (-31, -25, -15, -9, 7, 19, 15)),
    ],
)
def test_other_templates(K, alpha, period, new, oldest):
    scheme = multiscale(K, alpha)
    assert scheme.period == period
    assert tuple(len(made) for _, made in scheme.round_) == new
    assert tuple(known[0] for known, _ in scheme.round_) == oldest


@pytest.mark.parametrize("K", [2, 3, 4, 5, 6])
def test_the_least_number_of_calls(K):
    ratios = RATIOS if K < 5 else (1.0, 1.5, 2.0)  # wider ones of hundreds of frames take seconds
    schemes = [multiscale(K, alpha) for alpha in ratios] + [autoregressive(K), hierarchy2(K)]
    for scheme in schemes:
        scheme.check()
        assert len(scheme.round_) == math.ceil(scheme.period / K), scheme.name
        for known, new in scheme.round_:
            assert len(known) + len(new) == 2 * K + 1, scheme.name


@pytest.mark.parametrize("scheme", [multiscale(3, 2.5), multiscale(4, 2.0), autoregressive(3), hierarchy2(3)])
@pytest.mark.parametrize("horizon", [1, 2, 5, 9, 10, 31])
def test_any_horizon_is_complete_admissible_and_efficient(scheme, horizon):
    made = []
    for known, new in scheme.calls(horizon):
        assert all(t <= 0 or t in made for t in known)
        made += new
    assert len(made) == len(set(made))
    assert set(range(1, horizon + 1)) <= set(made)
    whole = [call for call in scheme.calls(horizon) if set(call[1]) & set(range(1, horizon + 1))]
    assert whole, "calls that nothing depends on are left out"


def test_a_limited_past_keeps_the_calls():
    scheme = multiscale(3, 2.5).limited(3)
    assert scheme.reach() == 3
    assert [new for _, new in scheme.round_] == [new for _, new in multiscale(3, 2.5).round_]


@pytest.mark.parametrize(
    ("calls", "why"),
    [
        ((((-1, 0), (1,)),), "not complete, nothing makes {2}"),
        ((((-1, 1), (2,)), ((-1, 0), (1,))), "not admissible, {1} is not known yet"),
        ((((-1, 0), (1, 2)), ((-1, 0), (2,))), "not efficient, makes {2} again"),
        ((((-1, 0), (1, 3)),), "outside the period"),
        ((((-1, 0), (1, 2, 3)),), "1 to K=2 new frames"),
        ((((-3, -2, -1, 0), (1, 2)),), "at most 5 in all"),
        ((((-1, 0), ()),), "1 to K=2 new frames"),
    ],
)
def test_broken_schemes_are_refused(calls, why):
    with pytest.raises(ValueError, match=re.escape(why)):
        Scheme("mine", 2, 2, calls)


@pytest.mark.parametrize("horizon", [0, -3, 2.5, True, "9"])
def test_horizons_that_are_none(horizon):
    with pytest.raises(ValueError, match="whole number of frames, at least 1"):
        multiscale().calls(horizon)


@pytest.mark.parametrize(
    ("alpha", "K"), [(0.5, 3), (math.nan, 3), (math.inf, 3), (2, 0), (2, 1.5), ("2", 3), (2, True)]
)
def test_numbers_that_are_none(alpha, K):
    with pytest.raises(ValueError, match=r"alpha must|K must"):
        multiscale(K, alpha)


def test_the_picture_shows_every_call(tmp_path):
    figure = multiscale(3, 2.5).plot(18)
    lines = figure.axes[0].get_lines()
    assert len(lines) == 2 * 6
    assert [tuple(line.get_xdata()) for line in lines[:2]] == [(-9, -3, -1, 0), (1, 3, 9)]
    figure.savefig(tmp_path / "scheme.png")
