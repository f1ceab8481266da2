r"""`draw_controls`: directions that mean nothing, to compare one that should with.

| kind | drawn | length |
|---|---|---|
| isotropic | evenly from all directions | that of the direction |
| covariance | from the covariance within the groups, without its part along the direction | the same |
| split_half | difference of the means of two random halves of one group | its own |
| split_half_orthogonal | the same without its part along the direction | that of the direction |

Isotropic directions are a weak control: activations vary along few axes, to which the model answers. The direction
itself is mostly along the first of these, so that what is drawn from the covariance is much like it (or its opposite)
unless that part is taken out. Two halves of one group differ by chance alone; at their own length they ask whether so
few objects could have made the direction.
"""

__all__ = ["KINDS", "draw_controls"]

from collections.abc import Sequence
from dataclasses import replace

import torch

from torch import Tensor

from aion.observations import near_miss
from aion.steering.direction import Direction

KINDS = ("isotropic", "covariance", "split_half", "split_half_orthogonal")


def draw_controls(
    direction: Direction,
    count: int = 64,
    kinds: Sequence[str] = KINDS,
    generator: torch.Generator | None = None,
) -> dict[str, list[Direction]]:
    """Draws controls of each kind.

    Arguments:
        direction: a fitted one; if it has places they are averaged over.
        count: number of each kind, at most the number of halves the direction was fitted with.
        kinds: see above.
        generator: source of the draws; by default one of seed 0.

    Raises:
        ValueError: for an unknown kind (with the near misses), a count below 1 or beyond the halves there are, or a
            direction without covariance or halves.
    """
    generator = generator or torch.Generator().manual_seed(0)
    direction = direction.channels()
    if count < 1:
        msg = f"draw_controls: wanted at least 1 of each kind, given {count}"
        raise ValueError(msg)
    drawn = {}
    for kind in kinds:
        if kind not in KINDS:
            msg = f"draw_controls: unknown kind {kind!r}; {near_miss(kind, KINDS)}"
            raise ValueError(msg)
        vectors = _vectors(direction, kind, count, generator)
        drawn[kind] = [replace(direction, vector=v.float(), method=kind, means=None) for v in vectors]
    return drawn


def _vectors(direction: Direction, kind: str, count: int, generator: torch.Generator) -> Tensor:
    vector = direction.vector.double()
    if kind.startswith("split_half"):
        vectors = _known(direction.halves, kind)[:count].double()
        if len(vectors) < count:
            msg = f"draw_controls: the direction keeps {len(vectors)} halves, wanted {count}: fit it with more halves="
            raise ValueError(msg)
        if kind == "split_half":
            return vectors
    else:
        vectors = torch.randn(count, len(vector), dtype=torch.float64, generator=generator)
    if kind == "covariance":
        values, axes = torch.linalg.eigh(_known(direction.covariance, kind).double())
        vectors = (vectors * values.clamp(min=0).sqrt()) @ axes.T
    if kind != "isotropic":
        unit = vector / vector.norm()
        vectors = vectors - (vectors @ unit)[:, None] * unit
    return vectors * (vector.norm() / vectors.norm(dim=1, keepdim=True))


def _known(statistic: Tensor | None, kind: str) -> Tensor:
    if statistic is None:
        msg = f"draw_controls: kind {kind!r} needs a direction fitted to 4 objects of each group; or choose kinds="
        raise ValueError(msg)
    return statistic
