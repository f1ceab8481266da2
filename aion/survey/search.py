"""Looks for what is like a given object: an index of embeddings, queries from files, a table and a montage."""

__all__ = ["Found", "index_embeddings", "montage", "panels", "search"]

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import torch

from torch import Tensor

from aion.index import Approximate, Index
from aion.io import read_embeddings
from aion.model import AION
from aion.observations import Image, Observation, Spectrum
from aion.plotting import plot_image, plot_spectrum
from aion.survey.embedder import Embedder
from aion.survey.source import Reader, find, units

if TYPE_CHECKING:
    from matplotlib.figure import Figure


# What can be drawn of an object.
_DRAWN = {
    **dict.fromkeys(("legacysurvey_image", "hsc_image"), Image),
    **dict.fromkeys(("desi_spectrum", "sdss_spectrum"), Spectrum),
}


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
        paths: of the Parquet files, made by one model in one way.
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


def panels(
    sources: Sequence[str | Path], titles: Mapping[str, str]
) -> list[tuple[str, Mapping[str, Observation], int]]:
    """Reads the images and spectra of some objects of a survey, for `montage`.

    Arguments:
        sources: see `aion.survey.source.find`.
        titles: of the objects, by their ids, in the order wanted.
    """
    reader, found = Reader(_DRAWN, {}), {}
    for unit in units(find(sources), 1024):
        for rows in reader.read(unit):
            for row, name in enumerate(rows.ids):
                if name in titles and name not in found and rows.observations:
                    found[name] = (titles[name], {key: o[row] for key, o in rows.observations.items()}, 0)
        if len(found) == len(titles):
            break
    return [found[name] for name in titles if name in found]


def montage(panels: Sequence[tuple[str, Mapping[str, Observation], int]], columns: int = 5) -> "Figure":
    """Draws objects beside each other: their image, or their spectrum if they have none.

    Arguments:
        panels: title, observations and row in them, of each object.
        columns: number of panels in a row.

    Raises:
        ValueError: if there is nothing that can be drawn.
    """
    from matplotlib.figure import Figure

    drawn = []
    for title, observations, row in panels:
        seen = [o for o in observations.values() if isinstance(o, Image | Spectrum) and o.measured[row].any()]
        if seen:
            drawn.append((title, min(seen, key=lambda o: isinstance(o, Spectrum)), row))
    if not drawn:
        msg = "none of the objects has an image or a spectrum to draw"
        raise ValueError(msg)
    lines = -(-len(drawn) // columns)
    figure = Figure(figsize=(3.2 * min(columns, len(drawn)), 3 * lines), layout="constrained")
    places = figure.subfigures(lines, min(columns, len(drawn)), squeeze=False).flatten()
    for place, (title, observation, row) in zip(places, drawn, strict=False):
        if isinstance(observation, Image):
            plot_image(observation, row=row, title=title, figure=place)
        else:
            plot_spectrum(observation, row=row, title=title, figure=place)
    return figure
