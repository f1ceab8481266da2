"""Turns rows into a table of embeddings: tokens, batches of like lengths, vectors, predictions, a status of each row.

Objects are sorted by their number of tokens, so that a batch holds hardly any padding, and put back in order. A row
that fails is found by halving its batch; the others are what they would have been without it.
"""

__all__ = ["EMPTY", "Embedder", "FAILED", "OK"]

import functools
import hashlib
import json

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch

from aion.model import AION
from aion.observations import Observation
from aion.survey.columns import salvage, unit_of
from aion.survey.source import Rows
from aion.tokens import TokenSequence

if TYPE_CHECKING:
    from pyarrow import Table

OK, EMPTY, FAILED = "ok", "nothing measured", "failed: "
_QUANTILES = (0.05, 0.16, 0.5, 0.84, 0.95)
# Objects that are tokenized at once, and more if they have few values: pixels take far more memory than their tokens.
_TOKENIZED, _VALUES = 64, 2**19


class Embedder:
    """Embeds rows by a model.

    Arguments:
        model: the model.
        pool: how tokens become one vector; see `aion.model.AION.embed`.
        layer: see `aion.transformer.Transformer.encode`.
        predict: names of scalars that are predicted, each from the other modalities.
        batch_size: most objects in a batch; None for as many as have `tokens` tokens together.
        tokens: most tokens in a batch, padding included; a longer object is a batch of its own.

    Raises:
        ValueError: for a pooling that gives no vector, an unknown layer, or a modality that cannot be predicted.
    """

    def __init__(
        self,
        model: AION,
        pool: str = "mean",
        layer: str = "context",
        predict: Sequence[str] = (),
        batch_size: int | None = None,
        tokens: int = 1280,
    ) -> None:
        if pool != "mean":
            msg = f"pool must be 'mean', which gives one vector for each object, given {pool!r}"
            raise ValueError(msg)
        if layer not in {"context", "encoder"}:
            msg = f"layer must be 'context' or 'encoder', given {layer!r}"
            raise ValueError(msg)
        for name in predict:
            if not hasattr(model.tokenizer(name), "posterior"):
                msg = f"cannot predict {name!r}: it is no scalar"
                raise ValueError(msg)
        self.model, self.pool, self.layer, self.predict = model, pool, layer, tuple(predict)
        self.batch_size, self.tokens = batch_size, tokens

    @functools.cached_property
    def facts(self) -> dict[str, object]:
        """Returns what the embeddings are made with: two tables of one `space_sha256` may be compared."""
        facts = {"model_sha256": self.model.sha256, "pool": self.pool, "layer": self.layer}
        facts["dtype"] = str(self.model.transformer.mask_token.dtype).removeprefix("torch.")
        space = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()
        return {**facts, "tokenizers_sha256": self.model.tokenizers_sha256, "space_sha256": space}

    @torch.no_grad()
    def __call__(self, rows: Rows) -> "Table":
        """Embeds rows; those without an embedding have null there and say why in `status`."""
        count = len(rows.ids)
        sequence, kept, faults = self._tokenize(rows)
        vectors = np.full((count, self.model.dim), np.nan, dtype=np.float32)
        columns = {name: np.full(count, np.nan) for name in self._columns()}
        length, names = np.zeros(count, dtype=np.int32), [""] * count
        if sequence is not None:
            length[kept] = sequence.valid.sum(1).cpu().numpy()
            for row, text in zip(kept, self._modalities(sequence), strict=True):
                names[row] = text
        for batch in self._batches(length[kept]):
            part = _trim(sequence[torch.from_numpy(batch)], length[kept][batch].max())
            done, why = salvage(functools.partial(self._embed, part), np.arange(len(batch)))
            faults |= {int(kept[batch[i]]): reason for i, reason in why.items()}
            for chosen, (values, predicted) in done:
                at = kept[batch[chosen]]
                vectors[at] = values
                for name, value in predicted.items():
                    columns[name][at] = value
        status = _status(vectors, length, faults)
        return self._table(rows, vectors, names, length, status, columns)

    def coverage(self, rows: Rows) -> dict[str, float]:
        """Returns the lowest share of an object's measured values that is read, by modality, where it is below 1."""
        shares = {name: self._covered(name, value) for name, value in rows.observations.items()}
        return {name: share for name, share in shares.items() if share < 1}

    def _covered(self, name: str, value: Observation) -> float:
        try:
            return self.model.tokenizer(name).coverage(value.to(self.model.device)).min().item()
        except ValueError:  # what cannot be tokenized is said in the rows
            return 1.0

    @torch.no_grad()
    def count(self, rows: Rows) -> dict[str, float]:
        """Counts the tokens of an object on average, by modality."""
        sequence, kept, _ = self._tokenize(rows)
        if sequence is None:
            return {}
        names = self.model.vocabulary.names
        found = torch.bincount(sequence.modality[sequence.valid].cpu(), minlength=len(names)).tolist()
        return {name: number / len(kept) for name, number in zip(names, found, strict=True) if number}

    # ---- tokens

    def _tokenize(self, rows: Rows) -> tuple[TokenSequence | None, np.ndarray, dict[int, str]]:
        """Returns the tokens of the rows that have any, which rows these are, and why others have none."""
        faults = dict(rows.faults)
        sound = np.array([i for i in range(len(rows.ids)) if i not in faults], dtype=np.int64)
        parts, kept = [], []
        values = sum(v.numel() for o in rows.observations.values() for v in vars(o).values() if torch.is_tensor(v))
        step = max(_TOKENIZED, _VALUES * len(rows.ids) // max(values, 1))
        for start in range(0, len(sound) if rows.observations else 0, step):
            done, why = salvage(functools.partial(self._encode, rows), sound[start : start + step])
            faults |= why
            for _, (sequence, seen) in done:
                if sequence is not None:
                    parts.append(sequence)
                    kept.append(seen)
        if not parts:
            return None, np.zeros(0, dtype=np.int64), faults
        return _concatenate(parts), np.concatenate(kept), faults

    def _encode(self, rows: Rows, chosen: np.ndarray) -> tuple[TokenSequence | None, np.ndarray]:
        index = torch.from_numpy(chosen)
        parts = self.model.encode_tokens({name: value[index] for name, value in rows.observations.items()})
        seen = torch.stack([part.valid.any(1) for part in parts.values()]).any(0)
        if not seen.any():
            return None, chosen[:0]
        sequence = self.model.vocabulary.pack({name: part[seen] for name, part in parts.items()})
        return sequence, chosen[seen.cpu().numpy()]

    def _modalities(self, sequence: TokenSequence) -> Iterator[str]:
        """Names the modalities of each object, joined by commas."""
        names = np.array(self.model.vocabulary.names)
        has = torch.zeros(len(sequence), len(names) + 1, dtype=torch.bool)
        has.scatter_(1, sequence.modality.masked_fill(~sequence.valid, len(names)).cpu(), True)
        texts: dict[bytes, str] = {}  # few patterns, many objects
        for pattern in has[:, :-1].numpy():
            if (key := pattern.tobytes()) not in texts:
                texts[key] = ",".join(names[pattern])
            yield texts[key]

    # ---- vectors

    def _batches(self, length: np.ndarray) -> Iterator[np.ndarray]:
        """Yields rows of like lengths, the longest first."""
        order = np.argsort(-length, kind="stable")
        start = 0
        while start < len(order):
            many = max(self.tokens // int(length[order[start]]), 1) if self.batch_size is None else self.batch_size
            yield order[start : start + many]
            start += many

    def _embed(self, part: TokenSequence, chosen: np.ndarray) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        sequence = part if len(chosen) == len(part) else part[torch.from_numpy(chosen)]
        vectors = self.model.embed_tokens(sequence, self.pool, self.layer).cpu().numpy()
        predicted = {key: value for name in self.predict for key, value in self._predict(sequence, name).items()}
        return vectors, predicted

    def _predict(self, sequence: TokenSequence, name: str) -> dict[str, np.ndarray]:
        """Predicts a scalar from what is not its own tokens: NaN where that is nothing."""
        others = sequence.valid & (sequence.modality != self.model.vocabulary.index(name))
        some = others.any(1)
        result = {key: np.full(len(sequence), np.nan) for key in self._columns(name)}
        if some.any():
            posterior = self.model.predict_tokens(sequence[some].select(others[some]), name)
            level = torch.tensor(_QUANTILES, dtype=torch.float64, device=posterior.edges.device)
            values = [posterior.mean(), *posterior.quantile(level.expand(len(posterior), -1)).unbind(1)]
            for key, value in zip(result, values, strict=True):
                result[key][some.cpu().numpy()] = value.cpu().numpy()
        return result

    def _columns(self, name: str | None = None) -> list[str]:
        """Names the columns of predictions: the mean and quantiles; 16 and 84 per cent are the ends of an interval."""
        names = self.predict if name is None else (name,)
        return [f"{n}_{what}" for n in names for what in ("mean", *(f"q{round(100 * q):02d}" for q in _QUANTILES))]

    # ---- table

    def _table(
        self,
        rows: Rows,
        vectors: np.ndarray,
        names: list[str],
        length: np.ndarray,
        status: list[str],
        columns: dict[str, np.ndarray],
    ) -> "Table":
        import pyarrow

        lost = np.array([text != OK for text in status])
        known = np.isfinite(rows.positions)
        arrays = {
            "object_id": pyarrow.array(rows.ids, pyarrow.string()),
            "ra": pyarrow.array(rows.positions[:, 0], mask=~known[:, 0]),
            "dec": pyarrow.array(rows.positions[:, 1], mask=~known[:, 1]),
            "healpix": pyarrow.array(rows.healpix.astype(np.int64), mask=rows.healpix < 0),
            "embedding": pyarrow.FixedSizeListArray.from_arrays(
                pyarrow.array(np.where(lost[:, None], 0, vectors).ravel()), self.model.dim, mask=pyarrow.array(lost)
            ),
            "modalities": pyarrow.array(names, pyarrow.string()),
            "tokens": pyarrow.array(length),
            "status": pyarrow.array(status, pyarrow.string()),
            "source": pyarrow.array(rows.sources, pyarrow.string()),
            **{name: pyarrow.array(value, mask=~np.isfinite(value)) for name, value in columns.items()},
        }
        fields = [pyarrow.field(name, array.type, metadata=_metadata(name)) for name, array in arrays.items()]
        return pyarrow.table(list(arrays.values()), schema=pyarrow.schema(fields))


def _metadata(column: str) -> dict[str, str] | None:
    """Returns the unit of a column."""
    unit = unit_of(column)
    return {"unit": unit} if unit else None


def _status(vectors: np.ndarray, length: np.ndarray, faults: dict[int, str]) -> list[str]:
    finite = np.isfinite(vectors).all(axis=1)
    texts = [OK if fine else f"{FAILED}embedding not finite" for fine in finite]
    for row in np.flatnonzero(length == 0):
        texts[row] = EMPTY
    for row, reason in faults.items():
        texts[row] = FAILED + reason
    return texts


def _trim(sequence: TokenSequence, length: int) -> TokenSequence:
    """Cuts what is padding for every object; valid tokens stand first."""
    values = (getattr(sequence, name)[:, :length] for name in ("ids", "modality", "position", "valid"))
    return TokenSequence(*values)


def _concatenate(parts: Sequence[TokenSequence]) -> TokenSequence:
    """Joins batches of sequences, which are padded to the longest."""
    length = max(part.ids.shape[1] for part in parts)

    def join(name: str) -> torch.Tensor:
        values = [getattr(part, name) for part in parts]
        pad = [(0, 0) * (v.ndim - 2) + (0, length - v.shape[1]) for v in values]
        return torch.cat([torch.nn.functional.pad(v, p) for v, p in zip(values, pad, strict=True)])

    return TokenSequence(*(join(name) for name in ("ids", "modality", "position", "valid")))
