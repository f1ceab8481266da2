"""`Rollout`: frame after frame, each predicted from the ones before it."""

__all__ = ["Rollout", "roll_out"]

from collections.abc import Callable
from typing import NamedTuple

import torch

from torch import Tensor

from aion.physics.flow import Flow
from aion.physics.normalise import window_scales

ASTRAY = 1e3  # a frame beyond so many times the largest RMS of its window ends the roll-out of that trajectory


class Rollout(NamedTuple):
    """Holds what a roll-out gave.

    Attributes:
        flow: the predicted frames, `(B, steps, F, *space)`; NaN from the step on at which a trajectory went astray.
        diverged: that step of each trajectory, from 0, or -1, `(B,)`.
    """

    flow: Flow
    diverged: Tensor


@torch.no_grad()
def roll_out(window: Flow, steps: int, follow: Callable[[Flow], Tensor]) -> Rollout:
    """Predicts frames, each from as many of the last as the window has.

    Arguments:
        window: frames to start from, at least two.
        steps: how many frames to predict.
        follow: returns the frame after a window, `(B, F, *space)`.

    Returns:
        The frames and which trajectories went astray: those are not continued, the others are.

    Raises:
        ValueError: for fewer than one step.
    """
    if steps < 1:
        msg = f"rollout: wanted at least 1 step, given {steps}"
        raise ValueError(msg)
    values, frames = window.values, []
    largest = ASTRAY * window_scales(values, window.fields)[0].flatten(1).amax(1)
    diverged = torch.full((len(window),), -1, device=values.device)
    while len(frames) < steps and (diverged < 0).any():
        frame = follow(window.replace(values=values))
        sound = (frame.flatten(1).abs() <= largest[:, None]).all(1)  # false for NaN
        diverged = torch.where((diverged < 0) & ~sound, len(frames), diverged)
        lost = (diverged >= 0).view(-1, *[1] * (frame.ndim - 1))
        frames.append(frame.masked_fill(lost, torch.nan))
        values = torch.cat([values[:, 1:], torch.where(lost, values[:, -1], frame)[:, None]], dim=1)
    frames += [torch.full_like(frames[0], torch.nan)] * (steps - len(frames))
    return Rollout(window.replace(values=torch.stack(frames, dim=1)), diverged)
