"""AION: invariances of the embedding, predictions and reconstructions, refusals."""

import pytest
import torch

from aion import AION, Image, Scalar, Spectrum

TOLERANCE = {"atol": 1e-5, "rtol": 1e-5}  # float32, sums in another order


def clone(observations):
    return {
        n: {k: v.clone() for k, v in vars(o).items() if isinstance(v, torch.Tensor)} for n, o in observations.items()
    }


@pytest.mark.parametrize("layer", ["context", "encoder"])
def test_one_object_alone_is_the_same_as_in_a_batch(tiny_model, observations, layer):
    together = tiny_model.embed(observations, layer=layer)
    assert together.shape == (6, tiny_model.dim)
    for i in range(6):
        alone = tiny_model.embed({n: o[i] for n, o in observations.items()}, layer=layer)
        torch.testing.assert_close(alone[0], together[i], **TOLERANCE)


def test_batch_size_does_not_matter(tiny_model, observations):
    whole = tiny_model.embed(observations)
    torch.testing.assert_close(tiny_model.embed(observations, batch_size=4), whole, **TOLERANCE)
    x, valid = tiny_model.embed(observations, pool="none")
    y, also = tiny_model.embed(observations, pool="none", batch_size=1)
    assert torch.equal(valid, also)
    torch.testing.assert_close(x, y, **TOLERANCE)
    assert (x[~valid] == 0).all()
    torch.testing.assert_close(x.sum(1) / valid.sum(1, keepdim=True), whole, **TOLERANCE)


def test_order_of_objects_and_of_modalities_does_not_matter(tiny_model, observations):
    whole, order = tiny_model.embed(observations), torch.tensor([4, 0, 5, 2, 3, 1])
    torch.testing.assert_close(
        tiny_model.embed({n: o[order] for n, o in observations.items()}), whole[order], **TOLERANCE
    )
    assert torch.equal(tiny_model.embed(dict(reversed(observations.items()))), whole)


def test_padding_of_the_spectra_does_not_matter(tiny_model, observations):
    spectrum = observations["desi_spectrum"]
    long = Spectrum(torch.ones(1, 999), torch.ones(1, 999), torch.linspace(4000, 7000, 999))
    padded = {**observations, "desi_spectrum": Spectrum.stack([spectrum, long])[:6]}
    torch.testing.assert_close(tiny_model.embed(padded), tiny_model.embed(observations), **TOLERANCE)


def test_a_modality_absent_for_one_object_is_as_if_not_given(tiny_model, observations):
    both = tiny_model.embed({k: observations[k][2] for k in ("desi_spectrum", "redshift")})
    torch.testing.assert_close(both, tiny_model.embed({"redshift": observations["redshift"][2]}), **TOLERANCE)


@pytest.mark.parametrize("name", ["desi_spectrum", "legacysurvey_image", "gaia_bp_coefficients", "redshift"])
def test_every_modality_influences_the_embedding(tiny_model, observations, name):
    rest = {n: o[0] for n, o in observations.items() if n != name}
    assert not torch.allclose(tiny_model.embed(rest), tiny_model.embed({n: o[0] for n, o in observations.items()}))


def test_nothing_of_the_callers_is_written_to(tiny_model, observations):
    before = clone(observations)
    tiny_model.embed(observations)
    tiny_model.predict(observations, "redshift")
    tiny_model.reconstruct(observations, "legacysurvey_image")
    for name, tensors in before.items():
        for key, value in tensors.items():
            assert torch.equal(value.nan_to_num(), getattr(observations[name], key).nan_to_num())


def test_prediction_does_not_look_at_the_answer(tiny_model, observations):
    others = {n: o for n, o in observations.items() if n != "redshift"}
    wrong = {**others, "redshift": Scalar(torch.full((6,), 0.123))}
    expected = tiny_model.predict(others, "redshift").probabilities
    torch.testing.assert_close(tiny_model.predict(wrong, "redshift").probabilities, expected)
    torch.testing.assert_close(
        tiny_model.predict(others, "redshift", batch_size=1).probabilities, expected, atol=1e-6, rtol=1e-4
    )
    assert expected.shape == (6, 32)


def test_reconstruction_of_what_is_observed_is_the_tokenizers_round_trip(tiny_model, observations):
    spectrum = observations["desi_spectrum"]
    own = tiny_model.tokenizer("desi_spectrum")
    expected = own.decode(own.encode(spectrum), like=spectrum)
    assert torch.equal(tiny_model.reconstruct(observations, "desi_spectrum").flux, expected.flux)


def test_reconstruction_of_what_is_not_observed_has_the_grid_of_like(tiny_model, observations):
    given = {"redshift": Scalar(torch.full((6,), 0.3))}
    flux = observations["desi_spectrum"].flux
    first = tiny_model.reconstruct(given, "desi_spectrum", like=observations["desi_spectrum"])
    other = Spectrum(flux * 3 + 1, observations["desi_spectrum"].ivar, observations["desi_spectrum"].wavelength)
    second = tiny_model.reconstruct(given, "desi_spectrum", like=other)
    assert torch.equal(first.flux, second.flux)  # the values of like are not looked at
    assert torch.equal(first.measured.any(1), observations["desi_spectrum"].measured.any(1))


def test_tokens_are_the_same_under_autocast(tiny_model, observations):
    expected = tiny_model.tokenize(observations)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        given = tiny_model.tokenize(observations)
    assert torch.equal(given.ids, expected.ids)


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        (
            lambda o: {"desi_spectrm": o["desi_spectrum"]},
            ValueError,
            "no modality 'desi_spectrm'; did you mean 'desi_spectrum'",
        ),
        (lambda o: {}, ValueError, "wanted observations of at least one of"),
        (
            lambda o: o["desi_spectrum"],
            TypeError,
            "wanted a dict of name -> observation, given Spectrum: name the modality, such as {'desi_spectrum': ...}",
        ),
        (lambda o: {"desi_spectrum": o["redshift"]}, TypeError, "desi_spectrum: wanted Spectrum, given Scalar"),
        (
            lambda o: {"desi_spectrum": o["desi_spectrum"].flux},
            TypeError,
            "desi_spectrum: wanted Spectrum, given Tensor",
        ),
        (lambda o: {"redshift": 0.5}, TypeError, "redshift: wanted Scalar, given float"),
        (lambda o: {**o, "redshift": o["redshift"][:3]}, ValueError, "same number of objects"),
        (lambda o: {"desi_spectrum": o["desi_spectrum"]}, ValueError, "no token at all for row 2"),
    ],
)
def test_bad_observations_are_refused(tiny_model, observations, given, error, message):
    with pytest.raises(error, match=message):
        tiny_model.embed(given(observations))


def test_bad_requests_are_refused(tiny_model, observations):
    with pytest.raises(ValueError, match="pool must be 'mean' or 'none', given 'max'"):
        tiny_model.embed(observations, pool="max")
    with pytest.raises(ValueError, match="pool must be 'mean' or 'none', given 'max'"):
        tiny_model.embed_tokens(tiny_model.tokenize(observations), pool="max")
    with pytest.raises(ValueError, match="batch_size must be a whole number of at least 1, given 0"):
        tiny_model.embed(observations, batch_size=0)
    with pytest.raises(ValueError, match="batch_size must be a whole number of at least 1, given 0"):
        tiny_model.reconstruct(observations, "desi_spectrum", batch_size=0)
    for name in ("desi_spectrum", "gaia_bp_coefficients"):
        with pytest.raises(ValueError, match=f"'{name}' is no scalar"):
            tiny_model.predict(observations, name)
    with pytest.raises(ValueError, match="wanted observations of at least one"):
        tiny_model.predict({"redshift": observations["redshift"]}, "redshift")
    with pytest.raises(ValueError, match="give like="):
        tiny_model.reconstruct({"redshift": Scalar([0.1])}, "desi_spectrum")
    with pytest.raises(TypeError, match="wanted a dict of name -> observation, given Spectrum"):
        tiny_model.predict(observations["desi_spectrum"], "redshift")
    with pytest.raises(TypeError, match="wanted a dict of name -> observation, given Spectrum"):
        tiny_model.reconstruct(observations["desi_spectrum"], "desi_spectrum")
    with pytest.raises(TypeError, match="like= must be of the kind Spectrum, given Scalar"):
        tiny_model.reconstruct(observations, "desi_spectrum", like=observations["redshift"])
    for given in ({"redshift": Scalar([0.1, 0.2])}, {"desi_spectrum": observations["desi_spectrum"][:2]}):
        with pytest.raises(ValueError, match="as many objects as the observations, 2, given 6"):
            tiny_model.reconstruct(given, "desi_spectrum", like=observations["desi_spectrum"])
    with pytest.raises(ValueError, match="desi_spectrum: row 0: measured from 400 to 700"):
        tiny_model.embed({"desi_spectrum": Spectrum(torch.ones(1, 9), torch.ones(1, 9), torch.linspace(400, 700, 9))})
    with pytest.raises(ValueError, match="does not read 'hsc-g'"):
        tiny_model.embed({"legacysurvey_image": Image(torch.ones(1, 1, 8, 8), torch.ones(1, 1, 8, 8), ("hsc-g",))})


def test_a_modality_needs_its_tokenizer(tokenizers):
    with pytest.raises(ValueError, match=r"no tokenizer \['spectra'\]"):
        AION(tokenizers, {"desi_spectrum": "spectra"}, {"dim": 8, "heads": 2})


def test_the_error_of_a_late_batch_says_where(tiny_model, observations):
    with pytest.raises(ValueError, match="batch that starts at object 2: no token at all for row 0"):
        tiny_model.embed({"desi_spectrum": observations["desi_spectrum"]}, batch_size=2)


def test_a_predicted_spectrum_has_flux_wherever_like_has_pixels(tiny_model, observations):
    like = observations["desi_spectrum"]
    given = {"redshift": Scalar(torch.full((6,), 0.3))}
    whole = tiny_model.reconstruct(given, "desi_spectrum", like=like)
    assert torch.equal(whole.measured.any(1), like.measured.any(1))
    assert torch.equal(tiny_model.reconstruct(given, "desi_spectrum", like=like, batch_size=2).flux, whole.flux)
    nothing = Spectrum(like.flux, torch.zeros_like(like.ivar), like.wavelength)
    with pytest.raises(ValueError, match="like= has nothing measured"):
        tiny_model.reconstruct(given, "desi_spectrum", like=nothing)


def test_a_model_says_what_it_reads(tiny_model):
    first, *lines = repr(tiny_model).splitlines()
    assert first.startswith("AION(unnamed, ")
    assert first.endswith(" parameters on cpu, of 32 features)")
    assert [line.split(":")[0].strip() for line in lines] == sorted(tiny_model.modalities)
    assert "  redshift: Scalar, 32 bins" in "\n".join(lines)


def test_progress_is_shown_when_asked_for(tiny_model, observations, monkeypatch):
    seen = []
    monkeypatch.setattr("tqdm.auto.tqdm", lambda starts, title, disable: seen.append((title, disable)) or starts)
    expected = tiny_model.embed(observations, batch_size=2)
    torch.testing.assert_close(tiny_model.embed(observations, batch_size=2, progress="embedding"), expected)
    tiny_model.predict(observations, "redshift", progress="redshifts")
    assert seen == [("embedding", None), ("redshifts", None)]


def test_tokens_are_predicted_from_as_observations_are(tiny_model, observations):
    others = {name: value for name, value in observations.items() if name != "redshift"}
    posterior = tiny_model.predict_tokens(tiny_model.tokenize(others), "redshift")
    torch.testing.assert_close(posterior.probabilities, tiny_model.predict(observations, "redshift").probabilities)
    with pytest.raises(ValueError, match="holds tokens of 'redshift' itself"):
        tiny_model.predict_tokens(tiny_model.tokenize(observations), "redshift")
