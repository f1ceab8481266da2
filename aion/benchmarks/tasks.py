"""The tasks: what is asked, of which data. Real ones first, then simulated; published data sets are in `published`."""

__all__ = ["ROOT", "SUITES", "TASKS", "choose"]

import functools

from collections.abc import Iterable
from pathlib import Path

from aion.benchmarks import real, simulated
from aion.benchmarks.published import PUBLISHED
from aion.benchmarks.simulated import PHOTOMETRY, SPECTRUM
from aion.benchmarks.task import Task
from aion.observations import near_miss

ROOT = Path(__file__).resolve().parents[2]  # of a checkout
FOLDS = (0, 1, 2, 3, 4)

_MILES = {
    "origin": "real",
    "inputs": ("sdss_spectrum",),
    "load": real.miles,
    "version": real.MILES.sha256,
    "licence": "BSD-3-Clause (as distributed with sdss-mangadap 4.5.0)",
    "citation": "Sánchez-Blázquez et al. 2006, arXiv:astro-ph/0607009; Cenarro et al. 2007, arXiv:astro-ph/0611618",
    "contains": ("miles",),
}
_BY_STAR = "5 folds by the lowest library number of the star, modulo 5; all spectra of a star in one"
_UNSEEN = "fold 0 of miles-labels: the stars of which no template of the simulated sky is made"
_SEEN = "templates of the simulated sky are made of folds 1 to 4: the spectra, not the labels, are known to our models"

_SKY = {
    "origin": "simulated",
    "split": "5 folds by object number modulo 5",
    "tests": FOLDS,
    "licence": "MIT, made here",
    "citation": "aion.sky",
}


def _sky(count: int, first: int, galaxies: float, inputs: tuple[str, ...]) -> dict:
    """Returns the data of a simulated task: how they are made, and what pins them."""
    return {
        "inputs": inputs,
        "load": functools.partial(simulated.objects, count=count, first=first, galaxies=galaxies, inputs=inputs),
        "version": f"objects {first} to {first + count}, galaxies {galaxies}, sky {simulated.version()}",
    } | _SKY


_BOTH = (SPECTRUM, *PHOTOMETRY)
_GALAXIES = _sky(200, 0, 1.0, _BOTH)
_FAINT = _sky(1500, 0, 1.0, PHOTOMETRY)

TASKS = (
    Task(
        name="miles-labels",
        question="Teff, log g and [Fe/H] of real stars from their spectra",
        kind="regression",
        labels=("log_teff", "logg", "feh"),
        metric="r2",
        split=_BY_STAR,
        tests=FOLDS,
        note=_SEEN,
        **_MILES,
    ),
    Task(
        name="miles-unseen",
        question="Teff, log g and [Fe/H] of those real stars that no model has met in any guise",
        kind="regression",
        labels=("log_teff", "logg", "feh"),
        metric="r2",
        split=_UNSEEN,
        tests=(0,),
        **_MILES,
    ),
    Task(
        name="miles-classes",
        question="spectral class (OB, A, F, G, K, M, by limits in Teff) of real stars",
        kind="classification",
        labels=("class",),
        metric="accuracy",
        split=_BY_STAR,
        tests=FOLDS,
        note=_SEEN,
        **_MILES,
    ),
    Task(
        name="sdss-photoz",
        question="redshift of real galaxies from magnitudes",
        origin="real",
        kind="regression",
        inputs=(*(f"legacysurvey_flux_{band}" for band in "griz"), "sdss_flux_u"),
        labels=("redshift",),
        metric="nmad",
        load=real.photoz,
        version=real.PHOTOZ.sha256,
        split="5000 to fit, 5000 to test, as in the source",
        tests=(1,),
        licence="University of Illinois/NCSA open source licence (as distributed with mlz 1.2)",
        citation="Carrasco Kind, Brunner 2013, arXiv:1303.7269; SDSS",
        contains=("sdss-mgs",),
        note="SDSS bands given as those of the Legacy Surveys; u goes to whoever reads it",
    ),
    Task(
        name="openngc-types",
        question="Hubble type (elliptical, lenticular, spiral, irregular) of real galaxies from a catalogue",
        origin="real",
        kind="classification",
        inputs=tuple(f"openngc_{name}" for name in real.NUMBERS),
        labels=("type",),
        metric="accuracy",
        load=real.openngc,
        version=real.NGC.sha256,
        split="5 folds of cells of the sky of equal area (15 degrees by 1/6 in sin dec)",
        tests=FOLDS,
        licence="CC BY-SA 4.0",
        citation="OpenNGC (Mattia Verga), as distributed with pyongc 1.2.2",
        contains=("openngc",),
    ),
    Task(
        name="survey-redshifts",
        question="redshift of real DESI and MaNGA galaxies, from the spectrum, as a distribution",
        origin="real",
        kind="posterior",
        inputs=("desi_spectrum", "sdss_spectrum"),
        labels=("redshift",),
        metric="nmad",
        load=real.galaxies,
        version=" ".join(("DESI files of aion.io.samples", *(file.sha256 for file in real.MANGA))),
        split="no fit: all are tested",
        tests=(0,),
        licence="BSD-3-Clause (as distributed with fastspecfit 3.6.1 and sdss-mangadap 4.5.0)",
        citation="DESI Collaboration 2023, arXiv:2306.06308; Bundy et al. 2015, arXiv:1412.1482",
        contains=("desi", "manga"),
        note="a dozen objects: read the scatter plot, not the number",
    ),
    Task(
        name="sky-galaxies",
        question="redshift, mass, age and metallicity of simulated galaxies from spectrum and photometry",
        kind="regression",
        labels=("redshift", "log_mass", "log_age", "metallicity"),
        metric="r2",
        **_GALAXIES,
    ),
    Task(
        name="sky-galaxies-photometry",
        question="redshift, mass, age and metallicity of simulated galaxies of which the spectrum is missing",
        kind="regression",
        labels=("redshift", "log_mass", "log_age", "metallicity"),
        metric="r2",
        note="1500 galaxies: not to be set beside the 200 that have spectra",
        **_FAINT,
    ),
    Task(
        name="sky-stars",
        question="Teff, log g and [Fe/H] of simulated stars from the spectrum",
        kind="regression",
        labels=("teff", "logg", "feh"),
        metric="r2",
        **_sky(200, 2000, 0.0, (SPECTRUM,)),
    ),
    Task(
        name="sky-classes",
        question="galaxy or star, of simulated objects, from photometry",
        kind="classification",
        labels=("kind",),
        metric="accuracy",
        **_sky(1500, 4000, 0.5, PHOTOMETRY),
    ),
    Task(
        name="sky-few-labels",
        question="redshift of simulated galaxies from spectrum and photometry, with 25 to all labels",
        kind="few-labels",
        labels=("redshift",),
        metric="r2",
        **(_GALAXIES | {"tests": (0,), "split": "fold 0 of 5 (object number modulo 5) is tested on"}),
    ),
    Task(
        name="sky-neighbours",
        question="do neighbours in the embedding share their redshift? (simulated galaxies)",
        kind="retrieval",
        labels=("redshift",),
        metric="ndcg@10",
        **_GALAXIES,
    ),
    Task(
        name="sky-partners",
        question="which spectrum belongs to this photometry? (simulated galaxies)",
        kind="matching",
        labels=(),
        metric="recall@10",
        **(_GALAXIES | {"tests": (0, 1), "split": "folds 0 and 1 of 5 (object number modulo 5) are tested on"}),
    ),
    Task(
        name="sky-redshifts",
        question="redshift of simulated galaxies as a distribution, from spectrum and photometry",
        kind="posterior",
        labels=("redshift",),
        metric="nmad",
        **_GALAXIES,
    ),
)
SUITES = {"offline": TASKS, "published": PUBLISHED, "all": (*TASKS, *PUBLISHED)}


def choose(suite: str = "offline", names: Iterable[str] = ()) -> tuple[Task, ...]:
    """Returns the tasks of a suite, or those named, in their order.

    Raises:
        ValueError: for a suite or a name that is not known (with the near misses).
    """
    if suite not in SUITES:
        msg = f"no suite {suite!r}; {near_miss(suite, SUITES)}"
        raise ValueError(msg)
    known = {task.name: task for task in SUITES["all"]}
    for name in names:
        if name not in known:
            msg = f"no task {name!r}; {near_miss(name, known)}"
            raise ValueError(msg)
    return tuple(known[name] for name in dict.fromkeys(names)) or SUITES[suite]
