"""Opens files and hands out their contents: FITS one HDU at a time, tables and archives, told apart by their bytes.

Plain FITS files are read from their bytes (`aion.io.hdus`), others by astropy; this module adds what readers need to
stay short. Arrays come in native byte order and own their memory, so no handle or memory map stays behind. A missing
HDU or column, a truncated or a damaged file is one `ValueError` that says what is wrong; harmless warnings about
headers are not passed on.
"""

__all__ = ["FitsFile", "number", "open_file", "row_names", "stem"]

import contextlib
import functools
import gzip
import io
import math
import warnings
import zipfile

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from aion.io.hdus import PlainHdu, plain_hdus
from aion.observations import near_miss

if TYPE_CHECKING:
    from astropy.io.fits import HDUList
    from astropy.table import Table

    File = "FitsFile | Table | dict[str, FitsFile | Table]"


# Endings of what is looked at in an archive: all else there, such as a list of contents, is none of ours.
_TABLES = (".csv", ".ecsv", ".fits", ".parquet", ".csv.gz", ".ecsv.gz", ".fits.gz")
_LARGEST = 2**26  # bytes of a FITS file that is read at once; astropy maps larger ones


class FitsFile:
    """Gives the HDUs of an open FITS file by name.

    An HDU without EXTNAME is called by its number, `"1"`; of several of one name the first has it, the others add
    their number, `"SCI:4"`. Names are upper case, column names lower case.

    Arguments:
        hdus: those of astropy, or plain ones.
        reopen: opens the file by astropy, which has plain ones that turn out not to be when they are asked for.

    Raises:
        ValueError: for headers that describe no data.
    """

    def __init__(self, hdus: "HDUList | Sequence[PlainHdu]", reopen: "Callable[[], HDUList] | None" = None) -> None:
        self._hdus, self._columns, self._reopen = {}, {}, reopen
        for index, hdu in enumerate(hdus):
            name = str(hdu.name or index).strip().upper()
            name = name if name not in self._hdus else f"{name}:{index}"
            self._hdus[name] = hdu
            if not isinstance(hdu, PlainHdu):
                self.columns(name)
                with _damage(f"the header of HDU {name!r}"):
                    tuple(hdu.shape if hdu.is_image else ())

    @property
    def names(self) -> tuple[str, ...]:
        """Returns the names of the HDUs in the order of the file."""
        return tuple(self._hdus)

    def header(self, name: str) -> Mapping[str, object]:
        """Returns the keywords of an HDU with their values, without comments and without cards that nobody can read."""
        values, hdu = {}, self._known(name)
        if isinstance(hdu, PlainHdu):
            return hdu.header
        for card in hdu.header.cards:
            if card.keyword not in {"", "COMMENT", "HISTORY"}:
                with contextlib.suppress(ValueError), _damage("a card"):
                    values[card.keyword] = card.value
        return values

    def shape(self, name: str) -> tuple[int, ...]:
        """Returns the shape of an image, or `(rows,)` of a table, from the header alone; `()` if it has no data."""
        hdu = self._known(name)
        if isinstance(hdu, PlainHdu):
            return hdu.shape
        return (int(hdu.header["NAXIS2"]),) if self.is_table(name) else tuple(hdu.shape if hdu.is_image else ())

    def is_table(self, name: str) -> bool:
        """Tells whether an HDU is a table."""
        hdu = self._known(name)
        return hdu.is_table if isinstance(hdu, PlainHdu) else bool(self.columns(name))

    def array(self, name: str) -> np.ndarray:
        """Reads an image HDU."""
        hdu = self._hdu(name)
        with _damage(f"HDU {name!r}"):
            data = hdu.data if hdu.is_image else None
        if data is None:
            msg = f"HDU {name!r} holds no image"
            raise ValueError(msg)
        return _native(data)

    def columns(self, name: str) -> tuple[str, ...]:
        """Returns the column names of a table HDU; none for an image."""
        if name not in self._columns:
            hdu = self._hdu(name)
            with _damage(f"the header of HDU {name!r}"):
                columns = None if hdu.is_image else getattr(hdu, "columns", hdu)
                self._columns[name] = tuple(map(str.lower, getattr(columns, "names", ())))
        return self._columns[name]

    def column(self, name: str, column: str) -> np.ndarray:
        """Reads one column of a table HDU; rows of varying length come as an array of arrays."""
        if column.lower() not in self.columns(name):
            msg = f"HDU {name!r} has no column {column!r}; {near_miss(column, self.columns(name))}"
            raise ValueError(msg)
        with _damage(f"column {column!r} of HDU {name!r}"):
            hdu = self._hdu(name)
            table = hdu if isinstance(hdu, PlainHdu) else hdu.data
            return _native(table.field(self.columns(name).index(column.lower())))

    def unit(self, name: str, column: str | None = None) -> str | None:
        """Returns the unit of an image (BUNIT) or of a column (TUNIT) as written, None if there is none."""
        hdu = self._hdu(name)
        if column is None:
            text = self.header(name).get("BUNIT")
        else:
            index = self.columns(name).index(column.lower())
            text = hdu.unit(index) if isinstance(hdu, PlainHdu) else hdu.columns[index].unit
        return str(text).strip() or None if text is not None else None

    def first_table(self) -> str | None:
        """Returns the name of the first table HDU, None if there is none."""
        return next((name for name in self._hdus if self.is_table(name)), None)

    def release(self) -> None:
        """Lets go of the data that astropy keeps, and with it of the memory map of the file."""
        for hdu in self._hdus.values():
            hdu.__dict__.pop("data", None)

    def _hdu(self, name: str) -> object:
        hdu = self._known(name)
        if isinstance(hdu, PlainHdu) and not hdu.is_plain:
            with _damage(f"HDU {name!r}"):
                hdu = self._hdus[name] = self._reopen()[self.names.index(name)]
        return hdu

    def _known(self, name: str) -> object:
        if name not in self._hdus:
            msg = f"it has no HDU {name!r}; {near_miss(name, (known.lower() for known in self._hdus))}"
            raise ValueError(msg)
        return self._hdus[name]


def number(header: Mapping[str, object], key: str, default: float | None = None) -> float | None:
    """Returns the number that a header holds under a keyword, or the default if there is no such keyword.

    Raises:
        ValueError: for a value that is no finite number.
    """
    if key not in header:
        return default
    value = header[key]
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        msg = f"keyword {key!r}: wanted a number, given {value!r}"
        raise ValueError(msg)
    return float(value)


def stem(path: Path) -> str:
    """Returns the name of a file without its endings, as an identifier of last resort."""
    name = path.name.removesuffix(".gz")
    return Path(name).stem or name


def row_names(name: str, shape: tuple[int, ...]) -> list[str]:
    """Makes identifiers of the file's name and the row."""
    count = shape[0] if shape else 1
    return [name] if count == 1 else [f"{name}-{row}" for row in range(count)]


@contextmanager
def open_file(path: str | Path) -> "Iterator[File]":
    """Opens a file of any kind that `aion` reads, while the context lasts.

    Yields a `FitsFile`, an astropy `Table` (Parquet, ECSV, CSV) or, for a zip archive, a dict of those by member name.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: for a folder, or contents that are damaged or of no known kind.
    """
    path = Path(path)
    if path.is_dir():
        msg = "it is a folder; wanted a file"
        raise ValueError(msg)
    if not path.exists():
        msg = f"no such file: {path}"
        raise FileNotFoundError(msg)
    with ExitStack() as stack:
        stack.enter_context(warnings.catch_warnings())
        warnings.simplefilter("ignore")
        warnings.filterwarnings("error", message=r"(?s).*(truncated|corrupted)")
        with path.open("rb") as stream:
            magic = stream.read(9)
        yield _parse(path if magic == b"SIMPLE  =" else path.read_bytes(), stack)


def _parse(source: Path | bytes, stack: ExitStack) -> "File":
    """Parses contents given as bytes, or as the path of a plain FITS file, which is mapped rather than read."""
    if isinstance(source, bytes) and source.startswith(b"\x1f\x8b"):
        with _damage("the gzip stream"):
            source = gzip.decompress(source)  # whole: an incomplete stream is found here, not at the last HDU
    if isinstance(source, Path) or source.startswith(b"SIMPLE  ="):
        return _parse_fits(source, stack)
    if source.startswith(b"PK\x03\x04"):
        return _parse_zip(source, stack)
    if source.startswith(b"PAR1"):
        from astropy.table import Table

        with _damage("the Parquet table"):
            return Table.read(io.BytesIO(source), format="parquet")
    return _parse_text(source)


def _parse_fits(source: Path | bytes, stack: ExitStack) -> FitsFile:
    if isinstance(source, Path) and source.stat().st_size <= _LARGEST:
        source = source.read_bytes()

    @functools.cache
    def by_astropy() -> "HDUList":
        from astropy.io import fits

        # A stream of ours, because astropy leaves its own open when it raises on a damaged file.
        stream = stack.enter_context(io.BytesIO(source) if isinstance(source, bytes) else source.open("rb"))
        return stack.enter_context(fits.open(stream))

    if isinstance(source, bytes) and (hdus := plain_hdus(source)):
        file = FitsFile(hdus, by_astropy)
    else:
        with _damage("the FITS headers"):
            file = FitsFile(by_astropy())
    stack.callback(file.release)
    return file


def _parse_zip(source: bytes, stack: ExitStack) -> "dict[str, FitsFile | Table]":
    with _damage("the zip archive"), zipfile.ZipFile(io.BytesIO(source)) as archive:
        members = {name: archive.read(name) for name in archive.namelist() if name.lower().endswith(_TABLES)}
    return {name: _parse(data, stack) for name, data in members.items() if not data.startswith(b"PK")}


def _parse_text(source: bytes) -> "Table":
    from astropy.table import Table

    try:
        text = source.decode("utf-8")
    except UnicodeDecodeError:
        text = ""
    if not text.strip() or "\0" in text:
        msg = f"wanted FITS, Parquet, ECSV, CSV or a zip of those, given {'other' if source else 'no'} bytes"
        raise ValueError(msg)
    try:
        # A text of one line astropy would take for the name of a file.
        return Table.read(f"{text}\n", format="ascii.ecsv" if text.startswith("# %ECSV") else "ascii.csv")
    except ValueError as error:
        msg = f"it is text, but no ECSV or CSV table ({str(error).strip().splitlines()[0][:200]})"
        raise ValueError(msg) from error


def _native(data: Sequence | np.ndarray) -> np.ndarray:
    """Copies an array into native byte order; rows of one varying-length column are joined if they agree."""
    data = np.asarray(data)
    if data.dtype.kind == "O":
        rows = [_native(row) for row in data]
        if len({row.shape for row in rows}) == 1:
            return np.stack(rows)
        joined = np.empty(len(rows), dtype=object)
        joined[:] = rows
        return joined
    return np.array(data, dtype=data.dtype.newbyteorder("="))


@contextmanager
def _damage(what: str) -> Iterator[None]:
    """Turns whatever goes wrong in reading bytes into one error that says what could not be read."""
    try:
        yield
    except Exception as error:  # astropy, gzip, zipfile and numpy raise a dozen kinds over bytes that are wrong
        reason = str(error).strip().split("\n")[0][:200] or type(error).__name__
        msg = f"cannot read {what}: the file is truncated or damaged ({reason})"
        raise ValueError(msg) from error
