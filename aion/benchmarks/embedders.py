"""What can be scored beside the baseline: a frozen model, and a table of embeddings that someone brings."""

__all__ = ["Brought", "Frozen", "embedder", "trained_on"]

import copy
import hashlib

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import fields
from pathlib import Path

import numpy as np
import torch

from torch import Tensor

from aion.benchmarks.protocol import Embedder, Masked
from aion.benchmarks.raw import Raw
from aion.io import read_embeddings
from aion.model import AION
from aion.observations import Image, Observation, Scalar
from aion.posterior import Posterior
from aion.tokens import TokenSequence

BATCH = 32
TOKENS = 4096  # of a batch: what is computed stays in the caches of a CPU


class Frozen:
    """Embeds by a frozen model.

    What is compared is the mean over the tokens that its encoder returns, as `aion embed` writes it. Probes are fitted
    to the mean of what leaves the encoder, or to means of each modality side by side, as tokens enter it and as they
    leave it: a mean over all drowns a few numbers in each other.

    Arguments:
        model: the model.
        name: in tables.
        sha256: of the model, if it is known.
        attentive: offers probes the tokens, too, which are then pooled by attention: slow, and for many labels.
    """

    def __init__(self, model: AION, name: str, sha256: str | None = None, attentive: bool = False) -> None:
        self.model, self.name, self.attentive = model, name, attentive
        self.sha256 = sha256 or model.sha256 + "-attentive" * attentive
        self.trained_on = trained_on(model.provenance)

    def reads(self, name: str) -> bool:
        """Tells whether the model has a tokenizer for a modality."""
        return name in self.model.modalities

    def embed(self, ids: Sequence[str], observations: Mapping[str, Observation]) -> np.ndarray:
        """Returns mean embeddings `(B, D)`."""
        return self.readouts(ids, observations)["vectors"]

    def readouts(self, ids: Sequence[str], observations: Mapping[str, Observation]) -> dict[str, np.ndarray]:
        """Returns `vectors` and `mean` `(B, D)`, `parts` `(B, W)` and, if asked for, `tokens` `(B, N, D)`.

        `vectors` are what `aion embed` writes, to be compared; probes are fitted to the others. In `parts` a spectrum
        or an image has one place, each number one of its own: a flag, zeros where it is missing, and the vectors of its
        tokens before and behind the encoder.
        """
        return self._each(observations, lambda sequence, rows: self._read(sequence, list(observations)))

    @torch.no_grad()
    def _read(self, sequence: TokenSequence, names: Sequence[str]) -> dict[str, Tensor]:
        valid, encoder = sequence.valid[..., None].float(), self.model.transformer
        left = encoder.encode(sequence, "encoder").float()
        context = encoder.context(left, encoder.place(sequence)).float() * valid
        left *= valid
        both = torch.cat([valid, encoder.embed_ids(sequence).float() * valid, left], dim=2)
        parts = []
        for name in names:
            own = sequence.valid & (sequence.modality == self.model.vocabulary.index(name))
            single = self.model.tokenizer(name).observation is Scalar
            place = sequence.position[..., 1].long() if single else torch.zeros_like(sequence.ids)
            count = getattr(self.model.tokenizer(name), "components", 1) if single else 1
            parts.append(_means(both, place.clamp(0, count - 1), own, count).flatten(1))
        count = valid.sum(1)
        found = {"vectors": context.sum(1) / count, "mean": left.sum(1) / count, "parts": torch.cat(parts, dim=1)}
        return found | ({"tokens": left} if self.attentive else {})

    def _each(self, observations: Mapping[str, Observation], read: Callable) -> dict[str, np.ndarray]:
        """Reads tokens of few objects at a time, those with about as many together, and returns what is read in order.

        Images have from 80 to 800 tokens: in the order that they come most of what is computed would be padding.
        """
        sequence = _joined([self.model.tokenize(batch) for batch in _batches(observations)])
        rows, longest, found = _by_length(sequence.valid.sum(1).tolist()), sequence.ids.shape[1], []
        for part in rows:
            own = sequence[part.to(sequence.ids.device)]
            made = read(own.select(own.valid), part)
            found.append({name: (_padded(v, longest) if v.ndim == 3 else v).cpu() for name, v in made.items()})
        back = torch.cat(rows).argsort()
        return {name: torch.cat([part[name] for part in found])[back].numpy() for name in found[0]}

    def predict(self, observations: Mapping[str, Observation], name: str) -> Posterior:
        """Predicts the distribution of a scalar."""
        return self.model.predict(observations, name, batch_size=BATCH)

    def generate(self, observations: Mapping[str, Observation], name: str, like: Observation) -> Observation:
        """Predicts another modality on the grid of `like`, whose values are not looked at, in one pass."""
        return self.model.reconstruct(observations, name, like=like, batch_size=BATCH)

    def grids(self, observations: Mapping[str, Observation], side: int) -> np.ndarray:
        """Returns the mean vectors of the tokens in each cell of a grid over the image, `(B, D, side, side)`."""
        ((name, image),) = observations.items()
        return self._each(observations, lambda own, rows: {"grids": self._grid(own, name, image[rows], side)})["grids"]

    @torch.no_grad()
    def _grid(self, sequence: TokenSequence, name: str, image: Image, side: int) -> Tensor:
        vectors, valid = self.model.embed_tokens(sequence, "none")
        cells = torch.tensor(getattr(self.model.tokenizer(name), "grid", (side, side))) / side
        place = sequence.position / cells.to(sequence.position)
        if not hasattr(self.model.tokenizer(name), "grid"):  # offsets from the centre in arcsec
            extent = image.pixel_scale[:, None] * torch.tensor(image.flux.shape[2:])
            place = sequence.position / extent[:, None].to(sequence.position) * side + side / 2
        row, column = place.floor().clamp(0, side - 1).long().unbind(-1)
        means = _means(vectors, row * side + column, valid, side * side)
        return means.mT.unflatten(2, (side, side))

    def controls(self, seed: int) -> dict[str, Embedder]:
        """Returns the model with all weights shuffled, each tensor in itself, and the model shown masks alone."""
        other = copy.deepcopy(self.model)
        generator = torch.Generator().manual_seed(seed)
        for parameter in other.parameters():
            order = torch.randperm(parameter.numel(), generator=generator).to(parameter.device)
            parameter.data = parameter.data.flatten()[order].view_as(parameter)
        sha256 = f"{self.sha256}-shuffled-{seed}"
        shuffled = Frozen(other, f"{self.name}, random weights", sha256, self.attentive)
        return {"random weights": shuffled, "masks only": Masked(self)}


def _batches(observations: Mapping[str, Observation]) -> Iterator[dict[str, Observation]]:
    count = len(next(iter(observations.values())))
    for start in range(0, count, BATCH):
        yield {name: value[start : start + BATCH] for name, value in observations.items()}


def _joined(sequences: Sequence[TokenSequence]) -> TokenSequence:
    """Joins batches of objects, all padded to the longest."""
    longest = max(part.ids.shape[1] for part in sequences)
    names = [field.name for field in fields(TokenSequence)]
    return TokenSequence(**{n: torch.cat([_padded(getattr(s, n), longest) for s in sequences]) for n in names})


def _padded(values: Tensor, length: int) -> Tensor:
    """Adds zeros along the second axis."""
    return torch.cat([values, values.new_zeros(len(values), length - values.shape[1], *values.shape[2:])], dim=1)


def _by_length(lengths: Sequence[int]) -> list[Tensor]:
    """Parts objects by their numbers of tokens, fewest first: in batches of at most 32 and 4096 tokens, or of one."""
    batches: list[list[int]] = [[]]
    for row in sorted(range(len(lengths)), key=lengths.__getitem__):
        if len(batches[-1]) == BATCH or (batches[-1] and (len(batches[-1]) + 1) * lengths[row] > TOKENS):
            batches.append([])
        batches[-1].append(row)
    return [torch.tensor(rows) for rows in batches]


def _means(vectors: Tensor, place: Tensor, valid: Tensor, count: int) -> Tensor:
    """Averages the vectors `(B, N, D)` of valid tokens by their place, `(B, count, D)`; zeros where there is none."""
    weight = valid.to(vectors)
    index = place[..., None].expand_as(vectors)
    total = vectors.new_zeros(len(vectors), count, vectors.shape[2])
    total.scatter_add_(1, index, vectors * weight[..., None])
    number = vectors.new_zeros(len(vectors), count).scatter_add_(1, place, weight)
    return total / number.clamp(min=1)[..., None]


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


def embedder(name: str, device: str = "auto", attentive: bool = False) -> Embedder:
    """Makes an embedder: `raw`, a Parquet file of embeddings, or whatever `AION.from_pretrained` reads.

    Arguments:
        name: of it.
        device: where a model computes.
        attentive: see `Frozen`.
    """
    if name == "raw":
        return Raw()
    if name.endswith(".parquet"):
        return Brought(name)
    return Frozen(AION.from_pretrained(name, device=device), Path(name).name, attentive=attentive)


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
