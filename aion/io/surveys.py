"""Reads any file that `aion` knows: finds its format from its contents and hands it to that format's reader.

A format is four small functions: one that recognises an open file, one that reads its observations, one that names its
objects and, where a pipeline has left one, one that reads the redshift. `FORMATS` holds them by name, the more special
before the more general; the first that recognises a file has it.
"""

__all__ = [
    "FORMATS",
    "Format",
    "Objects",
    "POSITIONS",
    "identify",
    "object_ids",
    "read",
    "read_objects",
    "read_redshift",
    "samples",
]

import inspect

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch

from torch import Tensor

from aion.io import catalogs, gaia, images, sdss, spectra, tables
from aion.io.fits import FitsFile, open_file, stem
from aion.observations import Observation, near_miss

if TYPE_CHECKING:
    from aion.io.fits import File


class Format(NamedTuple):
    """Holds the functions of one format.

    Arguments:
        matches: tells whether an open file has the format.
        read: reads the observations of an open file; its keyword arguments are the options of `read`.
        ids: names the objects of an open file, given the file's name for those that have none.
        redshift: reads the pipeline's redshifts, None if there are none.
        containers: what an open file may be: "fits", "table" (ECSV, CSV, Parquet) or "archive" (zip).
    """

    matches: Callable[[object], bool]
    read: Callable[..., dict[str, Observation]]
    ids: Callable[[object, str], list[str]]
    redshift: Callable[[object], np.ndarray] | None = None
    containers: tuple[str, ...] = ("fits",)


_ANY_TABLE = ("fits", "table")
# Names of columns or keywords that hold a position.
POSITIONS = (("ra", "dec"), ("target_ra", "target_dec"), ("plug_ra", "plug_dec"))
_TRACTOR = Format(catalogs.is_tractor, catalogs.read_tractor, catalogs.tractor_ids, containers=_ANY_TABLE)

FORMATS: dict[str, Format] = {
    "desi-coadd": Format(spectra.is_desi_coadd, spectra.read_desi_coadd, spectra.desi_coadd_ids),
    "redrock": Format(catalogs.is_redrock, catalogs.read_redrock, catalogs.redrock_ids, catalogs.redrock_redshift),
    "sdss-spec": Format(sdss.is_sdss_spec, sdss.read_sdss_spec, sdss.sdss_spec_ids, sdss.sdss_spec_redshift),
    "sdss-loglam": Format(sdss.is_sdss_loglam, sdss.read_sdss_loglam, sdss.sdss_loglam_ids),
    "manga": Format(spectra.is_manga, spectra.read_manga, spectra.manga_ids, spectra.manga_redshift),
    "fits-spectrum": Format(spectra.is_fits_spectrum, spectra.read_fits_spectrum, spectra.fits_spectrum_ids),
    "gaia-xp-continuous": Format(
        gaia.is_gaia_xp_continuous, gaia.read_gaia_xp_continuous, gaia.gaia_ids, containers=_ANY_TABLE
    ),
    "gaia-xp-sampled": Format(gaia.is_gaia_xp_sampled, gaia.read_gaia_xp_sampled, gaia.gaia_ids, containers=_ANY_TABLE),
    "gaia-xp-archive": Format(
        gaia.is_gaia_archive, gaia.read_gaia_archive, gaia.gaia_archive_ids, containers=("archive",)
    ),
    "tractor": _TRACTOR,
    "sweep": _TRACTOR,  # a Tractor catalogue with fewer columns
    "image": Format(images.is_image, images.read_image, images.image_ids),
    "table": Format(tables.is_table, tables.read_table, tables.table_ids, containers=_ANY_TABLE),
}


def read(path: str | Path, format: str | None = None, **options: object) -> dict[str, Observation]:  # noqa: A002
    """Reads the observations in a file, in canonical units, one batch of all its objects.

    Pixels that are bad, masked or not a number get ivar 0, numbers that were not measured are NaN, everything is
    float32 in native byte order. Labels are no observations: of a file with both, spectra and a redshift, the spectra
    are read; see `read_redshift`. The exception is redrock's, which has nothing else.

    Arguments:
        path: the file; FITS and CSV may be compressed by gzip.
        format: one of `FORMATS`; by default it is found from the contents.
        **options: what a file may leave open, by format. "fits-spectrum", "sdss-loglam" and "table": `unit` of the
            flux; the first and the last: `wavelength_unit` and `medium` ("air", "vacuum"). "table": the names of
            columns, see `from_table`. "image": `bands`, `unit`, `zero_point`, `pixel_scale`, `ivar="estimate"`.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: for an unknown format, a file of no known format, a truncated or damaged file, a missing HDU,
            column or unit. The message names the file and what is missing.
        TypeError: for an option that the format does not have.
    """
    with _opened(path, format) as (file, name):
        _check_options(name, options)
        return FORMATS[name].read(file, **options)


class Objects(NamedTuple):
    """Holds the objects of a file.

    Arguments:
        ids: identifiers of the B objects.
        positions: right ascension and declination in ICRS degrees, `(B, 2)`; NaN where the file does not say.
        observations: as `read` returns them.
    """

    ids: list[str]
    positions: np.ndarray
    observations: dict[str, Observation]


def read_objects(path: str | Path, format: str | None = None, **options: object) -> Objects:  # noqa: A002
    """Reads identifiers, positions and observations of a file, which is opened once.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: as `read`.
        TypeError: for an option that the format does not have.
    """
    with _opened(path, format) as (file, name):
        _check_options(name, options)
        observations = FORMATS[name].read(file, **options)
        ids = FORMATS[name].ids(file, stem(Path(path)))
        return Objects(ids, _positions(file, len(ids)), observations)


def _positions(file: "File", count: int) -> np.ndarray:
    """Finds positions in the columns of a table with a row for each object, or for one object in the header."""
    names = tables.column_names(file)
    for pair in POSITIONS:
        if set(pair) <= set(names) and len(tables.column(file, pair[0])) == count:
            return np.stack([np.asarray(tables.column(file, name), dtype=np.float64) for name in pair], axis=1)
    header = file.header(file.names[0]) if isinstance(file, FitsFile) else {}
    for pair in POSITIONS:
        given = [header.get(name.upper()) for name in pair]
        if count == 1 and all(isinstance(value, int | float) for value in given):
            return np.array([given], dtype=np.float64)
    return np.full((count, 2), np.nan)


def identify(path: str | Path) -> str:
    """Finds the format of a file from its contents; its name does not matter.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: for a file of no known format, or a damaged one.
    """
    with _opened(path, None) as (_, name):
        return name


def object_ids(path: str | Path, format: str | None = None) -> list[str]:  # noqa: A002
    """Returns an identifier for every object of a file, in the order of `read`.

    These are the survey's own (TARGETID, PLATE-MJD-FIBER, source_id, RELEASE-BRICKID-OBJID), or the name of the file,
    with the row if there are several objects.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: as `read`.
    """
    with _opened(path, format) as (file, name):
        _check_matches(file, name)
        return FORMATS[name].ids(file, stem(Path(path)))


def read_redshift(path: str | Path, format: str | None = None) -> Tensor:  # noqa: A002
    """Reads the redshifts `(B,)` that the survey's pipeline found, from a redrock, SDSS spec or MaNGA file.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: for a file without a redshift, and as `read`.
    """
    with _opened(path, format) as (file, name):
        _check_matches(file, name)
        if FORMATS[name].redshift is None:
            having = ", ".join(each for each, known in FORMATS.items() if known.redshift)
            msg = f"a file of format {name!r} has no pipeline redshift; wanted one of {having}"
            raise ValueError(msg)
        return torch.tensor(FORMATS[name].redshift(file), dtype=torch.float32)


def samples() -> dict[str, Path]:
    """Returns the real files that come with the package: two galaxies of DESI, their redshifts, one's photometry."""
    folder = Path(__file__).parent / "data"
    return {
        "desi-galaxy": folder / "coadd-4-80613-thru20210324.fits.gz",
        "desi-galaxy-redshift": folder / "redrock-4-80613-thru20210324.fits.gz",
        "desi-galaxy-tractor": folder / "tractor-1054p567.fits.gz",
        "desi-nearby-galaxy": folder / "coadd-special-dark-27247.fits.gz",
        "desi-nearby-galaxy-redshift": folder / "redrock-special-dark-27247.fits.gz",
    }


@contextmanager
def _opened(path: str | Path, format: str | None) -> "Iterator[tuple[File, str]]":  # noqa: A002
    """Opens a file and finds its format; whatever goes wrong while it is open names the file."""
    if format is not None and format not in FORMATS:
        msg = f"unknown format {format!r}; {near_miss(format, FORMATS)}"
        raise ValueError(msg)
    try:
        with open_file(path) as file:
            name = format or _identify(file)
            if (given := _container(file)) not in FORMATS[name].containers:
                msg = f"it is no {name} file: wanted {' or '.join(FORMATS[name].containers)}, given {given}"
                raise ValueError(msg)
            yield file, name
    except FileNotFoundError:
        raise
    except (ValueError, OSError) as error:
        msg = f"{path}: {error}"
        raise ValueError(msg) from error


def _container(file: "File") -> str:
    return "fits" if isinstance(file, FitsFile) else "archive" if isinstance(file, dict) else "table"


def _identify(file: "File") -> str:
    for name, known in FORMATS.items():
        if known.matches(file):
            return name
    kind, names = {
        "fits": lambda: ("HDUs", file.names),
        "archive": lambda: ("members", file),
        "table": lambda: ("columns", file.colnames),
    }[_container(file)]()
    contents = f"{kind} {', '.join(names)}"
    msg = (
        f"it has no known format: no spectrum, image or catalogue in its {contents[:300]}; known: {', '.join(FORMATS)}"
    )
    raise ValueError(msg)


def _check_matches(file: "File", name: str) -> None:
    if not FORMATS[name].matches(file):
        msg = f"it does not have the format {name!r} but {_identify(file)!r}"
        raise ValueError(msg)


def _check_options(name: str, options: dict[str, object]) -> None:
    """Refuses options that the reader of a format does not have."""
    if not options:
        return  # most files have none, and a signature takes as long as the whole header of a spectrum
    reader = tables.from_table if name == "table" else FORMATS[name].read
    known = list(inspect.signature(reader).parameters)[1:]
    for option in options:
        if option not in known:
            msg = f"format {name!r} has no option {option!r}; " + (near_miss(option, known) if known else "it has none")
            raise TypeError(msg)
