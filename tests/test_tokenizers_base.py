"""Properties that every tokenizer must have."""

import json

from dataclasses import replace

import pytest
import torch

from aion import Catalog, Field, Scalar, Spectrum
from aion.observations import Observation
from aion.tokenizers import CatalogTokenizer, FieldTokenizer, build
from aion.tokenizers.base import correlation_penalty, gaussian_nll, spread_penalty

KINDS = ["image", "octaves", "redshift", "spectrum", "vector"]
MODALITY = {
    "image": "legacysurvey_image",
    "octaves": "legacysurvey_image",
    "redshift": "redshift",
    "spectrum": "desi_spectrum",
    "vector": "gaia_bp_coefficients",
}


def catalogs(generator: torch.Generator) -> tuple[CatalogTokenizer, Catalog]:
    place, shape = 3 * torch.randn(2, 6, 9, generator=generator), torch.rand(3, 6, 9, generator=generator)
    columns = torch.cat([place, shape])
    columns[:, 2], columns[:, 4, 3:] = torch.nan, torch.nan
    catalog = Catalog(*columns)
    return CatalogTokenizer(steps=32, bins=16).fit(catalog), catalog


def fields(generator: torch.Generator) -> tuple[FieldTokenizer, Field]:
    value = torch.rand(6, 20, 24, generator=generator)
    value[2], value[4, :, :12] = torch.nan, torch.nan
    return FieldTokenizer(patch=4, width=16, depth=1, levels=[5, 5, 4]), Field(value)


OTHERS = {"catalog": catalogs, "field": fields}  # which the small model of the other tests does not read


@pytest.fixture(params=[*KINDS, *OTHERS])
def pair(request, tokenizers, observations, generator):
    if request.param in OTHERS:
        tokenizer, observation = OTHERS[request.param](generator)
        return tokenizer.eval(), observation
    return tokenizers[request.param].eval(), observations[MODALITY[request.param]]


def clone(observation: Observation) -> dict[str, torch.Tensor]:
    return {k: v.clone() for k, v in vars(observation).items() if isinstance(v, torch.Tensor)}


def seen(observation: Observation) -> torch.Tensor:
    return observation.measured.reshape(len(observation), -1).any(1)


def test_ids_are_in_range_and_unmeasured_objects_have_no_token(pair):
    tokenizer, observation = pair
    tokens = tokenizer.encode(observation)
    assert tokens.ids[tokens.valid].min() >= 0
    assert tokens.ids[tokens.valid].max() < tokenizer.size
    assert torch.equal(tokens.valid.any(1), seen(observation))


def test_one_object_alone_is_the_same_as_in_a_batch(pair):
    tokenizer, observation = pair
    together = tokenizer.encode(observation)
    for i in range(len(observation)):
        alone = tokenizer.encode(observation[i])
        for one, other in ((alone.ids, together.ids), (alone.position, together.position)):
            assert torch.equal(one[0][alone.valid[0]], other[i][together.valid[i]])


@pytest.mark.parametrize("factor", [1e-37, 1e36])
def test_numbers_near_the_ends_of_float32_have_tokens_or_are_refused(pair, factor):
    tokenizer, observation = pair
    if isinstance(observation, Catalog | Field):
        changed = {key: v * factor for key, v in vars(observation).items() if key != "pixel_scale"}
        extreme = replace(observation, **changed)
        if factor > 1:
            with pytest.raises(ValueError, match=r"row 0: wanted .* given .*e\+"):
                tokenizer.encode(extreme)
            return
    elif isinstance(observation, Scalar):
        extreme = Scalar(observation.value * factor)
    else:
        ivar = (observation.ivar.double() * 1e36).clamp(max=1e37)
        extreme = replace(observation, flux=observation.flux * factor, ivar=ivar)
    if isinstance(observation, Spectrum):
        with pytest.raises(ValueError, match=r"row 0: the median of \|flux\| is .* is it in erg/s/cm2/A\?"):
            tokenizer.encode(extreme)
        extreme = replace(extreme, flux=observation.flux)  # the extreme ivar alone
    tokens = tokenizer.encode(extreme)
    assert torch.equal(tokens.valid.any(1), seen(observation))
    assert tokens.ids[tokens.valid].min() >= 0
    assert tokens.ids[tokens.valid].max() < tokenizer.size


def test_order_of_objects_does_not_matter(pair):
    tokenizer, observation = pair
    order = torch.tensor([3, 5, 0, 2, 1, 4])
    assert torch.equal(tokenizer.encode(observation[order]).ids, tokenizer.encode(observation).ids[order])


def test_nothing_of_the_callers_is_written_to(pair):
    tokenizer, observation = pair
    before = clone(observation)
    tokenizer.decode(tokenizer.encode(observation), like=observation)
    tokenizer.loss(observation)
    for key, value in before.items():
        assert torch.equal(value.nan_to_num(), getattr(observation, key).nan_to_num())


def test_decoded_observations_have_the_grid_asked_for(pair):
    tokenizer, observation = pair
    decoded = tokenizer.decode(tokenizer.encode(observation), like=observation)
    assert type(decoded) is type(observation)
    assert decoded.measured.shape == observation.measured.shape
    assert torch.equal(
        decoded.measured.reshape(len(decoded), -1).any(1), observation.measured.reshape(len(observation), -1).any(1)
    )


def test_config_is_json_and_builds_the_same_tokenizer(pair):
    tokenizer, observation = pair
    twin = build(json.loads(json.dumps(tokenizer.config)))
    twin.load_state_dict(tokenizer.state_dict())
    assert torch.equal(twin.encode(observation).ids, tokenizer.encode(observation).ids)
    assert twin.size == tokenizer.size


def test_gradients_reach_every_parameter(pair):
    tokenizer, observation = pair
    if parameters := dict(tokenizer.named_parameters()):
        tokenizer.loss(observation, torch.Generator().manual_seed(0))["loss"].backward()
        assert not [name for name, p in parameters.items() if p.grad is None or p.grad.abs().sum() == 0]


def test_loss_is_finite_and_named(pair):
    tokenizer, observation = pair
    assert torch.isfinite(tokenizer.loss(observation)["loss"])


def test_codebook_has_a_different_vector_for_each_id(pair):
    tokenizer, _ = pair
    book = tokenizer.codebook()
    assert book.shape[0] == tokenizer.size
    assert len(book.unique(dim=0)) == tokenizer.size


def test_description_names_the_kind_of_observation(pair):
    tokenizer, observation = pair
    assert tokenizer.describe().startswith(type(observation).__name__)


def test_another_kind_of_observation_is_refused(pair):
    tokenizer, observation = pair
    other = Scalar([1.0]) if isinstance(observation, Spectrum) else Spectrum([[1.0]], [[1.0]], [[5000.0]])
    with pytest.raises(TypeError, match=f"wanted {type(observation).__name__}, given {type(other).__name__}"):
        tokenizer.encode(other)


def test_what_tokens_cannot_be_decoded_on_is_refused(pair):
    tokenizer, observation = pair
    tokens = tokenizer.encode(observation)
    for like in (observation[:2], observation[[0]]):
        with pytest.raises(ValueError, match=f"like= of as many objects as the tokens, 6, given {len(like)}"):
            tokenizer.decode(tokens, like=like)
    with pytest.raises(TypeError, match=f"wanted {type(observation).__name__}, given str"):
        tokenizer.decode(tokens, like="grid")
    for shift in (tokenizer.size, -tokenizer.size):
        with pytest.raises(ValueError, match=rf"ids must lie in \[0, {tokenizer.size}\)"):
            tokenizer.decode(replace(tokens, ids=tokens.ids + shift), like=observation)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"kind": "spectrm"}, "unknown kind of tokenizer 'spectrm'; known: catalog, field, image, scalar, spectrum"),
        ({"kind": "scalar", "binz": 3}, "scalar tokenizer: .*binz"),
    ],
)
def test_bad_configurations_are_refused(config, message):
    with pytest.raises(ValueError, match=message):
        build(config)


def test_gaussian_nll_is_the_likelihood_ratio():
    residual, ivar, error = torch.tensor([0.3, -2.0, 5.0]), torch.tensor([4.0, 1.0, 0.0]), torch.tensor([0.5, 1.0, 2.0])
    measured = ivar > 0
    pixel = torch.distributions.Normal(torch.zeros(2), (1 / ivar[measured] + error[measured] ** 2).sqrt())
    perfect = torch.distributions.Normal(torch.zeros(2), ivar[measured].rsqrt())
    expected = perfect.log_prob(torch.zeros(2)) - pixel.log_prob(residual[measured])
    torch.testing.assert_close(gaussian_nll(residual, ivar, error), torch.cat([expected, torch.zeros(1)]))


def test_spread_penalty_is_zero_for_centred_latents_of_unit_variance():
    latent = torch.tensor([[1.0, -1.0], [-1.0, 1.0]])
    assert spread_penalty(latent).item() == pytest.approx(0, abs=1e-6)
    assert spread_penalty(latent + 3).item() == pytest.approx(9, rel=1e-5)
    assert spread_penalty(3 * latent).item() == pytest.approx(4, rel=1e-5)
    assert spread_penalty(latent[:1]).item() == 0


def test_correlation_penalty_is_the_mean_square_of_the_correlations(generator):
    latent = torch.randn(500, 4, generator=generator)
    latent[:, 3] = 2 * latent[:, 0] + 5
    matrix = torch.corrcoef(latent.T)
    expected = matrix[~torch.eye(4, dtype=torch.bool)].square().mean()
    assert correlation_penalty(latent).item() == pytest.approx(expected.item(), rel=1e-4)
    assert correlation_penalty(latent[:1]).item() == 0
    assert correlation_penalty(latent[:, :1]).item() == 0
