"""Writes the table of `tokenizers/README.md` between its markers, from the stored results."""

__all__ = ["table", "write"]

import json

from collections.abc import Iterator
from pathlib import Path

BEGIN, END = "<!-- results: begin -->", "<!-- results: end -->"
NAMES = ("ours", "fixed grid", "PCA")
HEAD = "| measured on | what | ours | (a) fixed grid | (b) PCA | wanted |\n|---|---|---|---|---|---|"
SPECTRA = {
    "real: MILES stars": {"r2": ">= .995", "residual_percent": "<= 2"},
    "real: MaNGA galaxies, S/N >= 20": {"r2": ">= .98"},
    "real: MaNGA galaxies, all": {},
    "real: DESI coadds": {"chi2": "<= 1.2"},
    "real: SDSS quasar": {},
    "real: Gaia XP star": {},
    "simulated: desi_spectrum": {"bits": "<= 3276"},
    "simulated: sdss_spectrum": {},
    "simulated: gaia_xp_spectrum": {},
    "simulated: apogee_spectrum": {},
    "simulated: galah_spectrum": {},
}
MEASURES = {
    "r2": "R² of median-normalised flux",
    "r2_clean": "R² of the same without noise",
    "residual_percent": "median residual, %",
    "chi2_median": "reduced chi-square, median",
    "bits": "bits per object",
    "coverage": "share of the pixels read",
}
WANTED = {"log Teff": ">= .975", "log g": ">= .86", "[Fe/H]": ">= .82"}


def _row(label: str, what: str, values: list[object], wanted: str = "") -> str:
    cells = ["–" if value is None else str(value) for value in values]
    return f"| {label} | {what} | {' | '.join(cells)} | {wanted} |"


def _spectra(result: dict) -> Iterator[str]:
    for label, wanted in SPECTRA.items():
        row = result["rows"].get(label, {})
        if not row:
            continue
        first = next((r for r in row.values() if "n" in r), {})
        head = f"{label} (n = {first.get('n')}, S/N {first.get('snr_median')})"
        for key, what in MEASURES.items():
            if key not in first and key == "r2_clean":
                continue
            yield _row(head, what, [row.get(name, {}).get(key) for name in NAMES], wanted.get(key, ""))
            head = ""
        if "chi2" in wanted:
            values = [", ".join(map(str, row.get(name, {}).get("chi2") or ["–"])) for name in NAMES]
            yield _row("", "reduced chi-square of each", values, wanted["chi2"])


def _codes(result: dict) -> Iterator[str]:
    head = f"real and simulated spectra (n = {result['n']})"
    for name, shares in result["rows"].items():
        for ids, share in shares.items():
            values = [share if name == other else None for other in NAMES]
            yield _row(head, f"share used of {ids}", values, ">= .80")
            head = ""


def _twins(result: dict) -> Iterator[str]:
    rows = result["rows"]
    head = f"simulated: one object by DESI and SDSS, S/N >= 10 (n = {next(iter(rows.values()))['n']})"
    themselves = rows.get("spectra", {}).get("nearest")
    for key, what, wanted in (
        ("cosine", "cosine of pooled embeddings", ">= .98"),
        ("nearest", "twin is nearest neighbour", ">= .95"),
        ("cosine_centred", "cosine, mean embedding taken off", ""),
        ("nearest_centred", "twin is nearest, mean taken off", ""),
    ):
        if key == "nearest" and themselves is not None:
            what += f"; by chi-square of the spectra themselves {themselves}"
        yield _row(head, what, [rows.get(name, {}).get(key) for name in NAMES], wanted)
        head = ""


def _probes(result: dict) -> Iterator[str]:
    rows = result["rows"]
    head = f"real: labels of {result['n']} MILES stars, 5-fold"
    for label, wanted in WANTED.items():
        best = {name: max(rows[name][label].values()) for name in rows}
        flux = f"; of the flux itself {best['flux']}" if "flux" in best else ""
        yield _row(head, f"R² of {label}, best probe{flux}", [best.get(name) for name in NAMES], wanted)
        head = ""


def _noise(result: dict) -> Iterator[str]:
    for label, row in result["rows"].items():
        values = [row.get(name, {}).get("rms_change_over_error") for name in NAMES]
        what = "noise of half the pixels doubled: change at the others over their error"
        yield _row(label, what, values, "< 1")


def _speed(result: dict) -> Iterator[str]:
    wanted = {"DESI spectra per second": ">= 300", "96-pixel griz stamps per second": ">= 60"}
    for label, row in result["rows"].items():
        values = [row.get(name) for name in NAMES]
        other = [f"{name} {value}" for name, value in row.items() if name not in NAMES]
        yield _row("encode only, 2 threads", "; ".join([label, *other]), values, wanted.get(label, ""))


def _images(result: dict) -> Iterator[str]:
    for label, row in result["rows"].items():
        if "refused" in row:
            continue
        head = f"{label} (n = {row['n']}, {row['bright']} of S/N >= 20 in r)"
        for key, what, wanted in (
            ("chi2_mean", "reduced chi-square, mean", "<= 1.1"),
            ("flux_error_percent", "median error of total flux, %", "<= 2"),
            ("radius_error_percent", "median error of half-light radius, %", "<= 5"),
            ("bits", "bits per object", ""),
            ("codes", "share of each codebook used", ">= .80"),
        ):
            yield _row(head, what, [row.get(key), None, None], wanted)
            head = ""


def _families(result: dict) -> Iterator[str]:
    rows = result["rows"]
    if scalars := rows.get("scalars"):
        largest = max(row["largest_error_in_half_bins"] for row in scalars.values())
        name, least = min(scalars.items(), key=lambda item: item[1]["codes_used"])
        clipped = max(row["clipped"] for row in scalars.values())
        head = f"simulated: {len(scalars)} scalars"
        yield _row(head, "largest error in half bins", [largest, None, None], "<= 1")
        yield _row("", f"smallest share of codes used ({name})", [least["codes_used"], None, None], ">= .80")
        yield _row("", "largest share of values beyond the edges", [clipped, None, None])
    if catalog := rows.get("catalog"):
        rms = ", ".join(f"{key} {value}" for key, value in catalog["rms"].items())
        yield _row(f"simulated: catalogues (n = {catalog['n']})", "rms errors", [rms, None, None])
        yield _row("", "share of codes used", [catalog["codes_used"], None, None], ">= .80")
    if field := rows.get("field"):
        yield _row(f"simulated: maps (n = {field['n']})", "mean squared error", [field["mse"], None, None])
        yield _row("", "overlap of what is above 0.1", [field["iou"], None, None])
        yield _row("", "share of codes used", [field["codes_used"], None, None], ">= .80")


PARTS = {
    "spectra": _spectra,
    "codes": _codes,
    "twins": _twins,
    "probes": _probes,
    "noise": _noise,
    "speed": _speed,
    "images": _images,
    "families": _families,
}


def table(folder: Path) -> str:
    """Returns the table of what is stored in a folder."""
    lines, shown = [HEAD], {}
    for name, part in PARTS.items():
        path = folder / f"{name}.json"
        if path.is_file():
            result = json.loads(path.read_text())
            lines += part(result)
            shown = {key: value for key, value in result["facts"].items() if isinstance(value, dict)} | shown
    hashes = [f"{key} `{(value.get('tokenizer_sha256') or '')[:12]}`" for key, value in shown.items()]
    return "\n".join([*lines, "", f"Measured: {', '.join(hashes)}."])


def write(folder: Path, readme: Path) -> None:
    """Replaces what stands between the markers."""
    text = readme.read_text()
    before, rest = text.split(BEGIN, 1)
    after = rest.split(END, 1)[1]
    readme.write_text(f"{before}{BEGIN}\n{table(folder)}\n{END}{after}")
