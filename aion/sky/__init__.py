"""A simulated multi-survey sky made of real templates, filter curves and noise."""

__all__ = ["LABELS", "MODALITIES", "OPTIONAL", "Sky", "SkyDataset", "SkyStream", "UNITS"]

from aion.sky.modalities import LABELS, MODALITIES, OPTIONAL, UNITS
from aion.sky.sky import Sky
from aion.sky.stream import SkyDataset, SkyStream
