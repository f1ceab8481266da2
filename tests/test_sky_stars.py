import pytest
import torch

from aion.sky.draws import Draws
from aion.sky.spectra import observe_spectrum
from aion.sky.stars import star_parameters, star_source
from aion.sky.templates import Templates

TEMPLATES = Templates.load()
DRAWS = Draws(0, torch.arange(1000))


@pytest.fixture(scope="module")
def parameters():
    return star_parameters(DRAWS, TEMPLATES) | {"ebv": torch.zeros(1000, dtype=torch.float64)}


def test_parameters_are_finite_and_within_the_library(parameters):
    labels = TEMPLATES.data["star.labels"].double()
    for name, value in parameters.items():
        assert value.shape == (1000,), name
        assert value.isfinite().all(), name
    for name, column in zip(("teff", "logg", "feh"), labels.T, strict=True):
        assert parameters[name].min() >= column.min()
        assert parameters[name].max() <= column.max()
    assert parameters["magnitude"].min() >= 14
    assert parameters["magnitude"].max() <= 21


def test_velocities_are_tens_of_kilometres_per_second(parameters):
    velocity = parameters["redshift"] * 299792.458
    assert velocity.std().item() == pytest.approx(60, rel=0.1)
    assert abs(velocity.mean()) < 8


def test_suns_and_giants_have_their_absolute_magnitudes(parameters):
    teff, logg, absolute = (parameters[name] for name in ("teff", "logg", "absolute"))
    suns = ((teff - 5772).abs() < 250) & ((logg - 4.44).abs() < 0.25)
    assert absolute[suns].median().item() == pytest.approx(4.65, abs=0.5)
    giants = (teff < 5000) & (logg < 2.8)
    assert absolute[giants].median() < 2
    distance = 10 ** (0.2 * (parameters["magnitude"] - absolute + 5))
    torch.testing.assert_close(parameters["parallax"], 1000 / distance)


def test_lines_move_with_the_star(parameters):
    """The core of H alpha of A stars lies where the velocity puts it."""
    rows = ((parameters["teff"] > 7500) & (parameters["teff"] < 11000)).nonzero().flatten()[:20]
    assert len(rows) > 5
    velocity = torch.linspace(-300, 300, len(rows), dtype=torch.float64)
    own = {name: value[rows] for name, value in parameters.items()} | {"redshift": velocity / 299792.458}
    source = star_source(DRAWS[rows], own, TEMPLATES)
    flux, _, wavelength = observe_spectrum("desi_spectrum", source, DRAWS[rows], TEMPLATES, varied=False, noise=False)
    near = (wavelength[0] > 6520) & (wavelength[0] < 6610)
    depth = flux[:, near].amax(1, keepdim=True) - flux[:, near]
    core = (depth - 0.75 * depth.amax(1, keepdim=True)).clamp(min=0)
    found = (core * wavelength[:, near]).sum(1) / core.sum(1)
    expected = 6564.6 * (1 + velocity / 299792.458)
    assert (found - expected).abs().median() < 0.6
    slope = torch.linalg.lstsq(
        torch.stack([expected - 6564.6, torch.ones_like(expected)], 1), (found - 6564.6).double()[:, None]
    ).solution[0]
    assert slope.item() == pytest.approx(1, abs=0.1)


def test_stars_are_mixed_the_same_in_any_batch(parameters):
    rows = torch.tensor([999, 7])
    whole = star_source(DRAWS, parameters, TEMPLATES)
    few = star_source(DRAWS[rows], {name: value[rows] for name, value in parameters.items()}, TEMPLATES)
    assert torch.equal(few.fine, whole.fine[rows])
    assert torch.equal(few.wide, whole.wide[rows])
    assert (whole.line == 0).all()
    assert (whole.wide > 0).all()
