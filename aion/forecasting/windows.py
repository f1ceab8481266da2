"""Training batches: frames of a trajectory at the times of a call, some known, some wanted.

One network serves every scheme if it is trained on the calls of all of them, on templates of every ratio, and on
masks drawn at random.
"""

__all__ = ["Windows", "check_trajectories", "patterns"]

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


def check_trajectories(dataset: Tensor | Sequence[Tensor], shape: tuple[int, ...]) -> list[Tensor]:
    """Lists trajectories `(T, C, *space)`, after a look at each.

    Raises:
        TypeError: if they are not floating-point tensors.
        ValueError: if their frames have another shape than `(C, *space)`, or there are none.
    """
    data = list(dataset)
    for x in data:
        if not isinstance(x, Tensor) or not x.is_floating_point():
            msg = f"fit: wanted floating-point tensors, given {getattr(x, 'dtype', type(x).__name__)}"
            raise TypeError(msg)
        if x.shape[1:] != shape or not len(x):
            msg = f"fit: wanted trajectories (T, {', '.join(map(str, shape))}), given {tuple(x.shape)}"
            raise ValueError(msg)
    if not data:
        msg = "fit: wanted at least one trajectory, given none"
        raise ValueError(msg)
    return data


class Windows:
    """Draws batches; the batch of a step is always the same.

    Arguments:
        trajectories: each `(T, C, *space)`, normalised; NaN is not measured.
        calls: what a window may look like, all of as many frames N.
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
        self.lengths = torch.tensor([len(x) for x in trajectories])
        span = {call: max(call[0] + call[1]) - min(call[0] + call[1]) for call in calls}
        fitting = [call for call in calls if span[call] < self.lengths.max()]
        if not fitting:
            msg = f"the trajectories have at most {self.lengths.max()} frames: wanted at least {min(span.values()) + 1}"
            raise ValueError(msg)
        self.trajectories, self.contexts, self.batch, self.seed = trajectories, contexts, batch, seed
        self.times = torch.tensor([sorted((*known, *new)) for known, new in fitting])  # (calls, N)
        self.given = torch.tensor([[t in known for t in sorted((*known, *new))] for known, new in fitting])

    def __call__(self, step: int) -> dict[str, Tensor]:
        """Returns `values`, `known`, `wanted` `(B, N, C, *space)` and `offsets` `(B, N)`, and perhaps `context`."""
        generator = torch.Generator().manual_seed((self.seed << 32) + step)
        which = torch.multinomial(self.lengths.double(), self.batch, replacement=True, generator=generator)
        call = torch.randint(len(self.times), (self.batch,), generator=generator)
        times, length = self.times[call], self.lengths[which][:, None]
        place = self._place(times, length, generator)
        inside = (place >= 0) & (place < length)
        rows = zip(which.tolist(), place.clamp(min=0).minimum(length - 1), strict=True)
        values = torch.stack([self.trajectories[index][row] for index, row in rows])
        given, kept = (part.view(*part.shape, *[1] * (values.ndim - 2)) for part in self._masks(call, generator))
        measured = values.isfinite() & inside.view(given.shape)
        batch = {
            "values": values.masked_fill(~measured, 0),
            "known": measured & given & kept,
            "wanted": measured & ~given,
            "offsets": (times - times[:, times.shape[1] // 2, None]).float(),
        }
        return batch if self.contexts is None else {**batch, "context": self.contexts[which]}

    def _place(self, times: Tensor, length: Tensor, generator: torch.Generator) -> Tensor:
        """Lays windows into their trajectories; one that is too long sticks out, and what is outside is absent."""
        room = length - (times[:, -1:] - times[:, :1])
        choices = torch.where(room > 0, room, 1 - room)
        first = (torch.rand(room.shape, dtype=torch.float64, generator=generator) * choices).long()
        return times - times[:, :1] + torch.where(room > 0, first, -first)

    def _masks(self, call: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Draws which frames are given, `(B, N)`, and which of these are kept."""
        given = self.given[call]
        free = torch.rand(len(call), 1, generator=generator) < ANY_MASK
        count = torch.randint(1, given.shape[1], (len(call), 1), generator=generator)
        rank = torch.rand(given.shape, generator=generator).argsort(1)
        kept = torch.rand(given.shape, generator=generator) >= DROPPED
        return torch.where(free, rank < count, given), kept
