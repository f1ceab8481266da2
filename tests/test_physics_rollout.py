import pytest
import torch

from aion.physics.flow import Flow
from aion.physics.rollout import roll_out


def growing(*rates):
    """Flows of two frames, of 1 everywhere, and what multiplies each by its rate."""
    rates = torch.tensor(rates).view(-1, 1, 1)
    window = Flow(torch.ones(len(rates), 2, 1, 4), ["a"], ["periodic"])
    return window, lambda given: given.values[:, -1] * rates


def test_each_frame_follows_from_those_before():
    window, _ = growing(1.0)
    flow = roll_out(window, 4, lambda given: given.values.sum(1)).flow
    assert flow.values[0, :, 0, 0].tolist() == [2, 3, 5, 8]
    assert (flow.fields, flow.boundaries) == (window.fields, window.boundaries)


def test_a_trajectory_that_goes_astray_ends_there_and_the_others_go_on():
    window, follow = growing(2.0, 100.0, float("nan"))
    flow, diverged = roll_out(window, 3, follow)
    assert diverged.tolist() == [-1, 1, 0]
    assert flow.values[:, :, 0, 0].nan_to_num(nan=-1).tolist() == [[2, 4, 8], [100, -1, -1], [-1, -1, -1]]


def test_nothing_is_computed_once_all_are_lost():
    window, follow = growing(float("inf"), float("nan"))
    calls = []
    flow, diverged = roll_out(window, 5, lambda given: calls.append(1) or follow(given))
    assert (len(calls), diverged.tolist()) == (1, [0, 0])
    assert flow.values.isnan().all()
    assert flow.values.shape == (2, 5, 1, 4)


def test_no_step_is_no_roll_out():
    window, follow = growing(1.0)
    with pytest.raises(ValueError, match="at least 1 step, given 0"):
        roll_out(window, 0, follow)
