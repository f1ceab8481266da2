"""Columns of tables as observations: any nesting, ragged or not, with units."""

import numpy as np
import pyarrow as pa
import pytest
import torch

from aion import Image, Scalar, Spectrum
from aion.io.columns import check_columns, needed, observe

UNIT = "1e-17 erg/(s cm2 Angstrom)"
SPECTRUM = {"flux": "spectrum.flux", "wavelength": "spectrum.lambda", "ivar": "spectrum.ivar", "unit": UNIT}


def spectra(lengths: list[int | None]) -> pa.Table:
    """Makes a table of spectra of such lengths, None for a null."""
    rows = [
        None
        if n is None
        else {"flux": [float(i)] * n, "ivar": [4.0] * n, "lambda": [4000.0 + k for k in range(n)], "mask": [False] * n}
        for i, n in enumerate(lengths)
    ]
    return pa.table({"spectrum": rows})


def test_spectra_of_one_length_and_of_several():
    same = observe(spectra([5, 5]), {"desi_spectrum": SPECTRUM})["desi_spectrum"]
    assert isinstance(same, Spectrum)
    assert same.flux.shape == (2, 5)
    ragged = observe(spectra([5, 3, None]), {"desi_spectrum": SPECTRUM})["desi_spectrum"]
    assert ragged.measured.sum(1).tolist() == [5, 3, 0]
    assert torch.equal(ragged.flux[1, :3], torch.ones(3))


def test_units_are_those_of_the_map_or_of_the_column():
    def table(metadata):
        flux = pa.field("flux", pa.list_(pa.float32()), metadata=metadata)
        wave = pa.field("wave", pa.list_(pa.float64()), metadata={"unit": "nm"})
        schema = pa.schema([flux, wave, pa.field("error", pa.list_(pa.float32()))])
        return pa.table([[[1.0, 2.0]], [[400.0, 401.0]], [[0.5, 0.5]]], schema=schema)

    columns = {"s": {"flux": "flux", "wavelength": "wave", "error": "error"}}
    with pytest.raises(ValueError, match="s: column 'flux' states no unit: give unit="):
        observe(table({}), columns)
    seen = observe(table({"unit": "1e-16 erg/(s cm2 Angstrom)"}), columns)["s"]
    torch.testing.assert_close(seen.flux, torch.tensor([[10.0, 20.0]]))
    torch.testing.assert_close(seen.ivar, torch.full((1, 2), 1 / 5.0**2))
    torch.testing.assert_close(seen.wavelength, torch.tensor([[4000.0, 4010.0]]))


def test_masks_are_bad_pixels():
    table = pa.table({"f": [[1.0, 2.0]], "w": [[4000.0, 4001.0]], "i": [[1.0, 1.0]], "m": [[False, True]]})
    columns = {"s": {"flux": "f", "wavelength": "w", "ivar": "i", "mask": "m", "unit": UNIT}}
    assert observe(table, columns)["s"].measured.tolist() == [[True, False]]


def test_images_and_their_zero_point():
    cube = np.arange(2 * 3 * 4 * 4, dtype=np.float32).reshape(2, 3, 4, 4)
    cube[0, 0, 0, 0] = np.nan
    table = pa.table({"image": [{"flux": c.tolist(), "ivar": np.ones_like(c).tolist()} for c in cube]})
    bands = ["hsc-g", "hsc-r", "hsc-i"]
    image = observe(
        table, {"hsc_image": {"flux": "image.flux", "ivar": "image.ivar", "bands": bands, "zero_point": 27.0}}
    )["hsc_image"]
    assert isinstance(image, Image)
    assert not image.measured[0, 0, 0, 0]
    factor = 10 ** (-4.5 / 2.5)
    torch.testing.assert_close(image.flux[1], torch.tensor(cube[1] * factor))
    torch.testing.assert_close(image.ivar[1], torch.full((3, 4, 4), 1 / factor**2))


def test_scalars_and_vectors():
    vectors = pa.array([[1.0, 2.0], [3.0, 4.0]], type=pa.list_(pa.float32(), 2))
    seen = observe(pa.table({"z": [0.5, None], "bp": vectors}), {"redshift": {"value": "z"}, "xp": {"value": "bp"}})
    assert isinstance(seen["redshift"], Scalar)
    assert seen["redshift"].measured.flatten().tolist() == [True, False]
    assert seen["xp"].value.tolist() == [[1, 2], [3, 4]]


def test_needed_columns_are_those_at_the_top():
    assert needed({"a": SPECTRUM, "b": {"value": "z"}}) == ["spectrum", "z"]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"flux": "f", "wavelenght": "w", "ivar": "i"}, "there is no 'wavelenght'; did you mean 'wavelength'"),
        ({"flux": "f", "wavelength": "w"}, "lacks one of ivar and error"),
        ({"flux": "f", "bands": ["hsc-g"]}, "\\(image\\): lacks ivar"),
        ({"value": "z", "unit": "mag"}, "\\(scalar\\): there is no 'unit'"),
        ({"flux": "f"}, "lacks wavelength"),
    ],
)
def test_bad_maps_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        check_columns({"s": settings})


@pytest.mark.parametrize(
    ("path", "message"),
    [("spectrun.flux", "no column 'spectrun'; did you mean 'spectrum'"), ("spectrum.flus", "no field 'flus'; did you")],
)
def test_missing_columns_are_named(path, message):
    with pytest.raises(ValueError, match=f"desi: .*{message}"):
        observe(spectra([3]), {"desi": {**SPECTRUM, "flux": path}})
