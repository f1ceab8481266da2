"""The one door: every format on its own file, and every kind of file that has none."""

import gzip
import inspect
import warnings

import numpy as np
import pytest
import torch

from astropy.io import fits

from aion.io import FORMATS, identify, object_ids, read, read_redshift, samples
from aion.io.surveys import Format
from aion.observations import Observation, Spectrum

UNIT = {"unit": "1e-17 erg/s/cm2/Angstrom"}
ROOT_FILES = {
    "SDSSJ220248.31+123656.3.fits.gz": ("sdss-loglam", ["sdss_spectrum"], {}),
    "MaNGA_test_spectra.fits.gz": ("manga", ["sdss_spectrum"], {}),
    "stack-LRG.fits.gz": ("fits-spectrum", ["spectrum"], UNIT),
    "gaia_dr3_source_id_5937083312263887616_dl_products_csv.zip": ("gaia-xp-archive", None, {}),
    "gaia_dr3_source_id_5937083312263887616_dl_products_fits.zip": ("gaia-xp-archive", None, {}),
    "sweep-310m005-320p000.fits.gz": ("tractor", None, {}),
    "tractor-3301m002.fits.gz": ("tractor", None, {}),
}
SAMPLE_FILES = {
    "desi-galaxy": ("desi-coadd", ["desi_spectrum"], {}),
    "desi-galaxy-redshift": ("redrock", ["redshift"], {}),
    "desi-galaxy-tractor": ("tractor", None, {}),
    "desi-nearby-galaxy": ("desi-coadd", ["desi_spectrum"], {}),
    "desi-nearby-galaxy-redshift": ("redrock", ["redshift"], {}),
}


@pytest.fixture(params=[*ROOT_FILES, *SAMPLE_FILES])
def real(request, root):
    """Gives every real file: path, format, modalities, options."""
    if request.param in SAMPLE_FILES:
        return samples()[request.param], *SAMPLE_FILES[request.param]
    return root / "tests/data" / request.param, *ROOT_FILES[request.param]


def values(observation: Observation) -> list[torch.Tensor]:
    return [value for value in vars(observation).values() if isinstance(value, torch.Tensor)]


def test_every_real_file_is_read_without_a_warning(real):
    path, name, modalities, options = real
    before = path.read_bytes()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert identify(path) == name
        observations = read(path, **options)
        named = read(str(path), format=name, **options)
        ids = object_ids(path)
    assert path.read_bytes() == before
    assert modalities is None or list(observations) == modalities
    assert ids == object_ids(path, format=name)
    assert {len(observation) for observation in observations.values()} == {len(ids)}
    assert len(set(ids)) == len(ids)
    assert all(isinstance(i, str) and i for i in ids)
    for modality, observation in observations.items():
        for one, other in zip(values(observation), values(named[modality]), strict=True):
            assert one.dtype == torch.float32
            assert one.numpy().dtype.isnative
            assert torch.equal(one.nan_to_num(), other.nan_to_num())
        if isinstance(observation, Spectrum):
            assert observation.measured.any()


def test_the_name_of_a_file_does_not_matter(real, tmp_path):
    path, name, _, _ = real
    copy = tmp_path / "nameless"
    copy.write_bytes(path.read_bytes())
    assert identify(copy) == name


def test_a_file_cut_short_is_refused(real, tmp_path):
    path, _, _, options = real
    data = path.read_bytes()
    cut = tmp_path / path.name
    for fraction in (0.05, 0.5, 0.95):
        cut.write_bytes(data[: int(fraction * len(data))])
        with pytest.raises(ValueError, match="truncated or damaged") as caught:
            read(cut, **options)
        assert str(caught.value).startswith(str(cut))
    if path.suffix == ".gz":
        plain = gzip.decompress(data)
        cut.write_bytes(plain[: len(plain) - 2881])
        with pytest.raises(ValueError, match=r"truncated or damaged"):
            read(cut, **options)


@pytest.mark.parametrize("name", ["desi-galaxy-tractor", "desi-galaxy-redshift", "desi-galaxy"])
def test_damaged_headers_are_one_kind_of_error(tmp_path, name):
    rng = np.random.default_rng(0)
    plain = gzip.decompress(samples()[name].read_bytes())
    headers = [i for i in range(2880, len(plain), 2880) if plain[i : i + 8] == b"XTENSION"]
    path, refused = tmp_path / "damaged.fits", 0
    for _ in range(40):
        data = bytearray(plain)
        for place in rng.choice(headers, 10) + rng.integers(0, 2880, 10):
            data[place] = rng.choice([0, 32, 57, 255])
        path.write_bytes(data)
        for function in (read, object_ids):
            try:
                function(path)
            except ValueError as error:
                assert str(error).startswith(str(path))  # noqa: PT017
                refused += 1
    assert refused > 10


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("kind", ["empty fits", "foreign table", "image without a sky"])
def test_no_format_reads_a_foreign_file(tmp_path, name, kind):
    path = tmp_path / "foreign.fits"
    hdus = {
        "empty fits": [],
        "foreign table": [fits.BinTableHDU.from_columns([fits.Column("time", "D", array=np.arange(3.0))])],
        "image without a sky": [fits.ImageHDU(np.ones((3, 3)))],
    }[kind]
    fits.HDUList([fits.PrimaryHDU(), *hdus]).writeto(path)
    with pytest.raises(ValueError, match=r"^.*foreign\.fits: no spectrum|^.*foreign\.fits: it has no") as caught:
        identify(path)
    assert not FORMATS[name].matches(None)
    for function in (read, object_ids, read_redshift):
        with pytest.raises(ValueError, match=r"foreign\.fits: ") as caught:
            function(path, format=name)
        assert "Traceback" not in str(caught.value)


@pytest.mark.parametrize("function", [read, identify, object_ids, read_redshift])
def test_what_is_no_file_of_ours(tmp_path, function):
    with pytest.raises(FileNotFoundError, match=r"no such file: .*missing\.fits"):
        function(tmp_path / "missing.fits")
    with pytest.raises(ValueError, match="it is a folder; wanted a file"):
        function(tmp_path)
    for name, data, message in (
        ("empty.fits", b"", "given no bytes"),
        ("notes.txt", b"dear diary\n\ntoday, I saw\na, galaxy, far away\n", "no ECSV or CSV table"),
        ("words.txt", b"galaxy\nstar\n", "no spectrum, image or catalogue in its columns galaxy"),
        ("picture.jpg", b"\xff\xd8\xff\xe0" + bytes(100), "wanted FITS, Parquet, ECSV, CSV or a zip"),
    ):
        path = tmp_path / name
        path.write_bytes(data)
        with pytest.raises(ValueError, match=f"{name}: .*{message}"):
            function(path)


@pytest.mark.parametrize("function", [read, object_ids, read_redshift])
def test_an_unknown_format_names_what_is_near(function):
    with pytest.raises(ValueError, match="unknown format 'desi-coad'; did you mean 'desi-coadd'"):
        function(samples()["desi-galaxy"], format="desi-coad")


def test_a_wrong_format_says_which_it_is():
    path = samples()["desi-galaxy"]
    with pytest.raises(ValueError, match="does not have the format 'manga' but 'desi-coadd'"):
        object_ids(path, format="manga")
    with pytest.raises(ValueError, match="it has no HDU 'FLUX'"):
        read(path, format="manga")


@pytest.mark.parametrize("name", FORMATS)
def test_a_format_in_the_wrong_container(root, tmp_path, name):
    (tmp_path / "x.csv").write_text("time,place\n1,2\n")
    archive = root / "tests/data/gaia_dr3_source_id_5937083312263887616_dl_products_csv.zip"
    for path in (tmp_path / "x.csv", archive):
        if path == archive and name == "gaia-xp-archive":
            continue
        for function in (read, object_ids, read_redshift):
            with pytest.raises(ValueError, match=f"{path.name}: "):
                function(path, format=name)


def test_options_belong_to_formats(root):
    with pytest.raises(TypeError, match="format 'desi-coadd' has no option 'unit'; it has none"):
        read(samples()["desi-galaxy"], unit="Jy")
    with pytest.raises(TypeError, match="format 'fits-spectrum' has no option 'units'; did you mean 'unit'"):
        read(root / "tests/data/stack-LRG.fits.gz", units="Jy")


def test_files_without_a_redshift_say_who_has_one():
    with pytest.raises(
        ValueError, match="'desi-coadd' has no pipeline redshift; wanted one of redrock, sdss-spec, manga"
    ):
        read_redshift(samples()["desi-galaxy"])


def test_redshifts_are_one_per_object(root):
    for path in (samples()["desi-galaxy-redshift"], root / "tests/data/MaNGA_test_spectra.fits.gz"):
        redshift = read_redshift(path)
        assert redshift.shape == (len(object_ids(path)),)
        assert redshift.dtype == torch.float32
        assert (redshift > 0).all()


def test_samples_are_small_and_all_files_are_named():
    paths = samples()
    assert all(path.is_file() for path in paths.values())
    folder = paths["desi-galaxy"].parent
    assert {path.name for path in folder.iterdir()} - {path.name for path in paths.values()} == {
        "README.md",
        "LICENSE.fastspecfit.rst",
    }
    assert sum(path.stat().st_size for path in folder.iterdir()) < 400_000
    assert all(path.name in (folder / "README.md").read_text() for path in paths.values())


def test_samples_of_one_galaxy_belong_together():
    observations = {**read(samples()["desi-galaxy"]), **read(samples()["desi-galaxy-tractor"])}
    with fits.open(samples()["desi-galaxy"]) as hdus:
        row = hdus["FIBERMAP"].data[0]
        for band in ("g", "r", "z", "w1", "w2"):
            assert observations[f"legacysurvey_flux_{band}"].value.item() == pytest.approx(row[f"FLUX_{band}"])
        assert observations["ra"].value.item() == pytest.approx(row["TARGET_RA"])


@pytest.mark.parametrize("name", FORMATS)
def test_formats_are_functions_of_an_open_file(name):
    known = FORMATS[name]
    assert isinstance(known, Format)
    for function in (known.matches, known.read, known.ids):
        assert inspect.isfunction(function)
        assert inspect.getdoc(function)
    assert f'"{name}"' in inspect.getdoc(read) or list(inspect.signature(known.read).parameters) == ["file"]
