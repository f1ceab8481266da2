"""What a model makes of real objects no recipe trains on: `python benchmarks/real.py [MODEL]`.

Redshifts of the DESI coadds and MaNGA galaxies of the task `survey-redshifts`, from the spectrum alone, beside those
the surveys published. A quasar (SDSS) and the stack of luminous red galaxies (DESI, which is at rest and is moved to
the median redshift of its members): their redshift, and their class by a linear probe fitted to embeddings of
simulated objects. The XP spectrum of a star (Gaia): what its tokens keep of the sampled spectrum, and what is
predicted of one arm from the other, in units of the published errors.
"""

__all__ = ["classes", "distant", "galaxies", "gaia"]

import json
import sys

from pathlib import Path

import torch

from safetensors.torch import load_file
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

from aion import AION, Spectrum, io
from aion.benchmarks import real
from aion.observations import Observation
from aion.probes import LogisticProbe
from aion.sky import Sky

ROOT = Path(__file__).resolve().parents[1]
DATA = ROOT / "tests" / "data"
RESULT = ROOT / "benchmarks" / "results" / "real"
STAR = "gaia_dr3_source_id_5937083312263887616_dl_products_fits.zip"
# The file of the quasar gives none; the peaks of its Lyman alpha, C IV and C III] are at 2.514, 2.501 and 2.516.
QUASAR_REDSHIFT = 2.51
LRG_REDSHIFT = 0.42636  # ZMED of the stack
DESI_WINDOW = (3600.0, 9824.0)  # Angstrom
KINDS = ("galaxy", "star", "quasar")


def placed(model: AION, name: str, modality: str, spectrum: Spectrum, published: float) -> dict:
    """Predicts a redshift and sets it beside the published one."""
    posterior = model.predict({modality: spectrum}, "redshift")
    low, high = (edge.item() for edge in posterior.interval(0.68))
    mode = posterior.mode().item()
    snr = (spectrum.flux * spectrum.ivar.sqrt())[spectrum.measured].median().item()
    return {
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


def galaxies(model: AION) -> list[dict]:
    """Predicts the redshift of every real galaxy."""
    data, rows = real.galaxies(ROOT), []
    for i, name in enumerate(data.ids):
        for modality, spectra in data.observations.items():
            if spectra[i].measured.any():
                rows.append(placed(model, str(name), modality, spectra[i], float(data.labels["redshift"][i])))
    return rows


def classes(model: AION, modality: str, first: int = 4000, count: int = 1500) -> Pipeline:
    """Fits a linear probe to the embeddings of as many simulated galaxies, stars and quasars."""
    sky = Sky(modalities=[modality], galaxies=2 / 3, quasars=0.5, complete=True)
    index = torch.arange(first, first + count)
    embedded = torch.cat([model.embed(sky.observe(part)) for part in index.split(100)])
    kind = sky.labels(index)["kind"].long()
    return make_pipeline(StandardScaler(), LogisticProbe(0.01)).fit(embedded.numpy(), kind.numpy())


def distant(model: AION) -> list[dict]:
    """Predicts redshift and class of the quasar and of the stack."""
    quasar = io.read(DATA / "SDSSJ220248.31+123656.3.fits.gz")["sdss_spectrum"]
    stack = io.read(DATA / "stack-LRG.fits.gz", unit="1e-17 erg / (s cm2 Angstrom)")["spectrum"]
    wavelength = stack.wavelength * (1 + LRG_REDSHIFT)
    outside = (wavelength < DESI_WINDOW[0]) | (wavelength > DESI_WINDOW[1])
    stack = Spectrum(stack.flux, stack.ivar.masked_fill(outside, 0.0), wavelength)
    rows = []
    for name, modality, spectrum, redshift, true in (
        ("SDSS quasar J2202+1236", "sdss_spectrum", quasar, QUASAR_REDSHIFT, "quasar"),
        ("DESI stack of red galaxies", "desi_spectrum", stack, LRG_REDSHIFT, "galaxy"),
    ):
        chance = classes(model, modality).predict_proba(model.embed({modality: spectrum}).numpy())[0]
        row = {"class": true, "probability": dict(zip(KINDS, chance.round(4).tolist(), strict=True))}
        rows.append(placed(model, name, modality, spectrum, redshift) | row)
    return rows


def gaia(model: AION) -> list[dict]:
    """Decodes the coefficients of the star from their tokens, and each arm from the other, to sampled spectra."""
    given = io.read(DATA / STAR)
    published, design = given.pop("spectrum"), load_file(ROOT / "benchmarks" / "data" / "gaia-xp.safetensors")
    arms = {name: name.split("_")[1] for name in given}

    def sampled(values: dict[str, Observation]) -> torch.Tensor:
        return sum(values[name].value[0].double() @ design[arm].double() for name, arm in arms.items())

    kept = {name: model.reconstruct(given, name) for name in given}
    rows = {"its own coefficients": given, "its tokens": kept}
    for name in given:
        other = {key: value for key, value in given.items() if key != name}
        predicted = model.reconstruct(other, name, like=given[name])
        rows[f"{arms[name].upper()} predicted from the other arm"] = given | {name: predicted}
    found = []
    for label, values in rows.items():
        difference = sampled(values) - published.flux[0].double()
        pull = difference * published.ivar[0].double().sqrt()
        found.append(
            {
                "given": label,
                "rms_pull": round(pull.square().mean().sqrt().item(), 3),
                "within_1_sigma": round((pull.abs() <= 1).double().mean().item(), 3),
                "within_3_sigma": round((pull.abs() <= 3).double().mean().item(), 3),
                "median_percent": round(100 * (difference / published.flux[0].double()).abs().median().item(), 2),
            }
        )
    return found


def show(rows: list[dict]) -> None:
    print(f"{'object':40s} {'S/N':>7s} {'published':>9s} {'mode':>8s}  68 % interval     (mode - z)/(1 + z)")
    for row in rows:
        interval = f"{row['low68']:.4f} to {row['high68']:.4f}"
        print(
            f"{row['object']:40s} {row['snr']:7.1f} {row['published']:9.5f} {row['mode']:8.5f}  {interval} "
            f"{row['error']:+9.4f}{'' if row['inside68'] else '   outside'} {row.get('probability', '')}"
        )


def main(name: str = "aion-nano") -> None:
    model = AION.from_pretrained(name)
    near, far, star = galaxies(model), distant(model), gaia(model)
    show(near)
    close = sum(abs(row["error"]) <= 0.005 for row in near)
    inside = sum(row["inside68"] for row in near)
    print(f"{close} of {len(near)} within 0.005, {inside} inside their 68 % interval (real data, never trained on)")
    show(far)
    for row in star:
        print("Gaia XP, " + ", ".join(f"{key} {value}" for key, value in row.items()))
    RESULT.mkdir(parents=True, exist_ok=True)
    record = {"model": name, "model_sha256": model.sha256, "torch": torch.__version__, "data": "real"}
    record |= {"galaxies": near, "distant": far, "gaia": star}
    (RESULT / f"{Path(name).name}.json").write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
