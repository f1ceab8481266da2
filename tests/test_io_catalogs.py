"""Tractor and sweep catalogues, old and new, and redrock's redshifts, against astropy."""

import numpy as np
import pytest

from astropy.coordinates import SkyCoord
from astropy.io import fits
from astropy.table import Table

from aion.io import identify, neighbours, object_ids, read, read_redshift, samples
from aion.tokenizers import CatalogTokenizer

SAMPLES = samples()
BANDS = ("g", "r", "i", "z", "w1", "w2", "w3", "w4")


@pytest.fixture(params=["bundled", "sweep-310m005-320p000", "tractor-3301m002"])
def catalogue(request, root):
    return (
        SAMPLES["desi-galaxy-tractor"] if request.param == "bundled" else root / f"tests/data/{request.param}.fits.gz"
    )


def test_catalogues_agree_with_astropy(catalogue):
    observations = read(catalogue)
    assert identify(catalogue) == "tractor"
    with fits.open(catalogue) as hdus:
        table = hdus[1].data
        for band in BANDS:
            name = f"legacysurvey_flux_{band}"
            assert (name in observations) == (f"FLUX_{band.upper()}" in table.names)
            if name in observations:
                good = table[f"FLUX_IVAR_{band}"] > 0
                np.testing.assert_array_equal(observations[name].measured, good)
                np.testing.assert_allclose(observations[name].value[good], table[f"FLUX_{band}"][good])
        for name, column in (("legacysurvey_ebv", "EBV"), ("ra", "RA"), ("dec", "DEC")):
            np.testing.assert_allclose(observations[name].value, table[column], rtol=1e-6)
        ids = [f"{r}-{b}-{o}" for r, b, o in zip(table["RELEASE"], table["BRICKID"], table["OBJID"], strict=True)]
        assert object_ids(catalogue) == ids
    assert len(set(ids)) == len(ids) == len(observations["ra"])


def test_shapes_of_all_releases(catalogue):
    observations = read(catalogue)
    with fits.open(catalogue) as hdus:
        table = hdus[1].data
        for row, kind in enumerate(table["TYPE"]):
            for part in ("r", "e1", "e2"):
                value = observations[f"legacysurvey_shape_{part}"].value[row].item()
                profile = "" if f"SHAPE_{part.upper()}" in table.names else "DEV" if kind == "DEV" else "EXP"
                name = f"SHAPE{profile}_{part.upper()}"
                fitted = f"{name}_IVAR" not in table.names or table[f"{name}_IVAR"][row] > 0
                assert not (fitted and kind == "PSF" and f"{name}_IVAR" in table.names)
                assert value == pytest.approx(table[name][row] if fitted else np.nan, rel=1e-6, nan_ok=True)


def changed(path, **columns):
    """Writes a catalogue of two rows, with columns added, or left out where None is given."""
    plain = {"ra": [1.0, 2.0], "dec": [3.0, 4.0], "flux_g": [5.0, 6.0], "flux_ivar_g": [1.0, 0.0]}
    Table({name: values for name, values in {**plain, **columns}.items() if values is not None}).write(path)
    return path


def test_what_was_not_measured_is_nan(tmp_path):
    columns = {
        "flux_r": [np.nan, 1.0],
        "flux_ivar_r": [1.0, np.nan],
        "flux_z": [1.0, np.inf],
        "flux_ivar_z": [1.0, 1.0],
    }
    observations = read(changed(tmp_path / "a.fits", **columns, ebv=[np.nan, 0.1]))
    assert observations["legacysurvey_flux_g"].measured.tolist() == [True, False]
    assert observations["legacysurvey_flux_r"].measured.tolist() == [False, False]
    assert observations["legacysurvey_flux_z"].measured.tolist() == [True, False]
    assert observations["legacysurvey_ebv"].measured.tolist() == [False, True]
    assert not any("shape" in name for name in observations)
    assert object_ids(tmp_path / "a.fits") == ["a-0", "a-1"]


def test_points_have_no_shape_and_round_galaxies_no_ellipticity(tmp_path):
    """Also in catalogues that were copied without the inverse variances of the shapes."""
    columns = {"shape_r": [0.0, 0.7], "shape_e1": [0.0, 0.0], "shape_e2": [0.0, 0.0]}
    observations = read(changed(tmp_path / "a.fits", **columns))
    assert observations["legacysurvey_shape_r"].measured.tolist() == [False, True]
    for name in ("e1", "e2"):
        assert not observations[f"legacysurvey_shape_{name}"].measured.any()
    columns = {"shape_r": [0.3, 0.7], "shape_e1": [0.0, 0.2], "shape_e2": [0.1, 0.0]}
    observations = read(changed(tmp_path / "b.fits", **columns))
    assert all(observations[f"legacysurvey_shape_{name}"].measured.all() for name in ("r", "e1", "e2"))


def test_a_composite_profile_has_no_single_shape(tmp_path):
    shapes = {f"shape{p}_{n}": [v, v] for p, v in (("dev", 1.0), ("exp", 2.0)) for n in ("r", "e1", "e2")}
    observations = read(changed(tmp_path / "a.fits", type=["COMP", "DEV"], **shapes))
    assert observations["legacysurvey_shape_r"].value.isnan().tolist() == [True, False]
    assert observations["legacysurvey_shape_r"].value[1] == 1


@pytest.mark.parametrize("name", ["tractor", "sweep"])
def test_a_flux_without_its_ivar_is_refused(tmp_path, name):
    path = changed(tmp_path / "a.fits", flux_z=[1.0, 2.0])
    with pytest.raises(ValueError, match=r"a\.fits: it has no column 'flux_ivar_z'; did you mean .*'flux_ivar_g'"):
        read(path, format=name)


def test_a_catalogue_without_fluxes_is_refused(tmp_path):
    path = changed(tmp_path / "a.fits", flux_g=None, flux_ivar_g=None)
    with pytest.raises(ValueError, match="no spectrum, image or catalogue"):
        read(path)
    with pytest.raises(ValueError, match="wanted columns such as 'flux_g'"):
        read(path, format="tractor")


@pytest.mark.parametrize("ending", ["csv", "ecsv", "parquet"])
def test_catalogues_in_other_containers(tmp_path, catalogue, ending):
    with fits.open(catalogue) as hdus:
        names = ("RA", "DEC", "FLUX_G", "FLUX_IVAR_G", "RELEASE", "BRICKID", "OBJID")
        table = Table({name: hdus[1].data[name] for name in names})
    path = tmp_path / f"other.{ending}"
    table.write(path, format={"csv": "ascii.csv", "ecsv": "ascii.ecsv", "parquet": "parquet"}[ending])
    assert identify(path) == "tractor"
    np.testing.assert_allclose(read(path)["legacysurvey_flux_g"].value, read(catalogue)["legacysurvey_flux_g"].value)
    assert object_ids(path) == object_ids(catalogue)


@pytest.mark.parametrize("name", [name for name in SAMPLES if name.endswith("redshift")])
def test_redrock(name):
    observations = read(SAMPLES[name])
    assert list(observations) == ["redshift"]
    with fits.open(SAMPLES[name]) as hdus:
        np.testing.assert_allclose(observations["redshift"].value, hdus["REDSHIFTS"].data["Z"], rtol=1e-6)
        assert object_ids(SAMPLES[name]) == [str(i) for i in hdus["REDSHIFTS"].data["TARGETID"]]
    assert read_redshift(SAMPLES[name]).tolist() == observations["redshift"].value.tolist()


def test_redrock_without_targets_or_with_lost_redshifts(tmp_path):
    table = fits.BinTableHDU.from_columns([fits.Column("Z", "D", array=[0.5, np.nan])], name="REDSHIFTS")
    fits.HDUList([fits.PrimaryHDU(), table]).writeto(tmp_path / "rr.fits")
    assert object_ids(tmp_path / "rr.fits") == ["rr-0", "rr-1"]
    assert read(tmp_path / "rr.fits")["redshift"].measured.tolist() == [True, False]


def crowd(count: int = 60, centre: tuple[float, float] = (359.999, 62.0)) -> Table:
    """Makes a catalogue of objects close to each other, across the meridian, a third of them points."""
    draws = np.random.default_rng(0)
    dec = centre[1] + draws.normal(0, 0.004, count)
    ra = (centre[0] + draws.normal(0, 0.004, count) / np.cos(np.radians(centre[1]))) % 360
    shape = np.where(np.arange(count) % 3 == 0, 0.0, draws.uniform(0.1, 0.5, (3, count)))
    return Table({"RA": ra, "DEC": dec, "SHAPE_R": shape[0], "SHAPE_E1": shape[1], "SHAPE_E2": shape[2]})


def test_neighbours_are_where_astropy_has_them():
    table = crowd()
    catalog = neighbours(table, radius=20)
    sky = SkyCoord(table["RA"], table["DEC"], unit="deg")
    for row in range(len(table)):
        near = np.flatnonzero(sky.separation(sky[row]).arcsec <= 20)
        east, north = sky[row].spherical_offsets_to(sky[near])
        there = catalog.measured[row]
        assert there.sum() == len(near) >= 1
        np.testing.assert_allclose(catalog.x[row][there], -east.arcsec, atol=0.01)
        np.testing.assert_allclose(catalog.y[row][there], north.arcsec, atol=0.01)
        np.testing.assert_allclose(catalog.r[row][there], table["SHAPE_R"][near], rtol=1e-6)
        np.testing.assert_allclose(catalog.e2[row][there], table["SHAPE_E2"][near], rtol=1e-6)
    assert catalog.measured.sum(1).max() > 5


def test_neighbours_of_some_rows_and_of_objects_without_a_place_or_shape():
    table = crowd()
    table["SHAPE_R"][7] = np.nan
    one, all_ = neighbours(table, 20, [5, 3]), neighbours(table, 20)
    assert len(one) == 2
    assert one.measured[0].sum() == all_.measured[5].sum()
    lonely = table[:8].copy()
    lonely["DEC"][7] = -40.0
    assert neighbours(lonely, 20).measured[7].sum() == 0


def test_neighbours_of_a_file_are_tokenized(catalogue):
    table = Table.read(catalogue, 1)
    if "SHAPE_R" not in table.colnames:
        with pytest.raises(ValueError, match="it has no column 'shape_r'; did you mean"):
            neighbours(table, 30)
        return
    catalog = neighbours(table, 30)
    assert catalog.measured.any(1).all()
    tokenizer = CatalogTokenizer()
    again = tokenizer.decode(tokenizer.encode(catalog))
    assert again.measured.sum() == catalog.measured.sum()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"radius": 0}, "a radius above 0 and below 3600 arcsec, given 0"),
        ({"radius": 5000}, "given 5000"),
        ({"radius": 5, "rows": [60]}, r"wanted at least one row, from 0 to 59, given \[60\]"),
        ({"radius": 5, "rows": []}, r"wanted at least one row, from 0 to 59, given \[\]"),
    ],
)
def test_neighbours_refuse_what_means_nothing(options, message):
    with pytest.raises(ValueError, match=message):
        neighbours(crowd(), **options)
