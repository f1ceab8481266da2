"""Tables of increasing values: ranks, saturation, and the densities that probabilities of ids stand for."""

import math

import numpy as np
import pytest
import torch

from aion import Scalar
from aion.official.scalar import OfficialGridScalarTokenizer, OfficialMultiScalarTokenizer, OfficialScalarTokenizer
from aion.official.table import Reservoir
from aion.tokens import Tokens


def make(table: list[float], **options) -> OfficialScalarTokenizer:
    tokenizer = OfficialScalarTokenizer("x", len(table), 10, **options)
    tokenizer.quantizer.index_to_val.copy_(torch.tensor(table))
    return tokenizer


def ids(tokenizer, value: list[float]) -> list[int]:
    return tokenizer.encode(Scalar(value)).ids.flatten().tolist()


def test_an_id_is_the_first_entry_that_is_not_smaller():
    table = sorted(np.random.default_rng(0).normal(size=50).tolist())
    tokenizer = make(table)
    value = torch.rand(200) * 0.9 * (table[-1] - table[0]) + table[0] + 0.01
    wanted = np.searchsorted(np.float32(table), value.numpy())
    assert ids(tokenizer, value) == wanted.tolist()
    decoded = tokenizer.decode(tokenizer.encode(Scalar(value))).value
    assert (decoded >= value).all()  # rounds up
    assert torch.equal(tokenizer.encode(Scalar(decoded)).ids, tokenizer.encode(Scalar(value)).ids)


def test_nan_is_absent_unless_in_parity_mode():
    tokens = make([0, 1, 2, 3]).encode(Scalar([1.5, math.nan]))
    assert tokens.valid.tolist() == [[True], [False]]
    assert make([0, 1, 2, 3]).decode(tokens).value.isnan().tolist() == [False, True]
    parity = make([0, 1, 2, 3], parity=True).encode(Scalar([1.5, math.nan]))
    assert parity.ids.tolist() == [[2], [3]]
    assert parity.valid.all()


def test_saturation_is_reported_unless_in_parity_mode():
    tokenizer = make([0, 1, 2, 3])
    assert tokenizer.saturated(Scalar([-1, 0, 3, 3.1, math.nan])).flatten().tolist() == [
        True,
        False,
        False,
        True,
        False,
    ]
    with pytest.warns(UserWarning, match=r"values of x beyond 0 to 3 share the outermost ids"):
        assert ids(tokenizer, [-9, 9]) == [0, 3]
    assert ids(make([0, 1, 2, 3], parity=True), [-9, 9]) == [0, 3]  # and warnings are errors


def test_integers_and_columns_are_read():
    tokenizer = make([0, 1, 2, 3])
    assert ids(tokenizer, np.array([0, 3])) == ids(tokenizer, np.array([[0.0], [3]], dtype=">f8")) == [0, 3]


def test_an_id_that_no_value_has_decodes_to_nan():
    tokenizer = OfficialGridScalarTokenizer("Z", 4, vocabulary=5)
    tokens = Tokens(torch.tensor([[3], [4]]), torch.zeros(2, 1, 2), torch.ones(2, 1, dtype=torch.bool))
    assert tokenizer.decode(tokens).value[0] == 1
    assert tokenizer.decode(tokens).value[1].isnan()
    assert tokenizer.size == 5


def test_a_posterior_covers_what_is_encoded_as_each_id():
    tokenizer = make([0.0, 1, 3, 3, 3, 4], vocabulary=8)
    posterior = tokenizer.posterior(torch.tensor([[1.0, 1, 1, 1, 0, 2, 9, 9]]))
    assert posterior.edges.tolist() == [-1, 0, 1, 3, 4]
    torch.testing.assert_close(posterior.probabilities[0], torch.tensor([1, 1, 2, 2], dtype=torch.float64) / 6)
    for value in (-0.5, 0.5, 2.0, 3.5):
        one = torch.zeros(1, 8)
        if value > 0:
            one[0, ids(tokenizer, [value])[0]] = 1
            low, high = tokenizer.posterior(one).interval(0.5)
            assert low < value <= high + 0.5


def test_no_posterior_without_a_density():
    with pytest.raises(ValueError, match="needs one component"):
        OfficialMultiScalarTokenizer("x", ["sinh"], ["asinh"], 4, 4, 3).posterior(torch.ones(1, 4))
    with pytest.raises(ValueError, match="at least two different values"):
        make([1.0, 1]).posterior(torch.ones(1, 2))


def test_a_table_that_cannot_be_right_is_refused():
    make([0, 0, 1]).verify()
    for table in ([0, 1, 0.5], [0, math.nan, 1], [0, 1, math.inf]):
        with pytest.raises(ValueError, match="the file is damaged"):
            make(table).verify()


def test_a_reservoir_starts_with_one_value():
    assert set(Reservoir(3, 5, -3.0).index_to_val.tolist()) == {-3.0}
    assert Reservoir(3, 5).reservoir.shape == (5,)


def test_another_number_of_components_is_refused():
    with pytest.raises(ValueError, match=r"wanted 1 component\(s\) per object, given 2"):
        make([0, 1]).encode(Scalar([[1.0, 2.0]]))
