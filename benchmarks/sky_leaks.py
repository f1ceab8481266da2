"""Looks for leaks of the simulated sky: `python benchmarks/sky_leaks.py [--objects 4000]`.

Gradient boosting is given everything but flux, in five portions, and asked for class, redshift, Teff and mass:

    where       number, right ascension, declination, E(B-V)
    presence    which spectra and which photometry and image an object has
    blank       grids, ends, gaps, bad pixels and ivar of the blank sky (`observe(light=False)`)
    shining     the same with the ivar of the object, which holds the noise of its photons
    kinds       which of the modalities there are that only some kinds of objects have: Gaia, sizes and shapes

It learns on three quarters of the objects and is scored on the rest: R2, and for the class the balanced accuracy, of
which chance is 1/3. The first three portions must be at chance; the last two cannot be.
"""

import argparse

import numpy as np
import torch

from aion.observations import Image, Observation, Spectrum
from aion.sky import Sky

WHERE = ("ra", "dec", "legacysurvey_ebv")
SEEN = ("desi_spectrum", "sdss_spectrum", "legacysurvey_image")
KINDS = ("legacysurvey_shape_r", "legacysurvey_shape_e1", "gaia_flux_g", "gaia_bp_coefficients", "gaia_parallax")
NAMES = (*WHERE, *SEEN, "legacysurvey_flux_r", *KINDS)
PIECES = 24  # of a spectrum, in each of which ivar and gaps are averaged


def pieces(value: np.ndarray) -> np.ndarray:
    """Sums of rows over equal pieces."""
    return np.add.reduceat(value, np.linspace(0, value.shape[1], PIECES, endpoint=False).astype(int), axis=1)


def there(seen: dict[str, Observation], names: tuple[str, ...]) -> np.ndarray:
    """Which of the modalities each object has."""
    return np.stack([seen[n].measured.reshape(len(seen[n]), -1).any(1).numpy() for n in names], 1).astype("f4")


def features(seen: Spectrum | Image) -> np.ndarray:
    """All that an observation tells besides flux, one row per object."""
    measured, ivar = seen.measured.flatten(1).numpy(), seen.ivar.flatten(1).numpy()
    depth = np.where(measured, np.log(np.maximum(ivar, 1e-20)), 0)
    count = pieces(measured.astype("f4"))
    mean = pieces(depth) / np.maximum(count, 1)
    spread = pieces(depth**2) / np.maximum(count, 1) - mean**2
    columns = [count, count.sum(1, keepdims=True), mean, np.sqrt(np.maximum(spread, 0))]
    if isinstance(seen, Spectrum):
        wavelength = seen.wavelength.numpy()
        ends = [np.where(measured, wavelength, fill) for fill in (1e5, 0)]
        columns += [wavelength[:, ::500], ends[0].min(1, keepdims=True), ends[1].max(1, keepdims=True)]
        columns += [np.diff(wavelength, axis=1)[:, ::500]]
    return np.concatenate(columns, 1)


def table(sky: Sky, objects: int, batch: int = 64) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """The portions of features, and the labels, of the first objects of a sky."""
    portions, labels = {name: [] for name in ("where", "presence", "blank", "shining", "kinds")}, []
    for first in range(0, objects, batch):
        index = torch.arange(first, min(first + batch, objects))
        shining, blank = sky.observe(index), sky.observe(index, light=False)

        portions["where"].append(np.column_stack([index, *[shining[n].value.nan_to_num(-1) for n in WHERE]]))
        portions["presence"].append(there(shining, (*SEEN, "legacysurvey_flux_r")))
        portions["blank"].append(np.concatenate([features(blank[name]) for name in SEEN], 1))
        portions["shining"].append(np.concatenate([features(shining[name]) for name in SEEN], 1))
        portions["kinds"].append(there(shining, KINDS))
        labels.append(sky.labels(index))
    truth = {name: torch.cat([part[name] for part in labels]).numpy() for name in labels[0]}
    return {name: np.concatenate(parts) for name, parts in portions.items()}, truth


def score(x: np.ndarray, y: np.ndarray, kinds: bool) -> float:
    """R2, or balanced accuracy, on the last quarter of what is known."""
    from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
    from sklearn.metrics import balanced_accuracy_score, r2_score

    x, y = x[np.isfinite(y)], y[np.isfinite(y)]
    n = len(y) * 3 // 4
    settings = {"max_iter": 60, "learning_rate": 0.05, "max_leaf_nodes": 8, "random_state": 0}
    if kinds:
        model = HistGradientBoostingClassifier(class_weight="balanced", **settings)
        return balanced_accuracy_score(y[n:], model.fit(x[:n], y[:n]).predict(x[n:]))
    return r2_score(y[n:], HistGradientBoostingRegressor(**settings).fit(x[:n], y[:n]).predict(x[n:]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--objects", type=int, default=4000)
    torch.set_num_threads(1)
    portions, truth = table(Sky(modalities=NAMES), parser.parse_args().objects)
    redshift = np.log1p(truth["redshift"])
    asked = {"class": truth["kind"], "ln(1+z)": redshift}
    asked["of galaxies"] = np.where(truth["kind"] == 0, redshift, np.nan)
    asked |= {"log Teff": np.log10(truth["teff"]), "log mass": truth["log_mass"], "magnitude": truth["magnitude"]}
    print("portion   columns  " + "  ".join(f"{name:>11s}" for name in asked))
    for name, x in portions.items():
        found = "  ".join(f"{score(x, y, label == 'class'):11.3f}" for label, y in asked.items())
        print(f"{name:9s} {x.shape[1]:7d}  {found}", flush=True)


if __name__ == "__main__":
    main()
