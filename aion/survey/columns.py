"""Finds in the columns of Parquet files what a model reads, and turns rows into observations.

A modality is a column of its own name, as `aion sky` writes them; a column of the Multimodal Universe (`spectrum` and
`image`, whose survey the name of the data set tells); a number of the Legacy Surveys under the name of their catalogues
(`FLUX_R`, `EBV`); or whatever column the caller names. A spectrum is a struct of the lists `flux`, `ivar` and `lambda`
or `wavelength`, with `mask` (True is bad) if any; an image one of `band`, `flux`, `ivar`, `mask` and `scale`, an entry
per band. The unit in the metadata of a field is honoured; without one, canonical units are what these layouts hold.

References:
    The Multimodal Universe: enabling large-scale machine learning with 100 TB of astronomical scientific data
    (The Multimodal Universe Collaboration, 2024), arXiv:2412.02527
"""

__all__ = ["Columns", "find_columns", "observe", "salvage", "unit_of"]

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple, TypeVar

import numpy as np
import torch

from aion.catalog import Catalog
from aion.io.quantities import canonical
from aion.io.surveys import POSITIONS
from aion.io.units import parse_unit
from aion.observations import Image, Observation, Scalar, Spectrum, near_miss
from aion.sky import UNITS

if TYPE_CHECKING:
    from pyarrow import Array, Schema, Table

T = TypeVar("T")

_IDS = ("object_id", "targetid", "source_id", "specobjid", "objid", "id")
_HEALPIX = ("_healpix_29", "healpix")
# Column of the Multimodal Universe -> what the name of the data set contains -> modality.
_UNIVERSE = {
    "spectrum": {"desi": "desi_spectrum", "sdss": "sdss_spectrum", "boss": "sdss_spectrum"},
    "image": {"legacysurvey": "legacysurvey_image", "hsc": "hsc_image"},
}
_SURVEYS = ("legacysurvey", "gaia", "hsc")  # FLUX_R is that of the modality legacysurvey_flux_r


class Columns(NamedTuple):
    """Says which columns of a table hold what.

    Arguments:
        modalities: column of each modality.
        identifier: columns that name the object together; empty if the rows have no name.
        position: columns of right ascension and declination in degrees, or empty.
        healpix: column of the sky pixel, or "".
        noise: column of the inverse variance of those modalities that are a flux of the Legacy Surveys.
    """

    modalities: dict[str, str]
    identifier: tuple[str, ...]
    position: tuple[str, ...]
    healpix: str
    noise: dict[str, str]

    @property
    def needed(self) -> list[str]:
        """Returns the names of all columns that are read, in plain order."""
        names = {*self.modalities.values(), *self.noise.values(), *self.identifier, *self.position, self.healpix}
        return sorted(names - {""})


def find_columns(
    schema: "Schema",
    kinds: Mapping[str, type[Observation]],
    given: Mapping[str, str] | None = None,
    name: str = "",
) -> Columns:
    """Finds the columns of the modalities of a model.

    Arguments:
        schema: of the table.
        kinds: kind of observation of each modality of the model.
        given: columns that the caller names, by modality.
        name: of the file and its folders, which may tell the survey.

    Raises:
        ValueError: for a modality that the model does not know or a column that is not there (with the near misses).
    """
    lower = {column.lower(): column for column in reversed(schema.names)}
    found = {}
    for modality in kinds:
        plain = {lower.get(modality.removeprefix(f"{survey}_")) for survey in _SURVEYS if modality.startswith(survey)}
        column = lower.get(modality) or next(iter(plain - {None}), None)
        if column and _fits(schema.field(column).type, kinds[modality]):
            found[modality] = column
    for column, surveys in _UNIVERSE.items():
        known = next((m for key, m in surveys.items() if key in name.lower()), None)
        if column in lower and known in kinds and known not in found:
            found[known] = lower[column]
    for modality, column in (given or {}).items():
        if modality not in kinds:
            msg = f"column map: the model knows no modality {modality!r}; {near_miss(modality, kinds)}"
            raise ValueError(msg)
        if column not in schema.names:
            msg = f"column map: there is no column {column!r}; {near_miss(column, schema.names)}"
            raise ValueError(msg)
        found[modality] = column
    brick = tuple(lower.get(part, "") for part in ("release", "brickid", "objid"))
    identifier = next(((lower[key],) for key in _IDS[:-2] if key in lower), ()) or (brick if all(brick) else ())
    identifier = identifier or next(((lower[key],) for key in _IDS[-2:] if key in lower), ())
    position = next((tuple(lower[p] for p in pair) for pair in POSITIONS if set(pair) <= set(lower)), ())
    healpix = next((lower[key] for key in _HEALPIX if key in lower), "")
    ivar = {name: lower.get(column.lower().replace("flux_", "flux_ivar_")) for name, column in found.items()}
    noise = {name: column for name, column in ivar.items() if column and column != found[name]}
    return Columns({name: found[name] for name in sorted(found)}, identifier, position, healpix, noise)


def unit_of(modality: str) -> str:
    """Returns the unit of a scalar, "" for a plain number."""
    return UNITS.get(modality, "")


def _fits(kind: object, wanted: type[Observation]) -> bool:
    """Tells whether a column of this type may hold such an observation."""
    from pyarrow import types

    if wanted is Scalar:
        inner = kind.value_type if hasattr(kind, "value_type") else kind
        return types.is_integer(inner) or types.is_floating(inner)
    return wanted in {Catalog, Image, Spectrum} and types.is_struct(kind)


def salvage(function: Callable[[np.ndarray], T], rows: np.ndarray) -> tuple[list[tuple[np.ndarray, T]], dict[int, str]]:
    """Applies a function to rows, to halves of them where it fails, and so on: one bad row spoils no other.

    Returns:
        Pairs of rows and result, in order, and why the others failed.
    """
    try:
        return [(rows, function(rows))], {}
    except Exception as error:  # a poisoned row may raise anything, and must never stop the run
        if len(rows) == 1:
            return [], {int(rows[0]): (str(error).strip().splitlines() or [type(error).__name__])[0][:300]}
    middle = len(rows) // 2
    (first, why), (second, also) = salvage(function, rows[:middle]), salvage(function, rows[middle:])
    return first + second, why | also


def observe(
    table: "Table", columns: Columns, kinds: Mapping[str, type[Observation]]
) -> tuple[dict[str, Observation], dict[int, str]]:
    """Turns the rows of a table into observations of all of them.

    A row that has no value, or one that cannot be read, is "not measured" there: ivar 0, or NaN.

    Returns:
        Observations by modality, without those that no row has, and what is wrong with the rows that cannot be read.
    """
    observations, faults = {}, {}
    for modality, name in columns.modalities.items():
        column, unit = table.column(name).combine_chunks(), _unit(table.schema.field(name))
        present = column.is_valid().to_numpy(zero_copy_only=False)
        if modality in columns.noise:  # a flux without an inverse variance was not measured
            present = present & (_values(table.column(columns.noise[modality]).combine_chunks()) > 0)
        present = np.flatnonzero(present)
        if not len(present):
            continue

        def build(rows: np.ndarray, column=column, unit=unit, modality=modality) -> Observation:
            return _BUILD[kinds[modality]](column.take(rows), unit, unit_of(modality))

        built, wrong = salvage(build, present)
        for row, reason in wrong.items():
            faults.setdefault(row, f"{modality}: {reason}")
        if built:
            observations[modality] = _spread(built, len(table))
    return observations, faults


def _spread(built: Sequence[tuple[np.ndarray, Observation]], count: int) -> Observation:
    """Puts observations at their rows; the others become unmeasured."""
    whole = built[0][1] if len(built) == 1 else type(built[0][1]).stack([o for _, o in built])
    rows = np.concatenate([rows for rows, _ in built])
    if len(rows) == count:
        return whole
    index = np.zeros(count, dtype=np.int64)
    index[rows] = np.arange(len(rows))
    missing = torch.ones(count, dtype=torch.bool)
    missing[rows] = False
    return _blank(whole[index], missing)


def _blank(observation: Observation, missing: torch.Tensor) -> Observation:
    values = dict(vars(observation))
    hidden, fill = (["ivar"], 0.0) if "ivar" in values else (list(values), torch.nan)
    for name in hidden:
        where = missing.view(-1, *[1] * (values[name].ndim - 1))
        values[name] = values[name].masked_fill(where, fill)
    return type(observation)(**values)


# --- one kind of observation each -------------------------------------------------------------------------------------


def _unit(field: object) -> dict[str, str]:
    """Returns the units that the metadata of a field and of its children state, by name; "" for the field itself."""
    from pyarrow import types

    units = {"": ((field.metadata or {}).get(b"unit") or b"").decode()}
    if types.is_struct(field.type):
        children = [field.type.field(i) for i in range(field.type.num_fields)]
        units |= {child.name: ((child.metadata or {}).get(b"unit") or b"").decode() for child in children}
    return units


def _parts(column: "Array") -> dict[str, "Array"]:
    return dict(zip((field.name.lower() for field in column.type), column.flatten(), strict=True))


def _need(parts: Mapping[str, "Array"], *names: str) -> "Array":
    for name in names:
        if name in parts:
            return parts[name]
    msg = f"it has no {names[0]!r}; it has {', '.join(parts)}"
    raise ValueError(msg)


def _values(array: "Array", missing: float = np.nan) -> np.ndarray:
    """Returns lists of numbers, nested to any depth, as one array; shorter lists are filled up at their end."""
    import pyarrow.compute

    if not hasattr(array.type, "value_type"):
        values = array.to_numpy(zero_copy_only=False)
        return np.where(array.is_null(), missing, values) if array.null_count else values
    length = pyarrow.compute.list_value_length(array).fill_null(0).to_numpy(zero_copy_only=False).astype(np.int64)
    inner = _values(array.flatten(), missing)
    if len(set(length.tolist())) == 1:
        return inner.reshape(len(array), length[0], *inner.shape[1:])
    result = np.full((len(array), length.max(initial=0), *inner.shape[1:]), missing, dtype=np.result_type(inner, "f4"))
    result[np.arange(result.shape[1]) < length[:, None]] = inner
    return result


def _bad(parts: Mapping[str, "Array"]) -> np.ndarray | None:
    return _values(parts["mask"], missing=1) != 0 if "mask" in parts else None


def _factor(given: str, wanted: str) -> float:
    """Returns what turns a unit into another; flux densities become magnitudes of AB, `nmgy`, too."""
    from astropy import units

    if not (given and wanted):
        return 1.0
    zero = units.zero_point_flux((0 * units.ABmag).to(units.Jy))
    try:
        return float(parse_unit(given).to(parse_unit(wanted), equivalencies=zero))
    except units.UnitConversionError:
        msg = f"wanted the unit {wanted!r} or one like it, given {given!r}"
        raise ValueError(msg) from None


def _spectrum(column: "Array", units: Mapping[str, str], _: str) -> Spectrum:
    parts = _parts(column)
    flux, noise = _values(_need(parts, "flux")), _values(_need(parts, "ivar"))
    wavelength = _values(_need(parts, "lambda", "wavelength"))
    if (units.get("ivar") or "").startswith("1e34"):  # the inverse square of the flux unit, which `canonical` takes
        units = {**units, "ivar": ""}
    if units.get("ivar") and units.get("flux") and parse_unit(units["ivar"]) != parse_unit(units["flux"]) ** -2:
        msg = f"ivar: wanted the inverse square of the unit of flux, {units['flux']!r}, given {units['ivar']!r}"
        raise ValueError(msg)
    grid = units.get("lambda") or units.get("wavelength") or "Angstrom"
    return canonical(flux, wavelength, noise, units.get("flux") or None, bad=_bad(parts), wavelength_unit=grid)


def _image(column: "Array", units: Mapping[str, str], _: str) -> Image:
    parts = _parts(column)
    bands = {tuple(row) for row in _need(parts, "band", "bands").to_pylist()}
    if len(bands) > 1:
        msg = f"images of several sets of bands in one batch: {sorted(bands)[:2]}"
        raise ValueError(msg)
    factor = _factor(units.get("flux", ""), "nmgy")
    flux, ivar = _values(_need(parts, "flux")) * factor, _values(_need(parts, "ivar")) / factor**2
    bad = _bad(parts)
    measured = np.isfinite(flux) & np.isfinite(ivar) & (True if bad is None else ~bad)
    scale = _values(parts["scale"]).reshape(len(column), -1)[:, 0] if "scale" in parts else None
    return Image(np.where(measured, flux, 0), np.where(measured, ivar, 0), bands.pop(), scale)


def _scalar(column: "Array", units: Mapping[str, str], wanted: str) -> Scalar:
    return Scalar(_values(column) * _factor(units[""], wanted))


def _catalog(column: "Array", *_: object) -> Catalog:
    parts = _parts(column)
    return Catalog(**{name: _values(_need(parts, name)) for name in ("x", "y", "e1", "e2", "r")})


_BUILD = {Catalog: _catalog, Image: _image, Scalar: _scalar, Spectrum: _spectrum}
