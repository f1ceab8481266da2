"""A simulated multi-survey sky made of real templates, filter curves and noise."""

__all__ = ["MODALITIES", "Sky"]

from aion.sky.sky import MODALITIES, Sky
