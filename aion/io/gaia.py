"""Reads Gaia's BP/RP spectra: continuous (coefficients of basis functions), sampled, and the archive's zip of both."""

__all__ = [
    "gaia_archive_ids",
    "gaia_ids",
    "is_gaia_archive",
    "is_gaia_xp_continuous",
    "is_gaia_xp_sampled",
    "read_gaia_archive",
    "read_gaia_xp_continuous",
    "read_gaia_xp_sampled",
]

from typing import TYPE_CHECKING

import numpy as np
import torch

from aion.io.fits import FitsFile
from aion.io.quantities import canonical
from aion.io.tables import column, column_names
from aion.observations import Observation, Scalar, Spectrum

if TYPE_CHECKING:
    from astropy.table import Table

COEFFICIENTS = 55
# The wavelengths of a sampled spectrum whose file gives none, in nm in vacuum: those of the data model.
_SAMPLING = np.linspace(336.0, 1020.0, 343)
_FLUX_UNIT = "W / (m2 nm)"


def is_gaia_xp_continuous(file: object) -> bool:
    """Tells a table of XP continuous spectra."""
    return {"bp_coefficients", "rp_coefficients"} <= set(column_names(file))


def read_gaia_xp_continuous(file: "FitsFile | Table") -> dict[str, Observation]:
    """Reads the 55 BP and the 55 RP coefficients of every source; a missing spectrum is NaN.

    References:
        Gaia Data Release 3: processing and validation of BP/RP low-resolution spectral data (De Angeli et al., 2023),
        arXiv:2206.06143
    """
    return {
        f"gaia_{arm}_coefficients": Scalar(_coefficients(column(file, f"{arm}_coefficients"))) for arm in ("bp", "rp")
    }


def _coefficients(rows: np.ndarray) -> np.ndarray:
    """Converts arrays, or texts such as "(1.0, 2.0)" and "[1.0, null]", to numbers `(B, 55)`."""
    result = np.full((len(rows), COEFFICIENTS), np.nan)
    for i, row in enumerate(rows):
        if isinstance(row, str):
            cells = row.strip("()[]{} ").replace("null", "nan")
            try:
                row = np.array(cells.split(",") if cells else [], dtype=np.float64)
            except ValueError:
                msg = f"row {i}: wanted {COEFFICIENTS} numbers, given the text {row[:40]!r}"
                raise ValueError(msg) from None
        row = np.ma.filled(np.ma.asarray(row, dtype=np.float64), np.nan).ravel()
        if len(row) not in {0, COEFFICIENTS}:
            msg = f"row {i}: wanted {COEFFICIENTS} coefficients, given {len(row)}"
            raise ValueError(msg)
        result[i, : len(row)] = row
    return result


def is_gaia_xp_sampled(file: object) -> bool:
    """Tells a table of XP sampled spectra: Gaia's names of columns, with a source or Gaia's header."""
    names = set(column_names(file))
    return {"flux", "flux_error"} <= names and ("source_id" in names or _header_id(file) is not None)


def _header_id(file: object) -> str | None:
    """Returns the source that the header of a file of one spectrum names."""
    if not isinstance(file, FitsFile) or file.first_table() is None:
        return None
    header = file.header(file.first_table())
    return str(header["SOURCEID"]).strip() if "SOURCEID" in header else None


def read_gaia_xp_sampled(file: "FitsFile | Table") -> dict[str, Observation]:
    """Reads sampled spectra (343 pixels from 336 to 1020 nm) and converts W/m2/nm to 1e-17 erg/s/cm2/Angstrom.

    A table holds one spectrum or several one below the other (a row is a pixel), or one per row (arrays in cells).
    Gaia's wavelengths are vacuum: it observes from space. Neighbouring pixels are correlated; the errors do not say.

    References:
        Gaia Data Release 3: external calibration of BP/RP low-resolution spectroscopic data (Montegriffo et al., 2023),
        arXiv:2206.06205
    """
    flux, error = column(file, "flux"), column(file, "flux_error")
    if flux.ndim == 2:
        return {"spectrum": _sampled(flux, _SAMPLING, error)}
    wavelength, sources = column(file, "wavelength"), _sources(file, len(flux))
    parts = [sources == source for source in dict.fromkeys(sources)]
    return {"spectrum": Spectrum.stack([_sampled(flux[p], wavelength[p], error[p]) for p in parts])}


def _sampled(flux: np.ndarray, wavelength: np.ndarray, error: np.ndarray) -> Spectrum:
    arrays = (np.asarray(value, dtype=np.float64) for value in (flux, wavelength, error))
    return canonical(*arrays, unit=_FLUX_UNIT, kind="std", wavelength_unit="nm")


def _sources(file: "FitsFile | Table", rows: int) -> np.ndarray:
    if "source_id" in column_names(file):
        return column(file, "source_id").astype(str)
    return np.full(rows, _header_id(file) or "")


def gaia_ids(file: "FitsFile | Table", name: str) -> list[str]:
    """Returns the source_id of every source, in the order of the file."""
    rows = len(column(file, column_names(file)[0]))
    return [source or name for source in dict.fromkeys(_sources(file, rows).tolist())]


def is_gaia_archive(file: object) -> bool:
    """Tells a zip archive with at least one file of XP spectra."""
    return isinstance(file, dict) and any(_parts(file))


def _parts(file: "dict[str, FitsFile | Table]") -> list:
    """Returns the members that can be read, each with its reader."""
    readers = ((is_gaia_xp_continuous, read_gaia_xp_continuous), (is_gaia_xp_sampled, read_gaia_xp_sampled))
    return [(member, read) for member in file.values() for matches, read in readers if matches(member)]


def read_gaia_archive(file: "dict[str, FitsFile | Table]") -> dict[str, Observation]:
    """Reads the XP products in a zip archive as the Gaia archive delivers it; other products are passed over.

    Objects are the sources of all products; a source that one of them lacks is not measured there.
    """
    order = {source: row for row, source in enumerate(gaia_archive_ids(file, ""))}
    pieces: dict[str, list] = {}
    for member, read in _parts(file):
        rows = torch.tensor([order[source] for source in gaia_ids(member, "")])
        for name, observation in read(member).items():
            pieces.setdefault(name, []).append((rows, observation))
    return {name: _spread(parts, len(order)) for name, parts in pieces.items()}


def _spread(parts: list[tuple[torch.Tensor, Observation]], count: int) -> Observation:
    """Puts the objects of several observations into their rows of a batch; rows that nothing fills are unmeasured."""
    rows = torch.cat([rows for rows, _ in parts])
    joined = type(parts[0][1]).stack([observation for _, observation in parts])
    if isinstance(joined, Scalar):
        value = torch.full((count, *joined.value.shape[1:]), torch.nan)
        value[rows] = joined.value
        return Scalar(value)
    flux, ivar = joined.flux.new_zeros(2, count, joined.flux.shape[1])
    flux[rows], ivar[rows] = joined.flux, joined.ivar
    wavelength = joined.wavelength[:1].repeat(count, 1)
    wavelength[rows] = joined.wavelength
    return Spectrum(flux=flux, ivar=ivar, wavelength=wavelength)


def gaia_archive_ids(file: "dict[str, FitsFile | Table]", name: str) -> list[str]:
    """Returns the source_ids of all products, each once, in the order of the archive."""
    return list(dict.fromkeys(source for member, _ in _parts(file) for source in gaia_ids(member, name)))
