import pytest
import torch

from aion.sky.draws import Draws
from aion.sky.galaxies import MAX_REDSHIFT, galaxy_parameters, galaxy_source
from aion.sky.source import LINES
from aion.sky.templates import Templates

TEMPLATES = Templates.load()
DRAWS = Draws(0, torch.arange(400))


@pytest.fixture(scope="module")
def galaxies():
    parameters = galaxy_parameters(DRAWS, 1.0) | {"ebv": torch.zeros(400, dtype=torch.float64)}
    return parameters, galaxy_source(DRAWS, parameters, TEMPLATES)


def test_light_is_positive_and_finite(galaxies):
    _, source = galaxies
    assert source.fine.isfinite().all()
    assert (source.fine > 0).all()
    assert (source.wide[:, 100:] > 0).all()
    assert (source.line >= 0).all()


def test_parameters_are_finite_and_complete(galaxies):
    parameters, _ = galaxies
    for name, value in parameters.items():
        assert value.shape == (400,), name
        assert value.isfinite().all(), name
    assert (torch.hypot(parameters["e1"], parameters["e2"]) < 1).all()
    assert parameters["magnitude"].min() >= 15
    assert parameters["magnitude"].max() <= 22.5
    assert 0.2 < parameters["quiet"].mean() < 0.5


@pytest.mark.parametrize(
    ("one", "other", "ratio"),
    [("oiii_5007", "oiii_4959", 2.98), ("nii_6584", "nii_6548", 2.94), ("siii_9532", "siii_9069", 2.47)],
)
def test_atoms_fix_the_ratios_of_doublets(galaxies, one, other, ratio):
    parameters, source = galaxies
    found = (source.line[:, LINES.index(one)] / source.line[:, LINES.index(other)])[parameters["dust"] < 0.05]
    torch.testing.assert_close(found, torch.full_like(found, ratio), rtol=0.03, atol=0)  # dust between the two


def test_balmer_decrement_is_case_b_without_dust_and_steeper_with(galaxies):
    parameters, source = galaxies
    decrement = source.line[:, LINES.index("halpha")] / source.line[:, LINES.index("hbeta")]
    assert (decrement > 2.85).all()
    expected = torch.log10(decrement / 2.86) * 2.5 / (parameters["dust"] / 0.44)
    # k(H beta) - k(H alpha) of Calzetti is 4.60 - 3.33
    assert expected[parameters["dust"] > 0.05].mean().item() == pytest.approx(1.27, abs=0.03)


def test_lines_follow_young_stars(galaxies):
    parameters, source = galaxies
    width = source.line[:, LINES.index("halpha")] / source.fine[:, 5880:5920].mean(1) / (1 + parameters["redshift"])
    plain = parameters["agn"] == 0
    quiet = parameters["quiet"] > 0
    assert width[plain & quiet].median() < 2
    assert width[plain & ~quiet].median() > 10
    assert width.max() < 3000


def test_active_nuclei_have_their_ratios(galaxies):
    parameters, source = galaxies
    ratio = torch.log10(source.line[:, LINES.index("nii_6584")] / source.line[:, LINES.index("halpha")])
    excitation = torch.log10(source.line[:, LINES.index("oiii_5007")] / source.line[:, LINES.index("hbeta")])
    agn, forming = parameters["agn"] > 0, (parameters["agn"] == 0) & (parameters["quiet"] == 0)
    # The line of Kewley et al. 2001 divides them.
    above = excitation > 0.61 / (ratio.clamp(max=0.4) - 0.47) + 1.19
    assert above[agn].float().mean() > 0.8
    assert above[forming].float().mean() < 0.1


def test_old_galaxies_have_breaks_and_young_ones_have_not(galaxies):
    parameters, source = galaxies
    position = [round((torch.log10(torch.tensor(w)).item() - 3.2304) / 1e-4) for w in (3850.0, 3950.0, 4000.0, 4100.0)]
    jump = source.fine[:, position[2] : position[3]].mean(1) / source.fine[:, position[0] : position[1]].mean(1)
    old = parameters["log_age"] > 0.6
    young = parameters["log_age"] < -1
    assert jump[old].median() > 1.3
    assert jump[young].median() < 1.1


def test_templates_are_mixed_the_same_in_any_batch(galaxies):
    parameters, source = galaxies
    rows = torch.tensor([399, 7])
    few = galaxy_source(DRAWS[rows], {k: v[rows] for k, v in parameters.items()}, TEMPLATES)
    assert torch.equal(few.fine, source.fine[rows])
    assert torch.equal(few.wide, source.wide[rows])
    assert torch.equal(few.line, source.line[rows])


def test_highest_redshift_keeps_the_blue_end_inside():
    assert 3540 / (1 + MAX_REDSHIFT) > 10**3.2304
