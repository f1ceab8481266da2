"""Search for similar objects among embeddings: exact, and approximate with faiss."""

__all__ = ["Approximate", "Index"]

from aion.index.approximate import Approximate
from aion.index.exact import Index
