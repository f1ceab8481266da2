"""Measures the released tokenizers and writes the table and the figures of `tokenizers/README.md`.

    python tokenizers/report.py                                      # everything, of what ships
    python tokenizers/report.py --spectrum runs/spectrum/tokenizer --baseline runs/baseline/tokenizer --only spectra
    python tokenizers/report.py --only write                         # the README from the stored results

Each section writes `tokenizers/results/SECTION.json`: `spectra` (what is kept of held-out real and simulated
spectra), `codes` (the share of ids ever used), `twins` (one object by two surveys), `probes` (labels of MILES stars
from frozen embeddings), `noise` (doubling it), `speed` (encode only, two threads: let nothing else run), `images`,
`families` (scalars, catalogues, maps); `figures` draws. Spectra are measured with the released tokenizer, with the
architecture of the published one (`baseline.toml`) and with principal components at equal bits.
"""

__all__ = ["main"]

import argparse
import functools
import json
import platform

from pathlib import Path

import numpy as np
import torch

from baseline import FixedGrid
from binned import binned_reader
from families import catalog_row, field_row, scalar_rows
from figures import losses, round_trips
from heldout import DESI, real, simulated, twins
from images import image_rows
from measures import Contender, agreement, matching, noise_doubling, probe, quality, throughput
from miles import DATA, miles_reader, miles_stars
from pca import Components
from write import write

from aion import Spectrum
from aion.bundle import BUNDLED
from aion.observations import near_miss
from aion.official.spectrum import OfficialSpectrumTokenizer
from aion.recipes import load_tokenizer, mixture
from aion.sky import Sky
from aion.tokenizers import Tokenizer
from aion.tokenizers.store import load

FOLDER = Path(__file__).resolve().parent
OURS, BASELINE, LINEAR = "ours", "fixed grid", "PCA"
FITTED = 4000  # spectra to which the components are fitted


@functools.cache
def components(data: Path, kept: Path | None) -> Components:
    """Fits principal components to the training data of the baseline, or takes those kept in a file."""
    if kept is not None and kept.is_file():
        return Components.load(kept)
    source = mixture(load_tokenizer(FOLDER / "baseline.toml"), {"binned": binned_reader, "miles": miles_reader(data)})

    def batches(first: int, count: int):
        step, given = first, 0
        while given < count:
            batch = source(step)
            for part in batch if isinstance(batch, tuple) else (batch,):
                yield part
                given += len(part)
            step += 1

    fitted = Components(count=408, bits=8).fit(batches(0, FITTED))
    choices = [fitted, fitted.reduced(272, 12)]
    tested = list(batches(100_000, 200))

    def error(codec: Components) -> float:
        parts = []
        for part in tested:
            flux, inside = codec.round_trip(part)
            use = inside & part.measured
            scale = part.flux.abs().masked_fill(~part.measured, torch.nan).nanmedian(1, keepdim=True).values
            parts.append((((part.flux - flux) / scale)[use].square().mean()).item())
        return float(np.mean(parts))

    best = min(choices, key=error)
    if kept is not None:
        best.save(kept)
    return best


def contenders(given: argparse.Namespace) -> list[Contender]:
    """Returns those that are asked for."""
    out = []
    if OURS in given.contenders:
        out.append(Contender(OURS, load(given.spectrum)))
    if BASELINE in given.contenders and Path(given.baseline).is_dir():
        out.append(Contender(BASELINE, load(given.baseline, others=(FixedGrid,))))
    elif BASELINE in given.contenders:
        print(f"no {given.baseline}: measured without the fixed grid (train it by tokenizers/baseline.toml)")
    if LINEAR in given.contenders:
        out.append(Contender(LINEAR, components(given.data, given.components)))
    return out


def stored(given: argparse.Namespace, name: str) -> dict:
    """Returns what is stored of a section, or nothing if it is to be measured anew."""
    path = given.results / f"{name}.json"
    return json.loads(path.read_text()) if given.update and path.is_file() else {}


def merged(old: dict, new: dict) -> dict:
    """Puts new values over old ones, branch by branch."""
    both = {key: merged(old[key], new[key]) for key in old.keys() & new.keys() if isinstance(old[key], dict)}
    return {**old, **new, **both}


def spectra(given: argparse.Namespace) -> dict:
    """Measures what is kept of every set of spectra, by every contender that reads it."""
    sets = {"real": real(given.data), "simulated": simulated(given.objects)}
    clean = simulated(given.objects, noise=False)
    out: dict = {"rows": stored(given, "spectra").get("rows", {})}
    for contender in contenders(given):
        for kind, spectra_of in sets.items():
            for name, spectrum in spectra_of.items():
                rows = out["rows"].setdefault(f"{kind}: {name}", {})
                try:
                    row = quality(_at_equal_bits(contender, rows), spectrum, clean.get(name))
                except ValueError as error:  # wholly outside what it reads
                    row = {"refused": str(error).split(":")[0]}
                rows[contender.name] = row
                print(kind, name, contender.name, row, flush=True)
    return out


def codes(given: argparse.Namespace) -> dict:
    """Counts which ids the real and many simulated spectra use."""
    sets = [*real(given.data).values(), *simulated(given.counted).values()]
    found = [contender for contender in contenders(given) if not isinstance(contender.codec, Components)]
    for contender in found:
        for spectrum in sets:
            try:
                contender.round_trip(spectrum)
            except ValueError:  # wholly outside what it reads
                print(f"{contender.name} does not read one of the sets")
    rows = {contender.name: contender.codes_used() for contender in found}
    return {"n": sum(len(spectrum) for spectrum in sets), "rows": rows}


def _at_equal_bits(contender: Contender, rows: dict) -> Contender:
    """Returns components as many as the bits allow that ours took for the same spectra; others as they are."""
    bits = rows.get(OURS, {}).get("bits")
    if not isinstance(contender.codec, Components) or bits is None:
        return contender
    count = max(1, min(contender.codec.count, int((bits - 12) // contender.codec.bits)))
    return Contender(contender.name, contender.codec.reduced(count, contender.codec.bits))


def twin_rows(given: argparse.Namespace) -> dict:
    one, other = twins(given.twins)
    rows = {contender.name: agreement(contender, one, other) for contender in contenders(given)}
    return {"rows": {"spectra": matching(one, other), **rows}}


def probes(given: argparse.Namespace) -> dict:
    """Predicts Teff, log g and [Fe/H] of the MILES stars from frozen embeddings and from the flux itself."""
    stars = miles_stars(given.data)
    good = np.isfinite(stars.labels).all(1)
    rows, labels = torch.as_tensor(good), stars.labels[good]
    spectrum = stars.spectrum[rows]
    # Without the ends, where some stars have no measured pixel, so that all have the same tokens.
    inner = torch.arange(spectrum.flux.shape[1])
    inner = (inner >= 40) & (inner < len(inner) - 40)
    spectrum = Spectrum(spectrum.flux, spectrum.ivar * inner, spectrum.wavelength)
    features = {}
    if LINEAR in given.contenders:
        features["flux"] = spectrum.flux / spectrum.flux.median(1, keepdim=True).values
    for contender in contenders(given):
        vectors, valid = contender.embed(spectrum)
        features[contender.name] = (vectors * valid[..., None]).flatten(1)
    targets = {"log Teff": np.log10(labels[:, 0]), "log g": labels[:, 1], "[Fe/H]": labels[:, 2]}
    groups = np.unique([name.rstrip("ABC") for name in stars.name[good]], return_inverse=True)[1]
    out: dict = {"n": int(good.sum()), "rows": {}}
    for name, matrix in features.items():
        out["rows"][name] = probe(matrix.numpy().astype(np.float64), targets, groups)
        print(name, out["rows"][name], flush=True)
    return out


def noise(given: argparse.Namespace) -> dict:
    spectrum = simulated(given.objects // 2)[DESI]
    stars = miles_stars(given.data)
    sets = {"simulated: DESI": spectrum, "real: MILES stars": stars.spectrum[stars.held_out][:64]}
    found = contenders(given)
    return {"rows": {label: {c.name: noise_doubling(c, s) for c in found} for label, s in sets.items()}}


def speed(given: argparse.Namespace) -> dict:
    """Measures encode alone on two threads, with the published architecture at Base size, random weights, beside."""
    torch.set_num_threads(2)
    spectrum = Sky(modalities=[DESI], complete=True).observe(torch.arange(128))[DESI]
    base = {"encoder_dims": (96, 192, 384, 512), "decoder_dims": (384, 192, 96, 1), "latent_channels": 512}
    published = OfficialSpectrumTokenizer(**base, embedding_dim=10).eval()
    own = load(given.spectrum)
    rows = {OURS: throughput(lambda: own.encode(spectrum), len(spectrum))}
    if Path(given.baseline).is_dir():
        grid = load(given.baseline, others=(FixedGrid,))
        rows[BASELINE] = throughput(lambda: grid.encode(spectrum[:32]), 32, 5)
    rows["published architecture, Base size"] = throughput(lambda: published.encode(spectrum[:8]), 8, 3)
    out = {"DESI spectra per second": rows}
    if (codec := _image_tokenizer(given)) is not None:
        from images import stamps

        image = stamps(32, 96)
        out["96-pixel griz stamps per second"] = {OURS: throughput(lambda: codec.encode(image), len(image))}
    return {"rows": out, "threads": 2}


def _image_tokenizer(given: argparse.Namespace) -> Tokenizer | None:
    if not Path(given.image).is_dir() and not (BUNDLED / str(given.image)).is_dir():
        print(f"no image tokenizer {given.image}")
        return None
    return load(given.image)


def images(given: argparse.Namespace) -> dict:
    codec = _image_tokenizer(given)
    return {"rows": {} if codec is None else image_rows(codec, given.objects, given.hsc)}


def families(given: argparse.Namespace) -> dict:
    """Measures the scalar, catalogue and field tokenizers of those folders that there are."""
    rows: dict[str, dict] = {}
    if given.scalars.is_dir():
        rows["scalars"] = scalar_rows(given.scalars, 300 * given.objects)
    for name, folder, measure in (("catalog", given.catalog, catalog_row), ("field", given.field, field_row)):
        if folder.is_dir():
            rows[name] = measure(load(folder), 20 * given.objects)
        else:
            print(f"no tokenizer in {folder}")
    return {"rows": rows}


def figures(given: argparse.Namespace) -> None:
    sets = {**real(given.data), **simulated(8)}
    round_trips(contenders(given), sets, given.results / "round_trips.png")
    if (given.results / "spectra.json").is_file():
        losses(given.results, given.results / "losses.png")


SECTIONS = {
    "spectra": spectra,
    "codes": codes,
    "twins": twin_rows,
    "probes": probes,
    "noise": noise,
    "speed": speed,
    "images": images,
    "families": families,
}
LAST_TOO = (*SECTIONS, "figures", "write")


def facts(given: argparse.Namespace) -> dict:
    """Returns what was measured, on what, by what."""
    out = {"torch": torch.__version__, "machine": f"{platform.machine()}, {torch.get_num_threads()} threads"}
    for name in ("spectrum", "baseline", "image"):
        folder = BUNDLED / str(getattr(given, name))
        folder = folder if folder.is_dir() else Path(getattr(given, name))
        if (folder / "config.json").is_file():
            config = json.loads((folder / "config.json").read_text())
            out[name] = {key: config.get(key) for key in ("tokenizer", "tokenizer_sha256", "provenance")}
    return out


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--spectrum", default="spectrum", help="name or folder of the spectrum tokenizer")
    parser.add_argument("--image", default="image", help="name or folder of the image tokenizer")
    parser.add_argument("--baseline", default="runs/baseline/tokenizer", help="folder of the trained baseline")
    parser.add_argument("--scalars", type=Path, default="runs/scalar", help="folder of the scalar tokenizers")
    catalog, field = "runs/catalog/legacysurvey_catalog", "runs/field/tokenizer"
    parser.add_argument("--catalog", type=Path, default=catalog, help="folder of the catalogue tokenizer")
    parser.add_argument("--field", type=Path, default=field, help="folder of the field tokenizer")
    parser.add_argument("--data", type=Path, default=DATA, help="folder of the real data")
    parser.add_argument("--hsc", type=Path, help="hsc_cosmos.npz of scarlet, for real images")
    parser.add_argument("--components", type=Path, help="file that keeps the fitted principal components")
    parser.add_argument("--objects", type=int, default=128, help="simulated objects of each kind")
    parser.add_argument("--counted", type=int, default=1000, help="simulated spectra of each kind to count codes")
    parser.add_argument("--twins", type=int, default=1000, help="objects seen by both surveys")
    parser.add_argument("--contenders", nargs="+", default=[OURS, BASELINE, LINEAR], help="what is measured")
    parser.add_argument("--update", action="store_true", help="keep the stored results of the other contenders")
    parser.add_argument("--results", type=Path, default=FOLDER / "results", help="folder for what is measured")
    parser.add_argument("--only", nargs="+", default=LAST_TOO, help="sections; `write` is the README")
    given = parser.parse_args(arguments)
    for name in given.only:
        if name not in LAST_TOO:
            parser.error(f"unknown section {name!r}; {near_miss(name, LAST_TOO)}")
    given.results.mkdir(parents=True, exist_ok=True)
    for name in given.only:
        if name in SECTIONS:
            new = {**SECTIONS[name](given), "facts": facts(given)}
            result = merged(stored(given, name), new)
            (given.results / f"{name}.json").write_text(json.dumps(result, indent=1) + "\n")
            print(name, json.dumps(result["rows"], indent=1), flush=True)
    if "figures" in given.only:
        figures(given)
    if "write" in given.only:
        write(given.results, FOLDER / "README.md")


if __name__ == "__main__":
    main()
