r"""Scores of an ensemble against what came true, by lead, with intervals from resampled trajectories.

The CRPS and the energy score are fair: their expectation does not depend on the number of members M,

.. math::
    \mathrm{ES} = \frac1M \sum_m \lVert x_m - y \rVert - \frac{1}{2M(M-1)} \sum_{m,n} \lVert x_m - x_n \rVert,

and the CRPS is the same in one dimension. Spread over skill is 1 for an ensemble from which the truth cannot be told.

References:
    | Strictly Proper Scoring Rules, Prediction, and Estimation (Gneiting & Raftery, 2007)
    | On the reliability of the rank histogram (Bröcker, 2008)
    | Fair scores for ensemble forecasts (Ferro, 2014)
"""

__all__ = ["Verification", "crps", "energy_score", "power_spectrum", "verify"]

from dataclasses import dataclass
from itertools import pairwise

import torch

from torch import Tensor

FAR = 10.0  # a member farther from the mean of the truth than so many times its largest deviation has blown up
BANDS = 3  # parts of the spectrum, equal in the logarithm of the wave number
BY_LEAD = ("crps", "energy", "spread", "rmse", "bias", "blow_up")


@dataclass(frozen=True, eq=False)
class Verification:
    """Holds scores by lead; see `verify`.

    Arguments:
        trajectories: by name, the score of every trajectory at every lead, `(B, T)`; NaN where nothing was measured.
        groups: which trajectories are resampled together, `(B,)`.
        spectrum_ratio: power of the members over that of the truth, by band, long waves first: `(BANDS,)`.
        rank_histogram: how often the truth had each rank among the members, as shares `(M + 1,)`.
        seed: of the resampling.
    """

    trajectories: dict[str, Tensor]
    groups: Tensor
    spectrum_ratio: Tensor
    rank_histogram: Tensor
    seed: int = 0

    def mean(self, name: str) -> Tensor:
        """Returns a score by lead, `(T,)`; `"rmse"` and `"spread"` are roots of mean squares."""
        return self._reduce(name, self.trajectories[name])

    @property
    def spread_skill(self) -> Tensor:
        """Returns spread over the error of the mean, by lead."""
        return self.mean("spread") / self.mean("rmse")

    def interval(self, name: str, leads: slice = slice(None), level: float = 0.95, draws: int = 1000) -> Tensor:
        """Returns mean, lower and upper end of a score over some leads, by resampling groups of trajectories."""
        return self._resampled(name, self.trajectories[name][:, leads], level, draws)

    def gain(self, name: str, other: "Verification", leads: slice = slice(None), draws: int = 1000) -> Tensor:
        """Returns by what share a score is below another's, with its 95 % interval, both on the same trajectories."""
        mine, theirs = (v.trajectories[name][:, leads].nanmean(1) for v in (self, other))
        counts = self._counts(draws)
        shares = 1 - (counts @ mine.nan_to_num()) / (counts @ theirs.nan_to_num())
        ends = shares[1:].quantile(torch.tensor([0.025, 0.975], dtype=shares.dtype))
        return torch.cat([shares[:1], ends])

    def _reduce(self, name: str, values: Tensor) -> Tensor:
        squares = name in ("rmse", "spread")
        mean = (values**2 if squares else values).nanmean(0)
        return mean.sqrt() if squares else mean

    def _resampled(self, name: str, values: Tensor, level: float, draws: int) -> Tensor:
        squares = name in ("rmse", "spread")
        each = (values**2 if squares else values).nanmean(1)
        means = (
            (self._counts(draws) * each.isfinite())
            @ each.nan_to_num()
            / (self._counts(draws) @ each.isfinite().double())
        )
        means = means.sqrt() if squares else means
        ends = means[1:].quantile(torch.tensor([(1 - level) / 2, (1 + level) / 2], dtype=means.dtype))
        return torch.cat([means[:1], ends])

    def _counts(self, draws: int) -> Tensor:
        """Counts how often each trajectory is drawn: once each first, then whole groups with replacement."""
        names, place = self.groups.unique(return_inverse=True)
        generator = torch.Generator().manual_seed(self.seed)
        drawn = torch.randint(len(names), (draws, len(names)), generator=generator)
        counts = torch.zeros(draws, len(names), dtype=torch.float64)
        counts.scatter_add_(1, drawn, torch.ones(drawn.shape, dtype=torch.float64))
        return torch.cat([torch.ones(1, len(place), dtype=torch.float64), counts[:, place]])


def crps(ensemble: Tensor, truth: Tensor) -> Tensor:
    """Computes the fair CRPS of members `(M, ...)` against `(...)`; with one member it is the absolute error."""
    members = len(ensemble)
    error = (ensemble - truth).abs().mean(0)
    if members == 1:
        return error
    rank = torch.arange(members, device=truth.device, dtype=truth.dtype).view(-1, *[1] * truth.ndim)
    ordered = ensemble.sort(0).values
    return error - ((2 * rank - members + 1) * ordered).sum(0) / (members * (members - 1))


def energy_score(ensemble: Tensor, truth: Tensor) -> Tensor:
    """Computes the fair energy score of members `(M, ..., D)` against `(..., D)`; NaN of the truth is left out."""
    seen = truth.isfinite()
    x = torch.where(seen, ensemble - truth, 0).movedim(0, -2)  # (..., M, D)
    members = x.shape[-2]
    score = x.norm(dim=-1).mean(-1)
    if members > 1:
        score = score - torch.cdist(x, x).sum((-1, -2)) / (2 * members * (members - 1))
    return torch.where(seen.any(-1), score, torch.nan)


def power_spectrum(x: Tensor, axes: int) -> Tensor:
    """Computes the power by whole wave number of the last `axes` axes, mean removed, averaged over all others."""
    dims = tuple(range(-axes, 0))
    x = x - x.mean(dims, keepdim=True)
    power = torch.fft.fftn(x, dim=dims).abs().square().flatten(0, -axes - 1).mean(0)
    waves = [torch.fft.fftfreq(size, 1 / size, device=x.device) for size in power.shape]
    number = sum(w**2 for w in torch.meshgrid(*waves, indexing="ij")).sqrt().round().long().flatten()
    last = min(power.shape) // 2
    total = torch.zeros(int(number.max()) + 1, dtype=power.dtype, device=x.device).scatter_add_(
        0, number, power.flatten()
    )
    return total[1 : last + 1]


def verify(
    ensemble: Tensor, truth: Tensor, *, groups: Tensor | None = None, exact: Tensor | None = None, seed: int = 0
) -> Verification:
    """Scores an ensemble.

    Arguments:
        ensemble: members `(M, B, T, C, *space)`.
        truth: what came true, `(B, T, C, *space)`; NaN is not measured and does not count.
        groups: which trajectories are resampled together, such as windows of one cycle, `(B,)`; each is its own by
            default.
        exact: mean of the exact forecast, `(B, T, C, *space)`, where it is known: then `"bias"` is the mean square
            of the difference of spatial means from it, less what the scatter of M members makes; else it is the
            difference from the truth, with its sign.
        seed: of the resampling.

    Raises:
        ValueError: if shapes do not fit each other, or nothing was measured.
    """
    if ensemble.ndim < 4 or ensemble.shape[1:] != truth.shape or not len(ensemble):
        given = f"{tuple(ensemble.shape)} and {tuple(truth.shape)}"
        msg = f"verify: wanted members (M, B, T, C, ...) and a truth (B, T, C, ...), given {given}"
        raise ValueError(msg)
    seen = truth.isfinite()
    if not seen.any():
        msg = "verify: nothing was measured of the truth"
        raise ValueError(msg)
    groups = torch.arange(len(truth)) if groups is None else groups
    if groups.shape != (len(truth),):
        msg = f"verify: wanted a group for each of {len(truth)} trajectories, given {tuple(groups.shape)}"
        raise ValueError(msg)
    ensemble, truth = ensemble.double(), truth.double()
    members, axes = len(ensemble), truth.ndim - 3

    def by_lead(x: Tensor) -> Tensor:
        return torch.where(seen, x, torch.nan).flatten(2).nanmean(2)

    mean = ensemble.mean(0)
    variance = ensemble.var(0) if members > 1 else torch.zeros_like(mean)
    scores = {
        "crps": by_lead(crps(ensemble, truth)),
        "energy": energy_score(ensemble.flatten(3), truth.flatten(2)),
        "spread": by_lead(variance * (members + 1) / members).sqrt(),
        "rmse": by_lead((mean - truth) ** 2).sqrt(),
        "bias": by_lead(mean - truth),
        "blow_up": _blown_up(ensemble, truth, seen),
    }
    if exact is not None:
        scores["bias"] = _conditional_bias(ensemble, exact.double(), axes)
    return Verification(scores, groups, _spectrum_ratio(ensemble, truth, axes), _ranks(ensemble, truth, seen), seed)


def _conditional_bias(ensemble: Tensor, exact: Tensor, axes: int) -> Tensor:
    """Returns the squared difference of spatial means from the exact one, less the noise of the members, `(B, T)`."""
    if spatial := tuple(range(-axes, 0)):
        ensemble, exact = ensemble.mean(spatial), exact.mean(spatial)
    noise = ensemble.var(0) / len(ensemble) if len(ensemble) > 1 else 0
    return ((ensemble.mean(0) - exact) ** 2 - noise).mean(2)


def _blown_up(ensemble: Tensor, truth: Tensor, seen: Tensor) -> Tensor:
    """Returns the share of members that are not finite or far outside of what is true, `(B, T)`."""
    middle = truth[seen].mean()
    limit = FAR * (truth[seen] - middle).abs().max()
    return (~((ensemble - middle).abs() <= limit).flatten(3).all(3)).double().mean(0)


def _ranks(ensemble: Tensor, truth: Tensor, seen: Tensor) -> Tensor:
    below = (ensemble < truth).sum(0) + (ensemble == truth).sum(0) // 2
    counts = torch.bincount(below[seen], minlength=len(ensemble) + 1).double()
    return counts / counts.sum()


def _spectrum_ratio(ensemble: Tensor, truth: Tensor, axes: int) -> Tensor:
    """Compares power along space, or along the leads where there is none, in bands of wave number."""
    if not axes:
        ensemble, truth, axes = ensemble.movedim(2, -1), truth.movedim(1, -1), 1
    whole = truth.isfinite().flatten(truth.ndim - axes).all(-1)  # spectra need frames without gaps
    if not whole.any() or min(truth.shape[-axes:]) < 2 * BANDS:
        return torch.full((BANDS,), torch.nan, dtype=torch.float64)
    mine, real = power_spectrum(ensemble[:, whole], axes), power_spectrum(truth[whole], axes)
    edges = torch.logspace(0, torch.log10(torch.tensor(len(real) + 1.0)), BANDS + 1).round().long() - 1
    return torch.stack([mine[a:b].sum() / real[a:b].sum() for a, b in pairwise(edges.tolist())])
