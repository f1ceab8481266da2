"""Measures whole-survey runs and searches: overhead, reading, memory, kills, engines, distances.

    python benchmarks/bench_catalogue.py                 # everything
    python benchmarks/bench_catalogue.py --only search   # one of SECTIONS

Everything is simulated or random; what is measured is speed and memory. Times are CPU seconds of this process, all
threads together, so that a busy machine does not count (run with OMP_NUM_THREADS=1 to compare); those of Dask are of
the clock.
"""

import argparse
import gzip
import os
import random
import resource
import signal
import subprocess
import sys
import tempfile
import time

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.parquet
import torch

from aion import AION, Scalar, io
from aion.index import Approximate, Index
from aion.survey import Job, embed_survey
from aion.survey.source import Reader, units

BANDS = ("g", "r", "z", "w1", "w2")
JOB = Job(device="cpu")


def numbers(path: Path, count: int) -> Path:
    """Writes a table of fluxes, in row groups of 10,000."""
    generator = np.random.default_rng(0)
    columns = {f"legacysurvey_flux_{b}": generator.lognormal(2, 1, count).astype(np.float32) for b in BANDS}
    table = pyarrow.table({"object_id": [str(i) for i in range(count)], **columns})
    pyarrow.parquet.write_table(table, path, row_group_size=10_000)
    return path


def timed(function: Callable[[], object]) -> tuple[float, object]:
    start = time.process_time()
    result = function()
    return time.process_time() - start, result


def overhead(folder: Path, count: int = 4096) -> None:
    path = numbers(folder / "n.parquet", count)
    table = pyarrow.parquet.read_table(path)
    observations = {n: Scalar(table.column(n).to_numpy()) for n in table.column_names if n != "object_id"}
    model = AION.from_pretrained("aion-nano", device="cpu")
    JOB.prepare()
    pairs = [
        (timed(lambda: model.embed(observations))[0], timed(lambda: embed_survey([path], folder / "o.parquet", JOB))[0])
        for _ in range(3)
    ]
    memory, driver = (min(values) for values in zip(*pairs, strict=True))
    print(f"overhead, {count} objects of {len(BANDS)} fluxes: model.embed {memory:.2f} s, driver {driver:.2f} s")
    print(f"  {driver / memory - 1:+.0%}; {count / driver:.0f} objects/s (the driver batches by tokens, embed by 64)")


def spec_file(path: Path, pixels: int = 3800) -> Path:
    """Writes random numbers in the layout of an SDSS `spec-PLATE-MJD-FIBER.fits`: four HDUs, 160 columns, 450 cards."""
    from astropy.io import fits

    random = np.random.default_rng(0)
    ones, zeros = np.ones(pixels), np.zeros(pixels, dtype=np.int32)
    coadd = {"flux": random.normal(size=pixels), "loglam": 3.58 + 1e-4 * np.arange(pixels), "ivar": ones}
    coadd |= {"and_mask": zeros, "or_mask": zeros, "wdisp": ones, "sky": ones, "model": ones}
    columns = [fits.Column(n, "J" if v is zeros else "E", array=v) for n, v in coadd.items()]
    single = [fits.Column(f"c{i}", "E", array=[1.0]) for i in range(120)]
    single += [fits.Column("Z", "E", array=[0.1]), fits.Column("CLASS", "6A", array=["GALAXY"])]
    lines = [fits.Column(f"l{i}", "E", array=np.ones(30)) for i in range(20)]
    header = fits.Header({f"KEY{i:04d}": i * 1.5 for i in range(120)})
    header.update({"PLATEID": 266, "MJD": 51630, "FIBERID": 7, "RA": 1.5, "DEC": 2.5})
    tables = {"COADD": columns, "SPECOBJ": single, "SPZLINE": lines}
    hdus = [fits.BinTableHDU.from_columns(each, name=name) for name, each in tables.items()]
    fits.HDUList([fits.PrimaryHDU(header=header), *hdus]).writeto(path)
    return path


def reading(folder: Path, count: int = 20) -> None:
    """Reads in turns: objects, which are arrays in canonical units, and the bare first table by astropy."""
    from astropy.table import Table

    coadd = folder / "coadd.fits"
    coadd.write_bytes(gzip.decompress(io.samples()["desi-galaxy"].read_bytes()))
    paths = [spec_file(folder / "spec-0266-51630-0007.fits"), coadd, io.samples()["desi-galaxy-tractor"]]
    for path in paths:
        pairs = [
            (timed(lambda p=path: io.read_objects(p))[0], timed(lambda p=path: Table.read(p, hdu=1))[0])
            for _ in range(count)
        ]
        ours, theirs = (1e3 * min(values) for values in zip(*pairs, strict=True))
        print(f"reading {path.name}: {ours:.2f} ms; astropy Table.read {theirs:.2f} ms ({theirs / ours:.1f}x)")


def memory(folder: Path, count: int = 100_000) -> None:
    code = (
        "import resource, sys, time; from aion.survey import Job, embed_survey; start = time.process_time()\n"
        "embed_survey([sys.argv[1]], sys.argv[2], Job(device='cpu'))\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024, time.process_time() - start)"
    )
    for size in (count // 10, count):
        path = numbers(folder / f"{size}.parquet", size)
        words = [sys.executable, "-c", code, str(path), str(folder / f"o{size}.parquet")]
        done = subprocess.run(words, capture_output=True, text=True, check=True).stdout.split()
        print(f"memory: {size} objects, peak {done[0]} MiB, {size / float(done[1]):.0f} objects/s with loading")


def kills(folder: Path, times: int = 20, count: int = 40_000) -> None:
    path, out = numbers(folder / "k.parquet", count), folder / "killed.parquet"
    words = [sys.executable, "-m", "aion", "embed", str(path), "-o", str(out), "--device", "cpu"]
    draw, killed = random.Random(0), 0
    parts = out.with_name(f"{out.name}.parts")
    while killed < times:
        process = subprocess.Popen(words, stdout=subprocess.DEVNULL)
        before = len(list(parts.glob("0*")))
        while process.poll() is None and len(list(parts.glob("0*"))) == before:
            time.sleep(0.01)
        time.sleep(draw.uniform(0, 0.3))
        if process.poll() is None:
            process.send_signal(signal.SIGKILL)
            killed += 1
        process.wait()
        if out.exists():
            break
    subprocess.run(words, check=True, stdout=subprocess.DEVNULL)
    embed_survey([path], folder / "whole.parquet", JOB)
    same = out.read_bytes() == (folder / "whole.parquet").read_bytes()
    print(f"kills: {killed} by SIGKILL, then run to the end: bit-identical {same}")


def engines(folder: Path, count: int = 20_000) -> None:
    path = numbers(folder / "e.parquet", count)
    seconds = {}
    for workers in (1, 2):
        out = folder / f"dask{workers}.parquet"
        start = time.perf_counter()
        embed_survey([path], out, JOB, engine="dask", workers=workers)
        seconds[workers] = time.perf_counter() - start
    same = (folder / "dask1.parquet").read_bytes() == (folder / "dask2.parquet").read_bytes()
    print(f"dask, {count} objects: 1 worker {seconds[1]:.1f} s, 2 workers {seconds[2]:.1f} s, start included")
    print(f"  {seconds[1] / seconds[2]:.2f}x; same file {same}; {os.cpu_count()} logical cores")


def search(folder: Path, count: int = 1_000_000, width: int = 256) -> None:
    generator = torch.Generator().manual_seed(0)
    centres = torch.randn(2000, width, generator=generator)
    vectors = torch.empty(count, width, dtype=torch.float16)
    for part in vectors.split(100_000):
        which = torch.randint(2000, (len(part),), generator=generator)
        part.copy_(centres[which] + torch.randn(len(part), width, generator=generator))
    query = vectors[:: count // 100][:100].float()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    index = Index(vectors)
    seconds = min(timed(lambda: index.search(query, 10))[0] for _ in range(2))
    more = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024 - before
    held = vectors.nbytes / 2**20
    print(f"search, {count} x {width} float16, 100 queries, k = 10: {seconds:.2f} s, {torch.get_num_threads()} threads")
    print(f"  memory at most {more:.0f} MiB (ids included) above the array's {held:.0f}: {1 + more / held:.2f}x")
    built, cells = timed(lambda: Approximate(index))
    quick = min(timed(lambda: cells.search(query, 10))[0] for _ in range(3))
    print(f"  approximate: built in {built:.0f} s, {quick:.3f} s ({seconds / quick:.1f}x), ", end="")
    print(f"recall@10 {cells.recall(query, 10):.3f}")


def rows(folder: Path, count: int = 1_000_000) -> None:
    path = numbers(folder / "m.parquet", count)
    model = JOB.prepare()[1].model
    reader = Reader({name: model.tokenizer(name).observation for name in model.modalities}, {})
    planned = units([str(path)], 1024)
    seconds, total = timed(lambda: sum(len(r.ids) for unit in planned for r in reader.read(unit)))
    print(f"rows: {total} of {len(BANDS)} fluxes read in {seconds:.0f} s, {total / seconds:.0f} rows/s")


SECTIONS = {f.__name__: f for f in (overhead, reading, memory, kills, engines, search, rows)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", choices=SECTIONS, help="one section")
    parser.add_argument("--count", type=int, help="objects, to try a section with fewer")
    arguments = parser.parse_args()
    load = ", ".join(f"{value:.1f}" for value in os.getloadavg())
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, load {load}")
    for name, section in SECTIONS.items():
        if arguments.only in {None, name}:
            with tempfile.TemporaryDirectory() as folder:
                section(Path(folder), **({"count": arguments.count} if arguments.count else {}))


if __name__ == "__main__":
    main()
