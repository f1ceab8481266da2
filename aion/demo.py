"""The whole way on the real data that ship with the package: files, tokens, embedding, redshift, report.

Two galaxies of DESI are read, embedded and given a redshift, which is printed beside that of the survey's pipeline; the
first is shown with its nearest neighbours among simulated objects that no model was trained on. Everything written
says whether it is real, simulated or the model's.
"""

__all__ = ["FILES", "GALLERY", "run"]

import base64
import html
import shutil
import string
import tempfile
import textwrap

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch

from torch import Tensor
from tqdm.auto import tqdm

from aion import __version__, io
from aion.index import Index
from aion.model import AION
from aion.observations import Observation, Spectrum
from aion.plotting import plot_posterior, plot_spectrum
from aion.posterior import Posterior
from aion.sky import MODALITIES, Sky

FILES = ("embedding.parquet", "redshift.png", "report.html", "spectrum.png")
GALLERY = 256  # simulated objects, numbered from 0: recipes train on numbers from a million on
NEIGHBOURS = 5
SPECTRUM, REDSHIFT = "desi_spectrum", "redshift"
MARK = '<meta name="generator" content="aion demo">'  # in every report: what may be replaced
KINDS = ("galaxy", "star", "quasar")
# Title, and the names in `aion.io.samples` of the spectrum, of what belongs to it and of the pipeline's redshift.
OBJECTS = (
    ("galaxy", ("desi-galaxy", "desi-galaxy-tractor"), "desi-galaxy-redshift"),
    ("nearby galaxy", ("desi-nearby-galaxy",), "desi-nearby-galaxy-redshift"),
)
CREDITS = (
    "Real: two coadded spectra of the Dark Energy Spectroscopic Instrument (DESI) with the redshifts of its pipeline "
    "Redrock, and a row of the Tractor catalogue of the DESI Legacy Imaging Surveys DR9, as distributed with "
    "fastspecfit (BSD-3). Simulated: aion.sky, made of real templates, filter curves and noise."
)


@dataclass(frozen=True, eq=False)
class Seen:
    """Holds what was read of one object and what a model makes of it."""

    title: str
    identifier: str
    files: tuple[Path, ...]
    observations: dict[str, Observation]
    unused: tuple[str, ...]
    pipeline: float
    tokens: dict[str, int]
    embedding: Tensor
    posterior: Posterior
    reconstruction: Spectrum

    @property
    def spectrum(self) -> Spectrum:
        """Returns the spectrum as observed."""
        return self.observations[SPECTRUM]

    @property
    def scatter(self) -> float:
        """Computes the scatter of observed minus reconstructed flux in units of sigma, from the median of its size."""
        known = (self.spectrum.measured & self.reconstruction.measured)[0]
        residual = (self.spectrum.flux - self.reconstruction.flux) * self.spectrum.ivar.sqrt()
        return 1.4826 * residual[0][known].abs().median().item()


def run(folder: Path | str, *, model: str = "aion-nano", device: str = "auto", gallery: int = GALLERY) -> None:
    """Prints the demonstration and writes `FILES`, all of them or none, into a folder.

    Arguments:
        folder: made if it does not exist; an earlier demonstration in it is replaced, other things in it are kept.
        model: see `AION.from_pretrained`.
        device: see `AION.from_pretrained`.
        gallery: number of simulated objects among which neighbours are searched.

    Raises:
        OSError: if the folder cannot be written, or holds files of these names that are no demonstration; nothing has
            been computed then.
        ValueError: if the model reads no DESI spectrum or predicts no redshift.
    """
    folder = Path(folder)
    with _workspace(folder) as work:
        aion = AION.from_pretrained(model, device=device)
        _check(aion)
        name = _name(aion, model)
        print(f"aion {__version__}, model {name} ({aion.sha256[:12]}), {_count(aion)} parameters\n")
        seen = [_look(aion, *each) for each in OBJECTS]
        for number, each in enumerate(seen):
            _print_object(each, name, short=number > 0)
        neighbours = _neighbours(aion, seen[0], gallery)
        _print_neighbours(seen[0], neighbours, gallery)
        _write(work, seen, neighbours, aion, name, gallery)
    print("written\n" + "\n".join(f"  {folder / file}" for file in FILES))


# --- what is computed -------------------------------------------------------------------------------------------------


def _check(model: AION) -> None:
    for needed in (SPECTRUM, REDSHIFT):
        if needed not in model.modalities:
            msg = f"the demonstration needs a model that knows {needed!r}; this one knows {', '.join(model.modalities)}"
            raise ValueError(msg)


def _name(model: AION, given: str) -> str:
    return str(model.provenance.get("name") or Path(given).name)


def _count(model: AION) -> str:
    return f"{sum(p.numel() for p in model.parameters()) / 1e6:.1f} million"


def _look(model: AION, title: str, names: Sequence[str], redshift: str) -> Seen:
    """Reads the files of one object and asks the model; what it does not know is left out and named."""
    samples = io.samples()
    files = tuple(samples[name] for name in names)
    read = {name: value for file in files for name, value in io.read(file).items()}
    observations = {k: v for k, v in read.items() if k in model.modalities and k != REDSHIFT and v.measured.any()}
    sequence = model.tokenize(observations)
    used = sequence.modality[sequence.valid].tolist()
    return Seen(
        title=title,
        identifier=io.object_ids(files[0])[0],
        files=files,
        observations=observations,
        unused=tuple(name for name in read if name not in observations),
        pipeline=float(io.read_redshift(samples[redshift])[0]),
        tokens={name: used.count(model.vocabulary.index(name)) for name in sorted(observations)},
        embedding=model.embed(observations).cpu(),
        posterior=model.predict(observations, REDSHIFT),
        reconstruction=model.reconstruct(observations, SPECTRUM).to("cpu"),
    )


def _neighbours(model: AION, seen: Seen, gallery: int) -> list[tuple[float, str, float, int]]:
    """Finds the simulated objects nearest to a real one: distance, kind, true redshift, number in the sky.

    The gallery is seen in the modalities of the real object, as far as they are simulated; so is the real object.
    """
    shared = [name for name in seen.observations if name in MODALITIES]
    sky = Sky(modalities=shared, varied=False, complete=True, device=str(model.device))
    parts = torch.arange(gallery).split(32)
    with tqdm(total=gallery, desc="embedding simulated objects", unit="object", leave=False, disable=None) as bar:
        vectors = []
        for part in parts:
            vectors.append(model.embed(sky.observe(part)))
            bar.update(len(part))
    query = model.embed({name: seen.observations[name] for name in shared})
    distance, row = Index(torch.cat(vectors)).search(query, k=min(NEIGHBOURS, gallery))
    labels = sky.labels(row[0])
    columns = (distance[0], labels["kind"], labels["redshift"], row[0])
    return [(d, KINDS[int(kind)], z, i) for d, kind, z, i in zip(*(c.tolist() for c in columns), strict=True)]


# --- what is printed --------------------------------------------------------------------------------------------------


def _facts(seen: Seen) -> dict[str, str]:
    """Describes what was read, a line a fact."""
    spectrum, measured = seen.spectrum, seen.spectrum.measured[0]
    wavelength = spectrum.wavelength[0][measured]
    snr = (spectrum.flux * spectrum.ivar.sqrt())[0][measured].median().item()
    facts = {
        "object": f"DESI target {seen.identifier}, a {seen.title}",
        "files": ", ".join(file.name for file in seen.files),
        "spectrum": f"{len(measured)} pixels, {int(measured.sum())} measured, "
        f"{wavelength[0]:.0f} to {wavelength[-1]:.0f} Angstrom, median S/N {snr:.2f} per pixel",
    }
    fluxes = {n.removeprefix("legacysurvey_flux_"): o for n, o in seen.observations.items() if "_flux_" in n}
    if fluxes:
        facts["photometry"] = ", ".join(f"{n} {o.value[0]:.3g}" for n, o in fluxes.items()) + " nanomaggy"
    if seen.unused:
        facts["not used"] = ", ".join(name.removeprefix("legacysurvey_") for name in seen.unused)
    return facts


def _redshift(seen: Seen) -> tuple[str, str, str]:
    """Writes mean, median and 68 % interval of the predicted redshift."""
    low, high = seen.posterior.interval(0.68)
    mean, median = seen.posterior.mean(), seen.posterior.median()
    return f"{mean[0]:.4f}", f"{median[0]:.4f}", f"{low[0]:.4f} to {high[0]:.4f}"


def _fixed(value: float) -> str:
    return f"{round(value, 4) + 0.0:.4f}"  # no "-0.0000"


def _print_object(seen: Seen, name: str, *, short: bool) -> None:
    facts = _facts(seen)
    mean, median, interval = _redshift(seen)
    width = max(len(name), len("survey pipeline"))
    counts = ", ".join(f"{n.removeprefix('legacysurvey_')} {count}" for n, count in seen.tokens.items())
    lines = {k: v for k, v in facts.items() if k != "object" and not (short and k == "not used")}
    lines["tokens"] = f"{sum(seen.tokens.values())}: {counts}"
    lines["embedding"] = str(tuple(seen.embedding.shape))
    if not short:
        lines["decoded"] = f"reconstruction from the tokens scatters by {seen.scatter:.2f} sigma around the flux"
    lines["redshift"] = f"{'survey pipeline':<{width}}  {seen.pipeline:.5f} (real)"
    print(facts["object"] + " (real data)")
    for key, value in lines.items():
        print(textwrap.fill(value, 100, initial_indent=f"  {key:<12}", subsequent_indent=" " * 14))
    print(f"  {'':<12}{name:<{width}}  mean {mean}, median {median}, 68 % {interval}\n")


def _print_neighbours(seen: Seen, neighbours: Sequence[tuple], gallery: int) -> None:
    print(f"nearest to {seen.identifier} among {gallery} simulated objects")
    print("  distance  kind    true redshift (simulated)")
    for distance, kind, redshift, _ in neighbours:
        print(f"  {distance:<8.3g}  {kind:<6}  {_fixed(redshift)}")
    print()


# --- what is written --------------------------------------------------------------------------------------------------


@contextmanager
def _workspace(folder: Path) -> Iterator[Path]:
    """Gives a temporary folder whose files go to `folder` at the end, unless there was an error."""
    report = folder / "report.html"
    if folder.is_dir() and any((folder / file).exists() for file in FILES):
        if not report.is_file() or MARK not in report.read_text(encoding="utf-8", errors="replace")[:1000]:
            msg = f"{folder} holds files of the same names that are no demonstration of aion: choose another folder"
            raise FileExistsError(msg)
    elif folder.exists() and not folder.is_dir():
        msg = f"{folder} exists and is no folder: choose another --out"
        raise NotADirectoryError(msg)
    # In the folder itself if there is one: it may be another file system than the one around it.
    parent = folder if folder.is_dir() else folder.absolute().parent
    try:
        parent.mkdir(parents=True, exist_ok=True)
        work = Path(tempfile.mkdtemp(prefix=".aion-demo-", dir=parent))
    except OSError as error:
        msg = f"cannot write the folder {folder}: {(error.strerror or str(error)).lower()}; choose another --out"
        raise OSError(msg) from error
    try:
        yield work
        work.chmod(0o755)
        if folder.is_dir():
            for file in FILES:
                (work / file).replace(folder / file)
        else:
            work.replace(folder)
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _write(work: Path, seen: Sequence[Seen], neighbours: Sequence[tuple], model: AION, name: str, gallery: int) -> None:
    from matplotlib.figure import Figure

    io.write_embeddings(
        work / "embedding.parquet",
        [each.identifier for each in seen],
        torch.cat([each.embedding for each in seen]),
        columns={
            "source": [" + ".join(file.name for file in each.files) for each in seen],
            "modalities": [",".join(each.tokens) for each in seen],
            "tokens": [sum(each.tokens.values()) for each in seen],
        },
        metadata={"model": name, "model_sha256": model.sha256, "pool": "mean"},
    )
    first = seen[0]
    title = f"DESI {first.identifier}: spectrum, reconstruction from {first.tokens[SPECTRUM]} tokens, residuals"
    figure = plot_spectrum(first.spectrum, first.reconstruction, title=title)
    figure.savefig(work / "spectrum.png", dpi=150)
    figure = Figure(figsize=(9.6, 3.5), layout="constrained")
    for part, each in zip(figure.subfigures(1, len(seen)), seen, strict=True):
        plot_posterior(each.posterior, each.pipeline, title=f"DESI {each.identifier}", figure=part)
    figure.savefig(work / "redshift.png", dpi=150)
    page = _report(work, seen, neighbours, model, name, gallery)
    (work / "report.html").write_text(page, encoding="utf-8")


def _report(work: Path, seen: Sequence[Seen], neighbours: Sequence[tuple], model: AION, name: str, gallery: int) -> str:
    """Fills the page, `demo.html`, which needs no other file."""
    first, real, made = seen[0], _tag("real"), _tag("model")
    text = {
        "subtitle": f"aion {__version__}, {_escape(name)}, {_count(model)} parameters, hash {model.sha256[:16]}",
        "model": _escape(name),
        "spectrum_caption": f"DESI target {first.identifier}: flux and its error {real}, reconstruction from "
        f"{first.tokens[SPECTRUM]} tokens {made}. The residuals scatter by {first.scatter:.2f} sigma {made}.",
        "neighbours_text": f"The {len(neighbours)} of {gallery} simulated objects whose embeddings are nearest, by "
        f"cosine distance, to that of DESI target {first.identifier} (real, at redshift {first.pipeline:.5f}). They "
        "are of that part of the simulated sky which recipes keep for evaluation.",
        "credits": CREDITS,
    }
    redshifts = [(f"DESI {each.identifier}", f"{each.pipeline:.5f}", *_redshift(each)) for each in seen]
    facts = [_facts(each) for each in seen]
    lines = [(key, *(_escape(each.get(key, "none")) for each in facts)) for key in facts[0]]
    lines.append(("embedding", *(f"{tuple(each.embedding.shape)}, in embedding.parquet {made}" for each in seen)))
    counts = [(f"<code>{n}</code>", count, _escape(model.tokenizer(n).describe())) for n, count in first.tokens.items()]
    tables = {
        "redshifts": _rows(redshifts, "-####"),
        "facts": _rows(lines, "---"),
        "tokens": _rows(counts, "-#-"),
        "neighbours": _rows(
            [(i, f"{d:.3g}", kind, _fixed(z), n) for i, (d, kind, z, n) in enumerate(neighbours, 1)], "##-##"
        ),
    }
    figures = {f"{part}_png": _inline(work / f"{part}.png") for part in ("spectrum", "redshift")}
    page = Path(__file__).with_name("demo.html").read_text(encoding="utf-8")
    return string.Template(page).substitute({**text, **tables, **figures})


def _escape(value: object) -> str:
    return html.escape(str(value))


def _tag(source: str) -> str:
    return f'<span class="tag {source}">{source}</span>'


def _rows(rows: Sequence[Sequence[object]], kinds: str) -> str:
    """Writes the rows of a table of cells that are HTML already; `#` in `kinds` is a column of numbers."""
    classes = [' class="number"' if kind == "#" else "" for kind in kinds]
    cells = ("".join(f"<td{c}>{cell}</td>" for c, cell in zip(classes, row, strict=True)) for row in rows)
    return "\n".join(f"<tr>{row}</tr>" for row in cells)


def _inline(path: Path) -> str:
    return "data:image/png;base64," + base64.b64encode(path.read_bytes()).decode()
