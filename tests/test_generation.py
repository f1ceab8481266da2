"""Generation: the distribution drawn from, schedules, invariances, refusals."""

import math

import pytest
import torch

from aion import Scalar, Spectrum
from aion.generation import Generation, codes, draw, places, schedule
from aion.tokens import Tokens, TokenSequence
from aion.transformer import Transformer

SCHEMES = ["roar", "maskgit", "one-pass"]


@pytest.fixture
def small():
    model = Transformer({"a": 5, "b": 3}, dim=16, heads=2, encoder_depth=1, decoder_depth=1).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.7)
    return model


def tokens(ids, first=0):
    ids = torch.as_tensor(ids)
    index = torch.arange(ids.shape[1]).expand_as(ids) + first
    return Tokens(
        ids, torch.stack([torch.zeros_like(index), index], -1).float(), torch.ones_like(ids, dtype=torch.bool)
    )


def query(model, count, length, name="b"):
    place = tokens(torch.zeros(count, length, dtype=torch.long))
    modality = torch.full_like(place.ids, model.vocabulary.index(name))
    return TokenSequence(place.ids, modality, place.position, place.valid)


def generate(model, visible, wanted, size, possible=None, generator=None, **options):
    return Generation(**options)(model, visible, wanted, size, possible, generator)


def asked(model, visible, wanted):
    hidden = model.decode(model.encode(visible), visible, wanted)
    return model.logits(hidden, "b").double().softmax(-1).detach()


# ---- what is drawn


def joint(model, visible, scheme):
    """Computes the probability of each pair of ids, by enumeration of all ways to draw it."""
    both = asked(model, visible, query(model, 1, 2))[0]
    if scheme == "one-pass":
        return both[0][:, None] * both[1][None]
    later = torch.zeros(2, 3, 3)  # later[k, i, j]: of id j at the other place after id i was drawn at place k
    for k in range(2):
        for i in range(3):
            seen = model.vocabulary.pack({"a": model.vocabulary.unpack(visible, "a"), "b": tokens([[i]], first=k)})
            other = query(model, 1, 2).select(torch.tensor([[k == 1, k == 0]]))
            later[k, i] = asked(model, seen, other)[0, 0]
    first, second = both[0][:, None] * later[0], both[1][:, None] * later[1]
    return (first + second.T) / 2


@pytest.mark.parametrize("scheme", ["roar", "one-pass"])
def test_the_distribution_is_that_of_the_scheme(small, scheme, generator):
    visible, count = small.vocabulary.pack({"a": tokens([[4, 1]])}), 20_000
    expected = joint(small, visible, scheme)
    ids = generate(small, visible, query(small, 1, 2), 3, members=count, scheme=scheme, steps=2, generator=generator)[0]
    found = torch.bincount(ids[:, 0] * 3 + ids[:, 1], minlength=9).view(3, 3) / count
    error = (expected * (1 - expected) / count).sqrt()
    assert ((found - expected).abs() < 4.5 * error).all()
    other = joint(small, visible, "one-pass" if scheme == "roar" else "roar")
    assert ((found - other).abs() > 6 * error).any()


@pytest.mark.parametrize("scheme", SCHEMES)
def test_without_temperature_nothing_is_random(small, scheme):
    visible = small.vocabulary.pack({"a": tokens([[4, 1], [0, 0]])})
    options = {"scheme": scheme, "steps": 1, "members": 2}
    ids = generate(small, visible, query(small, 2, 6), 3, temperature=0.0, **options)
    best = asked(small, visible, query(small, 2, 6)).argmax(-1)
    assert torch.equal(ids, best[:, None].expand(-1, 2, -1))
    assert torch.equal(generate(small, visible, query(small, 2, 6), 3, top_k=1, **options), ids)
    assert torch.equal(generate(small, visible, query(small, 2, 6), 3, top_p=1e-9, **options), ids)


def test_maskgit_keeps_the_most_probable_first(small):
    visible, wanted = small.vocabulary.pack({"a": tokens([[4, 1]])}), query(small, 1, 6)
    ids = generate(small, visible, wanted, 3, scheme="maskgit", steps=2, temperature=0.0)[0]
    probability, best = asked(small, visible, wanted)[0].max(-1)
    first = probability.topk(3).indices  # half of the tokens at the first of two steps
    assert torch.equal(ids[0, first], best[first])
    known = torch.zeros(1, 6, dtype=torch.bool).index_fill(1, first, True)
    drawn = TokenSequence(ids + small.vocabulary.ranges["b"][0], wanted.modality, wanted.position, known)
    seen = TokenSequence(**{k: torch.cat([v, getattr(drawn, k)], 1) for k, v in vars(visible).items()})
    rest = asked(small, seen.select(seen.valid), wanted.select(~known))[0].argmax(-1)
    assert torch.equal(ids[0, ~known[0]], rest)


def test_guidance_mixes_logits_with_and_without_what_was_observed(small):
    visible, wanted = small.vocabulary.pack({"a": tokens([[4, 1]])}), query(small, 1, 4)
    empty = visible.select(torch.zeros_like(visible.valid))
    with_it, without = (asked(small, v, wanted).log() for v in (visible, empty))
    for scale in (0.0, 0.5, 3.0):
        expected = (without + scale * (with_it - without)).argmax(-1)
        ids = generate(small, visible, wanted, 3, steps=1, temperature=0.0, guidance=scale)
        assert torch.equal(ids[:, 0], expected)
    again = generate(small, visible, wanted, 3, steps=4, generator=torch.Generator().manual_seed(1))
    same = generate(small, visible, wanted, 3, steps=4, guidance=1.0 + 1e-9, generator=torch.Generator().manual_seed(1))
    assert torch.equal(again, same)


def test_an_object_of_which_nothing_was_observed_is_drawn_from_the_queries_alone(small):
    pair = small.vocabulary.pack({"a": tokens([[4, 1], [2, 2]])})
    half = pair.select(torch.tensor([[True, True], [False, False]]))
    wanted = query(small, 2, 4)
    alone = asked(small, half[1:].select(torch.zeros(1, 2, dtype=torch.bool)), wanted[1:])
    assert torch.isfinite(alone).all()
    torch.testing.assert_close(asked(small, half, wanted)[1:], alone)
    assert not torch.allclose(asked(small, pair, wanted)[1:], alone)
    ids = generate(small, half, wanted, 3, temperature=0.0, steps=1)
    assert torch.equal(ids[1, 0], alone[0].argmax(-1))


@pytest.mark.parametrize(("top_k", "top_p", "allowed"), [(2, None, {1, 3}), (None, 0.7, {1, 3}), (None, 0.4, {3})])
def test_what_is_unlikely_is_left_out(top_k, top_p, allowed):
    logits = torch.tensor([0.05, 0.3, 0.1, 0.45, 0.1]).log().expand(500, 5)
    ids, probability = draw(logits, torch.linspace(0, 1, 501)[:-1], 1.5, top_k, top_p)
    assert set(ids.tolist()) == allowed
    if len(allowed) == 2:
        expected = (0.3 ** (1 / 1.5)) / (0.3 ** (1 / 1.5) + 0.45 ** (1 / 1.5))
        assert abs((ids == 1).float().mean() - expected) < 0.01
        torch.testing.assert_close(probability[ids == 1][0].item(), expected, atol=1e-6, rtol=0)


@pytest.mark.parametrize("temperature", [1e-300, 1e-3, 1.0, 1e6])
def test_no_temperature_breaks_the_draw(temperature):
    ids, probability = draw(torch.tensor([[-1e4, 0.0, 30.0]]), torch.tensor([0.999999]), temperature)
    assert probability.item() > 0
    assert ids.item() == 2
    assert draw(torch.tensor([[-math.inf, 0.0, -math.inf]]), torch.tensor([0.0]), temperature)[0].item() == 1


# ---- schedules


def test_schedules_are_the_published_ones():
    total = torch.tensor([273])
    assert schedule(total, 5).flatten().tolist() == [55, 55, 55, 54, 54]
    assert schedule(total, 5, cosine=True).flatten().tolist() == [26, 68, 84, 68, 27]


@pytest.mark.parametrize("cosine", [False, True])
def test_every_token_is_drawn_once(cosine):
    total = torch.arange(60)
    for steps in (1, 2, 7, 100):
        counts = schedule(total, steps, cosine)
        assert torch.equal(counts.sum(0), total)
        assert counts.min() >= 0


@pytest.mark.parametrize(
    ("scheme", "steps", "runs"), [("roar", 4, 4), ("maskgit", 4, 4), ("one-pass", 4, 1), ("roar", 99, 6)]
)
@pytest.mark.parametrize("guidance", [1.0, 2.0])
def test_the_encoder_runs_once_per_step_at_most(small, monkeypatch, scheme, steps, runs, guidance):
    calls = []
    encode = small.encode
    monkeypatch.setattr(small, "encode", lambda sequence: calls.append(len(sequence)) or encode(sequence))
    visible = small.vocabulary.pack({"a": tokens([[4, 1], [0, 2]])})
    options = {"scheme": scheme, "steps": steps, "guidance": guidance}
    generate(small, visible, query(small, 2, 6), 3, members=3, **options)
    assert len(calls) == runs
    assert calls[0] == 2 * (1 + (guidance != 1))  # the first step is shared by all members


# ---- invariances


@pytest.mark.parametrize("scheme", SCHEMES)
def test_the_same_generator_draws_the_same(small, scheme):
    visible = small.vocabulary.pack({"a": tokens([[4, 1], [0, 2]])})
    options = {"scheme": scheme, "steps": 3, "members": 8, "temperature": 4.0}
    one, two, three = (
        generate(small, visible, query(small, 2, 6), 3, generator=torch.Generator().manual_seed(seed), **options)
        for seed in (1, 1, 2)
    )
    assert torch.equal(one, two)
    assert not torch.equal(one, three)
    assert len({tuple(member.tolist()) for member in one[0]}) > 1, "members differ"
    assert not torch.equal(one[0], one[1])


def test_objects_have_orders_of_their_own(small, monkeypatch):
    seen = []
    encode = small.encode
    monkeypatch.setattr(small, "encode", lambda sequence: seen.append(sequence) or encode(sequence))
    visible = small.vocabulary.pack({"a": tokens([[4]] * 8)})
    generate(small, visible, query(small, 8, 9), 3, steps=9)
    first = [row.position[row.valid & (row.modality == 1)][0, 1].item() for row in (seen[1][i] for i in range(8))]
    assert len(set(first)) > 2


def test_padding_of_the_query_does_not_matter(small):
    visible = small.vocabulary.pack({"a": tokens([[4, 1]])})
    wanted = query(small, 1, 6)
    longer = TokenSequence(wanted.ids, wanted.modality, wanted.position, torch.arange(6)[None] < 4)
    for scheme in SCHEMES:
        ids = generate(small, visible, longer, 3, steps=3, scheme=scheme, temperature=0.0)
        short = generate(small, visible, query(small, 1, 4), 3, steps=3, scheme=scheme, temperature=0.0)
        assert (ids[..., 4:] == 0).all()
        if scheme != "roar":  # whose order is drawn even so
            assert torch.equal(ids[..., :4], short)


def test_an_ensemble_of_a_model(tiny_model, observations, generator):
    given = {k: observations[k] for k in ("redshift", "legacysurvey_image", "gaia_bp_coefficients")}
    like = observations["desi_spectrum"]
    members = tiny_model.generate(given, "desi_spectrum", like, members=3, steps=2, generator=generator)
    assert [type(m) for m in members] == [Spectrum] * 3
    assert torch.stack([m.flux for m in members]).shape == (3, *like.flux.shape)
    assert all(torch.equal(m.measured.any(1), like.measured.any(1)) for m in members)
    assert not torch.equal(members[0].flux, members[1].flux)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_batch_size_does_not_matter(tiny_model, observations, scheme):
    given = {k: observations[k] for k in ("redshift", "legacysurvey_image", "gaia_bp_coefficients")}
    results = [
        tiny_model.generate(
            given,
            "desi_spectrum",
            observations["desi_spectrum"],
            members=2,
            steps=3,
            scheme=scheme,
            batch_size=size,
            generator=torch.Generator().manual_seed(5),
        )
        for size in (64, 4, 1)
    ]
    for result in results[1:]:
        for a, b in zip(results[0], result, strict=True):
            torch.testing.assert_close(a.flux, b.flux, atol=1e-4, rtol=1e-4)


def test_scalars_and_nothing_need_no_template(tiny_model, observations, generator):
    (one,) = tiny_model.generate({}, "redshift", generator=generator)
    assert one.value.shape == (1,)
    spectrum = {"desi_spectrum": observations["desi_spectrum"][[0, 1, 3]]}
    (vector,) = tiny_model.generate(spectrum, "gaia_bp_coefficients", generator=generator)
    assert vector.value.shape == (3, 4)
    assert torch.isfinite(vector.value).all()
    like = observations["legacysurvey_image"]
    (image,) = tiny_model.generate({}, "legacysurvey_image", like, generator=generator)
    assert image.flux.shape == like.flux.shape


def test_the_draws_of_a_scalar_follow_its_posterior(tiny_model, observations, generator):
    spectrum = {"desi_spectrum": observations["desi_spectrum"][:1]}
    posterior = tiny_model.predict(spectrum, "redshift")
    drawn = torch.stack([m.value for m in tiny_model.generate(spectrum, "redshift", members=3000, generator=generator)])
    assert abs(drawn.double().mean() - posterior.mean()) < 4.5 * posterior.std() / 3000**0.5


def test_what_is_asked_for_is_not_looked_at(tiny_model, observations):
    given = {k: observations[k] for k in ("legacysurvey_image", "gaia_bp_coefficients")}
    wrong = {**given, "redshift": Scalar(torch.full((6,), 0.9))}
    first, second = (
        tiny_model.generate(o, "redshift", members=5, generator=torch.Generator().manual_seed(2))
        for o in ({**given, "redshift": observations["redshift"]}, wrong)
    )
    assert all(torch.equal(a.value, b.value) for a, b in zip(first, second, strict=True))


def test_ids_without_a_meaning_are_never_drawn(small):
    visible = small.vocabulary.pack({"a": tokens([[4, 1]])})
    ids = generate(small, visible, query(small, 1, 6), 2, members=200, steps=2)
    assert ids.max() == 1


# ---- what bad input gets


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"scheme": "mask-git"}, "unknown scheme 'mask-git'; did you mean 'maskgit'"),
        ({"members": "3"}, "members must be a whole number of at least 1, given '3'"),
        ({"members": 0}, "members must be a whole number of at least 1, given 0"),
        ({"steps": 0}, "steps must be a whole number of at least 1, given 0"),
        ({"steps": 2.5}, "steps must be a whole number of at least 1, given 2.5"),
        ({"top_k": 0}, "top_k must be a whole number of at least 1, given 0"),
        ({"top_k": 0.5}, "top_k must be a whole number of at least 1, given 0.5"),
        ({"top_p": 0.0}, "top_p is out of range, given 0.0"),
        ({"top_p": 1.1}, "top_p is out of range, given 1.1"),
        ({"temperature": -1.0}, "temperature is out of range, given -1.0"),
        ({"temperature": math.nan}, "temperature is out of range, given nan"),
        ({"guidance": math.inf}, "guidance is out of range, given inf"),
        ({"batch_size": 0}, "batch_size must be a whole number of at least 1, given 0"),
    ],
)
def test_bad_options_are_refused(tiny_model, observations, options, message):
    for given in ({"desi_spectrum": observations["desi_spectrum"][:1]}, {}):
        with pytest.raises(ValueError, match=message):
            tiny_model.generate(given, "redshift", **options)


def test_bad_requests_are_refused(tiny_model, observations, small):
    scalar = {"redshift": observations["redshift"]}
    with pytest.raises(ValueError, match="has no grid of its own: give like="):
        tiny_model.generate(scalar, "desi_spectrum")
    with pytest.raises(TypeError, match="like= must be of the kind Spectrum, given Scalar"):
        tiny_model.generate(scalar, "desi_spectrum", scalar["redshift"])
    with pytest.raises(ValueError, match="as many objects as the observations, 6, given 2"):
        tiny_model.generate(scalar, "desi_spectrum", observations["desi_spectrum"][:2])
    with pytest.raises(ValueError, match="no modality 'redshfit'"):
        tiny_model.generate(scalar, "redshfit")
    with pytest.raises(ValueError, match="wanted observations of at least one"):
        tiny_model.generate(scalar, "redshift")
    with pytest.raises(TypeError, match="wanted a dict of name -> observation"):
        tiny_model.generate(observations["redshift"], "redshift")
    mixed = query(small, 1, 2)
    mixed = TokenSequence(mixed.ids, torch.tensor([[0, 1]]), mixed.position, mixed.valid)
    with pytest.raises(ValueError, match="wanted a query of one modality, given 2"):
        generate(small, small.vocabulary.pack({"a": tokens([[1]])}), mixed, 3)


def test_where_tokens_are_without_a_template(tokenizers):
    place = places(tokenizers["vector"], 2)
    assert place.position[1].tolist() == [[0, 0], [0, 1], [0, 2], [0, 3]]
    assert codes(tokenizers["vector"]) == 8
