import pytest
import torch

from aion import Scalar
from aion.sky import Sky
from aion.sources import Mixture, PartSource, SkyObjects, SkySource, observed


def test_batches_are_new_objects_and_the_same_for_the_same_step():
    source = SkySource("desi_spectrum", 4, 100, {"complete": True, "seed": 3})
    expected = Sky(modalities=["desi_spectrum"], complete=True, seed=3).observe(torch.arange(108, 112))["desi_spectrum"]
    assert torch.equal(source(2).flux, expected.flux)
    assert torch.equal(source(2).flux, source(2).flux)
    assert not torch.equal(source(1).flux, source(2).flux)


def test_objects_without_the_modality_are_left_out():
    batch = SkySource("gaia_xp_spectrum", 64)(0)
    assert 0 < len(batch) < 40
    assert batch.measured.any(1).all()


def test_pairs_are_the_same_objects_twice():
    source = SkySource(["desi_spectrum", "sdss_spectrum"], 6, 0, {"complete": True})
    seen = Sky(modalities=["desi_spectrum", "sdss_spectrum"], complete=True).observe(range(6, 12))
    for view, expected in zip(source(1), seen.values(), strict=True):
        assert torch.equal(view.flux, expected.flux)


def test_pairs_lack_objects_that_one_survey_lacks():
    one, other = SkySource(["desi_spectrum", "sdss_spectrum"], 40)(0)
    assert 0 < len(one) == len(other) < 40
    assert one.measured.any(1).all()
    assert other.measured.any(1).all()


def test_three_modalities_are_no_pair():
    with pytest.raises(ValueError, match="two for pairs, given 3"):
        SkySource(["desi_spectrum"] * 3, 2)


@pytest.mark.parametrize("weights", [[1, 1, 1], [5, 2, 1], [0.1, 0.25, 3]])
def test_turns_are_as_frequent_as_weights_and_do_not_depend_on_the_order_of_asking(weights):
    mixture, other = (Mixture([lambda step: step] * 3, weights) for _ in range(2))
    turns = [mixture.turn(step) for step in range(400)]
    assert [other.turn(step) for step in reversed(range(400))] == turns[::-1]
    for k, weight in enumerate(weights):
        for end in (100, 400):
            assert turns[:end].count(k) == pytest.approx(end * weight / sum(weights), abs=1.5)


def test_equal_weights_take_turns_in_order():
    mixture = Mixture(["a".__mul__, "b".__mul__, "c".__mul__])
    assert [mixture.turn(step) for step in range(7)] == [0, 1, 2, 0, 1, 2, 0]
    assert mixture(4) == "bbbb"


@pytest.mark.parametrize(("count", "weights"), [(0, None), (2, [1]), (2, [1, 0]), (2, [1, -1]), (1, [float("nan")])])
def test_bad_mixtures_are_refused(count, weights):
    with pytest.raises(ValueError, match="positive weights"):
        Mixture([lambda step: step] * count, weights)


def test_whole_objects_are_those_that_a_part_is_taken_of():
    objects = SkyObjects(["desi_spectrum", "redshift"], 6, 50, {"seed": 2})
    seen = objects(1)
    expected = Sky(seed=2, modalities=["desi_spectrum", "redshift"]).observe(range(56, 62))
    assert torch.equal(seen["redshift"].value, expected["redshift"].value)
    part, same = PartSource(objects, "desi_spectrum")(1), SkySource("desi_spectrum", 6, 50, {"seed": 2})(1)
    assert torch.equal(part.flux, same.flux)


def test_objects_without_anything_are_left_out():
    values = {"a": Scalar([1.0, float("nan"), float("nan")]), "b": Scalar([2.0, float("nan"), 3.0])}
    left = observed(values)
    assert left["b"].value.flatten().tolist() == [2, 3]
    with pytest.raises(ValueError, match="nothing was measured of any of 1 objects"):
        observed({name: value[1] for name, value in values.items()})
