import pytest
import torch

from aion.sky.draws import Draws
from aion.sky.forest import forest

WINDOW = ((5000.0, 5100.0),)
WAVELENGTH = torch.linspace(4995, 5105, 2200, dtype=torch.float64)


def make(teff, feh, resolution=28000.0, template=None, logg=4.4, index=0, wavelength=WAVELENGTH, window=WINDOW):
    labels = tuple(torch.tensor([float(v)], dtype=torch.float64) for v in (teff, logg, feh))
    template = None if template is None else torch.tensor([float(template)], dtype=torch.float64)
    draws = Draws(0, torch.tensor([index]))
    return forest(window, 0.35, labels, draws, resolution, template, wavelength.expand(1, -1))[0].double()


def test_lines_absorb_and_never_more_than_all():
    left = make(5500, 0)
    assert left.min() >= 0
    assert left.min() < 0.8
    assert left.max() <= 1 + 1e-5


def test_depth_follows_metallicity_and_temperature():
    depth = [1 - make(5500, feh).mean() for feh in (-2.5, -1.5, -0.5, 0.3)]
    assert depth == sorted(depth)
    assert depth[0] < 0.1 * depth[-1]
    assert 1 - make(4200, 0).mean() > 1.3 * (1 - make(6200, 0).mean())
    assert 1 - make(20000, 0).mean() < 0.1 * (1 - make(5500, 0).mean())


def test_resolution_smooths_and_keeps_what_is_absorbed():
    sharp, broad = make(5500, 0), make(5500, 0, 5000.0)
    inside = slice(200, -200)
    assert sharp[inside].std() > 1.5 * broad[inside].std()
    assert broad[inside].mean().item() == pytest.approx(sharp[inside].mean().item(), abs=0.01)


def test_smoothed_to_the_template_it_is_the_template():
    """Detail over a template vanishes, to first order, at the resolution of the template."""
    detail = make(5500, 0, template=58.0)
    step = 110 / 2199
    sigma = 3 * 58 / 299792 * 5050 / step
    x = torch.arange(-200, 201, dtype=torch.float64)
    kernel = torch.exp(-0.5 * (x / sigma) ** 2)
    smooth = torch.nn.functional.conv1d(detail[None, None], (kernel / kernel.sum())[None, None])[0, 0]
    assert (smooth - 1).abs().max() < 0.05
    assert (detail - 1).abs().max() > 0.2


def test_a_star_has_the_same_lines_on_every_grid():
    wide = make(5500, 0)
    some = make(5500, 0, wavelength=WAVELENGTH[700:900])
    assert torch.equal(wide[700:900], some)
    assert not torch.equal(make(5500, 0, index=1), wide)


def test_beyond_the_windows_there_is_nothing():
    far = make(5500, 0, wavelength=torch.linspace(6000, 6100, 50, dtype=torch.float64))
    assert torch.equal(far, torch.ones_like(far))


def test_brackett_lines_are_where_they_are():
    """Brackett 11 at 16811.1 and 13 at 16113.7 vacuum Angstrom, in an A star."""
    window = ((15850.0, 16960.0),)
    for line in (16811.1, 16113.7):
        near = torch.linspace(line - 60, line + 60, 1201, dtype=torch.float64)
        depth = 1 - make(9500, -2.0, 22500.0, window=window, wavelength=near)
        assert depth.max() > 0.1
        assert ((depth * near).sum() / depth.sum()).item() == pytest.approx(line, abs=3)
