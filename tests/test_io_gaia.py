"""Gaia's XP spectra of a real source, as FITS, as CSV and as the archive's zip of either."""

import io
import zipfile

import numpy as np
import pytest
import torch

from astropy.io import fits
from astropy.table import Table

from aion.io import identify, object_ids, read

SOURCE = "5937083312263887616"
KINDS = ("csv", "fits")
PRODUCTS = {"XP_CONTINUOUS": "gaia-xp-continuous", "XP_SAMPLED": "gaia-xp-sampled"}


@pytest.fixture
def archives(root):
    return {kind: root / f"tests/data/gaia_dr3_source_id_{SOURCE}_dl_products_{kind}.zip" for kind in KINDS}


@pytest.fixture
def members(archives, tmp_path):
    """Unpacks the products: (product, kind) -> path."""
    paths = {}
    for kind, path in archives.items():
        with zipfile.ZipFile(path) as archive:
            for name in archive.namelist():
                product = name.split("-Gaia")[0]
                paths[product, kind] = tmp_path / name
                paths[product, kind].write_bytes(archive.read(name))
    return paths


@pytest.mark.parametrize("kind", KINDS)
def test_coefficients_agree_with_astropy(members, kind):
    observations = read(members["XP_CONTINUOUS", kind])
    assert list(observations) == ["gaia_bp_coefficients", "gaia_rp_coefficients"]
    with fits.open(members["XP_CONTINUOUS", "fits"]) as hdus:
        for arm in ("bp", "rp"):
            value = observations[f"gaia_{arm}_coefficients"].value
            assert value.shape == (1, 55)
            np.testing.assert_allclose(value[0], hdus[1].data[f"{arm}_coefficients"][0], rtol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_sampled_flux_is_converted(members, kind):
    spectrum = read(members["XP_SAMPLED", kind])["spectrum"]
    with fits.open(members["XP_SAMPLED", "fits"]) as hdus:
        table = hdus[1].data
        np.testing.assert_allclose(spectrum.wavelength[0], table["wavelength"] * 10)
        np.testing.assert_allclose(spectrum.flux[0], table["flux"] * 1e19, rtol=1e-5)  # 1 W/m2/nm = 100 erg/s/cm2/A
        np.testing.assert_allclose(spectrum.ivar[0] ** -0.5, table["flux_error"] * 1e19, rtol=1e-5)
    assert spectrum.flux.shape == (1, 343)
    assert (spectrum.wavelength[0, 0], spectrum.wavelength[0, -1]) == (3360, 10200)


@pytest.mark.parametrize("kind", KINDS)
def test_the_archive_joins_its_products(archives, members, kind):
    observations = read(archives[kind])
    parts = {**read(members["XP_SAMPLED", kind]), **read(members["XP_CONTINUOUS", kind])}
    assert set(observations) == set(parts) == {"spectrum", "gaia_bp_coefficients", "gaia_rp_coefficients"}
    assert torch.equal(observations["spectrum"].flux, parts["spectrum"].flux)
    assert torch.equal(observations["gaia_bp_coefficients"].value, parts["gaia_bp_coefficients"].value)


@pytest.mark.parametrize("kind", KINDS)
def test_formats_and_sources_are_recognised(archives, members, kind):
    assert identify(archives[kind]) == "gaia-xp-archive"
    for product, name in PRODUCTS.items():
        assert identify(members[product, kind]) == name
        # The file of one continuous spectrum has a source_id, that of one sampled spectrum as FITS only a header.
        assert object_ids(members[product, kind]) == [SOURCE]
    assert object_ids(archives[kind]) == [SOURCE]
    with pytest.raises(ValueError, match="no spectrum, image or catalogue in its"):
        identify(members["MCMC_MSC", kind])


def two_sources(members, product: str) -> Table:
    first = Table.read(members[product, "csv"].read_text(), format="ascii.csv")
    second = first.copy()
    second["source_id"] = 42
    if product == "XP_SAMPLED":
        second["flux"] = second["flux"] * 2
        second = second[::-1]
    return Table({name: np.concatenate([second[name], first[name]]) for name in first.colnames})


def test_several_sources_one_below_the_other(members, tmp_path):
    for product in PRODUCTS:
        two_sources(members, product).write(tmp_path / f"{product}.csv", format="ascii.csv")
        assert object_ids(tmp_path / f"{product}.csv") == ["42", SOURCE]
    spectrum = read(tmp_path / "XP_SAMPLED.csv")["spectrum"]
    assert spectrum.flux.shape == (2, 343)
    torch.testing.assert_close(spectrum.flux[0], spectrum.flux[1] * 2)
    assert read(tmp_path / "XP_CONTINUOUS.csv")["gaia_rp_coefficients"].value.shape == (2, 55)


def test_an_archive_of_different_sources_leaves_the_missing_unmeasured(members, tmp_path):
    path = tmp_path / "mixed.zip"
    stream = io.StringIO()
    two_sources(members, "XP_CONTINUOUS").write(stream, format="ascii.csv")
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a.csv", stream.getvalue())
        archive.writestr("b.fits", members["XP_SAMPLED", "fits"].read_bytes())
        archive.writestr("c.csv", members["MCMC_MSC", "csv"].read_bytes())
        archive.writestr("notes.xml", "<nothing>")
    assert object_ids(path) == ["42", SOURCE]
    observations = read(path)
    assert observations["gaia_bp_coefficients"].measured.all()
    assert observations["spectrum"].measured.any(dim=1).tolist() == [False, True]
    torch.testing.assert_close(observations["spectrum"][1].flux, read(members["XP_SAMPLED", "fits"])["spectrum"].flux)


def test_sampled_spectra_one_per_row(members, tmp_path):
    with fits.open(members["XP_SAMPLED", "fits"]) as hdus:
        flux, error = (np.array(hdus[1].data[name]) for name in ("flux", "flux_error"))
    table = Table({"source_id": [1, 2], "flux": np.stack([flux, 2 * flux]), "flux_error": np.stack([error, error])})
    table.write(tmp_path / "rows.fits")
    assert identify(tmp_path / "rows.fits") == "gaia-xp-sampled"
    assert object_ids(tmp_path / "rows.fits") == ["1", "2"]
    spectrum = read(tmp_path / "rows.fits")["spectrum"]
    torch.testing.assert_close(spectrum[0].flux, read(members["XP_SAMPLED", "fits"])["spectrum"].flux)
    torch.testing.assert_close(spectrum.flux[1], 2 * spectrum.flux[0])


@pytest.mark.parametrize(
    ("text", "measured"),
    [("[" + ", ".join(["1.5"] * 55) + "]", 55), ("(" + ",".join(["null", *["2"] * 54]) + ")", 54), ("[]", 0)],
)
def test_texts_of_coefficients(tmp_path, text, measured):
    (tmp_path / "x.csv").write_text(f'source_id,bp_coefficients,rp_coefficients\n7,"{text}","{text}"\n')
    assert read(tmp_path / "x.csv")["gaia_bp_coefficients"].measured.sum() == measured


@pytest.mark.parametrize(
    ("text", "message"),
    [("(1, 2)", "wanted 55 coefficients, given 2"), ("(a, b)", "wanted 55 numbers, given the text")],
)
def test_wrong_coefficients_are_refused(tmp_path, text, message):
    (tmp_path / "x.csv").write_text(f'source_id,bp_coefficients,rp_coefficients\n7,"{text}","{text}"\n')
    with pytest.raises(ValueError, match=f"x.csv.*{message}".replace("(", r"\(")):
        read(tmp_path / "x.csv")


def test_a_zip_of_anything_else_is_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "other.zip", "w") as archive:
        archive.writestr("a.csv", "x,y\n1,2\n")
    with pytest.raises(ValueError, match=r"in its members a\.csv"):
        read(tmp_path / "other.zip")
