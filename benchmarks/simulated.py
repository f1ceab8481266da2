"""How well a model does on simulated objects no recipe trains on: `python benchmarks/simulated.py [MODEL] [OBJECTS]`.

Redshift: error of the mode and of the median for simulated galaxies, by what is given and by the median S/N of the
spectrum; the control is the same spectra with every flux set to zero, masks and ivar kept, the baseline gradient
boosting of fluxes and colours of 24 000 other objects of all kinds. Calibration: where the true redshifts of all
objects fall in their predicted distributions, in tenths, each of which should hold a tenth of them. Properties: R2 of
linear probes on frozen embeddings, beside ridge on the measurements themselves (principal components of spectra and
images) and gradient boosting of those, all fitted to the same four fifths. Tokens: mean square of the residuals of
decoded spectra in units of the error, and the share of codes in use.
"""

__all__ = ["boosted_redshifts", "calibration", "properties", "redshifts", "spectra", "tokens"]

import json
import sys

from collections.abc import Mapping
from itertools import combinations, pairwise
from pathlib import Path

import numpy as np
import torch

from sklearn.ensemble import HistGradientBoostingRegressor

from aion import AION, Spectrum
from aion.benchmarks.embedders import Frozen
from aion.benchmarks.fitting import linear, taken
from aion.benchmarks.metrics import nmad, pit, r2
from aion.benchmarks.raw import Raw
from aion.observations import Observation
from aion.sky import Sky
from aion.sky.sky import GALAXY

RESULT = Path(__file__).resolve().parent / "results" / "simulated"
GRIZ = tuple(f"legacysurvey_flux_{band}" for band in "griz")
PHOTOMETRY = (*GRIZ, *(f"legacysurvey_flux_w{k}" for k in (1, 2, 3, 4)))
CATALOGUE = (*PHOTOMETRY, *(f"legacysurvey_{name}" for name in ("shape_r", "shape_e1", "shape_e2", "ebv")))
IMAGE, DESI, SDSS = "legacysurvey_image", "desi_spectrum", "sdss_spectrum"
NUMBERS = {"griz": GRIZ, "griz, W1-W4": PHOTOMETRY, "griz, W1-W4, shape, E(B-V)": CATALOGUE}
GIVEN = {
    **NUMBERS,
    "griz, image": (*GRIZ, IMAGE),
    "griz, image, DESI spectrum": (*GRIZ, IMAGE, DESI),
}
SNR = (0, 2, 5, 10, np.inf)
LABELS = ("redshift", "log_mass", "log_age", "metallicity", "log_ssfr")
BATCH = 100


def median_snr(spectrum: Spectrum) -> torch.Tensor:
    ratio = (spectrum.flux * spectrum.ivar.sqrt()).masked_fill(~spectrum.measured, torch.nan)
    return ratio.nanmedian(dim=1).values


def redshift_row(model: AION, observations: Mapping[str, Observation], redshift: torch.Tensor) -> dict:
    posterior = model.predict(observations, "redshift")
    error = (posterior.mode() - redshift) / (1 + redshift)
    truth = redshift.numpy()
    low, high = posterior.interval(0.68)
    return {
        "n": len(redshift),
        "nmad": round(nmad(truth, posterior.mode().numpy()), 5),
        "nmad_median": round(nmad(truth, posterior.median().numpy()), 5),
        "within_0.005": round((error.abs() <= 0.005).double().mean().item(), 3),
        "inside68": round(((low <= redshift) & (redshift <= high)).double().mean().item(), 3),
        "log_prob": round(posterior.log_prob(redshift).clamp(min=-10).mean().item(), 3),
    }


def simulate(names: tuple[str, ...], first: int, count: int, **options) -> tuple[dict, dict]:
    """Returns complete observations and labels of simulated objects that every one of the modalities can see."""
    sky, index = Sky(modalities=names, complete=True, **options), torch.arange(first, first + count)
    parts = [sky.observe(part) for part in index.split(BATCH)]
    return {name: type(parts[0][name]).stack([part[name] for part in parts]) for name in names}, sky.labels(index)


def redshifts(model: AION, count: int) -> dict[str, dict]:
    """Scores redshifts of galaxies by what is given of photometry, image and spectrum."""
    observed, redshift = galaxies((*CATALOGUE, IMAGE, DESI), count)
    table = {}
    for label, names in GIVEN.items():
        seen = torch.stack([observed[n].measured.reshape(len(redshift), -1).any(1) for n in names]).all(0)
        table[label] = redshift_row(model, {name: observed[name][seen] for name in names}, redshift[seen])
    return table


def boosted_redshifts(count: int) -> dict[str, dict]:
    """Scores what gradient boosting makes of the numbers of a catalogue, fitted to medians of objects of all kinds."""
    seen, labels = simulate(CATALOGUE, 100_000, 24_000)
    observed, redshift = galaxies(CATALOGUE, count)
    boost, table = (
        HistGradientBoostingRegressor("absolute_error", random_state=0, max_iter=400, early_stopping=True),
        {},
    )
    for label, names in NUMBERS.items():
        boost.fit(colours(seen, names), labels["redshift"].double().log1p().numpy())
        guess = np.expm1(boost.predict(colours(observed, names)))
        error = np.abs(guess - redshift.numpy()) / (1 + redshift.numpy())
        near = {"within_0.005": round(float((error <= 0.005).mean()), 3)}
        table[f"{label}: gradient boosting"] = {
            "n": len(error),
            "nmad_median": round(nmad(redshift.numpy(), guess), 5),
            **near,
        }
    return table


def colours(observed: Mapping[str, Observation], names: tuple[str, ...]) -> np.ndarray:
    """Returns compressed fluxes, their differences and other numbers as they are, `(B, D)`."""
    columns = {name: observed[name].value.reshape(-1).numpy() for name in names}
    bright = [np.arcsinh(10 * column) for name, column in columns.items() if "flux" in name]
    others = [column for name, column in columns.items() if "flux" not in name]
    return np.stack([*bright, *(one - two for one, two in combinations(bright, 2)), *others], 1)


def spectra(model: AION, count: int) -> dict[str, dict]:
    """Scores redshifts of galaxies by the S/N of the spectrum, which alone is given."""
    observed, redshift = galaxies((DESI, SDSS), count)
    table = {}
    for name, spectrum in observed.items():
        snr = median_snr(spectrum)
        for low, high in pairwise(SNR):
            part = (snr >= low) & (snr < high)
            label = f"{name}, S/N {low} to {high}" if high < np.inf else f"{name}, S/N above {low}"
            table[label] = redshift_row(model, {name: spectrum[part]}, redshift[part])
        empty = Spectrum(torch.zeros_like(spectrum.flux), spectrum.ivar, spectrum.wavelength)
        table[f"{name}, flux set to zero (control)"] = redshift_row(model, {name: empty}, redshift)
    return table


def galaxies(names: tuple[str, ...], count: int) -> tuple[dict[str, Observation], torch.Tensor]:
    """Returns the galaxies among the first simulated objects, and their redshifts."""
    observed, labels = simulate(names, 0, count)
    rows = labels["kind"] == GALAXY
    return {name: value[rows] for name, value in observed.items()}, labels["redshift"][rows].double()


def calibration(model: AION, count: int) -> dict[str, dict]:
    """Returns the share of true redshifts in each tenth of their predicted distributions, of objects of all kinds."""
    table = {}
    for names in (GRIZ, (DESI,)):
        observed, labels = simulate(names, 20_000, count)
        seen = torch.stack([o.measured.reshape(count, -1).any(1) for o in observed.values()]).all(0)
        posterior = model.predict({name: value[seen] for name, value in observed.items()}, "redshift")
        values = pit(labels["redshift"][seen].double().numpy(), posterior)
        shares = np.histogram(values, np.linspace(0, 1, 11))[0] / len(values)
        table["griz" if names is GRIZ else DESI] = {"n": len(values), "shares": shares.round(4).tolist()}
    return table


def properties(model: AION, name: str, count: int) -> dict[str, dict]:
    """Scores properties of galaxies, fitted to four fifths and tested on the others."""
    observed, labels = simulate((*PHOTOMETRY, IMAGE, DESI), 40_000, count, galaxies=1.0, quasars=0.0)
    truth = np.stack([labels[target].double().numpy() for target in LABELS], 1)
    ids, train, test = [str(i) for i in range(count)], np.arange(count) % 5 > 0, np.arange(count) % 5 == 0
    table = {}
    for label, names in {
        "photometry": PHOTOMETRY,
        "photometry, image": (*PHOTOMETRY, IMAGE),
        "photometry, image, spectrum": (*PHOTOMETRY, IMAGE, DESI),
    }.items():
        given = {key: observed[key] for key in names}
        plain = Raw().embed(ids, given)
        guesses = {"raw, gradient boosting": boosted(plain[train], truth[train], plain[test])}
        for probe, X in ((f"{name}, linear", Frozen(model, name).readouts(ids, given)), ("raw, ridge", {"raw": plain})):
            guesses[probe] = linear(taken(X, train), truth[train], 0)(taken(X, test))
        for probe, guess in guesses.items():
            row = {target: round(r2(truth[test, k], guess[:, k]), 3) for k, target in enumerate(LABELS)}
            table[f"{label}: {probe}"] = row | {"redshift_nmad": round(nmad(truth[test, 0], guess[:, 0]), 4)}
    return table


def boosted(X: np.ndarray, y: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Predicts numbers `(N, K)` of other features by gradient boosting."""
    boost = HistGradientBoostingRegressor(random_state=0, max_iter=300, early_stopping=True)
    return np.stack([boost.fit(X, column).predict(other) for column in y.T], 1)


def tokens(model: AION, count: int) -> dict[str, dict]:
    """Scores what tokens keep of spectra."""
    observed, table = simulate((DESI, SDSS), 0, count)[0], {}
    for name, spectrum in observed.items():
        tokenizer, used, residuals = model.tokenizer(name), [], []
        for part in (spectrum[start : start + 64] for start in range(0, count, 64)):
            found = tokenizer.encode(part)
            decoded = tokenizer.decode(found, like=part)
            residuals.append(((part.flux - decoded.flux) ** 2 * part.ivar).sum(1) / part.measured.sum(1))
            used.append(found.ids[found.valid].unique())
        codes = torch.cat(used).unique().numel() / tokenizer.size
        chi2 = torch.cat(residuals).nanmedian().item()
        table[name] = {"n": count, "median_chi2": round(chi2, 3), "codes_used": round(codes, 3)}
    return table


def main(name: str = "aion-nano", objects: str = "1500") -> None:
    model, count = AION.from_pretrained(name), int(objects)
    record = {"model": name, "model_sha256": model.sha256, "torch": torch.__version__, "data": "simulated"}
    with torch.no_grad():
        sections = {
            "redshifts": redshifts(model, count) | boosted_redshifts(count) | spectra(model, count),
            "calibration": calibration(model, 3 * count),
            "properties": properties(model, Path(name).name, 2 * count),
            "tokens": tokens(model, min(count, 500)),
        }
    for section, table in sections.items():
        print(section)
        for label, row in table.items():
            print(f"  {label:50s} " + "  ".join(f"{key} {value}" for key, value in row.items()))
    RESULT.mkdir(parents=True, exist_ok=True)
    (RESULT / f"{Path(name).name}.json").write_text(json.dumps(record | sections, indent=1) + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
