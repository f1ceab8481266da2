"""Plain FITS files read from their bytes give what astropy gives; what is not plain is left to astropy."""

import gzip
import io

import numpy as np
import pytest

from astropy.io import fits

from aion.io import samples
from aion.io.fits import FitsFile, open_file
from aion.io.hdus import plain_hdus


def contents(*hdus) -> bytes:
    stream = io.BytesIO()
    fits.HDUList([fits.PrimaryHDU(), *hdus]).writeto(stream)
    return stream.getvalue()


def values(kind, shape=(4,)):
    return np.random.default_rng(0).integers(0, 100, shape).astype(kind)


@pytest.mark.parametrize("name", list(samples()))
def test_real_files_are_read_as_astropy_reads_them(name):
    data = gzip.decompress(samples()[name].read_bytes())
    ours = FitsFile(plain_hdus(data))
    with fits.open(io.BytesIO(data)) as hdus:
        theirs = FitsFile(hdus)
        assert ours.names == theirs.names
        for hdu in ours.names:
            assert ours.header(hdu) == {
                k: v for k, v in theirs.header(hdu).items() if not isinstance(v, fits.Undefined)
            }
            assert (ours.shape(hdu), ours.columns(hdu)) == (theirs.shape(hdu), theirs.columns(hdu))
            if ours.shape(hdu) and not ours.is_table(hdu):
                np.testing.assert_array_equal(ours.array(hdu), theirs.array(hdu))
            for column in ours.columns(hdu):
                mine, its = ours.column(hdu, column), theirs.column(hdu, column)
                its = np.char.rstrip(its) if its.dtype.kind == "U" else its  # astropy leaves what is all blank
                np.testing.assert_array_equal(mine, its)
                assert (mine.dtype.kind, ours.unit(hdu, column)) == (its.dtype.kind, theirs.unit(hdu, column))


@pytest.mark.parametrize("kind", ["u1", "i2", "u2", "i4", "u4", "i8", "f4", "f8"])
def test_images_and_columns_of_every_type(kind):
    image, cells = values(kind, (3, 5)), values(kind, (4, 2, 3))
    columns = [fits.Column("one", _form(kind), array=values(kind), **_zero(kind))]
    columns.append(fits.Column("many", f"6{_form(kind)}", dim="(3,2)", array=cells, unit="nmgy", **_zero(kind)))
    (_, first, second) = plain_hdus(contents(fits.ImageHDU(image, name="a"), fits.BinTableHDU.from_columns(columns)))
    np.testing.assert_array_equal(first.data, image)
    np.testing.assert_array_equal(second.field(0), values(kind))
    np.testing.assert_array_equal(second.field(1), cells)
    assert (first.name, first.shape, second.shape, second.names) == ("A", (3, 5), (4,), ["one", "many"])
    assert (second.unit(0), second.unit(1)) == (None, "nmgy")


def _form(kind):
    return {"u1": "B", "i2": "I", "u2": "I", "i4": "J", "u4": "J", "i8": "K", "f4": "E", "f8": "D"}[kind]


def _zero(kind):
    return {"bzero": 2 ** (8 * int(kind[1]) - 1)} if kind in {"u2", "u4"} else {}


def test_texts_and_flags():
    columns = [
        fits.Column("name", "6A", array=["star", "", "galaxy"]),
        fits.Column("good", "L", array=[True, False, True]),
    ]
    table = plain_hdus(contents(fits.BinTableHDU.from_columns(columns)))[1]
    assert table.field(0).tolist() == ["star", "", "galaxy"]
    assert table.field(1).tolist() == [True, False, True]


def test_cards_of_every_kind():
    hdu = fits.ImageHDU(np.zeros(2))
    hdu.header["LONG"] = "a text that is far too long for the eighty letters of one card, and so it goes on in another"
    hdu.header["HIERARCH ESO TEL NAME"] = "it's a / b"
    hdu.header["EMPTY"] = None
    for key, value in {"A": 1, "B": -2.5e-7, "C": False, "D": "  x  ", "HISTORY": "was here"}.items():
        hdu.header[key] = (value, "and / a comment") if key != "HISTORY" else value
    header = plain_hdus(contents(hdu).replace(b"-2.5E-07", b"-2.5D-07"))[1].header
    assert header["LONG"] == hdu.header["LONG"]
    assert header["ESO TEL NAME"] == "it's a / b"
    assert [header[key] for key in "ABCD"] == [1, -2.5e-7, False, "  x"]
    assert not {"EMPTY", "HISTORY"} & set(header)


ragged = np.array([np.arange(2.0), np.arange(3.0)], dtype=object)
NOT_PLAIN = {
    "ragged": fits.BinTableHDU.from_columns([fits.Column("a", "PD", array=ragged)]),
    "scaled": fits.BinTableHDU.from_columns([fits.Column("a", "E", array=values("f4"), bscale=0.5)]),
    "bits": fits.BinTableHDU.from_columns([fits.Column("a", "8X", array=np.ones((2, 8), bool))]),
    "text": fits.TableHDU.from_columns([fits.Column("a", "F7.3", array=values("f4"))]),
    "compressed": fits.CompImageHDU(values("i4", (20, 20))),
    "blank": fits.ImageHDU(values("i2"), header=fits.Header({"BLANK": 5})),
}


@pytest.mark.parametrize("name", NOT_PLAIN)
def test_what_is_not_plain_is_left_to_astropy(name, tmp_path):
    data = contents(NOT_PLAIN[name])
    hdus = plain_hdus(data)
    assert hdus is None or not hdus[1].is_plain
    (tmp_path / "x.fits").write_bytes(data)
    with open_file(tmp_path / "x.fits") as file:
        assert len(file.names) == 2
        assert len(file.column("1", "a") if file.is_table(file.names[1]) else file.array(file.names[1])) > 1


def test_a_table_that_nobody_asks_for_may_be_of_any_kind(tmp_path):
    plain = fits.BinTableHDU.from_columns([fits.Column("b", "E", array=values("f4"))], name="plain")
    (tmp_path / "x.fits").write_bytes(contents(plain, NOT_PLAIN["scaled"]))
    with open_file(tmp_path / "x.fits") as file:
        assert file.is_table("2")
        assert file.column("PLAIN", "b").tolist() == values("f4").tolist()
        with pytest.raises(ValueError, match="no column 'c'"):
            file.column("2", "c")
        np.testing.assert_allclose(file.column("2", "a"), values("f4"))


@pytest.mark.parametrize("damage", [lambda d: d[:-2880], lambda d: d[:100], lambda d: d + b"x" * 2880, lambda d: b""])
def test_damaged_files_are_left_to_astropy(damage):
    data = contents(fits.ImageHDU(np.zeros(3000)))
    assert not plain_hdus(damage(data))
    wrong = data.replace(b"BITPIX  =                  -64", b"BITPIX  =                  -65")
    assert plain_hdus(wrong) is None
