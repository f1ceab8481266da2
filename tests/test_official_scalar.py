"""The scalar tokenizers: what the published package gives, and the right answer where that goes wrong."""

import math

from pathlib import Path

import pytest
import torch

from safetensors.torch import load_file

from aion import Scalar
from aion.official.codecs import read_codecs
from aion.official.names import PUBLISHED
from aion.official.scalar import (
    FUNCTIONS,
    OfficialGridScalarTokenizer,
    OfficialLogScalarTokenizer,
    OfficialMultiScalarTokenizer,
)

DATA = Path(__file__).parent / "data" / "official"
SCALARS = [name for name, p in PUBLISHED.items() if p.codec.endswith("ScalarCodec")]


@pytest.fixture(scope="module")
def expected() -> dict:
    return load_file(DATA / "codecs_expected.safetensors")


@pytest.fixture(scope="module")
def shelf() -> dict:
    return read_codecs(DATA / "tiny", SCALARS, parity=True)


@pytest.mark.parametrize("name", SCALARS)
def test_tokens_and_values_are_the_published_ones(name, shelf, expected):
    key = f"scalar.{PUBLISHED[name].folder}"
    value = expected[key].float() * expected[f"{key}.step"]
    value = torch.cat([value, torch.full_like(value[:1], math.nan)])
    tokens = shelf[name].encode(Scalar(value))
    assert torch.equal(tokens.ids, expected[f"{key}.ids"].long().reshape(tokens.ids.shape))
    torch.testing.assert_close(
        shelf[name].decode(tokens).value, expected[f"{key}.decoded"], rtol=1e-5, atol=1e-6, equal_nan=True
    )


def test_there_are_thirty_four_of_four_kinds():
    assert len(SCALARS) == 34
    assert len({PUBLISHED[name].codec for name in SCALARS}) == 4


def test_small_and_negative_values_share_the_lowest_id_with_a_warning(shelf):
    parity = shelf["gaia_parallax"]
    lowest = parity.encode(Scalar([-10.0, 0.0, 0.01]))
    assert lowest.ids.flatten().tolist() == [0, 0, 0]
    assert (parity.decode(lowest).value > 0).all()
    tokenizer = read_codecs(DATA / "tiny", ["gaia_parallax"])["gaia_parallax"]
    with pytest.warns(UserWarning, match="values of parallax beyond .* share the outermost ids"):
        assert tokenizer.encode(Scalar([-10.0, 0.0, 0.01])).ids.flatten().tolist() == [0, 0, 0]
    assert tokenizer.saturated(Scalar([-10.0, 1.0, math.nan])).flatten().tolist() == [True, False, False]


def test_redshifts_beyond_the_grid_are_refused_unless_in_parity_mode(shelf):
    tokenizer = read_codecs(DATA / "tiny", ["redshift"])["redshift"]
    with pytest.raises(ValueError, match=r"row 1 \(2 such rows\): the published model knows Z only from 0 to 1"):
        tokenizer.encode(Scalar([0.5, 1.2, -0.1]))
    assert tokenizer.encode(Scalar([0.5, math.nan])).valid.flatten().tolist() == [True, False]
    assert shelf["redshift"].encode(Scalar([1.2, -0.1])).ids.flatten().tolist() == [63, 0]


def test_the_redshift_has_one_id_more_than_its_grid(shelf):
    assert shelf["redshift"].size == 1025
    posterior = shelf["redshift"].posterior(torch.ones(2, 1025))
    assert posterior.edges.shape == (65,)
    assert posterior.edges[-1] == 1
    torch.testing.assert_close(posterior.mean(), torch.full((2,), 0.5 - 0.5 / 63, dtype=torch.float64))


@pytest.mark.parametrize("columns", [1, 54, 56, 110])
def test_another_number_of_coefficients_is_refused(shelf, columns):
    with pytest.raises(ValueError, match=rf"wanted 55 component\(s\) per object, given {columns}"):
        shelf["gaia_bp_coefficients"].encode(Scalar(torch.zeros(2, columns)))


def test_a_missing_coefficient_is_absent_alone():
    tokenizer = read_codecs(DATA / "tiny", ["gaia_rp_coefficients"])["gaia_rp_coefficients"]
    value = torch.zeros(1, 55)
    value[0, 7] = math.nan
    tokens = tokenizer.encode(Scalar(value))
    assert (~tokens.valid).nonzero().tolist() == [[0, 7]]
    assert tokenizer.decode(tokens).value.isnan().nonzero().tolist() == [[0, 7]]


def test_only_known_functions_that_undo_each_other_are_applied():
    with pytest.raises(ValueError, match="unknown function 'load'"):
        OfficialMultiScalarTokenizer("x", ["load"], ["save"], 4, 4, 3)
    with pytest.raises(ValueError, match="do not undo"):
        OfficialMultiScalarTokenizer("x", ["arcsinh", "tanh"], ["arctanh", "sinh"], 4, 4, 3)
    for one, other in (("arcsinh", "sinh"), ("log1p", "expm1"), ("sqrt", "square"), ("logit", "sigmoid")):
        value = torch.tensor(0.3, dtype=torch.float64)
        torch.testing.assert_close(FUNCTIONS[other](FUNCTIONS[one](value)), value)


def test_a_logarithm_needs_a_lowest_value():
    with pytest.raises(ValueError, match="wanted min_log_value as a number"):
        OfficialLogScalarTokenizer("x", 4, 4, min_log_value=None)


def test_a_grid_may_have_as_many_steps_as_the_vocabulary():
    tokenizer = OfficialGridScalarTokenizer("Z", 1025, vocabulary=1025)
    tokenizer.verify()
    assert tokenizer.encode(Scalar([1.0])).ids.item() == 1024
