"""Measures how fast the sky is simulated.

    python benchmarks/bench_sky.py [--device cpu] [--processes 2] [--objects 400]

Every process has one thread and simulates objects of its own, as the workers of a data loader do. Two rates are
printed: by the clock, and by the time that the processes had on a core, which other work on the machine changes less.
"""

import argparse
import os
import time

from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import torch

from aion.sky import MODALITIES, OPTIONAL, Sky

CASES = {
    "DESI and SDSS spectra": ("desi_spectrum", "sdss_spectrum"),
    "default modalities": MODALITIES,
    "default modalities and HSC": (*MODALITIES, *(name for name in OPTIONAL if name.startswith("hsc_"))),
}
BATCH = 64


def simulate(names: tuple[str, ...], device: str, first: int, objects: int) -> tuple[int, float]:
    """Returns the number of spectra seen and the seconds on a core."""
    torch.set_num_threads(1)
    sky = Sky(modalities=names, device=device)
    sky.observe(range(BATCH))
    start, spectra = time.process_time(), 0
    for k in range(0, objects, BATCH):
        seen = sky.observe(range(first + k, first + min(k + BATCH, objects)))
        spectra += sum(int(seen[n].measured.any(1).sum()) for n in names if n.endswith("_spectrum"))
    if device != "cpu":
        torch.cuda.synchronize()
    return spectra, time.process_time() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--objects", type=int, default=400, help="of each process")
    arguments = parser.parse_args()
    load = os.getloadavg()
    print(f"{arguments.processes} processes of one thread, {arguments.objects} objects each; load {load[0]:.1f} before")
    context = get_context("spawn")
    for label, names in CASES.items():
        with ProcessPoolExecutor(arguments.processes, mp_context=context) as pool:
            list(pool.map(simulate, *zip(*[(names, arguments.device, 0, BATCH)] * arguments.processes, strict=True)))
            start = time.perf_counter()
            tasks = [(names, arguments.device, 10_000 * k, arguments.objects) for k in range(arguments.processes)]
            results = list(pool.map(simulate, *zip(*tasks, strict=True)))
            wall = time.perf_counter() - start
        objects, spectra = arguments.objects * arguments.processes, sum(n for n, _ in results)
        core = sum(seconds for _, seconds in results) / arguments.processes
        print(
            f"{label:28s} {objects / wall:7.0f} objects/s {spectra / wall:7.0f} spectra/s by the clock; "
            f"{objects / core:7.0f} objects/s {spectra / core:7.0f} spectra/s by time on the cores"
        )


if __name__ == "__main__":
    main()
