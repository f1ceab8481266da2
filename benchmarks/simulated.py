"""How well a model does on simulated objects no recipe trains on: `python benchmarks/simulated.py [MODEL] [OBJECTS]`.

Redshift: error of the mode for simulated galaxies, by the modality given and the median S/N of the spectrum; the
control is the same spectra with every flux set to zero, masks and ivar kept. Tokens: mean square of the residuals of
decoded spectra in units of the error, and the share of codes in use.
"""

__all__ = ["evaluate"]

import json
import sys

from pathlib import Path

import torch

from aion import AION, Spectrum
from aion.sky import Sky

RESULT = Path(__file__).resolve().parent / "results" / "simulated"
PHOTOMETRY = [f"legacysurvey_flux_{band}" for band in ("g", "r", "i", "z", "w1", "w2", "w3", "w4")]


def median_snr(spectrum: Spectrum) -> torch.Tensor:
    ratio = (spectrum.flux * spectrum.ivar.sqrt()).masked_fill(~spectrum.measured, torch.nan)
    return ratio.nanmedian(dim=1).values


def redshift_row(model: AION, observations: dict, redshift: torch.Tensor) -> dict:
    posterior = model.predict(observations, "redshift")
    error = (posterior.mode() - redshift) / (1 + redshift)
    low, high = posterior.interval(0.68)
    return {
        "n": len(redshift),
        "nmad": round(1.4826 * (error - error.median()).abs().median().item(), 5),
        "within_0.005": round((error.abs() <= 0.005).double().mean().item(), 3),
        "inside68": round(((low <= redshift) & (redshift <= high)).double().mean().item(), 3),
        "log_prob": round(posterior.log_prob(redshift).clamp(min=-10).mean().item(), 3),
    }


def evaluate(model: AION, objects: int) -> dict[str, dict]:
    names = ["desi_spectrum", "sdss_spectrum", *PHOTOMETRY]
    sky = Sky(modalities=names, complete=True)
    index = torch.arange(objects)
    labels = sky.labels(index)
    index = index[labels["kind"] == 0]
    observed, redshift = sky.observe(index), labels["redshift"][labels["kind"] == 0].double()
    table = {"photometry": redshift_row(model, {n: observed[n] for n in PHOTOMETRY}, redshift)}
    for name in ("desi_spectrum", "sdss_spectrum"):
        spectrum = observed[name]
        seen, snr = spectrum.measured.any(1), median_snr(spectrum)
        for low, high in ((0, 2), (2, 5), (5, 10), (10, 1e9)):
            rows = seen & (snr >= low) & (snr < high)
            if rows.sum() > 5:
                label = f"{name}, S/N {low} to {high}" if high < 1e9 else f"{name}, S/N above {low}"
                table[label] = redshift_row(model, {name: spectrum[rows]}, redshift[rows])
        empty = Spectrum(torch.zeros_like(spectrum.flux), spectrum.ivar, spectrum.wavelength)
        table[f"{name}, flux set to zero (control)"] = redshift_row(model, {name: empty[seen]}, redshift[seen])
        table[f"{name} tokens"] = token_row(model, name, spectrum[seen])
    return table


def token_row(model: AION, name: str, spectrum: Spectrum) -> dict:
    tokenizer = model.tokenizer(name)
    used, residuals = [], []
    for start in range(0, len(spectrum), 64):
        part = spectrum[start : start + 64]
        tokens = tokenizer.encode(part)
        decoded = tokenizer.decode(tokens, like=part)
        residuals.append(((part.flux - decoded.flux) ** 2 * part.ivar).sum(1) / part.measured.sum(1))
        used.append(tokens.ids[tokens.valid].unique())
    chi2 = torch.cat(residuals)
    return {
        "n": len(spectrum),
        "median_chi2": round(chi2.median().item(), 3),
        "codes_used": round(torch.cat(used).unique().numel() / tokenizer.size, 3),
    }


def main(name: str = "aion-nano", objects: str = "1000") -> None:
    model = AION.from_pretrained(name)
    with torch.no_grad():
        table = evaluate(model, int(objects))
    for label, row in table.items():
        print(f"{label:48s} " + "  ".join(f"{key} {value}" for key, value in row.items()))
    RESULT.mkdir(parents=True, exist_ok=True)
    record = {
        "model": name,
        "model_sha256": model.sha256,
        "torch": torch.__version__,
        "data": "simulated",
        "rows": table,
    }
    (RESULT / f"{Path(name).name}.json").write_text(json.dumps({**record, "rows": table}, indent=1) + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
