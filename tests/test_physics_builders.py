import pytest
import torch

from aion.physics.builders import nano, published, small

FIELDS = ["pressure", "velocity_x", "velocity_y", "velocity_z", "tracer", "buoyancy", "A", "B", "speed_of_sound"]


def count(model):
    return sum(p.numel() for p in model.parameters()) + sum(b.numel() for b in model.buffers())


@pytest.mark.parametrize(("build", "low", "high"), [(nano, 0.3e6, 5e6), (small, 5e6, 30e6)])
def test_sizes_are_what_they_are_said_to_be(build, low, high):
    with torch.device("meta"):
        assert low < count(build(FIELDS)) < high


def test_the_published_configuration_has_the_published_size():
    """The published file holds 5 145 064 530 bytes: float32 weights, and some hundred bytes for each key."""
    with torch.device("meta"):
        model = published([f"field{i}" for i in range(64)])
    rest = 5_145_064_530 - 4 * count(model)
    assert 0 < rest < 500 * len(model.state_dict())
