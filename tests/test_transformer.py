"""The transformer: invariances, gradients, losses."""

import pytest
import torch

from aion.masking import BudgetMasking
from aion.tokens import TokenSequence
from aion.transformer import Transformer


@pytest.fixture
def sequence(tiny_model, observations):
    return tiny_model.tokenize(observations)


@pytest.fixture
def batch(tiny_model, sequence, generator):
    return BudgetMasking(tiny_model.vocabulary, input_budget=30, target_budget=30)(sequence, generator)


@pytest.fixture(params=[False, True], ids=["plain", "rotary"])
def transformer(tiny_model, request):
    model = Transformer(**{**tiny_model.transformer.config, "rotary": request.param}).eval()
    model.load_state_dict(tiny_model.transformer.state_dict())
    return model


def test_padding_does_not_change_the_result(transformer, sequence):
    pad = {k: torch.nn.functional.pad(v, (0, 0, 0, 9) if v.ndim == 3 else (0, 9)) for k, v in vars(sequence).items()}
    longer = TokenSequence(**pad)
    expected = transformer.encode(sequence)
    given = transformer.encode(longer)[:, : sequence.ids.shape[1]]
    torch.testing.assert_close(given[sequence.valid], expected[sequence.valid], atol=1e-5, rtol=1e-5)


def test_order_of_tokens_does_not_matter(transformer, sequence):
    one = sequence[:1].select(sequence[:1].valid)
    order = torch.randperm(one.ids.shape[1])
    shuffled = TokenSequence(**{k: v[:, order] for k, v in vars(one).items()})
    torch.testing.assert_close(transformer.encode(shuffled), transformer.encode(one)[:, order], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("layer", ["context", "encoder"])
def test_position_and_id_and_modality_matter(tiny_model, sequence, layer):
    base = tiny_model.transformer.encode(sequence, layer)
    for change in ({"position": sequence.position + 1}, {"ids": (sequence.ids + 1) % 20}):
        assert not torch.allclose(
            tiny_model.transformer.encode(TokenSequence(**{**vars(sequence), **change}), layer), base
        )


def test_predictions_of_one_modality_do_not_depend_on_others_asked_for(transformer, batch):
    visible, target = batch
    context = transformer.encode(visible)
    together = transformer.decode(context, visible, target)
    for index in target.modality[target.valid].unique():
        alone = target.select(target.modality == index)
        hidden = transformer.decode(context, visible, alone)
        chosen = target.valid & (target.modality == index)
        torch.testing.assert_close(hidden[alone.valid], together[chosen], atol=1e-5, rtol=1e-5)


def test_gradients_reach_every_parameter(tiny_model, batch):
    tiny_model.transformer.loss(batch)["loss"].backward()
    silent = [n for n, p in tiny_model.transformer.named_parameters() if p.grad is None or p.grad.abs().sum() == 0]
    assert not silent


def test_loss_is_the_mean_cross_entropy_over_modalities(tiny_model, batch):
    terms = tiny_model.transformer.loss(batch)
    visible, target = batch
    hidden = tiny_model.transformer.decode(tiny_model.transformer.encode(visible), visible, target)
    logits = hidden @ tiny_model.transformer.head.T
    for name in terms.keys() - {"loss"}:
        low, high = tiny_model.vocabulary.ranges[name]
        chosen = target.valid & (target.modality == tiny_model.vocabulary.index(name))
        log_p = logits[chosen][:, low:high].log_softmax(-1)
        expected = -log_p.gather(1, (target.ids[chosen] - low)[:, None]).mean()
        torch.testing.assert_close(terms[name], expected)
    torch.testing.assert_close(terms["loss"], torch.stack([terms[n] for n in terms.keys() - {"loss"}]).mean())


def test_weights_favour_a_modality(tiny_model, batch):
    terms = tiny_model.transformer.loss(batch)
    tiny_model.transformer.weights = {"desi_spectrum": 1e6}
    torch.testing.assert_close(tiny_model.transformer.loss(batch)["loss"], terms["desi_spectrum"], rtol=1e-4, atol=0)


def test_smoothing_spreads_the_target_over_neighbouring_ids():
    smooth = Transformer({"z": 50}, dim=16, heads=2, encoder_depth=1, decoder_depth=1, smoothing={"z": 2.0})
    logits = torch.full((1, 50), -20.0)
    logits[0, 24] = 0.0
    near = smooth._cross_entropy("z", logits, torch.tensor([25]))
    far = smooth._cross_entropy("z", logits, torch.tensor([40]))
    assert near < 0.85 * far


def test_similar_codes_start_near_each_other(tiny_model, generator):
    book = torch.linspace(-1, 1, 32)[:, None]
    tiny_model.transformer.embed_codebook("redshift", book, generator)
    low, high = tiny_model.vocabulary.ranges["redshift"]
    weight = tiny_model.transformer.token_embedding.weight[low:high]
    distance = torch.cdist(weight, weight)
    assert distance[0, 1:4].mean() < 0.7 * distance[0, -4:].mean()


def test_same_generator_same_parameters():
    models = []
    for _ in range(2):
        model = Transformer({"z": 5}, dim=8, heads=2, encoder_depth=1, decoder_depth=1)
        model.reset_parameters(torch.Generator().manual_seed(3))
        models.append(model.state_dict())
    assert all(torch.equal(models[0][k], models[1][k]) for k in models[0])


@pytest.mark.parametrize("mlp_ratio", [3.0, 4.0, 6.0])
def test_every_projection_is_drawn_with_the_bound_of_xavier(mlp_ratio):
    model = Transformer({"z": 5}, dim=48, heads=2, encoder_depth=1, decoder_depth=1, mlp_ratio=mlp_ratio)
    for name, module in model.named_modules():
        if isinstance(module, torch.nn.Linear):
            for part in module.weight.split(48) if name.endswith("kv") else [module.weight]:
                bound = (6 / sum(part.shape)) ** 0.5
                assert 0.98 * bound < part.abs().max() <= bound, name


OPTIONS = [
    {"tied": {"b": "a"}},
    {"rotary": True},
    {"norm_bias": True},
    {"untied": True},
    {"mixed": True},
    {"uniform": True},
    {"lists": ["z"]},
    {"input_only": ["z"]},
    {"output_only": ["z"]},
]


@pytest.mark.parametrize("options", OPTIONS, ids=lambda options: next(iter(options)))
def test_options_are_kept_and_only_those_asked_for(options):
    shape = {"dim": 8, "heads": 2, "encoder_depth": 1, "decoder_depth": 1}
    plain = Transformer({"a": 3, "b": 3, "z": 5}, **shape)
    model = Transformer({"a": 3, "b": 3, "z": 5}, **shape, **options)
    assert model.config == {**plain.config, **options}
    again = Transformer(**model.config)
    again.load_state_dict(model.state_dict())
    assert again.config == model.config
    assert set(plain.state_dict()) <= set(model.state_dict())


def test_an_untied_transformer_tells_queries_apart_by_their_own_embedding(batch, tiny_model):
    model = Transformer(**{**tiny_model.transformer.config, "untied": True}).eval()
    model.load_state_dict(tiny_model.transformer.state_dict(), strict=False)
    model.query_modality_embedding.weight.data.copy_(model.modality_embedding.weight)
    visible, target = batch
    context = model.encode(visible)
    expected = tiny_model.transformer.decode(context, visible, target)
    torch.testing.assert_close(model.decode(context, visible, target), expected)
    model.query_modality_embedding.weight.data.add_(1)
    assert torch.equal(model.encode(visible), context)
    assert not torch.allclose(model.decode(context, visible, target), expected)


def test_tokens_of_a_list_are_placed_by_their_index_alone():
    shape = {"dim": 16, "heads": 2, "encoder_depth": 1, "decoder_depth": 1}
    model = Transformer({"a": 3, "z": 5}, **shape, lists=["z"])
    plain = Transformer({"a": 3, "z": 5}, **shape)
    plain.load_state_dict(model.state_dict())
    ids = torch.tensor([[0, 3, 4]])
    for row, change in ((0.0, False), (7.0, False), (0.0, True)):
        position = torch.tensor([[[0.0, 1.0], [row, 2.0 + change], [row, 5.0]]])
        given = TokenSequence(ids, torch.tensor([[0, 1, 1]]), position, torch.ones(1, 3, dtype=torch.bool))
        found = model.encode(given)
        assert not torch.allclose(found, plain.encode(given))
        if row == 0 and not change:
            expected = found
        else:
            assert torch.equal(found, expected) is not change


@pytest.fixture
def pair():
    shape = {"dim": 16, "heads": 2, "encoder_depth": 1, "decoder_depth": 1}
    tied = Transformer({"a": 3, "b": 5, "c": 4, "d": 5}, **shape, tied={"b": "d"}).eval()
    plain = Transformer({"a": 3, "b": 5, "c": 4, "d": 5}, **shape).eval()
    state = tied.state_dict()
    for name in ("token_embedding.weight", "head"):
        rows = state[name]
        state[name] = torch.cat([rows[:3], rows[7:12], rows[3:7], rows[7:12]])
    plain.load_state_dict(state)
    return tied, plain


def test_a_tied_modality_has_the_rows_of_the_other(pair, generator):
    tied, plain = pair
    modality = torch.arange(4).repeat(6, 2)
    low = torch.tensor([tied.vocabulary.ranges[name][0] for name in tied.vocabulary.names])
    ids = low[modality] + torch.randint(3, modality.shape, generator=generator)
    position, valid = torch.rand(6, 8, 2, generator=generator), torch.ones(6, 8, dtype=torch.bool)
    sequence = TokenSequence(ids, modality, position, valid)
    torch.testing.assert_close(tied.encode(sequence), plain.encode(sequence))
    visible, target = (sequence.select(valid & (torch.arange(8) % 2 == part)) for part in (0, 1))
    one, other = tied.loss((visible, target)), plain.loss((visible, target))
    torch.testing.assert_close(one, other)
    state = torch.randn(3, 16, generator=generator)
    for name in "abcd":
        torch.testing.assert_close(tied.logits(state, name), plain.logits(state, name))
    assert torch.equal(tied.logits(state, "b"), tied.logits(state, "d"))
    before = tied.head.clone()
    tied.embed_codebook("b", torch.randn(5, 4, generator=generator), generator)
    assert torch.equal(tied.head, before)
    tied.embed_codebook("d", torch.randn(5, 4, generator=generator), generator)
    assert ((tied.head != before).any(1) == torch.tensor([0] * 7 + [1] * 5, dtype=torch.bool)).all()


@pytest.mark.parametrize("tied", [{"a": "d"}, {"b": "d", "d": "b"}, {"b": "b"}])
def test_ties_that_make_no_sense_are_refused(tied):
    with pytest.raises(ValueError, match="tied: wanted modalities with as many ids"):
        Transformer({"a": 3, "b": 5, "d": 5}, dim=8, heads=2, tied=tied)
    with pytest.raises(ValueError, match="unknown modality 'e'"):
        Transformer({"a": 3}, dim=8, heads=2, tied={"a": "e"})


def test_rotary_heads_must_have_pairs():
    with pytest.raises(ValueError, match="heads of an even width, given dim=6 and heads=2"):
        Transformer({"z": 5}, dim=6, heads=2, rotary=True)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dim": 6}, "dim must be a multiple of 4, given 6"),
        ({"heads": 0, "rotary": True}, "wanted a width, heads and depths, given dim=8, heads=0"),
        ({"heads": 3}, "dim must be a multiple of heads, given dim=8 and heads=3"),
        ({"decoder_depth": -1}, r"depths \[1, -1\]"),
        ({"smoothing": {"z": 0.0}}, "wanted smoothing > 0"),
        ({"weights": {"z": -1.0}}, "weights >= 0"),
    ],
)
def test_shapes_that_make_no_sense_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        Transformer({"z": 5}, **{"dim": 8, "heads": 2, "encoder_depth": 1, "decoder_depth": 1, **options})


def test_no_time_is_lost_on_the_meta_device():
    with torch.device("meta"):
        model = Transformer({"z": 5}, dim=8, heads=2, encoder_depth=1, decoder_depth=1)
    assert all(parameter.is_meta for parameter in model.parameters())


def test_bad_requests_are_refused(tiny_model, sequence):
    with pytest.raises(ValueError, match="layer must be 'context' or 'encoder', given 'last'"):
        tiny_model.transformer.encode(sequence, "last")
    with pytest.raises(ValueError, match="unknown modality 'y'"):
        Transformer({"z": 5}, dim=8, heads=2, lists=["y"])
    nothing = sequence.select(torch.zeros_like(sequence.valid))
    with pytest.raises(ValueError, match="no target in the whole batch"):
        tiny_model.transformer.loss((sequence, nothing))
