"""The layout of a published transformer: which tensors there are, what a configuration may say."""

import importlib.util
import itertools
import math

from pathlib import Path

import pytest
import torch

from aion.official.layout import UNUSED, ZERO, arguments_of, config_of, entries, position_table
from aion.official.names import PUBLISHED
from aion.transformer import Transformer

PATH = Path(__file__).with_name("make_official_model_fixtures.py")
SPEC = importlib.util.spec_from_file_location("make_official_model_fixtures", PATH)
MAKE = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(MAKE)

# Size of the model: width, heads, blocks on each side, tensors in the file (tied), parameters.
RELEASED = {
    "base": (768, 12, 12, 691, 314_255_616),
    "large": (1024, 16, 24, 1135, 859_650_048),
    "xlarge": (2048, 32, 24, 1135, 3_130_772_480),
}


def transformer(config):
    with torch.device("meta"):
        return Transformer(**arguments_of(config))


@pytest.mark.parametrize("size", RELEASED)
def test_the_released_models_have_the_published_size(size):
    dim, heads, depth, files, parameters = RELEASED[size]
    shape = {"dim": dim, "num_heads": heads, "encoder_depth": depth, "decoder_depth": depth}
    for shared in (True, False):
        model = transformer(MAKE.CONFIG | shape | {"share_modality_embeddings": shared})
        table = list(entries(model))
        assert len({entry.key for entry in table}) == len(table) == files + 40
        assert sum(bool(entry.alias) for entry in table) == 40 * shared
        counted = [e for e in table if not e.alias and e.source != ZERO and not e.key.endswith("pos_emb")]
        assert sum(math.prod(e.shape) for e in counted) == parameters + 40 * dim * (not shared)


@pytest.mark.parametrize("variant", MAKE.VARIANTS)
def test_every_tensor_of_the_documented_layout_has_a_place(variant):
    config = MAKE.CONFIG | MAKE.VARIANTS[variant]
    model = transformer(config)
    table = {entry.key: entry for entry in entries(model)}
    assert {key: value.shape for key, value in MAKE.tensors(config)} == {k: e.shape for k, e in table.items()}
    rows = {}
    for entry in table.values():
        if entry.source not in {UNUSED, ZERO} and not entry.alias:
            rows.setdefault(entry.source, []).append(entry)
    state = model.state_dict()
    assert set(rows) == set(state), "every parameter is filled"
    for name, parts in rows.items():
        covered = sorted((e.rows.start, e.rows.stop) for e in parts) if parts[0].rows != slice(None) else []
        assert not covered or all(a[1] <= b[0] for a, b in itertools.pairwise(covered)), name
        if variant != "lopsided" and covered:
            assert sum(b - a for a, b in covered) == len(state[name])


@pytest.mark.parametrize("variant", MAKE.VARIANTS)
def test_a_configuration_survives_the_way_there_and_back(variant):
    config = MAKE.CONFIG | MAKE.VARIANTS[variant]
    again = config_of(transformer(config))
    assert {key: again[key] for key in config} == config
    assert arguments_of(again) == arguments_of(config)


@pytest.mark.parametrize("name", PUBLISHED)
@pytest.mark.parametrize("dim", [16, 24])
def test_position_tables_are_those_of_the_formula(name, dim):
    expected = torch.from_numpy(MAKE.table(PUBLISHED[name].key, dim))
    torch.testing.assert_close(position_table(name, dim), expected, atol=3e-5, rtol=0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"act_layer": "GELU"}, "act_layer is 'GELU': this transformer has 'SiLU' only"),
        ({"gated_mlp": False}, "gated_mlp is False: this transformer has True only"),
        ({"qk_norm": None}, r"qk_norm is False \(the default of a key that is absent\)"),
        ({"qkv_bias": None}, r"qkv_bias is True \(the default of a key that is absent\)"),
        ({"proj_bias": True}, "proj_bias is True: this transformer has False only"),
        ({"mlp_bias": True}, "mlp_bias is True"),
        ({"num_register_tokens": 4}, "num_register_tokens is 4: this transformer has 0 only"),
        ({"decoder_causal_mask": True}, "decoder_causal_mask is True"),
        ({"norm_bias": None}, "lacks norm_bias"),
        ({"domains_in": None, "act_layer": None}, "lacks act_layer, domains_in"),
        ({"image_size": 96}, "unknown key 'image_size'"),
        ({"num_head": 4}, "unknown key 'num_head'; did you mean 'num_heads'"),
        ({"domains_in": ["tok_zz"]}, "unknown modality 'tok_zz'; did you mean 'tok_z'"),
        ({"domains_in": ["../../etc/passwd"]}, "unknown modality '../../etc/passwd'"),
        ({"domains_out": ["tok_z", "tok_z"]}, "domains_out must be a list of different names"),
        ({"domains_out": []}, "domains_out must be a list of different names"),
        ({"domains_in": "tok_z"}, "domains_in must be a list of different names"),
        ({"dim": 30}, "dim must be a multiple of 4, given 30"),
        ({"dim": "768"}, "dim must be a whole positive number, given '768'"),
        ({"encoder_depth": True}, "encoder_depth must be a whole positive number, given True"),
        ({"decoder_depth": 0}, "decoder_depth must be a whole positive number, given 0"),
        ({"mlp_ratio": "4"}, "mlp_ratio must be a positive number, given '4'"),
        ({"mlp_ratio": 0}, "mlp_ratio must be a positive number, given 0"),
        ({"mlp_ratio": math.nan}, "mlp_ratio must be a positive number, given nan"),
        ({"num_heads": 3}, "num_heads must be a divisor of dim, 16, given 3"),
        ({"norm_bias": "no"}, "norm_bias must be true or false, given 'no'"),
    ],
)
def test_configurations_that_do_not_fit_are_refused(change, message):
    config = {key: value for key, value in (MAKE.CONFIG | change).items() if value is not None}
    with pytest.raises(ValueError, match=message):
        arguments_of(config)


def test_what_only_training_needs_is_not_looked_at():
    config = MAKE.CONFIG | {"drop_path_rate_encoder": 0.1, "use_act_checkpoint": True}
    assert arguments_of(config) == arguments_of(MAKE.CONFIG)


def test_a_modality_of_ours_has_no_published_layout():
    model = Transformer({"redshift": 8, "spectrum": 9}, dim=8, heads=2, encoder_depth=1, decoder_depth=1)
    with pytest.raises(ValueError, match="the published layout has no modality 'spectrum'"):
        config_of(model)
