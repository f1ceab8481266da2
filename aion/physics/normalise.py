r"""The scales of a window: inputs are divided by the RMS of the values, predictions multiplied by that of the
increments.

For the frames :math:`x_1 \dots x_T` of one trajectory, :math:`s = \max(\mathrm{RMS}(x_t), \epsilon)` and
:math:`\delta = \max(\mathrm{RMS}(x_{t+1} - x_t), \epsilon)` over time and space, for each field. No mean is
subtracted, so that zero stays zero. Components of one quantity can share both scales: if the small cross-stream
velocity of a laminar flow had scales of its own, all that the model says of it would be multiplied by an increment of
nearly nothing.

References:
    | Walrus: A Cross-Domain Foundation Model for Continuum Dynamics (McCabe et al., 2025), arXiv 2511.15684
"""

__all__ = ["EPSILON", "window_scales"]

from collections.abc import Sequence

import torch

from torch import Tensor

from aion.physics.flow import quantity

EPSILON = 5e-6


def window_scales(values: Tensor, fields: Sequence[str], shared: bool = True) -> tuple[Tensor, Tensor]:
    """Computes the RMS of values and of increments.

    Arguments:
        values: `(B, T, F, *space)`, finite, with at least two frames.
        fields: names of the F fields.
        shared: gives the components of a quantity one scale.

    Returns:
        Both scales, `(B, 1, F, 1, ...)`, at least `EPSILON`.
    """
    return _rms(values, fields, shared), _rms(values.diff(dim=1), fields, shared)


def _rms(values: Tensor, fields: Sequence[str], shared: bool) -> Tensor:
    axes = [1, *range(3, values.ndim)]
    rms = _scaled(values, axes)
    if shared:
        names = [quantity(field) for field in fields]
        groups = [[k for k, name in enumerate(names) if name == own] for own in names]
        rms = torch.cat([_scaled(rms[:, :, group], [2]) for group in groups], dim=2)
    return rms.clamp(min=EPSILON)


def _scaled(values: Tensor, axes: Sequence[int]) -> Tensor:
    """Computes a root mean square whose squares neither overflow nor vanish in float32."""
    peak = values.abs().amax(axes, keepdim=True).clamp(min=EPSILON)
    return (values / peak).square().mean(axes, keepdim=True).sqrt() * peak
