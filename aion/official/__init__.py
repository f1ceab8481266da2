"""The published AION-1 checkpoints: their names, their tokenizers, and how they are read and written."""

__all__ = ["names"]
