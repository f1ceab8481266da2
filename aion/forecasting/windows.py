"""Training batches: frames of a trajectory at the times of a call, some known, some wanted.

One network serves every scheme if it is trained on the calls of all of them, on templates of every ratio, and on
masks drawn at random.
"""

__all__ = ["Windows", "patterns"]

from collections.abc import Sequence

import torch

from torch import Tensor

from aion.forecasting.template import Call, autoregressive, hierarchy2, multiscale, template

ANY_MASK = 0.3  # share of the examples whose known frames are drawn at random
DROPPED = 0.05  # share of the known frames that are hidden, so that gaps in a past are no surprise


def patterns(K: int, alpha: float) -> list[Call]:
    """Lists the calls that a network for `K` and ratios up to `alpha` is trained on, each of 2K+1 frames."""
    ratios = sorted({1 + (alpha - 1) * n / 20 for n in range(21)})
    templates = [template(ratio, K) for ratio in ratios]
    calls = {(frames[: K + 1], frames[K + 1 :]) for frames in templates}
    for scheme in (autoregressive(K), hierarchy2(K), *(multiscale(K, ratio) for ratio in ratios[::5])):
        for known, new in (*scheme.round_, *scheme.limited(K).round_):
            middle = sorted((*known, *new))[len(known + new) // 2]
            calls.add((tuple(t - middle for t in known), tuple(t - middle for t in new)))
    return sorted(call for call in calls if len(call[0] + call[1]) == 2 * K + 1)


class Windows:
    """Draws batches; the batch of a step is always the same.

    Arguments:
        trajectories: each `(T, C, *space)`, normalised; NaN is not measured.
        calls: what a window may look like.
        batch: windows B in a batch.
        seed: of all draws.
        contexts: what each trajectory is conditioned on as a whole, `(S, E)`, or None.

    Raises:
        ValueError: if no trajectory is as long as the shortest call.
    """

    def __init__(
        self,
        trajectories: Sequence[Tensor],
        calls: Sequence[Call],
        batch: int = 64,
        seed: int = 0,
        contexts: Tensor | None = None,
    ) -> None:
        longest = max(len(x) for x in trajectories)
        span = {call: max(call[0] + call[1]) - min(call[0] + call[1]) for call in calls}
        self.calls = [call for call in calls if span[call] < longest]
        if not self.calls:
            msg = f"the trajectories have at most {longest} frames: wanted at least {min(span.values()) + 1}"
            raise ValueError(msg)
        self.trajectories, self.contexts, self.batch, self.seed = trajectories, contexts, batch, seed
        self.weights = torch.tensor([float(len(x)) for x in trajectories])

    def __call__(self, step: int) -> dict[str, Tensor]:
        """Returns `values`, `known`, `wanted` `(B, N, C, *space)` and `offsets` `(B, N)`, and perhaps `context`."""
        generator = torch.Generator().manual_seed((self.seed << 32) + step)
        which = torch.multinomial(self.weights, self.batch, replacement=True, generator=generator).tolist()
        rows = [self._window(index, generator) for index in which]
        batch = {name: torch.stack([row[name] for row in rows]) for name in rows[0]}
        if self.contexts is not None:
            batch["context"] = self.contexts[which]
        return batch

    def _window(self, index: int, generator: torch.Generator) -> dict[str, Tensor]:
        known, new = self.calls[_below(len(self.calls), generator)]
        frames = sorted((*known, *new))
        x = self.trajectories[index]
        room = len(x) - (frames[-1] - frames[0])  # not positive: the window sticks out, and what is outside is absent
        first = _below(room, generator) if room > 0 else -_below(1 - room, generator)
        times = torch.tensor(frames)
        place = times - frames[0] + first
        inside = (place >= 0) & (place < len(x))
        values = x[place.clamp(0, len(x) - 1)]
        shape = (-1, *[1] * (x.ndim - 1))
        measured = values.isfinite() & inside.view(shape)
        given = torch.tensor([t in known for t in frames])
        if torch.rand((), generator=generator) < ANY_MASK:
            count = 1 + _below(len(frames) - 1, generator)
            given = torch.randperm(len(frames), generator=generator) < count
        kept = torch.rand(len(frames), generator=generator) >= DROPPED
        return {
            "values": values.masked_fill(~measured, 0),
            "known": measured & (given & kept).view(shape),
            "wanted": measured & ~given.view(shape),
            "offsets": (times - frames[len(frames) // 2]).float(),
        }


def _below(number: int, generator: torch.Generator) -> int:
    return int(torch.randint(number, (), generator=generator))
