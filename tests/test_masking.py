"""Budgets, and who may be shown or asked for."""

import pytest
import torch

from aion.masking import BudgetMasking


@pytest.fixture
def sequence(tiny_model, observations):
    return tiny_model.tokenize(observations)


def split(tiny_model, sequence, seed=0, **arguments):
    return BudgetMasking(tiny_model.vocabulary, **arguments)(sequence, torch.Generator().manual_seed(seed))


def tokens(sequence, row: int) -> set:
    keep = sequence.valid[row]
    return set(zip(sequence.ids[row, keep].tolist(), map(tuple, sequence.position[row, keep].tolist()), strict=True))


@pytest.mark.parametrize("seed", range(5))
def test_visible_and_target_are_disjoint_parts_of_the_object(tiny_model, sequence, seed):
    visible, target = split(tiny_model, sequence, seed, input_budget=20, target_budget=12)
    for row in range(len(sequence)):
        shown, asked = tokens(visible, row), tokens(target, row)
        assert shown
        assert not shown & asked
        assert shown | asked <= tokens(sequence, row)
        assert len(shown) <= 20
        assert len(asked) <= 12


@pytest.mark.parametrize("together", [(), [["desi_spectrum"], ["redshift"]]])
def test_a_budget_for_everything_still_leaves_something_to_ask_for(tiny_model, sequence, together):
    for seed in range(5):
        visible, target = split(tiny_model, sequence, seed, input_budget=10_000, target_budget=4, together=together)
        assert (visible.valid.sum(1) >= 1).all()
        assert torch.equal(target.valid.any(1), sequence.valid.sum(1) > 1)


def test_the_input_budget_is_filled(tiny_model, sequence):
    counts = [split(tiny_model, sequence, s, input_budget=8)[0].valid.sum(1) for s in range(20)]
    enough = sequence.valid.sum(1) > 30
    assert torch.stack(counts)[:, enough].float().mean() > 6


def test_the_same_generator_gives_the_same_split(tiny_model, sequence):
    a, b = (split(tiny_model, sequence, 3, input_budget=(4, 30)) for _ in range(2))
    assert all(torch.equal(x.ids, y.ids) and torch.equal(x.valid, y.valid) for x, y in zip(a, b, strict=True))
    c = split(tiny_model, sequence, 4, input_budget=(4, 30))
    assert a[0].ids.shape != c[0].ids.shape or not torch.equal(a[0].ids, c[0].ids)


def test_a_hidden_modality_is_never_shown_but_asked_for(tiny_model, sequence):
    index = tiny_model.vocabulary.index("redshift")
    has = (sequence.modality.eq(index) & sequence.valid).any(1)
    for seed in range(10):
        visible, target = split(tiny_model, sequence, seed, input_budget=16, target_budget=200, hide={"redshift": 1.0})
        assert not (visible.valid & (visible.modality == index)).any()
        assert torch.equal((target.valid & (target.modality == index)).any(1), has)


def test_every_modality_left_over_is_asked_for(tiny_model, sequence):
    visible, target = split(tiny_model, sequence, 1, input_budget=4, target_budget=500)
    for row in range(len(sequence)):
        left = tokens(sequence, row) - tokens(visible, row)
        assert bool(left) == bool(tokens(target, row))


def test_target_shares_are_skewed_to_few_tokens(tiny_model, sequence):
    index, shares = tiny_model.vocabulary.index("desi_spectrum"), []
    for seed in range(60):
        visible, target = split(tiny_model, sequence[:1], seed, input_budget=1, target_budget=1000)
        left = (sequence.modality[0] == index)[sequence.valid[0]].sum() - (
            visible.modality[visible.valid] == index
        ).sum()
        shares.append(((target.modality[target.valid] == index).sum() / left).item())
    assert sum(s < 0.1 for s in shares) > 20
    assert sum(s == 1 for s in shares) > 5


@pytest.mark.parametrize(
    "arguments",
    [
        {"input_budget": 0},
        {"input_budget": 2.5},
        {"input_budget": (9, 3)},
        {"input_budget": (9,)},
        {"target_budget": 0},
        {"target_budget": 1.5},
        {"alpha": 0.0},
        {"alpha": float("nan")},
    ],
)
def test_impossible_budgets_are_refused(tiny_model, arguments):
    with pytest.raises(ValueError, match="whole budgets >= 1 and alpha > 0"):
        BudgetMasking(tiny_model.vocabulary, **arguments)


@pytest.mark.parametrize("probability", [7, -0.1, float("nan")])
def test_hiding_by_what_is_no_probability_is_refused(tiny_model, probability):
    with pytest.raises(ValueError, match=r"probabilities from 0 to 1, given .* for 'redshift'"):
        BudgetMasking(tiny_model.vocabulary, hide={"redshift": probability})


def test_hiding_an_unknown_modality_is_refused(tiny_model):
    with pytest.raises(ValueError, match="unknown modality 'redshfit'; did you mean 'redshift'"):
        BudgetMasking(tiny_model.vocabulary, hide={"redshfit": 1.0})


def test_sets_come_together_and_apart(tiny_model, sequence):
    """Some objects show one set alone, some both, some all but one token; no modality stands in two sets."""
    names, row = tiny_model.vocabulary.names, int(sequence.valid.sum(1).argmax())
    spectra = {"desi_spectrum", "sdss_spectrum"}
    together = [sorted(spectra), sorted(set(names) - spectra)]
    alone = both = whole = 0
    for seed in range(100):
        visible, _ = split(tiny_model, sequence, seed, input_budget=10_000, together=together)
        shown = {names[m] for m in visible.modality[row, visible.valid[row]].tolist()}
        alone += shown <= spectra
        both += bool(shown & spectra) and bool(shown - spectra)
        whole += len(tokens(visible, row)) == len(tokens(sequence, row)) - 1
    assert min(alone, both, whole) > 10
    with pytest.raises(ValueError, match="once"):
        BudgetMasking(tiny_model.vocabulary, together=[["redshift"], ["redshift"]])
    with pytest.raises(ValueError, match="redshift"):
        BudgetMasking(tiny_model.vocabulary, together=[["redshfit"]])
