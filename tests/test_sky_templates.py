import json

from pathlib import Path

import pytest
import torch

from safetensors import safe_open

import aion.sky

from aion.sky import templates as module
from aion.sky.galaxies import MAX_REDSHIFT
from aion.sky.published import EXTINCTION
from aion.sky.templates import (
    BANDS,
    FINE_START,
    Templates,
    calzetti,
    interpolate,
    luminosity_distance,
    milky_way,
    shift_wide,
)

TEMPLATES = Templates.load()
FOLDER = Path(aion.sky.__file__).parent


def test_the_files_are_small_and_on_the_grids_of_the_code():
    assert sum(path.stat().st_size for path in FOLDER.glob("*.safetensors")) < 4e6
    for path in FOLDER.glob("*.safetensors"):
        with safe_open(path, framework="pt") as file:
            grids = json.loads(file.metadata()["grids"])
        assert grids.pop("bands") == list(BANDS)
        assert grids == {name: getattr(module, name.upper()) for name in grids}


def test_templates_cover_all_that_is_seen_at_any_redshift():
    fine, wide = TEMPLATES.fine, TEMPLATES.wide
    # Bluest and reddest pixel of any varied grid, and three template pixels for the interpolation.
    assert fine[3] < 3540 / (1 + MAX_REDSHIFT)
    assert fine[-4] > 10450 * (1 + 0.002)
    seen = TEMPLATES.data["filter.weight"] > 0
    blue, red = (wide[seen[:8].any(0)][k] for k in (0, -1))
    assert wide[1] < blue / (1 + MAX_REDSHIFT)
    assert wide[-2] > red


def test_every_template_is_positive_and_one_at_5500():
    data = TEMPLATES.data
    mid = round((torch.log10(torch.tensor(5500.0)).item() - FINE_START) / 1e-4)
    stars = TEMPLATES.star_fine[:, int(data["star.first"]) :]
    for flux in (data["galaxy.fine"], stars, TEMPLATES.star_wide, data["galaxy.wide"][:, 100:]):
        assert flux.isfinite().all()
        assert (flux > 0).all()
    assert (data["galaxy.fine"][:, mid - 100 : mid + 100].mean(1) - 1).abs().max() < 0.15
    assert len(data["galaxy.fine"]) == 54


def test_fine_and_wide_templates_agree():
    rows = torch.arange(300, 1080)  # 1780 to 10700 A
    wavelength = 10 ** (module.WIDE_START + module.WIDE_STEP * rows)
    position = ((torch.log10(TEMPLATES.wide[rows]) - FINE_START) / 1e-4).round().long()
    galaxies = TEMPLATES.data["galaxy.wide"][:, rows] * (5500 / TEMPLATES.wide[rows]) ** 2
    fine = torch.stack([TEMPLATES.data["galaxy.fine"][:, position + k] for k in range(-5, 6)]).mean(0)
    assert (galaxies / fine - 1).abs().median() < 0.002
    assert (galaxies / fine - 1).abs().max() < 0.15
    assert wavelength[0] > 1700


def test_seams_are_smooth():
    """No step at the ends of the MaStar range: the mean level on either side agrees as it does elsewhere."""
    flux = TEMPLATES.data["galaxy.fine"]
    for seam in (3640.0, 10320.0):
        pixel = round((torch.log10(torch.tensor(seam)).item() - FINE_START) / 1e-4)
        left, right = flux[:, pixel - 60 : pixel].mean(1), flux[:, pixel : pixel + 60].mean(1)
        assert (left / right - 1).abs().max() < 0.25
        assert (left / right - 1).abs().median() < 0.06


def test_a_fifth_of_miles_is_held_out():
    assert (TEMPLATES.data["star.miles_id"] % 5 != 0).all()
    neighbour = TEMPLATES.data["star.neighbour"]
    assert (neighbour != torch.arange(len(neighbour))).all()


def test_interpolation_is_exact_for_quadratics_and_holds_the_ends():
    x = torch.arange(50.0, dtype=torch.float64)
    values = torch.stack([1 + 2 * x, 3 - x + 0.1 * x**2])
    at = torch.rand(2, 200, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 46 + 1
    expected = torch.stack([1 + 2 * at[0], 3 - at[1] + 0.1 * at[1] ** 2])
    torch.testing.assert_close(interpolate(values, at), expected)
    ends = interpolate(values, torch.tensor([[-5.0, 100.0]] * 2, dtype=torch.float64))
    torch.testing.assert_close(ends, values[:, [0, -1]])


def test_shift_moves_to_the_red():
    values = torch.exp(-0.5 * ((torch.arange(500.0, dtype=torch.float64) - 200) / 8) ** 2)[None]
    moved = shift_wide(values, torch.tensor([0.1005], dtype=torch.float64))
    centre = (moved * torch.arange(500)).sum() / moved.sum()
    assert centre.item() == pytest.approx(300.5, abs=1e-6)


def test_dust_laws_have_their_published_values():
    at = torch.tensor([4400.0, 5500.0, 22000.0], dtype=torch.float64)
    blue, visual, infrared = calzetti(at)
    assert visual.item() == pytest.approx(4.05, abs=0.02)
    assert (blue - visual).item() == pytest.approx(1.0, abs=0.06)
    assert 0 < infrared < 0.4
    law = calzetti(TEMPLATES.wide)
    assert (law > 0).all()
    assert (law.diff()[130:] < 0.02).all()  # falls to the red; the published branches meet within 0.02


@pytest.mark.parametrize("band", sorted(EXTINCTION))
def test_the_milky_way_dims_by_the_published_coefficients(band):
    """Of a black body of 7000 K, as in Schlafly & Finkbeiner: within 2 % in the optical, 0.006 in the infrared."""
    weight, wide = TEMPLATES.bands[band][0], TEMPLATES.wide
    star = wide**-5 / torch.expm1(1.438777e8 / (7000 * wide)) * weight
    seen = (star * 10 ** (-0.04 * TEMPLATES.data["milky_way.wide"])).sum() / star.sum()
    tolerance = 0.006 if "wise" in band else 0.02 * EXTINCTION[band]
    assert (-25 * torch.log10(seen)).item() == pytest.approx(EXTINCTION[band], abs=tolerance)


def test_the_curve_of_the_milky_way_is_the_spline_of_scipy():
    scipy = pytest.importorskip("scipy.interpolate")
    spline = scipy.CubicSpline(*zip(*module._KNOTS, strict=True), bc_type="natural")
    wavelength = torch.linspace(3050, 29000, 500, dtype=torch.float64)
    expected = 0.884 * torch.as_tensor(spline(1e4 / wavelength.numpy()))
    torch.testing.assert_close(milky_way(wavelength), expected, rtol=0, atol=1e-9)
    torch.testing.assert_close(milky_way(wavelength.float()).double(), expected, rtol=1e-5, atol=0)
    assert (milky_way(torch.linspace(3100, 3e5, 4000, dtype=torch.float64)).diff() < 3e-3).all()


def test_luminosity_distance_is_that_of_astropy():
    cosmology = pytest.importorskip("astropy.cosmology").FlatLambdaCDM(H0=70, Om0=0.3, Tcmb0=0)
    z = torch.tensor([0.003, 0.05, 0.3, 1.0], dtype=torch.float64)
    expected = torch.as_tensor(cosmology.luminosity_distance(z.numpy()).value)
    torch.testing.assert_close(luminosity_distance(z), expected, rtol=1e-5, atol=0)
