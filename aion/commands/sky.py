"""`aion sky`: a simulated survey as Parquet shards."""

__all__ = ["register"]

import argparse

from collections.abc import Iterator
from pathlib import Path

from aion.commands.command import add, add_device, positive


def register(verbs) -> None:
    """Adds the verb."""
    parser = add(
        verbs,
        "sky",
        _run,
        "simulate objects and what surveys measure of them, as Parquet shards",
        "Writes a new folder of shards, one row per object: object_id, the modalities with the columns of the\n"
        "Multimodal Universe, and what is true of the object (columns true_*). Units are in the metadata of the\n"
        "columns. `datasets`, pandas and pyarrow read it. An object depends on seed and number only.",
        "aion sky --n 10000 -o sky.parquet --modalities desi_spectrum,redshift",
    )
    parser.add_argument("--n", type=positive, default=1000, metavar="N", help="number of objects (default: 1000)")
    parser.add_argument(
        "-o", "--output", required=True, type=Path, metavar="DIR", help="folder to write; must not exist"
    )
    parser.add_argument(
        "--modalities",
        type=lambda text: text.split(","),
        metavar="NAME[,NAME]",
        help="what is simulated; default: DESI, SDSS, Gaia, images and photometry of the Legacy Surveys, redshift",
    )
    parser.add_argument("--seed", type=int, default=0, metavar="S", help="which sky (default: 0)")
    parser.add_argument("--first", type=int, default=0, metavar="I", help="number of the first object (default: 0)")
    parser.add_argument("--shard", type=positive, default=500, metavar="N", help="objects in a file (default: 500)")
    add_device(parser, default="cpu")


def _run(arguments: argparse.Namespace) -> None:
    from tqdm.auto import tqdm

    from aion.io import write_shards
    from aion.sky import LABELS, UNITS, Sky

    sky = Sky(seed=arguments.seed, modalities=arguments.modalities, device=arguments.device)

    def batches() -> Iterator[tuple[list[str], dict, dict]]:
        with tqdm(total=arguments.n, desc=arguments.output.name, unit="object", disable=None) as bar:
            for start in range(0, arguments.n, arguments.shard):
                index = range(arguments.first + start, arguments.first + min(start + arguments.shard, arguments.n))
                truth = {f"true_{name}": value.cpu().numpy() for name, value in sky.labels(index).items()}
                yield [f"{arguments.seed}-{i}" for i in index], sky.observe(index), truth
                bar.update(len(index))

    units = {**UNITS, **{f"true_{name}": unit for name, unit in LABELS.items()}}
    count = write_shards(arguments.output, batches(), units)
    print(f"{arguments.output}  {count} objects, {len(sky.modalities)} modalities")
