"""What `forecasting.py` forecasts, and what one would forecast it with instead."""

from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

import numpy as np
import torch

from torch import Tensor

from aion.forecasting.gaussian import autocovariance, gaussian_forecast
from aion.forecasting.systems import fitzhugh_nagumo, lorenz96, noisy_sinusoid
from aion.forecasting.transport import FluxTransport
from aion.io.series import read_series

PAST, LONGEST = 70, 90  # frames: of the past, and of the truth
HORIZON, WINDOWS = 18, ((0, 3), (3, 9), (9, 18))  # frames forecast, and the leads of each score
MONTHS = Path(__file__).parent / "data" / "sunspot_month.csv"
FIRST, SPLIT = 1749, 1922  # years: of the series, and the first that is not learned from
MINIMA = (1923.6, 1933.8, 1944.2, 1954.3, 1964.9, 1976.5, 1986.8, 1996.4, 2008.9)  # years, WDC-SILSO
LINES, SHORT = 20_000, 2000  # values that an autoregression and an ARIMA are fitted to at most
NETWORK = {
    "dim": 32,
    "depth": 2,
    "heads": 2,
    "modulation": 16,
}  # with the prior as good as nano, at a third
ORDERS = ((2, 0, 1), (3, 0, 2), (2, 1, 2))


class System(NamedTuple):
    """What to learn from and what to forecast.

    Arguments:
        train: trajectories `(T, C, *space)`.
        test: starts `(B, PAST + LONGEST, C, *space)`, NaN after the end of what is known.
        groups: starts that are resampled together, `(B,)`.
        options: of the forecaster.
        exact: makes mean and variance of the exact forecast from pasts and a horizon.
        steps: of training.
        batch: windows in a step.
        members: to draw.
    """

    train: list[Tensor]
    test: Tensor
    groups: Tensor | None = None
    options: Mapping[str, object] = MappingProxyType({})
    exact: Callable[[Tensor, int], tuple[Tensor, Tensor]] | None = None
    steps: int = 1500
    batch: int = 64
    members: int = 8


def sinusoid(starts: int) -> System:
    draws = torch.Generator().manual_seed(100)
    train = list(noisy_sinusoid(600, 200, draws)[0])
    return System(train, noisy_sinusoid(starts, PAST + LONGEST, draws)[0])


def cell(starts: int) -> System:
    draws = torch.Generator().manual_seed(101)
    train = list(fitzhugh_nagumo(400, 200, draws)[0])
    return System(train, fitzhugh_nagumo(starts, PAST + LONGEST, draws)[0])


def chaos(starts: int) -> System:
    draws = torch.Generator().manual_seed(102)
    train = list(lorenz96(400, 200, draws)[0])
    test = lorenz96(starts, PAST + LONGEST, draws)[0]
    return System(train, test, options={"channels": [f"site {i}" for i in range(test.shape[2])]})


def transport(starts: int) -> System:
    draws = torch.Generator().manual_seed(103)
    field = FluxTransport((32,))
    train = list(field.simulate(1500, 120, draws)[0])
    test = field.simulate(starts, PAST + LONGEST, draws)[0]
    return System(train, test, None, {"space": (32,)}, field.kalman, 600, 32, 8)


def surface(starts: int) -> System:
    draws = torch.Generator().manual_seed(104)
    field = FluxTransport((16, 16))
    train = list(field.simulate(600, 100, draws)[0])
    test = field.simulate(starts, PAST + LONGEST, draws)[0]
    options = {"space": (16, 16), "prior": 48, "network": {**NETWORK, "patch": 4}}
    return System(train, test, None, options, field.kalman, 300, 24, 4)


def sunspots(starts: int) -> System:
    """Reads real monthly numbers as means of four months, those of training at each of the four phases."""
    months = read_series(MONTHS).values
    cut = (SPLIT - FIRST) * 12
    train = [_means(months[phase:cut]) for phase in range(4)]
    x = _means(months)
    first = torch.linspace(cut // 4, len(x) - 18, starts).round().long().unique()
    whole = torch.cat([x, x.new_full((LONGEST, 1), torch.nan)])
    test = torch.stack([whole[i - PAST : i + LONGEST] for i in first.tolist()])
    groups = torch.as_tensor(np.searchsorted(MINIMA, FIRST + first.numpy() / 3))
    return System(train, test, groups, {"channels": ["sunspot_number"], "transform": "sqrt"})


def _means(months: Tensor) -> Tensor:
    return months[: len(months) // 4 * 4].unflatten(0, (-1, 4)).mean(1)


SYSTEMS: dict[str, Callable[[int], System]] = {
    "sinusoid": sinusoid,
    "sunspots": sunspots,
    "transport": transport,
    "surface": surface,
    "cell": cell,
    "lorenz96": chaos,
}


# --- what one would take instead --------------------------------------------------------------------------------------


def persistence(system: System, horizon: int, members: int, seed: int) -> Tensor:
    """Adds to the last frame what followed some frame of training, less that frame."""
    draws = torch.Generator().manual_seed(seed)
    present = system.test[:, PAST - 1]
    made = []
    for lead in range(1, horizon + 1):
        moved = torch.cat([x[lead:] - x[:-lead] for x in system.train])
        made.append(present + moved[torch.randint(len(moved), (members, len(present)), generator=draws)])
    return torch.stack(made, 2)


def climatology(system: System, horizon: int, members: int, seed: int) -> Tensor:
    """Draws frames of training."""
    draws = torch.Generator().manual_seed(seed)
    frames = torch.cat(system.train)
    return frames[torch.randint(len(frames), (members, len(system.test), horizon), generator=draws)]


def process(system: System, horizon: int, members: int, seed: int) -> Tensor:
    """Draws from the Gaussian process of the empirical autocovariance, every channel and pixel for itself."""
    draws = np.random.default_rng(seed)
    train, past = _lines(system)
    made = []
    for rows, given in zip(train, past, strict=True):
        mean = np.mean([row.mean() for row in rows])
        acf = autocovariance(np.stack([row[: min(map(len, rows))] for row in rows]) - mean, PAST + horizon)
        weights, covariance = gaussian_forecast(acf, PAST, horizon)
        values, vectors = np.linalg.eigh(covariance)
        centre = (given - mean) @ weights.T
        made.append(mean + centre + _normal(draws, members, centre) @ (vectors * np.sqrt(values.clip(0))).T)
    return _fields(made, system)


def autoregression(system: System, horizon: int, members: int, seed: int) -> Tensor:
    """Runs an AR(p) of statsmodels, p by BIC, with resampled residuals."""
    from statsmodels.tsa.ar_model import AutoReg, ar_select_order

    draws = np.random.default_rng(seed)
    train, past = _lines(system)
    made = []
    for rows, given in zip(train, past, strict=True):
        x = np.concatenate(rows)[:LINES]  # the seams of trajectories are few
        lags = ar_select_order(x, 40, ic="bic").ar_lags or [1]
        fit = AutoReg(x, lags).fit()
        state = np.repeat(given[None], members, 0)
        for _ in range(horizon):
            mean = fit.params[0] + sum(c * state[..., -lag] for c, lag in zip(fit.params[1:], lags, strict=True))
            kick = fit.resid[draws.integers(len(fit.resid), size=mean.shape)]
            state = np.concatenate([state, (mean + kick)[..., None]], -1)
        made.append(state[..., PAST:])
    return _fields(made, system)


def arima(system: System, horizon: int, members: int, seed: int) -> Tensor:
    """Draws from an ARIMA of statsmodels, lead by lead; of three orders the one that has the least AIC."""
    from statsmodels.tsa.arima.model import ARIMA

    draws = np.random.default_rng(seed)
    train, past = _lines(system)
    made = []
    for rows, given in zip(train, past, strict=True):
        x = np.concatenate(rows)[:SHORT]
        fit = min((ARIMA(x, order=order).fit() for order in ORDERS), key=lambda fit: fit.aic)
        ahead = [fit.apply(row).get_forecast(horizon) for row in given]
        mean, scale = (np.stack([getattr(a, name) for a in ahead]) for name in ("predicted_mean", "se_mean"))
        made.append(mean + scale * _normal(draws, members, mean))
    return _fields(made, system)


def _lines(system: System) -> tuple[list[list[np.ndarray]], list[np.ndarray]]:
    """Lists, by channel, series of training and pasts `(B, PAST)`; all pixels of a field are series of a channel."""
    train = [x.flatten(2).double().numpy() if x.ndim > 2 else x[..., None].double().numpy() for x in system.train]
    past = system.test[:, :PAST].flatten(3) if system.test.ndim > 3 else system.test[:, :PAST, :, None]
    some = [x[..., :: max(1, x.shape[2] // 8)] for x in train[:200]]
    rows = [[line for x in some for line in x[:, channel].T] for channel in range(past.shape[2])]
    return rows, [part.permute(0, 2, 1).flatten(0, 1).double().numpy() for part in past.unbind(2)]


def _fields(made: list[np.ndarray], system: System) -> Tensor:
    """Brings draws by channel, `(M, B * pixels, T)`, to `(M, B, T, C, *space)`."""
    shape = system.test.shape[3:]
    parts = [torch.as_tensor(x).float().unflatten(1, (len(system.test), *(shape or (1,)))) for x in made]
    whole = torch.stack(parts, 2).movedim(-1, 2)  # (M, B, T, C, *space)
    return whole if shape else whole[..., 0]


def _normal(draws: np.random.Generator, members: int, like: np.ndarray) -> np.ndarray:
    return draws.standard_normal((members, *like.shape))


BASELINES: dict[str, Callable[[System, int, int, int], Tensor]] = {
    "persistence": persistence,
    "climatology": climatology,
    "AR(p)": autoregression,
    "ARIMA": arima,
    "Gaussian process": process,
}
