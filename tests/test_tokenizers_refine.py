"""Atoms: what is found is there, what is rendered is what was found."""

import pytest
import torch

from aion.tokenizers.ladder import Ladder
from aion.tokenizers.refine import REACH, Atoms, clipped

RUNGS, CELLS = 12, 16


@pytest.fixture
def window():
    ladder = Ladder(3000.0, 9000.0, 0.005, CELLS, (0,))
    needed = torch.zeros(1, ladder.total(0), dtype=torch.bool)
    needed[0, :RUNGS] = True
    return ladder.window(0, needed)


def grid(rows: int = 1, pixels: int = 480) -> torch.Tensor:
    return (torch.arange(pixels, dtype=torch.float64) + 0.37).expand(rows, -1) * RUNGS * CELLS / pixels


def bump(node: torch.Tensor, centre: float, sigma: float, amplitude: float) -> torch.Tensor:
    return (amplitude * torch.exp(-0.5 * ((node - centre) / sigma) ** 2)).float()


def find(atoms: Atoms, residual: torch.Tensor, ivar: torch.Tensor, window, budget: int = 10):
    measured = torch.ones(len(residual), RUNGS, dtype=torch.bool)
    most = torch.full((len(residual),), budget)
    return atoms.find(residual, ivar, grid(len(residual)), ivar > 0, measured, window, most)


def test_every_id_is_another_atom():
    atoms = Atoms(CELLS)
    book = atoms.codebook()
    assert book.shape == (atoms.size, 4)
    assert book.abs().max() <= 1
    assert len(book.unique(dim=0)) == atoms.size == 4096


def test_rendering_is_the_sum_of_gaussians(generator):
    atoms, node = Atoms(CELLS), grid(3)
    ids = torch.randint(atoms.size, (3, 6), generator=generator)
    rung = torch.randint(RUNGS, (3, 6), generator=generator)
    valid = torch.rand(3, 6, generator=generator) < 0.7
    offset, sigma, amplitude = atoms.describe(ids)
    expected = torch.zeros(node.shape)
    for b, a in valid.nonzero().tolist():
        u = (node[b] - rung[b, a] * CELLS - offset[b, a]) / sigma[b, a]
        expected[b] += (amplitude[b, a] * torch.exp(-0.5 * u**2) * (u.abs() <= REACH)).float()
    torch.testing.assert_close(atoms.render(rung, ids, valid, node), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("amplitude", [-40.0, 0.5, 7.0, 300.0])
@pytest.mark.parametrize("sigma", [0.5, 1.1, 3.0])
def test_a_line_is_carried_by_few_atoms(window, amplitude, sigma):
    atoms, node = Atoms(CELLS), grid()
    line, ivar = bump(node, 70.3, sigma, amplitude), torch.full((1, 480), (50 / amplitude) ** 2)
    rung, ids, valid = find(atoms, line, ivar, window, budget=8)
    assert 1 <= valid.sum() <= 6
    assert (rung - 70.3 / CELLS + 0.5).abs().max() <= 1
    left = (line - atoms.render(rung, ids, valid, node)).square() * ivar
    assert left.sum() < 0.02 * (line.square() * ivar).sum()


def test_each_atom_lowers_the_chi_square_by_more_than_the_threshold(window, generator):
    atoms = Atoms(CELLS)
    node, ivar = grid(4), torch.rand(4, 480, generator=generator) * 4
    lines = sum(bump(node, c, s, a) for c, s, a in ((20, 1, 30), (23, 2, -8), (100.4, 0.6, 90), (150, 3, 3)))
    residual = lines + torch.randn(4, 480, generator=generator) / ivar.sqrt().clamp(min=1e-3)
    residual = torch.where(ivar > 0, residual, 0.0)
    rung, ids, valid = find(atoms, residual, ivar, window, budget=30)
    before = (residual.square() * ivar).sum(1)
    after = ((residual - atoms.render(rung, ids, valid, node)).square() * ivar).sum(1)
    assert (before - after > 0.9 * atoms.threshold * valid.sum(1)).all()
    assert (after - 480 < 0.01 * before).all()


def test_noise_alone_makes_next_to_no_atoms(window, generator):
    residual = torch.randn(50, 480, generator=generator)
    _, _, valid = find(Atoms(CELLS), residual, torch.ones(50, 480), window, budget=30)
    assert valid.sum() <= 2


def test_the_budget_goes_to_the_strongest(window):
    node = grid()
    residual = bump(node, 30.25, 0.8, 5.0) + bump(node, 90.25, 0.8, 50.0) + bump(node, 150.25, 0.8, 5.0)
    rung, _, valid = find(Atoms(CELLS), residual, torch.full((1, 480), 100.0), window, budget=1)
    assert valid.sum() == 1
    assert rung[0, 0] == 90 // CELLS


def test_unmeasured_pixels_and_rungs_have_no_atoms(window):
    node = grid()
    residual = bump(node, 100.0, 1.0, 50.0) + 1e6 * ((node > 20) & (node < 40))
    ivar = 100.0 * ~((node > 20) & (node < 40))
    rung, _, valid = find(Atoms(CELLS), residual.float(), ivar.float(), window)
    assert set(rung[valid].tolist()) <= {5, 6}
    measured = torch.ones(1, RUNGS, dtype=torch.bool)
    measured[0, 5:8] = False
    most = torch.tensor([9])
    rung, _, valid = Atoms(CELLS).find(residual.float(), ivar.float(), node, ivar > 0, measured, window, most)
    assert not torch.isin(rung[valid], torch.tensor([5, 6, 7])).any()


def test_one_alone_is_the_same_as_in_a_batch(window, generator):
    node = grid(5)
    residual = torch.randn(5, 480, generator=generator)
    for i in range(5):
        residual[i] += bump(node[i], 20 + 30 * i, 1.0, 4.0 * 3**i)
    atoms, ivar = Atoms(CELLS), torch.full((5, 480), 25.0)
    rung, ids, valid = find(atoms, residual, ivar, window, budget=7)
    for i in range(5):
        alone = find(atoms, residual[i : i + 1], ivar[i : i + 1], window, budget=7)
        assert torch.equal(alone[0][alone[2]], rung[i][valid[i]])
        assert torch.equal(alone[1][alone[2]], ids[i][valid[i]])


@pytest.mark.parametrize("ivar", [1e-30, 1e30])
def test_extreme_ivar_gives_finite_atoms(window, ivar):
    node = grid()
    atoms = Atoms(CELLS)
    rung, ids, valid = find(atoms, bump(node, 50.0, 1.0, 1e5), torch.full((1, 480), ivar), window, budget=5)
    flux = atoms.render(rung, ids, valid, node)
    assert torch.isfinite(flux).all()
    assert flux.abs().max() <= 5 * atoms.describe(torch.arange(atoms.size))[2].max() * 1.01


def test_each_spectrum_has_its_own_budget(window):
    node = grid(3)
    residual = sum(bump(node, c, 0.8, 50.0) for c in (30.25, 90.25, 150.25))
    measured, ivar = torch.ones(3, RUNGS, dtype=torch.bool), torch.full((3, 480), 100.0)
    most = torch.tensor([0, 2, 3])
    _, _, valid = Atoms(CELLS).find(residual, ivar, node, ivar > 0, measured, window, most)
    assert valid.sum(1).tolist() == [0, 2, 3]
    assert most.tolist() == [0, 2, 3]


@pytest.mark.parametrize("sigma", [1.3, 6.0])
def test_swells_set_a_continuum_right(window, sigma):
    swells = Atoms(CELLS, 16, (1.0, 2.0, 4.0, 8.0), 16, (0.002, 2.0))
    node = grid()
    wrong, ivar = bump(node, 70.3, sigma, 0.11), torch.full((1, 480), 1e6)
    rung, ids, valid = find(swells, wrong, ivar, window, budget=8)
    left = (wrong - swells.render(rung, ids, valid, node)).square()
    assert left.sum() < 0.02 * wrong.square().sum()


def test_clipping_spares_the_continuum_and_limits_lines():
    residual = torch.full((2, 100), 0.1)
    residual[0, 50], residual[1] = 30.0, -0.1
    used = torch.ones(2, 100, dtype=torch.bool)
    limited = clipped(residual, used)
    assert limited[0, 50].item() == pytest.approx(0.4)
    assert torch.equal(limited[1], residual[1])
    assert torch.equal(clipped(residual, ~used), torch.zeros_like(residual))
