"""Embedding rows: order, batches, faults, and what identifies the space."""

import numpy as np
import pytest
import torch

from aion.survey.embedder import Embedder
from aion.survey.source import Rows


@pytest.fixture
def rows(observations):
    count = len(observations["redshift"])
    return Rows(list("abcdef"), ["file"] * count, np.full((count, 2), np.nan), np.arange(-1, 5), observations, {})


def vectors(table):
    column = table.column("embedding").combine_chunks()
    return torch.tensor(np.array(column.flatten()).reshape(-1, column.type.list_size))


@pytest.mark.parametrize(("batch", "tokens"), [(None, 1), (None, 500), (2, 1), (None, 10**6)])
def test_order_and_values_do_not_depend_on_batches(tiny_model, rows, observations, batch, tokens):
    table = Embedder(tiny_model, batch_size=batch, tokens=tokens)(rows)
    assert table.column("object_id").to_pylist() == rows.ids
    torch.testing.assert_close(vectors(table), tiny_model.embed(observations), atol=1e-5, rtol=1e-5)
    assert table.column("healpix").to_pylist() == [None, 0, 1, 2, 3, 4]


def test_a_row_that_the_model_fails_on_is_marked(tiny_model, rows, observations, monkeypatch):
    embed, worst = tiny_model.embed_tokens, tiny_model.tokenize(observations).valid.sum(1).argmax().item()

    def fails(sequence, *options):
        if sequence.valid.sum(1).max() == tiny_model.tokenize(observations).valid.sum(1).max():
            msg = "out of luck\nand more"
            raise RuntimeError(msg)
        return embed(sequence, *options)

    expected = tiny_model.embed(observations)
    monkeypatch.setattr(tiny_model, "embed_tokens", fails)
    table = Embedder(tiny_model)(rows)
    status = table.column("status").to_pylist()
    assert status[worst] == "failed: out of luck"
    good = [i for i in range(6) if status[i] == "ok"]
    assert len(good) >= 4
    assert worst not in good
    torch.testing.assert_close(vectors(table.take(good)), expected[good], atol=1e-5, rtol=1e-5)


def test_an_embedding_that_is_not_finite_is_none(tiny_model, rows, monkeypatch):
    monkeypatch.setattr(tiny_model, "embed_tokens", lambda s, *_: torch.full((len(s), 32), torch.nan))
    assert set(Embedder(tiny_model)(rows).column("status").to_pylist()) == {"failed: embedding not finite"}


def test_predictions_from_nothing_else_are_null(tiny_model, rows, observations):
    only = rows._replace(observations={"redshift": observations["redshift"]})
    table = Embedder(tiny_model, predict=("redshift",))(only)
    assert table.column("redshift_mean").null_count == 6


def test_the_space_depends_on_layer_and_weights(tiny_model):
    facts = [Embedder(tiny_model, layer=layer).facts for layer in ("context", "encoder")]
    assert facts[0]["model_sha256"] == facts[1]["model_sha256"]
    assert facts[0]["space_sha256"] != facts[1]["space_sha256"]
    before = facts[0]["tokenizers_sha256"]
    with torch.no_grad():
        next(tiny_model.parts["spectrum"].parameters()).add_(1)
    assert Embedder(tiny_model).facts["tokenizers_sha256"] != before
