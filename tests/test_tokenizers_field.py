"""Maps of any size: what is measured counts, and nothing else."""

import json
import math
import subprocess
import sys

import pytest
import torch

from safetensors.torch import save_file

from aion import Field, Scalar
from aion.tokenizers import FieldTokenizer
from aion.tokens import Tokens
from aion.training import train

SIZES = [(1, 1), (8, 8), (20, 24), (37, 50), (64, 64), (96, 96), (97, 3)]


@pytest.fixture
def tokenizer() -> FieldTokenizer:
    return FieldTokenizer(width=16, depth=1).eval()


def draw(size: tuple[int, int], seed: int = 0) -> Field:
    """Draws three maps of discs, the second with a hole, the third not measured."""
    generator = torch.Generator().manual_seed(seed)
    row, column = torch.meshgrid(*(torch.linspace(-1, 1, n) for n in size), indexing="ij")
    centre = torch.rand(3, 2, 1, 1, generator=generator) - 0.5
    value = (0.5 - torch.hypot(row - centre[:, 0], column - centre[:, 1])).mul(8).sigmoid()
    value[1, : size[0] // 3] = math.nan
    value[2] = math.nan
    return Field(value, 0.2)


@pytest.mark.parametrize("size", SIZES)
def test_maps_of_any_size_are_decoded_on_their_pixels(tokenizer, size):
    field = draw(size)
    tokens = tokenizer.encode(field)
    decoded = tokenizer.decode(tokens, like=field)
    assert tokenizer.size == 1000
    assert decoded.value.shape == field.value.shape
    assert torch.equal(decoded.pixel_scale, field.pixel_scale)
    assert decoded.measured[0].all()
    assert not decoded.measured[2].any()
    assert (decoded.measured >= field.measured).all()  # all of a patch of which something is measured
    known = decoded.value[decoded.measured]
    assert known.min() >= 0
    assert known.max() <= 1
    assert tokens.position.abs().max() <= 0.2 * (max(size) / 2 + 8)


def by_place(tokens: Tokens) -> dict:
    """Returns the id at each position of the first object."""
    places = [(round(row, 4), round(column, 4)) for row, column in tokens.position[0].tolist()]
    pairs = zip(places, tokens.ids[0].tolist(), tokens.valid[0].tolist(), strict=True)
    return {place: number for place, number, valid in pairs if valid}


@pytest.mark.parametrize("size", [(8, 8), (37, 50), (64, 64)])
def test_margins_change_no_token(tokenizer, size):
    field = draw(size)
    tokens = tokenizer.encode(field)
    framed = tokenizer.encode(Field.stack([field, Field(torch.rand(1, 110, 90), 0.2)])[:3])
    for row in range(2):
        a, b = (by_place(t[row]) for t in (tokens, framed))
        assert a == b


def test_what_is_not_measured_has_no_token_and_no_influence(tokenizer):
    field = draw((64, 64))
    tokens = tokenizer.encode(field)
    assert tokens.valid.sum(1).tolist() == [64, 48, 0]
    value = field.value.clone()
    value[0, :16] = math.nan
    loss = tokenizer.loss(Field(value))["divergence"]
    one, two = tokenizer.loss(Field(value[:2])), tokenizer.loss(field)
    torch.testing.assert_close(one["divergence"], loss)
    assert two["divergence"] != loss


def test_tokens_may_come_in_any_order_and_with_holes(tokenizer):
    field = draw((64, 64))
    tokens = tokenizer.encode(field)
    decoded = tokenizer.decode(tokens, like=field)
    order = torch.randperm(64, generator=torch.Generator().manual_seed(0))
    again = tokenizer.decode(Tokens(tokens.ids[:, order], tokens.position[:, order], tokens.valid[:, order]), field)
    torch.testing.assert_close(again.value, decoded.value, rtol=0, atol=0, equal_nan=True)
    fewer = tokenizer.decode(Tokens(tokens.ids[:, 1:], tokens.position[:, 1:], tokens.valid[:, 1:]), field)
    assert (~fewer.measured[0]).sum() == 64
    assert not fewer.measured[0, :8, :8].any()


def test_the_divergence_is_that_of_bernoulli_distributions_and_0_for_a_perfect_answer(tokenizer, monkeypatch):
    field = draw((16, 16))
    value, known = tokenizer._prepare(field)
    logits = torch.randn(value.shape, generator=torch.Generator().manual_seed(0))
    monkeypatch.setattr(tokenizer, "_decode", lambda *_: logits)
    expected = torch.distributions.kl_divergence(
        torch.distributions.Bernoulli(probs=value), torch.distributions.Bernoulli(logits=logits)
    )
    torch.testing.assert_close(tokenizer.loss(field)["divergence"], expected[known > 0].mean())
    monkeypatch.setattr(tokenizer, "_decode", lambda *_: value.logit(1e-6))
    assert tokenizer.loss(field)["divergence"].abs() < 1e-5
    assert tokenizer.loss(field)["mse"] < 1e-9


def test_it_learns():
    tokenizer = FieldTokenizer(patch=4, width=16, depth=1, levels=[5, 5, 5])
    before = tokenizer.loss(draw((32, 32)))["mse"]
    train(tokenizer, lambda step: draw((32, 32), seed=step % 20), steps=60, lr=5e-3)
    assert tokenizer.loss(draw((32, 32)))["mse"] < 0.2 * before


def test_saved_and_loaded_elsewhere_it_gives_the_same_tokens(tokenizer, tmp_path, root):
    field = draw((37, 50))
    tokens = tokenizer.encode(field)
    state = {f"state.{name}": value.contiguous() for name, value in tokenizer.state_dict().items()}
    save_file({"ids": tokens.ids, "value": field.value, **state}, tmp_path / "all")
    code = f"""
import json, torch
from safetensors.torch import load_file
from aion import Field
from aion.tokenizers import build
given = load_file({str(tmp_path / "all")!r})
tokenizer = build(json.loads({json.dumps(tokenizer.config)!r})).eval()
tokenizer.load_state_dict({{k[6:]: v for k, v in given.items() if k.startswith("state.")}})
assert torch.equal(tokenizer.encode(Field(given["value"], 0.2)).ids, given["ids"])
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr


def test_embeddings_are_zero_where_nothing_was_measured(tokenizer):
    vectors, there = tokenizer.embed(draw((64, 64)))
    assert vectors.shape == (3, 64, 4)
    assert torch.equal(there, tokenizer.encode(draw((64, 64))).valid)
    assert (vectors[~there] == 0).all()
    assert (vectors[there] != 0).any()


@pytest.mark.parametrize(
    ("action", "error", "message"),
    [
        (lambda t, f: t.encode(Field([[[0.5]], [[1.5]]])), ValueError, r"row 1: wanted values from 0 to 1, given 1\.5"),
        (lambda t, f: t.loss(Field([[[-0.1]]])), ValueError, r"row 0: wanted values from 0 to 1, given -0\.1"),
        (lambda t, f: t.encode(Scalar([1.0])), TypeError, "wanted Field, given Scalar"),
        (lambda t, f: t.decode(t.encode(f)), ValueError, "give like="),
        (lambda t, f: t.decode(t.encode(f), f[:2]), ValueError, "as many objects as the tokens, 3, given 2"),
        (lambda t, f: t.decode(t.encode(f), draw((8, 8))), ValueError, "is no patch of like, which has 8 x 8 pixels"),
        (
            lambda t, f: t.decode(Tokens(t.encode(f).ids + 1000, t.encode(f).position, t.encode(f).valid), f),
            ValueError,
            r"field tokens: ids must lie in \[0, 1000\)",
        ),
        (lambda t, f: FieldTokenizer(patch=0), ValueError, "a patch of at least 1 pixel, given 0"),
        (lambda t, f: FieldTokenizer(levels=[1]), ValueError, "at least 2 levels"),
    ],
)
def test_bad_input_is_refused(tokenizer, action, error, message):
    with pytest.raises(error, match=message):
        action(tokenizer, draw((64, 64)))
