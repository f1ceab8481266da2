"""A forecaster as a folder: `config.json` and `forecaster.safetensors`.

`config.json` holds the keyword arguments, the SHA-256 of the weights (mean and scale of the data among them) and where
the forecaster is from; its hash is the hash of the first two.
"""

__all__ = ["digest", "identify", "load_weights", "read", "save"]

import json
import tempfile

from collections.abc import Mapping
from pathlib import Path

from safetensors.torch import save_file
from torch import nn

from aion.bundle import FORMAT, digest, load_tensors, locate, sha256, whole

WEIGHTS = "forecaster.safetensors"
CONFIG = "config.json"


def save(forecaster: nn.Module, folder: Path, provenance: Mapping[str, object]) -> str:
    """Writes a forecaster into a folder, which appears whole or not at all, and returns its hash.

    Raises:
        FileExistsError: if the folder holds anything but a forecaster.
    """
    folder = folder.resolve()
    if folder.exists() and (not folder.is_dir() or {p.name for p in folder.iterdir()} - {CONFIG, WEIGHTS}):
        msg = f"{folder} exists and is no forecaster, or holds other files too: choose another folder"
        raise FileExistsError(msg)
    with whole(folder) as new:
        return _write(forecaster, new, provenance)


def identify(forecaster: nn.Module) -> str:
    """Computes the hash that `save` would return."""
    with tempfile.TemporaryDirectory() as folder:
        return _write(forecaster, Path(folder), {})


def read(name: Path | str, revision: str | None) -> tuple[dict, Path]:
    """Finds a forecaster, and reads and checks its configuration.

    Raises:
        FileNotFoundError: if there is none.
        ValueError: if it is no forecaster, or was altered.
    """
    folder = locate(name, revision)
    path = folder / CONFIG
    if not path.exists():
        msg = f"{folder} is no forecaster: it has no {CONFIG}"
        raise FileNotFoundError(msg)
    try:
        config = json.loads(path.read_text())
        described = {key: config[key] for key in ("format", "forecaster")}
        intact = digest(described, config["sha256"]) == config["model_sha256"] and config["format"] == FORMAT
    except (KeyError, TypeError, UnicodeDecodeError, json.JSONDecodeError) as error:
        msg = f"{path} is not the configuration of a forecaster ({type(error).__name__}: {error})"
        raise ValueError(msg) from error
    if not intact:
        msg = f"{path} was altered, or is of another format: its content does not match its own hash"
        raise ValueError(msg)
    return config, folder


def load_weights(forecaster: nn.Module, folder: Path, config: Mapping) -> None:
    """Loads weights and normalisation, strictly, after checking their hash.

    Raises:
        FileNotFoundError: if they are missing.
        ValueError: if they were altered or do not fit.
    """
    try:
        forecaster.load_state_dict(load_tensors(folder, WEIGHTS, config["sha256"]))
    except RuntimeError as error:
        msg = f"{folder / WEIGHTS} does not fit its configuration: {error}"
        raise ValueError(msg) from error


def _write(forecaster: nn.Module, folder: Path, provenance: Mapping[str, object]) -> str:
    import aion

    tensors = {key: value.detach().cpu().contiguous() for key, value in forecaster.state_dict().items()}
    save_file(tensors, folder / WEIGHTS)
    (folder / WEIGHTS).chmod(0o644)  # safetensors lets the owner alone read
    hashes = {WEIGHTS: sha256(folder / WEIGHTS)}
    config = {"format": FORMAT, "forecaster": forecaster.config}
    facts = {"sha256": hashes, "model_sha256": digest(config, hashes), "aion_version": aion.__version__}
    text = json.dumps({**config, **facts, "provenance": dict(provenance)}, indent=2, sort_keys=True)
    (folder / CONFIG).write_text(text + "\n")
    return facts["model_sha256"]
