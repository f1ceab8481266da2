"""Properties that every published tokenizer must have, on the tiny ones that the published package wrote."""

import json

from pathlib import Path

import pytest
import torch

from aion import Catalog, Field, Image, Scalar, Spectrum
from aion.official.catalog import OfficialCatalogTokenizer
from aion.official.codecs import read_codecs
from aion.official.names import PUBLISHED

TINY = Path(__file__).parent / "data" / "official" / "tiny"
OBJECTS = 6
NAMES = [
    "desi_spectrum",
    "gaia_bp_coefficients",
    "hsc_image",
    "legacysurvey_catalog",
    "legacysurvey_ebv",
    "legacysurvey_flux_g",
    "legacysurvey_segmentation_map",
    "redshift",
]


@pytest.fixture(scope="module")
def shelf() -> dict:
    """Reads one tokenizer of each kind, and makes one for catalogues."""
    read = read_codecs(TINY, [name for name in NAMES if name != "legacysurvey_catalog"])
    catalog = OfficialCatalogTokenizer(vocabulary=3468)
    for table in ("SHAPE_E1", "SHAPE_E2", "SHAPE_R"):
        catalog.quantizer.quantizers[table].index_to_val.copy_(torch.linspace(-5, 5, 1024))
    return {**read, "legacysurvey_catalog": catalog}


@pytest.fixture
def official_observations(generator) -> dict:
    """Makes six objects, of which the third was not measured at all."""

    def draw(*shape: int) -> torch.Tensor:
        return torch.rand(OBJECTS, *shape, generator=generator)

    ivar, image_ivar, value, coefficients = draw(900) + 0.1, draw(5, 96, 96) + 0.1, draw(90, 101), draw(55)
    ivar[:, 300:360] = 0
    ivar[1, 400:] = 0
    image_ivar[1, 2] = 0
    image_ivar[3, :, :50] = 0
    value[4, :40] = torch.nan
    coefficients[5, 7:] = torch.nan
    objects = draw(5, 4)
    objects[:, :2] = objects[:, :2] * 24 - 12
    objects[1, :, 2] = torch.nan
    scalars = {name: draw() * 0.9 + 0.06 for name in ("legacysurvey_ebv", "legacysurvey_flux_g", "redshift")}
    for tensor, empty in ((ivar, 0), (image_ivar, 0), *((t, torch.nan) for t in (value, coefficients, objects))):
        tensor[2] = empty
    for scalar in scalars.values():
        scalar[2] = torch.nan
    wavelength = torch.linspace(3700, 9500, 900) + draw(1)
    return {
        "desi_spectrum": Spectrum(5 + 4 * draw(900), ivar, wavelength),
        "hsc_image": Image(draw(5, 96, 96) - 0.3, image_ivar, tuple(f"hsc-{band}" for band in "grizy")),
        "legacysurvey_catalog": Catalog(*objects.movedim(1, 0)),
        "legacysurvey_segmentation_map": Field(value),
        "gaia_bp_coefficients": Scalar(coefficients),
        **{name: Scalar(scalar) for name, scalar in scalars.items()},
    }


@pytest.fixture(params=NAMES)
def pair(request, shelf, official_observations):
    return shelf[request.param], official_observations[request.param], PUBLISHED[request.param]


def tensors(observation) -> dict:
    return {key: value.clone() for key, value in vars(observation).items() if isinstance(value, torch.Tensor)}


def test_ids_fit_the_published_vocabulary_and_positions_the_published_grid(pair):
    tokenizer, observation, published = pair
    tokens = tokenizer.encode(observation)
    assert tokenizer.size == published.vocabulary >= tokenizer.codes
    assert tokens.ids[tokens.valid].min() >= 0
    assert tokens.ids[tokens.valid].max() < tokenizer.codes
    assert tokens.ids.shape[1] == (20 if published.codec == "CatalogCodec" else published.tokens)
    row, column = tokens.position.unbind(-1)
    assert row.max() < published.grid[0]
    assert column.max() < published.grid[1]
    assert torch.equal(tokens.position, tokens.position.round())


def test_what_was_not_measured_has_no_token(pair):
    tokenizer, observation, _ = pair
    seen = observation.measured.reshape(OBJECTS, -1).any(1)
    assert torch.equal(tokenizer.encode(observation).valid.any(1), seen)
    assert seen.tolist() == [True, True, False, True, True, True]


def test_one_object_alone_is_the_same_as_in_a_batch_in_any_order(pair):
    tokenizer, observation, _ = pair
    together = tokenizer.encode(observation)
    order = torch.tensor([3, 5, 0, 2, 1, 4])
    shuffled = tokenizer.encode(observation[order])
    assert torch.equal(shuffled.ids, together.ids[order])
    for i in range(OBJECTS):
        alone = tokenizer.encode(observation[i])
        assert torch.equal(alone.ids[0], together.ids[i])
        assert torch.equal(alone.valid[0], together.valid[i])


def test_nothing_of_the_callers_is_written_to(pair):
    tokenizer, observation, _ = pair
    before = tensors(observation)
    once = tokenizer.encode(observation)
    tokenizer.decode(once, like=observation)
    for key, value in before.items():
        assert torch.equal(value.nan_to_num(), getattr(observation, key).nan_to_num())
    assert torch.equal(tokenizer.encode(observation).ids, once.ids)  # a second time gives the same


def test_decoded_observations_have_the_grid_asked_for_whatever_the_order_of_tokens(pair):
    tokenizer, observation, _ = pair
    tokens = tokenizer.encode(observation)
    decoded = tokenizer.decode(tokens, like=observation)
    assert type(decoded) is type(observation)
    assert decoded.measured.shape == observation.measured.shape
    assert not decoded.measured[2].any()
    assert decoded.measured[0].any()
    order = torch.randperm(tokens.ids.shape[1])
    shuffled = type(tokens)(tokens.ids[:, order], tokens.position[:, order], tokens.valid[:, order])
    again = tokenizer.decode(shuffled, like=observation)
    for key, value in tensors(decoded).items():
        assert torch.equal(value.nan_to_num(), getattr(again, key).nan_to_num())


def test_config_is_json_and_builds_the_same_tokenizer(pair):
    tokenizer, observation, _ = pair
    config = json.loads(json.dumps(tokenizer.config))
    assert config.pop("kind") == tokenizer.kind
    assert tokenizer.kind.startswith("official-")
    twin = type(tokenizer)(**config)
    twin.load_state_dict(tokenizer.state_dict())
    assert torch.equal(twin.eval().encode(observation).ids, tokenizer.encode(observation).ids)


def test_parity_gives_every_place_a_token(pair):
    tokenizer, observation, _ = pair
    config = {key: value for key, value in tokenizer.config.items() if key != "kind"}
    twin = type(tokenizer)(**{**config, "parity": True})
    twin.load_state_dict(tokenizer.state_dict())
    tokens, own = twin.eval().encode(observation), tokenizer.encode(observation)
    if isinstance(observation, Catalog):  # has a place for each object that there is
        assert torch.equal(tokens.valid, own.valid)
    else:
        assert tokens.valid.all()
    whole = own.valid.all(1) & observation.measured.reshape(OBJECTS, -1).all(1)
    assert torch.equal(tokens.ids[whole], own.ids[whole])


def test_gradients_of_the_loss_reach_every_parameter(pair):
    tokenizer, observation, _ = pair
    loss = tokenizer.loss(observation)["loss"]
    assert torch.isfinite(loss)
    if parameters := dict(tokenizer.named_parameters()):
        loss.backward()
        assert not [name for name, p in parameters.items() if p.grad is None or p.grad.abs().sum() == 0]
        tokenizer.zero_grad()


def test_codebook_has_a_different_vector_for_each_id(pair):
    tokenizer, _, published = pair
    book = tokenizer.codebook(32)  # the width of a transformer, which all tokenizers are told
    assert len(book.unique(dim=0)) == len(book) == published.vocabulary


def test_description_names_the_kind_of_observation(pair):
    tokenizer, observation, _ = pair
    assert tokenizer.describe().startswith(type(observation).__name__)


def test_another_kind_of_observation_is_refused(pair):
    tokenizer, observation, _ = pair
    other = Scalar([1.0]) if not isinstance(observation, Scalar) else Field([[[1.0]]])
    with pytest.raises(TypeError, match=f"wanted {type(observation).__name__}, given {type(other).__name__}"):
        tokenizer.encode(other)


def test_ids_beyond_the_vocabulary_are_refused(pair):
    tokenizer, observation, published = pair
    tokens = tokenizer.encode(observation)
    for shift in (published.vocabulary, -published.vocabulary):
        wrong = type(tokens)(tokens.ids + shift, tokens.position, tokens.valid)
        with pytest.raises(ValueError, match=rf"ids must lie in \[0, {published.vocabulary}\)"):
            tokenizer.decode(wrong, like=observation)


def test_another_number_of_objects_to_decode_on_is_refused(pair):
    tokenizer, observation, _ = pair
    with pytest.raises(ValueError, match="like= of as many objects as the tokens, 6, given 1"):
        tokenizer.decode(tokenizer.encode(observation), like=observation[0])


def test_ids_that_are_no_integers_are_refused(pair):
    tokenizer, observation, _ = pair
    tokens = tokenizer.encode(observation)
    with pytest.raises(TypeError, match="wanted integer ids"):
        type(tokens)(tokens.ids + 0.9, tokens.position, tokens.valid)


def test_a_vocabulary_that_is_too_small_is_refused(pair):
    tokenizer, _, _ = pair
    config = {key: value for key, value in tokenizer.config.items() if key != "kind"}
    twin = type(tokenizer)(**{**config, "vocabulary": 5})
    with pytest.raises(ValueError, match="the vocabulary has room for 5"):
        twin.verify()
