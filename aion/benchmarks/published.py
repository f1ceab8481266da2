"""Tasks on public data sets, as their papers pose them, and what the papers report.

The revision of a data set on the Hugging Face Hub cannot be known without reaching it, and scores on an unknown
revision cannot be compared: none is pinned here, and a run is refused.
"""

__all__ = ["PUBLISHED", "REPORTED"]

import functools

from pathlib import Path

from aion.benchmarks.task import Data, Task

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


def _unpinned(root: Path, repository: str) -> Data:
    msg = (
        f"{repository} on the Hugging Face Hub: no revision of it is pinned, because none could be looked up when this "
        "task was declared; scores on an unknown revision cannot be compared"
    )
    raise ValueError(msg)


def _declared(name: str, question: str, kind: str, repository: str, labels: tuple[str, ...], **rest: object) -> Task:
    facts = {
        "origin": "published",
        "metric": "accuracy" if kind == "classification" else "r2",
        "load": functools.partial(_unpinned, repository=repository),
        "version": f"{repository} on the Hugging Face Hub, revision not pinned",
        "tests": (0,),
        "licence": "see the data set",
    }
    return Task(name=name, question=question, kind=kind, labels=labels, **(facts | rest))


PUBLISHED = (
    _declared(
        "provabgs-properties",
        "redshift, stellar mass, age, metallicity and specific star formation rate of DESI galaxies",
        "regression",
        "MultimodalUniverse/desi_provabgs",
        _PROPERTIES,
        inputs=tuple(f"legacysurvey_flux_{band}" for band in "griz"),
        split="80/20 at random, as in the paper",
        citation="Hahn et al. 2023, arXiv:2202.01809; protocol of arXiv:2510.17960",
    ),
    _declared(
        "gz10-morphology",
        "ten classes of galaxies by Galaxy Zoo",
        "classification",
        "MultimodalUniverse/gz10",
        ("gz10_label",),
        inputs=("legacysurvey_image",),
        split="80/20 stratified by class, as in the paper",
        citation="Walmsley et al. 2022, arXiv:2102.08414; protocol of arXiv:2510.17960",
    ),
)
