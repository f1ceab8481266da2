"""Solar maps: real ones of SDO, and made-up ones in a row."""

import gzip

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from aion.io.solar import mean_gradients, read_solar


def made(minute, channel=193, value=1.0, shape=(4, 5), **header):
    header = {
        "telescop": "SDO/AIA",
        "wavelnth": channel,
        "date-obs": f"2020-01-01T00:{minute:02d}:00.00",
        "exptime": 2.0,
        "cdelt1": 0.6,
        "dsun_obs": 1.5e11,
        "rsun_ref": 6.96e8,
        **header,
    }
    return SimpleNamespace(name=f"map {minute}", data=np.full(shape, value), meta=header)


@pytest.fixture
def real(root):
    return root / "tests" / "data"


def test_a_real_map_of_aia(real):
    video = read_solar([real / "aia_171_level1.fits.gz"])
    assert video.values.shape == (1, 1, 128, 128)
    assert video.channels == ("aia-171",)
    assert video.units == ("DN/s",)
    assert str(video.times[0]).startswith("2011-02-15T00:00:00")
    assert 13 < video.pixel < 14, "19.2 arcsec at 147 Gm"
    disk = video.values[0, 0, 44:84, 44:84].mean()
    assert disk > 5 * video.values[0, 0, :8, :8].mean()


def test_a_real_continuum_of_hmi_is_turned_upright(real):
    from astropy.io import fits

    video = read_solar([real / "resampled_hmi.fits.gz"])
    assert video.channels == ("hmi-continuum",)
    assert video.units == ("DN/s",)
    with gzip.open(real / "resampled_hmi.fits.gz") as stream, fits.open(stream, ignore_blank=True) as file:
        raw = file[0].data.astype(np.float32)
    np.testing.assert_array_equal(video.values[0, 0].numpy(), raw[::-1, ::-1])


def test_maps_of_two_instruments_do_not_fit_as_they_are(real):
    with pytest.raises(ValueError, match=r"differ in size in pixels.*one grid first"):
        read_solar([real / "aia_171_level1.fits.gz", real / "resampled_hmi.fits.gz"])


def test_frames_channels_gaps_and_poor_maps():
    maps = [made(24, value=6), made(0, value=2), made(0, 171, value=8), made(12, 171, quality=4)]
    video = read_solar(maps, cadence=720)
    assert video.channels == ("aia-171", "aia-193")
    assert video.values.shape == (3, 2, 4, 5)
    assert video.values[:, 1, 0, 0].tolist() == pytest.approx([1, float("nan"), 3], nan_ok=True)
    assert video.values[0, 0, 0, 0] == 4
    assert video.values[1:, 0].isnan().all()
    assert str(video.times[2]) == "2020-01-01T00:24:00.000"


@pytest.mark.parametrize(
    ("maps", "why"),
    [
        ([], "at least one map"),
        ([made(0), made(5)], "both aia-193 at frame 0"),
        ([made(0), made(12, cdelt1=1.2)], "differ in scale"),
        ([made(0), made(12, bunit="photon")], "differ in unit of aia-193"),
        ([made(0, crota2=45)], "rotated by 45 degrees"),
        ([made(0, exptime=0)], "EXPTIME is missing from the header, or 0"),
        ([made(0, cdelt1=None)], "CDELT1 is missing"),
        ([made(0, **{"date-obs": "noon"})], "ISO time"),
        ([made(0, telescop="SOHO")], "SDO/HMI or SDO/AIA, given 'SOHO'"),
        ([made(0, shape=(2, 3, 4))], r"wanted an image \(H, W\)"),
    ],
)
def test_what_it_refuses(maps, why):
    with pytest.raises(ValueError, match=why):
        read_solar(maps, cadence=720)


def test_gradients_of_a_slope():
    field = torch.zeros(2, 3, 8, 9)
    field[1, 2] = 3 * torch.arange(9.0) + 4 * torch.arange(8.0)[:, None]
    field[1, 2, 0, 0] = torch.nan
    found = mean_gradients(field, 0.5)
    torch.testing.assert_close(found["MeanGBZ"], torch.tensor([0.0, 10.0]))
    torch.testing.assert_close(found["MeanGBT"], torch.tensor([0.0, 10.0]))
    with pytest.raises(ValueError, match="mean_gradients"):
        mean_gradients(field[:, :2], 0.5)
