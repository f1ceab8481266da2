"""Catalogues and maps of the simulated sky: where the image has the objects, each object by itself."""

import pytest
import torch

from aion.sky import OPTIONAL, Sky

NAMES = ["legacysurvey_catalog", "legacysurvey_segmentation_map"]


@pytest.fixture(scope="module")
def seen() -> dict:
    return Sky(modalities=NAMES, complete=True).observe(torch.arange(80))


def test_they_are_optional():
    assert set(NAMES) <= set(OPTIONAL)
    assert not set(NAMES) & set(Sky().modalities)


def test_each_object_is_the_same_alone_and_in_any_order(seen):
    order = torch.tensor([70, 3, 3, 11])
    again = Sky(modalities=NAMES, complete=True).observe(order)
    for name in NAMES:
        for key, value in vars(seen[name]).items():
            torch.testing.assert_close(getattr(again[name], key), value[order], rtol=0, atol=0, equal_nan=True)


def test_objects_of_the_catalogue_are_where_the_image_is_brightest(seen):
    image = Sky(modalities=["legacysurvey_image"], complete=True).observe(torch.arange(80), noise=False)
    flux = image["legacysurvey_image"].flux[:, 1]
    catalog = seen["legacysurvey_catalog"]
    peaks = 0
    for row in range(80):
        for x, y in zip(catalog.x[row].tolist(), catalog.y[row].tolist(), strict=True):
            column, line = (round(v / 0.262 + 31.5) if v == v else -1 for v in (x, y))
            if not (3 <= column < 61 and 3 <= line < 61):
                continue
            around = flux[row, line - 3 : line + 4, column - 3 : column + 4]
            peaks += 1 if around[2:5, 2:5].max() == around.max() else 0
    assert peaks > 100  # others lie in the light of brighter ones


def test_ellipses_have_the_orientation_of_the_image(seen):
    image = Sky(modalities=["legacysurvey_image"], complete=True).observe(torch.arange(80), noise=False)
    flux, maps = image["legacysurvey_image"].flux[:, 1].double(), seen["legacysurvey_segmentation_map"]
    catalog = seen["legacysurvey_catalog"]
    axis = torch.arange(64.0, dtype=torch.float64) - 31.5
    product = axis[:, None] * axis
    flat = catalog.e2[:, 0].abs() > 0.2
    flat &= (catalog.r[:, 0] > 0.6) & (catalog.measured.sum(1) == 1) & (maps.pixel_scale > 0.26)
    assert flat.sum() >= 1
    for row in flat.nonzero().flatten():
        a, b = ((weight * product).sum() for weight in (flux[row], maps.value[row].double()))
        assert torch.sign(a) == torch.sign(b) == -torch.sign(catalog.e2[row, 0])


def test_maps_lie_between_0_and_1_and_are_of_all_three_kinds(seen):
    maps = seen["legacysurvey_segmentation_map"]
    assert maps.value.min() == 0
    assert maps.value.max() == 1
    assert maps.measured.all()
    votes = (maps.value * 15).sub((maps.value * 15).round()).abs().amax((1, 2)) < 1e-4
    fills = torch.tensor([0.0, 0.2, 0.4, 0.6, 0.8, 1.0])
    ellipses = (maps.value[..., None] - fills).abs().amin(-1).amax((1, 2)) < 1e-4
    assert (ellipses | votes).all()
    assert 30 < ellipses.sum() < 70
    assert (votes & ~ellipses).sum() > 10


def test_objects_that_were_not_imaged_have_neither():
    sky = Sky(modalities=[*NAMES, "legacysurvey_image"]).observe(torch.arange(60))
    imaged = sky["legacysurvey_image"].measured.flatten(1).any(1)
    for name in NAMES:
        assert torch.equal(sky[name].measured.flatten(1).any(1), imaged)
