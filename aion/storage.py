"""`Stored`: a model of tokenizers and a transformer, saved and loaded as one.

What is on disk is a bundle, see `aion.bundle`, or a published checkpoint, see `aion.official`.
"""

__all__ = ["Stored"]

import hashlib
import json
import tempfile

from collections.abc import Mapping
from pathlib import Path
from typing import TypeVar

import torch

from torch import Tensor, nn

from aion import bundle, official
from aion.device import fast_dtype, usable
from aion.tokenizers import build
from aion.transformer import Transformer

Self = TypeVar("Self", bound="Stored")


class Stored(nn.Module):
    """Saves and loads a model; `aion.model.AION` says what one can do with it.

    A subclass is built from tokenizers, the names of those of each modality, a transformer, provenance and unused
    tensors, and keeps them under these names.
    """

    parts: nn.ModuleDict
    modalities: Mapping[str, str]
    transformer: Transformer
    provenance: dict[str, object]
    unused: dict[str, Tensor]
    _loaded: tuple[str, torch.dtype, list] | None = None  # hash, dtype in the file and state when hashed

    def save_pretrained(self, folder: Path | str) -> str:
        """Writes the bundle and returns the hash of the model; the folder appears whole or not at all.

        Raises:
            FileExistsError: if there is a file of that name, or a folder with anything in it but a bundle.
            OSError: if it cannot be written; what was there before is kept.
        """
        folder = Path(folder).resolve()
        if folder.exists() and not (folder.is_dir() and bundle.may_be_replaced(folder)):
            msg = f"{folder} exists and is no bundle, or holds other files too: choose another folder"
            raise FileExistsError(msg)
        with bundle.whole(folder) as new:
            return self._write(new)

    def push_to_hub(self, repo_id: str, *, private: bool = False, token: str | None = None) -> str:
        """Uploads the bundle to the Hugging Face Hub and returns the address of the commit."""
        with tempfile.TemporaryDirectory() as folder:
            self.save_pretrained(Path(folder) / "bundle")
            return bundle.upload(Path(folder) / "bundle", repo_id, private, token)

    @classmethod
    def from_pretrained(
        cls: type[Self],
        name: Path | str,
        *,
        revision: str | None = None,
        device: torch.device | str = "auto",
        dtype: torch.dtype | str = torch.float32,
        parity: bool = False,
        padding: bool = False,
        codecs: Path | str | None = None,
    ) -> Self:
        """Loads a bundle, or a published AION-1 checkpoint such as `"polymathic-ai/aion-base"`.

        Weights are mapped from the file: it must stay as it is while the model is in use.

        Arguments:
            name: `"aion-nano"`, a folder, or `"owner/name"` on the Hub (its cache is used when there is no network).
            revision: branch, tag or commit on the Hub.
            device: `"auto"` takes CUDA if there is one, else the CPU.
            dtype: of the transformer, float32 by default, also by its name, `"bfloat16"`; `"auto"` takes that where the
                device has matrix units for it. Tokenizers stay in float32, in which they quantise.
            parity: does what the published package does where that is questionable, see `docs/official.md`; for
                published checkpoints only. A bundle saved from one keeps the mode it was loaded in.
            padding: fills the grid of published spectrum tokenizers as later versions of the published package do, see
                `aion.official.spectrum.OfficialSpectrumTokenizer`.
            codecs: the published checkpoint, a folder or on the Hub, whose tokenizers to take, if not its own; for
                those on the Hub without any it is `"polymathic-ai/aion-base"`.

        Raises:
            FileNotFoundError: if there is no such model, or a file of it is missing.
            TypeError: for what is no name.
            ValueError: for a damaged or altered file, a bundle of another format, a published checkpoint whose tensors
                do not fit its configuration, a device that cannot be used or a dtype that is no floating-point type.
        """
        device, dtype = usable(device), _floating(dtype)
        folder = bundle.locate(name, revision)
        if official.is_published(folder):
            *parts, unused = official.load(folder, parity, padding, codecs, fetch=not Path(name).expanduser().is_dir())
            facts = {"name": Path(name).name, "made by": "the authors of AION-1", "parity": parity}
            model, known = cls(*parts, facts, unused), None
        elif parity or padding or codecs is not None:
            msg = f"parity=, padding= and codecs= are for published checkpoints, and {folder} is none"
            raise ValueError(msg)
        else:
            config = bundle.read_config(folder)
            with torch.device("meta"):
                model, known = cls._empty(config), config["model_sha256"]
            for key, module in model._modules_by_file().items():
                bundle.load_weights(module, folder, key, config["sha256"])
            if bundle.UNUSED in config["sha256"]:
                model.unused = bundle.load_tensors(folder, bundle.UNUSED, config["sha256"])
        stored, dtype = model.transformer.mask_token.dtype, fast_dtype(device) if dtype == "auto" else dtype
        model.transformer.to(dtype=dtype)
        model.to(device).eval()
        if known and torch.promote_types(stored, dtype) == dtype:  # nothing was rounded away: still the same model
            model._loaded = (known, stored, model._state())
        return model

    @property
    def sha256(self) -> str:
        """Returns the content hash of weights and configuration."""
        if self._unchanged:
            return self._loaded[0]
        with tempfile.TemporaryDirectory() as folder:
            self._loaded = (self._write(Path(folder)), self.transformer.mask_token.dtype, self._state())
        return self._loaded[0]

    @property
    def tokenizers_sha256(self) -> str:
        """Returns the content hash of the tokenizers and of what each is for: equal ones make equal tokens."""
        result = hashlib.sha256(json.dumps(dict(self.modalities), sort_keys=True).encode())
        for name, part in sorted(self.parts.items()):
            result.update(json.dumps([name, part.config], sort_keys=True).encode())
            for key, value in sorted(part.state_dict().items()):
                result.update(key.encode())
                result.update(value.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
        return result.hexdigest()

    def _state(self) -> list[tuple[int, int]]:
        """Returns what differs once a parameter or buffer was replaced or written to."""
        return [(id(t), t._version) for t in (*self.parameters(), *self.buffers())]

    @property
    def _unchanged(self) -> bool:
        """Tells whether the weights are those that were loaded."""
        return self._loaded is not None and self._loaded[2] == self._state()

    def _config(self) -> dict:
        return {
            "format": bundle.FORMAT,
            "modalities": self.modalities,
            "tokenizers": {name: part.config for name, part in self.parts.items()},
            "transformer": self.transformer.config,
        }

    @classmethod
    def _empty(cls, config: Mapping) -> Self:
        try:
            tokenizers = {name: build(part, official.TOKENIZERS) for name, part in config["tokenizers"].items()}
            return cls(tokenizers, config["modalities"], config["transformer"], config.get("provenance"))
        except (KeyError, TypeError) as error:
            msg = f"config.json does not describe a bundle this version can read: {error}"
            raise ValueError(msg) from error

    def _modules_by_file(self) -> dict[str, nn.Module]:
        files = {f"tokenizers/{name}.safetensors": part for name, part in self.parts.items()}
        return {**files, "transformer.safetensors": self.transformer}

    def _write(self, folder: Path) -> str:
        files = {key: module.state_dict() for key, module in self._modules_by_file().items()}
        if self._unchanged:
            own = files["transformer.safetensors"]
            files["transformer.safetensors"] = {key: value.to(self._loaded[1]) for key, value in own.items()}
        files |= {bundle.UNUSED: self.unused} if self.unused else {}
        rows = {name: self.parts[part].describe() for name, part in self.modalities.items()}
        return bundle.write(folder, files, self._config(), self.provenance, rows)


def _floating(dtype: torch.dtype | str) -> torch.dtype | str:
    """Returns a floating-point type, which may go by its name, or "auto"."""
    found = getattr(torch, dtype, None) if isinstance(dtype, str) and dtype != "auto" else dtype
    if found != "auto" and (not isinstance(found, torch.dtype) or not found.is_floating_point):
        msg = f"from_pretrained: dtype must be a type such as torch.float32, its name, or 'auto', given {dtype!r}"
        raise ValueError(msg)
    return found
