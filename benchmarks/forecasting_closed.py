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
        _print("flux transport", scheme, gaussian_scheme_skill(blocks, scheme, HORIZON, PAST)["crps_excess"])


def _print(name: str, scheme: Scheme, excess: np.ndarray) -> None:
    print(
        f"| {name} | {scheme.name} | " + " | ".join(f"{excess[a:b].mean():.4f}" for a, b in WINDOWS) + " |", flush=True
    )


def _blocks(field: FluxTransport) -> np.ndarray:
    """Computes the covariances of what is seen at lags 0, 1, ..."""
    pixels = len(field.move) // 2
    state, found = field.climate, []
    for _ in range(PAST + HORIZON):
        found.append(state[:pixels, :pixels].numpy())
        state = field.move @ state
    found[0] = found[0] + field.noise**2 * np.eye(pixels)
    return np.stack(found)
