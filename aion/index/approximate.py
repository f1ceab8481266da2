"""Search for the nearest embeddings, approximately: cells around centres, of which a query looks into a few.

The cells are those of faiss (inverted file), which is in the extra `faiss`.

References:
    The Faiss library (Douze et al., 2024), arXiv:2401.08281
"""

__all__ = ["Approximate"]

import math

import numpy as np
import torch

from torch import Tensor

from aion.index.exact import Index


class Approximate:
    """Finds near rows of an index by looking into a few cells only.

    Arguments:
        index: whose metric and rows are taken.
        cells: number of cells; by default four times the square root of the number of rows.
        probes: number of cells that a query looks into: more are slower and miss less.

    Raises:
        ModuleNotFoundError: without faiss.
        ValueError: for more cells than rows, or probes out of range.
    """

    def __init__(self, index: Index, cells: int | None = None, probes: int = 32) -> None:
        try:
            import faiss
        except ModuleNotFoundError as error:
            msg = "approximate search needs faiss: pip install 'aion-toolkit[faiss]'"
            raise ModuleNotFoundError(msg) from error
        cells = max(min(round(4 * math.sqrt(len(index))), len(index) // 39), 1) if cells is None else cells
        if not 1 <= cells <= len(index) or probes < 1:
            msg = f"Approximate: wanted 1 to {len(index)} cells and at least 1 probe, given {cells} and {probes}"
            raise ValueError(msg)
        self.index, width = index, index.embedding.shape[1]
        # In float16, which takes half the memory.
        half, square = faiss.ScalarQuantizer.QT_fp16, faiss.METRIC_L2
        self._faiss = faiss.IndexIVFScalarQuantizer(faiss.IndexFlatL2(width), width, cells, half, square, False)
        self._faiss.nprobe = min(probes, cells)
        self._faiss.cp.niter = 10
        step = max(len(index) // (64 * cells), 1)  # faiss learns centres from about this many rows for each
        self._faiss.train(self._array(index.embedding[::step]))
        for part in index.embedding.split(index.chunk):
            self._faiss.add(self._array(part))

    def __len__(self) -> int:
        return len(self.index)

    def search(self, query: Tensor | np.ndarray, k: int = 5) -> tuple[Tensor, Tensor]:
        """Finds `k` near rows for each query, nearest first, as `Index.search` does; row -1 where there are fewer."""
        query = self.index._check("query", query)
        k = min(k, len(self))
        _, row = self._faiss.search(self._array(query), min(2 * k, len(self)))
        # Twice as many as wanted are looked at exactly: in float16 neighbours change places.
        return self.index.nearest_of(query, torch.from_numpy(row), k)

    def recall(self, query: Tensor | np.ndarray, k: int = 10) -> float:
        """Measures which share of the `k` nearest rows, as the exact search finds them, is found."""
        found, true = self.search(query, k)[1], self.index.search(query, k)[1].cpu()
        return (found[:, :, None] == true[:, None, :]).any(2).float().mean().item()

    def _array(self, vectors: Tensor) -> np.ndarray:
        return self.index._prepare(vectors).float().cpu().contiguous().numpy()
