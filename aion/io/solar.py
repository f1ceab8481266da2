"""Reads patches of the Sun as the Solar Dynamics Observatory sees them: SDO/HMI and SDO/AIA maps become one video.

Intensities of AIA are divided by their exposure, so that frames can be compared (DN/s); other units are kept. A map of
poor quality, a pixel that is blank and a time at which a channel has no map are not measured: NaN. HMI images,
which are recorded upside down, are turned by 180 degrees.
"""

__all__ = ["SolarVideo", "mean_gradients", "read_solar"]

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from torch import Tensor

LEVEL = 1.0  # degrees a map may be rotated from north up, or from south up
SAME = 1e-3  # relative difference of pixel scales that are called one


@dataclass(frozen=True, eq=False)
class SolarVideo:
    """Holds a video.

    Arguments:
        values: with shape `(T, C, H, W)`, float32, first row south; NaN is not measured.
        channels: names such as `"aia-171"` or `"hmi-magnetogram"`.
        units: of the channels: `"DN/s"`, `"Gauss"` or what the map says.
        times: of the frames, UTC, `(T,)`.
        pixel: size of a pixel on the Sun's disk, in megametres.
    """

    values: Tensor
    channels: tuple[str, ...]
    units: tuple[str, ...]
    times: np.ndarray
    pixel: float


def read_solar(maps: Sequence[object], cadence: float = 3600.0) -> SolarVideo:
    """Reads FITS files or sunpy maps, in any order, into a video.

    Arguments:
        maps: names of FITS files, or objects with `data` and `meta` as sunpy's maps have them.
        cadence: time between frames in seconds; each map goes to the nearest frame from the first map on.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if a map has no time, no pixel scale or is rotated; if two maps of one channel fall into one
            frame, or maps differ in size, scale or unit.
    """
    if not maps or not cadence > 0:
        msg = f"read_solar: wanted at least one map and a positive cadence, given {len(maps)} and {cadence}"
        raise ValueError(msg)
    parts = [_Map(*_open(item)) for item in maps]
    start = min(part.time for part in parts)
    channels = tuple(sorted({part.channel for part in parts}))
    _same(parts, "size in pixels", lambda part: part.values.shape)
    _same(parts, "scale in Mm a pixel", lambda part: part.pixel)
    for channel in channels:
        _same([part for part in parts if part.channel == channel], f"unit of {channel}", lambda part: part.unit)
    place = [round(float((part.time - start) / np.timedelta64(1, "ms")) / 1000 / cadence) for part in parts]
    length = max(place) + 1
    values = np.full((length, len(channels), *parts[0].values.shape), np.nan, dtype=np.float32)
    taken: dict[tuple[int, str], str] = {}
    for frame, part in zip(place, parts, strict=True):
        if (other := taken.setdefault((frame, part.channel), part.name)) != part.name:
            given = f"{part.name} and {other} are both {part.channel} at frame {frame}"
            msg = f"{given}: give a shorter cadence than {cadence} s"
            raise ValueError(msg)
        values[frame, channels.index(part.channel)] = part.values
    units = {part.channel: part.unit for part in parts}
    times = start + np.arange(length) * np.timedelta64(round(1000 * cadence), "ms")
    return SolarVideo(torch.from_numpy(values), channels, tuple(units[c] for c in channels), times, parts[0].pixel)


def mean_gradients(field: Tensor, pixel: float) -> dict[str, Tensor]:
    """Computes the mean gradients of total and vertical field, as the SHARP keywords MEANGBT and MEANGBZ define them.

    All measured pixels count alike, where SHARP leaves out those of weak field and of poor confidence.

    Arguments:
        field: components `(..., 3, H, W)` in Gauss, the radial one last; NaN is not measured.
        pixel: size of a pixel in megametres.

    Returns:
        `"MeanGBT"` and `"MeanGBZ"`, each `(...)`, in Gauss a megametre.

    Raises:
        ValueError: if the field is of another shape or the pixel has no size.

    References:
        | The Helioseismic and Magnetic Imager (HMI) Vector Magnetic Field Pipeline: SHARPs (Bobra et al., 2014),
          arXiv 1404.1879
    """
    if field.ndim < 3 or field.shape[-3] != 3 or min(field.shape[-2:]) < 3 or not pixel > 0:
        msg = f"mean_gradients: wanted components (..., 3, H, W) and a size, given {tuple(field.shape)} and {pixel}"
        raise ValueError(msg)
    total, vertical = field.square().sum(-3).sqrt(), field[..., 2, :, :]
    return {"MeanGBT": _gradient(total, pixel), "MeanGBZ": _gradient(vertical, pixel)}


def _gradient(x: Tensor, pixel: float) -> Tensor:
    along = (x[..., 1:-1, 2:] - x[..., 1:-1, :-2]) / (2 * pixel)
    across = (x[..., 2:, 1:-1] - x[..., :-2, 1:-1]) / (2 * pixel)
    return torch.hypot(along, across).flatten(-2).nanmean(-1)


class _Map:
    """Holds what a map says of itself."""

    def __init__(self, name: str, data: np.ndarray, header: Mapping) -> None:
        self.name, self.header = name, header
        telescope = str(header.get("TELESCOP", "")).upper()
        self.channel, self.unit = self._kind(telescope)
        values = np.asarray(data, dtype=np.float32)
        if "AIA" in telescope and self.unit == "DN":
            values, self.unit = values / self._number("EXPTIME"), "DN/s"
        self.values = self._upright(values)
        if int(header.get("QUALITY") or 0):
            self.values = np.full_like(self.values, np.nan)
        text = str(header.get("DATE-OBS") or header.get("DATE_OBS") or "").removesuffix("Z")
        try:
            self.time = np.datetime64(text, "ms")
        except ValueError:
            self.time = np.datetime64("NaT")
        if np.isnat(self.time):
            self._refuse(f"DATE-OBS must be an ISO time, given {text!r}")
        arcsec = np.deg2rad(abs(self._number("CDELT1")) / 3600)
        self.pixel = arcsec * (self._number("DSUN_OBS") - self._number("RSUN_REF")) / 1e6

    def _kind(self, telescope: str) -> tuple[str, str]:
        unit = str(self.header.get("BUNIT") or "").strip()
        if "AIA" in telescope:
            return f"aia-{self._number('WAVELNTH'):.0f}", unit or "DN"
        if "HMI" in telescope:
            content = str(self.header.get("CONTENT") or Path(self.name).stem.split(".")[-1]).lower()
            name = content.split()[0].replace("_", "-") if content else "map"
            return f"hmi-{name}", unit or "unknown"
        return self._refuse(f"TELESCOP must be SDO/HMI or SDO/AIA, given {telescope!r}")

    def _upright(self, values: np.ndarray) -> np.ndarray:
        if values.ndim != 2:
            self._refuse(f"wanted an image (H, W), given {values.shape}")
        angle = float(self.header.get("CROTA2") or 0) % 360
        if min(angle, 360 - angle) <= LEVEL:
            return values
        if abs(angle - 180) <= LEVEL:
            return values[::-1, ::-1]
        return self._refuse(f"rotated by {angle:g} degrees: turn it first, as by sunpy's Map.rotate()")

    def _number(self, key: str) -> float:
        try:
            value = float(self.header[key])
        except (KeyError, TypeError, ValueError):
            value = 0.0
        if not value:
            self._refuse(f"{key} is missing from the header, or 0")
        return value

    def _refuse(self, why: str):
        msg = f"{self.name}: {why}"
        raise ValueError(msg)


def _open(item: object) -> tuple[str, np.ndarray, Mapping]:
    if hasattr(item, "data") and hasattr(item, "meta"):
        header = {str(key).upper(): value for key, value in item.meta.items()}
        return str(getattr(item, "name", "map")), np.asarray(item.data), header
    from astropy.io import fits

    path = Path(item)
    with fits.open(path, ignore_blank=True) as file:
        for unit in file:
            if unit.data is not None and unit.data.ndim == 2:
                return path.name, np.asarray(unit.data), dict(unit.header)
    msg = f"{path}: no image in it"
    raise ValueError(msg)


def _same(parts: Sequence[_Map], what: str, fact) -> None:
    first = fact(parts[0])
    for part in parts[1:]:
        value = fact(part)
        near = isinstance(value, float) and abs(value - first) <= SAME * abs(first)
        if value != first and not near:
            msg = f"{part.name} and {parts[0].name} differ in {what}: {value} and {first}; bring them to one grid first"
            raise ValueError(msg)
