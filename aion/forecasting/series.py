"""Forecasters of a time series: built for the one at hand, or recognised as made for it."""

__all__ = ["check_series", "series_forecaster"]

from collections.abc import Sequence

import numpy as np

from torch import Tensor

from aion.forecasting.forecaster import Forecaster
from aion.forecasting.gaussian import autocovariance, select_template
from aion.forecasting.network import SIZES
from aion.forecasting.normalisation import Normalisation

SHORTEST = 64  # frames of a series that a forecaster is built for


def series_forecaster(values: Tensor, channels: Sequence[str], cadence: str = "") -> Forecaster:
    """Builds an untrained nano forecaster for a series `(T, C)`, with the template its autocovariance asks for.

    Arguments:
        values: NaN is not measured.
        channels: names of the C channels.
        cadence: time between two frames, as text.

    Raises:
        ValueError: if the series is too short (under 64 frames), or a channel constant or not measured at all.
    """
    if len(values) < SHORTEST:
        msg = f"a series of {len(values)} frames is too short to learn from: wanted at least {SHORTEST}"
        raise ValueError(msg)
    lags = min(len(values) // 2, 300)
    acf = np.stack([autocovariance(x, lags) for x in _normal(values, channels).double().numpy().T])
    choice = select_template(acf, (3, 4, 5), lags // 4)
    return Forecaster(channels, K=choice.K, alpha=choice.alpha, cadence=cadence, network=SIZES["nano"])


def check_series(forecaster: Forecaster, values: Tensor, channels: Sequence[str], cadence: str) -> None:
    """Refuses a series `(T, C)` of other channels or another time between frames than those of training, or constant.

    Raises:
        ValueError: saying what differs, or which channel is constant or not measured at all.
    """
    for what, mine, given in (
        ("channels", ", ".join(forecaster.channels), ", ".join(channels)),
        ("time between frames", forecaster.config["cadence"], cadence),
    ):
        if mine != given:
            msg = f"this forecaster knows the {what} {mine!r}, given {given!r}: fit one to this series"
            raise ValueError(msg)
    _normal(values, channels)


def _normal(values: Tensor, channels: Sequence[str]) -> Tensor:
    """Brings every channel to unit variance, and refuses one that has none."""
    normal = Normalisation(channels, ("",) * len(channels), 0)
    normal.fit([values])
    return normal(values)
