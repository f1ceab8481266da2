r"""Temporal templates, and the schemes that compose them into a forecast of any length.

A network that handles 2K+1 frames at once generates K of them from K+1 known ones. A *scheme* says which: a list of
calls :math:`(C_n, I_n)` of conditioning and generated frames, counted from the present (frame 0, the last observed
one), so that :math:`p(x_{1:T} \mid x_{\le 0}) \approx \prod_n p(x_{I_n} \mid x_{C_n})`. A scheme is *complete* if
every future frame is made, *admissible* if a call uses only what is known by then, *efficient* if no frame is made
twice.

The *template* of ratio :math:`\alpha` is dense at its centre and sparse away from it,
:math:`t_{\pm k} = \pm\lfloor\sum_{j<k} \alpha^j\rfloor`, so that it reaches about
:math:`\alpha^{K-1}` far at the cost of K frames. The multiscale scheme starts with the widest template at the present
and fills what that leaves out with narrower, shifted ones; the period is then repeated from its last frame.

References:
    | Predicting partially observable dynamical systems via diffusion models with a multiscale inference scheme (Morel
      et al., 2025), arXiv 2511.19390
    | Flexible Diffusion Modeling of Long Videos (Harvey et al., 2022), arXiv 2205.11495
"""

__all__ = ["Call", "Scheme", "autoregressive", "hierarchy2", "multiscale", "template"]

import math

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Call = tuple[tuple[int, ...], tuple[int, ...]]  # conditioning and generated frames, in order of time
FINEST = 0.01  # step in alpha between the templates that are tried


def template(alpha: float, K: int) -> tuple[int, ...]:
    """Returns the 2K+1 frames of the template of ratio `alpha`, relative to its centre.

    Raises:
        ValueError: if `alpha` is not a finite number of at least 1 or `K` is not a whole number of at least 1.
    """
    _check_numbers(alpha, K)
    half = [math.floor(sum(alpha**j for j in range(k)) + 1e-9) for k in range(1, K + 1)]
    return (*(-t for t in reversed(half)), 0, *half)


@dataclass(frozen=True)
class Scheme:
    """Holds the calls of one period; `calls` repeats them as far as wanted.

    Arguments:
        name: what figures and tables call it.
        K: frames a call generates at most; it handles 2K+1.
        period: frames that one round of calls makes.
        round_: the calls of the first period.

    Raises:
        ValueError: if it is not complete, admissible and efficient, or a call is too large; see `check`.
    """

    name: str
    K: int
    period: int
    round_: tuple[Call, ...]

    def __post_init__(self) -> None:
        self.check()

    def calls(self, horizon: int) -> list[Call]:
        """Lists the calls that make frames 1 to `horizon`: whole periods, without calls that nothing depends on.

        Raises:
            ValueError: if `horizon` is not a whole number of at least 1.
        """
        if isinstance(horizon, bool) or not isinstance(horizon, int) or horizon < 1:
            msg = f"the horizon must be a whole number of frames, at least 1, given {horizon!r}"
            raise ValueError(msg)
        starts = range(0, horizon, self.period)
        every = [(_shift(known, start), _shift(new, start)) for start in starts for known, new in self.round_]
        wanted, kept = set(range(1, horizon + 1)), []
        for known, new in reversed(every):
            if wanted.intersection(new):
                wanted.update(known)
                kept.append((known, new))
        return kept[::-1]

    def check(self) -> None:
        """Refuses a scheme that is not complete, admissible and efficient.

        Raises:
            ValueError: saying which call breaks which rule.
        """
        made: set[int] = set()
        for number, (known, new) in enumerate(self.round_, 1):
            where = f"scheme {self.name!r}, call {number}, {_braces(known)} -> {_braces(new)}"
            if not new or len(new) > self.K or len(known) + len(new) > 2 * self.K + 1:
                self._refuse(where, f"wanted 1 to K={self.K} new frames and at most {2 * self.K + 1} in all")
            if again := made.intersection(new):
                self._refuse(where, f"not efficient, makes {_braces(again)} again")
            if ahead := {t for t in known if t > 0 and t not in made}:
                self._refuse(where, f"not admissible, {_braces(ahead)} is not known yet")
            if outside := {t for t in new if not 1 <= t <= self.period}:
                self._refuse(where, f"makes {_braces(outside)}, outside the period 1 to {self.period}")
            made.update(new)
        if missing := set(range(1, self.period + 1)) - made:
            self._refuse(f"scheme {self.name!r}", f"not complete, nothing makes {_braces(missing)}")

    def reach(self) -> int:
        """Returns how many frames before the present the calls look at: a past of `reach() + 1` frames is needed."""
        return max(0, -min(t for known, _ in self.round_ for t in known))

    def width(self) -> int:
        """Returns how many frames lie between the first and the last of its widest call."""
        return max(max(known + new) - min(known + new) for known, new in self.round_)

    def limited(self, past: int) -> "Scheme":
        """Returns the scheme with the same calls but no look at more than `past` frames before the present.

        A frame farther back is replaced by the latest that the call does not have yet, as far as there are any.
        """
        cut = []
        for known, new in self.round_:
            near = [t for t in known if t >= -past]
            spare = [t for t in range(0, -past - 1, -1) if t not in near][: len(known) - len(near)]
            cut.append((tuple(sorted(near + spare)), new))
        return Scheme(f"{self.name}, past {past}", self.K, self.period, tuple(cut))

    def plot(self, horizon: int | None = None) -> "Figure":
        """Draws what every call conditions on (open) and makes (filled), a row for each call."""
        from matplotlib.figure import Figure
        from matplotlib.ticker import MaxNLocator

        calls = self.calls(self.period if horizon is None else horizon)
        figure = Figure(figsize=(7, 1.2 + 0.3 * len(calls)), layout="constrained")
        axes = figure.add_subplot()
        axes.axvspan(min(t for known, _ in calls for t in known) - 0.7, 0.5, color="#eeeeee", label="observed")
        for row, (known, new) in enumerate(calls, 1):
            once = row == 1
            axes.plot(known, [row] * len(known), "o", mfc="white", mec="#0072B2", label="given" if once else None)
            axes.plot(new, [row] * len(new), "o", color="#D55E00", label="generated" if once else None)
        axes.set(xlabel="frame after the present", ylabel="call", title=self.name, ylim=(len(calls) + 0.6, 0.4))
        axes.yaxis.set_major_locator(MaxNLocator(integer=True))
        axes.margins(x=0.02)
        figure.legend(loc="outside lower center", ncols=3, frameon=False)
        return figure

    def _refuse(self, where: str, why: str) -> None:
        msg = f"{where}: {why}"
        raise ValueError(msg)


def autoregressive(K: int = 3) -> Scheme:
    """Builds the scheme that makes the next K frames from the K+1 before them."""
    _check_numbers(1.0, K)
    return Scheme(f"autoregressive K={K}", K, K, ((tuple(range(-K, 1)), tuple(range(1, K + 1))),))


@lru_cache(maxsize=64)
def multiscale(K: int = 3, alpha: float = 2.5) -> Scheme:
    """Builds the multiscale scheme: the widest template at the present first, narrower and shifted ones after.

    Of all templates of ratio 1 to `alpha`, at all shifts, that end within the period and overlap at least K+1 known
    frames, the next call is the one that makes most new frames; of these, one that ends with the period; of these
    the widest; of these the latest. This gives the worked example of the paper. Where no template makes K new frames
    though K are left (some K above 4 with alpha above 2), the first K that are left are made from the closest known
    ones, so that the number of calls is always the least there can be, the period over K rounded up.
    """
    period = template(alpha, K)[-1]
    made: set[int] = set()
    calls: list[Call] = []
    while left := [t for t in range(1, period + 1) if t not in made]:
        found = _next_call(made, period, K, alpha)
        if len(found[1]) < min(K, len(left)):
            new = tuple(left[:K])
            found = (_around(new, made, 2 * K + 1 - len(new)), new)
        calls.append(found)
        made.update(found[1])
    return Scheme(f"multiscale K={K} α={alpha:g}", K, period, tuple(calls))


def hierarchy2(K: int = 3) -> Scheme:
    """Builds the scheme of two levels: K frames spaced by K first, then those between, from frames on both sides.

    Only the first call of a period and the fill of its first gap look at what was observed.
    """
    _check_numbers(1.0, K)
    period = K * K
    calls: list[Call] = [(tuple(range(-K, 1)), tuple(range(K, period + 1, K)))]
    made = set(calls[0][1])
    rest = [t for t in range(1, period + 1) if t not in made]
    for start in range(0, len(rest), K):
        new = tuple(rest[start : start + K])
        calls.append((_around(new, made, 2 * K + 1 - len(new)), new))
        made.update(new)
    return Scheme(f"hierarchy-2 K={K}", K, period, tuple(calls))


def _around(new: tuple[int, ...], made: set[int], number: int) -> tuple[int, ...]:
    """Chooses the known frames closest to the new ones."""
    known = sorted({*range(-number, 1), *made}, key=lambda t: (min(abs(t - n) for n in new), -t))
    return tuple(sorted(known[:number]))


def _next_call(made: set[int], period: int, K: int, alpha: float) -> Call:
    best, chosen = (-1,), None
    for frames in _templates(K, alpha):
        for shift in range(period - frames[-1] + 1):
            placed = _shift(frames, shift)
            new = tuple(t for t in placed if t > 0 and t not in made)
            rank = (len(new), placed[-1] == period, frames[-1], shift)
            if 0 < len(new) <= K and rank > best:
                best, chosen = rank, (tuple(t for t in placed if t not in new), new)
    assert chosen is not None, "the uniform template at the last known frame always fits"
    return chosen


@lru_cache(maxsize=64)
def _templates(K: int, alpha: float) -> tuple[tuple[int, ...], ...]:
    """Lists the different templates of ratio 1 to `alpha`, narrow ones first."""
    number = math.ceil((alpha - 1) / FINEST)
    ratios = [min(alpha, 1 + FINEST * n) for n in range(number)] + [alpha]
    return tuple(sorted({template(ratio, K) for ratio in ratios}, key=lambda frames: (frames[-1], frames)))


def _shift(frames: Sequence[int], by: int) -> tuple[int, ...]:
    return tuple(t + by for t in frames)


def _braces(frames: Sequence[int] | set[int]) -> str:
    return "{" + ", ".join(map(str, sorted(frames))) + "}"


def _check_numbers(alpha: float, K: int) -> None:
    if isinstance(K, bool) or not isinstance(K, int) or K < 1:
        msg = f"K must be a whole number of frames, at least 1, given {K!r}"
        raise ValueError(msg)
    if not (isinstance(alpha, (int, float)) and math.isfinite(alpha) and alpha >= 1):
        msg = f"alpha must be a finite number of at least 1 (1 is the uniform window), given {alpha!r}"
        raise ValueError(msg)
