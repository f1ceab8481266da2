"""Tasks on real data that lie in a checkout, and how these are read."""

__all__ = ["REAL", "galaxies", "miles", "openngc", "photoz"]

import csv
import gzip
import re

from pathlib import Path

import numpy as np
import torch

from safetensors import safe_open

from aion import io
from aion.benchmarks.miles import read_stars
from aion.benchmarks.task import Data, File, Task
from aion.observations import Scalar, Spectrum

MILES = File("tokenizers/data/miles.safetensors", "7d72a6738da63acbf13996bd3edf42869d931a04669165a04052e027220c0b5b")
PHOTOZ = File(
    "benchmarks/data/sdss-photoz.safetensors", "9916dd6ca55d8aba4aea79f97cd52b7ac74219cbb52c44420fb08b424143e729"
)
NGC = File("benchmarks/data/openngc.csv.gz", "f64068956cabd893a0bd71f9707474ef89ce3bf5c42bd169e8ba90975811926f")
MANGA = (
    File("tests/data/MaNGA_test_spectra.fits.gz", "bb1d509884095505e1d93a9d2eb4e86e13b3ffe4060f14a4b6e61fbaa02cc7c6"),
    File(
        "tokenizers/data/MaNGA_multicomp_test_spectra.fits.gz",
        "990be544379ce1bcbba9a8f96c264b75900927138a7e1222e0979ef325bb76da",
    ),
)
LEVEL = 10.0  # of the MILES spectra, which have no absolute flux: that of a usual star of SDSS, in 1e-17 erg/s/cm2/A
CLASSES = ((3900, "M"), (5200, "K"), (6000, "G"), (7500, "F"), (10000, "A"), (np.inf, "OB"))
HUBBLE = {"E": "elliptical", "S0": "lenticular", "S": "spiral", "I": "irregular"}
NUMBERS = ("bmag", "jmag", "hmag", "kmag", "majax", "minax", "sbrightn")
FOLDS = (0, 1, 2, 3, 4)


def miles(root: Path) -> Data:
    """Reads 944 stars; all spectra of a star and its components are in one fold, 0 is that of held-out stars."""
    stars = read_stars(MILES.find(root))
    level = LEVEL / stars.spectrum.flux.median(1, keepdim=True).values
    spectrum = Spectrum(stars.spectrum.flux * level, stars.spectrum.ivar / level**2, stars.spectrum.wavelength)
    teff = stars.labels[:, 0]
    classes = np.array([next(name for limit, name in CLASSES if value < limit) for value in teff])
    columns = {"log_teff": np.log10(teff), "logg": stars.labels[:, 1], "feh": stars.labels[:, 2], "class": classes}
    ids = np.array([f"miles-{n:04d}-{i}" for i, n in enumerate(stars.number)])
    return Data(ids, {"sdss_spectrum": spectrum}, columns, stars.part)


def photoz(root: Path) -> Data:
    """Reads 5000 + 5000 galaxies; fold 0 is the training part of the source, fold 1 its test part.

    SDSS magnitudes g, r, i, z are given as fluxes of the Legacy Surveys' bands of the same letters, which differ from
    them by some hundredths of a magnitude, and u as one of its own.
    """
    with safe_open(PHOTOZ.find(root), framework="np") as file:
        parts = [file.get_tensor(name).astype(np.float64) for name in ("train", "test")]
        columns = file.metadata()["columns"].split(",")
    table = np.concatenate(parts)
    flux = {band: 10 ** (0.4 * (22.5 - table[:, columns.index(band)])) for band in "ugriz"}
    names = {band: f"legacysurvey_flux_{band}" for band in "griz"} | {"u": "sdss_flux_u"}
    observations = {names[band]: Scalar(torch.from_numpy(value)) for band, value in flux.items()}
    folds = np.repeat([0, 1], [len(part) for part in parts])
    ids = np.array([f"sdss-photoz-{i:05d}" for i in range(len(table))])
    return Data(ids, observations, {"redshift": table[:, columns.index("z_spec")]}, folds).distinct()


def openngc(root: Path) -> Data:
    """Reads galaxies of the NGC and IC with a type and all numbers; folds are parts of the sky of equal area."""
    with gzip.open(NGC.find(root), "rt", encoding="utf-8") as file:
        rows = [r for r in csv.DictReader(file) if r["type"] == "G" and _hubble(r["hubble"])]
    rows = [r for r in rows if all(r[name] for name in NUMBERS)]
    observations = {
        f"openngc_{name}": Scalar(torch.tensor([float(r[name]) for r in rows], dtype=torch.float64)) for name in NUMBERS
    }
    ra, dec = (np.array([float(r[name]) for r in rows]) for name in ("ra", "dec"))  # radians
    cell = (ra / (2 * np.pi) * 24).astype(int) + 24 * ((np.sin(dec) + 1) * 6).astype(int)
    labels = {"type": np.array([_hubble(r["hubble"]) for r in rows])}
    ids = np.array([r["name"] for r in rows])
    return Data(ids, observations, labels, cell % 5).distinct()


def _hubble(text: str) -> str | None:
    """Returns the coarse type, or nothing for what is uncertain or peculiar."""
    match = re.fullmatch(r"(E|S0|S|I)(?:-0|AB|A|B|ab|a|bc|b|cd|c|d|m|0)*", text)
    kind = match and match.group(1)
    return HUBBLE[kind] if kind and not (kind == "E" and "-" in text) else None


def galaxies(root: Path) -> Data:
    """Reads the DESI and MaNGA galaxies that ship with the package and its tests, with the surveys' redshifts."""
    files, parts = io.samples(), []
    for name in ("desi-galaxy", "desi-nearby-galaxy"):
        redshift = io.read_redshift(files[f"{name}-redshift"])
        parts.append((name, "desi_spectrum", io.read(files[name])["desi_spectrum"], float(redshift[0])))
    for path in (file.find(root) for file in MANGA):
        spectrum, redshift = io.read(path)["sdss_spectrum"], io.read_redshift(path)
        for i in range(len(spectrum)):
            if spectrum[i].measured.any():
                parts.append((f"{path.name.split('.')[0]}-{i}", "sdss_spectrum", spectrum[i], float(redshift[i])))
    observations = {name: _stacked([s if kind == name else None for _, kind, s, _ in parts])
                    for name in ("desi_spectrum", "sdss_spectrum")}  # fmt: skip
    redshift = np.array([z for *_, z in parts])
    return Data(np.array([name for name, *_ in parts]), observations, {"redshift": redshift}, np.zeros(len(parts), int))


def _stacked(spectra: list[Spectrum | None]) -> Spectrum:
    """Stacks spectra of one object each; an object that has none is not measured."""
    none = Spectrum(torch.zeros(1, 1), torch.zeros(1, 1), torch.full((1, 1), 5000.0))
    return Spectrum.stack([none if spectrum is None else spectrum for spectrum in spectra])


_MILES = {
    "origin": "real",
    "inputs": ("sdss_spectrum",),
    "load": miles,
    "version": MILES.sha256,
    "licence": "BSD-3-Clause (as distributed with sdss-mangadap 4.5.0)",
    "citation": "Sánchez-Blázquez et al. 2006, arXiv:astro-ph/0607009; Cenarro et al. 2007, arXiv:astro-ph/0611618",
}
_PART = ("miles", "miles but part 0")
_BY_STAR = "5 folds by the lowest library number of the star, modulo 5; all spectra of a star in one"
_UNSEEN = "fold 0 of miles-labels: the stars of which no template of the simulated sky is made"
_SEEN = "templates of the simulated sky are made of folds 1 to 4: the spectra, not the labels, are known to our models"

REAL = (
    Task(
        name="miles-labels",
        question="Teff, log g and [Fe/H] of real stars from their spectra",
        kind="regression",
        labels=("log_teff", "logg", "feh"),
        metric="r2",
        split=_BY_STAR,
        tests=FOLDS,
        contains=_PART,
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
        contains=_PART[:1],
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
        contains=_PART,
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
        load=photoz,
        version=PHOTOZ.sha256,
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
        inputs=tuple(f"openngc_{name}" for name in NUMBERS),
        labels=("type",),
        metric="accuracy",
        load=openngc,
        version=NGC.sha256,
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
        load=galaxies,
        version=" ".join(("DESI files of aion.io.samples", *(file.sha256 for file in MANGA))),
        split="no fit: all are tested",
        tests=(0,),
        licence="BSD-3-Clause (as distributed with fastspecfit 3.6.1 and sdss-mangadap 4.5.0)",
        citation="DESI Collaboration 2023, arXiv:2306.06308; Bundy et al. 2015, arXiv:1412.1482",
        contains=("desi", "manga"),
        note="a dozen objects: read the scatter plot, not the number",
    ),
)
