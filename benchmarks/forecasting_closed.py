"""What schemes lose on Gaussian processes whose covariance is known, in closed form, without any network."""

import numpy as np

from aion.forecasting.gaussian import PROCESSES, gaussian_scheme_skill, select_template
from aion.forecasting.template import Scheme, autoregressive, hierarchy2, multiscale
from aion.forecasting.transport import FluxTransport

WINDOWS = ((0, 3), (3, 9), (9, 18), (18, 27))
BEST = multiscale(3, 2.5)
HEAD = "| {} | scheme | 1-3 | 4-9 | 10-18 | 19-27 |\n|---|---|---|---|---|---|"
PAST, HORIZON = 40, 27


def print_closed_form() -> None:
    """Prints the excess of the expected CRPS over the exact forecast's."""
    print("## Excess CRPS over the exact forecast, closed form, past of 60 frames\n")
    print(HEAD.format("process"))
    for name, process in PROCESSES.items():
        acf = process(np.arange(200))
        chosen = select_template(acf, 3, 18)
        others = multiscale(3, chosen.alpha), autoregressive(9)
        for scheme in (autoregressive(3), hierarchy2(3), BEST, BEST.limited(3), *others):
            _print(name, scheme, gaussian_scheme_skill(acf, scheme, HORIZON, 60)["crps_excess"])
        print(f"| | select_template: {chosen.reason} | | | | |")
    print(f"\n## The same for flux transport on 32 pixels, mean of all pixels, past of {PAST} frames\n")
    print(HEAD.format("field"))
    blocks = _blocks(FluxTransport((32,)))
    for scheme in (autoregressive(3), hierarchy2(3), BEST, autoregressive(9)):
        _print("flux transport", scheme, field_excess(blocks, scheme))


def _print(name: str, scheme: Scheme, excess: np.ndarray) -> None:
    print(
        f"| {name} | {scheme.name} | " + " | ".join(f"{excess[a:b].mean():.4f}" for a, b in WINDOWS) + " |", flush=True
    )


def field_excess(blocks: np.ndarray, scheme: Scheme) -> np.ndarray:
    """Computes the excess by lead for a process of covariances `(lags, D, D)` between frames, all entries alike."""
    size, past, future = blocks.shape[1], range(-PAST + 1, 1), range(1, HORIZON + 1)
    inner, cross = _covariance(blocks, past, past), _covariance(blocks, future, past)
    exact = np.linalg.solve(inner, cross.T).T
    calls = scheme.calls(HORIZON)
    noise = sum(len(new) for _, new in calls) * size
    width = PAST * size + noise
    rows = {t: np.eye(size, width, (t + PAST - 1) * size) for t in past[-scheme.reach() - 1 :]}
    used = PAST * size
    for known, new in calls:
        cause = _covariance(blocks, new, known)
        weights = np.linalg.solve(_covariance(blocks, known, known), cause.T).T
        values, vectors = np.linalg.eigh(_covariance(blocks, new, new) - weights @ cause.T)
        made = weights @ np.concatenate([rows[t] for t in known])
        made[:, used : used + len(made)] += vectors * np.sqrt(values.clip(0))
        used += len(made)
        rows |= dict(zip(new, made.reshape(len(new), size, -1), strict=True))
    excess = []
    by_lead = (part.reshape(HORIZON, size, -1) for part in (exact, cross))
    for lead, (weights, told) in enumerate(zip(*by_lead, strict=True), 1):
        off, made = rows[lead][:, : PAST * size] - weights, rows[lead][:, PAST * size :]
        least = blocks[0].diagonal() - (weights * told).sum(1)
        variance = (made**2).sum(1)
        error = ((off @ inner) * off).sum(1) + least + variance
        score = np.sqrt(2 / np.pi * error) - np.sqrt(variance / np.pi)
        excess.append(score.mean() / np.sqrt(least / np.pi).mean() - 1)
    return np.array(excess)


def _covariance(blocks: np.ndarray, ones: range | tuple, others: range | tuple) -> np.ndarray:
    return np.block([[blocks[i - j] if i >= j else blocks[j - i].T for j in others] for i in ones])


def _blocks(field: FluxTransport) -> np.ndarray:
    """Computes the covariances of what is seen at lags 0, 1, ..."""
    pixels = len(field.move) // 2
    state, found = field.climate, []
    for _ in range(PAST + HORIZON):
        found.append(state[:pixels, :pixels].numpy())
        state = field.move @ state
    found[0] = found[0] + field.noise**2 * np.eye(pixels)
    return np.stack(found)
