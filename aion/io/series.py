"""Reads a regular time series from CSV, and writes forecasts of it to Parquet.

A column called `time`, `date`, `datetime` or `timestamp` holds ISO dates or numbers; `year` and `month` together do as
well. Every other column of numbers is a channel. Steps that are left out become frames that were not measured (NaN),
as do empty fields.
"""

__all__ = ["Series", "read_series", "write_forecast"]

import csv
import json
import math

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from torch import Tensor

from aion.io.parquet import write_whole
from aion.observations import near_miss

TIMES = ("time", "date", "datetime", "timestamp")
NOT_MEASURED = ("", "nan", "na", "null", "none", "-")
QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)


@dataclass(frozen=True, eq=False)
class Series:
    """Holds a regular series.

    Arguments:
        values: with shape `(T, C)`, float32; NaN is not measured.
        columns: names of the C channels.
        start: time of the first frame, in units.
        step: time between frames, in units.
        unit: `"month"` (since January of the year 0), `"second"` (since 1970) or `""` for a plain number.
    """

    values: Tensor
    columns: tuple[str, ...]
    start: float
    step: float
    unit: str

    @property
    def cadence(self) -> str:
        """Returns the time between frames as text."""
        for size, name in ((86400, "day"), (3600, "hour"), (60, "minute")):
            if self.unit == "second" and self.step % size == 0:
                return f"{self.step / size:g} {name}"
        return f"{self.step:g} {self.unit}".strip()

    @property
    def missing(self) -> int:
        """Counts the values that were not measured."""
        return int(self.values.isnan().sum())

    def times(self, first: int, last: int) -> list[str] | list[float]:
        """Lists the times of frames `first` to `last - 1`, the future included: text for dates, else numbers."""
        steps = [self.start + self.step * frame for frame in range(first, last)]
        if self.unit == "month":
            return [f"{int(t) // 12:04d}-{int(t) % 12 + 1:02d}" for t in steps]
        if self.unit == "second":
            return [str(np.datetime64(round(t * 1000), "ms")).removesuffix(".000") for t in steps]
        return steps

    def coarser(self, number: int) -> "Series":
        """Averages what was measured of every `number` frames from the first on; a rest at the end is left out."""
        length = len(self.values) // number
        if number < 1 or length < 1:
            msg = f"coarser: wanted a number of frames from 1 to {len(self.values)}, given {number}"
            raise ValueError(msg)
        values = self.values[: length * number].unflatten(0, (length, number)).nanmean(1)
        return Series(values, self.columns, self.start, self.step * number, self.unit)


def read_series(path: str | Path, columns: Sequence[str] | None = None) -> Series:
    """Reads a series from a CSV file with a header.

    Arguments:
        path: of the file.
        columns: the channels wanted; by default every column of numbers but that of the time.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it has no time, no such column, a field that is no number, or times that are not in order,
            double or irregular.
    """
    path = Path(path)
    with path.open(newline="", encoding="utf-8-sig") as file:
        rows = [row for row in csv.reader(file) if row]
    if len(rows) < 3:
        msg = f"{path}: wanted a CSV file with a header and at least two rows, given {len(rows)} lines"
        raise ValueError(msg)
    names, body = [name.strip() for name in rows[0]], rows[1:]
    if wrong := [number for number, row in enumerate(body, 2) if len(row) != len(names)]:
        msg = f"{path}, line {wrong[0]}: wanted {len(names)} fields, given {len(body[wrong[0] - 2])}"
        raise ValueError(msg)
    fields = {name: [row[i].strip() for row in body] for i, name in enumerate(names)}
    times, unit, used = _times(path, fields)
    channels = [name for name in names if name not in used]
    for name in columns or ():
        if name not in channels:
            msg = f"{path}: no column {name!r}; {near_miss(name, channels)}"
            raise ValueError(msg)
    channels = list(columns) if columns else channels
    if not channels:
        msg = f"{path}: wanted a column of values beside {' and '.join(used)}, given none"
        raise ValueError(msg)
    values = np.stack([_numbers(path, name, fields[name]) for name in channels], axis=1)
    place, step = _regular(path, times)
    regular = np.full((place[-1] + 1, len(channels)), np.nan, dtype=np.float32)
    regular[place] = values
    return Series(torch.from_numpy(regular), tuple(channels), float(times[0]), step, unit)


def _times(path: Path, fields: Mapping[str, list[str]]) -> tuple[np.ndarray, str, tuple[str, ...]]:
    lower = {name.lower(): name for name in fields}
    if "year" in lower and "month" in lower:
        used = (lower["year"], lower["month"])
        year, month = (_numbers(path, name, fields[name]) for name in used)
        return year * 12 + month - 1, "month", used
    if not (found := [lower[name] for name in TIMES if name in lower]):
        wanted = "year and month, or " + ", ".join(TIMES)
        msg = f"{path}: wanted a column of time ({wanted}), given {', '.join(fields)}"
        raise ValueError(msg)
    texts = fields[found[0]]
    if empty := [row for row, text in enumerate(texts, 2) if text.lower() in NOT_MEASURED]:
        msg = f"{path}, line {empty[0]}: the time is missing"
        raise ValueError(msg)
    try:
        return np.array([float(text) for text in texts]), "", (found[0],)
    except ValueError:
        pass
    try:
        dates = np.array([text.removesuffix("Z") for text in texts], dtype="datetime64[ms]")
    except ValueError as error:
        msg = f"{path}: {found[0]} holds neither numbers nor ISO dates: {error}"
        raise ValueError(msg) from error
    months = dates.astype("datetime64[M]")
    if len(set((dates - months.astype("datetime64[ms]")).tolist())) == 1:  # the same moment of months: count these
        return months.astype(int) + 1970.0 * 12, "month", (found[0],)
    return dates.astype(float) / 1000, "second", (found[0],)


def _numbers(path: Path, name: str, texts: Sequence[str]) -> np.ndarray:
    values = np.empty(len(texts))
    for row, text in enumerate(texts):
        try:
            values[row] = math.nan if text.lower() in NOT_MEASURED else float(text)
        except ValueError:
            msg = f"{path}, line {row + 2}, column {name!r}: {text!r} is no number (an empty field is not measured)"
            raise ValueError(msg) from None
    values[np.isinf(values)] = math.nan
    return values


def _regular(path: Path, times: np.ndarray) -> tuple[np.ndarray, float]:
    """Returns the place of every row on the regular grid, and its step."""
    if not np.isfinite(times).all():
        msg = f"{path}, line {int(np.isfinite(times).argmin()) + 2}: the time is missing"
        raise ValueError(msg)
    gaps = np.diff(times)
    if (gaps <= 0).any():
        row = int((gaps <= 0).argmax())
        kind = "double" if gaps[row] == 0 else "not in order"
        msg = f"{path}, line {row + 3}: the times are {kind}: sort the rows by time, one row each"
        raise ValueError(msg)
    step = float(gaps.min())
    place = (times - times[0]) / step
    if abs(place - place.round()).max() > 0.05:
        row = int(abs(gaps / step - (gaps / step).round()).argmax())
        msg = (
            f"{path}, line {row + 3}: the times are irregular: {gaps[row]:g} after the line before, the smallest step "
            f"is {step:g}: average or interpolate them to a regular step"
        )
        raise ValueError(msg)
    return place.round().astype(int), step


def write_forecast(
    path: str | Path, series: Series, ensemble: Tensor, metadata: Mapping[str, object] | None = None
) -> Path:
    """Writes a forecast to Parquet, all of it or nothing: one row for each lead.

    Columns are `time`, `lead`, and for each channel `NAME_mean`, the quantiles `NAME_q05` to `NAME_q95` and `NAME`, the
    list of all members.

    Arguments:
        path: the file; one that exists is replaced when the new one is complete.
        series: what was forecast.
        ensemble: members `(M, T, C)` in the units of the series.
        metadata: JSON values that belong to the whole, such as the hash of the model.

    Raises:
        ValueError: if shapes disagree or the file cannot be written.
    """
    import pyarrow

    path = Path(path)
    if ensemble.ndim != 3 or ensemble.shape[2] != len(series.columns):
        msg = f"wanted members (M, T, {len(series.columns)}), given {tuple(ensemble.shape)}"
        raise ValueError(msg)
    values, length = ensemble.float().numpy(), len(series.values)
    leads = np.arange(1, values.shape[1] + 1)
    data = {"time": series.times(length, length + len(leads)), "lead": leads}
    for index, name in enumerate(series.columns):
        members = np.ascontiguousarray(values[:, :, index].T)
        data[f"{name}_mean"] = members.mean(1)
        data |= {f"{name}_q{100 * q:02.0f}": np.quantile(members, q, axis=1) for q in QUANTILES}
        data[name] = pyarrow.FixedSizeListArray.from_arrays(pyarrow.array(members.ravel()), members.shape[1])
    table = pyarrow.table(data).replace_schema_metadata({b"aion": json.dumps(dict(metadata or {}))})
    return write_whole(table, path)
