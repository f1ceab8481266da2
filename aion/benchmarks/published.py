"""Tasks on public data sets, as their papers pose them, and what the papers report.

A data set is streamed from the Hugging Face Hub, as many rows as are declared, or read from a local copy: Parquet
files anywhere below `benchmarks/data/OWNER/NAME` of a checkout. Where no revision is declared the newest is taken, and
the cell says which that was; such a cell is never kept.
"""

__all__ = ["NotReached", "PUBLISHED", "REPORTED", "fetch"]

import functools
import io

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from aion.benchmarks.task import Data, Task
from aion.io.columns import observe
from aion.observations import Image, Scalar

if TYPE_CHECKING:
    from pyarrow import Table

HUB = "MultimodalUniverse"
PATIENCE = 10  # seconds until the Hub counts as not reachable

# R2 by label, pooling by attention, of arXiv:2510.17960, table 1; redshift, stellar mass, age, metallicity, sSFR.
_PROPERTIES = ("redshift", "log_mass", "log_age", "metallicity", "ssfr")
REPORTED: dict[str, dict[str, dict[str, float]]] = {
    "provabgs-properties": {
        model: dict(zip(_PROPERTIES, values, strict=True))
        for model, values in {
            "AION-B, photometry": (0.75, 0.72, 0.35, 0.41, 0.38),
            "AION-B, photometry, image": (0.93, 0.89, 0.45, 0.49, 0.64),
            "AION-B, photometry, image, spectrum": (1.00, 0.96, 0.53, 0.61, 0.72),
            "AstroCLIP, image": (0.78, 0.73, 0.29, 0.36, 0.42),
            "AstroCLIP, spectrum": (0.99, 0.90, 0.52, 0.60, 0.70),
            "DINOv2 ViT-g/14, image": (0.57, 0.55, 0.17, 0.28, 0.25),
            "XGBoost, photometry": (0.71, 0.69, 0.30, 0.30, 0.38),
            "ConvNeXt-tiny, image": (0.86, 0.82, 0.45, 0.49, 0.64),
        }.items()
    },
    "gz10-morphology": {
        name: {"accuracy": value}
        for name, value in {
            "AION-B": 0.840,
            "AION-L": 0.872,
            "AION-XL": 0.865,
            "DINOv2": 0.714,
            "EfficientNet-B3": 0.800,
            "Zoobot": 0.896,
        }.items()
    },
}


class NotReached(ConnectionError):
    """Says that a public data set could not be fetched."""


def fetch(root: Path, repository: str, revision: str | None, columns: Sequence[str], count: int) -> "tuple[Table, str]":
    """Returns the first rows of a data set, and which version of it that is.

    Arguments:
        root: a checkout, below which a local copy may lie.
        repository: owner and name on the Hugging Face Hub.
        revision: a commit; None for the newest.
        columns: what is read.
        count: most rows.

    Raises:
        NotReached: if there is no local copy and the Hub cannot be reached, or does not hold what was asked.
        ValueError: for a column that a local copy lacks, or a copy without rows.
    """
    from datasets import load_dataset

    files = sorted(str(path) for path in (Path(root) / "benchmarks" / "data" / repository).rglob("*.parquet"))
    if files:
        source = load_dataset("parquet", data_files=files, split="train", streaming=True)
        return _rows(source, columns, count), f"{repository}, local copy of {len(files)} files"
    try:
        from huggingface_hub import HfApi

        found = HfApi().dataset_info(repository, revision=revision, timeout=PATIENCE).sha
        source = load_dataset(repository, split="train", streaming=True, revision=found)
        return _rows(source, columns, count), f"{repository} at {found}"
    except Exception as error:  # the clients raise a dozen kinds when the Hub is away
        first = str(error).strip().split("\n")[0][:200]
        msg = f"{repository} on the Hugging Face Hub ({type(error).__name__}: {first})"
        raise NotReached(msg) from error


def _rows(source: object, columns: Sequence[str], count: int) -> "Table":
    import pyarrow

    known = source.column_names
    if known is not None and (missing := sorted(set(columns) - set(known))):
        msg = f"there is no column {missing[0]!r}; there are {', '.join(sorted(known))}"
        raise ValueError(msg)
    parts = list(source.select_columns(list(columns)).take(count).with_format("arrow").iter(batch_size=1000))
    if not parts:
        msg = "the data set has no rows"
        raise ValueError(msg)
    return pyarrow.concat_tables(parts)


def _column(table: "Table", name: str) -> np.ndarray:
    return np.asarray(table.column(name).to_numpy(zero_copy_only=False))


def _properties(table: "Table") -> Data:
    """Converts PROVABGS: AB magnitudes to fluxes; the labels as the paper has them, of galaxies with all of them."""
    names = {"legacysurvey_flux_g": "MAG_G", "legacysurvey_flux_r": "MAG_R", "legacysurvey_flux_z": "MAG_Z"}
    names["legacysurvey_flux_w1"] = "MAG_W1"
    magnitude = {name: _column(table, column).astype(np.float64) for name, column in names.items()}
    mass, rate = (_column(table, name).astype(np.float64) for name in ("LOG_MSTAR", "AVG_SFR"))
    with np.errstate(divide="ignore", invalid="ignore"):
        labels = {
            "redshift": _column(table, "Z_HP").astype(np.float64),
            "log_mass": mass,
            "log_age": np.log10(_column(table, "TAGE_MW").astype(np.float64)),
            "metallicity": np.log10(_column(table, "Z_MW").astype(np.float64)),
            "ssfr": np.log10(rate) - mass,
        }
    good = np.isfinite([*labels.values()]).all(0) & (np.array([*magnitude.values()]) > 0).all(0) & (mass > 0)
    flux = {name: torch.from_numpy(10 ** (0.4 * (22.5 - value[good]))) for name, value in magnitude.items()}
    ids, folds = _column(table, "object_id").astype(str), _column(table, "HPIX_64").astype(int) % 5
    labels = {name: value[good] for name, value in labels.items()}
    return Data(ids[good], {name: Scalar(value) for name, value in flux.items()}, labels, folds[good])


def _spectra(table: "Table") -> Data:
    """Converts DESI spectra, with the redshifts of the survey's pipeline, those without a warning."""
    flux = {"flux": "spectrum.flux", "ivar": "spectrum.ivar", "mask": "spectrum.mask", "wavelength": "spectrum.lambda"}
    unit = {"unit": "1e-17 erg/(s cm2 Angstrom)", "wavelength_unit": "Angstrom", "medium": "vacuum"}
    good = _column(table, "ZWARN").astype(bool) & (_column(table, "z") > 0.001)
    table = table.take(np.flatnonzero(good))
    observations = observe(table, {"desi_spectrum": flux | unit})
    labels = {"redshift": _column(table, "z").astype(np.float64)}
    return Data(_column(table, "object_id").astype(str), observations, labels, np.zeros(len(table), int))


def _pictures(table: "Table") -> Data:
    """Converts Galaxy10: pictures for people, not fluxes, 64 x 64 pixels."""
    from PIL import Image as Picture

    pictures = []
    for cell in table.column("rgb_image").to_pylist():
        picture = Picture.open(io.BytesIO(cell["bytes"])).convert("RGB").resize((64, 64), Picture.Resampling.BOX)
        pictures.append(np.asarray(picture, dtype=np.float32).transpose(2, 0, 1) / 255)
    flux, scale = np.stack(pictures), _column(table, "rgb_pixel_scale").astype(np.float32) * 4
    image = Image(flux, np.ones_like(flux), ("decam-z", "decam-r", "decam-g"), torch.from_numpy(scale))
    classes = np.array([f"{n:02d}" for n in _column(table, "gz10_label")])
    ids = _column(table, "object_id").astype(str)
    return Data(ids, {"gz10_picture": image}, {"gz10_label": classes}, np.arange(len(ids)) % 5).distinct()


def _load(
    root: Path,
    repository: str,
    revision: str | None,
    columns: Sequence[str],
    count: int,
    convert: "Callable[[Table], Data]",
) -> Data:
    table, version = fetch(root, repository, revision, columns, count)
    data = convert(table)
    return Data(data.ids, data.observations, data.labels, data.folds, version)


def _declared(name: str, question: str, source: str, columns: Sequence[str], count: int, convert, **rest) -> Task:
    """Declares a task on the first rows of a data set; none has a revision, which cannot be known without the Hub."""
    own = {"repository": f"{HUB}/{source}", "revision": None, "columns": tuple(columns), "count": count}
    facts = {"origin": "published", "version": "", "tests": (0,), "licence": "see the data set"}
    return Task(name, question, load=functools.partial(_load, convert=convert, **own), **facts | rest)


PUBLISHED = (
    _declared(
        "provabgs-properties",
        "redshift, stellar mass, age, metallicity and specific star formation rate of DESI galaxies from photometry",
        "desi_provabgs",
        (
            "object_id",
            "HPIX_64",
            "MAG_G",
            "MAG_R",
            "MAG_Z",
            "MAG_W1",
            "Z_HP",
            "LOG_MSTAR",
            "TAGE_MW",
            "Z_MW",
            "AVG_SFR",
        ),
        50_000,
        _properties,
        kind="regression",
        labels=_PROPERTIES,
        metric="r2",
        inputs=tuple(f"legacysurvey_flux_{band}" for band in ("g", "r", "z", "w1")),
        split="80/20 by HEALPix cell of nside 64, modulo 5",
        citation="Hahn et al. 2023, arXiv:2202.01809; protocol of arXiv:2510.17960",
        contains=("desi_provabgs",),
    ),
    _declared(
        "desi-redshifts",
        "redshift of DESI galaxies, quasars and stars beyond 0.001 from the spectrum, as a distribution",
        "desi",
        ("object_id", "spectrum", "z", "ZWARN"),
        2000,
        _spectra,
        kind="posterior",
        labels=("redshift",),
        metric="nmad",
        inputs=("desi_spectrum",),
        split="no fit: all are tested",
        citation="DESI Collaboration 2024, arXiv:2306.06308",
        contains=("desi",),
    ),
    _declared(
        "gz10-morphology",
        "ten classes of galaxies by Galaxy Zoo, from pictures in colour",
        "gz10",
        ("object_id", "gz10_label", "rgb_image", "rgb_pixel_scale"),
        8000,
        _pictures,
        kind="classification",
        labels=("gz10_label",),
        metric="accuracy",
        inputs=("gz10_picture",),
        split="80/20 by row, modulo 5",
        citation="Walmsley et al. 2022, arXiv:2102.08414; protocol of arXiv:2510.17960",
        contains=("gz10",),
        note="pictures for people, not fluxes: for embeddings that someone brings and the raw baseline",
    ),
)
