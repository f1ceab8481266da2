"""Looks for what is like a given object: an index of embeddings, queries from files, and what they are moved along."""

__all__ = ["Found", "index_embeddings", "read_direction", "read_like", "search"]

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from torch import Tensor

from aion.index import Approximate, Index
from aion.io import read_embeddings
from aion.model import AION
from aion.observations import Observation, near_miss
from aion.steering import Direction
from aion.survey.embedder import Embedder
from aion.survey.source import Reader, find, units


class Found(NamedTuple):
    """Holds what was found, nearest first.

    Arguments:
        ids: identifiers.
        distance: from the query, `(k,)`.
        columns: what else the index knows of them, `(k,)` each.
        recall: share of the truly nearest that an approximate search found, None for an exact one.
    """

    ids: list[str]
    distance: Tensor
    columns: dict[str, Tensor]
    recall: float | None


def index_embeddings(paths: Sequence[str | Path], metric: str = "cosine", half: bool = True) -> Index:
    """Builds an index of files that `aion embed` wrote, with the columns ra and dec.

    Rows without an embedding, and those of an id that an earlier row has, are left out.

    Arguments:
        paths: of Parquet files or HATS catalogues, made by one model in one way.
        metric: see `aion.index.Index`.
        half: whether embeddings are kept in float16, which takes half the memory.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: for files that are no embeddings or were not all made in the same way.
    """
    if not paths:
        msg = "wanted at least one file of embeddings, given none"
        raise ValueError(msg)
    vectors, ids, columns, facts, seen = [], [], {"ra": [], "dec": []}, None, set()
    for path in paths:
        table = read_embeddings(path)
        facts = facts or table.metadata
        if facts.get("space_sha256") != table.metadata.get("space_sha256"):
            msg = f"{path} was made by another model, or in another way, than {paths[0]}: they cannot be compared"
            raise ValueError(msg)
        new = [row for row, name in enumerate(table.ids) if not (name in seen or seen.add(name))]
        vectors.append((table.embedding.half() if half else table.embedding)[new])
        ids += [table.ids[row] for row in new]
        unknown = torch.full((len(table.ids),), torch.nan, dtype=torch.float64)
        for name, parts in columns.items():
            parts.append(torch.tensor(table.columns.get(name, unknown), dtype=torch.float64)[new])
    known = {name: torch.cat(parts) for name, parts in columns.items()}
    return Index(torch.cat(vectors), metric, ids=ids, columns=known, facts=facts)


def search(
    index: Index,
    like: Mapping[str, Observation] | Sequence[str],
    k: int = 20,
    *,
    model: AION | None = None,
    direction: Tensor | None = None,
    strength: float = 1.0,
    approximate: bool = False,
) -> Found:
    """Finds the objects of an index that are most like others, which are averaged.

    Arguments:
        index: where to look.
        like: ids of the index, which are left out of what is found, or observations of any modality of the model.
        k: how many.
        model: what embeds observations.
        direction: moves the query, `(D,)`.
        strength: how far, in units of the direction's length.
        approximate: looks into a few cells only, see `aion.index.Approximate`.

    Raises:
        ValueError: for an id that is not there, observations without a model, or a model that the index was not made
            by.
    """
    if isinstance(like, Mapping):
        query, given = _embed(index, like, model), []
        if direction is not None:
            query = query + strength * torch.as_tensor(direction).to(query)
    else:
        query, given = index.vector(like, direction, strength), list(like)
    wanted, recall = min(k + len(given), len(index)), None
    if approximate:
        cells = Approximate(index)
        distance, row = cells.search(query, wanted)
        recall = cells.recall(query, wanted)
    else:
        distance, row = index.search(query, wanted)
    pairs = [(d, r) for d, r in zip(distance[0].tolist(), row[0].tolist(), strict=True) if r >= 0]
    pairs = [(d, r) for d, r in pairs if index.ids[r] not in given][:k]
    rows = [r for _, r in pairs]
    columns = {name: value[rows] for name, value in index.columns.items()}
    return Found([index.ids[r] for r in rows], torch.tensor([d for d, _ in pairs]), columns, recall)


def _embed(index: Index, observations: Mapping[str, Observation], model: AION | None) -> Tensor:
    if model is None:
        msg = "wanted the model that embeds the observations, given none"
        raise ValueError(msg)
    facts = index.facts
    made = Embedder(model, facts.get("pool", "mean"), facts.get("layer", "context")).facts
    if made["space_sha256"] != facts.get("space_sha256"):
        msg = (
            f"the index was made by the model {str(facts.get('model_sha256'))[:12]} (layer {facts.get('layer')}, "
            f"{facts.get('dtype')}), the query by {made['model_sha256'][:12]} (layer {made['layer']}, {made['dtype']})"
        )
        raise ValueError(msg)
    known = {name: value for name, value in observations.items() if name in model.modalities}
    vectors = model.embed(known, pool=made["pool"], layer=made["layer"]).double()
    if index.metric == "cosine":
        vectors = vectors / vectors.norm(dim=1, keepdim=True)
    return vectors.mean(0, keepdim=True).cpu()


def read_like(paths: Sequence[str | Path], model: AION, known_as: str | None = None) -> dict[str, Observation]:
    """Reads all objects of files, of any kind that `aion embed` reads, into one batch.

    Arguments:
        paths: of the files.
        model: whose modalities are read.
        known_as: modality as which a spectrum of no known survey is read.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: for what cannot be read, or files that hold different modalities.
    """
    reader = Reader({name: model.tokenizer(name).observation for name in model.modalities}, {}, known_as=known_as)
    found: dict[str, list[Observation]] = {}
    pieces = [rows for unit in units(find(paths), 1024) for rows in reader.read(unit)]
    for rows in pieces:
        if rows.faults or not rows.observations:
            msg = f"{rows.sources[0]}: {next(iter(rows.faults.values()), 'nothing is measured of any object')}"
            raise ValueError(msg)
        for name, value in rows.observations.items():
            found.setdefault(name, []).append(value)
    shared = {name: type(values[0]).stack(values) for name, values in found.items() if len(values) == len(pieces)}
    if not shared:
        msg = f"the files have no modality in common: {', '.join(found)}; search with those of one kind"
        raise ValueError(msg)
    return shared


def read_direction(path: str | Path, index: Index, column: str | None = None) -> Tensor:
    """Reads a direction `(D,)`: one that `aion.steering.Direction.save` wrote, or one made of labels.

    Of labels it is the mean of the third of the objects with the highest minus that of the third with the lowest, so
    that a strength of 1 is the way from these to those.

    Arguments:
        path: of the direction, or of a table (Parquet, CSV) with a column `object_id` and numbers; what `aion embed`
            wrote has those of `--predict`.
        index: whose objects the labels are of.
        column: of the numbers, if there are several.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: for a direction of another width, a table without such columns (with the near misses), fewer than
            six objects of the index with a label, or labels that are all the same.
    """
    path = Path(path)
    if not path.exists():
        msg = f"no such file: {path}"
        raise FileNotFoundError(msg)
    if path.suffix == ".safetensors":
        vector = Direction.load(path).channels().vector.double()
        if len(vector) != index.embedding.shape[1]:
            msg = f"{path}: wanted a direction of {index.embedding.shape[1]} features, given {len(vector)}"
            raise ValueError(msg)
        return vector
    labels = _labels(path, column)
    known = [(row, labels[name]) for row, name in enumerate(index.ids) if np.isfinite(labels.get(name, np.nan))]
    known.sort(key=lambda pair: pair[1])
    if len(known) < 6 or known[0][1] == known[-1][1]:
        msg = f"{path}: wanted different numbers for at least 6 objects of the index, given {len(known)}"
        raise ValueError(msg)
    third = len(known) // 3
    low, high = (index.mean([row for row, _ in part]) for part in (known[:third], known[-third:]))
    return high - low


def _labels(path: Path, column: str | None) -> dict[str, float]:
    """Reads the numbers of a table by the ids of its objects."""
    columns = _columns(path)
    numbers = [name for name, value in columns.items() if value.dtype.kind in "fiu" and name != "object_id"]
    if "object_id" not in columns or not numbers:
        msg = f"{path}: wanted a column 'object_id' and numbers, given {', '.join(columns)}"
        raise ValueError(msg)
    if column is None and len(numbers) > 1:
        msg = f"{path}: name one of its columns, as in {path}:{numbers[0]}; it has {', '.join(numbers)}"
        raise ValueError(msg)
    column = column or numbers[0]
    if column not in numbers:
        msg = f"{path}: it has no numbers {column!r}; {near_miss(column, numbers)}"
        raise ValueError(msg)
    return {str(name): float(value) for name, value in zip(columns["object_id"], columns[column], strict=True)}


def _columns(path: Path) -> dict[str, np.ndarray]:
    """Reads a table in CSV or Parquet, or what `aion embed` wrote into a folder; null becomes NaN."""
    import pyarrow
    import pyarrow.csv
    import pyarrow.parquet

    if path.is_dir():
        found = read_embeddings(path)
        return {"object_id": np.array(found.ids, dtype=object), **found.columns}
    try:
        with path.open("rb") as stream:
            parquet = stream.read(4) == b"PAR1"
            stream.seek(0)
            table = pyarrow.parquet.read_table(stream) if parquet else pyarrow.csv.read_csv(stream)
    except (OSError, pyarrow.ArrowException) as error:
        msg = f"{path}: wanted a direction, or a table in Parquet or CSV ({error})"
        raise ValueError(msg) from error
    flat = [name for name in table.column_names if name != "embedding"]
    return {name: table.column(name).to_numpy() for name in flat}
