"""The bundle: a model as a folder, and how it is found, checked and read.

A bundle holds `config.json`, `transformer.safetensors`, `tokenizers/<name>.safetensors` and a model card. `config.json`
holds the keyword arguments of every part, which tokenizer reads which modality, the SHA-256 of every weight file and
where the model comes from. The hash of the model is the hash of all that but the last.
"""

__all__ = ["BUNDLED", "FORMAT", "digest", "load_weights", "locate", "may_be_replaced", "read_config", "sha256", "swap"]

import hashlib
import json
import shutil

from collections.abc import Mapping
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from aion.observations import near_miss

FORMAT = 1  # of the bundle; a reader refuses any other
BUNDLED = Path(__file__).parent / "models"


def sha256(path: Path) -> str:
    """Computes the SHA-256 of a file."""
    result = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            result.update(chunk)
    return result.hexdigest()


def digest(config: Mapping, hashes: Mapping[str, str]) -> str:
    """Computes the hash of a model from its configuration and the hashes of its weight files."""
    text = json.dumps({"config": config, "sha256": hashes}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def locate(name: Path | str, revision: str | None) -> Path:
    """Finds the folder of a bundle: shipped, local, or a snapshot of the Hub (its cache, when there is no network)."""
    bundled = {path.name for path in BUNDLED.iterdir() if path.is_dir()} if BUNDLED.is_dir() else set()
    if str(name) in bundled:
        return BUNDLED / str(name)
    if Path(name).is_dir():
        return Path(name)
    if isinstance(name, Path) or str(name).count("/") != 1 or str(name).startswith((".", "/", "~")):
        msg = (
            f"no bundle {str(name)!r}: not a folder, not shipped ({near_miss(name, bundled)}), not a Hub id owner/name"
        )
        raise FileNotFoundError(msg)
    from huggingface_hub import snapshot_download

    patterns = ["config.json", "*.safetensors", "README.md"]
    try:
        return Path(snapshot_download(str(name), revision=revision, allow_patterns=patterns))
    except Exception as error:
        msg = f"{name!r} is no local folder and could not be fetched from the Hub, nor found in its cache: {error}"
        raise FileNotFoundError(msg) from error


def read_config(folder: Path) -> dict:
    """Reads `config.json` and checks its format and its hash.

    Raises:
        FileNotFoundError: if there is none.
        ValueError: if it is no JSON, of another format, incomplete or altered.
    """
    path = folder / "config.json"
    if not path.exists():
        msg = f"{folder} is no bundle: it has no config.json"
        raise FileNotFoundError(msg)
    try:
        config = json.loads(path.read_text())
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        msg = f"{path} is not JSON: {error}"
        raise ValueError(msg) from error
    if not isinstance(config, dict) or config.get("format") != FORMAT:
        given = config.get("format") if isinstance(config, dict) else None
        msg = f"{path}: wanted a bundle of format {FORMAT}, given {given!r} (another version of aion wrote it?)"
        raise ValueError(msg)
    if missing := {"modalities", "tokenizers", "transformer", "sha256", "model_sha256"} - set(config):
        msg = f"{path} lacks {', '.join(sorted(missing))}"
        raise ValueError(msg)
    described = {k: config[k] for k in ("format", "modalities", "tokenizers", "transformer")}
    if digest(described, config["sha256"]) != config["model_sha256"]:
        msg = f"{path} was altered: its content does not match its own hash"
        raise ValueError(msg)
    return config


def load_weights(module: nn.Module, folder: Path, key: str, hashes: Mapping[str, str]) -> None:
    """Loads one weight file into a module on the meta device, strictly, after checking its hash."""
    path = folder / key
    if not path.exists():
        msg = f"{path} is missing from the bundle"
        raise FileNotFoundError(msg)
    if (given := sha256(path)) != hashes.get(key):
        wanted = str(hashes.get(key))
        msg = f"{path} was altered or damaged: its SHA-256 is {given[:16]}..., config.json says {wanted[:16]}..."
        raise ValueError(msg)
    try:
        tensors = load_file(path)
        module.load_state_dict(tensors, strict=True, assign=True)
    except (RuntimeError, SafetensorError) as error:
        msg = f"{path} does not fit its configuration: {error}"
        raise ValueError(msg) from error


def may_be_replaced(folder: Path) -> bool:
    """Tells whether a folder is empty or holds a bundle and nothing else, so that nobody's files are lost with it."""
    files = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if not path.is_dir()}
    if not files:
        return True
    try:
        config = json.loads((folder / "config.json").read_text())
        own = {"README.md", "config.json", *config["sha256"]}
    except (KeyError, OSError, TypeError, ValueError):
        return False
    return "model_sha256" in config and files <= own


def swap(new: Path, folder: Path) -> None:
    """Puts a finished folder under its name; the one before is removed only when the new one is in its place."""
    before = new.with_name(f"{new.name}.before")
    if folder.exists():
        folder.replace(before)
    try:
        new.replace(folder)
    except OSError:
        if before.exists():
            before.replace(folder)
        raise
    shutil.rmtree(before, ignore_errors=True)
