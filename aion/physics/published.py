"""The published Walrus checkpoint in our layout: every key mapped, every shape checked, nothing left over.

The published file is a pickle, which is never opened here; it is converted once, where it is trusted, with the
command that `load_walrus` prints. The names of fields and their columns stand in `extended_config.yaml` beside it.

What is known of the layout is its keys and shapes; no published weights were at hand to compare values with. Where
keys and shapes leave a choice (which half of the gated projection is the gate, what the flag of the inside of the
grid is), it is ours.
"""

__all__ = ["load_walrus", "to_ours", "to_published"]

import re

from collections.abc import Mapping
from pathlib import Path

import torch

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from aion.physics.builders import published
from aion.physics.patching import FLAGS
from aion.physics.walrus import Walrus

WEIGHTS = "walrus.safetensors"
CONFIG = "extended_config.yaml"
CONVERT = (
    "python -c \"import torch; from safetensors.torch import save_file; d = torch.load('walrus.pt', "
    "map_location='cpu', weights_only=True)['app']['model']; "
    f"save_file({{k: v.contiguous() for k, v in d.items()}}, '{WEIGHTS}')\""
)
# ours, theirs; a block's number and a dimensionality stay as they are
NAMES = (
    (r"gain", "encoder_dummy"),
    (r"encoders\.([23])\.conv([12])\.weight", r"embed.\1.proj\2.weight"),
    (r"encoders\.([23])\.norm([12])\.weight", r"embed.\1.norm\2.weight"),
    (r"decoders\.([23])\.conv([12])\.(weight|bias)", r"debed.\1.proj\2.\3"),
    (r"decoders\.([23])\.norm1\.weight", r"debed.\1.norm1.weight"),
    (r"blocks\.(\d+)\.space\.norm\.weight", r"blocks.\1.space_mixing.norm1.weight"),
    (r"blocks\.(\d+)\.space\.fused\.(weight|bias)", r"blocks.\1.space_mixing.fused_ff_qkv.\2"),
    (r"blocks\.(\d+)\.space\.([qk]_norm)\.(weight|bias)", r"blocks.\1.space_mixing.\2.\3"),
    (r"blocks\.(\d+)\.space\.frequencies", r"blocks.\1.space_mixing.rotary_emb.freqs"),
    (r"blocks\.(\d+)\.space\.proj\.weight", r"blocks.\1.space_mixing.attn_out.weight"),
    (r"blocks\.(\d+)\.space\.mlp\.(weight|bias)", r"blocks.\1.space_mixing.ff_out.\2"),
    (r"blocks\.(\d+)\.time\.norm\.weight", r"blocks.\1.time_mixing.norm1.weight"),
    (r"blocks\.(\d+)\.time\.qkv\.(weight|bias)", r"blocks.\1.time_mixing.input_head.\2"),
    (r"blocks\.(\d+)\.time\.([qk])_norm\.(weight|bias)", r"blocks.\1.time_mixing.\2norm.\3"),
    (r"blocks\.(\d+)\.time\.bias\.weight", r"blocks.\1.time_mixing.rel_pos_bias.relative_attention_bias.weight"),
    (r"blocks\.(\d+)\.time\.proj\.(weight|bias)", r"blocks.\1.time_mixing.output_head.\2"),
)
POINTWISE = re.compile(r"blocks\.\d+\.time_mixing\.(input|output)_head\.weight")  # convolutions of kernel 1 there


def to_published(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Maps the weights of a `Walrus` to the published keys and shapes."""
    result = {}
    for key, value in state.items():
        theirs = _theirs(key)
        result[theirs] = value.view(*value.shape, 1, 1, 1) if POINTWISE.fullmatch(theirs) else value
    return result


def to_ours(model: Walrus, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Maps published weights to those of a model, which may be on the meta device.

    Raises:
        ValueError: if a key is missing or left over, or a shape is another; names what differs.
    """
    own = model.state_dict()
    wanted = to_published(own)
    missing, unknown = sorted(set(wanted) - set(tensors)), sorted(set(tensors) - set(wanted))
    if missing or unknown:
        msg = f"the published weights do not fit: missing {_few(missing)}; not known {_few(unknown)}"
        if any("gamma" in key or key.startswith("space_bag") for key in unknown):
            msg += " (a checkpoint of an earlier layout, which is not read)"
        raise ValueError(msg)
    shapes = [
        f"{key} wanted {tuple(value.shape)}, given {tuple(tensors[key].shape)}"
        for key, value in wanted.items()
        if value.shape != tensors[key].shape
    ]
    if shapes:
        msg = f"the published weights do not fit: {_few(shapes)}"
        raise ValueError(msg)
    return {key: tensors[_theirs(key)].view(value.shape) for key, value in own.items()}


def _theirs(key: str) -> str:
    return next(re.sub(ours, theirs, key) for ours, theirs in NAMES if re.fullmatch(ours, key))


def load_walrus(folder: Path | str, **options: object) -> Walrus:
    """Loads the published model from a folder with `walrus.safetensors` and `extended_config.yaml`.

    Arguments:
        folder: that of the files.
        options: keyword arguments of `Walrus` that differ from the published configuration, for smaller models of the
            same layout.

    Raises:
        FileNotFoundError: if a file is missing; says how to convert the published pickle.
        ValueError: if the configuration names no fields, or keys or shapes differ.
    """
    folder = Path(folder)
    if not (folder / WEIGHTS).is_file():
        pickle = folder / "walrus.pt"
        hint = f"convert {pickle} once: {CONVERT}" if pickle.exists() else f"wanted {WEIGHTS} and {CONFIG} in it"
        msg = f"no {folder / WEIGHTS}: {hint}"
        raise FileNotFoundError(msg)
    try:
        tensors = load_file(folder / WEIGHTS)
    except SafetensorError as error:
        msg = f"{folder / WEIGHTS} is no safetensors file: {error}"
        raise ValueError(msg) from error
    with torch.device("meta"):
        model = published(_fields(folder / CONFIG), **options)
    model.load_state_dict(to_ours(model, tensors), strict=True, assign=True)
    return model.eval()


def _fields(path: Path) -> list[str]:
    """Reads the names of the fields, in the order of their columns, which follow those of the flags."""
    import yaml

    if not path.is_file():
        msg = f"no {path}, which names the fields"
        raise FileNotFoundError(msg)
    try:
        columns = yaml.safe_load(path.read_text())["data"]["field_index_map_override"]
        columns = {str(name): int(column) for name, column in columns.items()}
    except (AttributeError, KeyError, TypeError, ValueError, yaml.YAMLError) as error:
        msg = f"{path} does not map names of fields to columns under data, field_index_map_override: {error}"
        raise ValueError(msg) from error
    names = sorted((column, name) for name, column in columns.items() if column >= FLAGS)
    if [column for column, _ in names] != list(range(FLAGS, FLAGS + len(names))):
        msg = f"{path}: wanted the columns of the fields from {FLAGS} on without a gap, given {names}"
        raise ValueError(msg)
    return [name for _, name in names]


def _few(names: list[str]) -> str:
    rest = f" and {len(names) - 4} more" if len(names) > 4 else ""
    return (", ".join(names[:4]) or "nothing") + rest
