"""Reads plain FITS files from their bytes: headers as text, images and columns of tables as views.

A file of spectra has a dozen HDUs with hundreds of cards, and astropy parses and verifies each of them; a reader wants
three arrays. What is not plain here is left to astropy: compressed images, columns of varying length or scaled values,
tables of text, whatever breaks a rule, and files that are cut off.

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
    """Reads the values of cards when they are asked for: a survey's header has hundreds, a reader wants five."""

    def __init__(self, cards: Mapping[str, str]) -> None:
        self._cards = cards

    def __getitem__(self, key: str) -> object:
        card = self._cards[key]
        if card[8:10] != "= " or not _VALUE.match(card[10:]):
            raise KeyError(key)
        return _value(card[10:])

    def __iter__(self) -> Iterator[str]:
        return (key for key, card in self._cards.items() if card[8:10] == "= " and _VALUE.match(card[10:]))

    def __len__(self) -> int:
        return sum(1 for _ in self)


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
        self._data, self._cards = data, _cards(data, start)
        self.start = start + -(-_CARD * (len(self._cards) + 1) // _BLOCK) * _BLOCK
        # Of two cards of one keyword the first counts.
        self._first = {card[:8].rstrip(): card for card in reversed(self._cards)}
        kind = self.get("XTENSION", "PRIMARY")
        self.is_image = kind in {"PRIMARY", "IMAGE"}
        odd = {"ZIMAGE", "ZTABLE", "GROUPS", "THEAP"} & set(self._first)
        if odd or not (self.is_image or kind == "BINTABLE") or self.get("GCOUNT", 1) != 1:
            raise _NotPlainError
        self.name = str(self.get("EXTNAME", name))
        axes = tuple(self._need(f"NAXIS{i}") for i in range(self._need("NAXIS"), 0, -1))
        bits = self._need("BITPIX")
        if bits not in _PIXELS:
            raise _NotPlainError
        self.shape = axes if self.is_image else axes[:1]
        self.size = (math.prod(axes) if axes else 0) * abs(bits) // 8
        self.stop = self.start + -(-(self.size + self.get("PCOUNT", 0)) // _BLOCK) * _BLOCK
        if self.get("PCOUNT", 0) or self.stop > len(data):
            raise _NotPlainError
        self.names = []
        if self.is_image:
            self._pixel = self._scaled(np.dtype(_PIXELS[bits]), "BSCALE", "BZERO")
        else:
            self._read_columns(axes[1])

    def get(self, key: str, default: object = None) -> object:
        """Returns the value of a keyword."""
        card = self._first.get(key)
        return default if card is None or card[8:10] != "= " else _value(card[10:])

    def _need(self, key: str) -> int:
        value = self.get(key)
        if not isinstance(value, int) or (key.startswith("NAXIS") and value < 0):
            raise _NotPlainError
        return value

    @cached_property
    def header(self) -> Mapping[str, object]:
        """Returns keywords and values, without comments, cards without a value and cards that nobody can read."""
        if not {"CONTINUE", "HIERARCH"} & set(self._first):
            return _Header(self._first)
        values, last = {}, ""
        for card in self._cards:
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

    # ---- data

    @property
    def data(self) -> np.ndarray | None:
        """Returns the image as a view, None if there is none."""
        if not self.shape:
            return None
        kind, unsigned = self._pixel
        array = np.frombuffer(self._data, kind, math.prod(self.shape), self.start).reshape(self.shape)
        return _unsigned(array) if unsigned else array

    def unit(self, index: int) -> object:
        """Returns the unit of a column as written."""
        return self.get(f"TUNIT{index + 1}")

    def field(self, index: int) -> np.ndarray:
        """Returns a column; texts without the blanks at their end."""
        letter, count, offset = self._forms[index]
        kind, unsigned = self._kind(letter, index + 1)
        cell = tuple(int(n) for n in re.findall(r"\d+", str(self.get(f"TDIM{index + 1}", count)))[::-1])
        form = f"S{count}" if letter == "A" else np.dtype((kind, cell if cell != (1,) else ()))
        row = np.dtype({"names": ["x"], "formats": [form], "offsets": [offset], "itemsize": self._width})
        array = np.frombuffer(self._data, row, self.shape[0], self.start)["x"]
        if letter == "A":
            return np.char.rstrip(array.astype("U"))
        if letter == "L":
            return array == ord("T")
        return _unsigned(array) if unsigned else array

    def _read_columns(self, width: int) -> None:
        """Finds names and places of columns; a file has hundreds of them, so that each takes a microsecond."""
        self.names, self._forms, self._width, offset = [], [], width, 0
        for i in range(1, self._need("TFIELDS") + 1):
            self.names.append(_quoted(self._first[f"TTYPE{i}"]))
            form = _quoted(self._first[f"TFORM{i}"])
            letter, count = form[-1], int(form[:-1] or 1)
            if letter not in _CELLS or not count:
                raise _NotPlainError
            self._forms.append((letter, count, offset))
            offset += count * _CELLS[letter].itemsize
        if offset != width:
            raise _NotPlainError
        for key in self._first:
            if key.startswith(("TSCAL", "TZERO")):
                self._kind(self._forms[int(key[5:]) - 1][0], int(key[5:]))
            elif key.startswith("TDIM"):
                letter, count, _ = self._forms[int(key[4:]) - 1]
                cell = re.findall(r"\d+", str(self.get(key)))
                if letter == "A" or math.prod(map(int, cell)) != count:
                    raise _NotPlainError

    def _kind(self, letter: str, column: int) -> tuple[np.dtype, bool]:
        return self._scaled(_CELLS[letter], f"TSCAL{column}", f"TZERO{column}")

    def _scaled(self, kind: np.dtype, scale: str, zero: str) -> tuple[np.dtype, bool]:
        """Returns the type of numbers and whether they are unsigned; other scalings are not plain."""
        offset = self.get(zero, 0)
        unsigned = kind.kind == "i" and offset == 2 ** (8 * kind.itemsize - 1)
        blank = scale == "BSCALE" and kind.kind in "iu" and "BLANK" in self._first
        if self.get(scale, 1) != 1 or (offset != 0 and not unsigned) or blank:
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


def _cards(data: bytes, start: int) -> list[str]:
    """Returns the cards of a header before its END."""
    end = start - _CARD
    while (end := data.find(b"END" + b" " * 77, end + _CARD)) >= 0 and (end - start) % _CARD:
        end -= _CARD - 1  # a text that reads like it, inside a card
    if end < 0:
        raise _NotPlainError
    text = data[start:end].decode("ascii")
    return [text[i : i + _CARD] for i in range(0, len(text), _CARD)]


def _value(text: str) -> object:
    """Reads the value of a card; None for a blank one."""
    if not text.split("/")[0].strip():
        return None
    if (found := _VALUE.match(text)) is None:
        raise _NotPlainError
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
