"""Scalar bins against numpy's quantiles and digitize."""

import numpy as np
import pytest
import torch

from aion import Scalar
from aion.nn.embedding import sine_cosine
from aion.tokenizers import ScalarTokenizer
from aion.tokens import Tokens


def test_quantile_edges_and_ids_agree_with_numpy(generator):
    value = torch.randn(1001, generator=generator)
    tokenizer = ScalarTokenizer(bins=16).fit(Scalar(value))
    edges = np.quantile(value.double().numpy(), np.linspace(0, 1, 17))
    np.testing.assert_allclose(tokenizer.edges[0].numpy(), edges, atol=1e-6)
    ids = tokenizer.encode(Scalar(value)).ids[:, 0]
    np.testing.assert_array_equal(ids.numpy(), np.digitize(value.numpy(), tokenizer.edges[0, 1:-1].numpy()))
    assert torch.bincount(ids).float().std() < 1


def test_log1p_edges_are_equal_steps():
    tokenizer = ScalarTokenizer(bins=64).fit(Scalar([0.0, 1.5]), spacing="log1p")
    steps = tokenizer.edges[0].double().log1p().diff()
    torch.testing.assert_close(steps, steps.mean().expand_as(steps), rtol=1e-4, atol=0)


def test_round_trip_is_within_half_a_bin(generator):
    value = torch.rand(500, generator=generator)
    tokenizer = ScalarTokenizer(bins=64).fit(Scalar(value), spacing="log1p")
    tokens = tokenizer.encode(Scalar(value))
    width = tokenizer.edges[0].diff()[tokens.ids[:, 0]]
    assert ((tokenizer.decode(tokens).value - value).abs() <= width / 2 + 1e-6).all()


def test_decoding_is_idempotent(tokenizers, observations):
    tokenizer = tokenizers["vector"]
    once = tokenizer.encode(observations["gaia_bp_coefficients"])
    twice = tokenizer.encode(tokenizer.decode(once))
    assert torch.equal(once.ids, twice.ids)
    assert torch.equal(once.valid, twice.valid)


def test_values_beyond_the_edges_fall_into_the_outermost_bins():
    tokenizer = ScalarTokenizer(bins=4).fit(Scalar([0.0, 1.0]))
    assert tokenizer.encode(Scalar([-5.0, 5.0])).ids.flatten().tolist() == [0, 3]


def test_nan_has_no_token_and_comes_back_as_nan():
    tokenizer = ScalarTokenizer(bins=4).fit(Scalar([0.0, 1.0]))
    tokens = tokenizer.encode(Scalar([0.5, float("nan")]))
    assert tokens.valid.flatten().tolist() == [True, False]
    assert tokenizer.decode(tokens).value.isnan().tolist() == [False, True]


def test_vectors_survive_a_change_of_token_order(tokenizers, observations):
    tokenizer, observation = tokenizers["vector"], observations["gaia_bp_coefficients"]
    tokens, order = tokenizer.encode(observation), torch.tensor([2, 0, 3, 1])
    shuffled = Tokens(tokens.ids[:, order], tokens.position[:, order], tokens.valid[:, order])
    torch.testing.assert_close(tokenizer.decode(shuffled).value, tokenizer.decode(tokens).value, equal_nan=True)


def test_posterior_reads_the_edges(tokenizers):
    posterior = tokenizers["redshift"].posterior(torch.full((2, 32), 1.0))
    assert torch.equal(posterior.edges.float(), tokenizers["redshift"].edges[0])


@pytest.mark.parametrize(
    ("action", "message"),
    [
        (lambda: ScalarTokenizer(bins=1), "bins >= 2"),
        (lambda: ScalarTokenizer().fit(Scalar([1.0, 1.0])), "at least two different values"),
        (
            lambda: ScalarTokenizer().fit(Scalar([1.0, 2.0]), spacing="lin"),
            "unknown spacing 'lin'; known: quantile, log1p",
        ),
        (
            lambda: ScalarTokenizer(components=3).encode(Scalar([[1.0, 2.0]])),
            r"wanted 3 component\(s\) per object, given 2",
        ),
        (lambda: ScalarTokenizer(components=3).posterior(torch.ones(1, 256)), "needs one component"),
        (
            lambda: ScalarTokenizer().fit(Scalar([-1.0, 2.0]), spacing="log1p"),
            "log1p needs values above -1, given -1",
        ),
        (
            lambda: ScalarTokenizer(bins=4).fit(Scalar([0.0] * 9 + [1.0])).posterior(torch.ones(1, 4)),
            "3 of 4 have none: this scalar was fitted to many equal values",
        ),
    ],
)
def test_bad_input_is_refused(action, message):
    with pytest.raises(ValueError, match=message):
        action()


def test_a_rung_makes_the_codebook_that_of_positions_on_the_ladder():
    tokenizer = ScalarTokenizer(bins=32, rung=0.005).fit(Scalar([0.0, 1.0]), spacing="log1p")
    centers = (tokenizer.edges[0, 1:].double() + tokenizer.edges[0, :-1].double()) / 2
    position = torch.stack([torch.zeros(32), (centers.log1p() / 0.005).float()], dim=-1)
    torch.testing.assert_close(tokenizer.codebook(24), sine_cosine(position, 24), atol=1e-4, rtol=0)
