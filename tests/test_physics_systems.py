import pytest
import torch

from aion.physics.flow import Flow
from aion.physics.systems import SYSTEMS, simulate


@pytest.mark.parametrize("system", sorted(SYSTEMS))
def test_every_system_gives_labelled_paired_trajectories_that_do_not_depend_on_how_many(system):
    names = tuple(SYSTEMS[system].regimes)[-2:]
    options = {"size": SYSTEMS[system].smallest, "frames": 3, "regimes": names, "dtype": torch.float64}
    flow = simulate(system, 4, **options)
    assert len(flow) == 4
    assert flow.frames == 3
    assert flow.regimes == names * 2
    assert set(flow.parameters) == set(SYSTEMS[system].parameters)
    assert torch.isfinite(flow.values).all()
    part = simulate(system, 3, batch=2, **options)
    torch.testing.assert_close(part.values, flow.values[:3], atol=1e-8, rtol=1e-8)
    other = simulate(system, 2, seed=1, **options)
    assert not torch.allclose(other.values, flow.values[:2])
    for values in flow.parameters.values():
        torch.testing.assert_close(values[0], values[2])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("sheer", 2), "did you mean 'shear'"),
        (("shear", 0), "n=0"),
        (("shear", 2, "size", 15), "size=15"),
        (("shear", 2, "size", 8), "at least 16"),
        (("shear", 2, "regimes", ("vortices",)), "did you mean 'vortex'"),
        (("shear", 2, "frames", 0), "frames=0"),
    ],
)
def test_what_cannot_be_simulated_is_refused(arguments, message):
    system, n, *option = arguments
    with pytest.raises(ValueError, match=message):
        simulate(system, n, **dict([option] if option else []))


def test_flows_of_one_kind_are_concatenated_and_others_refused():
    one = Flow(torch.zeros(2, 3, 1, 4, 4), ["a"], ["wall"] * 2, regimes=["x", "y"])
    assert len(Flow.concatenate([one, one])) == 4
    with pytest.raises(ValueError, match="one grid"):
        Flow.concatenate([one, one.window(0, 2)])
