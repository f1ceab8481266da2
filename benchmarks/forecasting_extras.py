"""What `forecasting.py` measures beside schemes: codes of an autoencoder, contexts from embeddings, and time."""

import argparse
import json
import math
import time

from collections.abc import Callable
from pathlib import Path

import torch

from forecasting_systems import HORIZON, MONTHS, NETWORK, PAST, WINDOWS, surface

from aion import AION
from aion.forecasting.forecaster import Forecaster
from aion.forecasting.latent import LatentForecaster, PrincipalComponents
from aion.forecasting.verification import Verification, verify
from aion.io.series import read_series
from aion.sky import Sky


def latent(given: argparse.Namespace) -> dict:
    """Forecasts flux transport in two dimensions by its principal components, with the scores of exact ones beside."""
    system = surface(min(given.starts, 128))
    shape = system.train[0].shape[1:]
    autoencoder = PrincipalComponents(48, shape).fit(torch.cat(system.train[:100]))
    folder = given.output / "latent"
    if (folder / "forecaster").exists():
        forecaster = LatentForecaster.from_pretrained(folder / "forecaster", autoencoder)
    else:
        forecaster = LatentForecaster.build(autoencoder, shape, alpha=3.0, prior=48, network=NETWORK)
        forecaster.fit(system.train, 800 if given.train is None else given.train, batch=24, lr=2e-3, ema=0.995)
        forecaster.save_pretrained(folder / "forecaster")
    began = time.process_time()
    made = forecaster.forecast(system.test[:, :PAST], HORIZON, min(given.members, 8))
    seconds = time.process_time() - began
    truth = system.test[:, PAST : PAST + HORIZON]
    exact, variance = system.exact(system.test[:, :PAST], HORIZON)
    scores = verify(made, truth, exact=exact)
    left = (autoencoder.decode(autoencoder.encode(truth.flatten(0, 1))) - truth.flatten(0, 1)).square().mean().sqrt()
    return {
        "autoencoder": forecaster.forecaster.config["sources"]["autoencoder"],
        "left out by the autoencoder (rms)": round(left.item(), 4),
        "exact spread (rms)": round(variance.mean().sqrt().item(), 4),
        "forecast seconds": round(seconds, 1),
        "crps": _intervals(scores),
        "spread_skill": round(scores.spread_skill.mean().item(), 3),
    }


def context(given: argparse.Namespace) -> dict:
    """Tells the period of a noisy sinusoid, simulated, by a galaxy that it comes from: 24 frames at rest, times 1 + z.

    A network is given the embeddings of simulated spectra by `aion-nano`, or these shuffled, or the redshifts.
    """
    learned, starts = (600, min(given.starts, 128)) if given.train is None else (40, 8)
    sky, objects = (
        Sky(seed=7, galaxies=1.0, quasars=0.0, modalities=["desi_spectrum"], complete=True),
        range(learned + starts),
    )
    model = AION.from_pretrained("aion-nano")
    parts = [sky.observe(objects[i : i + 64]) for i in range(0, len(objects), 64)]
    embedding = torch.cat([model.embed(part) for part in parts])
    redshift = sky.labels(objects)["redshift"].float()
    draws = torch.Generator().manual_seed(105)
    phase = 2 * math.pi * torch.rand(len(objects), 1, generator=draws)
    clean = torch.sin(2 * math.pi * torch.arange(PAST + HORIZON) / (24 * (1 + redshift[:, None])) + phase)[..., None]
    seen = clean + 0.6 * torch.randn(clean.shape, generator=draws)
    contexts = {
        "embeddings": embedding,
        "shuffled": embedding[torch.randperm(len(objects), generator=draws)],
        "redshifts": redshift[:, None],
    }
    scores = {}
    for name, vectors in contexts.items():
        network = {**NETWORK, "context": vectors.shape[1]}
        sources = {} if name == "redshifts" else {"context": model.sha256}
        forecaster = Forecaster(network=network, alpha=3.0, sources=sources)
        steps = 1000 if given.train is None else given.train
        forecaster.fit(list(seen[:learned]), steps, lr=2e-3, ema=0.995, contexts=vectors[:learned])
        made = forecaster.forecast(seen[learned:, :PAST], HORIZON, 16, context=vectors[learned:])
        scores[name] = verify(made, seen[learned:, PAST:])
    gains = [scores["embeddings"].gain("crps", scores["shuffled"], slice(a, b)).tolist() for a, b in WINDOWS]
    return {
        "windows": WINDOWS,
        "crps": {name: _intervals(score) for name, score in scores.items()},
        "embeddings below shuffled": [[round(x, 4) for x in gain] for gain in gains],
        "model_sha256": model.sha256,
    }


def speed(given: argparse.Namespace) -> dict:
    """Times `forecaster-nano`: 64 members of 96 months, and the share of the calls of its network."""
    forecaster = Forecaster.from_pretrained("forecaster-nano")
    past = read_series(MONTHS).values[None]
    forward, spent = forecaster.denoiser.forward, [0.0, 0.0]

    def timed(*args: torch.Tensor) -> torch.Tensor:
        began = time.process_time(), time.perf_counter()
        result = forward(*args)
        spent[0] += time.process_time() - began[0]
        spent[1] += time.perf_counter() - began[1]
        return result

    forecaster.forecast(past, 6, 8)
    forecaster.denoiser.forward = timed
    found = []
    for _ in range(3):
        spent[:] = 0.0, 0.0
        began = time.process_time(), time.perf_counter()
        forecaster.forecast(past, 96, 64)
        whole = time.process_time() - began[0], time.perf_counter() - began[1]
        found.append({"processor s": whole[0], "clock s": whole[1], "share": spent[1] / whole[1]})
    return {
        "threads": torch.get_num_threads(),
        "least of three": {key: round(min(f[key] for f in found), 3) for key in found[0]},
    }


def _intervals(scores: Verification) -> list[list[float]]:
    return [[round(x, 4) for x in scores.interval("crps", slice(a, b)).tolist()] for a, b in WINDOWS]


EXTRAS: dict[str, Callable[[argparse.Namespace], dict]] = {"latent": latent, "context": context, "speed": speed}


def measure(name: str, given: argparse.Namespace) -> None:
    """Measures and writes `NAME.json` beside the cells."""
    facts = EXTRAS[name](given)
    text = json.dumps(facts, indent=1)
    print(f"\n## {name}\n\n{text}")
    given.results.mkdir(parents=True, exist_ok=True)
    path: Path = given.results / f"{name}.json"
    temporary = path.with_name(f".{path.name}")
    temporary.write_text(text + "\n")
    temporary.replace(path)
