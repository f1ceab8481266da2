import math

import pytest
import torch

from aion.sky.draws import Draws
from aion.sky.galaxies import MAX_REDSHIFT
from aion.sky.source import LINES, Source
from aion.sky.spectra import INSTRUMENTS, empty_spectrum, observe_spectrum
from aion.sky.templates import FINE_SIZE, FINE_START, FINE_STEP, Templates

TEMPLATES = Templates.load()
EVERY = pytest.mark.parametrize("name", sorted(INSTRUMENTS))
VARIED = pytest.mark.parametrize("varied", [True, False], ids=["varied", "as it is"])


def source(redshift: torch.Tensor, fine: torch.Tensor, line: float = 0.0, which: str = "halpha") -> Source:
    one = torch.ones_like(redshift)
    lines = torch.zeros(len(redshift), len(LINES))
    lines[:, LINES.index(which)] = line
    return Source(
        redshift=redshift,
        frame=redshift,
        fine=fine.expand(len(redshift), FINE_SIZE).contiguous(),
        wide=torch.ones(len(redshift), 2540),
        line=lines,
        line_sigma=120 * one,
        sigma=150 * one,
        template_sigma=70 * one,
        ebv=0 * one,
    )


def observe(name: str, seen: Source, varied: bool, noise: bool, seed: int = 0):
    draws = Draws(seed, torch.arange(len(seen)))
    return observe_spectrum(name, seen, draws, TEMPLATES, varied=varied, noise=noise)


def test_desi_has_the_grid_of_a_real_coadd(root):
    from astropy.io import fits

    with fits.open(root / "aion/io/data/coadd-4-80613-thru20210324.fits.gz") as file:
        arms = [torch.as_tensor(file[f"{arm}_WAVELENGTH"].data.astype("f4")) for arm in "BRZ"]
    expected = torch.cat(arms).sort().values
    wavelength = empty_spectrum("desi_spectrum", 2, "cpu")[2]
    assert torch.equal(wavelength, expected.expand(2, -1))


@EVERY
@VARIED
def test_grids_have_one_length_and_never_decrease(name, varied):
    wavelength, arm = INSTRUMENTS[name].grid(Draws(0, torch.arange(500)), varied)
    assert wavelength.shape == (500, len(arm))
    assert (wavelength.diff(dim=1) >= 0).all()
    assert (wavelength[0] == wavelength).all() != varied


@EVERY
def test_no_pixel_sees_the_end_of_a_template(name):
    wavelength, _ = INSTRUMENTS[name].grid(Draws(0, torch.arange(3000)), True)
    position = (torch.log10(wavelength.aminmax(dim=1).min / (1 + MAX_REDSHIFT)) - FINE_START) / FINE_STEP
    assert position.min() > 25  # five sigma of the broadest smoothing
    position = (torch.log10(wavelength.amax(1) * (1 + 0.001)) - FINE_START) / FINE_STEP
    assert position.max() < FINE_SIZE - 25


@EVERY
@VARIED
@pytest.mark.parametrize(("which", "redshift"), [("halpha", 0.05), ("oiii_5007", 0.35), ("oii_3726", 0.9)])
def test_lines_fall_where_they_should_and_keep_their_flux(name, varied, which, redshift):
    z = torch.full((12,), redshift, dtype=torch.float64)
    flat = torch.ones(FINE_SIZE)
    with_line, _, wavelength = observe(name, source(z, flat, 400.0, which), varied, noise=False)
    without, _, _ = observe(name, source(z, flat), varied, noise=False)
    line = (with_line - without).double() / without.double()  # what dims the line dims the continuum too
    step = torch.gradient(wavelength.double(), dim=1)[0]
    centre = TEMPLATES.lines((which,)).item() * (1 + redshift)
    whole = (line * step).sum(1)
    assert (whole / 400 - 1).abs().max() < 0.05
    found = (line * step * wavelength).sum(1) / whole
    torch.testing.assert_close(found, torch.full_like(found, centre), rtol=0, atol=0.3)
    spread = ((line * step * (wavelength - centre) ** 2).sum(1) / whole).sqrt()
    assert (spread > 120 / 299792 * centre).all()  # the gas, and the instrument on top
    assert (spread < 220 / 299792 * centre).all()


@EVERY
def test_an_absorption_in_the_continuum_is_redshifted_and_smoothed(name):
    pixel = torch.arange(FINE_SIZE)
    depth = 0.8 * torch.exp(-0.5 * ((pixel - 4700) / 3.0) ** 2)
    z = torch.tensor([0.02, 0.2, 0.45], dtype=torch.float64)
    flux, _, wavelength = observe(name, source(z, 1 - depth), False, noise=False)
    smooth, _, _ = observe(name, source(z, torch.ones(FINE_SIZE)), False, noise=False)
    # The two differ in level too: the noise-free level is set by the object alone, so the ratio is the template.
    ratio = 1 - (flux / smooth).double()
    at = (ratio * wavelength).sum(1) / ratio.sum(1)
    expected = TEMPLATES.fine[4700] * (1 + z)
    torch.testing.assert_close(at, expected, rtol=0, atol=0.5)
    assert (ratio.amax(1) < 0.8).all()
    assert (ratio.amax(1) > 0.5).all()


@EVERY
@VARIED
def test_noise_is_as_reported(name, varied):
    z = torch.full((80,), 0.1, dtype=torch.float64)
    seen = source(z, torch.ones(FINE_SIZE), 50.0)
    noisy, ivar, _ = observe(name, seen, varied, noise=True)
    clean, same, _ = observe(name, seen, varied, noise=False)
    assert torch.equal(ivar, same)
    measured = ivar > 0
    chi = ((noisy - clean) * ivar.sqrt())[measured].double()
    assert (chi**2).mean().item() == pytest.approx(1, abs=0.02)
    assert abs(chi.mean()) < 0.01
    per_object = torch.stack([((a - b) ** 2 * w)[w > 0].mean() for a, b, w in zip(noisy, clean, ivar, strict=True)])
    assert 0.03 < per_object.std() < 0.2  # pipelines misjudge their noise by some percent


@EVERY
def test_signal_to_noise_follows_the_flux(name):
    """Of faint objects in proportion, for the sky makes the noise; of bright ones as the root, for their photons do."""
    z = torch.full((40,), 0.1, dtype=torch.float64)
    ratio = []
    for level in (0.03, 0.3, 300.0, 3000.0):
        flux, ivar, _ = observe(name, source(z, torch.full((FINE_SIZE,), level)), True, False)
        ratio.append((flux * ivar.sqrt()).median(1).values.median())
    assert ratio[1] / ratio[0] == pytest.approx(10, rel=0.1)
    assert ratio[3] / ratio[2] == pytest.approx(10**0.5, rel=0.1)
    # r of 20 to 21 in a fibre is a few units of flux: the S/N of a pixel that surveys report there.
    usual, ivar, _ = observe(name, source(z, torch.full((FINE_SIZE,), 4.0)), True, False)
    assert 1 < (usual * ivar.sqrt()).median(1).values.median() < 10


@EVERY
def test_masks_know_nothing_of_the_object(name):
    n = 24
    near, far = (torch.full((n,), z, dtype=torch.float64) for z in (0.003, 1.0))
    slope = torch.linspace(0.1, 5, FINE_SIZE)
    _, first, grid = observe(name, source(near, torch.ones(FINE_SIZE)), True, noise=True)
    _, second, same = observe(name, source(far, slope, 90.0), True, noise=True)
    assert torch.equal(first > 0, second > 0)
    assert torch.equal(grid, same)
    share = (first > 0).float().mean(1)
    assert share.min() > 0.5
    assert share.max() < 1
    assert share.std() > 0.02


@EVERY
def test_calibration_is_off_by_some_percent(name):
    z = torch.full((100,), 0.1, dtype=torch.float64)
    flux, _, _ = observe(name, source(z, torch.ones(FINE_SIZE)), False, noise=False)
    shape = flux / flux.mean(1, keepdim=True)
    spread = shape.std(0).mean().item()
    assert 0.01 < spread < 0.08
    assert (shape > 0.6).all()
    assert (flux.mean(1).log10().std() > 0.05).item()
    assert math.isfinite(spread)
