"""Catalogues: what the published package gives, and the right answer where that goes wrong."""

import math

from pathlib import Path

import numpy as np
import pytest
import torch

from safetensors.torch import load_file

from aion.catalog import Catalog
from aion.official.catalog import OFFSET, OfficialCatalogTokenizer
from aion.tokens import Tokens

DATA = Path(__file__).parent / "data" / "official"


@pytest.fixture(scope="module")
def expected() -> dict:
    return load_file(DATA / "codecs_expected.safetensors")


@pytest.fixture
def tokenizer(expected) -> OfficialCatalogTokenizer:
    tokenizer = OfficialCatalogTokenizer(vocabulary=3468)
    for name, table in zip(("SHAPE_E1", "SHAPE_E2", "SHAPE_R"), expected["catalog.tables"], strict=True):
        tokenizer.quantizer.quantizers[name].index_to_val.copy_(table)
    return tokenizer


@pytest.fixture
def catalog(expected) -> Catalog:
    shapes = expected["catalog.shapes"].float() * expected["catalog.shapes.step"]
    columns = torch.cat([arcsec(expected["catalog.pixels"]), shapes])
    return Catalog(*columns.masked_fill(expected["catalog.absent"], math.nan))


def arcsec(pixel: torch.Tensor) -> torch.Tensor:
    """Returns the offset from the target of a pixel of the published stamp."""
    return (pixel - 48) * 0.262


def draw(objects: int, batch: int = 2) -> Catalog:
    return Catalog(*arcsec(torch.randint(0, 96, (2, batch, objects))), *torch.rand(3, batch, objects) - 0.5)


def test_tokens_are_the_published_ones_and_204(tokenizer, catalog, expected):
    tokens, codes = tokenizer.encode(catalog), expected["catalog.ids"].long()
    present = codes != 9999
    assert torch.equal(tokens.valid, present)
    assert torch.equal(tokens.ids[present], codes[present] + OFFSET)


def test_decoded_objects_are_the_published_ones(tokenizer, catalog, expected):
    decoded = tokenizer.decode(tokenizer.encode(catalog))
    columns = torch.stack([getattr(decoded, n) for n in ("x", "y", "e1", "e2", "r")])
    present = ~expected["catalog.absent"]
    for row, there in enumerate(present):
        wanted = expected["catalog.decoded"][:, row, there].clone()
        wanted[:2] = arcsec(wanted[:2])
        assert torch.equal(columns[:, row, : there.sum()], wanted)  # without the holes
        assert columns[:, row, there.sum() :].isnan().all()


def test_ids_lie_in_the_ranges_of_the_vocabulary(tokenizer):
    ids = tokenizer.encode(draw(10)).ids.unflatten(1, (10, 5))
    for part, (low, high) in enumerate(((204, 299), (300, 395), (396, 1419), (1420, 2443), (2444, 3467))):
        assert ids[..., part].min() >= low
        assert ids[..., part].max() <= high
    assert tokenizer.codes == tokenizer.size == 3468


def test_positions_count_the_tokens_that_are_there(tokenizer, catalog):
    tokens = tokenizer.encode(catalog)
    for row in range(len(tokens)):
        count = int(tokens.valid[row].sum())
        assert tokens.position[row][tokens.valid[row]].tolist() == [[0, n] for n in range(count)]


def test_more_than_ten_objects_are_refused_unless_in_parity_mode(tokenizer):
    tokenizer.encode(draw(10))
    long = Catalog.stack([draw(3, 1), draw(11, 1)])
    with pytest.raises(ValueError, match="row 1 has 11 objects: the published models take 10 at most"):
        tokenizer.encode(long)
    parity = OfficialCatalogTokenizer(parity=True)
    assert parity.encode(long).valid.sum(1).tolist() == [15, 55]


def test_padding_does_not_count(tokenizer):
    padded = Catalog.stack([draw(2), Catalog(*torch.full((5, 1, 30), math.nan))])
    tokens = tokenizer.encode(padded)
    assert tokens.valid.sum(1).tolist() == [10, 10, 0]
    assert tokenizer.decode(tokens).x.shape == (3, 2)


@pytest.mark.parametrize("pixel", [-1.0, 96.0])
def test_objects_outside_the_stamp_are_refused(tokenizer, pixel):
    columns = np.zeros((5, 2, 3))
    columns[1, 1, 2] = arcsec(pixel)
    with pytest.raises(
        ValueError, match=r"object 2 of row 1 .* outside the published stamp of 96 x 96 pixels of 0.262"
    ):
        tokenizer.encode(Catalog(*columns))


def test_positions_are_rounded_to_the_nearest_pixel(tokenizer):
    x, rest = torch.tensor([[-0.13, 0.0, 0.13, 0.14]]), torch.zeros(4, 1, 4)
    assert tokenizer.encode(Catalog(x, *rest)).ids[0, ::5].tolist() == [204 + 48, 204 + 48, 204 + 48, 204 + 49]


def test_shapes_beyond_the_tables_are_reported(tokenizer):
    with pytest.warns(UserWarning, match="shapes beyond the published tables"):
        ids = tokenizer.encode(Catalog([[arcsec(3)]], [[arcsec(4)]], [[99.0]], [[-99.0]], [[0.0]])).ids[0]
    assert ids[:4].tolist() == [207, 304, 1419, 1420]


def test_an_object_with_a_token_missing_or_out_of_place_is_none(tokenizer):
    tokens = tokenizer.encode(draw(3, 1))
    missing, misplaced = tokens.valid.clone(), tokens.ids.clone()
    missing[0, 7] = False
    misplaced[0, 11] = 204  # an x where the y must be
    for ids, valid, there in (
        (tokens.ids, missing, [True, False, True]),
        (misplaced, tokens.valid, [True, True, False]),
    ):
        assert tokenizer.decode(Tokens(ids, tokens.position, valid)).measured[0].tolist() == there


def test_a_damaged_table_is_refused(tokenizer):
    tokenizer.verify()
    tokenizer.quantizer.quantizers["X"].codebook_size.fill_(64)
    with pytest.raises(ValueError, match=r"wanted 96 pixels, given \[64, 96\]"):
        tokenizer.verify()
