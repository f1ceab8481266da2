"""Embeds catalogues of growing size and writes down rate, peak memory and bytes: what the cost of a survey is made of.

    nohup python benchmarks/scale_catalogue.py FOLDER > scale.log &     # start again after whatever: it goes on
    python benchmarks/scale_catalogue.py FOLDER --tokens 10000 --scalars 10000 100000

Objects with tokens are 250 simulated ones, over and over: speed and memory do not see it, and the status `duplicate id`
marks them. Objects of scalars are five random fluxes each. A size is a line of FOLDER/scale.jsonl; those that are there
are not run again. CPU seconds are of all threads, of the last start alone.
"""

import argparse
import json
import math
import os
import subprocess
import sys
import time

from pathlib import Path

from bench_catalogue import numbers

from aion.whole import whole

SHARD = 250


def token_source(folder: Path, count: int) -> Path:
    """Makes a folder of links to one shard of simulated objects."""
    if not (folder / "sky").exists():
        words = [sys.executable, "-m", "aion", "sky", "--n", str(SHARD), "--shard", str(SHARD), "-o", "sky"]
        subprocess.run(words, cwd=folder, check=True)
    source = folder / f"tokens-{count}"
    source.mkdir(exist_ok=True)
    for number in range(math.ceil(count / SHARD)):
        link = source / f"part-{number:06d}.parquet"
        if not link.is_symlink():
            link.symlink_to(folder.resolve() / "sky" / "part-00000.parquet")
    return source


def scalar_source(folder: Path, count: int) -> Path:
    path = folder / f"scalars-{count}.parquet"
    if not path.exists():
        with whole(path) as temporary:
            numbers(temporary, count)
    return path


def run(folder: Path, kind: str, count: int) -> dict:
    """Embeds a source in a process of its own, going on with what is finished."""
    source = {"tokens": token_source, "scalars": scalar_source}[kind](folder, count)
    output = folder / f"{kind}-{count}.embeddings.parquet"
    before = 1024 * len(list(folder.glob(f"{output.name}.parts/0*")))
    words = [sys.executable, "-m", "aion", "embed", str(source), "-o", str(output), "--device", "cpu"]
    start = time.perf_counter()
    process = subprocess.Popen([*words, "--limit", str(count)])
    _, status, used = os.wait4(process.pid, 0)
    if status:
        msg = f"aion embed ended with {os.waitstatus_to_exitcode(status)}; start again to go on"
        raise SystemExit(msg)
    seconds = used.ru_utime + used.ru_stime
    files = [source] if source.is_file() else source.iterdir()
    return {
        "kind": kind,
        "objects": count,
        "embedded_now": count - before,
        "cpu_s": round(seconds, 1),
        "wall_s": round(time.perf_counter() - start, 1),
        "objects_per_cpu_s": round((count - before) / seconds, 1),
        "peak_MiB": used.ru_maxrss // 1024,
        "bytes_read_per_object": round(sum(p.stat().st_size for p in files) / count),
        "bytes_written_per_object": round(output.stat().st_size / count),
        "threads": os.environ.get("OMP_NUM_THREADS", "all"),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="where sources, outputs and scale.jsonl are kept")
    parser.add_argument("--tokens", type=int, nargs="*", default=[10_000, 100_000], help="objects of 200 tokens")
    parser.add_argument("--scalars", type=int, nargs="*", default=[10_000, 100_000, 1_000_000], help="objects of 5")
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    log = arguments.folder / "scale.jsonl"
    lines = log.read_text().splitlines() if log.exists() else []
    done = {(line["kind"], line["objects"]) for line in map(json.loads, lines)}
    sizes = [("scalars", n) for n in arguments.scalars] + [("tokens", n) for n in arguments.tokens]
    for kind, count in sorted(sizes, key=lambda size: size[1] * (40 if size[0] == "tokens" else 1)):
        if (kind, count) not in done:
            line = json.dumps(run(arguments.folder, kind, count))
            with log.open("a") as stream:
                stream.write(line + "\n")
            print(line, flush=True)


if __name__ == "__main__":
    main()
