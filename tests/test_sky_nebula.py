"""Where galaxies lie on the diagram of Baldwin, Phillips and Terlevich."""

import pytest
import torch

from aion.sky.draws import Draws
from aion.sky.galaxies import galaxies_at, galaxy_source
from aion.sky.source import LINES
from aion.sky.templates import Templates

TEMPLATES = Templates.load()


@pytest.fixture(scope="module")
def seen():
    draws = Draws(0, torch.arange(1500))
    z = 0.02 + 0.1 * draws.uniform("z")
    p = galaxies_at(draws, z, 15.5 + 4 * draws.uniform("m")) | {"ebv": 0 * z}
    return p, galaxy_source(draws, p, TEMPLATES)


def ratio(source, one: str, other: str) -> torch.Tensor:
    return torch.log10(source.line[:, LINES.index(one)] / source.line[:, LINES.index(other)]).double()


def test_star_forming_galaxies_follow_the_observed_sequence(seen):
    """Below the curve of Kauffmann et al. (2003), and along it: [O III] falls as [N II] rises."""
    p, source = seen
    forming = (p["agn"] == 0) & (p["quiet"] == 0)
    x, y = ratio(source, "nii_6584", "halpha")[forming], ratio(source, "oiii_5007", "hbeta")[forming]
    curve = 0.61 / (x.clamp(max=0.0) - 0.05) + 1.3
    assert ((y < curve) & (x < 0)).double().mean() > 0.7
    assert torch.corrcoef(torch.stack([x, y]))[0, 1] < -0.7
    # The ridge of SDSS: log [O III]/H beta of some 0.3 at log [N II]/H alpha = -1, of some -0.4 at -0.4.
    for at, expected in ((-1.0, 0.3), (-0.4, -0.35)):
        near = (x - at).abs() < 0.12
        assert near.sum() > 15
        assert y[near].median().item() == pytest.approx(expected, abs=0.2)


def test_equivalent_widths_are_those_of_nearby_galaxies(seen):
    p, source = seen
    pixel = (torch.log10(torch.tensor(6600.0)) - torch.log10(TEMPLATES.fine[0])).div(1e-4).round().long().item()
    continuum = source.fine[:, pixel - 30 : pixel + 30].mean(1) * (1 + p["redshift"])
    width = source.line[:, LINES.index("halpha")] / continuum
    plain = p["agn"] == 0
    assert 8 < width[plain & (p["quiet"] == 0)].median() < 60
    assert width[plain & (p["quiet"] > 0)].median() < 3


def test_every_line_shines_in_every_galaxy(seen):
    _, source = seen
    assert source.line.isfinite().all()
    named = [LINES.index(name) for name in ("halpha", "hbeta", "oiii_5007", "nii_6584", "oii_3729")]
    assert (source.line[:, named] > 0).all()
