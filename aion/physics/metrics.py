r"""How far predicted fields are from true ones.

The variance-scaled root mean square error of a field is :math:`\sqrt{\langle (x - y)^2 \rangle / (\mathrm{Var}(y) +
\epsilon)}`, with mean and variance over space: 1 is what the mean of the field would score. Where a field is nearly
uniform the variance of a frame says little (the error of a negligible cross-stream velocity can be several); `pool`
takes it over more.

References:
    | The Well: a Large-Scale Collection of Diverse Physics Simulations for Machine Learning (Ohana et al., 2024),
      arXiv 2412.00568
"""

__all__ = ["persistence", "spectrum", "spectrum_error", "vrmse"]

import torch

from torch import Tensor

from aion.physics.flow import Flow, quantity

POOLS = ("frame", "trajectory", "quantity")


def vrmse(predicted: Flow, true: Flow, pool: str = "frame", epsilon: float = 1e-7) -> Tensor:
    """Computes the variance-scaled error of each trajectory, frame and field, `(B, T, F)`.

    Arguments:
        predicted: NaN (a roll-out that went astray) scores infinity.
        true: flow of the same fields, frames and grid, finite.
        pool: over what the variance is taken: space (`"frame"`, as The Well does), space and time (`"trajectory"`), or
            the components of a vector too (`"quantity"`).
        epsilon: added to the variance, so that constant fields score finitely.

    Raises:
        ValueError: for flows that do not match or an unknown `pool`.
    """
    if predicted.values.shape != true.values.shape or predicted.fields != true.fields:
        given = [(tuple(flow.values.shape), flow.fields) for flow in (predicted, true)]
        msg = f"vrmse: wanted flows of the same frames, fields and grid, given {given[0]} and {given[1]}"
        raise ValueError(msg)
    if pool not in POOLS:
        msg = f"vrmse: pool must be one of {', '.join(POOLS)}, given {pool!r}"
        raise ValueError(msg)
    truth = true.values.flatten(3).double()
    error = (predicted.values.flatten(3).double() - truth).square().mean(3)
    axes = (3,) if pool == "frame" else (1, 3)
    variance = truth.var(axes, keepdim=True).mean(3)  # unbiased, as The Well's
    if pool == "quantity":
        names = [quantity(field) for field in true.fields]
        same = torch.tensor([[float(a == b) for b in names] for a in names], dtype=truth.dtype, device=truth.device)
        variance = variance @ (same / same.sum(1, keepdim=True))
    return torch.nan_to_num((error / (variance + epsilon)).sqrt(), nan=torch.inf)


def persistence(window: Flow, steps: int) -> Flow:
    """Returns the last frame of a window, repeated: what every model has to beat."""
    last = window.values[:, -1:]
    return window.replace(values=last.expand(-1, steps, *last.shape[2:]))


def spectrum(values: Tensor) -> Tensor:
    """Computes the power of fields `(..., *space)` of three or more leading axes in shells of wave number, `(..., K)`.

    Shells are one cycle per box wide, up to that of the shortest axis; the first holds the mean alone.
    """
    space = values.shape[3:]
    axes = tuple(range(3, values.ndim))
    power = torch.fft.fftn(values.double(), dim=axes).abs().square() / values[0, 0, 0].numel() ** 2
    square = torch.zeros(space, dtype=torch.float64, device=values.device)
    for axis, points in enumerate(space):
        n = torch.fft.fftfreq(points, 1 / points, dtype=torch.float64, device=values.device)
        square = square + n.square().view([-1 if other == axis else 1 for other in range(len(space))])
    shell = (square.sqrt() + 0.5).long().flatten()
    count = min(points for points in space if points > 1) // 2 + 1 if max(space) > 1 else 1
    total = power.new_zeros(*values.shape[:3], int(shell.max()) + 1)
    return total.index_add(3, shell, power.flatten(3))[..., :count]


def spectrum_error(predicted: Flow, true: Flow) -> Tensor:
    """Computes the root mean square log ratio of spectra, `(B, T, F)`, over all shells but that of the mean."""
    tiny = torch.finfo(torch.float32).tiny
    ratio = (spectrum(predicted.values)[..., 1:] + tiny).log() - (spectrum(true.values)[..., 1:] + tiny).log()
    return torch.nan_to_num(ratio.square().mean(-1).sqrt(), nan=torch.inf)
