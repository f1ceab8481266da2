"""A simulated multi-survey sky made of real templates, filter curves and noise."""

__all__ = ["MODALITIES", "OPTIONAL", "Sky"]

from aion.sky.sky import MODALITIES, OPTIONAL, Sky
