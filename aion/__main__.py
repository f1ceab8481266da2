"""The `aion` command: thin verbs over the functions of the package.

What torch or astropy is needed for is imported inside the verbs, so that `aion --help` answers at once. Results go to
standard output; progress bars and errors go to standard error, the bars on a terminal only. A refused input is one line
`aion: error: ...` and exit status 2.
"""

__all__ = ["main"]

import argparse
import os
import sys
import tempfile

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from aion import __version__

if TYPE_CHECKING:
    import torch

    from aion.index import Index
    from aion.survey import Job
    from aion.survey.driver import Preview
    from aion.survey.search import Found

DEFAULT_MODEL = "aion-nano"
DEFAULT_FORECASTER = "forecaster-nano"


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a verb and returns the exit status: 0, 2 for refused input, 3 if rows failed, 130 if interrupted."""
    arguments = _parser().parse_args(argv)
    try:
        status = arguments.run(arguments) or 0
        sys.stdout.flush()
    except BrokenPipeError:  # `aion info ... | head`: whoever reads has read enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except KeyboardInterrupt:
        print("aion: interrupted", file=sys.stderr)
        return 130
    except (FloatingPointError, ModuleNotFoundError, OSError, RuntimeError, TypeError, ValueError) as error:
        print(f"aion: error: {_whose()}{_explain(error)}", file=sys.stderr, flush=True)
        return 2
    return status


def _whose() -> str:
    """Names the rank that speaks, of several that train together."""
    return f"rank {os.environ.get('RANK', 0)}: " if int(os.environ.get("WORLD_SIZE", "1")) > 1 else ""


def _explain(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror and error.filename:
        return f"{error.filename}: {error.strerror.lower()}"
    return str(error)


# --- arguments --------------------------------------------------------------------------------------------------------


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="aion",
        description="Turns astronomical observations into tokens, embeddings and predictions.",
        epilog="example:\n  aion demo\n\n`aion VERB --help` explains a verb and gives an example.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"aion {__version__}")
    verbs = parser.add_subparsers(title="verbs", metavar="VERB", required=True)
    _add_benchmark(verbs)
    _add_demo(verbs)
    _add_embed(verbs)
    _add_explore(verbs)
    _add_forecast(verbs)
    _add_info(verbs)
    _add_physics(verbs)
    _add_search(verbs)
    _add_sky(verbs)
    _add_train(verbs)
    return parser


def _add(verbs, name: str, run, summary: str, details: str, example: str) -> argparse.ArgumentParser:
    parser = verbs.add_parser(
        name,
        help=summary,
        description=f"{summary[0].upper()}{summary[1:]}.\n\n{details}",
        epilog=f"example:\n  {example}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(run=run)
    return parser


def _add_model(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--model",
        default=DEFAULT_MODEL,
        metavar="MODEL",
        help=f"a shipped model, a folder, or owner/name on the Hugging Face Hub (default: {DEFAULT_MODEL})",
    )
    _add_device(parser)


def _add_device(parser: argparse.ArgumentParser, default: str = "auto") -> None:
    note = "auto takes a GPU if there is one" if default == "auto" else "such as cpu or cuda"
    parser.add_argument("--device", default=default, help=f"where to compute; {note} (default: {default})")


def _add_benchmark(verbs) -> None:
    parser = _add(
        verbs,
        "benchmark",
        _benchmark,
        "score frozen models on many tasks, with baselines, errors and controls",
        "Writes DIR/TASK/MODEL.json for every pair, DIR/table.md and DIR/report.html. Started again with the same DIR it\n"
        "goes on: cells are kept as long as task, data, model and the code that scores are the same.",
        "aion benchmark --task sdss-photoz --model aion-nano --model raw",
    )
    parser.add_argument(
        "--suite", default="offline", metavar="SUITE", help="offline, published or all (default: offline)"
    )
    parser.add_argument(
        "--task",
        action="append",
        default=[],
        metavar="TASK",
        help="a task of any suite, instead of a suite; may repeat",
    )
    parser.add_argument(
        "--model",
        action="append",
        metavar="MODEL",
        help="a shipped model, a folder, owner/name on the Hugging Face Hub, 'raw' for the raw measurements, or a\n"
        f"Parquet file of embeddings; may repeat (default: {DEFAULT_MODEL} and raw)",
    )
    parser.add_argument(
        "-o",
        "--output",
        type=Path,
        default=Path("aion-benchmark"),
        metavar="DIR",
        help="folder to write (default: aion-benchmark)",
    )
    parser.add_argument("--data", type=Path, metavar="DIR", help="checkout that holds the data (default: that of aion)")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of bootstraps and controls (default: 0)")
    parser.add_argument("--no-controls", action="store_true", help="leave out what should fail")
    _add_device(parser)


def _add_demo(verbs) -> None:
    parser = _add(
        verbs,
        "demo",
        _demo,
        "show the whole way on real data that ship with aion",
        "Reads two DESI spectra and their photometry, prints tokens, embeddings and redshifts beside those of the\n"
        "survey's pipeline, and writes embedding.parquet, spectrum.png, redshift.png and report.html.",
        "aion demo --out my-demo",
    )
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("aion-demo"),
        metavar="DIR",
        help="folder to write; an earlier demo in it is replaced (default: aion-demo)",
    )
    _add_model(parser)


def _add_embed(verbs) -> None:
    parser = _add(
        verbs,
        "embed",
        _embed,
        "embed the objects of files or whole surveys and write them to a Parquet table",
        "One row per object: its id, position, embedding, the modalities and the number of tokens that went in, and a\n"
        "status. Everything read that the model knows is used; what it does not know is named in a note. A row or\n"
        "file that fails is a row that says why, and exit status 3. Started again after an interruption it goes on.",
        "aion embed coadd-*.fits -o embeddings.parquet",
    )
    parser.add_argument(
        "source",
        nargs="+",
        metavar="SOURCE",
        help="files that aion.io.read reads, globs, folders of Parquet or HATS, owner/name of a data set on the Hub",
    )
    parser.add_argument("-o", "--output", required=True, type=Path, metavar="OUT", help="Parquet file to write")
    _add_columns(parser)
    parser.add_argument(
        "--predict", action="extend", default=[], type=_names, metavar="NAME[,NAME]", help="scalars to predict as well"
    )
    parser.add_argument("--pool", choices=["mean"], default="mean", help="how tokens become one vector (default: mean)")
    parser.add_argument(
        "--layer", choices=["context", "encoder"], default="context", help="layer to embed by (default: context)"
    )
    parser.add_argument(
        "--dtype",
        choices=["auto", "bfloat16", "float16", "float32"],
        default="float32",
        help="type of the transformer's numbers; auto takes bfloat16 where that is fast (default: float32)",
    )
    parser.add_argument(
        "--batch-size",
        type=lambda text: None if text == "auto" else _positive(text),
        metavar="N",
        help="most objects at once; auto goes by their tokens (default: auto)",
    )
    parser.add_argument("--limit", type=_positive, metavar="N", help="stop after so many rows")
    parser.add_argument("--dry-run", action="store_true", help="print the column map and the tokens; write nothing")
    parser.add_argument(
        "--engine", choices=["local", "dask", "torchrun"], default="local", help="what shares the work (default: local)"
    )
    parser.add_argument(
        "--workers",
        type=lambda text: int(text) if text.isdecimal() else text,
        default=2,
        metavar="N",
        help="of Dask: number of local processes, or the address of a scheduler (default: 2)",
    )
    parser.add_argument(
        "--part", type=_share, metavar="I/N", help="only the I-th share, from 0; a run without it joins all shares"
    )
    _add_model(parser)


def _add_columns(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--format", help="format of the files (default: told from each file's content)")
    parser.add_argument(
        "--columns",
        action="extend",
        default=[],
        type=_pairs,
        metavar="NAME=COLUMN[,...]",
        help="columns of Parquet files by modality, where their names do not tell",
    )
    parser.add_argument(
        "--join",
        action="store_true",
        help="the files are different modalities of the same objects in the same order: one row for each object",
    )
    parser.add_argument(
        "--without", action="extend", default=[], type=_names, metavar="NAME[,NAME]", help="leave modalities out"
    )
    parser.add_argument(
        "--as", dest="known_as", metavar="NAME", help="modality as which spectra of no known survey are embedded"
    )
    parser.add_argument(
        "--unit", help="flux unit of files that do not state theirs, such as '1e-17 erg/(s cm2 Angstrom)'"
    )


def _add_explore(verbs) -> None:
    parser = _add(
        verbs,
        "explore",
        _explore,
        "draw embeddings as an HTML page with a map to look around in",
        "One self-contained page: a map of all objects, coloured by any column; point at one to see what it is, draw\n"
        "around some to download their ids. Up to 100,000 objects.",
        "aion explore embeddings.parquet -o map.html",
    )
    parser.add_argument("embeddings", type=Path, metavar="EMBEDDINGS", help="what aion embed wrote")
    parser.add_argument("-o", "--output", required=True, type=Path, metavar="OUT", help="HTML file to write")
    parser.add_argument(
        "--method", choices=["pca", "umap"], default="pca", help="how the map is made; umap is an extra (default: pca)"
    )


def _add_forecast(verbs) -> None:
    parser = _add(
        verbs,
        "forecast",
        _forecast,
        "draw possible futures of a time series",
        "Reads a CSV file with a column of time (or year and month), writes every member and the quantiles of each\n"
        "lead to a Parquet table, and a fan chart beside it. The shipped model knows monthly sunspot numbers (column\n"
        "sunspot_number) and refuses other series; for those, --fit trains a small one on the series itself\n"
        "(minutes), and --save keeps it for --model.",
        "aion forecast sunspots.csv --horizon 96 --members 64 -o forecast.parquet",
    )
    parser.add_argument("series", type=Path, metavar="SERIES", help="CSV file; steps left out count as not measured")
    parser.add_argument("-o", "--output", required=True, type=Path, metavar="OUT", help="Parquet file to write")
    parser.add_argument("--horizon", type=_positive, default=96, metavar="N", help="steps to forecast (default: 96)")
    parser.add_argument("--members", type=_positive, default=64, metavar="M", help="futures to draw (default: 64)")
    parser.add_argument(
        "--column", dest="columns", action="append", metavar="NAME", help="channel to read (default: all)"
    )
    parser.add_argument("--fit", type=_positive, metavar="STEPS", help="train on the series, so many steps (try 1500)")
    parser.add_argument("--save", type=Path, metavar="DIR", help="where to write the forecaster that --fit made")
    parser.add_argument("--seed", type=int, default=0, help="of all draws (default: 0)")
    parser.add_argument(
        "--model", default=DEFAULT_FORECASTER, metavar="MODEL", help=f"a forecaster (default: {DEFAULT_FORECASTER})"
    )
    _add_device(parser, default="cpu")


def _add_info(verbs) -> None:
    parser = _add(
        verbs,
        "info",
        _info,
        "say what a model reads, how large it is and where it comes from",
        "Prints the modalities with their tokenizers, parameters, files with their SHA-256, and provenance.",
        f"aion info {DEFAULT_MODEL}",
    )
    parser.add_argument(
        "model",
        nargs="?",
        default=DEFAULT_MODEL,
        metavar="MODEL",
        help=f"a shipped model, a folder, or owner/name on the Hugging Face Hub (default: {DEFAULT_MODEL})",
    )


def _add_physics(verbs) -> None:
    data = "aion physics data --system shear --n 200 -o shear.hdf5"
    parser = _add(verbs, "physics", None, "simulate flows, or train a model of them", "See docs/physics.md.", data)
    verbs = parser.add_subparsers(title="verbs", metavar="VERB", required=True, help="what to do")
    details = "Systems: shear, kolmogorov, convection, gray-scott, acoustic, turbulence. The file is in the format of\n"
    parser = _add(verbs, "data", _physics_data, "simulate a system", f"{details}The Well, labelled by regime.", data)
    parser.add_argument("--system", required=True, metavar="NAME", help="the system")
    parser.add_argument("--n", type=_positive, required=True, metavar="N", help="number of trajectories")
    parser.add_argument("-o", "--output", required=True, type=Path, metavar="OUT", help="HDF5 file to write")
    parser.add_argument("--size", type=_positive, metavar="N", help="points along an axis (default: of the system)")
    parser.add_argument("--frames", type=_positive, default=36, metavar="N", help="frames of each (default: 36)")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of the initial conditions (default: 0)")
    _add_device(parser, default="cpu")
    example = "aion physics train benchmarks/recipes/walrus-nano.toml -o runs/walrus-nano"
    parser = _add(
        verbs, "train", _physics_train, "train the model of a recipe", "Writes DIR/model; goes on if stopped.", example
    )
    parser.add_argument("recipe", type=Path, metavar="RECIPE", help="a TOML file; see aion.physics.recipe")
    parser.add_argument("-o", "--output", required=True, type=Path, metavar="DIR", help="folder to write")
    parser.add_argument("--steps", type=_positive, metavar="N", help="at most so many, for a trial")
    parser.add_argument("--seed", type=int, metavar="N", help="instead of the recipe's")


def _add_sky(verbs) -> None:
    parser = _add(
        verbs,
        "sky",
        _sky,
        "simulate objects and what surveys measure of them, as Parquet shards",
        "Writes a new folder of shards, one row per object: object_id, the modalities with the columns of the\n"
        "Multimodal Universe, and what is true of the object (columns true_*). Units are in the metadata of the\n"
        "columns. `datasets`, pandas and pyarrow read it. An object depends on seed and number only.",
        "aion sky --n 10000 -o sky.parquet --modalities desi_spectrum,redshift",
    )
    parser.add_argument("--n", type=_positive, default=1000, metavar="N", help="number of objects (default: 1000)")
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
    parser.add_argument("--shard", type=_positive, default=500, metavar="N", help="objects in a file (default: 500)")
    _add_device(parser, default="cpu")


def _add_search(verbs) -> None:
    parser = _add(
        verbs,
        "search",
        _search,
        "find the objects of an index that are most like others",
        "Prints ids, positions and distances, nearest first. Files given with --like are embedded by the model; of\n"
        "several objects the mean is looked for.",
        "aion search embeddings.parquet --like coadd-galaxy.fits -k 20",
    )
    parser.add_argument(
        "index", nargs="+", type=Path, metavar="INDEX", help="what aion embed wrote, or an index that --save wrote"
    )
    parser.add_argument("--like", action="append", default=[], type=Path, metavar="FILE", help="file of the object")
    parser.add_argument("--id", action="append", default=[], dest="ids", metavar="ID", help="object of the index")
    parser.add_argument("-k", type=_positive, default=20, metavar="K", help="how many (default: 20)")
    parser.add_argument(
        "--metric", choices=["cosine", "euclidean"], default="cosine", help="distance (default: cosine)"
    )
    parser.add_argument(
        "--approximate", action="store_true", help="look into a few cells only (extra faiss) and print the recall"
    )
    parser.add_argument("--save", type=Path, metavar="FILE", help="keep the index, in float16, for the next search")
    parser.add_argument(
        "--images", action="append", default=[], metavar="SOURCE", help="where the objects found are, for --montage"
    )
    parser.add_argument("--montage", type=Path, metavar="PNG", help="draw the objects found, from --images")
    _add_model(parser)


def _add_train(verbs) -> None:
    parser = _add(
        verbs,
        "train",
        _train,
        "train the tokenizers and the transformer of a recipe",
        "Writes DIR/bundle, which --model and AION.from_pretrained read, and the logs DIR/*.jsonl. Started again with\n"
        "the same DIR it goes on from the last checkpoint. On several GPUs or machines it is started by torchrun:\n"
        "torchrun --nproc-per-node 8 -m aion train RECIPE -o DIR --device cuda",
        "aion train benchmarks/recipes/nano.toml -o runs/trial --steps 20",
    )
    parser.add_argument("recipe", type=Path, metavar="RECIPE", help="a TOML file; see aion.recipes")
    parser.add_argument("-o", "--output", required=True, type=Path, metavar="DIR", help="folder to write")
    parser.add_argument("--steps", type=_positive, metavar="N", help="at most so many steps of each part, for a trial")
    _add_device(parser, default="cpu")


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        msg = f"wanted a whole number of at least 1, given {text!r}"
        raise argparse.ArgumentTypeError(msg)
    return int(text)


def _names(text: str) -> list[str]:
    return [name for name in text.split(",") if name]


def _pairs(text: str) -> list[tuple[str, str]]:
    pairs = [tuple(each.split("=", 1)) for each in _names(text)]
    if any(len(pair) != 2 or not all(pair) for pair in pairs):
        msg = f"wanted NAME=COLUMN, given {text!r}"
        raise argparse.ArgumentTypeError(msg)
    return pairs


def _share(text: str) -> tuple[int, int]:
    first, _, second = text.partition("/")
    if not (first.isdecimal() and second.isdecimal() and int(first) < int(second)):
        msg = f"wanted I/N with I from 0 to N - 1, such as 0/16, given {text!r}"
        raise argparse.ArgumentTypeError(msg)
    return int(first), int(second)


# --- verbs ------------------------------------------------------------------------------------------------------------


def _share_cores() -> None:
    """Lets waiting threads of torch sleep instead of spin, unless the user has chosen or torch is loaded already.

    With one of two cores busy elsewhere the demonstration takes 10 s so, and 49 s with spinning threads.
    """
    if "torch" not in sys.modules:
        os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


def _demo(arguments: argparse.Namespace) -> None:
    _share_cores()
    from aion import demo

    demo.run(arguments.out, model=arguments.model, device=arguments.device)


def _sky(arguments: argparse.Namespace) -> None:
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


def _benchmark(arguments: argparse.Namespace) -> None:
    _share_cores()
    from tqdm.auto import tqdm

    from aion.benchmarks import choose, embedder, run, table, write_report
    from aion.benchmarks.tasks import ROOT

    tasks = choose(arguments.suite, arguments.task)
    models = [embedder(name, arguments.device) for name in arguments.model or [DEFAULT_MODEL, "raw"]]
    arguments.output.mkdir(parents=True, exist_ok=True)
    with tqdm(total=len(tasks) * len(models), unit="cell", disable=None) as bar:

        def report(done: int, total: int, cell: dict) -> None:
            bar.set_postfix_str(f"{cell['task']} {cell['model']}")
            bar.update()

        options = {"seed": arguments.seed, "controls": not arguments.no_controls, "report": report}
        cells = run(tasks, models, arguments.output, arguments.data or ROOT, **options)
    text = table(cells)
    (arguments.output / "table.md").write_text(text, encoding="utf-8")
    page = write_report(cells, arguments.output)
    print(f"{text}\n{page}  {len(cells)} cells, {sum(cell.get('kept', False) for cell in cells)} kept from before")


def _train(arguments: argparse.Namespace) -> None:
    from aion.recipes import train_recipe
    from aion.training import ranks

    with ranks.joined(arguments.device) as device:
        model = train_recipe(arguments.recipe, arguments.output, device=device, steps=arguments.steps)
        if ranks.rank() > 0:
            return
        print(f"{arguments.output / 'bundle'}  {sum(p.numel() for p in model.parameters()):,} parameters")
        print(f"look at it with: aion info {arguments.output / 'bundle'}")


def _physics_data(arguments: argparse.Namespace) -> None:
    _share_cores()
    from aion.physics.systems import simulate
    from aion.physics.well import write_well

    _check_writable(arguments.output)
    options = {key: getattr(arguments, key) for key in ("size", "frames", "seed", "device")}
    flow = simulate(arguments.system, arguments.n, progress=True, **options)
    write_well(flow, arguments.output)
    grid = " x ".join(map(str, flow.space))
    print(f"{arguments.output}  {len(flow)} x {flow.frames} frames of {', '.join(flow.fields)} on {grid}, simulated")


def _physics_train(arguments: argparse.Namespace) -> None:
    from aion.physics.recipe import train_recipe

    options = {key: getattr(arguments, key) for key in ("device", "steps", "seed")}
    model = train_recipe(arguments.recipe, arguments.output, **options)
    print(f"{arguments.output / 'model'}  {sum(p.numel() for p in model.parameters()):,} parameters")


def _forecast(arguments: argparse.Namespace) -> None:
    _share_cores()
    from aion.outlook import outlook

    _check_writable(arguments.output)
    options = {k: v for k, v in vars(arguments).items() if k not in ("run", "series", "output")}
    for path in outlook(arguments.series, arguments.output, **options):
        print(path)


def _info(arguments: argparse.Namespace) -> None:
    from aion.bundle import locate, read_config
    from aion.model import AION
    from aion.official import is_published

    folder = locate(arguments.model, None)
    model = AION.from_pretrained(arguments.model, device="cpu")
    config = {} if is_published(folder) else read_config(folder)
    version = "that of the published AION-1"
    if config:
        version = f"{config['format']}, written by aion {config.get('aion_version', 'unknown')}"
    weights = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.safetensors"))
    hashes = config.get("sha256") or dict.fromkeys(weights, "")
    count = {name: sum(p.numel() for p in part.parameters()) for name, part in model.parts.items()}
    fixed = sum(not number for number in count.values())
    transformer = {k: v for k, v in model.transformer.config.items() if k != "sizes"}
    _table("model", [
        ("name", model.provenance.get("name", folder.name)),
        ("folder", folder),
        ("format", version),
        ("hash", config.get("model_sha256", "none: save_pretrained makes a bundle, which has one")),
        ("embedding", f"{model.dim} numbers"),
        ("vocabulary", f"{len(model.vocabulary):,} ids"),
    ])  # fmt: skip
    _table("reads", [(n, model.modalities[n], model.tokenizer(n).describe()) for n in model.modalities])
    _table("parameters", [
        ("transformer", f"{sum(p.numel() for p in model.transformer.parameters()):,}", _inline(transformer)),
        *((f"tokenizer {name}", f"{number:,}") for name, number in count.items() if number),
        *([(f"{fixed} other tokenizers", "0", "bins fitted to the training data")] if fixed else []),
    ])  # fmt: skip
    _table("files", [(key, f"{(folder / key).stat().st_size:,} bytes", digest) for key, digest in hashes.items()])
    _table("provenance", list(_lines(model.provenance)) or [("not stated",)])


def _lines(facts: Mapping[str, object], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Lists nested plain facts; the innermost stand on one line."""
    for key, value in facts.items():
        if isinstance(value, Mapping) and any(isinstance(v, Mapping) for v in value.values()):
            yield from _lines(value, f"{prefix}{key} ")
        else:
            yield f"{prefix}{key}", _inline(value)


def _inline(value: object) -> str:
    if not isinstance(value, Mapping):
        return str(value)
    return ", ".join(f"{k} {_inline(v)}" for k, v in value.items() if v != {})


def _table(title: str, rows: Sequence[Sequence[object]]) -> None:
    """Prints rows under a title, in columns as wide as their widest cell."""
    cells = [[str(cell) for cell in row] for row in rows]
    widths = [max(len(row[i]) for row in cells if i < len(row)) for i in range(max(map(len, cells)))]
    print(title)
    for row in cells:
        print("  " + "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=False)).rstrip())
    print()


# --- embed ------------------------------------------------------------------------------------------------------------


def _embed(arguments: argparse.Namespace) -> int:
    _share_cores()
    from aion.survey import embed_survey, preview

    _check_writable(arguments.output)
    job = _job(arguments)
    if arguments.dry_run:
        _print_preview(preview(arguments.source, job, arguments.limit))
        return 0
    report = embed_survey(
        arguments.source,
        arguments.output,
        job,
        limit=arguments.limit,
        engine=arguments.engine,
        workers=arguments.workers,
        part=arguments.part,
    )
    if report is None:
        print(f"{arguments.output}.parts  this share is finished")
        return 0
    unread, coverage = report.notes["unread"], report.notes["coverage"]
    if unread:
        _note(f"left out {', '.join(unread)}, which the model does not know")
    for name, share in coverage.items():
        _note(f"{name}: down to {share:.0%} of the measured values are read")
    if report.empty:
        _note(f"{report.empty} objects have no embedding: nothing is measured of them")
    if report.duplicates:
        _note(f"{report.duplicates} rows have an id that an earlier row has")
    if report.failed:
        _note(f"{report.failed} rows or files failed, see the column status; the first: {report.first_fault}")
    print(f"{arguments.output}  {report.embedded} objects x {report.dim}")
    return 3 if report.failed else 0


def _job(arguments: argparse.Namespace) -> "Job":
    from aion.survey import Job

    return Job(
        model=arguments.model,
        predict=tuple(arguments.predict),
        pool=arguments.pool,
        layer=arguments.layer,
        dtype=arguments.dtype,
        device=arguments.device,
        batch_size=arguments.batch_size,
        columns=dict(arguments.columns),
        format=arguments.format,
        options={} if arguments.unit is None else {"unit": arguments.unit},
        known_as=arguments.known_as,
        without=tuple(arguments.without),
        join=arguments.join,
    )


def _print_preview(seen: "Preview") -> None:
    rows = "unknown until they are read" if seen.rows is None else f"{seen.rows:,}"
    _table("source", [("files", f"{seen.files:,}"), ("rows", rows)])
    _table("column map", list(seen.columns.items()) or [("none: read by the format of the files",)])
    per_object = sum(seen.tokens.values())
    _table(f"tokens of an object, mean of {seen.objects}", [
        *((name, f"{number:.1f}") for name, number in seen.tokens.items()),
        ("together", f"{per_object:.1f}"),
        *([("all rows", f"{per_object * seen.rows:,.0f}")] if seen.rows else []),
    ])  # fmt: skip


def _note(text: str) -> None:
    print(f"aion: note: {text}", file=sys.stderr)


# --- explore and search -----------------------------------------------------------------------------------------------


def _explore(arguments: argparse.Namespace) -> None:
    from aion.survey.explore import explore

    _check_writable(arguments.output)
    print(f"{arguments.output}  {explore(arguments.embeddings, arguments.output, method=arguments.method)} objects")


def _search(arguments: argparse.Namespace) -> None:
    _share_cores()
    from aion.index import Index
    from aion.io import read
    from aion.model import AION
    from aion.survey.search import index_embeddings, montage, panels, search

    if bool(arguments.like) == bool(arguments.ids) or (arguments.montage and not arguments.images):
        msg = "wanted either --like or --id, and --images with --montage"
        raise ValueError(msg)
    saved = arguments.index[0].suffix == ".safetensors"
    index = Index.load(arguments.index[0]) if saved else index_embeddings(arguments.index, arguments.metric)
    if arguments.save:
        index.save(arguments.save)
    like, model = arguments.ids, None
    if arguments.like:
        dtype = _dtype(index)
        model = AION.from_pretrained(arguments.model, device=arguments.device, dtype=dtype)
        like = {}
        for name, value in (pair for file in arguments.like for pair in read(file).items()):
            like[name] = type(value).stack([like[name], value]) if name in like else value
    found = search(index, like, arguments.k, model=model, approximate=arguments.approximate)
    _print_found(found)
    if arguments.montage:
        titles = {name: f"{name}  {distance:.3g}" for name, distance in zip(found.ids, found.distance, strict=True)}
        montage(panels(arguments.images, titles)).savefig(arguments.montage, dpi=100)
        print(arguments.montage)


def _dtype(index: "Index") -> "torch.dtype":
    import torch

    return getattr(torch, str(index.facts.get("dtype", "float32")))


def _print_found(found: "Found") -> None:
    rows = [("object_id", *found.columns, "distance")]
    for i, name in enumerate(found.ids):
        rows.append((name, *(f"{value[i]:.5f}" for value in found.columns.values()), f"{found.distance[i]:.4g}"))
    _table("nearest", rows)
    if found.recall is not None:
        print(f"recall against the exact search: {found.recall:.2f}")


def _check_writable(path: Path) -> None:
    """Refuses an output that cannot be written, before anything is computed."""
    if path.is_dir():
        msg = f"{path} is a folder: give the name of a file, such as {path / 'embeddings.parquet'}"
        raise IsADirectoryError(msg)
    if not path.absolute().parent.is_dir():
        msg = f"cannot write {path}: there is no folder {path.absolute().parent}"
        raise FileNotFoundError(msg)
    try:
        with tempfile.TemporaryFile(dir=path.absolute().parent):
            pass
    except OSError as error:
        msg = f"cannot write {path}: {(error.strerror or str(error)).lower()}"
        raise PermissionError(msg) from error


if __name__ == "__main__":
    sys.exit(main())
