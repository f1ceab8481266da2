"""Tasks on simulated data: objects of `aion.sky` below number 1 000 000, on which no recipe trains."""

__all__ = ["SIMULATED", "objects", "patterned", "version"]

import functools
import hashlib

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch

from aion import sky
from aion.benchmarks.task import Data, Task
from aion.sky import Sky

PHOTOMETRY = tuple(f"legacysurvey_flux_{band}" for band in ("g", "r", "i", "z", "w1", "w2"))
DESI, SDSS = "desi_spectrum", "sdss_spectrum"
LEGACY, HSC = "legacysurvey_image", "hsc_image"
XP = ("gaia_bp_coefficients", "gaia_rp_coefficients")
MAPS = {"arms": "legacysurvey_arms_map", "bar": "legacysurvey_bar_map"}
VISIBLE = {"arms": 40, "bar": 20}  # pixels that a pattern must fill
NEAR = 0.1  # redshift up to which galaxies are large enough for their shapes to be seen
FOLDS = (0, 1, 2, 3, 4)
BATCH = 64


def objects(
    root: Path,
    count: int,
    first: int,
    inputs: tuple[str, ...],
    galaxies: float = 1.0,
    quasars: float = 0.0,
    max_redshift: float = 0.6,
) -> Data:
    """Simulates objects `first` to `first + count` of the sky of seed 0, complete; folds by number modulo 5.

    Objects that an input cannot see (the spectra of Gaia end at magnitude 17.65) are left out.

    Arguments:
        root: not used: nothing is read.
        count: of objects.
        first: number of the first.
        inputs: modalities.
        galaxies: share of galaxies and quasars; the others are stars.
        quasars: share of quasars among those.
        max_redshift: of galaxies.
    """
    own = {"galaxies": galaxies, "quasars": quasars, "max_redshift": max_redshift}
    scene = Sky(seed=0, modalities=inputs, complete=True, **own)
    index = torch.arange(first, first + count)
    parts = [scene.observe(part) for part in index.split(BATCH)]
    observations = {name: type(parts[0][name]).stack([part[name] for part in parts]) for name in inputs}
    truth = {name: value.double().numpy() for name, value in scene.labels(index).items()}
    kinds = truth.pop("kind").astype(int)
    labels = truth | {"kind": np.array(["galaxy", "star", "quasar"])[kinds], "shape": _shape(truth)}
    data = Data(np.array([f"sky-0-{i}" for i in index.tolist()]), observations, labels, index.numpy() % 5)
    seen = torch.stack([o.measured.reshape(count, -1).any(1) for o in observations.values()]).all(0).numpy()
    return data if seen.all() else data[np.flatnonzero(seen)]


def patterned(root: Path, count: int, first: int) -> Data:
    """Simulates nearby galaxies as `objects` and keeps those with visible arms or bars, of which there are maps.

    Labels `arms` and `bar` are maps `(B, 64, 64)` from 0 to 1 on the pixels of the image, NaN for galaxies without.
    """
    data = objects(root, count, first, (LEGACY, *MAPS.values()), max_redshift=NEAR)
    maps = {name: data.observations[key].value.numpy() for name, key in MAPS.items()}
    shown = {name: (value > 0.5).sum((1, 2)) >= VISIBLE[name] for name, value in maps.items()}
    labels = {name: np.where(shown[name][:, None, None], value, np.nan) for name, value in maps.items()}
    rows = np.flatnonzero(shown["arms"] | shown["bar"])
    return Data(data.ids, {LEGACY: data.observations[LEGACY]}, labels, data.folds)[rows]


def _shape(truth: Mapping[str, np.ndarray]) -> np.ndarray:
    """Names the shape of galaxies as volunteers would; what is no galaxy has a name, too, which nobody asks for."""
    has = {name: truth[name] > 0 for name in ("companion", "arms", "bar", "ring")}
    rules = {
        "merger": has["companion"],
        "barred spiral": has["arms"] & has["bar"],
        "spiral": has["arms"],
        "barred": has["bar"],
        "ringed": has["ring"],
        "bulge": truth["bulge"] > 0.5,
    }
    return np.select(list(rules.values()), list(rules), "disc")


@functools.cache
def version() -> str:
    """Computes a hash of the code and templates of the simulated sky: another sky makes other data."""
    total = hashlib.sha256()
    for path in sorted(Path(sky.__file__).parent.rglob("*")):
        if path.suffix in {".py", ".safetensors"}:
            total.update(path.name.encode() + path.read_bytes())
    return total.hexdigest()


def _task(name: str, question: str, kind: str, labels: tuple[str, ...], metric: str, data: Mapping, **rest) -> Task:
    """Declares a task on simulated objects: how they are made is what pins them."""
    options = dict(data)
    inputs, others = options.pop("inputs"), rest.pop("others", ())
    make = rest.pop("make", functools.partial(objects, inputs=(*inputs, *others), **options))
    plain = " ".join(f"{key} {value}" for key, value in sorted(options.items()))
    facts = {
        "origin": "simulated",
        "load": make,
        "version": f"{plain}, sky {version()}",
        "split": "5 folds by object number modulo 5",
        "tests": FOLDS,
        "licence": "MIT, made here",
        "citation": "aion.sky",
    }
    return Task(name, question, kind=kind, inputs=inputs, others=others, labels=labels, metric=metric, **facts | rest)


_ONE = {"tests": (0,), "split": "fold 0 of 5 (object number modulo 5) is tested on"}
_GALAXIES = {"count": 200, "first": 0, "inputs": (DESI, *PHOTOMETRY)}
_STARS = {"count": 200, "first": 2000, "galaxies": 0.0, "inputs": (DESI,)}
_KINDS = {"first": 4000, "galaxies": 2 / 3, "quasars": 0.5, "max_redshift": 1.5}
_SHAPES = {"count": 800, "first": 8000, "max_redshift": NEAR, "inputs": (LEGACY,)}
_TWICE = {"count": 300, "first": 12000, "inputs": (DESI,)}
_PROPERTIES = ("redshift", "log_mass", "log_age", "metallicity", "log_ssfr")
_LABELS = ("teff", "logg", "feh")

SIMULATED = (
    _task(
        "sky-galaxies",
        "redshift, mass, age, metallicity and star formation of simulated galaxies from spectrum and photometry",
        "regression",
        _PROPERTIES,
        "r2",
        _GALAXIES,
    ),
    _task(
        "sky-galaxies-photometry",
        "redshift, mass, age, metallicity and star formation of simulated galaxies of which the spectrum is missing",
        "regression",
        _PROPERTIES,
        "r2",
        _GALAXIES | {"count": 1500, "inputs": PHOTOMETRY},
        note="1500 galaxies: not to be set beside the 200 that have spectra",
    ),
    _task(
        "sky-stars",
        "Teff, log g and [Fe/H] of simulated stars from the spectrum",
        "regression",
        _LABELS,
        "r2",
        _STARS,
    ),
    _task(
        "sky-xp-stars",
        "Teff, log g and [Fe/H] of simulated stars from the coefficients of Gaia's XP spectra",
        "regression",
        _LABELS,
        "r2",
        _STARS | {"count": 800, "inputs": XP},
    ),
    _task(
        "sky-classes",
        "galaxy, quasar or star, of simulated objects, from photometry",
        "classification",
        ("kind",),
        "accuracy",
        _KINDS | {"count": 1500, "inputs": PHOTOMETRY},
    ),
    _task(
        "sky-spectral-classes",
        "galaxy, quasar or star, of simulated objects, from the spectrum",
        "classification",
        ("kind",),
        "accuracy",
        _KINDS | {"count": 300, "inputs": (DESI,)},
    ),
    _task(
        "sky-shapes",
        "shape (disc, bulge, spiral, barred spiral, barred, ringed, merger) of simulated galaxies from the image",
        "classification",
        ("shape",),
        "accuracy",
        _SHAPES,
    ),
    _task(
        "sky-arms-and-bars",
        "which pixels are spiral arms, which are the bar? (images of simulated galaxies)",
        "segmentation",
        ("arms", "bar"),
        "iou",
        {"count": 1200, "first": 8000, "max_redshift": NEAR, "inputs": (LEGACY,)},
        make=functools.partial(patterned, count=1200, first=8000),
        note="a convolutional probe on an 8 x 8 grid of embeddings; galaxies whose arms fill 40 pixels, or bars 20",
        **_ONE,
    ),
    _task(
        "sky-few-labels",
        "redshift of simulated galaxies from spectrum and photometry, with 25 to all labels",
        "few-labels",
        ("redshift",),
        "r2",
        _GALAXIES,
        **_ONE,
    ),
    _task(
        "sky-transfer-stars",
        "Teff, log g and [Fe/H] of simulated stars: fitted to DESI spectra, tested on SDSS spectra of other stars",
        "transfer",
        _LABELS,
        "r2",
        _STARS | {"first": 3000, "count": 300},
        others=(SDSS,),
    ),
    _task(
        "sky-transfer-shapes",
        "shape of simulated galaxies: fitted to images of the Legacy Surveys, tested on HSC images of other galaxies",
        "transfer",
        ("shape",),
        "accuracy",
        _SHAPES,
        others=(HSC,),
    ),
    _task(
        "sky-neighbours",
        "do neighbours in the embedding share their redshift? (simulated galaxies)",
        "retrieval",
        ("redshift",),
        "ndcg@10",
        _GALAXIES,
    ),
    _task(
        "sky-neighbours-across",
        "do SDSS spectra nearest to a DESI spectrum share its redshift? (simulated galaxies)",
        "retrieval",
        ("redshift",),
        "ndcg@10",
        _TWICE,
        others=(SDSS,),
    ),
    _task(
        "sky-lookalikes",
        "do images nearest to that of a spiral, or a merger, show others? (simulated galaxies, Legacy Surveys)",
        "retrieval",
        ("arms", "companion"),
        "ndcg@10",
        _SHAPES,
        note="there are no gravitational lenses in the simulated sky",
    ),
    _task(
        "sky-lookalikes-across",
        "do HSC images nearest to a Legacy image of a spiral, or a merger, show others? (simulated galaxies)",
        "retrieval",
        ("arms", "companion"),
        "ndcg@10",
        _SHAPES,
        others=(HSC,),
        note="there are no gravitational lenses in the simulated sky",
    ),
    _task(
        "sky-partners",
        "which spectrum belongs to this photometry? (simulated galaxies)",
        "matching",
        (),
        "recall@10",
        _GALAXIES | {"count": 500},
        tests=(0, 1),
        split="folds 0 and 1 of 5 (object number modulo 5) are tested on",
    ),
    _task(
        "sky-super-resolution",
        "the DESI spectrum of simulated stars from the coefficients of Gaia's XP spectra",
        "generation",
        (DESI,),
        "r2",
        _STARS | {"first": 5000, "count": 500, "inputs": XP},
        make=functools.partial(objects, count=500, first=5000, galaxies=0.0, inputs=(*XP, DESI)),
        note="drawn by models that can, else by a ridge from the embedding to 2000 bins; brightness is left free",
        **_ONE,
    ),
    _task(
        "sky-redshifts",
        "redshift of simulated galaxies as a distribution, from spectrum and photometry",
        "posterior",
        ("redshift",),
        "nmad",
        _GALAXIES,
    ),
)
