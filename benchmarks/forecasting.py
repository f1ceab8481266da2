"""Measures forecasts: schemes against each other with one network, and against what one would take instead.

    python benchmarks/forecasting.py                       # all systems, three seeds, 128 starts: hours on one core
    python benchmarks/forecasting.py sunspots --seeds 1 --train 1000 --starts 64 --members 8
    python benchmarks/forecasting.py closed-form           # a second, no network

Every scheme has the same network, the same number of calls and the same noise. Scores are means over seeds; intervals
are 95 %, by resampling starts (cycles, for the sunspots). Sunspots are real, all else is simulated.
"""

import argparse
import json
import math
import time

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from torch import Tensor

from aion.forecasting.forecaster import Forecaster
from aion.forecasting.gaussian import (
    PROCESSES,
    autocovariance,
    gaussian_forecast,
    gaussian_scheme_skill,
    select_template,
)
from aion.forecasting.network import SIZES
from aion.forecasting.systems import fitzhugh_nagumo, lorenz96, noisy_sinusoid
from aion.forecasting.template import Scheme, autoregressive, hierarchy2, multiscale
from aion.forecasting.transport import FluxTransport
from aion.forecasting.verification import Verification, verify
from aion.io.series import read_series

HERE = Path(__file__).parent
HORIZON, PAST = 27, 60
WINDOWS = ((0, 3), (3, 9), (9, 18), (18, 27))
MINIMA = (1923.6, 1933.8, 1944.2, 1954.3, 1964.9, 1976.5, 1986.8, 1996.4, 2008.9)  # years, WDC-SILSO


class System(NamedTuple):
    """What to train on and what to forecast; `exact` draws from the exact forecast, where there is one."""

    train: list[Tensor]
    past: Tensor
    truth: Tensor
    groups: Tensor | None
    exact: tuple[Tensor, Tensor] | None
    options: dict


def sinusoid(starts: int) -> System:
    draws = torch.Generator().manual_seed(100)
    train = list(noisy_sinusoid(400, 120, draws)[0])
    return _split(train, noisy_sinusoid(starts, PAST + HORIZON, draws)[0])


def cell(starts: int) -> System:
    draws = torch.Generator().manual_seed(101)
    train = list(fitzhugh_nagumo(200, 200, draws)[0])
    return _split(train, fitzhugh_nagumo(starts, PAST + HORIZON, draws)[0])


def chaos(starts: int) -> System:
    draws = torch.Generator().manual_seed(102)
    train = list(lorenz96(200, 200, draws)[0])
    return _split(train, lorenz96(starts, PAST + HORIZON, draws)[0])


def transport(starts: int) -> System:
    draws = torch.Generator().manual_seed(103)
    field = FluxTransport((32,))
    train = list(field.simulate(200, 120, draws)[0])
    test = field.simulate(starts, PAST + HORIZON, draws)[0]
    system = _split(train, test)
    return system._replace(exact=field.kalman(system.past, HORIZON), options={"space": (32,)})


def sunspots(starts: int) -> System:
    series = read_series(HERE / "data" / "sunspot_month.csv").coarser(4)
    x, cut = series.values, (1922 - 1749) * 3
    first = torch.linspace(cut, len(x) - HORIZON, starts).round().long().unique()
    year = 1749 + first.numpy() / 3
    return System(
        [x[:cut]],
        torch.stack([x[i - PAST : i] for i in first.tolist()]),
        torch.stack([x[i : i + HORIZON] for i in first.tolist()]),
        torch.as_tensor(np.searchsorted(MINIMA, year)),
        None,
        {"transform": "sqrt"},
    )


def _split(train: list[Tensor], test: Tensor) -> System:
    return System(
        train, test[:, :PAST], test[:, PAST:], None, None, {"channels": [f"c{i}" for i in range(test.shape[2])]}
    )


SYSTEMS: dict[str, Callable[[int], System]] = {
    "sinusoid": sinusoid,
    "sunspots": sunspots,
    "transport": transport,
    "cell": cell,
    "lorenz96": chaos,
}


# --- what one would take instead --------------------------------------------------------------------------------------


def baselines(system: System, members: int) -> dict[str, Tensor]:
    """Draws from persistence with the scatter it had in training, climatology, an AR(p) and a Gaussian process."""
    draws = np.random.default_rng(0)
    shape = (members, *system.truth.shape)
    values = torch.cat([x.flatten(0, 0) for x in system.train])
    climate = values[torch.as_tensor(draws.integers(len(values), size=shape[:3]))]
    steps = []
    for lead in range(1, HORIZON + 1):
        moved = torch.cat([x[lead:] - x[:-lead] for x in system.train])
        steps.append(system.past[:, -1] + moved[torch.as_tensor(draws.integers(len(moved), size=shape[:2]))])
    result = {"persistence": torch.stack(steps, 2), "climatology": climate}
    if system.truth.ndim == 3:
        result["Gaussian process"] = _process(system, members, draws)
        result["AR(p), statsmodels"] = _autoregression(system, members, draws)
    return result


def _process(system: System, members: int, draws: np.random.Generator) -> Tensor:
    mean = torch.cat(system.train).mean(0)
    channels = []
    for channel in range(system.truth.shape[2]):
        rows = [(x[:, channel] - mean[channel]).numpy() for x in system.train]
        acf = autocovariance(np.stack(rows), PAST + HORIZON)
        weights, covariance = gaussian_forecast(acf, PAST, HORIZON)
        centre = (system.past[:, :, channel] - mean[channel]).numpy() @ weights.T
        values, vectors = np.linalg.eigh(covariance)
        scatter = draws.standard_normal((members, *centre.shape)) @ (vectors * np.sqrt(values.clip(0))).T
        channels.append(torch.as_tensor(centre + scatter).float() + mean[channel])
    return torch.stack(channels, -1)


def _autoregression(system: System, members: int, draws: np.random.Generator) -> Tensor:
    from statsmodels.tsa.ar_model import AutoReg, ar_select_order

    channels = []
    for channel in range(system.truth.shape[2]):
        x = torch.cat(system.train)[:, channel].double().numpy()[:5000]  # the seams of trajectories are few
        lags = ar_select_order(x, 40, ic="bic").ar_lags or [1]
        fit = AutoReg(x, lags).fit()
        state = np.repeat(system.past[:, :, channel].double().numpy()[None], members, 0)
        for _ in range(HORIZON):
            mean = fit.params[0] + sum(c * state[..., -lag] for c, lag in zip(fit.params[1:], lags, strict=True))
            kick = fit.resid[draws.integers(len(fit.resid), size=mean.shape)]
            state = np.concatenate([state, (mean + kick)[..., None]], -1)
        channels.append(torch.as_tensor(state[..., PAST:]).float())
    return torch.stack(channels, -1)


# --- running ----------------------------------------------------------------------------------------------------------


def schemes() -> list[Scheme]:
    best = multiscale(3, 2.5)
    return [autoregressive(3), hierarchy2(3), best, best.limited(3)]


def run(name: str, given: argparse.Namespace) -> dict:
    system = SYSTEMS[name](given.starts)
    print(
        f"\n## {name}: {len(system.past)} starts, {given.members} members, {given.seeds} seeds, {given.train} steps\n"
    )
    lags = np.concatenate([x.flatten(1).T.numpy()[:4] for x in system.train[:50]])
    acf = autocovariance(lags - lags.mean(), min(90, lags.shape[1]))
    print("select_template:", select_template(acf, 3, min(18, len(acf) // 3)).reason, "\n")
    scored: dict[str, list[Verification]] = {}
    seconds = []
    for seed in range(given.seeds):
        forecaster = Forecaster(network=SIZES["nano"], steps=given.levels, **system.options)
        started = time.process_time()
        forecaster.fit(system.train, given.train, lr=2e-3, seed=seed, progress=f"{name} {seed}")
        seconds.append(time.process_time() - started)
        for scheme in schemes():
            generator = torch.Generator().manual_seed(seed)
            made = forecaster.forecast(
                system.past, HORIZON, given.members, scheme=scheme, generator=generator, progress=scheme.name
            )
            exact = system.exact[0] if system.exact else None
            scored.setdefault(scheme.name, []).append(verify(made, system.truth, groups=system.groups, exact=exact))
    for other, made in baselines(system, given.members).items():
        scored[other] = [verify(made, system.truth, groups=system.groups)]
    table = {other: _pooled(each) for other, each in scored.items()}
    _print(table, system)
    print(f"\ntraining: {np.mean(seconds):.0f} s of processor time a seed")
    return {"starts": len(system.past), "scores": {other: _facts(v) for other, v in table.items()}}


def _pooled(each: list[Verification]) -> Verification:
    """Averages over seeds, start by start."""
    scores = {key: torch.stack([v.trajectories[key] for v in each]).mean(0) for key in each[0].trajectories}
    ratio = torch.stack([v.spectrum_ratio for v in each]).mean(0)
    ranks = torch.stack([v.rank_histogram for v in each]).mean(0)
    return Verification(scores, each[0].groups, ratio, ranks)


def _facts(v: Verification) -> dict:
    crps = [[round(x, 4) for x in v.interval("crps", slice(a, b)).tolist()] for a, b in WINDOWS]
    return {"crps": crps, "spread_skill": [round(x, 3) for x in v.spread_skill.tolist()]}


def _print(table: dict[str, Verification], system: System) -> None:
    print(
        "| CRPS at leads | " + " | ".join(f"{a + 1}-{b}" for a, b in WINDOWS) + " | spread/skill | spectrum | blow-up |"
    )
    print("|---|" + "---|" * (len(WINDOWS) + 3))
    for name, v in table.items():
        cells = [f"{x[0]:.3f} [{x[1]:.3f}, {x[2]:.3f}]" for x in (v.interval("crps", slice(a, b)) for a, b in WINDOWS)]
        ratio = " ".join(f"{x:.2f}" for x in v.spectrum_ratio.tolist())
        far = v.trajectories["blow_up"].mean()
        print(f"| {name} | " + " | ".join(cells) + f" | {v.spread_skill.mean():.2f} | {ratio} | {far:.3f} |")
    if system.exact:
        exact = _gaussian_crps(*system.exact, system.truth).flatten(2).mean(2)
        print("| Kalman (exact) | " + " | ".join(f"{exact[:, a:b].mean():.3f}" for a, b in WINDOWS) + " | 1 | | 0 |")
    best = multiscale(3, 2.5).name
    print(f"\nCRPS of {best} below that of others, in %:\n")
    for name, v in table.items():
        if name != best:
            gains = [100 * table[best].gain("crps", v, slice(a, b)) for a, b in WINDOWS]
            print(f"- {name}: " + ", ".join(f"{g[0]:.1f} [{g[1]:.1f}, {g[2]:.1f}]" for g in gains))
    if system.exact:
        print("\nmean square of the conditional bias of the spatial mean, by window:\n")
        for name, v in table.items():
            if name in [scheme.name for scheme in schemes()]:
                print(f"- {name}: " + ", ".join(f"{v.mean('bias')[a:b].mean():.4f}" for a, b in WINDOWS))


def _gaussian_crps(mean: Tensor, variance: Tensor, truth: Tensor) -> Tensor:
    scale = variance.sqrt()
    z = (truth - mean) / scale
    normal = torch.distributions.Normal(0.0, 1.0)
    return scale * (z * (2 * normal.cdf(z) - 1) + 2 * normal.log_prob(z).exp() - 1 / math.sqrt(math.pi))


def closed_form() -> None:
    print("## Excess CRPS over the exact forecast, closed form, past of 60 frames, K = 3\n")
    print("| process | scheme | 1-3 | 4-9 | 10-18 | 19-27 |\n|---|---|---|---|---|---|")
    for name, process in PROCESSES.items():
        acf = process(np.arange(200))
        chosen = select_template(acf, 3, 18)
        for scheme in (*schemes(), multiscale(3, chosen.alpha)):
            excess = gaussian_scheme_skill(acf, scheme, HORIZON, PAST)["crps_excess"]
            cells = " | ".join(f"{excess[a:b].mean():.3f}" for a, b in WINDOWS)
            print(f"| {name} | {scheme.name} | {cells} |")
        print(f"| | select_template: {chosen.reason} | | | | |")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "what", nargs="*", default=["closed-form", *SYSTEMS], help=f"of closed-form, {', '.join(SYSTEMS)}"
    )
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--train", type=int, default=3000, help="steps of training")
    parser.add_argument("--starts", type=int, default=128)
    parser.add_argument("--members", type=int, default=32)
    parser.add_argument("--levels", type=int, default=16, help="of noise, in sampling")
    parser.add_argument("--json", type=Path, help="write the scores there, too")
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    results = {}
    for what in chosen.what:
        if what == "closed-form":
            closed_form()
        else:
            results[what] = run(what, chosen)
    if chosen.json:
        facts = {
            "settings": {k: str(v) for k, v in vars(chosen).items()},
            "torch": torch.__version__,
            "results": results,
        }
        chosen.json.write_text(json.dumps(facts, indent=1) + "\n")
