import math

import pytest
import torch

from aion.sky import Sky
from aion.sky.draws import Draws
from aion.sky.photometry import synthetic_flux
from aion.sky.quasars import QUASAR_REDSHIFTS, quasar_parameters, quasar_source
from aion.sky.source import LINES
from aion.sky.templates import Templates

TEMPLATES = Templates.load()


def source(z: float, count: int = 60):
    draws = Draws(0, torch.arange(count))
    p = {"redshift": torch.full((count,), z, dtype=torch.float64), "ebv": torch.zeros(count, dtype=torch.float64)}
    return quasar_source(draws, p | {"magnitude": p["redshift"] * 0 + 19}, TEMPLATES)


def mean(seen, low: float, high: float, z: float) -> torch.Tensor:
    """Mean light between rest-frame wavelengths, `(B,)`."""
    rest = TEMPLATES.fine / (1 + z)
    return seen.fine[:, (rest > low) & (rest < high)].mean(1)


def test_redshifts_and_magnitudes_are_those_of_quasars():
    p = quasar_parameters(Draws(0, torch.arange(5000)))
    low, high = QUASAR_REDSHIFTS
    assert p["redshift"].min() >= low
    assert p["redshift"].max() <= high
    assert (p["redshift"] < 0.5).double().mean() > 0.05
    assert (p["redshift"] > 2.5).double().mean() > 0.1
    assert 18 < p["magnitude"].median() < 21


@pytest.mark.parametrize("z", [0.15, 1.2, 2.2, 3.9])
def test_light_is_positive_and_finite(z):
    seen = source(z)
    for light in (seen.fine, seen.wide, seen.line):
        assert light.isfinite().all()
        assert (light >= 0).all()
    assert (seen.line[:, LINES.index("oiii_5007")] > 0).all()


@pytest.mark.parametrize(
    ("line", "z", "width"), [(1549.1, 2.2, 23.8), (1908.7, 2.2, 21.2), (2798.8, 1.2, 32.3), (4862.7, 0.5, 46.2)]
)
def test_broad_lines_have_the_widths_of_the_composite(line, z, width):
    """Equivalent widths within a factor of the published ones, where the line is and not beside it."""
    seen = source(z)
    inside = mean(seen, line * 0.985, line * 1.015, z)
    outside = (mean(seen, line * 0.94, line * 0.955, z) + mean(seen, line * 1.045, line * 1.06, z)) / 2
    found = ((inside / outside - 1) * line * 0.03).median().item()
    assert 0.4 * width < found < 1.6 * width


def test_the_forest_has_the_published_mean():
    """Mean transmission at z = 2.6 of exp(-0.0023 (1 + z)^3.65), against the same quasars without a forest."""
    z = 3.0
    seen = source(z, 200)
    at = (TEMPLATES.fine > 1215.67 * 3.55) & (TEMPLATES.fine < 1215.67 * 3.65)
    # The wide grid has the mean of the forest: the two agree on the mean and differ from pixel to pixel.
    near = (TEMPLATES.wide > 1215.67 * 3.55) & (TEMPLATES.wide < 1215.67 * 3.65)
    fine, wide = seen.fine[:, at].mean(1), seen.wide[:, near].mean(1)
    assert (fine.sum() / wide.sum()).item() == pytest.approx(1, abs=0.02)
    deep = (seen.fine[:, at] / fine[:, None]).flatten()
    assert (deep < 0.3).float().mean() > 0.03
    assert deep.std() > 0.15
    expected = math.exp(-0.0023 * 3.6**3.65)
    red = (TEMPLATES.fine > 1290 * 4) & (TEMPLATES.fine < 1300 * 4)
    ratio = (seen.fine[:, at].mean(1) / seen.fine[:, red].mean(1) * (1095 / 1295) ** 1.5).median().item()
    assert ratio == pytest.approx(expected, abs=0.15)


def test_there_is_no_forest_redward_of_lyman_alpha_and_none_at_low_redshift():
    for z in (0.8, 3.0):
        seen = source(z)
        red = TEMPLATES.fine > 1300 * (1 + z)
        smooth = seen.fine[:, red].diff(dim=1).abs() / seen.fine[:, red][:, 1:]
        assert smooth.median() < 2e-3
        assert (seen.fine[:, red] > 0).all()


def test_the_forest_is_that_of_the_object_in_any_batch():
    draws = Draws(0, torch.arange(6))
    z = torch.linspace(1.9, 3.9, 6, dtype=torch.float64)
    p = {"redshift": z, "magnitude": z * 0 + 19, "ebv": z * 0}
    whole = quasar_source(draws, p, TEMPLATES)
    rows = torch.tensor([5, 2])
    few = quasar_source(draws[rows], {k: v[rows] for k, v in p.items()}, TEMPLATES)
    for name in ("fine", "wide", "line"):
        assert torch.equal(getattr(few, name), getattr(whole, name)[rows])


def test_colours_are_those_of_quasars():
    """Blue in u-g at z = 1.5, red beyond z = 3, and redder than any star in W1-W2 (Stern et al. 2012: 0.8 in Vega)."""

    def colour(z, one, other):
        flux = synthetic_flux(source(z), TEMPLATES, (one, other))
        return (-2.5 * torch.log10(flux[:, 0] / flux[:, 1])).median().item()

    assert colour(1.5, "sdss-u", "sdss-g") < 0.5
    assert colour(3.6, "sdss-u", "sdss-g") > 1.2
    assert 0.15 < colour(1.2, "wise-w1", "wise-w2") < 0.9


def test_the_sky_has_them_with_their_line_in_the_spectrum():
    sky = Sky(galaxies=1, quasars=1, modalities=["desi_spectrum"], complete=True, varied=False)
    z = sky.labels(range(40))["redshift"]
    seen = sky.observe(range(40), noise=False)["desi_spectrum"]
    rows = ((z > 1.6) & (z < 3.8)).nonzero().flatten()
    assert len(rows) > 5
    for row in rows.tolist():
        rest = seen.wavelength[row] / (1 + z[row])
        carbon, beside = (rest > 1535) & (rest < 1555), (rest > 1450) & (rest < 1480)
        assert seen.flux[row][carbon].mean() > 1.15 * seen.flux[row][beside].mean()
