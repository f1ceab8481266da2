"""Catalogues come back within half a bin, whatever their length and order."""

import json
import math
import subprocess
import sys

import pytest
import torch

from safetensors.torch import save_file

from aion import AION, Catalog
from aion.observations import Scalar
from aion.tokenizers import CatalogTokenizer, ScalarTokenizer
from aion.tokens import Tokens

NAMES = ("x", "y", "e1", "e2", "r")


def draw(batch: int, objects: int, seed: int = 0, spread: float = 8.0) -> Catalog:
    """Draws galaxies and points, some objects missing, one row without any."""
    generator = torch.Generator().manual_seed(seed)
    x, y = spread * torch.randn(2, batch, objects, generator=generator)
    e1, e2 = 0.2 * torch.randn(2, batch, objects, generator=generator).clamp(-4, 4)
    r = torch.randn(batch, objects, generator=generator).exp()
    point = torch.rand(batch, objects, generator=generator) < 0.3
    there = torch.rand(batch, objects, generator=generator) < 0.8
    there[batch // 2] = False
    columns = (x, y, *(value.masked_fill(point, 0) for value in (e1, e2, r)))
    return Catalog(*(value.masked_fill(~there, math.nan) for value in columns))


@pytest.fixture(scope="module")
def tokenizer() -> CatalogTokenizer:
    return CatalogTokenizer().fit(draw(200, 40, seed=1))


def rows(catalog: Catalog, row: int) -> torch.Tensor:
    """Returns the ellipses of a row `(K, 5)`, sorted by all their values."""
    values = torch.stack([getattr(catalog, name)[row] for name in NAMES], dim=1)[catalog.measured[row]]
    return values[torch.tensor(sorted(range(len(values)), key=lambda i: values[i].tolist()), dtype=torch.long)]


@pytest.mark.parametrize("objects", [1, 5, 40, 300])
def test_ellipses_come_back_within_half_a_bin(tokenizer, objects):
    catalog = draw(6, objects)
    decoded = tokenizer.decode(tokenizer.encode(catalog))
    assert torch.equal(decoded.measured.sum(1), catalog.measured.sum(1))
    for row in range(6):
        given, found = rows(catalog, row), rows(decoded, row)
        if len(given) == 0:
            continue
        nearest = (given[:, None, :2] - found[:, :2]).abs().amax(-1).argmin(1)
        if objects < 300:  # beyond that several may share the steps of a place
            assert len(nearest.unique()) == len(given)
            found = found[nearest]
            assert ((given - found)[:, :2].abs() <= 0.5 / 512 + 1e-6).all()
            for i, name in enumerate(NAMES[2:], 2):
                table = getattr(tokenizer, name)
                bins = torch.searchsorted(table.edges[0, 1:-1].contiguous(), given[:, i].contiguous(), right=True)
                if name == "r":
                    width, error = table.edges[0].double().div(0.5).asinh().diff(), 0.0
                    error = (given[:, i].double().div(0.5).asinh() - found[:, i].double().div(0.5).asinh()).abs()
                else:
                    width, error = table.edges[0].double().diff(), (given[:, i] - found[:, i]).abs()
                assert (error <= width[bins] / 2 + 1e-6).all()


def test_points_come_back_as_points(tokenizer):
    point = Catalog([[0.3]], [[0.4]], [[0.0]], [[0.0]], [[0.0]])
    decoded = tokenizer.decode(tokenizer.encode(point))
    assert (decoded.e1.item(), decoded.e2.item(), decoded.r.item()) == (0, 0, 0)


def test_nothing_fits_in_more_than_12_bits_and_nearly_all_ids_are_used(tokenizer):
    assert tokenizer.size == 2**12
    tokens = tokenizer.encode(draw(2000, 40, seed=2))
    used = tokens.ids[tokens.valid].unique().numel()
    assert used / tokenizer.size > 0.9


def test_positions_are_on_the_sky_and_no_two_are_the_same(tokenizer):
    catalog = draw(6, 60, spread=2.0)
    tokens = tokenizer.encode(catalog)
    decoded = tokenizer.decode(tokens, like=catalog)
    first = tokens.position.unflatten(1, (-1, 5))[:, :, 0]
    there = tokens.valid[:, ::5]
    assert torch.equal(there, decoded.measured)
    offset = torch.stack([decoded.y, decoded.x], dim=-1) - first
    assert (offset[there].abs() <= 1).all()
    for row in range(6):
        place = tokens.position[row][tokens.valid[row]]
        assert len(place.unique(dim=0)) == len(place)


def test_tokens_begin_at_the_target(tokenizer):
    decoded = tokenizer.decode(tokenizer.encode(draw(6, 40)))
    distance = decoded.x.square() + decoded.y.square()
    assert (distance.nan_to_num(math.inf).diff(dim=1).nan_to_num(0) >= -1e-4).all()


def test_the_order_in_which_objects_are_given_does_not_matter(tokenizer):
    catalog = draw(6, 40)
    twin = [torch.cat([getattr(catalog, name), getattr(catalog, name)], dim=1) for name in NAMES]  # all ties
    twin[2][:, 40:] += 0.01
    for columns in ([getattr(catalog, name) for name in NAMES], twin):
        order = torch.randperm(columns[0].shape[1], generator=torch.Generator().manual_seed(0))
        a, b = tokenizer.encode(Catalog(*columns)), tokenizer.encode(Catalog(*(c[:, order] for c in columns)))
        assert torch.equal(a.ids, b.ids)
        assert torch.equal(a.position, b.position)
        assert torch.equal(a.valid, b.valid)


def test_what_was_decoded_has_the_same_tokens_again(tokenizer):
    tokens = tokenizer.encode(draw(6, 60, spread=2.0))
    again = tokenizer.encode(tokenizer.decode(tokens))
    assert torch.equal(tokens.ids[tokens.valid], again.ids[again.valid])
    assert torch.equal(tokens.position[tokens.valid], again.position[again.valid])


def test_tokens_may_come_in_any_order_and_with_holes(tokenizer):
    tokens = tokenizer.encode(draw(6, 12))
    decoded = tokenizer.decode(tokens)
    order = torch.randperm(60, generator=torch.Generator().manual_seed(0))
    again = tokenizer.decode(Tokens(tokens.ids[:, order], tokens.position[:, order], tokens.valid[:, order]))
    for name in NAMES:
        torch.testing.assert_close(getattr(again, name), getattr(decoded, name), rtol=0, atol=0, equal_nan=True)
    valid = tokens.valid.clone()
    valid[0, 7] = False
    fewer = tokenizer.decode(Tokens(tokens.ids, tokens.position, valid))
    assert fewer.measured.sum(1).tolist()[0] == decoded.measured[0].sum() - 1
    assert torch.equal(fewer.measured.sum(1)[1:], decoded.measured.sum(1)[1:])


def test_a_catalogue_has_the_tokens_it_has_in_any_batch(tokenizer):
    short, long = draw(3, 4), draw(3, 30, seed=5)
    together = tokenizer.encode(Catalog.stack([short, long]))
    alone = tokenizer.encode(short)
    assert torch.equal(together.ids[:3, :20], alone.ids)
    assert torch.equal(together.position[:3, :20], alone.position)
    assert together.valid[:3, 20:].sum() == 0


def test_only_the_ids_of_its_part_are_possible_at_a_position(tokenizer):
    tokens = tokenizer.encode(draw(3, 10))
    possible = tokenizer.possible(tokens.position)
    assert possible.shape == (3, 50, 4096)
    assert possible.gather(2, tokens.ids[..., None])[tokens.valid].all()
    assert possible[tokens.valid].sum(1).unflatten(0, (-1, 5))[0].tolist() == [512, 512, 1024, 1024, 1024]


def test_fitting_a_stream_is_fitting_all_at_once():
    catalog = draw(50, 20)
    once = CatalogTokenizer(bins=64).fit(catalog).state_dict()
    parts = CatalogTokenizer(bins=64).fit(catalog[i : i + 7] for i in range(0, 50, 7)).state_dict()
    assert all(torch.equal(once[key], parts[key]) for key in once)


def test_a_model_reads_catalogues_saves_them_and_fills_gaps_with_what_is_possible(tokenizer, tmp_path):
    redshift = ScalarTokenizer(bins=16).fit(Scalar(torch.linspace(0, 1, 50)))
    shape = {"dim": 32, "heads": 4, "encoder_depth": 1, "decoder_depth": 1}
    parts = {"catalog": tokenizer, "redshift": redshift}
    model = AION(parts, {"legacysurvey_catalog": "catalog", "redshift": "redshift"}, shape).eval()
    catalog, value = draw(4, 6)[[0, 1, 3]], Scalar([0.1, 0.2, 0.3])
    given = {"legacysurvey_catalog": catalog, "redshift": value}
    model.save_pretrained(tmp_path / "bundle")
    loaded = AION.from_pretrained(tmp_path / "bundle", device="cpu")
    torch.testing.assert_close(loaded.embed(given), model.embed(given))
    guess = model.reconstruct({"redshift": value[:1]}, "legacysurvey_catalog", like=catalog[:1])
    assert torch.equal(guess.measured.sum(1), catalog.measured[:1].sum(1))
    drawn = model.generate({"redshift": value}, "legacysurvey_catalog", like=catalog, steps=3)[0]
    assert torch.equal(drawn.measured.sum(1), catalog.measured.sum(1))


def test_saved_and_loaded_elsewhere_it_gives_the_same_tokens(tokenizer, tmp_path, root):
    catalog = draw(4, 10)
    tokens = tokenizer.encode(catalog)
    state = {f"state.{name}": value for name, value in tokenizer.state_dict().items()}
    columns = {f"column.{name}": getattr(catalog, name) for name in NAMES}
    save_file({"ids": tokens.ids, "position": tokens.position, **state, **columns}, tmp_path / "all")
    code = f"""
import json, torch
from safetensors.torch import load_file
from aion import Catalog
from aion.tokenizers import build
given = load_file({str(tmp_path / "all")!r})
tokenizer = build(json.loads({json.dumps(tokenizer.config)!r}))
tokenizer.load_state_dict({{k[6:]: v for k, v in given.items() if k.startswith("state.")}})
tokens = tokenizer.encode(Catalog(**{{k[7:]: v for k, v in given.items() if k.startswith("column.")}}))
assert torch.equal(tokens.ids, given["ids"]) and torch.equal(tokens.position, given["position"])
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr


def test_many_objects_in_one_place_are_encoded_up_to_a_stated_number(tokenizer):
    crowd = torch.linspace(0.1, 0.9, 16)[None]
    catalog = Catalog(crowd, crowd, crowd * 0, crowd * 0, crowd)
    assert tokenizer.decode(tokenizer.encode(catalog)).measured.sum() == 16
    crowd = torch.linspace(0.1, 0.9, 17)[None]
    pair = Catalog.stack([draw(1, 2, seed=3), Catalog(crowd, crowd, crowd * 0, crowd * 0, crowd)])
    with pytest.raises(
        ValueError, match=r"row 1 has more than 16 objects within 1 arcsec of each other near \(0.0, 0.0\)"
    ):
        tokenizer.encode(pair)


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        ("x", 4096.0, "object 1 of row 0: wanted x from -4096 to 4096, given 4096"),
        ("y", -5000.0, "wanted y from -4096 to 4096, given -5000"),
        ("e1", 1.2, "wanted e1 from -1 to 1, given 1.2"),
        ("e2", -1.01, "wanted e2 from -1 to 1, given -1.01"),
        ("r", -0.1, "wanted r from 0 to 1000, given -0.1"),
        ("r", 2000.0, "wanted r from 0 to 1000, given 2000"),
    ],
)
def test_what_is_no_ellipse_is_refused_by_name(tokenizer, column, value, message):
    columns = {name: torch.full((2, 3), 0.5) for name in NAMES}
    columns[column][0, 1] = value
    for action in (tokenizer.encode, tokenizer.fit, tokenizer.loss):
        with pytest.raises(ValueError, match=message):
            action(Catalog(**columns))


def change(tokens: Tokens, what: str) -> Tokens:
    ids, position, valid = tokens.ids.clone(), tokens.position.clone(), tokens.valid.clone()
    if what == "size":
        ids[0, 0] = 4096
    elif what == "part":
        ids[0, 1] = 0
    elif what == "between":
        position[0, 0, 1] += 0.75
    elif what == "twice":
        position[0, 5:10], ids[0, 5:10] = position[0, :5], ids[0, :5]
    return Tokens(ids, position, valid)


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("size", r"catalog tokens: ids must lie in \[0, 4096\), given 4096"),
        ("part", r"no token at \(.*\) may have the id 0; see possible\(\)"),
        ("between", "no token at .* may have the id"),
        ("twice", "two tokens of one object have the same position"),
    ],
)
def test_tokens_that_mean_nothing_are_refused(tokenizer, what, message):
    tokens = tokenizer.encode(Catalog(*torch.rand(5, 1, 3)))
    with pytest.raises(ValueError, match=message):
        tokenizer.decode(change(tokens, what))


@pytest.mark.parametrize(
    ("action", "error", "message"),
    [
        (lambda: CatalogTokenizer(steps=1), ValueError, "steps, bins >= 2"),
        (lambda: CatalogTokenizer(cell=0), ValueError, "cell, largest > 0"),
        (lambda: CatalogTokenizer().fit(Scalar([1.0, 2.0])), TypeError, "wanted Catalog, given Scalar"),
        (
            lambda: CatalogTokenizer().fit(Catalog(*torch.zeros(5, 1, 3))),
            ValueError,
            "e1: .*wanted at least two different values, given 3 values",
        ),
        (
            lambda: CatalogTokenizer().fit(Catalog(*torch.full((5, 1, 3), math.nan))),
            ValueError,
            "given 0 values",
        ),
    ],
)
def test_bad_input_is_refused(action, error, message):
    with pytest.raises(error, match=message):
        action()
