import math

import pytest
import torch

from aion.observations import BANDS as CURVES
from aion.sky.draws import Draws
from aion.sky.photometry import LEGACY_SIGMA, legacy_photometry, synthetic_flux
from aion.sky.source import LINES, Source
from aion.sky.templates import BANDS, FINE_SIZE, Templates

TEMPLATES = Templates.load()


def source(wide: torch.Tensor, redshift: float = 0.0, ebv: float = 0.0, line: torch.Tensor | None = None) -> Source:
    one = torch.ones(1, dtype=torch.float64)
    empty = torch.zeros(1, len(LINES))
    return Source(
        redshift=one * redshift,
        frame=one * redshift,
        fine=torch.ones(1, FINE_SIZE),
        wide=wide[None],
        line=empty if line is None else line[None],
        line_sigma=one * 100,
        sigma=one * 0,
        template_sigma=one * 50,
        ebv=one * ebv,
    )


def flat(nanomaggy: float) -> torch.Tensor:
    """f_lambda in 1e-17 erg/s/cm2/A of constant f_nu: 3631e-23 erg/s/cm2/Hz is AB magnitude 0."""
    return nanomaggy * 1e-9 * 3631e-23 * 2.99792458e18 / TEMPLATES.wide**2 / 1e-17


@pytest.mark.parametrize("nanomaggy", [1.0, 250.0])
def test_constant_f_nu_is_the_closed_form_in_every_band(nanomaggy):
    true = synthetic_flux(source(flat(nanomaggy)), TEMPLATES)
    magnitude = 22.5 - 2.5 * torch.log10(true)
    expected = 22.5 - 2.5 * math.log10(nanomaggy)
    torch.testing.assert_close(magnitude, torch.full_like(magnitude, expected), rtol=0, atol=1e-9)


def test_redshift_moves_the_light():
    """f_lambda proportional to lambda^-2 keeps its shape: redshift z multiplies it by (1 + z)^2."""
    true = synthetic_flux(source(flat(10.0), redshift=0.5), TEMPLATES)
    torch.testing.assert_close(true, torch.full_like(true, 10 * 1.5**2), rtol=1e-4, atol=0)


def test_the_milky_way_reddens():
    ratio = synthetic_flux(source(flat(1.0), ebv=0.1), TEMPLATES)[0, :8]
    dimming = -2.5 * torch.log10(ratio) / 0.1
    assert (dimming.diff() < 0).all()  # g > r > i > z > W1 > ...
    assert 3.0 < dimming[0] < 3.8


@pytest.mark.parametrize("redshift", [0.0, 0.2, 0.62])
def test_lines_count_as_a_narrow_gaussian_does(redshift):
    line = torch.zeros(len(LINES))
    line[LINES.index("oiii_5007")] = 300.0
    rest = TEMPLATES.lines(("oiii_5007",)) * (1 + redshift)
    profile = torch.exp(-0.5 * ((TEMPLATES.wide - rest) / 25) ** 2) * 300 / (25 * math.sqrt(2 * math.pi))
    with_line = synthetic_flux(source(flat(0.0), redshift, line=line), TEMPLATES)
    as_continuum = synthetic_flux(source(profile), TEMPLATES)  # already where it is observed
    largest = as_continuum.max().item()
    assert largest > 0.1
    torch.testing.assert_close(with_line, as_continuum, rtol=0, atol=0.05 * largest)


def test_curves_are_where_their_names_say():
    weight = TEMPLATES.data["filter.weight"] / TEMPLATES.wide**2  # back to transmission times a constant
    mean = (weight * TEMPLATES.wide * torch.gradient(TEMPLATES.wide)[0]).sum(1)
    mean = mean / (weight * torch.gradient(TEMPLATES.wide)[0]).sum(1)
    for band, value in zip(BANDS, mean.tolist(), strict=True):
        assert value == pytest.approx(CURVES[band], rel=0.02)


def test_errors_have_the_published_depth():
    draws = Draws(0, torch.arange(4000))
    radius = torch.zeros(4000, dtype=torch.float64)
    true = torch.zeros(4000, 11, dtype=torch.float64)
    noisy = legacy_photometry(true, radius, draws)
    for band, sigma in LEGACY_SIGMA.items():
        assert noisy[f"legacysurvey_flux_{band}"].std().item() == pytest.approx(sigma, rel=0.05)
    assert 22.5 - 2.5 * math.log10(5 * LEGACY_SIGMA["g"]) == pytest.approx(24.7)
    larger = legacy_photometry(true, radius + 3, draws)["legacysurvey_flux_r"].std()
    assert larger > 3 * LEGACY_SIGMA["r"]
    clean = legacy_photometry(true + 5, radius, draws, noise=False)
    assert all((value == 5).all() for value in clean.values())
