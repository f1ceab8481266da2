"""The right answer, or one clear error, where the published package was seen to go wrong; see `docs/official.md`.

Here are the ways of going wrong that a whole model shows; `test_official_*.py` has those of its parts.
"""

import json
import math
import shutil

import numpy as np
import pytest
import torch

import aion

from aion import AION, Catalog, Field, Image, Scalar, Spectrum
from aion.observations import Observation
from aion.tokens import Tokens, TokenSequence

DES, HSC = (tuple(f"{survey}-{band}" for band in "griz") for survey in ("decam", "hsc"))
TOLERANCE = {"atol": 1e-5, "rtol": 1e-5}


@pytest.fixture
def model(published_model):
    return published_model


@pytest.fixture
def given(published_observations):
    return published_observations


def image(flux, bands=DES, ivar=None, scale=None) -> Image:
    return Image(flux, np.ones(tuple(flux.shape)) if ivar is None else ivar, bands, scale)


# ---- images


@pytest.mark.parametrize(
    "convert",
    [
        lambda x: x,
        lambda x: x.double(),
        lambda x: x.requires_grad_(),
        lambda x: x[:, :1].expand(-1, 4, -1, -1),
        lambda x: x.numpy(),
        lambda x: x.numpy().astype(">f8"),
        lambda x: x.numpy().astype(np.int16),
    ],
    ids=["float32", "float64", "gradient", "expanded", "numpy", "big-endian", "integers"],
)
@pytest.mark.parametrize(("name", "bands"), [("legacysurvey_image", DES), ("hsc_image", HSC)])
def test_an_image_is_never_written_to_and_gives_the_same_tokens_again(model, convert, name, bands):
    flux = convert(100 * torch.randn(1, 4, 160, 160))
    before = flux.copy() if isinstance(flux, np.ndarray) else flux.detach().clone()
    first, second = (model.tokenize({name: image(flux, bands)}).ids for _ in range(2))
    assert torch.equal(first, second)
    assert first.shape == (1, 576)
    assert (flux == before).all()


@pytest.mark.parametrize("size", [1, 40, 64, 95])
def test_a_small_image_is_one_in_a_frame_that_was_not_measured(model, size):
    flux = torch.randn(1, 4, size, size)
    framed = Image.stack([image(flux), image(torch.zeros(1, 4, 96, 96))])[0]
    x, valid = model.embed({"legacysurvey_image": image(flux)}, pool="none")
    y, also = model.embed({"legacysurvey_image": framed}, pool="none")
    assert torch.equal(valid, also)
    assert 0 < valid.sum() <= (-(-size // 4) + 1) ** 2
    torch.testing.assert_close(x, y, **TOLERANCE)


def test_one_bad_pixel_leaves_the_image_readable(model):
    flux, ivar = torch.randn(1, 4, 96, 96), torch.ones(1, 4, 96, 96)
    whole = model.tokenize({"legacysurvey_image": image(flux)})
    flux[0, 1, 50, 50], ivar[0, 1, 50, 50] = math.nan, 0
    masked = model.tokenize({"legacysurvey_image": image(flux, ivar=ivar)})
    assert masked.valid.all()
    assert masked.ids.shape == whole.ids.shape
    assert torch.isfinite(model.embed({"legacysurvey_image": image(flux, ivar=ivar)})).all()
    with pytest.raises(ValueError, match=r"finite where ivar > 0.*first at index \(0, 1, 50, 50\)"):
        image(flux)


@pytest.mark.parametrize(
    ("name", "bands", "right"), [("legacysurvey_image", HSC, "hsc_image"), ("hsc_image", DES, "legacysurvey_image")]
)
@pytest.mark.parametrize("parity", [True, False])
def test_an_image_under_the_name_of_another_survey_is_refused(model, repository, given, name, bands, right, parity):
    model = AION.from_pretrained(repository, device="cpu", parity=True) if parity else model
    wrong = image(torch.zeros(2, 4, 96, 96), bands)
    for ask in (
        lambda: model.embed({name: wrong}),
        lambda: model.reconstruct({"ra": given["ra"]}, name, like=wrong),
        lambda: model.generate({"ra": given["ra"]}, name, wrong),
    ):
        with pytest.raises(ValueError, match=rf"{name}: its bands are {bands[0]}, .*: give it as '{right}'"):
            ask()
    model.embed({right: wrong})


def test_the_published_names_of_bands_are_taken(model):
    flux = torch.randn(1, 4, 96, 96)
    published = image(flux, ("DES-G", "DES-R", "DES-I", "DES-Z"))
    ids = model.tokenize({"legacysurvey_image": published}).ids
    assert torch.equal(ids, model.tokenize({"legacysurvey_image": image(flux)}).ids)


def test_bands_of_two_surveys_keep_their_units_and_their_order_does_not_matter(model):
    flux, bands = torch.randn(1, 2, 96, 96), ("decam-g", "hsc-g")
    one = model.tokenize({"hsc_image": image(flux, bands, scale=0.2)})
    other = model.tokenize({"hsc_image": image(flux.flip(1), bands[::-1], scale=0.2)})
    assert torch.equal(one.ids, other.ids)


def test_an_hsc_image_comes_back_in_its_own_bands_and_unit(model):
    flux = torch.rand(1, 5, 96, 96)
    own = image(flux, tuple(f"hsc-{band}" for band in "grizy"))
    decoded = model.reconstruct({"hsc_image": own}, "hsc_image")
    assert decoded.bands == own.bands
    assert decoded.measured.all()
    one = model.reconstruct({"hsc_image": own}, "hsc_image", like=image(flux[:, 3:4], ("hsc-z",)))
    torch.testing.assert_close(one.flux, decoded.flux[:, 3:4], **TOLERANCE)


def test_several_images_are_a_stack_and_a_list_of_them_is_refused(model, given):
    images = list(given["legacysurvey_image"])
    for ask in (model.embed, model.tokenize, lambda o: model.predict(o, "redshift"), lambda o: model.generate(o, "ra")):
        with pytest.raises(TypeError, match=r"legacysurvey_image: wanted Image, given list: join .* with Image\.stack"):
            ask({"legacysurvey_image": images})
    together = model.embed({"legacysurvey_image": Image.stack(images)})
    alone = torch.cat([model.embed({"legacysurvey_image": one}) for one in images])
    torch.testing.assert_close(together, alone, **TOLERANCE)


# ---- spectra


@pytest.mark.parametrize("dtype", [torch.bool, torch.uint8, torch.int64, torch.float64])
def test_which_pixels_were_measured_may_be_said_in_any_type(model, given, dtype):
    spectrum = given["desi_spectrum"]
    good = torch.rand(spectrum.flux.shape) < 0.8
    bright = torch.where(good, spectrum.flux, 1e6)
    expected = model.tokenize({"desi_spectrum": Spectrum(spectrum.flux, good.float(), spectrum.wavelength)})
    found = model.tokenize({"desi_spectrum": Spectrum(bright, good.to(dtype), spectrum.wavelength)})
    assert torch.equal(found.ids, expected.ids)
    nothing = Spectrum(spectrum.flux, torch.zeros_like(good).to(dtype), spectrum.wavelength)
    with pytest.raises(ValueError, match="no token at all for row 0"):
        model.tokenize({"desi_spectrum": nothing})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda w: w.flip(0), "must not decrease"),
        (lambda w: w.log10(), "which is not Angstrom"),
        (lambda w: w / 1e4, "which is not Angstrom"),
        (lambda w: w / 10, "row 0: measured from 349 to 1048, but .* is the wavelength in nm or micron"),
        (lambda w: torch.where(w > 9000, math.nan, w), "must be finite and positive"),
    ],
    ids=["reversed", "log10", "micron", "nanometre", "nan"],
)
def test_wavelengths_that_are_not_increasing_angstrom_are_refused(model, given, change, message):
    spectrum = given["desi_spectrum"]
    with pytest.raises(ValueError, match=message):
        model.tokenize(
            {"desi_spectrum": Spectrum(spectrum.flux, spectrum.ivar, change(torch.linspace(3490, 10480, 900)))}
        )


def test_a_spectrum_has_no_flux_beyond_the_grid_of_the_tokenizer(model, given):
    wide = Spectrum(torch.ones(2, 500), torch.ones(2, 500), torch.linspace(3000, 12000, 500))
    decoded = model.reconstruct(given, "desi_spectrum", like=wide)
    outside = (wide.wavelength < 3500) | (wide.wavelength > 10462.4)
    assert not decoded.measured[outside].any()
    assert (decoded.flux[outside] == 0).all()


# ---- scalars and catalogues


@pytest.mark.parametrize("name", ["legacysurvey_ebv", "legacysurvey_flux_g", "redshift", "gaia_parallax"])
def test_a_scalar_that_is_nan_is_absent(model, given, name):
    sky = {"ra": given["ra"]}
    torch.testing.assert_close(model.embed({**sky, name: Scalar([math.nan] * 2)}), model.embed(sky), **TOLERANCE)
    with pytest.raises(ValueError, match="no token at all for row 1"):
        model.embed({name: Scalar([0.5, math.nan])})


def test_one_number_without_a_batch_is_refused():
    with pytest.raises(ValueError, match=r"must be \(B,\) or \(B, K\)"):
        Scalar(0.3)


def test_an_id_that_no_redshift_has_is_never_drawn_and_stands_for_nothing(model, given):
    tokenizer = model.tokenizer("redshift")
    assert tokenizer.codes < tokenizer.size == 1025
    drawn = model.generate({"ra": given["ra"]}, "redshift", members=100, temperature=1e6)
    assert all(member.measured.all() for member in drawn)
    beyond = Tokens(torch.tensor([[1024]]), torch.zeros(1, 1, 2), torch.ones(1, 1, dtype=torch.bool))
    assert tokenizer.decode(beyond).value.isnan().all()


def test_every_object_of_a_catalogue_counts_when_it_is_given(model, given):
    catalog = given["legacysurvey_catalog"]
    expected = model.predict({"legacysurvey_catalog": catalog}, "redshift").probabilities
    for index in range(catalog.x.shape[1]):
        e1 = catalog.e1.clone()
        e1[:, index] += 1
        other = Catalog(catalog.x, catalog.y, e1, catalog.e2, catalog.r)
        found = model.predict({"legacysurvey_catalog": other}, "redshift").probabilities
        assert not torch.allclose(found, expected, atol=1e-9)


def test_a_catalogue_that_is_too_long_is_refused(model):
    long = Catalog(*torch.ones(2, 1, 20), *torch.zeros(3, 1, 20))
    with pytest.raises(ValueError, match="legacysurvey_catalog: row 0 has 20 objects: the published models take 10"):
        model.tokenize({"legacysurvey_catalog": long})


# ---- what is asked for


@pytest.mark.parametrize(
    ("name", "error", "message"),
    [
        (("redshift", "ra"), TypeError, r"wanted the name of one modality, such as '.*', given \('redshift', 'ra'\)"),
        (["redshift"], TypeError, r"wanted the name of one modality, .* given \['redshift'\]"),
        (Scalar, TypeError, "wanted the name of one modality"),
        (None, TypeError, "wanted the name of one modality, .* given None"),
        ("", ValueError, "no modality ''"),
        ("tok_z", ValueError, "no modality 'tok_z'"),
        ("redshit", ValueError, "no modality 'redshit'; did you mean 'redshift'"),
    ],
)
def test_a_target_is_the_name_of_one_modality(model, given, name, error, message):
    for ask in (model.predict, model.reconstruct, model.generate):
        with pytest.raises(error, match=message):
            ask({"ra": given["ra"]}, name)


@pytest.mark.parametrize("name", ["", "image", "Image", "tok_image_ls"])
def test_a_name_that_is_not_known_is_named(model, given, name):
    with pytest.raises(ValueError, match=f"knows no modality '{name}'"):
        model.embed({name: given["legacysurvey_image"]})


@pytest.mark.parametrize(
    ("observations", "error", "message"),
    [
        ({"ra": 0.5}, TypeError, "ra: wanted Scalar, given float"),
        ({"ra": [0.5, 0.6]}, TypeError, "ra: wanted Scalar, given list"),
        ({"ra": torch.ones(2)}, TypeError, "ra: wanted Scalar, given Tensor"),
        ({"redshift": Scalar([0.1, 0.2]), "ra": Scalar([0.1])}, None, ""),
        ({"dec": Scalar([0.1, 0.2]), "ra": Scalar([0.1])}, ValueError, "same number of objects"),
        ({3: Scalar([0.1])}, TypeError, "wanted the name of one modality, .* given 3"),
        ([Scalar([0.1])], TypeError, "wanted a dict of name -> observation, given list"),
    ],
)
def test_what_is_given_is_checked_before_anything_is_drawn(model, observations, error, message):
    if error is None:  # what is asked for is not looked at, not even how many there are
        assert len(model.generate(observations, "redshift")[0]) == len(model.predict(observations, "redshift")) == 1
        return
    for ask in (model.predict, model.generate):
        with pytest.raises(error, match=message):
            ask(observations, "redshift")


def test_from_nothing_everything_can_be_predicted(model, given):
    like = given["desi_spectrum"]
    assert len(model.predict({}, "redshift")) == 1
    (drawn,) = model.generate({}, "desi_spectrum", like, steps=1, temperature=0.0, batch_size=1)
    assert torch.equal(model.reconstruct({}, "desi_spectrum", like, batch_size=1).flux, drawn.flux)
    assert drawn.measured.any(1).all()
    with pytest.raises(ValueError, match="wanted observations of at least one of"):
        model.embed({})


@pytest.mark.parametrize("ask", ["reconstruct", "generate"])
def test_a_template_without_anything_measured_is_refused(model, given, ask):
    spectrum = given["desi_spectrum"]
    empty = Spectrum(spectrum.flux, torch.zeros_like(spectrum.ivar), spectrum.wavelength)
    with pytest.raises(ValueError, match="like= has nothing measured: set its ivar above 0 where 'desi_spectrum'"):
        getattr(model, ask)({"ra": given["ra"]}, "desi_spectrum", like=empty)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"generator": 3}, TypeError, "generator must be a torch.Generator, given 3"),
        ({"temperature": "hot"}, TypeError, "temperature must be a number, given 'hot'"),
        ({"guidance": [1.0, 2.0]}, TypeError, r"guidance must be a number, given \[1\.0, 2\.0\]"),
        ({"top_p": "most"}, TypeError, "top_p must be a number, given 'most'"),
        ({"top_k": 0.001}, ValueError, "top_k must be a whole number of at least 1, given 0.001"),
        ({"scheme": "cosine"}, ValueError, "unknown scheme 'cosine'"),
        ({"batch_size": 2.5}, ValueError, "batch_size must be a whole number of at least 1, given 2.5"),
        ({"batch_size": None}, ValueError, "batch_size must be a whole number of at least 1, given None"),
    ],
)
def test_options_of_generation_are_checked(model, given, options, error, message):
    with pytest.raises(error, match=message):
        model.generate({"ra": given["ra"]}, "redshift", **options)


def test_maps_are_drawn_and_never_leave_their_range(model, given, generator):
    (drawn,) = model.generate({"ra": given["ra"]}, "legacysurvey_segmentation_map", steps=2, generator=generator)
    assert isinstance(drawn, Field)
    assert drawn.value.shape == (2, 96, 96)
    assert drawn.value.min() >= 0
    assert drawn.value.max() <= 1


def test_inputs_and_templates_are_moved_to_the_device_of_the_model(model, given, monkeypatch):
    moved, to = [], Observation.to
    monkeypatch.setattr(Observation, "to", lambda self, device: moved.append((self, device)) or to(self, device))
    sky, like = {"ra": given["ra"]}, given["desi_spectrum"]
    for ask in (
        lambda: model.embed(sky),
        lambda: model.predict(sky, "dec"),
        lambda: model.reconstruct(sky, "desi_spectrum", like=like),
        lambda: model.generate(sky, "desi_spectrum", like, steps=1),
    ):
        moved.clear()
        ask()
        assert {device for _, device in moved} == {model.device}
        assert any(isinstance(one, Scalar) for one, _ in moved)
    assert any(one is like for one, _ in moved)


# ---- generation


@pytest.mark.parametrize("scheme", ["roar", "maskgit"])
def test_both_passes_of_guidance_know_what_was_drawn(model, given, monkeypatch, scheme):
    seen, encode = [], model.transformer.encode
    monkeypatch.setattr(model.transformer, "encode", lambda sequence: seen.append(sequence) or encode(sequence))
    options = {"scheme": scheme, "steps": 3, "guidance": 2.0, "generator": torch.Generator().manual_seed(0)}
    model.generate({"ra": given["ra"][0]}, "gaia_bp_coefficients", **options)
    own = model.vocabulary.index("gaia_bp_coefficients")
    counts = []
    for sequence in seen:
        with_it, without = ({p: i for p, i, m in rows(sequence, k) if m == own} for k in (0, 1))
        assert with_it == without
        assert [m for *_, m in rows(sequence, 1) if m != own] == []
        assert [m for *_, m in rows(sequence, 0) if m != own] == [model.vocabulary.index("ra")]
        counts.append(len(with_it))
    assert counts[0] == 0
    assert counts == sorted(set(counts))
    assert len(counts) == 3


def rows(sequence: TokenSequence, index: int):
    valid = sequence.valid[index]
    parts = (sequence.position[index, :, 1], sequence.ids[index], sequence.modality[index])
    return list(zip(*(part[valid].tolist() for part in parts), strict=True))


def test_guidance_may_be_a_whole_number_and_steps_more_than_tokens(model, given, monkeypatch):
    calls, encode = [], model.transformer.encode
    monkeypatch.setattr(model.transformer, "encode", lambda sequence: calls.append(sequence) or encode(sequence))
    drawn = [
        model.generate({"ra": given["ra"]}, "dec", scheme="maskgit", steps=500, guidance=g, temperature=0.0)[0].value
        for g in (2, 2.0)
    ]
    assert torch.equal(*drawn)
    assert len(calls) == 2  # one token: one step each


# ---- the loss


def test_a_modality_without_targets_takes_no_part_in_the_loss(model, given):
    scalars = model.tokenize({"redshift": given["redshift"], "ra": given["ra"]})
    visible = scalars.select(scalars.modality == model.vocabulary.index("ra"))
    target = scalars.select(scalars.modality == model.vocabulary.index("redshift"))
    terms = model.transformer.loss((visible, target))
    assert set(terms) == {"loss", "redshift"}
    assert torch.equal(terms["loss"], terms["redshift"])
    both = model.transformer.loss((visible, scalars))
    torch.testing.assert_close(both["loss"], (both["redshift"] + both["ra"]) / 2)  # whatever their vocabularies


# ---- loading


@pytest.mark.parametrize("default", [torch.bfloat16, torch.float64])
def test_loading_does_not_follow_the_default_dtype(repository, model, given, default):
    torch.set_default_dtype(default)
    try:
        loaded = AION.from_pretrained(repository, device="cpu")
    finally:
        torch.set_default_dtype(torch.float32)
    assert {tensor.dtype for tensor in loaded.parameters()} == {torch.float32}
    assert torch.equal(loaded.embed(given), model.embed(given))


def test_a_short_name_of_a_published_checkpoint_gets_the_whole_one():
    with pytest.raises(FileNotFoundError, match="not a Hub id owner/name such as polymathic-ai/aion-base"):
        AION.from_pretrained("aion-base")


def test_a_file_in_place_of_its_folder_is_refused(repository, monkeypatch):
    monkeypatch.chdir(repository.parent)
    for name in ("aion-base/model.safetensors", repository / "model.safetensors"):
        with pytest.raises(FileNotFoundError, match=r"no bundle .*: not a folder"):
            AION.from_pretrained(name)


def test_a_revision_that_is_not_there_is_refused(repository):
    with pytest.raises(FileNotFoundError, match="holds no revision 'v2'"):
        AION.from_pretrained(repository, revision="v2")


@pytest.fixture
def copy(repository, tmp_path):
    return shutil.copytree(repository, tmp_path / "copy")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"encoder_depth": 3}, r"model\.safetensors does not fit its config\.json: .*encoder\.2\.norm1\.weight"),
        ({"num_heads": 3}, r"config\.json: num_heads must be a divisor of dim, 16, given 3"),
        ({"dim": 18}, r"config\.json: dim must be a multiple of 4, given 18"),
        ({"image_size": 96}, r"config\.json: unknown key 'image_size'"),
        ({"domains_in": ["tok_zz"]}, r"config\.json: unknown modality 'tok_zz'; did you mean 'tok_z'"),
        ({"num_register_tokens": 4}, r"config\.json: num_register_tokens is 4"),
    ],
)
def test_a_configuration_that_does_not_fit_is_one_clear_error(copy, change, message):
    path = copy / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(ValueError, match=message):
        AION.from_pretrained(copy)


@pytest.mark.parametrize("part", ["model.safetensors", "codecs/image/model.safetensors", "codecs/Z/model.safetensors"])
@pytest.mark.parametrize("damage", [lambda d: d[: len(d) // 2], lambda d: d[:6], lambda d: b"\x80\x04" + d[2:]])
def test_a_damaged_file_is_named(copy, part, damage):
    path = copy / part
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(ValueError, match=f"{path} is damaged"):
        AION.from_pretrained(copy)


# ---- plain Python


def test_observations_can_be_compared_and_their_arguments_are_checked(given):
    for observation in given.values():
        assert (observation == observation) is True
        assert (observation == observation[0]) is False
    with pytest.raises(TypeError, match=r"Image\.flux: wanted real numbers, given"):
        Image("abc", "abc", 3)
    with pytest.raises(TypeError, match="bands must be a sequence of names, given the string"):
        Image(torch.zeros(1, 1, 2, 2), torch.zeros(1, 1, 2, 2), "decam-g")
    with pytest.raises(TypeError, match="bands must be a sequence of names, given 3"):
        Image(torch.zeros(1, 1, 2, 2), torch.zeros(1, 1, 2, 2), 3)


def test_the_package_says_its_version_and_gives_its_nouns():
    assert aion.__version__[0].isdigit()
    assert {"AION", "Image", "Scalar", "Spectrum"} <= set(aion.__all__)
