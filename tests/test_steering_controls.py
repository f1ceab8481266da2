import pytest
import torch

from aion.steering import Direction, draw_controls
from aion.steering.controls import KINDS


@pytest.fixture
def direction(toy, generator):
    scale = torch.tensor([4.0, 1, 1, 1, 1, 0.01])
    x = torch.randn(2, 60, 5, 6, generator=generator) * scale
    x[0, ..., 0] += 3
    return Direction.fit(torch.nn.Sequential(torch.nn.Identity()).eval(), "0", positive=x[0], negative=x[1])


def test_controls_have_the_length_and_angle_they_should(direction):
    controls = draw_controls(direction, 32)
    assert list(controls) == list(KINDS)
    for kind, drawn in controls.items():
        assert len(drawn) == 32
        angles = torch.tensor([control.cosine(direction) for control in drawn]).abs()
        lengths = torch.tensor([control.length for control in drawn])
        if kind in {"covariance", "split_half_orthogonal"}:
            assert angles.max() < 1e-5
        else:
            assert angles.max() > 0.5
        if kind == "split_half":
            assert lengths.max() < direction.length
        else:
            torch.testing.assert_close(lengths, torch.full((32,), direction.length))


def test_controls_from_the_covariance_vary_as_activations_do(direction):
    vectors = torch.stack([control.vector for control in draw_controls(direction, 64, ["covariance"])["covariance"]])
    assert vectors[:, 5].std() < 0.05 * vectors[:, 2].std()
    vectors = torch.stack([control.vector for control in draw_controls(direction, 64, ["isotropic"])["isotropic"]])
    assert vectors[:, 5].std() > 0.5 * vectors[:, 2].std()


def test_a_seed_draws_the_same(direction):
    one, two = (draw_controls(direction, 3, generator=torch.Generator().manual_seed(5)) for _ in range(2))
    for kind in KINDS:
        assert all(torch.equal(a.vector, b.vector) for a, b in zip(one[kind], two[kind], strict=True))


def test_controls_that_cannot_be_drawn(direction):
    with pytest.raises(ValueError, match="did you mean 'isotropic'"):
        draw_controls(direction, 3, ["isotopic"])
    with pytest.raises(ValueError, match="at least 1"):
        draw_controls(direction, 0)
    with pytest.raises(ValueError, match="keeps 128 halves, wanted 500"):
        draw_controls(direction, 500, ["split_half"])
    with pytest.raises(ValueError, match="needs a direction fitted"):
        draw_controls(direction + direction, 3, ["covariance"])
    assert draw_controls(direction + direction, 3, ["isotropic"])
