"""Reads spectra from tables: any astropy `Table` or `QTable`, and the FITS, ECSV, CSV and Parquet files that hold one.

A row is a pixel (columns of numbers: one spectrum) or an object (columns of arrays: one spectrum per row). A unit must
be known, from the table or from the caller; nothing is guessed from the size of the numbers.
"""

__all__ = ["column", "column_names", "from_table", "is_table", "read_table", "table_ids"]

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

import numpy as np

from aion.io.fits import FitsFile, row_names
from aion.io.quantities import canonical
from aion.io.units import FLUX_UNIT, medium_of, parse_unit
from aion.observations import Observation, Spectrum, near_miss

if TYPE_CHECKING:
    from astropy.table import Table

_FLUX = ("flux", "flam", "f_lambda", "fnu", "f_nu", "flux_density")
_LOGARITHMIC = ("loglam", "log_lam", "loglambda", "log_lambda", "logwave")
_WAVELENGTH = ("wavelength", "wave", "lambda", "lam", "wavelength_air", "wave_air", "spectral_axis")
_WAVELENGTH += ("frequency", "freq", "nu", "energy", *_LOGARITHMIC)
_NOISE = {
    "ivar": ("ivar", "invvar", "flux_ivar", "inverse_variance"),
    "std": ("error", "err", "flux_error", "flux_err", "e_flux", "sigma", "std", "uncertainty"),
    "var": ("variance", "var", "flux_var", "flux_variance"),
}
_IDS = ("object_id", "source_id", "targetid", "specobjid", "id", "name")


def column_names(file: object) -> tuple[str, ...]:
    """Returns the column names, lower case, of a table or of the first table of a FITS file; none for anything else."""
    if isinstance(file, FitsFile):
        return file.columns(file.first_table()) if file.first_table() else ()
    return tuple(name.lower() for name in getattr(file, "colnames", ()))


def column(file: "FitsFile | Table", name: str) -> np.ndarray:
    """Reads a column by its name in any case, as a plain array; what is masked becomes NaN if it is a number.

    Raises:
        ValueError: if there is no such column, with the near misses.
    """
    if name.lower() not in (names := column_names(file)):
        msg = f"it has no column {name!r}; {near_miss(name, names)}"
        raise ValueError(msg)
    if isinstance(file, FitsFile):
        return file.column(file.first_table(), name)
    return _plain(file[file.colnames[names.index(name.lower())]])


def _plain(values: object) -> np.ndarray:
    """Takes the mask and the unit off a column."""
    mask = getattr(values, "mask", None)
    array = np.asarray(getattr(getattr(values, "unmasked", values), "value", values))
    if mask is not None and array.dtype.kind in "fiub" and np.any(mask):
        array = np.where(np.asarray(mask), np.nan, array)
    if array.dtype.kind == "O" and len(array) and isinstance(array[0], np.ndarray | list | tuple):
        rows = [np.asarray(row) for row in array]
        return np.stack(rows) if len({row.shape for row in rows}) == 1 else array
    return array


def _pick(names: Iterable[str], known: Iterable[str]) -> str | None:
    return next((name for name in known if name in names), None)


def is_table(file: object) -> bool:
    """Tells a table with a flux and a wavelength column."""
    names = column_names(file)
    return _pick(names, _FLUX) is not None and _pick(names, _WAVELENGTH) is not None


def read_table(file: "FitsFile | Table", **options: str | None) -> dict[str, Observation]:
    """Reads a file that holds a table, with the options of `from_table`."""
    return {"spectrum": from_table(file, **options)}


def table_ids(file: "FitsFile | Table", name: str) -> list[str]:
    """Returns the identifiers of a table with a row per object, the file's name for one spectrum."""
    names = column_names(file)
    flux = column(file, _pick(names, _FLUX) or "flux")
    if flux.dtype.kind != "O" and flux.ndim == 1:
        return row_names(name, ())
    found = _pick(names, _IDS)
    return [str(i) for i in column(file, found)] if found else row_names(name, (len(flux),))


def from_table(
    table: "Table",
    *,
    flux: str | None = None,
    wavelength: str | None = None,
    ivar: str | None = None,
    error: str | None = None,
    unit: str | None = None,
    wavelength_unit: str | None = None,
    medium: str | None = None,
) -> Spectrum:
    """Converts an astropy `Table` or `QTable` to a `Spectrum`.

    Columns are found by their usual names in any case, or named by the caller; a column `mask` is bad where it is True
    or not zero. Masked values and NaN are not measured. Noise without a unit is in that of the flux.

    Arguments:
        table: with a row per pixel, or with arrays in its cells and a row per object.
        flux: name of the column of flux densities.
        wavelength: name of the column of the spectral axis; those that begin with "log" hold log10 of Angstrom.
        ivar: name of the column of inverse variances, or `"estimate"` for the scatter between neighbouring pixels.
        error: name of the column of standard deviations.
        unit: unit of the flux, if the table does not say.
        wavelength_unit: unit of the spectral axis, if the table does not say.
        medium: "vacuum" or "air"; by default what the metadata say (AIRORVAC, VACUUM, MEDIUM), or the column's name
            (`wave_air`), and vacuum if nothing does.

    Raises:
        ValueError: if a column or a unit is missing, or there is no noise.
    """
    names = column_names(table)
    flux = flux or _pick(names, _FLUX) or "flux"
    wavelength = wavelength or _pick(names, _WAVELENGTH) or "wavelength"
    columns = {"flux": column(table, flux), "wavelength": column(table, wavelength)}
    kind, noise = _find_noise(names, ivar, error)
    columns["noise"] = noise if noise == "estimate" else _rescaled(table, noise, kind, unit or _unit(table, flux))
    columns["bad"] = column(table, "mask") != 0 if "mask" in names else None
    if wavelength.lower().startswith("log"):
        columns["wavelength"] = 10.0 ** columns["wavelength"].astype(np.float64)
        wavelength_unit = wavelength_unit or "Angstrom"
    return _build(
        columns,
        unit=unit or _unit(table, flux, f"unit={FLUX_UNIT!r}"),
        wavelength_unit=wavelength_unit or _unit(table, wavelength, "wavelength_unit='Angstrom'"),
        medium=medium or medium_of(_metadata(table)) or ("air" if wavelength.lower().endswith("_air") else None),
        kind=kind,
    )


def _build(columns: dict[str, np.ndarray | str | None], **settings: str | None) -> Spectrum:
    """Makes a spectrum of whole columns; cells of varying length make one for each row, stacked."""
    if columns["flux"].dtype.kind != "O":
        return canonical(**columns, **settings)
    rows = [
        {name: np.asarray(c[i]) if isinstance(c, np.ndarray) else c for name, c in columns.items()}
        for i in range(len(columns["flux"]))
    ]
    return Spectrum.stack([canonical(**row, **settings) for row in rows])


def _find_noise(names: tuple[str, ...], ivar: str | None, error: str | None) -> tuple[str, str]:
    """Returns what the noise is and its column, or "estimate"."""
    if ivar or error:
        return ("ivar", ivar) if ivar else ("std", error)
    for kind, known in _NOISE.items():
        if found := _pick(names, known):
            return kind, found
    msg = (
        f"it has no column of the noise; wanted {', '.join(known[0] for known in _NOISE.values())}, given "
        f"{', '.join(names)}; name it with ivar= or error=, or give ivar='estimate'"
    )
    raise ValueError(msg)


def _unit(table: "FitsFile | Table", name: str, option: str | None = None) -> str | None:
    """Returns the unit of a column as a text or a unit; without one an error that names the option to give."""
    if isinstance(table, FitsFile):
        unit = table.unit(table.first_table(), name)
    else:
        unit = getattr(table[table.colnames[column_names(table).index(name.lower())]], "unit", None)
    if unit is None and option is not None:
        msg = f"column {name!r} has no unit: give {option} or whatever it is"
        raise ValueError(msg)
    return unit


def _metadata(table: "FitsFile | Table") -> Mapping:
    if not isinstance(table, FitsFile):
        return table.meta
    return {**table.header(table.names[0]), **table.header(table.first_table())}


def _rescaled(table: "FitsFile | Table", noise: str, kind: str, flux_unit: object) -> np.ndarray:
    """Returns the noise in the unit of the flux, its square or its inverse square."""
    from astropy import units

    values, unit = column(table, noise), _unit(table, noise)
    if unit is None or flux_unit is None:
        return values
    wanted = parse_unit(flux_unit) ** {"std": 1, "var": 2, "ivar": -2}[kind]
    try:
        return values * parse_unit(unit).to(wanted)
    except units.UnitConversionError:
        msg = f"column {noise!r}: wanted the unit {str(wanted)!r}, given {str(unit)!r}"
        raise ValueError(msg) from None
