"""A trained model as a folder: `config.json` and `walrus.safetensors`.

`config.json` holds the keyword arguments, the SHA-256 of the weights and how the model was made; the hash of the
model is the hash of the first two.
"""

__all__ = ["WEIGHTS", "read", "save"]

import json

from collections.abc import Mapping
from pathlib import Path

from safetensors.torch import save_file
from torch import nn

from aion.bundle import FORMAT, digest, locate, sha256, whole

WEIGHTS = "walrus.safetensors"


def save(model: nn.Module, folder: Path | str, provenance: Mapping[str, object] | None = None) -> str:
    """Writes a model into a folder, which it replaces, and returns its hash.

    Arguments:
        model: what to write; its `config` holds the keyword arguments of its class.
        folder: new, empty, or that of a model.
        provenance: plain JSON facts on how it was made.

    Raises:
        FileExistsError: if the folder holds anything else.
    """
    import aion

    folder = Path(folder)
    if folder.exists() and {path.name for path in folder.iterdir()} - {"config.json", WEIGHTS}:
        msg = f"{folder} holds more than a model of flows: choose another folder"
        raise FileExistsError(msg)
    with whole(folder) as new:
        save_file({k: v.detach().cpu().contiguous() for k, v in model.state_dict().items()}, new / WEIGHTS)
        (new / WEIGHTS).chmod(0o644)  # safetensors lets the owner alone read
        hashes = {WEIGHTS: sha256(new / WEIGHTS)}
        config = {"format": FORMAT, "walrus": model.config}
        facts = {"sha256": hashes, "model_sha256": digest(config, hashes), "aion_version": aion.__version__}
        text = json.dumps({**config, **facts, "provenance": dict(provenance or {})}, indent=2, sort_keys=True)
        (new / "config.json").write_text(text + "\n")
    return facts["model_sha256"]


def read(name: Path | str, revision: str | None = None) -> tuple[Path, dict]:
    """Finds the folder of a model, here or on the Hub, and reads its `config.json`.

    Raises:
        FileNotFoundError: if there is none.
        ValueError: if the file was altered or is none of a model.
    """
    folder = locate(name, revision)
    path = folder / "config.json"
    try:
        facts = json.loads(path.read_text())
        described = {key: facts[key] for key in ("format", "walrus")}
        intact = digest(described, facts["sha256"]) == facts["model_sha256"] and facts["format"] == FORMAT
    except (KeyError, TypeError, UnicodeDecodeError, json.JSONDecodeError) as error:
        msg = f"{path} is not the configuration of a model of flows ({type(error).__name__}: {error})"
        raise ValueError(msg) from error
    if not intact:
        msg = f"{path} was altered, or is of another format: its content does not match its own hash"
        raise ValueError(msg)
    return folder, facts
