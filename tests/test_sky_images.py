import math

import pytest
import torch

from aion.sky import MODALITIES, OPTIONAL, Sky
from aion.sky.cameras import HSC, LEGACY
from aion.sky.draws import Draws
from aion.sky.images import observe_image
from aion.sky.templates import Templates

TEMPLATES = Templates.load()
SCALE = 0.262


def observe(
    n: int,
    radius: float,
    e1: float = 0.0,
    e2: float = 0.0,
    star: bool = False,
    flux: float = 1e4,
    noise=False,
    **patterns,
):
    def full(value: float) -> torch.Tensor:
        return torch.full((n,), value, dtype=torch.float64)

    shape = {"radius": full(radius), "e1": full(e1), "e2": full(e2), "bulge": full(0.3)}
    shape |= {name: full(0) for name in ("arms", "ring", "bar", "companion")} | patterns
    true = torch.tensor([0.5, 1.0, 1.2, 1.4], dtype=torch.float64) * full(flux)[:, None]
    kind = torch.full((n,), star)
    return observe_image(true, shape, kind, Draws(0, torch.arange(n)), TEMPLATES, noise)


def moments(image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Second moments about the centroid in arcsec^2: north-north, east-east, north-east; row 0 south, column 0 east."""
    image = image.double() / image.double().sum((-1, -2), keepdim=True)
    at = (torch.arange(64, dtype=torch.float64) - 31.5) * SCALE
    north, east = at[:, None].expand(64, 64), -at[None].expand(64, 64)
    n, e = ((image * x).sum((-1, -2), keepdim=True) for x in (north, east))
    dn, de = north - n, east - e
    return tuple((image * x).sum((-1, -2)) for x in (dn * dn, de * de, dn * de))


def test_a_star_has_its_flux_and_the_seeing():
    image, _ = observe(16, 0.0, star=True, flux=1e5)  # so bright that neighbours do not count
    expected = torch.tensor([0.5, 1.0, 1.2, 1.4]) * 1e5
    torch.testing.assert_close(image.sum((2, 3)), expected.expand(16, -1), rtol=2e-3, atol=0)
    north, east, mixed = moments(image)
    # sigma of the FWHM published, widened by the wings (0.2 of the light, 1.9 times as wide) and the pixel
    low, high = (((torch.tensor(LEGACY.seeing) / 2.3548) ** 2 + SCALE**2 / 12) * (0.8 + 0.2 * 1.9**2)).T
    assert (north > 0.99 * low).all()
    assert (north < 1.01 * high + 0.02).all()
    torch.testing.assert_close(north, east, rtol=0.03, atol=0)
    assert (mixed.abs() < 0.04 * north).all()


def test_objects_sit_within_half_a_pixel_of_the_middle():
    image, _ = observe(32, 0.0, star=True, flux=1e5)
    light = image[:, 1] / image[:, 1].sum((1, 2), keepdim=True)
    for axis in (1, 2):
        at = (light.sum(3 - axis) * (torch.arange(64) - 31.5)).sum(1)
        assert (at.abs() < 0.52).all()
        assert at.std() > 0.1


def test_a_galaxy_keeps_its_flux_and_half_of_it_lies_within_its_radius():
    image, _ = observe(8, 1.5)
    whole = image[:, 1].sum((1, 2))
    assert ((whole / 1e4 - 1).abs() < 0.06).all()  # the wings of the bulge reach beyond the stamp
    at = (torch.arange(64) - 31.5) * SCALE
    near = at[:, None] ** 2 + at[None] ** 2 < 1.5**2
    inside = (image[:, 1] * near).sum((1, 2)) / 1e4
    assert ((inside > 0.33) & (inside < 0.55)).all()  # less than half, for the seeing


@pytest.mark.parametrize("angle", [0, 30, 90, 140])
def test_ellipticity_is_that_of_the_legacy_surveys(angle):
    """The position angle is half of atan2(e2, e1), from north through east."""
    e = 0.4
    e1, e2 = (e * f(2 * math.radians(angle)) for f in (math.cos, math.sin))
    north, east, mixed = moments(observe(4, 1.2, e1, e2)[0][:, 1])
    found = torch.rad2deg(0.5 * torch.atan2(2 * mixed, north - east))
    turn = (found - angle + 90) % 180 - 90
    assert (turn.abs() < 2).all()
    round_north, round_east, _ = moments(observe(4, 1.2)[0][:, 1])
    torch.testing.assert_close(round_north, round_east, rtol=0.02, atol=0.0)


def test_bulges_are_red():
    image, _ = observe(4, 1.0)
    flux = image.sum((2, 3))
    bare = torch.tensor([0.5, 1.0, 1.2, 1.4])
    torch.testing.assert_close(flux / flux[:, 1:2], bare.expand(4, -1), rtol=0.03, atol=0)
    many = observe(40, 1.0)[0]
    concentration = many[:, :, 29:35, 29:35].sum((2, 3)) / many.sum((2, 3))
    assert concentration[:, 3].mean() > concentration[:, 0].mean()


def test_noise_is_as_reported_and_of_the_published_depth():
    noisy, ivar = observe(60, 0.0, star=True, flux=3.0, noise=True)
    clean, same = observe(60, 0.0, star=True, flux=3.0)
    assert torch.equal(ivar, same)
    assert noisy.shape == (60, *LEGACY.shape)
    measured = ivar > 0
    chi = ((noisy - clean) * ivar.sqrt())[measured].double()
    assert (chi**2).mean().item() == pytest.approx(1, abs=0.01)
    # The flux of a point source, fitted with 4 pi sigma^2 pixels, has the 5-sigma depth of g = 24.7.
    corner = ivar[:, 0, 0, 0]
    sigma = corner[corner > 0].rsqrt().median().item() * math.sqrt(4 * math.pi) * LEGACY.psf_sigma / SCALE
    assert 22.5 - 2.5 * math.log10(5 * sigma) == pytest.approx(24.7, abs=0.15)


def test_some_bands_and_pixels_are_missing():
    _, ivar = observe(100, 0.5, flux=10.0)
    lost = (ivar == 0).flatten(2).all(2)
    assert 0.01 < lost.float().mean() < 0.08
    assert ((ivar == 0).float().mean((2, 3))[~lost] < 0.01).all()
    assert (ivar[~lost] == 0).any()


class TestHSC:
    def observe(self, flux: float, noise: bool = False, n: int = 16) -> tuple[torch.Tensor, torch.Tensor]:
        zero = torch.zeros(n, dtype=torch.float64)
        names = ("radius", "e1", "e2", "bulge", "arms", "ring", "bar", "companion")
        shape = dict.fromkeys(names, zero)
        true = torch.full((n, 5), flux, dtype=torch.float64)
        star = torch.ones(n, dtype=torch.bool)
        return observe_image(true, shape, star, Draws(0, torch.arange(n)), TEMPLATES, noise, HSC)

    def test_a_star_has_its_flux_and_a_sharper_image(self):
        image, _ = self.observe(1e5)
        assert image.shape == (16, *HSC.shape)
        torch.testing.assert_close(image.sum((2, 3)), torch.full((16, 5), 1e5), rtol=2e-3, atol=0)
        peak = image.amax((2, 3)) / HSC.scale**2
        legacy = observe(16, 0.0, star=True, flux=1e5)[0].amax((2, 3)) / SCALE**2 / torch.tensor([0.5, 1.0, 1.2, 1.4])
        assert (peak[:, :4].mean(0) > 2 * legacy.mean(0)).all()

    def test_it_has_the_published_depth(self):
        _, ivar = self.observe(0.01, n=100)
        for band, depth in enumerate((26.8, 26.4, 26.4, 25.5, 24.7)):
            corner = ivar[:, band, 0, 0]
            sigma = corner[corner > 0].rsqrt().median().item() * math.sqrt(4 * math.pi) * HSC.psf_sigma / HSC.scale
            assert 22.5 - 2.5 * math.log10(5 * sigma) == pytest.approx(depth, abs=0.15)

    def test_noise_is_as_reported(self):
        noisy, ivar = self.observe(3.0, noise=True)
        clean, same = self.observe(3.0)
        assert torch.equal(ivar, same)
        assert (((noisy - clean) ** 2 * ivar)[ivar > 0].double()).mean().item() == pytest.approx(1, abs=0.01)

    @pytest.mark.parametrize(("magnitude", "saturates"), [(19.5, False), (16.0, True)])
    def test_bright_stars_saturate(self, magnitude, saturates):
        _, ivar = self.observe(10 ** (-0.4 * (magnitude - 22.5)))
        seen = (ivar > 0).flatten(2).any(2)
        core = (ivar[:, :, 46:50, 46:50] == 0).flatten(2).any(2)
        assert core[seen].float().mean() == pytest.approx(float(saturates), abs=0.1)

    def test_it_is_simulated_only_if_asked_for(self):
        assert "hsc_image" not in MODALITIES
        assert "hsc_image" in OPTIONAL
        image = Sky(modalities=["hsc_image", "redshift"]).observe(range(12))["hsc_image"]
        assert image.bands == HSC.bands
        assert image.flux.shape == (12, *HSC.shape)
        assert image.pixel_scale[0].item() == pytest.approx(0.168)
        again = Sky(modalities=["hsc_image"]).observe([3])["hsc_image"]
        assert torch.equal(again.flux[0], image.flux[3])
