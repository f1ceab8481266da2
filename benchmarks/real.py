"""Redshifts of real galaxies no recipe trains on, beside those of their surveys: `python benchmarks/real.py [MODEL]`.

The spectra are the two DESI coadds of `aion.io.samples()` and the MaNGA spectra of `tests/data`. The DESI and MaNGA
redshifts are those the surveys published. Each spectrum is given alone, without photometry.
"""

__all__ = ["evaluate"]

import json
import sys

from pathlib import Path

import torch

from aion import AION, io

DATA = Path(__file__).resolve().parents[1] / "tests" / "data"
RESULT = Path(__file__).resolve().parent / "results" / "real-redshifts"


def spectra() -> list[tuple[str, str, object, float]]:
    """Returns name, modality, spectrum (a batch of one) and published redshift of every real galaxy."""
    files = io.samples()
    rows = []
    for name in ("desi-galaxy", "desi-nearby-galaxy"):
        redshift = io.read_redshift(files[f"{name}-redshift"])
        rows.append((name, "desi_spectrum", io.read(files[name])["desi_spectrum"], float(redshift[0])))
    for path in sorted(DATA.glob("MaNGA*")):
        spectrum, redshift = io.read(path)["sdss_spectrum"], io.read_redshift(path)
        for i in range(len(spectrum)):
            if spectrum[i].measured.any():
                name = f"{path.name.split('.')[0]}[{i}]"
                rows.append((name, "sdss_spectrum", spectrum[i], float(redshift[i])))
    return rows


def evaluate(model: AION) -> list[dict]:
    """Predicts the redshift of every real galaxy."""
    results = []
    for name, modality, spectrum, published in spectra():
        posterior = model.predict({modality: spectrum}, "redshift")
        low, high = (edge.item() for edge in posterior.interval(0.68))
        mode = posterior.mode().item()
        snr = (spectrum.flux * spectrum.ivar.sqrt())[spectrum.measured].median().item()
        results.append(
            {
                "object": name,
                "snr": round(snr, 2),
                "published": round(published, 5),
                "median": round(posterior.median().item(), 5),
                "mode": round(mode, 5),
                "low68": round(low, 5),
                "high68": round(high, 5),
                "inside68": low <= published <= high,
                "error": round((mode - published) / (1 + published), 5),
                "log_prob": round(posterior.log_prob(published).item(), 3),
            }
        )
    return results


def main(name: str = "aion-nano") -> None:
    model = AION.from_pretrained(name)
    results = evaluate(model)
    print(f"{'object':38s} {'S/N':>7s} {'published':>9s} {'mode':>8s}  68 % interval     (mode - z)/(1 + z)")
    for row in results:
        interval = f"{row['low68']:.4f} to {row['high68']:.4f}"
        print(
            f"{row['object']:38s} {row['snr']:7.1f} {row['published']:9.5f} {row['mode']:8.5f}  {interval} "
            f"{row['error']:+9.4f}{'' if row['inside68'] else '   outside'}"
        )
    close = sum(abs(row["error"]) <= 0.005 for row in results)
    inside = sum(row["inside68"] for row in results)
    print(f"{close} of {len(results)} within 0.005, {inside} inside their 68 % interval (real data, never trained on)")
    RESULT.mkdir(parents=True, exist_ok=True)
    record = {"model": name, "model_sha256": model.sha256, "torch": torch.__version__, "data": "real", "rows": results}
    (RESULT / f"{Path(name).name}.json").write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
