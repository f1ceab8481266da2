r"""What a scheme costs in skill, in closed form, for a stationary Gaussian process; and the choice of a scheme by it.

For a Gaussian process of covariance R every conditional is exact: frames I given frames C are
:math:`x_I = A x_C + \epsilon`, :math:`A = R_{IC} R_{CC}^{-1}`,
:math:`\epsilon \sim N(0, R_{II} - A R_{CI})`. A perfect network draws just these, so the calls of a scheme compose to
:math:`\hat x = M\,x_{past} + N z`, and what is lost against the exact forecast is lost by the scheme alone: the bias
:math:`(M - M^*)\,x_{past}`, the variance ratio :math:`\mathrm{diag}(NN^T) / \mathrm{diag}(V^*)`, and the expected
CRPS, :math:`\sqrt{2/\pi}\sqrt{m + v} - \sqrt{v/\pi}` for mean squared error m of the mean and variance v of the
forecast, of which :math:`\sqrt{v^*/\pi}` is the exact forecast's own.

`select_template` chooses ratio and size of a template by this figure from the autocovariance of data, before anything
is trained, and says when a multiscale scheme will not pay: for processes that oscillate fast, are very smooth, or are
Markov.

References:
    | Strictly Proper Scoring Rules, Prediction, and Estimation (Gneiting & Raftery, 2007)
    | Predicting partially observable dynamical systems via diffusion models with a multiscale inference scheme (Morel
      et al., 2025), arXiv 2511.19390
"""

__all__ = [
    "Choice",
    "PROCESSES",
    "autocovariance",
    "gaussian_forecast",
    "gaussian_scheme_skill",
    "select_template",
]

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from aion.forecasting.template import Scheme, autoregressive, multiscale, template

ALPHAS = (1.0, 1.25, 1.5, 1.75, 2.0, 2.25, 2.5, 2.75, 3.0)
WORTH = 0.005  # least saving, in units of the exact CRPS, for which a multiscale scheme is called better
JITTER = 1e-9  # of the variance, added to the diagonal of what is inverted: smooth processes are singular in float64


# Autocovariances by lag, with and without long memory; the last four are adverse to multiscale schemes.
PROCESSES: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "damped oscillator, period 40, noise": lambda h: np.exp(-h / 200) * np.cos(2 * np.pi * h / 40) + 0.72 * (h == 0),
    "slow and fast OU, noise": lambda h: np.exp(-h / 60) + np.exp(-h / 2) + 0.2 * (h == 0),
    "power law, noise": lambda h: (1.0 + h) ** -0.4 + 0.3 * (h == 0),
    "Markov OU": lambda h: np.exp(-h / 10),
    "fast oscillator, period 3.3, noise": lambda h: np.exp(-h / 50) * np.cos(2 * np.pi * h / 3.3) + 0.1 * (h == 0),
    "smooth Matern 5/2": lambda h: (1 + h / 2 + h**2 / 12) * np.exp(-h / 2),
    "slow OU in strong noise": lambda h: np.exp(-h / 60) + 2.0 * (h == 0),
}


@dataclass(frozen=True)
class Choice:
    """Holds what `select_template` chose, and why.

    Arguments:
        K: frames made by a call.
        alpha: ratio of the template.
        excess: mean relative excess of the expected CRPS over leads 1 to the horizon, with this template.
        autoregressive: the same of the autoregressive scheme of this K.
        pays: True if the multiscale scheme is worth it.
        reason: the same in words.
        table: excess of every `(K, alpha)` that was tried.
    """

    K: int
    alpha: float
    excess: float
    autoregressive: float
    pays: bool
    reason: str
    table: dict[tuple[int, float], float]

    @property
    def scheme(self) -> Scheme:
        """Builds the scheme to use: multiscale if it pays, else autoregressive."""
        return multiscale(self.K, self.alpha) if self.pays else autoregressive(self.K)


def autocovariance(series: np.ndarray, lags: int) -> np.ndarray:
    """Estimates the autocovariance at lags 0 to `lags - 1` of one or several series `(T,)` or `(S, T)`.

    NaN is not measured: pairs with one are left out. The estimate at lag h is multiplied by 1 - h/T, and frequencies of
    negative power are set to zero, so that the result is a proper autocovariance.

    Raises:
        ValueError: if a series is shorter than `lags`, or nothing varies.
    """
    series = np.atleast_2d(np.asarray(series, dtype=np.float64))
    if series.ndim != 2 or not 1 <= lags <= series.shape[1]:
        msg = f"autocovariance: wanted (T,) or (S, T) with T of at least lags={lags}, given {series.shape}"
        raise ValueError(msg)
    seen = np.isfinite(series)
    x = np.where(seen, series - series[seen].mean(), 0) if seen.any() else np.zeros(series.shape)
    if not x.any():
        msg = "autocovariance: the series is constant or not measured at all: leave it out"
        raise ValueError(msg)
    length = series.shape[1]
    power = (abs(np.fft.rfft(x, 2 * length)) ** 2).sum(0)
    pairs = (abs(np.fft.rfft(seen.astype(float), 2 * length)) ** 2).sum(0)
    products, counts = np.fft.irfft(power)[:length], np.fft.irfft(pairs)[:length].round()
    estimate = products / counts.clip(1) * (1 - np.arange(length) / length)
    spectrum = np.fft.rfft(np.concatenate([estimate, [0], estimate[:0:-1]])).real.clip(0)
    return np.fft.irfft(spectrum)[:lags]


def select_template(
    acf: np.ndarray,
    K: int | Sequence[int] = 3,
    horizon: int = 18,
    alphas: Sequence[float] = ALPHAS,
) -> Choice:
    """Chooses the template of least expected CRPS for a process of this autocovariance.

    Arguments:
        acf: `(n,)`, or `(C, n)` of the principal components of a field, which count by their variance. Templates that
            reach farther back than `n - horizon` lags are left out.
        K: frames made by a call, or several to choose from: the smallest whose excess is within 5 % of the least.
        horizon: number of leads that count, all alike.
        alphas: ratios to try.

    Raises:
        ValueError: if no template fits into the lags, or `acf` is no autocovariance.
    """
    components = np.atleast_2d(np.asarray(acf, dtype=np.float64))
    sizes = [K] if isinstance(K, int) else sorted(set(K))
    past = min(400, components.shape[1] - horizon)
    fitting = [
        (k, a)
        for k in sizes
        for a in alphas
        if 2 * template(a, k)[-1] < components.shape[1] and template(a, k)[-1] < past
    ]
    if not fitting:
        msg = f"select_template: {components.shape[1]} lags hold no template and {horizon} leads: give more lags"
        raise ValueError(msg)
    table, seen = {}, {}
    for k, a in fitting:  # ratios that give the same frames give the same scheme
        seen.setdefault(template(a, k), (k, a))
    for k, a in seen.values():
        table[k, a] = _mean_excess(components, multiscale(k, a), horizon, past)
    least = min(table.values())
    k = min(k for (k, _), value in table.items() if value <= 1.05 * least + 1e-12)
    chosen = min((pair for pair in table if pair[0] == k), key=table.__getitem__)
    plain = _mean_excess(components, autoregressive(k), horizon, past)
    pays, reason = _judge(table[chosen], plain)
    return Choice(*chosen, table[chosen], plain, pays, reason, table)


def _mean_excess(components: np.ndarray, scheme: Scheme, horizon: int, past: int) -> float:
    weights = components[:, 0] / components[:, 0].sum()
    excess = [gaussian_scheme_skill(acf, scheme, horizon, past)["crps_excess"].mean() for acf in components]
    return float(weights @ excess)


def _judge(excess: float, plain: float) -> tuple[bool, str]:
    figures = f"expected CRPS above the exact forecast's: multiscale {excess:.1%}, autoregressive {plain:.1%}"
    if plain < WORTH:
        return False, f"the last frames say all there is to know (a Markov or very smooth process); {figures}"
    if excess > plain - WORTH:
        return False, f"short-term patterns dominate, or memory is short; {figures}"
    return True, f"the past far back helps; {figures}"


def gaussian_forecast(acf: np.ndarray, past: int, horizon: int) -> tuple[np.ndarray, np.ndarray]:
    """Computes the exact forecast of a stationary process.

    Arguments:
        acf: autocovariance at lags 0, 1, ..., `(n,)` or `(n, D, D)`; at least `past + horizon` of them.
        past: number P of observed frames, the last of which is the present.
        horizon: number T of frames.

    Returns:
        weights `(T, P)` of the past in the mean, and the covariance `(T, T)` around it; of frames of D entries `(T * D,
        P * D)` and `(T * D, T * D)`.

    Raises:
        ValueError: if `acf` is too short or no autocovariance.
    """
    acf = _checked(acf, past + horizon)
    frames = np.arange(-past + 1, horizon + 1)
    return _conditional(acf, frames[:past], frames[past:])


def gaussian_scheme_skill(
    acf: np.ndarray, scheme: Scheme, horizon: int, past: int | None = None
) -> dict[str, np.ndarray]:
    """Computes what a scheme loses on a stationary Gaussian process if its network is perfect.

    Arguments:
        acf: autocovariance at lags 0, 1, ... of what is observed, noise included: `(n,)` of a series, `(n, D, D)` of
            frames of D entries, that of frame t + lag with frame t.
        scheme: the calls.
        horizon: number T of frames.
        past: number of frames that the exact forecast knows; by default as many as `acf` allows, at most 400.

    Returns:
        by lead 1 to T, arrays `(T,)`, over all entries of a frame: `bias`, the rms difference of the mean from the
        exact one; `variance_ratio`, over the exact variance; `crps`, expected; `crps_excess`, by what share of it that
        is above the exact forecast's.

    Raises:
        ValueError: if `acf` is too short for horizon and reach, or no autocovariance.
    """
    past = min(400, len(acf) - horizon) if past is None else past
    widest = max(max(known + new) - min(known + new) for known, new in scheme.calls(horizon))
    acf = _checked(acf, max(past + horizon, scheme.reach() + 1 + horizon, widest + 1))
    past = max(past, scheme.reach() + 1)
    exact, exact_covariance = gaussian_forecast(acf, past, horizon)
    of_past, of_noise = _compose(acf, scheme, past, horizon)
    difference, frames = of_past - exact, np.arange(past)
    bias2 = ((difference @ _covariance(acf, frames, frames)) * difference).sum(1).clip(0)
    least = JITTER * acf[0].max()
    variance = (of_noise**2).sum(1).clip(least)
    exact_variance = exact_covariance.diagonal().clip(least)
    error2 = bias2 + exact_variance + variance
    crps = np.sqrt(2 / np.pi * error2) - np.sqrt(variance / np.pi)
    parts = bias2, variance, exact_variance, crps, np.sqrt(exact_variance / np.pi)
    bias2, variance, exact_variance, crps, exact_crps = (part.reshape(horizon, -1).mean(1) for part in parts)
    return {
        "bias": np.sqrt(bias2),
        "variance_ratio": variance / exact_variance,
        "crps": crps,
        "crps_excess": crps / exact_crps - 1,
    }


def _conditional(acf: np.ndarray, known: np.ndarray, new: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns `A` and `V` of x_new given x_known."""
    inner = _covariance(acf, known, known)
    inner += JITTER * acf[0].max() * np.eye(len(inner))
    cross = _covariance(acf, new, known)
    weights = np.linalg.solve(inner, cross.T).T
    return weights, _covariance(acf, new, new) - weights @ cross.T


def _covariance(acf: np.ndarray, ones: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Builds the covariance of frames at some times with those at others."""
    lag = ones[:, None] - others
    blocks = acf[abs(lag)]  # (I, J, D, D)
    blocks = np.where((lag < 0)[..., None, None], blocks.swapaxes(2, 3), blocks)
    return blocks.swapaxes(1, 2).reshape(len(ones) * acf.shape[1], -1)


def _root(covariance: np.ndarray) -> np.ndarray:
    values, vectors = np.linalg.eigh((covariance + covariance.T) / 2)
    return vectors * np.sqrt(values.clip(0))


def _compose(acf: np.ndarray, scheme: Scheme, past: int, horizon: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns what frames 1 to `horizon` are of the past `(T * D, P * D)`, and of unit noise `(T * D, Z)`."""
    calls = scheme.calls(horizon)
    size, used = acf.shape[1], past * acf.shape[1]
    whole = np.eye(used, used + size * sum(len(new) for _, new in calls))
    rows = dict(zip(range(-past + 1, 1), np.split(whole, past), strict=True))
    for known, new in calls:
        weights, covariance = _conditional(acf, np.array(known), np.array(new))
        made = weights @ np.concatenate([rows[t] for t in known])
        made[:, used : used + len(made)] = _root(covariance)
        rows |= dict(zip(new, np.split(made, len(new)), strict=True))
        used += len(made)
    future = np.concatenate([rows[t] for t in range(1, horizon + 1)])
    return future[:, : past * size], future[:, past * size :]


def _checked(acf: np.ndarray, wanted: int) -> np.ndarray:
    """Returns autocovariances `(n, D, D)`, those of a series with D = 1."""
    acf = np.asarray(acf, dtype=np.float64)
    acf = acf[:, None, None] if acf.ndim == 1 else acf
    fits = acf.ndim == 3 and acf.size and acf.shape[1] == acf.shape[2] and np.isfinite(acf).all()
    variance = acf[0].diagonal() if fits else np.zeros(1)
    if variance.min() <= 0 or (abs(acf) > 1.000001 * np.sqrt(np.outer(variance, variance))).any():
        msg = "acf: wanted finite autocovariances at lags 0, 1, ..., the first positive and none larger than it"
        raise ValueError(msg)
    if len(acf) < wanted:
        msg = f"acf: wanted at least {wanted} lags (past and horizon together), given {len(acf)}: shorten either"
        raise ValueError(msg)
    return acf
