"""Spots: what is found is there, what is rendered is what was found."""

import math

import pytest
import torch

from aion.tokenizers.spots import AMPLITUDES, LEVELS, REACH, SIGMAS, Spots

BANDS = ("decam-g", "decam-r")


def blank(rows: int = 1, bands: int = 2, size: int = 32) -> torch.Tensor:
    return torch.zeros(rows, bands, size, size)


def bump(y: float, x: float, sigma: float, amplitude: float, size: int = 32) -> torch.Tensor:
    at = torch.arange(size)
    return amplitude * torch.exp(-0.5 * ((at[:, None] - y) ** 2 + (at - x) ** 2) / sigma**2)


def find(spots: Spots, residual: torch.Tensor, ivar: torch.Tensor, bands=BANDS) -> tuple[torch.Tensor, ...]:
    return spots.find(residual, ivar, (ivar > 0).any(1), bands)


def test_every_id_is_another_spot():
    spots = Spots(10)
    book = spots.codebook()
    assert book.shape == (spots.size, 4)
    assert book.abs().max() <= 1
    assert len(book.unique(dim=0)) == spots.size == 288


def test_rendering_is_the_sum_of_gaussians_of_unit_norm(generator):
    spots = Spots(10)
    ids = torch.randint(spots.size, (40,), generator=generator)
    owner, y, x = (torch.randint(n, (40,), generator=generator) for n in (3, 32, 32))
    colour, shape, amplitude = spots.describe(ids)
    expected = blank(3)
    for k in range(40):
        if colour[k] in (1, 2):  # g and r
            sigma = SIGMAS[shape[k]]
            reach = math.ceil(sigma * REACH)
            line = torch.exp(-0.5 * (torch.arange(-reach, reach + 1) / sigma) ** 2)
            at = torch.arange(32)
            near = ((at[:, None] - y[k]).abs() <= reach) & ((at - x[k]).abs() <= reach)
            profile = bump(float(y[k]), float(x[k]), sigma, float(amplitude[k])) / line.square().sum()
            expected[owner[k], colour[k] - 1] += profile * near
    flux, error = spots.render((owner, y, x, ids), blank(3), BANDS)
    torch.testing.assert_close(flux, expected, rtol=1e-4, atol=1e-4)
    assert error.isfinite().equal(expected != 0)


@pytest.mark.parametrize("amplitude", [-60.0, 25.0, 700.0])
@pytest.mark.parametrize("sigma", [0.5, 1.0, 1.8])
def test_a_source_is_carried_by_few_spots(amplitude, sigma):
    residual = blank()
    residual[0, 1] = bump(12.3, 19.8, sigma, amplitude)
    spots = Spots(60)
    found = find(spots, residual, torch.ones_like(residual))
    assert 1 <= len(found[0]) <= 60
    assert (spots.describe(found[3])[0] == 2).all()
    left = residual - spots.render(found, residual, BANDS)[0]
    assert left.square().sum() < 0.02 * residual.square().sum() + 50


def test_noise_has_hardly_any(generator):
    noise = torch.randn(16, 2, 32, 32, generator=generator)
    assert len(find(Spots(100), noise, torch.ones_like(noise))[0]) <= 2


def test_every_spot_lowers_the_chi_square_by_its_price(generator):
    residual = torch.randn(2, 2, 32, 32, generator=generator) + bump(10.0, 20.0, 1.5, 80.0)
    ivar = torch.rand(2, 2, 32, 32, generator=generator) + 0.5
    spots = Spots(200)
    found = find(spots, residual, ivar)
    chi2, flux = [(residual**2 * ivar).sum((1, 2, 3))], torch.zeros_like(residual)
    for k in range(len(found[0])):
        flux = flux + spots.render([part[k : k + 1] for part in found], residual, BANDS)[0]
        chi2.append(((residual - flux) ** 2 * ivar).sum((1, 2, 3)))
    drop = -torch.stack(chi2).sum(1).diff()
    assert len(drop) > 5
    assert drop.min() > spots.price / 2 - 1  # neighbours taken in one round overlap a little


def test_a_budget_is_kept_and_the_best_come_first():
    residual = torch.stack([bump(8.0, 8.0, 1.0, 40.0) + bump(22.0, 22.0, 1.0, 400.0)])[None]
    few = find(Spots(1), residual, torch.ones_like(residual), ("decam-r",))
    assert [int(part[0]) for part in few[1:3]] == [22, 22]
    assert len(few[0]) == 1
    more = find(Spots(3), residual, torch.ones_like(residual), ("decam-r",))
    assert len(more[0]) == 3
    assert all(part[0] == first[0] for part, first in zip(more, few, strict=True))


def test_rows_do_not_depend_on_each_other(generator):
    residual = 3 * torch.randn(3, 2, 32, 32, generator=generator) + bump(10.0, 20.0, 1.5, 300.0)
    ivar = torch.ones_like(residual)
    ivar[2, 1] = 0
    together = find(Spots(50), residual, ivar)
    for row in range(3):
        alone = find(Spots(50), residual[row : row + 1], ivar[row : row + 1])
        own = together[0] == row
        for part, whole in zip(alone[1:], together[1:], strict=True):
            assert part.equal(whole[own])


def test_what_is_not_measured_influences_nothing(generator):
    residual = torch.randn(1, 2, 32, 32, generator=generator) + bump(10.0, 20.0, 1.5, 30.0)
    ivar = torch.ones_like(residual)
    ivar[:, :, 16:] = 0
    ivar[:, 0, 9] = 0
    poisoned = residual.masked_fill(ivar == 0, 1e6)
    first, second = (find(Spots(50), x, ivar) for x in (residual, poisoned))
    assert len(first[0]) > 0
    assert all(a.equal(b) for a, b in zip(first, second, strict=True))
    assert first[1].max() < 16


def test_bands_of_one_colour_share_spots_and_others_get_none():
    residual = torch.stack([bump(10.0, 20.0, 1.0, 50.0)] * 2)[None]
    spots = Spots(50)
    found = find(spots, residual, torch.ones_like(residual), ("decam-g", "hsc-g"))
    like = blank(bands=3)
    flux, error = spots.render(found, like, ("hsc-g", "sdss-u", "hsc-y"))
    assert (residual[0, 0] - flux[0, 0]).abs().max() < 8
    assert (flux[0, 1:] == 0).all()
    assert error[0, 1:].isinf().all()


@pytest.mark.parametrize("scale", [1e-12, 1e12, 1e30])
def test_numbers_of_any_size_are_survived(scale):
    residual = scale * bump(10.0, 20.0, 1.0, 50.0)[None, None]
    spots = Spots(5)
    found = find(spots, residual, torch.ones_like(residual), ("decam-r",))
    assert len(found[0]) == (0 if scale < 1 else 5)
    assert spots.render(found, residual, ("decam-r",))[0].isfinite().all()


def test_amplitudes_reach_from_what_noise_hides_to_bright_stars():
    sizes = Spots(1).describe(torch.arange(288))[2].abs().unique()
    assert len(sizes) == LEVELS
    assert sizes[0] == AMPLITUDES[0] == pytest.approx(24**0.5, rel=0.05)
    assert sizes[-1] > 3000
