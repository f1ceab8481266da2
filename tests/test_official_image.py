"""The image tokenizer: what the published package gives, and the right answer where that goes wrong."""

from pathlib import Path

import numpy as np
import pytest
import torch

from safetensors.torch import load_file

from aion import Image
from aion.observations import BAND_ALIASES
from aion.official.codecs import read_codecs
from aion.official.image import BANDS, HSC_ZERO_POINT, LIMITS, OfficialImageTokenizer

DATA = Path(__file__).parent / "data" / "official"
DES = tuple(f"decam-{band}" for band in "griz")
HSC = tuple(f"hsc-{band}" for band in "grizy")
SEVEN = slice(None, None, 7)  # the pixels that are kept of what was decoded


@pytest.fixture(scope="module")
def expected() -> dict:
    return load_file(DATA / "codecs_expected.safetensors")


@pytest.fixture(scope="module")
def tokenizer() -> OfficialImageTokenizer:
    return read_codecs(DATA / "tiny", ["legacysurvey_image"])["legacysurvey_image"]


@pytest.fixture(scope="module")
def parity() -> OfficialImageTokenizer:
    return read_codecs(DATA / "tiny", ["hsc_image"], parity=True)["hsc_image"]


def given(expected: dict, name: str) -> torch.Tensor:
    return expected[name].float() * expected[f"{name}.step"]


def image(flux: torch.Tensor, bands=DES, ivar=None, scale=None) -> Image:
    return Image(flux, torch.ones_like(flux) if ivar is None else ivar, bands, scale)


@pytest.fixture
def legacy(expected) -> Image:
    return image(given(expected, "image.legacysurvey"))


@pytest.fixture
def hsc(expected) -> Image:
    return image(given(expected, "image.hsc_counts") / HSC_ZERO_POINT, HSC)


def same(tokens, ids: torch.Tensor) -> bool:
    return torch.equal(tokens.ids, ids.long())


def test_tokens_are_the_published_ones(parity, tokenizer, legacy, hsc, expected):
    for each in (parity, tokenizer):
        assert same(each.encode(legacy), expected["image.legacysurvey.ids"])
        assert same(each.encode(hsc), expected["image.hsc.ids"])


def test_decoded_flux_is_the_published_one(tokenizer, expected, legacy):
    like = image(torch.zeros(1, 4, 96, 96))
    for name in ("legacysurvey", "hsc"):
        tokens = tokenizer.encode(legacy)
        ids = expected[f"image.{name}.ids"].long()
        decoded = tokenizer.decode(type(tokens)(ids, tokens.position, tokens.valid), like)
        wanted = expected[f"image.{name}.decoded"]
        scale = wanted.abs().max().item()
        torch.testing.assert_close(decoded.flux[..., SEVEN, SEVEN], wanted, rtol=1e-5, atol=1e-5 * scale)
        assert decoded.measured.all()


def test_mixed_surveys_keep_the_unit_of_each_band_unless_in_parity_mode(parity, tokenizer, legacy, hsc, expected):
    flux = torch.cat([hsc.flux[:, :2], legacy.flux[:, :2, 2:98, 1:97]], 1)
    mixed = image(flux, (*HSC[:2], *DES[:2]), scale=0.2)
    swapped = image(flux.flip(1), mixed.bands[::-1], scale=0.2)
    assert same(parity.encode(mixed), expected["image.hsc_first.ids"])
    assert same(parity.encode(swapped), expected["image.des_first.ids"])
    assert torch.equal(tokenizer.encode(mixed).ids, tokenizer.encode(swapped).ids)
    assert not torch.equal(tokenizer.encode(mixed).ids, parity.encode(mixed).ids)


def test_hsc_bands_can_be_decoded_each_by_itself_or_all_at_once(tokenizer, hsc):
    tokens = tokenizer.encode(hsc)
    whole = tokenizer.decode(tokens, image(torch.zeros(1, 9, 96, 96), BANDS, scale=0.2))
    part = tokenizer.decode(tokens, hsc)
    torch.testing.assert_close(part.flux, whole.flux[:, :5], rtol=1e-4, atol=1e-6)
    assert torch.isfinite(whole.flux).all()


def test_the_callers_array_stays_as_it_is_and_so_do_the_tokens(tokenizer, hsc, legacy):
    for observation in (hsc, legacy):
        array = observation.flux.numpy().copy()
        first = tokenizer.encode(Image(array, np.ones_like(array), observation.bands))
        assert np.array_equal(array, observation.flux.numpy())
        assert torch.equal(first.ids, tokenizer.encode(Image(array, np.ones_like(array), observation.bands)).ids)


@pytest.mark.parametrize(("height", "width"), [(64, 64), (40, 96), (95, 95), (1, 1), (200, 50)])
def test_small_stamps_are_centred_in_unmeasured_pixels(tokenizer, height, width):
    stamp = image(torch.randn(2, 4, height, width))
    tokens = tokenizer.encode(stamp)
    assert tokens.ids.shape == (2, 576)
    framed = Image.stack([stamp, image(torch.zeros(1, 4, max(height, 96), max(width, 96)))])[:2]
    again = tokenizer.encode(framed)
    assert torch.equal(tokens.ids, again.ids)
    assert torch.equal(tokens.valid, again.valid)
    reach = [-(-min(size, 96) // 4) + 1 for size in (height, width)]  # patches that so many pixels touch at most
    assert 0 < tokens.valid[0].sum() <= reach[0] * reach[1]
    decoded = tokenizer.decode(tokens, stamp)
    assert decoded.flux.shape == stamp.flux.shape
    assert decoded.measured[..., height // 2, width // 2].all()


def test_only_the_central_pixels_of_a_large_stamp_count(tokenizer):
    flux = torch.randn(1, 4, 120, 120)
    other = flux.clone()
    other[..., :12, :] += 100
    assert torch.equal(tokenizer.encode(image(flux)).ids, tokenizer.encode(image(other)).ids)
    decoded = tokenizer.decode(tokenizer.encode(image(flux)), image(flux))
    assert decoded.measured[..., 12:108, 12:108].all()
    assert decoded.measured.sum() == 4 * 96 * 96


def test_nan_is_unmeasured_and_spoils_nothing_else(tokenizer):
    flux, ivar = torch.randn(2, 4, 96, 96), torch.ones(2, 4, 96, 96)
    flux[0, 2, 10, 10], ivar[0, 2, 10, 10] = torch.nan, 0
    tokens = tokenizer.encode(image(flux, ivar=ivar))
    assert tokens.valid.all()
    assert tokens.ids.min() >= 0
    assert tokens.ids.max() < 4375
    with pytest.raises(ValueError, match="flux must be finite where ivar > 0"):
        image(flux)


def test_what_lies_at_unmeasured_pixels_is_not_seen(tokenizer):
    flux, ivar = torch.randn(1, 4, 96, 96), torch.ones(1, 4, 96, 96)
    ivar[..., :30] = 0
    other = torch.where(ivar > 0, flux, 1e6)
    tokens = tokenizer.encode(image(flux, ivar=ivar))
    assert torch.equal(tokens.ids, tokenizer.encode(image(other, ivar=ivar)).ids)
    assert torch.equal(tokens.valid[0].unflatten(0, (24, 24)), (torch.arange(24) >= 7).expand(24, -1))


def test_an_unmeasured_band_is_the_same_as_an_absent_one_for_each_object(tokenizer, parity):
    flux, ivar = torch.randn(2, 4, 96, 96), torch.ones(2, 4, 96, 96)
    ivar[1, 2:] = 0
    both = tokenizer.encode(image(flux, ivar=ivar))
    assert torch.equal(both.ids[1:], tokenizer.encode(image(flux[1:, :2], DES[:2])).ids)
    assert torch.equal(both.ids[:1], tokenizer.encode(image(flux[:1])).ids)
    assert not torch.equal(parity.encode(image(flux, ivar=ivar)).ids[1], both.ids[1])  # counts it as a band of zeros


def test_limits_are_those_of_the_published_units(tokenizer):
    assert LIMITS["hsc-y"] == 500
    assert pytest.approx(63.0957, abs=1e-4) == HSC_ZERO_POINT
    bands = ("hsc-g", "decam-z")
    limit = torch.tensor([80 / HSC_ZERO_POINT, 25.0])[:, None, None]
    flux = torch.randn(1, 2, 96, 96) * 3 * limit
    assert (flux.abs() > limit).float().mean() > 0.5
    clamped = tokenizer.encode(image(flux.clamp(-limit, limit), bands, scale=0.2))
    assert torch.equal(clamped.ids, tokenizer.encode(image(flux, bands, scale=0.2)).ids)


@pytest.mark.parametrize("dtype", [np.float64, np.float16, np.int16, ">f4"])
def test_arrays_of_any_kind_are_read(tokenizer, legacy, dtype):
    array = (legacy.flux.numpy() * 10).round().astype(dtype)
    tokens = tokenizer.encode(Image(array, np.ones(array.shape), DES))
    assert torch.equal(tokens.ids, tokenizer.encode(image((legacy.flux * 10).round())).ids)


def test_tensors_that_share_memory_or_carry_gradients_are_read(tokenizer, legacy):
    whole = legacy.flux[:, :1].expand(-1, 4, -1, -1)
    tokens = tokenizer.encode(image(whole.clone().requires_grad_()))
    assert torch.equal(tokens.ids, tokenizer.encode(image(whole)).ids)
    assert not tokens.ids.requires_grad


def test_autocast_changes_few_tokens(tokenizer):
    observation = image(torch.randn(2, 4, 96, 96))
    with torch.autocast("cpu", torch.bfloat16):
        rounded = tokenizer.encode(observation)
    assert (rounded.ids == tokenizer.encode(observation).ids).float().mean() > 0.9


def test_any_band_of_the_nine_can_be_left_out(tokenizer):
    assert set(BANDS) == set(BAND_ALIASES.values())  # those of the published package
    for band in BANDS:
        assert tokenizer.encode(image(torch.randn(1, 1, 96, 96), (band,))).valid.all()


def test_bad_input_is_refused(tokenizer, legacy):
    tokens = tokenizer.encode(legacy)
    with pytest.raises(ValueError, match=r"does not read 'bass-g', only hsc-g, .*, decam-z"):
        tokenizer.encode(image(torch.zeros(1, 1, 96, 96), ("bass-g",)))
    with pytest.raises(ValueError, match="unknown band 'g'"):
        image(torch.zeros(1, 1, 96, 96), ("g",))
    with pytest.raises(ValueError, match="wanted 5 different bands"):
        image(torch.zeros(1, 5, 96, 96))
    with pytest.raises(ValueError, match="for one object use"):
        image(torch.zeros(4, 96, 96))
    with pytest.raises(ValueError, match="give like="):
        tokenizer.decode(tokens)
    with pytest.raises(ValueError, match="4 dimensions need as many levels"):
        OfficialImageTokenizer([7, 5, 5, 5, 5], embedding_dim=4)
