"""Measures forecasts: schemes against each other with one network, and against what one would take instead.

    python benchmarks/forecasting.py plan                         # what is left to do, and how long it takes
    python benchmarks/forecasting.py sunspots transport -o runs/forecasting
    python benchmarks/forecasting.py ablations stability latent context speed -o runs/forecasting
    python benchmarks/forecasting.py closed-form                  # a minute, no network
    python benchmarks/forecasting.py summary                      # the tables

Every (system, forecast, seed) is one JSON file under `results/forecasting`, networks lie under the folder of `-o`:
what is there with the same settings is not made again, so that a run that was stopped goes on where it was. Two
processes may work on different systems; ablations and stability come after these, whose networks they take.
Schemes of K frames a call share a network and the number of calls.
Sunspots are real, all else is simulated.
"""

import argparse
import time

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from forecasting_cells import Cells, fingerprint, packed
from forecasting_closed import print_closed_form
from forecasting_extras import EXTRAS, measure
from forecasting_summary import print_summary
from forecasting_systems import BASELINES, HORIZON, NETWORK, PAST, SYSTEMS, WINDOWS, System
from torch import Tensor

from aion.forecasting.forecaster import Forecaster
from aion.forecasting.gaussian import Choice, autocovariance, select_template
from aion.forecasting.template import Scheme, autoregressive, hierarchy2, multiscale
from aion.forecasting.verification import verify

HERE = Path(__file__).parent
PERIODS, LATE = 90, ((0, 9), (9, 45), (45, 90))  # ten periods of the multiscale scheme, and their windows
MAIN = {"K": 3, "alpha": 3.0}  # the network that serves every scheme of three frames a call
ABLATED = ("sinusoid", "sunspots")
SPANS = {"ablations": ABLATED, "stability": ("sinusoid", "sunspots", "transport", "lorenz96")}  # systems of a section
LAGS = 100
CHUNK = 1024  # futures at once, a fifth faster than 256
RATE = 1.5e10  # operations a second of one core, measured with networks of nano size


class Row(NamedTuple):
    """One forecast of a system: `options` of the forecaster, the scheme, and which leads count.

    Arguments:
        name: of the cell's file.
        scheme: to forecast with; None for what has no network.
        options: of the forecaster beside those of the system.
        horizon: frames.
    """

    name: str
    scheme: Scheme | None
    options: dict
    horizon: int = HORIZON

    @property
    def learned(self) -> bool:
        """Tells whether a network is trained for it; what has none has no seed."""
        return self.scheme is not None and self.options.get("train") != 0


def rows(section: str, system: System) -> Iterator[Row]:
    """Lists what a section forecasts of a system."""
    best = multiscale(3, 2.5)
    if section == "stability":
        for scheme in (autoregressive(3), best):
            yield Row(f"long-{slug(scheme)}", scheme, MAIN, PERIODS)
        return
    if section == "ablations":
        for alpha in (1.0, 1.5, 2.0, 3.0):
            yield Row(slug(multiscale(3, alpha)), multiscale(3, alpha), MAIN)
        for K in (2, 4, 5):
            yield Row(slug(multiscale(K, 2.5)), multiscale(K, 2.5), shared(K))
        yield Row(slug(autoregressive(9)), autoregressive(9), {"K": 9, "alpha": 1.0})
        yield Row(f"white-{slug(best)}", best, {**MAIN, "prior": 0})
        return
    for scheme in (autoregressive(3), hierarchy2(3), best, best.limited(3)):
        yield Row(slug(scheme), scheme, MAIN)
    yield Row("gaussian-" + slug(best), best, {**MAIN, "train": 0})
    if section in ABLATED and (chosen := chosen_template(system)).pays:
        for scheme in (chosen.scheme, autoregressive(chosen.K)):
            yield Row(f"chosen-{slug(scheme)}", scheme, shared(chosen.K))
    for name in ("exact", *BASELINES):
        if (name == "exact" and system.exact is None) or (name == "ARIMA" and system.test.ndim > 3):
            continue  # an ARIMA of every pixel would take longer than all else
        yield Row(name.lower().replace(" ", "-").replace("(p)", ""), None, {"baseline": name})


def shared(K: int) -> dict:
    """Returns the options of the network that serves every scheme of K frames a call and ratios up to 2.5."""
    return MAIN if MAIN["K"] == K else {"K": K, "alpha": 2.5}


def slug(scheme: Scheme) -> str:
    return scheme.name.replace("α=", "a").replace("=", "").replace(", ", "-").replace(" ", "-").lower()


def chosen_template(system: System) -> Choice:
    """Chooses from the autocovariance of training, of a field's pixels on average."""
    length = min(LAGS, min(map(len, system.train)))
    lines = np.concatenate([x.flatten(1).T[:16, :200].numpy() for x in system.train[:100] if len(x) >= length])
    return select_template(autocovariance(lines - lines.mean(), length), (3, 4, 5), HORIZON)


# --- running ----------------------------------------------------------------------------------------------------------


class Bench:
    """Makes cells.

    Arguments:
        given: the arguments of the command.
    """

    def __init__(self, given: argparse.Namespace) -> None:
        self.given = given
        self.cells = Cells(given.results)

    def run(self, section: str, names: tuple[str, ...]) -> None:
        for name in names:
            system = SYSTEMS[name](self.given.starts)
            for seed in range(self.given.seeds):
                for row in rows(section, system):
                    if seed and not row.learned:
                        continue
                    settings = self.settings(name, system, row, seed)
                    began, there = time.process_time(), self.cells.find(name, row.name, seed, settings) is not None
                    facts = self.cells.make(name, row.name, seed, settings, lambda: self.score(system, row, settings))  # noqa: B023
                    score = " ".join("-" if x is None else f"{x:.4f}" for x in _means(facts))
                    seconds = "kept" if there else f"{time.process_time() - began:.0f} s"
                    print(f"{name:10} {row.name:28} seed {seed}  CRPS {score}  ({seconds})", flush=True)

    def settings(self, name: str, system: System, row: Row, seed: int) -> dict:
        """Returns all that the scores depend on."""
        long = row.horizon > HORIZON
        facts = {
            "system": name,
            "starts": min(self.given.starts, 64 if long else 128),
            "members": min(self.given.members, 4 if long else 64, system.members),
            "horizon": row.horizon,
            "seed": seed,
        }
        if row.scheme is None:
            return {**facts, **row.options}
        calls = [[list(part) for part in call] for call in row.scheme.round_]
        return {**facts, "scheme": row.scheme.name, "calls": calls, "network": self.network(name, system, row, seed)}

    def network(self, name: str, system: System, row: Row, seed: int) -> dict:
        """Returns all that the trained network depends on."""
        options = {**system.options, **row.options}
        options["network"] = system.options.get("network", NETWORK)
        steps = options.pop("train", system.steps if self.given.train is None else self.given.train)
        return {"system": name, "options": options, "steps": steps, "batch": system.batch, "lr": 2e-3, "seed": seed}

    def score(self, system: System, row: Row, settings: dict) -> dict:
        """Forecasts and scores."""
        began, horizon = time.process_time(), row.horizon
        test = system.test[: settings["starts"]]
        past, truth = test[:, :PAST], test[:, PAST : PAST + horizon]
        system = system._replace(test=test, groups=None if system.groups is None else system.groups[: len(test)])
        exact = system.exact(past, horizon) if system.exact else None
        windows = WINDOWS if horizon == HORIZON else LATE
        draws = settings["members"], settings["seed"]
        if row.scheme is not None:
            forecaster = self.trained(system, settings["network"])
            if not row.learned:
                forecaster.denoiser = forecaster.denoiser.prior
            options = {
                "generator": torch.Generator().manual_seed(settings["seed"]),
                "progress": row.name,
                "chunk": CHUNK,
            }
            made = forecaster.forecast(past, horizon, draws[0], scheme=row.scheme, **options)
        elif row.name == "exact":
            made = exact[0] + exact[1].sqrt() * torch.randn(
                draws[0], *truth.shape, generator=torch.Generator().manual_seed(0)
            )
        else:
            made = BASELINES[row.options["baseline"]](system, horizon, *draws)
        scores = verify(made, truth, groups=system.groups, exact=None if exact is None else exact[0])
        if row.name == "exact":
            scores.trajectories["crps"].copy_(_gaussian_crps(*exact, truth).flatten(2).mean(2))
        facts = packed(scores, windows)
        if horizon > HORIZON:
            late = verify(made[:, :, horizon // 2 :], truth[:, horizon // 2 :])
            facts["spectrum_ratio"] = packed(late, ((0, 1),))["spectrum_ratio"]
        return {**facts, "seconds": round(time.process_time() - began, 1)}

    def trained(self, system: System, settings: dict) -> Forecaster:
        """Loads a network, or trains it; a training that was stopped goes on."""
        folder = self.folder(settings)
        if (folder / "forecaster").exists():
            return Forecaster.from_pretrained(folder / "forecaster")
        began = time.process_time()
        forecaster = Forecaster(**settings["options"])
        options = {key: settings[key] for key in ("batch", "lr", "seed")}
        forecaster.fit(
            system.train,
            settings["steps"],
            **options,
            ema=0.995,
            checkpoint=folder / "checkpoints" if settings["steps"] else None,
            log=folder / "log.jsonl",
            progress=f"training {settings['system']}",
        )
        forecaster.provenance["seconds"] = round(time.process_time() - began)
        forecaster.save_pretrained(folder / "forecaster")
        return forecaster

    def folder(self, settings: dict) -> Path:
        """Returns where a network lies."""
        return self.given.output / f"{settings['system']}-{fingerprint(settings)}-s{settings['seed']}"

    def plan(self) -> None:
        """Prints what is left to do and how many seconds of one core that takes, reckoned from operations."""
        total, trained = 0.0, set()
        for section in (*SYSTEMS, *SPANS):
            names = SPANS.get(section, (section,))
            left, training, sampling = 0, 0.0, 0.0
            for name in names:
                system = SYSTEMS[name](self.given.starts)
                for seed, row in ((seed, row) for seed in range(self.given.seeds) for row in rows(section, system)):
                    settings = self.settings(name, system, row, seed)
                    if (seed and not row.learned) or self.cells.find(name, row.name, seed, settings):
                        continue
                    left += 1
                    if not row.learned:
                        continue
                    network = settings["network"]
                    cost, moments = (each / RATE for each in _operations(system, network["options"]))
                    if not (self.folder(network) / "forecaster").exists() and fingerprint(network) not in trained:
                        training += (3 * cost + moments) * network["steps"] * network["batch"]
                        trained.add(fingerprint(network))
                    calls = len(row.scheme.calls(row.horizon)) * 17
                    sampling += cost * calls * settings["starts"] * settings["members"]
            total += training + sampling
            print(f"{section:10} {left:4} cells left, training {training:6.0f} s, sampling {sampling:6.0f} s")
        print(f"together {total / 3600:.1f} hours of one core, baselines not counted")


def _operations(system: System, options: dict) -> tuple[float, float]:
    """Counts operations for one window: of a call of the network, and of the prior where every window has its own."""
    size, frames = options["network"], 2 * options["K"] + 1
    patches = int(np.prod([side // size.get("patch", 8) for side in options.get("space", ())]))
    tokens, dim = frames * patches, size["dim"]
    weights = dim * dim * 12 * size["depth"] + dim * 3 * size.get("patch", 8) ** len(options.get("space", ())) * 2
    components = min(options.get("prior", 32), int(np.prod(system.test.shape[2:])))
    return tokens * (2 * weights + 4 * tokens * dim * size["depth"]), 1.6 * (components * frames) ** 3


def _means(facts: dict) -> list[float | None]:
    """Returns the mean CRPS by window."""
    columns = zip(*facts["starts"]["crps"], strict=True)
    kept = [[value for value in column if value is not None] for column in columns]
    return [sum(column) / len(column) if column else None for column in kept]


def _gaussian_crps(mean: Tensor, variance: Tensor, truth: Tensor) -> Tensor:
    scale = variance.double().sqrt()
    z = (truth - mean) / scale
    normal = torch.distributions.Normal(0.0, 1.0)
    return scale * (z * (2 * normal.cdf(z) - 1) + 2 * normal.log_prob(z).exp() - torch.pi**-0.5)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    sections = ["closed-form", *SYSTEMS, *SPANS, *EXTRAS, "summary", "plan"]
    parser.add_argument("what", nargs="+", choices=sections, metavar="WHAT", help=f"of {', '.join(sections)}")
    parser.add_argument("-o", "--output", type=Path, default=Path("runs/forecasting"), help="folder of the networks")
    parser.add_argument("--results", type=Path, default=HERE / "results" / "forecasting", help="folder of the cells")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--train", type=int, help="steps of training, in place of each system's own")
    parser.add_argument("--starts", type=int, default=128)
    parser.add_argument("--members", type=int, default=64, help="at most; most systems have fewer")
    parser.add_argument("--threads", type=int, default=1)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    bench = Bench(given)
    for what in given.what:
        if what == "closed-form":
            print_closed_form()
        elif what == "summary":
            print_summary(given.results)
        elif what == "plan":
            bench.plan()
        elif what in EXTRAS:
            measure(what, given)
        else:
            bench.run(what, SPANS.get(what, (what,)))


if __name__ == "__main__":
    main()
