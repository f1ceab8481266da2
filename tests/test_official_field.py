"""Segmentation maps: what the published package gives, and the right answer where that goes wrong."""

from pathlib import Path

import pytest
import torch

from safetensors.torch import load_file

from aion.field import Field
from aion.official.codecs import read_codecs
from aion.official.field import OfficialFieldTokenizer

DATA = Path(__file__).parent / "data" / "official"
NAME = "legacysurvey_segmentation_map"


@pytest.fixture(scope="module")
def expected() -> dict:
    return load_file(DATA / "codecs_expected.safetensors")


@pytest.fixture(scope="module")
def tokenizer() -> OfficialFieldTokenizer:
    return read_codecs(DATA / "tiny", [NAME])[NAME]


@pytest.mark.parametrize("parity", [False, True])
def test_tokens_and_values_are_the_published_ones(expected, parity):
    tokenizer = read_codecs(DATA / "tiny", [NAME], parity=parity)[NAME]
    tokens = tokenizer.encode(Field(expected["field"].float() * expected["field.step"]))
    assert torch.equal(tokens.ids, expected["field.ids"].long())
    decoded = tokenizer.decode(tokens).value
    assert decoded.shape == (1, 96, 96)
    torch.testing.assert_close(decoded[:, ::7, ::7], expected["field.decoded"], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("size", [(64, 64), (95, 10), (130, 96)])
def test_maps_of_any_size_are_centred(tokenizer, size):
    field = Field(torch.rand(2, *size))
    tokens = tokenizer.encode(field)
    assert tokens.ids.shape == (2, 144)
    decoded = tokenizer.decode(tokens, field)
    assert decoded.value.shape == field.value.shape
    framed = tokenizer.encode(Field.stack([field, Field(torch.zeros(1, 130, 96))]))
    assert torch.equal(framed.ids[:2], tokens.ids)
    assert torch.equal(framed.valid[:2], tokens.valid)


def test_values_beyond_0_to_1_are_refused_unless_in_parity_mode(tokenizer):
    wrong = Field([[[0.5]], [[1.5]]])
    with pytest.raises(ValueError, match=r"row 1: wanted values from 0 to 1, given 1\.5"):
        tokenizer.encode(wrong)
    assert read_codecs(DATA / "tiny", [NAME], parity=True)[NAME].encode(wrong).valid.all()


def test_decoded_values_lie_between_0_and_1(tokenizer):
    value = tokenizer.decode(tokenizer.encode(Field(torch.rand(4, 96, 96).round()))).value
    assert value.min() >= 0
    assert value.max() <= 1
    assert value.std() > 0


@pytest.mark.parametrize("halvings", [2, 3, 4])
def test_shapes(halvings):
    tokenizer = OfficialFieldTokenizer(16, 32, embedding_dim=4, res_hidden_dims=4, num_downsamples=halvings).eval()
    tokens = tokenizer.encode(Field(torch.rand(1, 96, 96)))
    assert tokens.ids.shape == (1, (96 // 2**halvings) ** 2)
    assert tokenizer.decode(tokens).value.shape == (1, 96, 96)
    ups = [m for m in tokenizer.decoder["net"] if isinstance(m, torch.nn.ConvTranspose2d)]
    assert [m.out_channels for m in ups] == [32, *(32 // 2 ** (halvings - 1 - i) for i in range(halvings - 1)), 1]


def test_running_means_of_weights_are_kept_and_not_used():
    tokenizer = OfficialFieldTokenizer(16, embedding_dim=4, res_hidden_dims=4, ema_model_weights=True).eval()
    assert len(tokenizer.state_dict()) == 114
    field = Field(torch.rand(1, 96, 96))
    before = tokenizer.encode(field).ids
    for parameter in tokenizer.ema.parameters():
        torch.nn.init.normal_(parameter)
    assert torch.equal(tokenizer.encode(field).ids, before)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"variational": True, "embedding_dim": 4}, ValueError, "no variational latent"),
        ({"embedding_dim": 6}, ValueError, "as many levels as dimensions"),
        ({}, ValueError, "given 16"),
        ({"embedding_dim": 4, "learning_rate": 1}, TypeError, r"unknown arguments \['learning_rate'\]"),
    ],
)
def test_bad_configurations_are_refused(change, error, message):
    with pytest.raises(error, match=message):
        OfficialFieldTokenizer(16, **change)
