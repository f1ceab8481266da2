import pytest
import torch

from aion.physics.flow import Flow, quantity


def flow(**changes):
    values = torch.arange(2 * 5 * 3 * 4 * 6, dtype=torch.float32).view(2, 5, 3, 4, 6)
    facts = {"fields": ["a", "v_x", "v_y"], "boundaries": ["periodic", ("wall", "open")], "regimes": ["one", "two"]}
    return Flow(**{"values": values, **facts, "parameters": {"nu": torch.tensor([1.0, 2.0])}, **changes})


def test_names_and_codes_of_boundaries_mean_the_same():
    assert flow(boundaries=[2, (0, 1)]).boundaries == flow().boundaries == (("periodic",) * 2, ("wall", "open"))
    assert flow(boundaries=torch.tensor([[2, 2], [0, 1]])).boundaries == flow().boundaries
    assert flow().periodic == (True, False)


def test_trajectories_frames_and_fields_are_picked():
    given = flow()
    assert len(given) == 2
    assert given.frames == 5
    assert given.space == (4, 6)
    assert torch.equal(given.field("v_x"), given.values[:, :, 1])
    assert torch.equal(given.window(1, 3).values, given.values[:, 1:4])
    second = given[1]
    assert second.regimes == ("two",)
    assert second.parameters["nu"].tolist() == [2.0]
    assert torch.equal(second.values, given.values[1:])
    assert torch.equal(Flow.concatenate([given[0], second]).values, given.values)
    assert given.to(torch.float64).values.dtype == torch.float64


def test_components_belong_to_their_quantity():
    assert [quantity(name) for name in ("velocity_x", "stress_xy", "A", "speed_of_sound")] == [
        "velocity",
        "stress",
        "A",
        "speed_of_sound",
    ]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"values": torch.zeros(2, 5, 3)}, "one to three axes"),
        ({"values": torch.zeros(2, 0, 3, 4, 6)}, "given shape"),
        ({"fields": ["a", "b"]}, "3 different names"),
        ({"fields": ["a", "b", "b"]}, "3 different names"),
        ({"boundaries": ["periodic"]}, "of 2 axes"),
        ({"boundaries": ["periodic", "wal"]}, r"unknown boundary 'wal' of axis 1: wanted one of 'wall' \(0\)"),
        ({"boundaries": ["periodic", 3]}, "unknown boundary 3"),
        ({"boundaries": [1.0, 2]}, "unknown boundary 1.0"),
        ({"boundaries": [None, True]}, "unknown boundary None"),
        ({"boundaries": ["periodic", ("periodic", "wall")]}, "both periodic or neither"),
        ({"boundaries": ["periodic", ("wall", "wall", "wall")]}, "two edges"),
        ({"dt": 0.0}, "dt > 0"),
        ({"extent": [1.0]}, "2 lengths"),
        ({"regimes": ["one"]}, "a regime for each"),
        ({"parameters": {"nu": torch.zeros(3)}}, r"'nu' must be \(2,\)"),
    ],
)
def test_what_is_no_flow_is_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        flow(**changes)


def test_numbers_must_be_floating_point_and_frames_and_fields_must_exist():
    with pytest.raises(TypeError, match="floating-point"):
        flow(values=torch.zeros(2, 5, 3, 4, 6, dtype=torch.int64))
    with pytest.raises(ValueError, match="frames 0 to 4"):
        flow().window(3, 3)
    with pytest.raises(ValueError, match="did you mean 'v_x'"):
        flow().field("vx")
