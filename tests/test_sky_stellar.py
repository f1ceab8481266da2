import pytest
import torch

from aion.sky import Sky
from aion.sky.stellar import SURVEYS, empty_star

EVERY = pytest.mark.parametrize("name", list(SURVEYS))
PIXELS = {"gaia_xp_spectrum": 343, "apogee_spectrum": 7901, "galah_spectrum": 4 * 4096}
ENDS = {
    "gaia_xp_spectrum": [(3360, 10200)],
    "apogee_spectrum": [(15140, 15810), (15850, 16440), (16470, 16960)],
    "galah_spectrum": [(4714.3, 4904.4), (5649.6, 5874.6), (6479.8, 6738.9), (7587.1, 7889.2)],  # vacuum
}


def stars(name, count=24, **options):
    sky = Sky(galaxies=0.0, modalities=[name], complete=True, **options)
    return sky, torch.arange(count)


@EVERY
def test_grids_are_as_published(name):
    _, _, wavelength = empty_star(name, 2, "cpu")
    assert wavelength.shape == (2, PIXELS[name])
    assert (wavelength.diff(dim=1) > 0).all()
    for arm, (low, high) in zip(SURVEYS[name].arms, ENDS[name], strict=True):
        assert arm[0].item() == pytest.approx(low, abs=0.1)
        assert arm[-1].item() == pytest.approx(high, abs=0.4)


@EVERY
def test_varied_grids_increase_and_differ(name):
    sky, index = stars(name)
    wavelength = sky.observe(index)[name].wavelength
    assert (wavelength.diff(dim=1) > 0).all()
    assert (wavelength[1:] != wavelength[:1]).any(1).all()
    fixed, _ = stars(name, varied=False)
    same = fixed.observe(index)[name].wavelength
    assert torch.equal(same, same[:1].expand_as(same))


@EVERY
def test_only_stars_are_observed_and_not_all_of_them(name):
    sky = Sky(seed=3, galaxies=0.5, modalities=[name])
    seen = sky.observe(range(100))[name].measured.any(1)
    labels = sky.labels(range(100))
    assert not seen[labels["kind"] == 0].any()
    assert 0 < seen[labels["kind"] == 1].float().mean() < 1
    if name == "gaia_xp_spectrum":
        assert labels["magnitude"][seen].max() < 17.66


@EVERY
def test_noise_is_as_reported(name):
    sky, index = stars(name, 40)
    noisy, clean = sky.observe(index)[name], sky.observe(index, noise=False)[name]
    chi = ((noisy.flux - clean.flux) * noisy.ivar.sqrt())[noisy.measured].double()
    assert (chi**2).mean().item() == pytest.approx(1, abs=0.07)
    ratio = (clean.flux * clean.ivar.sqrt())[clean.measured.any(1)].median(1).values
    assert ratio.min() > 2
    assert 30 < ratio.median() < 200


@EVERY
def test_optional_surveys_leave_the_others_alone(name):
    index = torch.arange(8)
    alone = Sky(modalities=["desi_spectrum"]).observe(index)["desi_spectrum"]
    beside = Sky(modalities=["desi_spectrum", name]).observe(index)["desi_spectrum"]
    assert torch.equal(alone.flux, beside.flux)
    assert torch.equal(alone.ivar, beside.ivar)


def test_xp_is_the_star_that_desi_sees():
    """Both averaged over 200 Angstrom agree up to a constant, the calibration and its few per cent."""
    sky = Sky(galaxies=0.0, modalities=["desi_spectrum", "gaia_xp_spectrum"], complete=True, varied=False)
    seen = sky.observe(range(40), noise=False)
    desi, xp = seen["desi_spectrum"], seen["gaia_xp_spectrum"]
    rows = xp.measured.any(1).nonzero().flatten()
    assert len(rows) > 8
    edges = torch.arange(4200, 9400, 400.0)

    def means(spectrum, row):
        w, f = spectrum.wavelength[row], spectrum.flux[row]
        m = spectrum.measured[row]
        values = torch.stack([f[m & (w >= a) & (w < a + 400)].mean() for a in edges])
        return values / values.mean()

    for row in rows.tolist():
        assert (means(xp, row) / means(desi, row)).log().std() < 0.12


def test_galah_smoothed_is_the_template():
    sky = Sky(galaxies=0.0, modalities=["desi_spectrum", "galah_spectrum"], complete=True, varied=False)
    labels = sky.labels(range(60))
    rows = ((labels["teff"] > 4800) & (labels["teff"] < 6500)).nonzero().flatten()[:6]
    seen = sky.observe(rows, noise=False)
    galah, desi = seen["galah_spectrum"], seen["desi_spectrum"]
    for k in range(len(rows)):
        edges = torch.arange(6500, 6720, 10.0)

        def means(spectrum, row=k, edges=edges):
            w, f, m = spectrum.wavelength[row], spectrum.flux[row], spectrum.measured[row]
            return torch.stack([f[m & (w >= a) & (w < a + 10)].mean() for a in edges])

        ratio = means(galah) / means(desi)
        ratio = ratio[ratio.isfinite()]
        assert (ratio / ratio.median()).log().std() < 0.03
