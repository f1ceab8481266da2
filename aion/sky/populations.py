r"""Star-formation histories over 54 stellar populations, and the masses, ages and rates that follow from them.

A galaxy has formed stars since its onset as :math:`\psi(t) \propto t\,e^{-t/\tau}`, some with a burst on top or with an
end long ago. The mass formed at every age is shared between the two populations that are nearest in log age, and the
light of a population per mass is the published one, so that mass, age and rate are those of the light that is seen.

References:
    | Evolutionary stellar population synthesis with MILES (Vazdekis et al., 2010), arXiv 1004.4439: V magnitudes and
      surviving mass of populations with the universal Kroupa initial mass function, Padova isochrones
    | Colour-magnitude relations and star formation histories: delayed models as in What shapes a galaxy? (Simha et al.,
      2014), arXiv 1404.0402
"""

__all__ = ["History", "age_of_universe", "draw_history"]

import math

from dataclasses import dataclass

import torch

from torch import Tensor

from aion.sky.draws import Draws
from aion.sky.templates import Templates

AGES, METALLICITIES = 9, 6
STEP = 2.0**-22  # of the mixing weights, see `Templates`
# Absolute V (Vega) of one solar mass formed, by age (3.2 Myr to 14 Gyr) and metallicity (-1.35 to 0.35). The three
# youngest, which the published models lack, go on by 1.4 mag per dex of age.
_MAGNITUDE = (
    (0.83, 0.85, 0.88, 0.89, 0.92, 1.09),
    (1.53, 1.55, 1.58, 1.59, 1.62, 1.79),
    (2.22, 2.25, 2.28, 2.29, 2.32, 2.49),
    (2.93, 2.96, 2.99, 3.02, 3.11, 3.27),
    (3.45, 3.56, 3.64, 3.79, 3.91, 4.02),
    (4.35, 4.46, 4.56, 4.73, 4.94, 5.11),
    (5.29, 5.43, 5.54, 5.80, 6.05, 6.29),
    (6.25, 6.39, 6.51, 6.78, 7.04, 7.26),
    (6.60, 6.73, 6.85, 7.12, 7.40, 7.66),
)
_SURVIVING = (0.99, 0.95, 0.90, 0.846, 0.81, 0.775, 0.740, 0.718, 0.711)  # share of the mass in stars and remnants
_CELLS = 72  # of age, from 1 Myr to 13.8 Gyr


@dataclass(frozen=True, eq=False)
class History:
    """Says how stars formed, per solar mass of all that ever formed.

    Arguments:
        weight: share of each population in the light at 5500 A, `(B, 54)`, multiples of 2^-22.
        magnitude: absolute V (Vega) of one solar mass formed, `(B,)`.
        surviving: share of the mass that is left in stars and remnants, `(B,)`.
        log_age: log10 of the age in Gyr, mean over the light, `(B,)`.
        mass_age: mean age over the mass in Gyr, `(B,)`.
        young: share of the light from stars younger than some 0.2 Gyr, `(B,)`.
        rate: solar masses formed per year in the last 10 Myr, `(B,)`.
        log_ssfr: log10 of the rate of the last 100 Myr over the mass that is left, per year, at least -14, `(B,)`.
    """

    weight: Tensor
    magnitude: Tensor
    surviving: Tensor
    log_age: Tensor
    mass_age: Tensor
    young: Tensor
    rate: Tensor
    log_ssfr: Tensor


def age_of_universe(redshift: Tensor) -> Tensor:
    """Returns the age in Gyr at a redshift, flat cosmology with H0 = 70 km/s/Mpc and Omega_m = 0.3."""
    return 13.9684 * 2 / (3 * math.sqrt(0.7)) * torch.asinh(math.sqrt(0.7 / 0.3) * (1 + redshift) ** -1.5)


def _hats(value: Tensor, grid: Tensor) -> Tensor:
    """Returns the shares `(B, N)` of the two nodes of a grid `(N,)` that are nearest to a value `(B,)`."""
    value = value.clamp(grid[0], grid[-1])
    index = (torch.searchsorted(grid, value, right=True) - 1).clamp(0, len(grid) - 2)
    t = ((value - grid[index]) / (grid[index + 1] - grid[index]))[:, None]
    cell = torch.arange(len(grid), device=grid.device)
    return (cell == index[:, None]) * (1 - t) + (cell == index[:, None] + 1) * t


def draw_history(draws: Draws, redshift: Tensor, quiet: Tensor, metallicity: Tensor, templates: Templates) -> History:
    """Draws histories of galaxies.

    Arguments:
        draws: of the galaxies.
        redshift: `(B,)`; no star is older than the universe was.
        quiet: whether a galaxy has all but ended to form stars, `(B,)`.
        metallicity: of all its stars, log10 of solar, `(B,)`.
        templates: where the grids of the populations are.
    """
    log_ages, grid = (templates.data[name].to(torch.float64) for name in ("galaxy.log_age", "galaxy.metallicity"))
    edges = torch.linspace(-3, math.log10(13.8), _CELLS + 1, dtype=torch.float64, device=redshift.device)
    middle, width = 10 ** ((edges[1:] + edges[:-1]) / 2), (10**edges).diff()
    mass = _formed(draws, age_of_universe(redshift), quiet, middle, width)
    mass = mass / mass.sum(1, keepdim=True)
    # Sums, no matrix products: those may round differently in another batch.
    by_age = (mass[:, :, None] * _hats(middle.log10(), log_ages)).sum(1)
    shares = _hats(metallicity, grid)
    light = 10 ** (-0.4 * torch.tensor(_MAGNITUDE, dtype=torch.float64, device=redshift.device))
    light = by_age[:, :, None] * shares[:, None, :] * light
    total = light.sum((1, 2))
    light = light / total[:, None, None]
    surviving = (by_age * by_age.new_tensor(_SURVIVING)).sum(1)
    recent = (mass * (middle < 0.1)).sum(1) / 1e8 / surviving
    return History(
        weight=(light.flatten(1) / STEP).round() * STEP,
        magnitude=-2.5 * torch.log10(total),
        surviving=surviving,
        log_age=(light.sum(2) * log_ages).sum(1),
        mass_age=(mass * middle).sum(1),
        young=light[:, :4].sum((1, 2)),
        rate=(mass * (middle < 0.01)).sum(1) / 1e7,
        log_ssfr=recent.clamp(min=1e-14).log10(),
    )


def _formed(draws: Draws, universe: Tensor, quiet: Tensor, age: Tensor, width: Tensor) -> Tensor:
    """Returns the mass formed in every cell of age, `(B, cells)`, in any unit."""
    u = draws.uniform("galaxy.history", count=8)
    onset = universe * torch.where(quiet, 0.8 + 0.17 * u[:, 0], 0.6 + 0.35 * u[:, 0])
    # A quiet galaxy is at least 7.5 e-folding times old, if the universe is.
    tau = torch.where(quiet, onset / (7.5 + 9.0 * u[:, 1]), 10 ** (0.15 + 0.6 * u[:, 1]))
    since = (onset[:, None] - age).clamp(min=0)
    rate = since / onset[:, None] * torch.exp(-since / tau[:, None])
    # One in ten of those that form stars stopped, within the last Gyr.
    ended = torch.where(~quiet & (u[:, 2] < 0.08) & (universe > 6.5), 10 ** (-1.0 + 1.0 * u[:, 3]), 0.0)
    mass = rate * (age > ended[:, None]) * width
    mass = mass / mass.sum(1, keepdim=True)
    burst = 10 ** (-3.5 + 2.1 * u[:, 4]) * ((u[:, 5] < torch.where(quiet, 0.03, 0.25)) & (ended == 0))
    length = 10 ** (-1.8 + 1.3 * u[:, 6])
    burst_mass = width * (age < length[:, None])
    return mass + burst[:, None] * burst_mass / burst_mass.sum(1, keepdim=True)
