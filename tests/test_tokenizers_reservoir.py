"""The sample of a stream: exact while it fits, the same however it is cut, and as good as stated beyond."""

import json

import pytest
import torch

from safetensors.torch import load_file, save_file

from aion import Scalar, Spectrum
from aion.tokenizers.edges import quantile
from aion.tokenizers.reservoir import Reservoir

NAN = float("nan")


def stream(generator: torch.Generator, count: int = 5000) -> Scalar:
    value = torch.randn(count, 2, generator=generator)
    value[torch.rand(count, 2, generator=generator) < 0.1] = NAN
    return Scalar(value)


def state(reservoir: Reservoir, folder) -> bytes:
    reservoir.save(folder / "state.safetensors")
    return (folder / "state.safetensors").read_bytes()


@pytest.mark.parametrize("capacity", [100, 4500, 10_000])
@pytest.mark.parametrize("cuts", [[1], [7, 13], [1000], [4999], [4096, 3]])
def test_one_batch_or_many_make_the_same_sample_to_the_bit(generator, tmp_path, capacity, cuts):
    values = stream(generator)
    whole = Reservoir(2, capacity, seed=3).update(values)
    parts, start = Reservoir(2, capacity, seed=3), 0
    for size in (*cuts, len(values)):
        if start < len(values):
            parts.update(values[start : start + size])
        start += size
    assert state(whole, tmp_path) == state(parts, tmp_path)


@pytest.mark.parametrize("capacity", [100, 10_000])
def test_a_stream_resumed_from_a_file_ends_as_if_it_had_not_stopped(generator, tmp_path, capacity):
    values = stream(generator)
    whole = Reservoir(2, capacity).update(values)
    first = Reservoir(2, capacity).update(values[:1777])
    first.save(tmp_path / "deep" / "first.safetensors")
    resumed = Reservoir.load(tmp_path / "deep" / "first.safetensors").update(values[1777:])
    assert state(resumed, tmp_path) == state(whole, tmp_path)
    assert [p.name for p in (tmp_path / "deep").iterdir()] == ["first.safetensors"]


def test_what_fits_is_held_exactly(generator):
    values = stream(generator, 300)
    reservoir = Reservoir(2, 300).update(values)
    assert reservoir.exact
    assert reservoir.rank_error == 0
    for component, column in enumerate(values.value.T):
        known = column[~column.isnan()].double().sort().values
        assert torch.equal(reservoir.values(component), known)
        assert reservoir.count[component] == len(known)


@pytest.mark.parametrize("seed", range(5))
def test_quantiles_of_a_sample_are_within_the_stated_error(seed):
    # Heavy tails: the error that is stated is one of rank, whatever the values are.
    values = torch.rand(200_000, generator=torch.Generator().manual_seed(seed)).reciprocal()
    reservoir = Reservoir(capacity=2500, seed=seed)
    for batch in values.split(30_000):
        reservoir.update(Scalar(batch))
    assert not reservoir.exact
    assert reservoir.rank_error == pytest.approx(0.04)
    level = torch.linspace(0, 1, 201, dtype=torch.float64)
    found = quantile(reservoir.values(), level)
    ordered = values.double().sort().values
    rank = torch.searchsorted(ordered, found) / len(values)
    assert 0 < (rank - level).abs().max() < reservoir.rank_error
    assert found[[0, -1]].tolist() == ordered[[0, -1]].tolist()


def test_another_seed_and_another_component_are_other_samples():
    values = Scalar(torch.arange(1000.0)[:, None].expand(-1, 2))
    samples = [set(Reservoir(2, 50, seed).update(values).values(k).tolist()) for seed in (-1, 0, 1) for k in (0, 1)]
    assert all(len(a & b) < 15 for i, a in enumerate(samples) for b in samples[:i])


def test_every_value_is_as_likely_as_any_other(tmp_path):
    values, drawn = Scalar(torch.arange(40.0)), torch.zeros(40)
    for seed in range(400):
        Reservoir(capacity=10, seed=seed).update(values).save(tmp_path / "state")
        drawn[load_file(tmp_path / "state")["value.0"].long()] += 1
    assert drawn.sum() == 4000
    assert ((drawn - 100).square() / 75).sum() < 69  # chi-square of 40 counts of mean 100, 3 sigma


@pytest.mark.parametrize(
    ("action", "error", "message"),
    [
        (lambda: Reservoir(0), ValueError, "components >= 1 and capacity >= 1, given 0 and 1000000"),
        (lambda: Reservoir(1, 0), ValueError, "given 1 and 0"),
        (lambda: Reservoir().values(), ValueError, "component 0 has no value yet"),
        (lambda: Reservoir(2).update(Scalar([1.0])), ValueError, r"wanted 2 component\(s\) per object, given 1"),
        (lambda: Reservoir().update(Spectrum([[1]], [[1]], [[5e3]])), TypeError, "wanted Scalar, given Spectrum"),
        (lambda: Reservoir().update([1.0]), TypeError, "wanted Scalar, given list"),
    ],
)
def test_bad_input_is_refused(action, error, message):
    with pytest.raises(error, match=message):
        action()


def test_files_that_are_no_reservoirs_are_refused(tmp_path):
    with pytest.raises(FileNotFoundError):
        Reservoir.load(tmp_path / "none.safetensors")
    (tmp_path / "text.safetensors").write_text(json.dumps({"a": 1}))
    with pytest.raises(ValueError, match="is no safetensors file"):
        Reservoir.load(tmp_path / "text.safetensors")
    save_file({"a": torch.ones(1)}, tmp_path / "other.safetensors")
    with pytest.raises(ValueError, match="is no reservoir: wanted the format 'aion reservoir 1', given None"):
        Reservoir.load(tmp_path / "other.safetensors")


def test_nothing_of_the_callers_is_kept_or_written_to():
    value = torch.tensor([3.0, 1.0, 2.0])
    reservoir = Reservoir().update(Scalar(value))
    value.zero_()
    assert reservoir.values().tolist() == [1, 2, 3]
