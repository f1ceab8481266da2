"""The outlook of a series: what `aion forecast` does, from a CSV file to a table of futures and a chart of them."""

__all__ = ["outlook"]

import sys

from collections.abc import Sequence
from pathlib import Path

import torch

from torch import Tensor

from aion.device import usable
from aion.forecasting.charts import plot_fan
from aion.forecasting.forecaster import Forecaster
from aion.forecasting.series import check_series, series_forecaster
from aion.forecasting.template import autoregressive
from aion.io import Series, read_series, write_forecast
from aion.whole import whole

SHOWN = 3  # horizons of the past in the chart


def outlook(
    path: Path | str,
    output: Path | str,
    *,
    horizon: int = 96,
    members: int = 64,
    model: str = "forecaster-nano",
    columns: Sequence[str] | None = None,
    fit: int | None = None,
    save: Path | str | None = None,
    short: bool = False,
    seed: int = 0,
    device: str = "cpu",
) -> tuple[Path, Path]:
    """Forecasts the series of a CSV file and returns the names of the table and of the chart.

    Each of them appears whole or not at all.

    Arguments:
        path: of the series, see `aion.io.read_series`.
        output: Parquet file to write; the chart is beside it, as PNG.
        horizon: steps to forecast.
        members: futures to draw.
        model: a forecaster that ships, a folder or a repository of the Hub.
        columns: channels to read; all by default.
        fit: train a small forecaster on the series itself, so many steps, in place of `model`.
        save: folder to keep it in.
        short: look at the last frames only, by the autoregressive scheme, as a series shorter than the reach asks for.
        seed: of all draws.
        device: where to compute.

    Raises:
        FileNotFoundError: if there is no such file or model.
        ValueError: if the series cannot be read, is not what the model knows, too short or in other units.
    """
    if save is not None and fit is None:
        msg = "--save keeps what --fit trains: give --fit STEPS too"
        raise ValueError(msg)
    device = usable(device)
    series = read_series(path, columns)
    if series.missing:
        print(f"aion: note: {series.missing} of {series.values.numel()} values are not measured", file=sys.stderr)
    if fit is None:
        forecaster = Forecaster.from_pretrained(model, device=device)
        check_series(forecaster, series.values, series.columns, series.cadence)
    else:
        forecaster = series_forecaster(series.values, series.columns, series.cadence).to(device)
        forecaster.fit(series.values[None], fit, seed=seed, progress="training")
        if save is not None:
            forecaster.save_pretrained(save)
    generator = torch.Generator().manual_seed(seed)
    past = series.values[None]
    scheme = autoregressive(forecaster.scheme.K) if short else forecaster.scheme
    if not short and past.shape[1] <= scheme.reach():
        print("aion: note: --short forecasts from the last steps alone", file=sys.stderr)
    options = {"generator": generator, "scheme": scheme, "progress": "forecast"}
    ensemble = forecaster.forecast(past, horizon, members, **options)[:, 0]
    facts = {"model_sha256": forecaster.sha256, "scheme": scheme.name, "seed": seed}
    table = write_forecast(output, series, ensemble, facts)
    return table, _chart(table.with_suffix(".png"), series, ensemble)


def _chart(path: Path, series: Series, ensemble: Tensor) -> Path:
    length = len(series.values)
    xlabel = f"steps of {series.cadence} after {series.times(length - 1, length)[0]}"
    past = series.values[-SHOWN * ensemble.shape[1] :]
    with whole(path) as temporary:
        plot_fan(past, ensemble, names=series.columns, xlabel=xlabel).savefig(temporary, format="png", dpi=150)
    return path
