"""Images: bands by name, stamps of any size, missing bands, finer patches where they pay."""

import math
import os

from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch

from aion import Image
from aion.observations import BANDS
from aion.sky import Sky
from aion.tokenizers import ImageTokenizer
from aion.tokenizers.bands import expected_noise
from aion.tokenizers.store import load
from aion.tokens import Tokens


@pytest.fixture(params=["image", "octaves"])
def tokenizer(request, tokenizers):
    return tokenizers[request.param].eval()


@pytest.fixture
def octaves(tokenizers):
    return tokenizers["octaves"].eval()


def draw(bands=("decam-g", "decam-r"), size=(16, 16), objects=2) -> Image:
    shape = (objects, len(bands), *size)
    return Image(torch.randn(shape), torch.ones(shape), bands)


def test_order_of_bands_does_not_matter(tokenizer):
    image = draw()
    swapped = Image(image.flux.flip(1), image.ivar, image.bands[::-1])
    assert torch.equal(tokenizer.encode(image).ids, tokenizer.encode(swapped).ids)


def test_a_missing_band_is_the_same_as_an_unmeasured_one(tokenizer):
    image = draw()
    more = Image(
        torch.cat([image.flux, torch.full((2, 1, 16, 16), 1e6)], 1),
        torch.cat([image.ivar, torch.zeros(2, 1, 16, 16)], 1),
        (*image.bands, "decam-z"),
    )
    assert torch.equal(tokenizer.encode(image).ids, tokenizer.encode(more).ids)


@pytest.mark.parametrize("size", [(1, 1), (3, 9), (16, 20), (97, 33)])
def test_stamps_of_any_size_keep_their_size(tokenizer, size):
    image = draw(size=size)
    tokens = tokenizer.encode(image)
    rows, columns = (
        n // 2 // 4 - (n // 2 - n) // 4 + bool(n // 2 % 4) for n in size
    )  # patches from the middle outward
    coarse = tokens.valid & (tokens.ids < tokenizer.quantizers[0].size)
    assert coarse.sum().item() == 2 * rows * columns
    assert tokenizer.decode(tokens, like=image).flux.shape == image.flux.shape


@pytest.mark.parametrize("size", [(16, 16), (15, 18), (7, 7)])
@pytest.mark.parametrize("larger", [(16, 18), (17, 19), (30, 41)])
def test_the_stamp_it_is_stacked_with_does_not_change_the_tokens_of_an_image(tokenizer, size, larger):
    image = draw(size=size)
    stacked = Image.stack([image, draw(size=larger)])[:2]
    inner, outer = tokenizer.encode(image), tokenizer.encode(stacked)
    assert torch.equal(outer.ids[outer.valid], inner.ids[inner.valid])
    torch.testing.assert_close(outer.position[outer.valid], inner.position[inner.valid])


def test_positions_are_offsets_in_arcsec(tokenizer):
    image = Image(torch.randn(1, 1, 16, 16), torch.ones(1, 1, 16, 16), ("decam-r",), pixel_scale=0.5)
    position = tokenizer.encode(image).position[0]
    assert position.mean(0).abs().max() < 1e-6
    assert position[0].tolist() == [-3.0, -3.0]
    assert position[1].tolist() == [-3.0, -1.0]


def test_bands_can_be_rendered_that_were_not_given(tokenizer):
    image, like = draw(("decam-r",)), draw(("decam-z", "decam-g"))
    decoded = tokenizer.decode(tokenizer.encode(image), like=like)
    assert decoded.bands == ("decam-z", "decam-g")
    assert decoded.measured.all()


def test_softening_is_the_noise_of_each_band(tokenizer):
    image = draw()
    noisy = Image(
        image.flux, torch.stack([torch.full((2, 16, 16), 4.0), torch.full((2, 16, 16), 100.0)], 1), image.bands
    )
    tokenizer.fit(noisy)
    assert tokenizer.softening[:2].tolist() == pytest.approx([0.5, 0.1])


def test_the_usual_noise_of_a_band_is_that_of_its_survey():
    """The flux of a point source, fitted with 4 pi sigma^2 pixels, has the published 5-sigma depth."""
    pixels = 4 * math.pi * (1.25 / 2.3548 / 0.262) ** 2
    assert 22.5 - 2.5 * math.log10(5 * expected_noise("decam-g") * pixels**0.5) == pytest.approx(24.7)
    tokenizer = ImageTokenizer(bands=["decam-g", "hsc-y"])
    assert tokenizer.softening.tolist() == pytest.approx([expected_noise("decam-g"), expected_noise("hsc-y")])


def test_tokens_may_come_in_any_order(tokenizer, generator):
    image = draw()
    tokens = tokenizer.encode(image)
    order = torch.randperm(tokens.ids.shape[1], generator=generator)
    shuffled = Tokens(tokens.ids[:, order], tokens.position[:, order], tokens.valid[:, order])
    first, second = (tokenizer.decode(each, like=image) for each in (tokens, shuffled))
    assert torch.equal(first.flux, second.flux)
    assert torch.equal(first.ivar, second.ivar)


def test_tokens_decode_onto_a_larger_stamp(tokenizer):
    image, larger = draw(), draw(size=(32, 40))
    tokens = tokenizer.encode(image)
    inner, outer = tokenizer.decode(tokens, like=image), tokenizer.decode(tokens, like=larger)
    torch.testing.assert_close(outer.flux[:, :, 8:24, 12:28], inner.flux)
    assert outer.measured.sum() == inner.measured.sum()


def test_pixels_that_were_not_measured_influence_nothing(tokenizer):
    image = draw()
    image.ivar[:, 0, 2:7, 3:9] = 0
    flux = image.flux.masked_fill(image.ivar == 0, 1e6)
    first, second = (tokenizer.encode(Image(x, image.ivar, image.bands)) for x in (image.flux, flux))
    assert torch.equal(first.ids, second.ids)
    assert torch.equal(first.valid, second.valid)


def bright(objects=2) -> Image:
    """Makes a point source of 50 sigma on faint noise, away from the middle."""
    image = draw(size=(32, 32), objects=objects)
    flux = 0.1 * image.flux
    flux[:, :, 21, 10] += 50.0
    return Image(flux, image.ivar, image.bands)


def silent(tokenizer: ImageTokenizer) -> ImageTokenizer:
    """Keeps the codes from saying anything, which leaves all there is to finer tokens."""
    with torch.no_grad():
        for octave in tokenizer.octaves:
            octave.head.shared.zero_()
            octave.head_bias.shared.zero_()
    return tokenizer.eval()


def kinds(tokenizer: ImageTokenizer, tokens: Tokens) -> list[torch.Tensor]:
    """Tells of each octave, and last of spots, which tokens are theirs."""
    starts = tokenizer.patches.starts
    return [tokens.valid & (tokens.ids >= a) & (tokens.ids < b) for a, b in pairwise(starts)]


def test_finer_tokens_stand_only_where_there_is_more_to_say(octaves):
    octaves = silent(octaves)
    tokens = octaves.encode(bright())
    coarse, second, third, spots = kinds(octaves, tokens)
    assert (coarse | second | third | spots).equal(tokens.valid)
    assert coarse.sum(1).tolist() == [64, 64]
    for fine in (second, third):
        assert fine.sum(1).tolist() == [1, 1]
        centre = torch.tensor([[(21 // 2 + 0.5) * 2 - 16, (10 // 2 + 0.5) * 2 - 16]] * 2)
        torch.testing.assert_close(tokens.position[fine], centre * 0.262)
    assert (spots.sum(1) > 0).all()
    centre = torch.tensor([21 - 15.5, 10 - 15.5]) * 0.262
    first = spots.to(torch.uint8).argmax(1)
    torch.testing.assert_close(tokens.position[[0, 1], first], centre.expand(2, 2))


@pytest.mark.parametrize(("height", "limit"), [(0.3, 1.1), (1e2, 1.5), (1e3, 2.0)])
def test_what_the_codes_cannot_say_the_spots_do(generator, height, limit):
    """A source that the codes say nothing of: hardly more than noise is left, and its light is kept."""
    tokenizer = silent(ImageTokenizer(width=8, depth=1, spots=2000))
    at = torch.arange(32) - 15.2
    shape = torch.exp(-0.5 * (at[:, None] ** 2 / 3 + (at + 0.5 * at[:, None]) ** 2 / 5))
    noise = tokenizer.softening[:2, None, None]
    true = height * noise * shape * torch.tensor([1.0, 3.0])[:, None, None]
    ivar = 1 / (noise**2 + 1e-4 * noise * true)
    image = Image(
        (true + torch.randn(true.shape, generator=generator) * ivar.rsqrt())[None], ivar[None], ("decam-g", "decam-r")
    )
    decoded = tokenizer.decode(tokenizer.encode(image), like=image)
    assert ((image.flux - decoded.flux) ** 2 * image.ivar).mean() < limit
    if height > 1:
        torch.testing.assert_close(decoded.flux.sum((2, 3))[0], true.sum((1, 2)), rtol=0.02, atol=0)


@pytest.mark.parametrize("patch", [8, [8, 4], [8, 8, 4, 2]])
@pytest.mark.parametrize("spots", [0, 50])
def test_what_is_decoded_is_what_training_saw(patch, spots):
    tokenizer = ImageTokenizer(patch=patch, width=8, depth=1, spots=spots, basis=2, informed=True).eval()
    image = bright()
    flux, ivar, bands = tokenizer._prepare(image)
    with torch.no_grad():
        steps = tokenizer._steps(flux, ivar, bands, image.pixel_scale)
        tokens = tokenizer.encode(image)
        coded = kinds(tokenizer, tokens)
        decoded = tokenizer.decode(replace(tokens, valid=sum(coded[: len(steps)]) > 0), like=image)
    assert all(step.kept.any() for step in steps)
    torch.testing.assert_close(decoded.flux, steps[-1].state.model)
    torch.testing.assert_close(decoded.ivar, steps[-1].state.error ** -2)


def test_the_places_of_tokens_do_not_depend_on_the_flux(octaves, observations):
    given = observations["legacysurvey_image"]
    place = octaves.places(given)
    bright = octaves.places(Image(given.flux * 1000 + 7, given.ivar, given.bands, given.pixel_scale))
    assert torch.equal(place.valid, bright.valid)
    assert torch.equal(place.position, bright.position)
    tokens = octaves.encode(given)
    count = place.valid.shape[1]
    assert torch.equal(place.valid, tokens.valid[:, :count])
    assert torch.equal(place.position, tokens.position[:, :count])
    assert octaves.encode(given).valid.shape[1] > count


def test_the_coarsest_tokens_alone_decode(octaves):
    image = bright()
    tokens = octaves.encode(image)
    coarse = replace(tokens, valid=tokens.valid & (tokens.ids < octaves.quantizers[0].size))
    decoded = octaves.decode(coarse, like=image)
    assert decoded.measured.all()
    assert not torch.equal(decoded.flux, octaves.decode(tokens, like=image).flux)


def test_the_noise_is_told(octaves):
    image = draw()
    noisier = Image(image.flux, image.ivar * 0.01, image.bands)
    assert not torch.allclose(octaves.embed(image)[0], octaves.embed(noisier)[0])


def test_pixels_without_information_influence_little(octaves):
    """As the error of half of the pixels grows, the tokens become those of the other half alone."""
    image = draw(size=(32, 32))
    half = torch.arange(32) < 16
    known = octaves.embed(Image(image.flux, image.ivar * half, image.bands))[0]
    step = [
        (octaves.embed(Image(image.flux, torch.where(half, image.ivar, ivar), image.bands))[0][:, :64] - known[:, :64])
        .unflatten(1, (8, 8))[:, :, :2]
        .abs()
        .max()
        .item()
        for ivar in (1.0, 1e-4, 1e-12)
    ]
    assert step[2] <= step[1] <= step[0]


def test_the_size_of_the_pixels_is_told(octaves):
    image = draw()
    assert not torch.allclose(octaves.embed(image)[0], octaves.embed(replace(image, pixel_scale=0.5))[0])


class TestBandsNeverTrainedOn:
    def test_they_are_read_and_rendered(self, octaves):
        image, empty = draw(("panstarrs-g", "panstarrs-i")), torch.zeros(2, 3, 16, 16)
        like = Image(empty, empty, ("panstarrs-r", "sdss-z", "decam-g"), image.pixel_scale)
        decoded = octaves.decode(octaves.encode(image), like=like)
        assert decoded.bands == ("panstarrs-r", "sdss-z", "decam-g")
        assert decoded.measured.all()

    def test_they_have_the_weights_of_their_wavelength(self, octaves, monkeypatch):
        """Untrained corrections are zero, so a band at the wavelength of another has its weights."""
        stem = octaves.octaves[0].stem
        monkeypatch.setitem(BANDS, "panstarrs-g", BANDS["decam-g"])
        assert torch.equal(stem(["panstarrs-g"]), stem(["decam-g"]))
        with torch.no_grad():
            stem.own.normal_()
        assert not torch.allclose(stem(["panstarrs-g"]), stem(["decam-g"]))

    def test_their_weights_lie_between_those_of_their_neighbours(self, octaves, monkeypatch):
        stem = octaves.octaves[0].stem
        weights = {}
        for wavelength in (4842.0, 5100.0, 6439.0):
            monkeypatch.setitem(BANDS, "panstarrs-g", wavelength)
            weights[wavelength] = stem(["panstarrs-g"])
        near, far = ((weights[5100.0] - weights[other]).norm() for other in (4842.0, 6439.0))
        assert 0 < near < far

    def test_the_trunk_does_not_change(self, octaves):
        """Reading them takes no parameter that a tokenizer of other bands lacks, except corrections."""
        config = {k: v for k, v in octaves.config.items() if k != "kind"}
        other = ImageTokenizer(**{**config, "bands": ["hsc-g", "hsc-y"]}).state_dict()
        mine = octaves.state_dict()
        assert {k for k in mine if mine[k].shape != other[k].shape} == {
            k for k in mine if k == "softening" or k.endswith(".own")
        }

    def test_without_a_basis_they_are_refused(self, tokenizers):
        with pytest.raises(ValueError, match="does not read 'panstarrs-g'"):
            tokenizers["image"].encode(draw(("panstarrs-g",)))


def test_hidden_bands_are_hidden_while_training_alone(octaves):
    image = draw(objects=40)
    shown = octaves._hide(image.ivar, torch.Generator().manual_seed(0))
    some = (shown > 0).flatten(2).all(2)
    assert 0 < (~some).float().mean() < 0.3
    assert some.any(1).all()
    assert octaves.loss(image, torch.Generator().manual_seed(0))["loss"] != octaves.loss(image)["loss"]
    assert octaves._hide(image.ivar, None) is image.ivar


def test_bad_input_is_refused(tokenizer):
    image = draw()
    tokens = tokenizer.encode(image)
    with pytest.raises(ValueError, match="does not read 'wise-w1'"):
        tokenizer.encode(draw(("wise-w1",)))
    with pytest.raises(ValueError, match="give like="):
        tokenizer.decode(tokens)
    with pytest.raises(ValueError, match=r"one at .* arcsec is no patch of like, which has 8 x 8 pixels of 0.262"):
        tokenizer.decode(tokens, like=draw(size=(8, 8)))
    with pytest.raises(ValueError, match=r"is no patch of like, which has 16 x 16 pixels of 0.3"):
        tokenizer.decode(tokens, like=replace(image, pixel_scale=0.3))
    with pytest.raises(ValueError, match="ids must lie in"):
        tokenizer.decode(Tokens(tokens.ids + 1000, tokens.position, tokens.valid), like=image)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"bands": ["decam-q"]}, "unknown band 'decam-q'"),
        ({"patch": [6, 2]}, "each as large as the one before or half"),
        ({"patch": [2, 4]}, "each as large as the one before or half"),
        ({"patch": [4, 2], "width": [8]}, "a width, a depth and levels for each"),
        ({"patch": [4, 2], "levels": [[5, 5]]}, "a width, a depth and levels for each"),
        ({"patch": []}, "wanted patches"),
        ({"patch": 6, "spots": 9}, "a multiple of 4"),
        ({"patch": [4, 2, 1], "spots": 9}, "a last that is even"),
        ({"spots": -1}, "spots=-1"),
    ],
)
def test_bad_configurations_are_refused(config, message):
    with pytest.raises(ValueError, match=message):
        ImageTokenizer(**config)


@pytest.fixture(scope="module")
def shipped():
    return load("image")


class TestShipped:
    """What the shipped tokenizer keeps of simulated and real stamps."""

    @pytest.mark.parametrize(("name", "limit"), [("legacysurvey_image", 1.08), ("hsc_image", 1.12)])
    def test_galaxies_keep_their_light(self, shipped, name, limit):
        objects = torch.arange(24)
        sky = Sky(seed=5, modalities=[name], galaxies=1.0, max_redshift=0.6, complete=True)
        image, clean = (sky.observe(objects, noise=noise)[name] for noise in (True, False))
        decoded = shipped.decode(shipped.encode(image), like=image)
        chi2 = ((image.flux - decoded.flux) ** 2 * image.ivar).flatten(1).sum(1) / image.measured.flatten(1).sum(1)
        assert chi2.median() < limit
        size = image.flux.shape[2]
        near = (torch.arange(size) - (size - 1) / 2) * image.pixel_scale[0]
        near = near[:, None] ** 2 + near**2 < 16
        light, true = ((x.flux[:, 1] * near).sum((1, 2)) for x in (decoded, clean))
        sure = (true > 5) & image.measured[:, 1].flatten(1).any(1)
        assert (light / true - 1)[sure].abs().median() < 0.04

    def test_bands_never_trained_on_lose_little(self, shipped):
        """The same pixels under the name of a survey that no training had."""
        sky = Sky(seed=5, modalities=["legacysurvey_image"], galaxies=1.0, max_redshift=0.6, complete=True)
        image = sky.observe(torch.arange(24))["legacysurvey_image"]
        chi2 = {}
        for survey in ("decam", "panstarrs"):
            given = Image(image.flux, image.ivar, tuple(f"{survey}-{b[-1]}" for b in image.bands), image.pixel_scale)
            decoded = shipped.decode(shipped.encode(given), like=given)
            value = ((given.flux - decoded.flux) ** 2 * given.ivar).flatten(1).sum(1)
            chi2[survey] = (value / given.measured.flatten(1).sum(1)).median().item()
        assert chi2["panstarrs"] < chi2["decam"] + 0.3

    @pytest.mark.skipif("AION_LOCAL_DATA" not in os.environ, reason="AION_LOCAL_DATA names no folder")
    def test_a_real_field_of_hsc_keeps_its_light(self, shipped):
        """The cut-out of the COSMOS field in the test data of scarlet (MIT): counts with a zero point of 27."""
        path = Path(os.environ["AION_LOCAL_DATA"]) / "hsc_cosmos.npz"
        if not path.is_file():
            pytest.skip(f"no {path}")
        file = np.load(path, allow_pickle=False)
        flux = torch.as_tensor(file["images"] * 10 ** (-0.4 * 4.5))[None]
        sigma = 1.4826 * flux.diff(dim=2).abs().flatten(2).median(2).values / 2**0.5
        ivar = (sigma**-2)[..., None, None].expand_as(flux)
        image = Image(flux, ivar, tuple(f"hsc-{band}" for band in file["filters"]))
        decoded = shipped.decode(shipped.encode(image), like=image)
        chi2 = ((image.flux - decoded.flux) ** 2 * ivar).mean().item()
        assert chi2 < 1.1
        light, true = (x.sum((2, 3)) for x in (decoded.flux, image.flux))
        torch.testing.assert_close(light, true, rtol=0.25, atol=0)  # faint colours are mixed up to that
