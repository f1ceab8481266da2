"""What an embedder makes of the objects of a task: vectors and grids of them, kept on disk, and predictions."""

__all__ = ["Seen", "code", "hashed"]

import functools
import hashlib

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch

from aion.benchmarks.fitting import Readouts
from aion.benchmarks.protocol import Embedder, pooled, probed, readouts
from aion.benchmarks.task import Data, Task, digest
from aion.observations import Observation
from aion.posterior import Posterior
from aion.whole import whole


class Seen:
    """Binds an embedder to the data of a task.

    Arguments:
        embedder: of whom.
        task: what is asked; of its modalities those are shown that the embedder reads.
        data: the objects.
        cache: folder where embeddings are kept.
    """

    def __init__(self, embedder: Embedder, task: Task, data: Data, cache: Path) -> None:
        self.embedder, self.data, self.cache = embedder, data, cache
        self.names, self.others = ([n for n in own if embedder.reads(n)] for own in (task.inputs, task.others))

    def vectors(self, names: Sequence[str] | None = None) -> np.ndarray:
        """Returns vectors `(B, D)` of the objects, to be compared, by the modalities named or all."""
        return pooled(self._read(names)["vectors"])

    def readouts(self, names: Sequence[str] | None = None) -> Readouts:
        """Returns what probes are fitted to: vectors `(B, D)` or tokens `(B, N, D)`, by name."""
        return probed(self._read(names))

    def pair(self) -> tuple[np.ndarray, np.ndarray]:
        """Returns vectors `(B, D)` as the first survey sees the objects and as the other does, in one space."""
        if not hasattr(self.embedder, "embed_both"):
            return self.vectors(), self.vectors(self.others)
        views = [self._observations(names) for names in (self.names, self.others)]
        both = self._kept(
            "pair", views[0] | views[1], (3,), lambda: {"pair": np.stack(self.embedder.embed_both(*views), 1)}
        )
        return both["pair"][:, 0], both["pair"][:, 1]

    def views(self) -> tuple[Readouts, Readouts]:
        """Returns readouts as the first survey sees the objects and as the other does."""
        if hasattr(self.embedder, "embed_both"):
            own, other = self.pair()
            return {"vectors": own}, {"vectors": other}
        return self.readouts(), self.readouts(self.others)

    def grids(self, side: int) -> np.ndarray:
        """Returns vectors of parts of the image `(B, D, side, side)`."""
        seen = self._observations(self.names)
        return self._kept(f"grids {side}", seen, (4,), lambda: {"grids": self.embedder.grids(seen, side)})["grids"]

    def posterior(self, name: str) -> Posterior:
        """Predicts the distribution of a scalar."""
        return self.embedder.predict(self._observations(self.names), name)

    def generated(self, rows: np.ndarray, name: str, like: Observation) -> Observation:
        """Predicts another modality from what was seen of some objects, on the grid of `like`, as many."""
        seen = {key: value[torch.from_numpy(rows)] for key, value in self._observations(self.names).items()}
        return self.embedder.generate(seen, name, like)

    def _observations(self, names: Sequence[str]) -> dict[str, Observation]:
        return {name: self.data.observations[name] for name in names}

    def _read(self, names: Sequence[str] | None) -> Readouts:
        observations, ids = self._observations(self.names if names is None else names), self.data.ids.tolist()
        return self._kept("readouts", observations, (2, 3), lambda: readouts(self.embedder, ids, observations))

    def _kept(self, what: str, observations: dict, axes: tuple[int, ...], make: Callable[[], Readouts]) -> Readouts:
        """Embeds, or reads what was embedded before, under a hash of the observations and of what embeds them."""
        from safetensors.numpy import load_file, save_file

        key = hashed(
            what,
            digest(observations),
            self.embedder.sha256,
            *self.data.ids.tolist(),
            code("embedders", "protocol", "raw"),
        )
        path = self.cache / f"{key[:32]}.safetensors"
        if path.is_file():
            made = load_file(path)
            return {name: made[name] for name in sorted(made)}
        made = {name: self._checked(values, axes) for name, values in sorted(make().items())}
        path.parent.mkdir(parents=True, exist_ok=True)
        with whole(path) as temporary:
            save_file(made, temporary)
        return made

    def _checked(self, vectors: np.ndarray, axes: tuple[int, ...]) -> np.ndarray:
        """Returns vectors in float32; refuses those of other objects, and those that are not finite, by id."""
        name, vectors = self.embedder.name, np.asarray(vectors)
        if vectors.shape[:1] != (len(self.data),) or vectors.ndim not in axes:
            wanted = " or ".join(map(str, axes))
            msg = f"{name}: wanted vectors of {len(self.data)} objects, {wanted} axes, given shape {vectors.shape}"
            raise ValueError(msg)
        if not (finite := np.isfinite(vectors).reshape(len(vectors), -1).all(1)).all():
            rows = self.data.ids[~finite][:5].tolist()
            msg = f"{name}: {int((~finite).sum())} embeddings hold NaN or inf, of the objects {', '.join(rows)}"
            raise ValueError(msg)
        return np.ascontiguousarray(vectors, dtype=np.float32)


@functools.cache
def code(*names: str) -> str:
    """Computes a hash of source files of this package, by name without ending; a change of theirs makes new results."""
    folder = Path(__file__).parent
    return hashed(*((folder / f"{name}.py").read_text(encoding="utf-8") for name in names))


def hashed(*parts: str) -> str:
    """Computes a hash of texts."""
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()
