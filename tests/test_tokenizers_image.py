"""Images: bands by name, stamps of any size, missing bands."""

import pytest
import torch

from aion import Image
from aion.tokenizers import ImageTokenizer
from aion.tokens import Tokens


@pytest.fixture
def tokenizer(tokenizers):
    return tokenizers["image"]


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
    assert tokens.valid.sum().item() == 2 * rows * columns
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


def test_bad_input_is_refused(tokenizer):
    image = draw()
    tokens = tokenizer.encode(image)
    with pytest.raises(ValueError, match="does not read 'hsc-g'; did you mean"):
        tokenizer.encode(draw(("hsc-g",)))
    with pytest.raises(ValueError, match="give like="):
        tokenizer.decode(tokens)
    with pytest.raises(ValueError, match="do not fill the 8 x 8 patches"):
        tokenizer.decode(tokens, like=draw(size=(32, 32)))
    with pytest.raises(ValueError, match="ids must lie in"):
        tokenizer.decode(Tokens(tokens.ids + 1000, tokens.position, tokens.valid), like=image)
    with pytest.raises(ValueError, match="unknown band 'decam-q'"):
        ImageTokenizer(bands=["decam-q"])
