"""Reads the real data of the offline tasks from a checkout."""

__all__ = ["MANGA", "MILES", "NGC", "PHOTOZ", "galaxies", "miles", "openngc", "photoz"]

import csv
import gzip
import re

from pathlib import Path

import numpy as np
import torch

from safetensors import safe_open

from aion import io
from aion.benchmarks.task import Data, File
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


def miles(root: Path) -> Data:
    """Reads 944 stars; all spectra of a star and its components are in one fold: its lowest library number modulo 5."""
    with safe_open(MILES.find(root), framework="np") as file:
        flux, labels = file.get_tensor("flux").astype(np.float64), file.get_tensor("labels").astype(np.float64)
        number, facts = file.get_tensor("number").astype(int), file.metadata()
    names = facts["names"].split("\n")
    air = float(facts["start"]) + float(facts["step"]) * np.arange(flux.shape[1])
    error = np.maximum(_scatter(flux), 0.005 * np.abs(flux))
    ivar = np.where(flux > 0, error**-2.0, 0.0)
    level = LEVEL / np.median(flux, axis=1, keepdims=True)
    spectrum = Spectrum(flux * level, ivar / level**2, np.asarray(io.air_to_vacuum(air)))
    stars = [re.sub(r"(?<=\d)[A-Z]$", "", re.sub(r"\s*Cl$", "", name)) for name in names]
    first: dict[str, int] = {}
    for star, own in zip(stars, number, strict=True):
        first[star] = min(own, first.get(star, own))
    teff = labels[:, 0]
    classes = np.array([next(name for limit, name in CLASSES if value < limit) for value in teff])
    columns = {"log_teff": np.log10(teff), "logg": labels[:, 1], "feh": labels[:, 2], "class": classes}
    folds = np.array([first[star] % 5 for star in stars])
    ids = np.array([f"miles-{n:04d}-{i}" for i, n in enumerate(number)])
    return Data(ids, {"sdss_spectrum": spectrum}, columns, folds)


def _scatter(flux: np.ndarray, window: int = 201) -> np.ndarray:
    """Estimates the error of each pixel from the median second difference in blocks, interpolated between them."""
    second = np.abs(2 * flux[:, 1:-1] - flux[:, :-2] - flux[:, 2:]) * 1.4826 / 6**0.5
    count = second.shape[1] // window
    blocks = np.median(second[:, : count * window].reshape(len(flux), count, window), axis=2)
    centre = (np.arange(count) + 0.5) * window + 1
    return np.stack([np.interp(np.arange(flux.shape[1]), centre, row) for row in blocks])


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
    """Stacks spectra of one object each, padded at the end to the longest; an object that has none is not measured."""
    length = max(s.flux.shape[1] for s in spectra if s is not None)
    flux, ivar = torch.zeros(len(spectra), length), torch.zeros(len(spectra), length)
    wavelength = torch.full((len(spectra), length), 5000.0)
    for row, s in enumerate(spectra):
        if s is not None:
            count = s.flux.shape[1]
            flux[row, :count], ivar[row, :count], wavelength[row, :count] = s.flux[0], s.ivar[0], s.wavelength[0]
            wavelength[row, count:] = s.wavelength[0, -1]
    return Spectrum(flux, ivar, wavelength)
