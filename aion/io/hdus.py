"""Reads plain FITS files from their bytes: headers as text, images and columns of tables as views.

A file of spectra has a dozen HDUs with hundreds of cards, and astropy parses and verifies each of them; a reader wants
three arrays. So only those cards are looked at that are asked for, and only those tables. What is not plain here is
left to astropy: compressed images, columns of varying length or scaled values, tables of text, whatever breaks a rule,
and files that are cut off.

References:
    Definition of the Flexible Image Transport System (FITS), version 3.0 (Pence et al., 2010), Astronomy and
    Astrophysics 524, A42, doi:10.1051/0004-6361/201015362
"""

__all__ = ["PlainHdu", "plain_hdus"]

import math
import re

from collections.abc import Iterator, Mapping
from functools import cached_property

import numpy as np

_BLOCK, _CARD = 2880, 80
_PIXELS = {8: ">u1", 16: ">i2", 32: ">i4", 64: ">i8", -32: ">f4", -64: ">f8"}
_CELLS = {"L": "u1", "B": "u1", "A": "S1", "I": ">i2", "J": ">i4", "K": ">i8", "E": ">f4", "D": ">f8"}
_CELLS = {letter: np.dtype(kind) for letter, kind in _CELLS.items()}
_VALUE = re.compile(r"\s*(?:'((?:[^']|'')*)'|([TF])|([+-]?\d+)|([+-]?[\d.][\d.]*(?:[EDed][+-]?\d+)?))\s*(?:/.*)?$")


class _NotPlainError(Exception):
    """Tells that astropy must read the file."""


class _Header(Mapping):
    """Gives keywords with their values, without comments, cards without a value and cards that nobody can read.

    The value of a card is read when it is asked for: a survey's header has hundreds, a reader wants five.
    """

    def __init__(self, text: str) -> None:
        self.text = text
        # Of two cards of one keyword the first counts.
        self._place = {text[i : i + 8]: i for i in range(len(text) - _CARD, -1, -_CARD)}
        self._long = "CONTINUE" in self._place or "HIERARCH" in self._place

    @property
    def keywords(self) -> Iterator[str]:
        """Yields all keywords once, padded to eight letters."""
        return iter(self._place)

    def card(self, key: str) -> str:
        """Returns the card of a keyword of the standard, "" if there is none."""
        place = self._place.get(key.ljust(8))
        return "" if place is None else self.text[place : place + _CARD]

    def value(self, key: str, default: object = None) -> object:
        """Returns the value of a keyword of the standard, the default if there is none."""
        card = self.card(key)
        return _value(card[10:]) if card[8:10] == "= " else default

    @cached_property
    def _values(self) -> dict[str, object]:
        values, last = {}, ""
        for place in range(0, len(self.text), _CARD):
            card = self.text[place : place + _CARD]
            key, text = card[:8].rstrip(), card[10:]
            if key == "CONTINUE" and str(values.get(last, "")).endswith("&"):
                more = _VALUE.match(text)
                values[last] = values[last][:-1] + str(_value(text) if more else "")
                continue
            if key == "HIERARCH" and "=" in text:
                key, text = (part.strip() for part in card[9:].split("=", 1))
            elif card[8:10] != "= ":
                continue
            if _VALUE.match(text) and key not in values:
                values[key], last = _value(text), key
        return values

    def __getitem__(self, key: str) -> object:
        if self._long:
            return self._values[key]
        card = self.card(key)
        if card[8:10] != "= " or not _VALUE.match(card[10:]):
            raise KeyError(key)
        return _value(card[10:])

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)


class PlainHdu:
    """Gives one HDU of a file in memory.

    Arguments:
        data: the file.
        start: where the header begins.
        name: of an HDU without EXTNAME.

    Raises:
        _NotPlainError: for what astropy must read.
    """

    def __init__(self, data: bytes, start: int, name: str) -> None:
        self._data, self.header = data, _Header(_header(data, start))
        self.start = start + -(-(len(self.header.text) + _CARD) // _BLOCK) * _BLOCK
        kind = self._get("XTENSION", "PRIMARY")
        self.is_image = kind in {"PRIMARY", "IMAGE"}
        odd = any(self._get(key) for key in ("ZIMAGE", "ZTABLE", "GROUPS", "THEAP", "PCOUNT"))
        if odd or not (self.is_image or kind == "BINTABLE") or self._get("GCOUNT", 1) != 1:
            raise _NotPlainError
        self.name = str(self._get("EXTNAME", name))
        axes = tuple(self._need(f"NAXIS{i}") for i in range(self._need("NAXIS"), 0, -1))
        bits = self._need("BITPIX")
        if bits not in _PIXELS:
            raise _NotPlainError
        self.shape = axes if self.is_image else axes[:1]
        self.size = (math.prod(axes) if axes else 0) * abs(bits) // 8
        self.stop = self.start + -(-self.size // _BLOCK) * _BLOCK
        if self.stop > len(data):
            raise _NotPlainError
        if self.is_image:
            self._pixel = self._scaled(np.dtype(_PIXELS[bits]), "BSCALE", "BZERO")
        else:
            self._width, self._count = axes[1], self._need("TFIELDS")
        self.is_table = not self.is_image and self._count > 0

    @property
    def is_plain(self) -> bool:
        """Tells whether the columns are plain, too: they are looked at in those tables only that are asked for."""
        try:
            return self.is_image or bool(self._forms) or not self._count
        except (_NotPlainError, IndexError, KeyError, ValueError):
            return False

    def _get(self, key: str, default: object = None) -> object:
        return self.header.value(key, default)

    def _need(self, key: str) -> int:
        value = self._get(key)
        if not isinstance(value, int) or (value < 0 and key != "BITPIX"):
            raise _NotPlainError
        return value

    # ---- data

    @property
    def data(self) -> np.ndarray | None:
        """Returns the image as a view, None if there is none."""
        if not self.shape:
            return None
        kind, unsigned = self._pixel
        array = np.frombuffer(self._data, kind, math.prod(self.shape), self.start).reshape(self.shape)
        return _unsigned(array) if unsigned else array

    @property
    def names(self) -> list[str]:
        """Returns the names of the columns, none for an image."""
        return [] if self.is_image else [name for name, *_ in self._forms]

    def unit(self, index: int) -> object:
        """Returns the unit of a column as written."""
        return self._get(f"TUNIT{index + 1}")

    def field(self, index: int) -> np.ndarray:
        """Returns a column; texts without the blanks at their end."""
        _, letter, count, offset = self._forms[index]
        kind, unsigned = self._kind(letter, index + 1)
        cell = tuple(int(n) for n in re.findall(r"\d+", str(self._get(f"TDIM{index + 1}", count)))[::-1])
        form = f"S{count}" if letter == "A" else np.dtype((kind, cell if cell != (1,) else ()))
        row = np.dtype({"names": ["x"], "formats": [form], "offsets": [offset], "itemsize": self._width})
        array = np.frombuffer(self._data, row, self.shape[0], self.start)["x"]
        if letter == "A":
            return np.char.rstrip(array.astype("U"))
        if letter == "L":
            return array == ord("T")
        return _unsigned(array) if unsigned else array

    @cached_property
    def _forms(self) -> list[tuple[str, str, int, int]]:
        """Finds name, letter, count and place of each column, a microsecond each: a table has hundreds."""
        forms, offset, card = [], 0, self.header.card
        for i in range(1, self._count + 1):
            form = _quoted(card(f"TFORM{i}"))
            letter, count = form[-1], int(form[:-1] or 1)
            if letter not in _CELLS or not count:
                raise _NotPlainError
            forms.append((_quoted(card(f"TTYPE{i}")), letter, count, offset))
            offset += count * _CELLS[letter].itemsize
        if offset != self._width:
            raise _NotPlainError
        for key in self.header.keywords:
            if key.startswith(("TSCAL", "TZERO")):
                self._kind(forms[int(key[5:]) - 1][1], int(key[5:]))
            elif key.startswith("TDIM"):
                _, letter, count, _ = forms[int(key[4:]) - 1]
                cell = re.findall(r"\d+", str(self._get(key.rstrip())))
                if letter == "A" or math.prod(map(int, cell)) != count:
                    raise _NotPlainError
        return forms

    def _kind(self, letter: str, column: int) -> tuple[np.dtype, bool]:
        return self._scaled(_CELLS[letter], f"TSCAL{column}", f"TZERO{column}")

    def _scaled(self, kind: np.dtype, scale: str, zero: str) -> tuple[np.dtype, bool]:
        """Returns the type of numbers and whether they are unsigned; other scalings are not plain."""
        offset = self._get(zero, 0)
        unsigned = kind.kind == "i" and offset == 2 ** (8 * kind.itemsize - 1)
        blank = scale == "BSCALE" and kind.kind in "iu" and self._get("BLANK") is not None
        if self._get(scale, 1) != 1 or (offset != 0 and not unsigned) or blank:
            raise _NotPlainError
        return kind, unsigned


def plain_hdus(data: bytes) -> list[PlainHdu] | None:
    """Returns the HDUs of a FITS file, None if it must be read by astropy."""
    hdus, start = [], 0
    try:
        while start < len(data):
            hdus.append(PlainHdu(data, start, "" if hdus else "PRIMARY"))
            start = hdus[-1].stop
    except (_NotPlainError, IndexError, KeyError, TypeError, ValueError):
        return None
    return hdus


def _header(data: bytes, start: int) -> str:
    """Returns the cards of a header before its END."""
    end = start - _CARD
    while (end := data.find(b"END" + b" " * 77, end + _CARD)) >= 0 and (end - start) % _CARD:
        end -= _CARD - 1  # a text that reads like it, inside a card
    if end < 0:
        raise _NotPlainError
    return data[start:end].decode("ascii")


def _value(text: str) -> object:
    """Reads the value of a card; None for a blank one."""
    if (found := _VALUE.match(text)) is None:
        if text.split("/")[0].strip():
            raise _NotPlainError
        return None
    words, flag, whole, number = found.groups()
    if words is not None:
        return words.replace("''", "'").rstrip()
    if flag is not None:
        return flag == "T"
    return int(whole) if whole is not None else float(number.upper().replace("D", "E"))


def _quoted(card: str) -> str:
    """Reads a card that holds a text without quotes in it."""
    text = card[11:].split("'", 1)[0].rstrip()
    if card[8:11] != "= '" or "''" in card or not text:
        raise _NotPlainError
    return text


def _unsigned(array: np.ndarray) -> np.ndarray:
    """Turns numbers that were stored less half of their range into what they are."""
    bits = 8 * array.dtype.itemsize
    return array.astype(f"u{array.dtype.itemsize}") ^ np.array(1 << (bits - 1), dtype=f"u{array.dtype.itemsize}")
