import pytest
import torch

from aion.sky.draws import Draws
from aion.sky.galaxies import MAX_REDSHIFT, galaxies_at, galaxy_parameters, galaxy_source, galaxy_truth
from aion.sky.populations import age_of_universe, draw_history
from aion.sky.source import LINES
from aion.sky.templates import FINE_START, Templates

TEMPLATES = Templates.load()
DRAWS = Draws(0, torch.arange(400))


@pytest.fixture(scope="module")
def galaxies():
    parameters = galaxy_parameters(DRAWS, 1.0) | {"ebv": torch.zeros(400, dtype=torch.float64)}
    return parameters | galaxy_truth(DRAWS, parameters, TEMPLATES), galaxy_source(DRAWS, parameters, TEMPLATES)


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
    assert parameters["magnitude"].max() <= 23.5
    assert 0.15 < parameters["quiet"].mean() < 0.5


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
    position = [
        round((torch.log10(torch.tensor(w)).item() - FINE_START) / 1e-4) for w in (3850.0, 3950.0, 4000.0, 4100.0)
    ]
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


def test_masses_and_rates_are_those_of_galaxies(galaxies):
    parameters, _ = galaxies
    quiet, bright = parameters["quiet"] > 0, parameters["absolute"] < -20
    assert 10.5 < parameters["log_mass"][quiet & bright].median() < 11.6
    assert parameters["log_mass"].max() < 12.6
    assert (parameters["log_ssfr"][quiet].median() < -11.5) & (parameters["log_ssfr"][~quiet].median() > -10.8)
    assert (parameters["log_ssfr"] >= -14).all()
    assert (parameters["mass_age"] < age_of_universe(parameters["redshift"])).all()
    # Light is younger than mass.
    assert (10 ** parameters["log_age"] < parameters["mass_age"] * 1.3).double().mean() > 0.95


def test_the_mass_of_a_population_is_the_published_one():
    """A solar population of some Gyr seen at 10 pc, one solar mass: M_V between those of its ages."""
    draws, z = Draws(3, torch.arange(200)), torch.full((200,), 0.01, dtype=torch.float64)
    quiet = torch.ones(200, dtype=torch.bool)
    history = draw_history(draws, z, quiet, 0 * z, TEMPLATES)
    old = history.log_age > 0.8
    assert old.sum() > 50
    # 6.05 at 3 Gyr, 7.04 at 9 Gyr and 7.40 at 14 Gyr.
    assert ((history.magnitude[old] > 6.05) & (history.magnitude[old] < 7.4)).all()
    assert ((history.surviving > 0.7) & (history.surviving < 0.85)).all()
    torch.testing.assert_close(history.weight.sum(1), torch.ones_like(z), rtol=0, atol=1e-4)


def test_bright_galaxies_of_a_redshift_are_more_often_quiet():
    z = torch.full((3000,), 0.1, dtype=torch.float64)
    draws = Draws(1, torch.arange(3000))
    shares = [galaxies_at(draws, z, z * 0 + magnitude)["quiet"].mean() for magnitude in (16.5, 17.7, 19.5)]
    assert shares[0] > shares[1] > shares[2]


def test_highest_redshift_keeps_the_blue_end_inside():
    assert 3540 / (1 + MAX_REDSHIFT) > 10**FINE_START
