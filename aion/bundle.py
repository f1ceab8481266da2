"""The bundle: a model as a folder, and how it is found, checked, read and written.

A bundle holds `config.json`, `transformer.safetensors`, `tokenizers/<name>.safetensors` and a model card; one made from
a published checkpoint also `unused.safetensors`, what that has and nothing here reads. `config.json` holds the keyword
arguments of every part, which tokenizer reads which modality, the SHA-256 of every weight file and where the model is
from. The hash of the model is the hash of all that but the last.
"""

__all__ = [
    "BUNDLED",
    "FORMAT",
    "UNUSED",
    "digest",
    "load_tensors",
    "load_weights",
    "locate",
    "may_be_replaced",
    "read_config",
    "save_tensors",
    "sha256",
    "upload",
    "whole",
    "write",
]

import hashlib
import json
import re
import shutil
import tempfile

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from aion.observations import near_miss

FORMAT = 1  # of the bundle; a reader refuses any other
BUNDLED = Path(__file__).parent / "models"
UNUSED = "unused.safetensors"
FILES = ("config.json", "*.safetensors", "README.md", "codecs/*/config.json")  # never a pickle


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


def locate(name: Path | str, revision: str | None, files: Sequence[str] = FILES) -> Path:
    """Finds the folder of a bundle: shipped, local, or a snapshot of the Hub (its cache, when there is no network).

    Of a repository of the Hub only what matches the patterns `files` is fetched.

    Raises:
        FileNotFoundError: if it is nowhere, or has no such revision.
        TypeError: for what is no name.
    """
    if not isinstance(name, Path | str) or not str(name):
        msg = f"wanted a name such as 'aion-nano', a folder, or a Hub id owner/name, given {name!r}"
        raise TypeError(msg)
    bundled = {path.name for path in BUNDLED.iterdir() if path.is_dir()} if BUNDLED.is_dir() else set()
    folder = BUNDLED / str(name) if str(name) in bundled else Path(name).expanduser()
    if folder.is_dir():
        return _snapshot(folder, revision)
    local = isinstance(name, Path) or Path(name).is_file() or str(name).startswith((".", "/", "~"))
    if local or str(name).count("/") != 1:
        msg = (
            f"no bundle {str(name)!r}: not a folder, not shipped ({near_miss(name, bundled)}), not a Hub id owner/name "
            "such as polymathic-ai/aion-base"
        )
        raise FileNotFoundError(msg)
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(str(name), revision=revision, allow_patterns=list(files)))
    except Exception as error:
        msg = f"{name!r} is no local folder and could not be fetched from the Hub, nor found in its cache: {error}"
        raise FileNotFoundError(msg) from error


def _snapshot(folder: Path, revision: str | None) -> Path:
    """Returns the folder itself, or what a folder of the Hub's cache holds of a revision."""
    reference = folder / "refs" / (revision or "main")
    commit = reference.read_text().strip() if reference.is_file() else revision or ""
    if re.fullmatch("[0-9a-f]{40}", commit) and (folder / "snapshots" / commit).is_dir():
        return folder / "snapshots" / commit
    if revision is not None:
        msg = f"{folder} holds no revision {revision!r}: only a folder of the Hub's cache holds any"
        raise FileNotFoundError(msg)
    return folder


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
    wanted = {**dict.fromkeys(("modalities", "tokenizers", "transformer", "sha256"), dict), "model_sha256": str}
    if missing := [key for key, kind in wanted.items() if not isinstance(config.get(key), kind)]:
        msg = f"{path} lacks {', '.join(sorted(missing))}"
        raise ValueError(msg)
    for name in config["tokenizers"]:
        if not re.fullmatch(r"[A-Za-z0-9_-][A-Za-z0-9_.-]*", name):
            msg = f"{path}: {name!r} cannot be the name of a tokenizer: its file would lie elsewhere"
            raise ValueError(msg)
    described = {k: config[k] for k in ("format", "modalities", "tokenizers", "transformer")}
    if digest(described, config["sha256"]) != config["model_sha256"]:
        msg = f"{path} was altered: its content does not match its own hash"
        raise ValueError(msg)
    return config


def load_tensors(folder: Path, key: str, hashes: Mapping[str, str]) -> dict[str, Tensor]:
    """Maps the tensors of one weight file, after checking its hash.

    Raises:
        FileNotFoundError: if it is missing.
        ValueError: if it was altered or is no safetensors file.
    """
    path = folder / key
    if not path.exists():
        msg = f"{path} is missing from the bundle"
        raise FileNotFoundError(msg)
    if (given := sha256(path)) != hashes.get(key):
        wanted = str(hashes.get(key))
        msg = f"{path} was altered or damaged: its SHA-256 is {given[:16]}..., config.json says {wanted[:16]}..."
        raise ValueError(msg)
    try:
        return load_file(path)
    except SafetensorError as error:
        msg = f"{path} is no safetensors file: {error}"
        raise ValueError(msg) from error


def save_tensors(path: Path, tensors: Mapping[str, Tensor]) -> str:
    """Writes tensors to a new file that everyone may read and returns its SHA-256."""
    save_file({key: value.detach().cpu().contiguous() for key, value in tensors.items()}, path)
    path.chmod(0o644)  # safetensors lets the owner alone read
    return sha256(path)


def load_weights(module: nn.Module, folder: Path, key: str, hashes: Mapping[str, str]) -> None:
    """Loads one weight file into a module on the meta device, strictly, after checking its hash.

    Raises:
        FileNotFoundError: if it is missing.
        ValueError: if it was altered, is no safetensors file or does not fit the module.
    """
    tensors = load_tensors(folder, key, hashes)
    try:
        module.load_state_dict(tensors, strict=True, assign=True)
    except RuntimeError as error:
        msg = f"{folder / key} does not fit its configuration: {error}"
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


def upload(folder: Path, repo_id: str, private: bool, token: str | None) -> str:
    """Uploads a folder to the Hugging Face Hub and returns the address of the commit."""
    from huggingface_hub import HfApi

    api = HfApi(token=token)
    api.create_repo(repo_id, private=private, exist_ok=True)
    return api.upload_folder(repo_id=repo_id, folder_path=folder).commit_url


@contextmanager
def whole(folder: Path) -> Iterator[Path]:
    """Gives a folder to write to that takes its name when all is written; what was there before is kept until then."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        yield temporary
        temporary.chmod(0o755)
        _swap(temporary, folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def write(
    folder: Path,
    files: Mapping[str, Mapping[str, Tensor]],
    config: Mapping,
    provenance: Mapping,
    rows: Mapping[str, str],
) -> str:
    """Writes a bundle into an empty folder and returns the hash of the model.

    Arguments:
        folder: to write to.
        files: the tensors of every weight file.
        config: what the hash of the model covers beside them.
        provenance: plain JSON facts on how the model was made.
        rows: what the card says of each modality.
    """
    import aion

    hashes = {}
    for key, tensors in files.items():
        (folder / key).parent.mkdir(exist_ok=True)
        hashes[key] = save_tensors(folder / key, tensors)
    model_sha256 = digest(config, hashes)
    facts = {"sha256": hashes, "model_sha256": model_sha256, "aion_version": aion.__version__, "provenance": provenance}
    (folder / "config.json").write_text(json.dumps({**config, **facts}, indent=2, sort_keys=True) + "\n")
    count = sum(tensor.numel() for tensor in files["transformer.safetensors"].values())
    table = "\n".join(f"| `{name}` | {row} |" for name, row in rows.items())
    lines = "\n".join(f"- {key}: {value}" for key, value in provenance.items())
    (folder / "README.md").write_text(
        "---\nlibrary_name: aion\nlicense: mit\npipeline_tag: feature-extraction\n"
        "tags: [astronomy, foundation-model, spectroscopy, photometry]\n---\n\n"
        f"# An `aion` bundle\n\nA masked-modelling transformer of {count:,} parameters and its tokenizers "
        f"(content hash `{model_sha256[:16]}`).\n\n"
        '```python\nimport aion\n\nmodel = aion.AION.from_pretrained("this folder")\n```\n\n'
        f"| modality | what its tokenizer reads |\n|---|---|\n{table}\n\n## Provenance\n\n{lines or 'not stated'}\n"
    )
    return model_sha256


def _swap(new: Path, folder: Path) -> None:
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
