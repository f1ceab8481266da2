import dataclasses
import math

import pytest
import torch

from aion.sky.draws import Draws
from aion.sky.gaia import gaia_catalog
from aion.sky.photometry import synthetic_flux
from aion.sky.source import LINES, Source
from aion.sky.templates import Templates

TEMPLATES = Templates.load()


def stars(magnitude: float, rows: torch.Tensor | None = None) -> tuple[Source, torch.Tensor]:
    """Library stars of one r magnitude."""
    rows = torch.arange(len(TEMPLATES.star_fine)) if rows is None else rows
    zero = torch.zeros(len(rows), dtype=torch.float64)
    source = Source(
        redshift=zero,
        frame=zero,
        fine=TEMPLATES.star_fine[rows],
        wide=TEMPLATES.star_wide[rows],
        line=torch.zeros(len(rows), len(LINES)),
        line_sigma=zero + 50,
        sigma=zero,
        template_sigma=zero + 58,
        ebv=zero,
    )
    true = synthetic_flux(source, TEMPLATES, ("decam-r", "gaia-g", "gaia-bp", "gaia-rp"))
    factor = 10 ** (-0.4 * (magnitude - 22.5)) / true[:, 0]
    return source.scaled(factor), (true * factor[:, None])[:, 1:]


def observe(magnitude: float, noise: bool = False, rows: torch.Tensor | None = None) -> dict[str, torch.Tensor]:
    source, true = stars(magnitude, rows)
    draws = Draws(0, torch.arange(len(source)))
    return gaia_catalog(source, true, torch.full((len(source),), 2.0, dtype=torch.float64), draws, TEMPLATES, noise)


def test_what_is_too_faint_is_not_published():
    bright, middle, faint = (observe(m) for m in (15.0, 19.4, 23.5))
    assert all(value.isfinite().all() for value in bright.values())
    assert middle["gaia_bp_coefficients"].isnan().all()
    assert middle["gaia_flux_g"].isfinite().all()
    assert all(value.isnan().all() for value in faint.values())


def test_coefficients_are_linear_in_the_flux():
    one, other = observe(15.0), observe(16.25)
    for band in ("bp", "rp"):
        name = f"gaia_{band}_coefficients"
        torch.testing.assert_close(one[name], other[name] * 10**0.5, rtol=1e-5, atol=1e-3)


def test_coefficients_resemble_those_of_real_stars():
    """The first is the largest by far and positive; the later ones fade; blue stars have more BP."""
    seen = observe(15.0)
    teff = TEMPLATES.data["star.labels"][:, 0]
    usual = (teff > 4500) & (teff < 9000)
    for band in ("bp", "rp"):
        value = seen[f"gaia_{band}_coefficients"][usual]
        assert value.shape[1] == 55
        assert (value[:, 0] > 0).all()
        assert (value[:, 1:].abs() < value[:, :1]).all()
        relative = value.abs() / value[:, :1]
        assert relative[:, 40:].median() < 0.01 < relative[:, 1].median()
    ratio = torch.log10(seen["gaia_bp_coefficients"][:, 0] / seen["gaia_rp_coefficients"][:, 0])[usual]
    assert torch.corrcoef(torch.stack([ratio, torch.log10(teff[usual]).double()]))[0, 1] > 0.8
    colour = torch.log10(seen["gaia_flux_bp"] / seen["gaia_flux_rp"])[usual]
    assert torch.corrcoef(torch.stack([ratio, colour]))[0, 1] > 0.95


def test_the_colour_of_suns():
    """A star of 5772 K has G_BP - G_RP of about 0.82 (Vega) in Gaia."""
    teff, logg, feh = TEMPLATES.data["star.labels"].T
    rows = ((teff - 5772).abs() < 200) & (logg > 3.8) & (feh > -0.4)
    assert rows.sum() > 3
    seen = observe(15.0, rows=rows.nonzero().flatten())
    colour = -2.5 * torch.log10(seen["gaia_flux_bp"] / seen["gaia_flux_rp"]) + 25.3385 - 24.7479
    assert colour.median().item() == pytest.approx(0.82, abs=0.1)


def test_errors_grow_with_magnitude():
    relative = []
    for magnitude in (14.5, 17.0):
        noisy, clean = observe(magnitude, noise=True), observe(magnitude)
        name = "gaia_rp_coefficients"
        used = clean[name].isfinite().all(1)
        error = (noisy[name] - clean[name])[used]
        relative.append((error[:, 0] / clean[name][used, 0]).std().item())
        parallax = (noisy["gaia_parallax"] - 2.0)[noisy["gaia_parallax"].isfinite()].std().item()
        assert 0.01 < parallax < 0.15
    assert relative[1] > 2 * relative[0]
    assert relative[0] < 0.01
    assert math.isfinite(relative[1])


def test_reddening_dims_the_blue_more():
    source, true = stars(15.0)
    reddened = dataclasses.replace(source, ebv=source.ebv + 0.2)
    draws = Draws(0, torch.arange(len(source)))
    parallax = torch.ones(len(source), dtype=torch.float64)
    clean, dim = (gaia_catalog(s, true, parallax, draws, TEMPLATES, noise=False) for s in (source, reddened))
    blue, red = (dim[f"gaia_{b}_coefficients"][:, 0] / clean[f"gaia_{b}_coefficients"][:, 0] for b in ("bp", "rp"))
    assert (blue.median() < red.median() < 1).item()
