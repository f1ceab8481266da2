"""Draws embeddings as one HTML page with a map to look around in: no server, no network, nothing but the page.

The map is the plane of the two largest principal components. The page holds positions and columns as float32 and draws
on a canvas; what is looked up by eye needs no more. Small pictures of some of the objects, a kilobyte or two each, are
in the page too, as many as are asked for.
"""

__all__ = ["LARGEST", "explore", "principal_plane"]

import base64
import json
import string

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from torch import Tensor

from aion.io import read_embeddings
from aion.survey.pictures import pictures, thumbnail
from aion.whole import whole

LARGEST = 100_000
_KINDS = 64  # most different texts of a column to colour by
_HIDDEN = ("healpix",)


def principal_plane(embedding: Tensor) -> Tensor:
    """Projects vectors `(N, D)` on their two largest principal components, `(N, 2)`; the sign makes the skew positive.

    Raises:
        ValueError: for fewer than two rows or features.
    """
    if embedding.ndim != 2 or min(embedding.shape) < 2:
        msg = f"wanted at least two rows and two features, given {tuple(embedding.shape)}"
        raise ValueError(msg)
    centred = embedding.double() - embedding.double().mean(0)
    _, vectors = torch.linalg.eigh(centred.T @ centred / len(centred))  # in order of increasing eigenvalues
    plane = centred @ vectors[:, [-1, -2]]
    return plane * torch.where((plane**3).sum(0) < 0, -1.0, 1.0)


def explore(
    embeddings: str | Path,
    output: str | Path,
    *,
    method: str = "pca",
    images: Sequence[str | Path] = (),
    thumbnails: int = 2000,
) -> tuple[int, int]:
    """Writes the page of a file of embeddings, all or nothing, and returns the numbers of objects and pictures on it.

    Arguments:
        embeddings: what `aion embed` wrote.
        output: the page; a file of that name is replaced.
        method: "pca", or "umap" with the extra of that name.
        images: the survey of the objects, see `aion.survey.source.find`: pointing at one shows its image or spectrum.
        thumbnails: most pictures; of more objects they are of every second, third, ... one.

    Raises:
        FileNotFoundError: if there is no such file.
        ModuleNotFoundError: for "umap" without it.
        ValueError: for an unknown method, fewer than two objects, or more than `LARGEST`.
        OSError: if the page cannot be written.
    """
    table = read_embeddings(embeddings)
    if len(table.ids) > LARGEST:
        msg = f"a page holds at most {LARGEST:,} objects, given {len(table.ids):,}: embed fewer with --limit"
        raise ValueError(msg)
    plane = _project(table.embedding, method)
    data = {
        "ids": table.ids,
        "x": _floats(plane[:, 0].numpy()),
        "y": _floats(plane[:, 1].numpy()),
        "columns": [c for name, values in table.columns.items() if (c := _column(name, values))],
        "pictures": _pictures(table.ids, images, thumbnails),
    }
    template = string.Template(Path(__file__).with_name("explore.html").read_text(encoding="utf-8"))
    text = json.dumps(data, separators=(",", ":")).replace("</", "<\\/")  # no text can end the script
    name = Path(embeddings).name.replace("&", "&amp;").replace("<", "&lt;")
    with whole(Path(output)) as path:
        path.write_text(template.substitute(title=f"{name}: {method.upper()}", data=text), encoding="utf-8")
    return len(table.ids), len(data["pictures"])


def _pictures(ids: Sequence[str], images: Sequence[str | Path], most: int) -> dict[int, str]:
    """Returns small pictures of at most so many objects, by their number."""
    if not images or not most:
        return {}
    rows = {name: row for row, name in enumerate(ids) if row % -(-len(ids) // most) == 0}
    drawn = pictures(images, rows)
    return {rows[name]: base64.b64encode(thumbnail(observation)).decode() for name, observation in drawn}


def _project(embedding: Tensor, method: str) -> Tensor:
    if method == "pca":
        return principal_plane(embedding)
    if method != "umap":
        msg = f"unknown method {method!r}; known: pca, umap"
        raise ValueError(msg)
    try:
        from umap import UMAP
    except ModuleNotFoundError as error:
        msg = "the method 'umap' needs umap-learn: pip install 'aion-toolkit[umap]'"
        raise ModuleNotFoundError(msg) from error
    return torch.from_numpy(np.asarray(UMAP(random_state=0).fit_transform(embedding.numpy())))


def _column(name: str, values: np.ndarray) -> dict | None:
    """Returns what the page needs to colour by a column; None for texts of too many kinds."""
    if name in _HIDDEN:
        return None
    if values.dtype.kind in "fiub":
        known = values[np.isfinite(values.astype(np.float64))].astype(np.float64)
        if not len(known):
            return None
        # The most extreme 2 in 100 would take the whole scale.
        low, high = np.quantile(known, [0.01, 0.99])
        return {"name": name, "values": _floats(values), "range": [float(low), float(high)]}
    texts, which, count = np.unique(values.astype(str), return_inverse=True, return_counts=True)
    if len(texts) > _KINDS:
        return None
    order = np.argsort(-count, kind="stable")
    return {"name": name, "kinds": texts[order].tolist(), "values": _floats(np.argsort(order)[which.reshape(-1)])}


def _floats(values: np.ndarray) -> str:
    return base64.b64encode(np.ascontiguousarray(values, dtype="<f4").tobytes()).decode()
