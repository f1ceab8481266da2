"""Short batches hold nothing but what they are for."""

import pytest
import torch

from aion.recipes.short import Short

ONLY = ["gaia_bp_coefficients", "redshift"]


@pytest.fixture
def sequence(tiny_model, observations):
    return tiny_model.tokenize(observations)


def test_only_the_modalities_named_are_shown_and_asked_for(tiny_model, sequence):
    names = tiny_model.vocabulary.names
    short = Short(tiny_model.vocabulary, 8, ONLY, input_budget=3, target_budget=2)
    visible, target = short(sequence, torch.Generator().manual_seed(0))
    for part in (visible, target):
        assert {names[m] for m in part.modality[part.valid].tolist()} <= set(ONLY)
        assert len(part) <= len(sequence)
    assert visible.valid.any(1).all()
    assert visible.valid.sum(1).max() <= 3
    assert target.valid.sum(1).max() <= 2
    again = short(sequence, torch.Generator().manual_seed(0))
    assert torch.equal(visible.ids, again[0].ids)


def test_objects_with_a_single_token_are_left_out(tiny_model, sequence):
    short = Short(tiny_model.vocabulary, 8, ["redshift"], input_budget=3)
    with pytest.raises(ValueError, match=r"none of the \d+ objects"):
        short(sequence, torch.Generator())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"objects": 0, "modalities": ONLY}, "at least one object"),
        ({"objects": 2, "modalities": ["redshfit"]}, "redshift"),
    ],
)
def test_bad_settings_are_refused(tiny_model, arguments, message):
    with pytest.raises(ValueError, match=message):
        Short(tiny_model.vocabulary, **arguments)
