"""A benchmark task: a declaration of what is asked, of which data, how they are split and how answers are scored."""

__all__ = ["Data", "File", "Task", "digest"]

import hashlib

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np

from torch import Tensor

from aion.observations import Observation

KINDS = (
    "classification",
    "few-labels",
    "generation",
    "matching",
    "posterior",
    "regression",
    "retrieval",
    "segmentation",
    "transfer",
)
ORIGINS = ("published", "real", "simulated")


@dataclass(frozen=True)
class File:
    """Names a file of the repository and what it must hold.

    Arguments:
        path: below the root of the repository.
        sha256: of its content.
    """

    path: str
    sha256: str

    def find(self, root: Path | str) -> Path:
        """Returns where the file lies.

        Raises:
            FileNotFoundError: if it is not there.
            ValueError: if it holds something else.
        """
        path = Path(root) / self.path
        if not path.is_file():
            msg = f"no {path}: it is in the repository, not in the installed package; name a checkout by --data"
            raise FileNotFoundError(msg)
        if (given := hashlib.sha256(path.read_bytes()).hexdigest()) != self.sha256:
            msg = f"{path}: wanted the content {self.sha256[:12]}, given {given[:12]}: scores would not be comparable"
            raise ValueError(msg)
        return path


@dataclass(frozen=True, eq=False)
class Data:
    """Holds the objects of a task; an object seen twice (equal observations) is kept once.

    Arguments:
        ids: a name for each of the B objects.
        observations: by modality.
        labels: by name, numbers or text `(B,)`, or maps `(B, H, W)`; NaN where there is none.
        folds: number of the part of the split that each object belongs to, `(B,)`.
        version: which version of a public data set this is, if only its fetching tells.
    """

    ids: np.ndarray
    observations: dict[str, Observation]
    labels: dict[str, np.ndarray]
    folds: np.ndarray
    version: str = ""

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, rows: np.ndarray) -> "Data":
        observations = {name: value[rows] for name, value in self.observations.items()}
        labels = {name: value[rows] for name, value in self.labels.items()}
        return Data(self.ids[rows], observations, labels, self.folds[rows], self.version)

    def distinct(self) -> "Data":
        """Leaves out every object that equals an earlier one in all observations."""
        parts = [v for o in self.observations.values() for v in vars(o).values() if isinstance(v, Tensor)]
        arrays = [part.cpu().reshape(len(self), -1).numpy() for part in parts]
        seen: dict[bytes, int] = {}
        for row in range(len(self)):
            seen.setdefault(hashlib.sha256(b"".join(array[row].tobytes() for array in arrays)).digest(), row)
        return self if len(seen) == len(self) else self[np.array(sorted(seen.values()))]


@dataclass(frozen=True)
class Task:
    """Declares a task.

    Arguments:
        name: lower case, with hyphens.
        question: what is asked, in a sentence.
        origin: "real", "simulated" or "published" (a public data set that is fetched).
        kind: "regression" or "classification" by probes on frozen embeddings, "few-labels" (regression from few
            objects), "transfer" (probes tested on another survey), "segmentation" (probes of maps), "retrieval"
            (neighbours in the embedding), "matching" (partners across modalities), "generation" (of another
            modality) or "posterior" (what a model predicts by itself).
        inputs: modalities given; a model reads those that it knows. For "matching" those after the first ask for it.
        labels: names of what is predicted.
        metric: name of the headline score.
        load: makes the data, given the root of a checkout.
        version: what pins the data: hash of a file, the numbers of a simulation, a revision; empty if only fetching
            tells, and then no cell is kept.
        split: the rule, in words.
        tests: folds that are tested on, each by a probe fitted to all other folds.
        licence: of the data.
        citation: of the data.
        others: modalities of the other survey: of the objects tested ("transfer") or searched ("retrieval").
        contains: names under which the provenance of a model would list these data as training data.
        note: what a reader must know beside the score.
    """

    name: str
    question: str
    origin: str
    kind: str
    inputs: tuple[str, ...]
    labels: tuple[str, ...]
    metric: str
    load: Callable[[Path], Data]
    version: str
    split: str
    tests: tuple[int, ...]
    licence: str
    citation: str
    others: tuple[str, ...] = ()
    contains: tuple[str, ...] = ()
    note: str = ""

    def __post_init__(self) -> None:
        for field, value, known in (("origin", self.origin, ORIGINS), ("kind", self.kind, KINDS)):
            if value not in known:
                msg = f"task {self.name!r}: {field} must be one of {', '.join(known)}, given {value!r}"
                raise ValueError(msg)

    @property
    def sha256(self) -> str:
        """Returns the hash of the declaration."""
        plain = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "load"}
        return hashlib.sha256(repr(sorted(plain.items())).encode()).hexdigest()


def digest(observations: Mapping[str, Observation]) -> str:
    """Computes a hash of the content of observations; the order of the modalities does not matter."""
    total = hashlib.sha256()
    for name in sorted(observations):
        value = observations[name]
        total.update(f"{name} {type(value).__name__}".encode())
        for field in fields(value):
            part = getattr(value, field.name)
            if isinstance(part, Tensor):
                array = part.cpu().contiguous().numpy()
                total.update(f"{field.name} {array.shape} {array.dtype}".encode() + array.tobytes())
            else:
                total.update(f"{field.name} {part!r}".encode())
    return total.hexdigest()
