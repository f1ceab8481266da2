"""Columns of a table as observations, by a map that says which column is what.

A map has an entry for each modality, of one of three kinds:

- a spectrum: `flux`, `wavelength` and `ivar` or `error` name columns of lists, `mask` one of bad pixels (not required);
  `unit`, `wavelength_unit` and `medium` say what `aion.io.from_table` must know;
- an image: `flux` and `ivar` name columns of lists (band, row, column), `bands` lists the names of the bands,
  `pixel_scale` is in arcsec, `zero_point` is the AB magnitude of 1 (22.5 if they are nanomaggies);
- a scalar: `value` names a column of numbers, or of lists of as many numbers each.

`"spectrum.flux"` is the field `flux` of the column `spectrum`. A unit that the map leaves out is taken from the
metadata of the column. What is null was not measured.
"""

__all__ = ["check_columns", "needed", "observe"]

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from aion.io.quantities import canonical
from aion.observations import Image, Observation, Scalar, Spectrum, near_miss

if TYPE_CHECKING:
    import pyarrow

    Columns = Mapping[str, Mapping[str, object]]

_KINDS = {  # keys that name columns, and other keys
    "spectrum": (("flux", "wavelength", "ivar", "error", "mask"), ("unit", "wavelength_unit", "medium")),
    "image": (("flux", "ivar"), ("bands", "pixel_scale", "zero_point")),
    "scalar": (("value",), ()),
}


def _kind(settings: Mapping[str, object]) -> str:
    if "value" in settings:
        return "scalar"
    return "image" if "bands" in settings else "spectrum"


def check_columns(columns: "Columns") -> None:
    """Refuses a map with unknown or missing keys.

    Raises:
        ValueError: for such a map, with the near misses.
    """
    for name, settings in columns.items():
        kind = _kind(settings)
        known = [key for keys in _KINDS[kind] for key in keys]
        for key in settings:
            if key not in known:
                msg = f"columns of {name!r} ({kind}): there is no {key!r}; {near_miss(key, known)}"
                raise ValueError(msg)
        missing = {"spectrum": {"flux", "wavelength"}, "image": {"flux", "ivar"}, "scalar": set()}[kind] - set(settings)
        if kind == "spectrum" and ("ivar" in settings) == ("error" in settings):
            missing = missing or {"one of ivar and error"}
        if missing:
            msg = f"columns of {name!r} ({kind}): lacks {', '.join(sorted(missing))}"
            raise ValueError(msg)


def needed(columns: "Columns") -> list[str]:
    """Lists the columns of a table that a map reads."""
    paths = [settings[key] for settings in columns.values() for key in _KINDS[_kind(settings)][0] if key in settings]
    return sorted({str(path).split(".")[0] for path in paths})


def observe(table: "pyarrow.Table", columns: "Columns") -> dict[str, Observation]:
    """Converts the rows of a table to observations of the same objects, one batch of each modality.

    Raises:
        ValueError: for a missing column (with the near misses), a unit that nothing states, or shapes that disagree.
    """
    build = {"spectrum": _spectrum, "image": _image, "scalar": _scalar}
    out = {}
    for name, settings in columns.items():
        try:
            out[name] = build[_kind(settings)](table, settings)
        except (TypeError, ValueError) as error:
            msg = f"{name}: {error}"
            raise ValueError(msg) from error
    return out


def _scalar(table: "pyarrow.Table", settings: Mapping[str, object]) -> Scalar:
    return Scalar(_cells(table, settings["value"]))


def _image(table: "pyarrow.Table", settings: Mapping[str, object]) -> Image:
    flux, ivar = (np.asarray(_cells(table, settings[key]), dtype=np.float32) for key in ("flux", "ivar"))
    factor = 10.0 ** ((22.5 - float(settings.get("zero_point", 22.5))) / 2.5)
    measured = np.isfinite(flux) & np.isfinite(ivar)
    scale = {"pixel_scale": settings["pixel_scale"]} if "pixel_scale" in settings else {}
    flux, ivar = np.where(measured, flux * factor, 0), np.where(measured, ivar / factor**2, 0)
    return Image(flux.astype(np.float32), ivar.astype(np.float32), settings["bands"], **scale)


def _spectrum(table: "pyarrow.Table", settings: Mapping[str, object]) -> Spectrum:
    kind = "ivar" if "ivar" in settings else "std"
    cells = {key: _cells(table, settings[key]) for key in ("flux", "wavelength")}
    cells["noise"] = _cells(table, settings["ivar" if kind == "ivar" else "error"])
    if "mask" in settings:
        cells["bad"] = _cells(table, settings["mask"])
    unit = settings.get("unit") or _unit(table, settings["flux"])
    if unit is None:
        msg = f"column {settings['flux']!r} states no unit: give unit='1e-17 erg/(s cm2 Angstrom)' or whatever it is"
        raise ValueError(msg)
    own = {
        "unit": unit,
        "kind": kind,
        "medium": settings.get("medium"),
        "wavelength_unit": settings.get("wavelength_unit") or _unit(table, settings["wavelength"]) or "Angstrom",
    }
    if all(isinstance(cell, np.ndarray) for cell in cells.values()) and cells["flux"].shape[1]:
        return canonical(**{key: _flag(key, cell) for key, cell in cells.items()}, **own)
    rows = [{key: _flag(key, np.asarray(cell[i])) for key, cell in cells.items()} for i in range(table.num_rows)]
    nothing = Spectrum([[0.0]], [[0.0]], [[5000.0]])
    return Spectrum.stack([canonical(**row, **own) if len(row["flux"]) else nothing for row in rows])


def _flag(key: str, cell: np.ndarray) -> np.ndarray:
    return cell != 0 if key == "bad" else cell


def _cells(table: "pyarrow.Table", path: str) -> "np.ndarray | list[np.ndarray]":
    """Reads a column `(B, ...)`, or a list of B arrays where lengths differ."""
    import pyarrow
    import pyarrow.compute

    first, *fields = path.split(".")
    if first not in table.column_names:
        msg = f"there is no column {first!r}; {near_miss(first, table.column_names)}"
        raise ValueError(msg)
    column = table.column(first).combine_chunks()
    for field in fields:
        known = [column.type.field(i).name for i in range(column.type.num_fields)]
        if not pyarrow.types.is_struct(column.type) or field not in known:
            msg = f"column {path!r}: there is no field {field!r}; {near_miss(field, known)}"
            raise ValueError(msg)
        column = pyarrow.compute.struct_field(column, field)
    return _array(column)


def _array(column: "pyarrow.Array") -> "np.ndarray | list[np.ndarray]":
    import pyarrow
    import pyarrow.compute

    if isinstance(column, pyarrow.ExtensionArray):
        column = column.storage
    kinds = pyarrow.types
    if not (kinds.is_list(column.type) or kinds.is_large_list(column.type) or kinds.is_fixed_size_list(column.type)):
        return column.to_numpy(zero_copy_only=False)
    lengths = pyarrow.compute.list_value_length(column).fill_null(0).to_numpy(zero_copy_only=False)
    inner = _array(column.flatten())
    if isinstance(inner, list):
        msg = "lists of lists of different lengths, which make no array"
        raise ValueError(msg)
    if len(lengths) and (lengths == lengths[0]).all():
        return inner.reshape(len(lengths), int(lengths[0]), *inner.shape[1:])
    return np.split(inner, np.cumsum(lengths)[:-1])


def _unit(table: "pyarrow.Table", path: str) -> str | None:
    """Returns the unit in the metadata of a column or of its field."""
    first, *fields = path.split(".")
    column = table.schema.field(first)
    for field in fields:
        column = column.type.field(field)
    return (column.metadata or {}).get(b"unit", b"").decode() or None
