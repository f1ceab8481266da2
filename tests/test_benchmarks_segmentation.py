"""Maps: a pattern that the grid shows is found, another one is not."""

import numpy as np
import pytest
import torch

from aion import Image
from aion.benchmarks import segmentation as module
from aion.benchmarks.segmentation import segmentation
from aion.benchmarks.task import Data

RNG = np.random.default_rng(0)


class Task:
    name, metric, tests, labels = "trial", "iou", (0,), ("arms",)


class Seen:
    names = ("a",)

    def __init__(self, maps, grids):
        count = len(maps)
        image = Image(torch.ones(count, 3, 16, 16), torch.ones(count, 3, 16, 16), ("decam-g", "decam-r", "decam-z"))
        self.data = Data(np.array([str(i) for i in range(count)]), {"a": image}, {"arms": maps}, np.arange(count) % 4)
        self.own = grids

    def grids(self, side):
        return self.own


@pytest.fixture
def maps(monkeypatch):
    monkeypatch.setattr(module, "PROBE", {"width": 8, "steps": 150, "batch_size": 16})
    cells = (RNG.uniform(size=(60, 8, 8)) < 0.3).astype(float)
    return cells.repeat(2, 1).repeat(2, 2), cells


def test_what_the_grid_shows_is_marked(maps):
    pixels, cells = maps
    grids = np.stack([cells, RNG.standard_normal(cells.shape)], axis=1)
    found = segmentation(Task, Seen(pixels, grids), 0)
    value, error = found.scores["iou"]
    assert value > 0.8
    assert 0 < error < 0.1
    assert found.arrays["maps arms"].shape == (5, 2, 16, 16)
    assert (found.tested, found.fitted) == (15, 45)
    assert segmentation(Task, Seen(pixels, grids), 0, shuffled=True).scores["iou"][0] < 0.5
    again = segmentation(Task, Seen(pixels, grids), 0)
    assert again.scores == found.scores


def test_objects_without_a_map_are_left_out_and_some_must_be_there(maps):
    pixels, cells = maps
    pixels[:54] = np.nan
    with pytest.raises(ValueError, match="trial: fewer objects than wanted: 5 to fit and 1 to test have 'arms'"):
        segmentation(Task, Seen(pixels, cells[:, None]), 0)
