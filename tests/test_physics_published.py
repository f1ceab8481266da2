import pytest
import torch

from safetensors.torch import save_file

from aion.physics.builders import published
from aion.physics.flow import Flow
from aion.physics.published import load_walrus, to_ours, to_published

TINY = {"dim": 32, "depth": 2, "heads": 2, "hidden": 48, "middle": 8, "tokens_2d": 64}
FIELDS = ["pressure", "velocity_x", "velocity_y"]
CONFIG = """
data:
  field_index_map_override:
    closed_boundary: 0
    open_boundary: 1
    bias_correction: 2
    velocity_x: 4
    pressure: 3
    velocity_y: 5
model: {hidden_dim: 32}
"""


@pytest.fixture
def folder(tmp_path):
    generator = torch.Generator().manual_seed(0)
    random = {key: torch.randn(value.shape, generator=generator) for key, value in weights().items()}
    save_file({**random, "encoder_dummy": torch.tensor([1.5])}, tmp_path / "walrus.safetensors")
    (tmp_path / "extended_config.yaml").write_text(CONFIG)
    return tmp_path


def weights():
    return {key: value.contiguous() for key, value in to_published(published(FIELDS, **TINY).state_dict()).items()}


def test_keys_and_shapes_are_the_published_ones():
    with torch.device("meta"):
        shapes = {
            k: tuple(v.shape) for k, v in to_published(published([f"f{i}" for i in range(64)]).state_dict()).items()
        }
    space, time = "blocks.39.space_mixing", "blocks.0.time_mixing"
    known = {
        "encoder_dummy": (1,),
        "embed.2.proj1.weight": (352, 67, 8, 8, 8),
        "embed.3.norm1.weight": (352,),
        "embed.2.proj2.weight": (1408, 352, 4, 4, 4),
        "embed.3.norm2.weight": (1408,),
        f"{space}.norm1.weight": (1408,),
        f"{space}.fused_ff_qkv.weight": (9856, 1408),
        f"{space}.fused_ff_qkv.bias": (9856,),
        f"{space}.q_norm.weight": (88,),
        f"{space}.k_norm.bias": (88,),
        f"{space}.rotary_emb.freqs": (11,),
        f"{space}.attn_out.weight": (1408, 1408),
        f"{space}.ff_out.weight": (1408, 2816),
        f"{space}.ff_out.bias": (1408,),
        f"{time}.norm1.weight": (1408,),
        f"{time}.input_head.weight": (4224, 1408, 1, 1, 1),
        f"{time}.input_head.bias": (4224,),
        f"{time}.output_head.weight": (1408, 1408, 1, 1, 1),
        f"{time}.qnorm.weight": (88,),
        f"{time}.knorm.bias": (88,),
        f"{time}.rel_pos_bias.relative_attention_bias.weight": (32, 16),
        "debed.2.proj1.weight": (1408, 352, 4, 4, 4),
        "debed.3.norm1.weight": (352,),
        "debed.2.proj2.weight": (352, 67, 8, 8, 8),
        "debed.3.proj2.bias": (67,),
    }
    assert {key: shapes.get(key) for key in known} == known
    assert len(shapes) == 1 + 2 * 4 + 2 * 4 + 40 * (11 + 10)


def test_random_weights_load_and_go_back(folder):
    from safetensors.torch import load_file

    model = load_walrus(folder, **TINY)
    assert model.fields == ("pressure", "velocity_x", "velocity_y")
    given, back = load_file(folder / "walrus.safetensors"), to_published(model.state_dict())
    assert set(given) == set(back)
    assert all(torch.equal(back[key], given[key]) for key in given)
    window = Flow(torch.randn(1, 3, 3, 32, 32), FIELDS, ["periodic", "wall"])
    with torch.no_grad():
        assert torch.isfinite(model(window, generator=torch.Generator().manual_seed(0))).all()


def test_what_is_missing_left_over_or_of_another_shape_is_named():
    model, tensors = published(FIELDS, **TINY), weights()
    with pytest.raises(ValueError, match=r"missing embed\.2\.norm1\.weight; not known nothing"):
        to_ours(model, {key: value for key, value in tensors.items() if key != "embed.2.norm1.weight"})
    with pytest.raises(ValueError, match="not known extra"):
        to_ours(model, {**tensors, "extra": torch.zeros(1)})
    with pytest.raises(ValueError, match="an earlier layout"):
        to_ours(model, {**tensors, "blocks.0.time_mixing.gamma": torch.zeros(1)})
    with pytest.raises(ValueError, match=r"debed.2.proj2.bias wanted \(6,\), given \(7,\)"):
        to_ours(model, {**tensors, "debed.2.proj2.bias": torch.zeros(7)})


def test_a_pickle_is_not_opened_but_explained(folder):
    (folder / "walrus.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match=r"wanted walrus.safetensors and extended_config.yaml"):
        load_walrus(folder)
    (folder / "walrus.pt").write_bytes(b"never read")
    with pytest.raises(FileNotFoundError, match=r"convert .*walrus.pt once: python -c .*weights_only=True"):
        load_walrus(folder)


def test_files_that_are_damaged_are_refused(folder):
    config = folder / "extended_config.yaml"
    for text in ("data: {}", "data: {field_index_map_override: [1]}", "{", "data: {field_index_map_override: {a: x}}"):
        config.write_text(text)
        with pytest.raises(ValueError, match="does not map names of fields"):
            load_walrus(folder, **TINY)
    config.write_text(CONFIG.replace("5", "6"))
    with pytest.raises(ValueError, match="without a gap"):
        load_walrus(folder, **TINY)
    config.unlink()
    with pytest.raises(FileNotFoundError, match="names the fields"):
        load_walrus(folder, **TINY)
    (folder / "walrus.safetensors").write_bytes(b"x" * 20)
    with pytest.raises(ValueError, match="no safetensors file"):
        load_walrus(folder, **TINY)
