"""The calls of a scheme, one after the other: what one has made, the next ones see."""

__all__ = ["roll_out"]

from collections.abc import Callable, Sequence

import torch

from torch import Tensor

from aion.forecasting.template import Call


def roll_out(
    draw: Callable[..., Tensor],
    past: Tensor,
    calls: Sequence[Call],
    drawing: Sequence[torch.Generator],
    context: Tensor | None = None,
    told: Callable[[int], object] = lambda rows: None,
) -> Tensor:
    """Makes frames 1, 2, ... up to the last that a call makes, `(R, T, C, *space)`, all normalised.

    Arguments:
        draw: called as `draw(start, values, known, wanted, offsets, context)`, see `aion.forecasting.sample.sample`.
        past: what was seen, `(R, P, C, *space)`, the last frame the present; NaN is not measured.
        calls: which frames to make of which.
        drawing: source of the noise of each row.
        context: what each row is conditioned on, `(R, E)`.
        told: called with R after every call.
    """
    last, present = max(t for _, new in calls for t in new), past.shape[1] - 1
    frames = torch.cat([past, past.new_full((len(past), last, *past.shape[2:]), torch.nan)], dim=1)
    for known, new in calls:
        times = sorted((*known, *new))
        place = torch.tensor(times, device=frames.device) + present
        values = frames[:, place]
        wanted = torch.tensor([t in new for t in times], device=frames.device)
        wanted = wanted.view(1, -1, *[1] * (values.ndim - 2)).expand(values.shape)
        start = torch.stack([torch.randn(values.shape[1:], generator=g) for g in drawing]).to(values)
        offsets = (place - place[len(times) // 2]).float().expand(len(frames), -1)
        made = draw(start, values.nan_to_num(), values.isfinite() & ~wanted, wanted, offsets, context)
        frames[:, place] = torch.where(wanted, made, values)
        told(len(frames))
    return frames[:, present + 1 :]
