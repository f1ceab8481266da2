"""What becomes of bytes: native arrays, no handles left, and one clear error for each kind of damage."""

import gzip
import io
import warnings
import zipfile

from pathlib import Path

import numpy as np
import pytest

from astropy.io import fits

from aion.io import samples
from aion.io.fits import FitsFile, number, open_file, row_names, stem

COADD = samples()["desi-galaxy"]


@pytest.fixture(scope="module")
def plain() -> bytes:
    return gzip.decompress(COADD.read_bytes())


def contents(hdus: list) -> bytes:
    stream = io.BytesIO()
    fits.HDUList(hdus).writeto(stream)
    return stream.getvalue()


def test_arrays_are_native_and_own_their_memory(plain, tmp_path):
    path = tmp_path / "coadd.fits"
    path.write_bytes(plain)
    for source in (path, COADD):
        with open_file(source) as file, fits.open(source) as hdus:
            for name in ("B_FLUX", "B_WAVELENGTH", "B_MASK"):
                array = file.array(name)
                assert array.dtype.isnative
                assert array.flags.owndata
                assert not hdus[name].data.dtype.isnative
                np.testing.assert_array_equal(array, hdus[name].data)
            assert file.column("FIBERMAP", "targetid")[0] == 39633345008634465
            assert file.column("FIBERMAP", "TARGETID").dtype == np.dtype("int64")
            assert file.shape("B_FLUX") == (1, 2751)
            assert file.shape("FIBERMAP") == (1,)
            assert file.unit("B_FLUX") == "10**-17 erg/(s cm2 Angstrom)"
            assert file.unit("B_MASK") is None


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="lists open files as Linux does")
@pytest.mark.parametrize("largest", [0, 2**26])
def test_nothing_stays_open(plain, tmp_path, monkeypatch, largest):
    monkeypatch.setattr("aion.io.fits._LARGEST", largest)
    path = tmp_path / "coadd.fits"
    path.write_bytes(plain)

    def held() -> list[str]:
        links = [str(link.readlink()) for link in Path("/proc/self/fd").iterdir() if link.is_symlink()]
        return [text for text in [*links, Path("/proc/self/maps").read_text()] if "coadd.fits" in text]

    with open_file(path) as file:
        kept = [file.array("B_FLUX"), file.column("FIBERMAP", "TARGETID")]
        assert bool(held()) == (largest == 0), "astropy maps large files"
    assert held() == []
    assert len(kept[0]) == 1


def test_harmless_warnings_are_not_passed_on(tmp_path):
    hdu = fits.ImageHDU(np.ones((2, 5)), name="FLUX")
    hdu.header["BLAXX"] = 3
    path = tmp_path / "blank.fits"
    path.write_bytes(contents([fits.PrimaryHDU(), hdu]).replace(b"BLAXX", b"BLANK"))  # invalid for floats
    with pytest.warns(fits.verify.VerifyWarning), fits.open(path) as hdus:
        assert hdus["FLUX"].data.sum() == 10
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with open_file(path) as file:
            assert file.array("FLUX").sum() == 10


@pytest.mark.parametrize("kind", ["plain", "gzip"])
def test_truncation_anywhere_is_one_clear_error(plain, tmp_path, kind):
    data = plain if kind == "plain" else COADD.read_bytes()
    path = tmp_path / f"cut.{kind}"
    lengths = np.unique(np.concatenate([np.linspace(10, len(data) - 1, 40), [81, 2879, 2880 * 7 + 1]]).astype(int))

    def read_all() -> None:
        with open_file(path) as file:
            for name in ("FIBERMAP", "SCORES"):
                file.column(name, "TARGETID")
            for name in file.names:
                if name.endswith("FLUX"):
                    file.array(name)

    for length in lengths:
        path.write_bytes(data[:length])
        with pytest.raises(ValueError, match="truncated or damaged") as caught:
            read_all()
        assert len(str(caught.value)) < 400


def test_flipped_bytes_in_gzip_are_noticed(tmp_path):
    data = bytearray(COADD.read_bytes())
    data[len(data) // 2] ^= 0xFF
    path = tmp_path / "flipped.fits.gz"
    path.write_bytes(data)
    with pytest.raises(ValueError, match="gzip stream: the file is truncated or damaged"), open_file(path):
        pass


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "given no bytes"),
        (b"\x00\x01\x02\xff" * 100, "wanted FITS, Parquet, ECSV, CSV or a zip"),
        (b"PK\x03\x04 not a zip at all", "zip archive: the file is truncated or damaged"),
        (b"PAR1 not parquet", "Parquet table: the file is truncated or damaged"),
        (b"SIMPLE  = nonsense", "FITS headers: the file is truncated or damaged"),
        (b"\x1f\x8b\x08 no gzip", "gzip stream: the file is truncated or damaged"),
        (b"# %ECSV 1.0\nnonsense", "no ECSV or CSV table"),
        (b"# Heading\n\nSome, prose.\nwith, more, commas", "no ECSV or CSV table"),
    ],
)
def test_what_is_no_data_file_is_refused(tmp_path, data, message):
    path = tmp_path / "file.dat"
    path.write_bytes(data)
    with pytest.raises(ValueError, match=message), open_file(path):
        pass


def test_text_is_never_taken_for_the_name_of_a_file(tmp_path):
    (tmp_path / "a.csv").write_text("flux,wavelength\n1,2\n")
    (tmp_path / "b.csv").write_text(str(tmp_path / "a.csv"))
    with open_file(tmp_path / "b.csv") as table:
        assert table.colnames == [str(tmp_path / "a.csv")]


def test_missing_files_and_folders(tmp_path):
    with pytest.raises(FileNotFoundError, match="no such file"), open_file(tmp_path / "nothing.fits"):
        pass
    with pytest.raises(ValueError, match="folder"), open_file(tmp_path):
        pass


def test_missing_hdus_and_columns_name_what_is_near():
    with open_file(COADD) as file:
        with pytest.raises(ValueError, match="no HDU 'B_FLUXX'; did you mean 'b_flux'"):
            file.array("B_FLUXX")
        with pytest.raises(ValueError, match="no column 'target_id'; did you mean 'targetid'"):
            file.column("FIBERMAP", "target_id")
        with pytest.raises(ValueError, match="'FIBERMAP' holds no image"):
            file.array("FIBERMAP")
        with pytest.raises(ValueError, match="'PRIMARY' holds no image"):
            file.array("PRIMARY")
        assert file.columns("B_FLUX") == ()


@pytest.mark.parametrize("value", ["3.5", True, None, float("nan"), 1j])
def test_numbers_of_headers(value):
    assert number({"A": 3}, "A") == 3.0
    assert number({}, "A", 2.0) == 2.0
    assert number({}, "A") is None
    with pytest.raises(ValueError, match="keyword 'A': wanted a number, given"):
        number({"A": value}, "A")


def test_cards_that_nobody_can_read_are_left_out():
    header = fits.Header.fromstring(
        "GOOD    =                    1".ljust(80) + "BAD     = 'open".ljust(80) + "END".ljust(80)
    )
    file = FitsFile([fits.PrimaryHDU(header=header)])
    assert file.header("PRIMARY")["GOOD"] == 1
    assert "BAD" not in file.header("PRIMARY")


def test_names_of_hdus_are_unique():
    file = FitsFile([fits.PrimaryHDU(), fits.ImageHDU(name="SCI"), fits.ImageHDU(name="SCI"), fits.ImageHDU()])
    assert file.names == ("PRIMARY", "SCI", "SCI:2", "3")


def test_rows_of_varying_length_stay_apart(tmp_path):
    ragged = np.array([np.arange(2.0), np.arange(3.0)], dtype=object)
    path = tmp_path / "ragged.fits"
    path.write_bytes(
        contents([fits.PrimaryHDU(), fits.BinTableHDU.from_columns([fits.Column("a", "PD", array=ragged)])])
    )
    with open_file(path) as file:
        rows = file.column("1", "a")
    assert [row.tolist() for row in rows] == [[0.0, 1.0], [0.0, 1.0, 2.0]]
    assert all(row.dtype.isnative for row in rows)


def test_an_archive_gives_what_it_can_read(tmp_path):
    path = tmp_path / "some.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a/flux.csv", "flux,wavelength\n1,2\n")
        archive.writestr("README.txt", "nothing, to\nread")
    with open_file(path) as file:
        assert list(file) == ["a/flux.csv"]
        assert file["a/flux.csv"].colnames == ["flux", "wavelength"]


def test_identifiers_of_last_resort():
    assert stem(Path("/a/spec-1.fits.gz")) == "spec-1"
    assert stem(Path("J22+12.3.fits")) == "J22+12.3"
    assert row_names("x", ()) == row_names("x", (1,)) == ["x"]
    assert row_names("x", (2,)) == ["x-0", "x-1"]
