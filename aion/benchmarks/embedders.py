"""What can be scored beside the baseline: a frozen model, and a table of embeddings that someone brings."""

__all__ = ["Brought", "Frozen", "embedder", "trained_on"]

import copy
import hashlib

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch

from aion.benchmarks.protocol import Embedder, Masked
from aion.benchmarks.raw import Raw
from aion.io import read_embeddings
from aion.model import AION
from aion.observations import Image, Observation
from aion.posterior import Posterior

BATCH = 32


class Frozen:
    """Embeds by a frozen model: the mean over the tokens that its encoder returns.

    Arguments:
        model: the model.
        name: in tables.
    """

    def __init__(self, model: AION, name: str, sha256: str | None = None) -> None:
        self.model, self.name = model, name
        self.sha256 = sha256 or model.sha256
        self.trained_on = trained_on(model.provenance)

    def reads(self, name: str) -> bool:
        """Tells whether the model has a tokenizer for a modality."""
        return name in self.model.modalities

    def embed(self, ids: Sequence[str], observations: Mapping[str, Observation]) -> np.ndarray:
        """Returns mean embeddings `(B, D)`."""
        return self.model.embed(observations, batch_size=BATCH).cpu().numpy()

    def predict(self, observations: Mapping[str, Observation], name: str) -> Posterior:
        """Predicts the distribution of a scalar."""
        return self.model.predict(observations, name, batch_size=BATCH)

    def generate(self, observations: Mapping[str, Observation], name: str, like: Observation) -> Observation:
        """Predicts another modality on the grid of `like`, whose values are not looked at, in one pass."""
        return self.model.reconstruct(observations, name, like=like, batch_size=BATCH)

    def grids(self, observations: Mapping[str, Observation], side: int) -> np.ndarray:
        """Returns the mean vectors of the tokens in each cell of a grid over the image, `(B, D, side, side)`."""
        ((name, image),) = observations.items()
        rows = (image[start : start + BATCH] for start in range(0, len(image), BATCH))
        return np.concatenate([self._grid(name, part, side) for part in rows])

    @torch.no_grad()
    def _grid(self, name: str, image: Image, side: int) -> np.ndarray:
        sequence = self.model.tokenize({name: image})
        vectors, valid = self.model.embed_tokens(sequence, "none")
        cells = torch.tensor(getattr(self.model.tokenizer(name), "grid", (side, side))) / side
        place = sequence.position / cells.to(sequence.position)
        if not hasattr(self.model.tokenizer(name), "grid"):  # offsets from the centre in arcsec
            extent = image.pixel_scale[:, None] * torch.tensor(image.flux.shape[2:])
            place = sequence.position / extent[:, None].to(sequence.position) * side + side / 2
        row, column = place.floor().clamp(0, side - 1).long().unbind(-1)
        index = (row * side + column)[..., None].expand_as(vectors)
        total = vectors.new_zeros(len(image), side * side, vectors.shape[2]).scatter_add_(1, index, vectors)
        count = vectors.new_zeros(len(image), side * side).scatter_add_(1, index[..., 0], valid.to(vectors))
        return (total / count.clamp(min=1)[..., None]).mT.unflatten(2, (side, side)).cpu().numpy()

    def controls(self, seed: int) -> dict[str, Embedder]:
        """Returns the model with all weights shuffled, each tensor in itself, and the model shown masks alone."""
        other = copy.deepcopy(self.model)
        generator = torch.Generator().manual_seed(seed)
        for parameter in other.parameters():
            order = torch.randperm(parameter.numel(), generator=generator).to(parameter.device)
            parameter.data = parameter.data.flatten()[order].view_as(parameter)
        shuffled = Frozen(other, f"{self.name}, random weights", f"{self.sha256}-shuffled-{seed}")
        return {"random weights": shuffled, "masks only": Masked(self)}


class Brought:
    """Takes embeddings from a Parquet file as `aion embed` writes it, one of each object, matched by id.

    Arguments:
        path: the file.

    Raises:
        ValueError: for an id that stands there twice.
    """

    trained_on = ()
    sees = False

    def __init__(self, path: Path | str) -> None:
        path = Path(path)
        table = read_embeddings(path)
        self.name, self.sha256 = path.stem, hashlib.sha256(path.read_bytes()).hexdigest()
        self._rows = {name: row for row, name in enumerate(table.ids)}
        self._embedding = table.embedding.numpy()
        if len(self._rows) != len(table.ids):
            msg = f"{path}: {len(table.ids) - len(self._rows)} object ids stand there more than once"
            raise ValueError(msg)

    def reads(self, name: str) -> bool:
        """Takes every modality: what the vectors were made of is not known here."""
        return True

    def embed(self, ids: Sequence[str], observations: Mapping[str, Observation]) -> np.ndarray:
        """Returns the vectors `(B, D)` of these ids.

        Raises:
            ValueError: if the file lacks any of them.
        """
        missing = [name for name in ids if name not in self._rows]
        if missing:
            lacking = f"{len(missing)} of {len(ids)} objects of this task, such as {missing[0]!r}"
            msg = f"{self.name}: the embeddings lack {lacking}"
            raise ValueError(msg)
        return self._embedding[[self._rows[name] for name in ids]]

    def controls(self, seed: int) -> dict[str, Embedder]:
        """Returns none: the observations are not seen."""
        return {}


def embedder(name: str, device: str = "auto") -> Embedder:
    """Makes an embedder: `raw`, a Parquet file of embeddings, or whatever `AION.from_pretrained` reads."""
    if name == "raw":
        return Raw()
    if name.endswith(".parquet"):
        return Brought(name)
    return Frozen(AION.from_pretrained(name, device=device), Path(name).name)


def trained_on(provenance: Mapping[str, object]) -> tuple[str, ...]:
    """Lists the data sets that a model has seen: those that its provenance, or that of a part, names.

    They stand in lists under `trained_on`; under `data` as sources with facts of their own, or as the last part of a
    `path`. A data set of which a part was held out is called "NAME but part 0".
    """
    return tuple(sorted(set(_named(provenance))))


def _named(provenance: Mapping[str, object]) -> Iterator[str]:
    for key, value in provenance.items():
        if key == "trained_on":
            yield from [value] if isinstance(value, str) else value
        elif isinstance(value, Mapping):
            if key == "data" and isinstance(path := value.get("path"), str):
                yield Path(path).name
            elif key == "data":
                sources = {name: facts for name, facts in value.items() if isinstance(facts, Mapping)}
                yield from (f"{name} but part 0" if own.get("held_out") else name for name, own in sources.items())
            yield from _named(value)
