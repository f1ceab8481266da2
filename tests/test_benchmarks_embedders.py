"""What stands in a provenance as training data, and vectors of the parts of an image."""

import numpy as np
import pytest
import torch

from aion import AION, Image, Scalar
from aion.benchmarks.embedders import Frozen, trained_on
from aion.benchmarks.protocol import Masked
from aion.tokenizers import ImageTokenizer, ScalarTokenizer

BANDS = ("decam-g", "decam-r", "decam-z")


def test_data_sets_are_found_wherever_a_provenance_names_them():
    assert trained_on({}) == ()
    assert trained_on({"data": "simulated by aion.sky", "parts": {"a": {"steps": 3}}}) == ()
    assert trained_on({"trained_on": ["sdss-mgs", "desi"]}) == ("desi", "sdss-mgs")
    assert trained_on({"trained_on": "desi"}) == ("desi",)
    stars = {"stars": 760, "held_out": 184, "real": True}
    assert trained_on({"parts": {"spectrum": {"data": {"miles": stars}}}}) == ("miles but part 0",)
    assert trained_on({"data": {"miles": stars | {"held_out": 0}}}) == ("miles",)
    assert trained_on({"data": {"path": "MultimodalUniverse/desi", "objects": 24, "skipped": {}}}) == ("desi",)


@pytest.fixture(scope="module")
def model():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)  # noqa: TID251
        tokenizers = {"image": ImageTokenizer(bands=BANDS, patch=8, width=16, depth=1, levels=[4, 4])}
        tokenizers["z"] = ScalarTokenizer(bins=8).fit(Scalar(torch.linspace(0, 1, 20)))
        shape = {"dim": 16, "heads": 2, "encoder_depth": 1, "decoder_depth": 1}
        return AION(tokenizers, {"legacysurvey_image": "image", "z": "z"}, shape)


def test_vectors_of_parts_lie_where_the_parts_are(model):
    flux = torch.zeros(2, 3, 32, 48)
    ivar = torch.zeros_like(flux)
    ivar[:, :, :, 24:] = 1.0  # only the right half was measured
    image = Image(flux, ivar, BANDS)
    grid = Frozen(model, "tiny").grids({"legacysurvey_image": image}, 2)
    assert grid.shape == (2, 16, 2, 2)
    assert (grid[..., 0] == 0).all()
    assert (np.abs(grid[..., 1]).sum(1) > 0).all()
    vectors, valid = model.embed({"legacysurvey_image": image}, pool="none")
    np.testing.assert_allclose(grid[..., 1].mean(2), (vectors.sum(1) / valid.sum(1, keepdim=True)).numpy(), atol=1e-5)
    bright = Image(flux + 9, ivar, BANDS)
    masked = Masked(Frozen(model, "tiny")).grids({"legacysurvey_image": bright}, 2)
    np.testing.assert_array_equal(masked, grid)


def test_readouts_have_a_place_for_each_part_and_do_not_depend_on_batch_mates(model):
    flux = torch.rand(3, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    ivar = torch.ones_like(flux)
    ivar[2] = 0  # of the last only the number was measured
    both = {"legacysurvey_image": Image(flux, ivar, BANDS), "z": Scalar(torch.tensor([0.1, torch.nan, 0.7]))}
    found = Frozen(model, "tiny", attentive=True).readouts([], both)
    assert {name: value.shape for name, value in found.items()} == {
        "vectors": (3, 16),
        "mean": (3, 16),
        "parts": (3, 2 * 33),
        "tokens": (3, 17, 16),
    }
    np.testing.assert_allclose(found["vectors"], model.embed(both).numpy(), atol=1e-5)
    image, z = np.split(found["parts"], 2, axis=1)
    assert image[:, 0].tolist() == [1, 1, 0]
    assert z[:, 0].tolist() == [1, 0, 1]
    assert not image[2].any()
    assert not z[1].any()
    np.testing.assert_allclose(z[2, 17:], found["mean"][2], atol=1e-6)
    alone = Frozen(model, "tiny").readouts([], {name: value[1:2] for name, value in both.items()})
    np.testing.assert_allclose(alone["parts"][0], found["parts"][1], atol=1e-5)
    masked = Masked(Frozen(model, "tiny")).readouts([], both)["parts"]
    np.testing.assert_allclose(masked[0, :17], masked[1, :17], atol=1e-6)  # what enters


def test_published_checkpoints_are_read_out_as_ours_are(published_model, published_observations):
    found = Frozen(published_model, "published").readouts([], published_observations)
    assert found["mean"].shape == (2, published_model.dim)
    assert found["parts"].shape[1] % (2 * published_model.dim + 1) == 0
    assert all(np.isfinite(value).all() for value in found.values())
