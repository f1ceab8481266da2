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
    import numpy as np

    from aion.model import AION
    from aion.observations import Observation

    Table = tuple[str, list[str], dict[str, Observation]]  # source, ids, observations

DEFAULT_MODEL = "aion-nano"


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a verb and returns the exit status: 0, 2 for refused input, 130 if interrupted."""
    arguments = _parser().parse_args(argv)
    try:
        arguments.run(arguments)
        sys.stdout.flush()
    except BrokenPipeError:  # `aion info ... | head`: whoever reads has read enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except KeyboardInterrupt:
        print("aion: interrupted", file=sys.stderr)
        return 130
    except (FloatingPointError, OSError, TypeError, ValueError) as error:
        print(f"aion: error: {_explain(error)}", file=sys.stderr)
        return 2
    return 0


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
    _add_info(verbs)
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
        "Writes DIR/TASK/MODEL.json for every pair, DIR/table.md and DIR/report.html. Started again with the same DIR\n"
        "it goes on: cells are kept as long as task, data, model and the code that scores are the same.",
        "aion benchmark --task sdss-photoz --model aion-nano --model raw",
    )

    def option(name: str, text: str, **rest: object) -> None:
        parser.add_argument(name, help=text, **rest)

    option("--suite", "offline, published or all (default: offline)", default="offline", metavar="SUITE")
    option("--task", "a task of any suite, instead of a suite; may repeat", action="append", default=[], metavar="TASK")
    whose = "as for `aion info`, 'raw' for raw measurements, or a Parquet file of embeddings; may repeat"
    option("--model", f"{whose} (default: {DEFAULT_MODEL} and raw)", action="append", metavar="MODEL")
    folder = {"type": Path, "metavar": "DIR"}
    option("-o", "folder to write (default: aion-benchmark)", dest="output", default=Path("aion-benchmark"), **folder)
    option("--data", "checkout that holds the data (default: that of aion)", **folder)
    option("--seed", "of bootstraps and controls (default: 0)", type=int, default=0, metavar="N")
    option("--no-controls", "leave out what should fail", action="store_true")
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
        "embed the objects of files and write them to a Parquet table",
        "One row per object: its id, the file it is from, the modalities and the number of tokens that went in, and\n"
        "the embedding. Everything read that the model knows is used; what it does not know is named in a note.",
        "aion embed coadd-*.fits -o embeddings.parquet",
    )
    parser.add_argument("files", nargs="+", type=Path, metavar="FILE", help="files that aion.io.read reads")
    parser.add_argument("-o", "--output", required=True, type=Path, metavar="OUT", help="Parquet file to write")
    parser.add_argument("--format", help="format of the files (default: told from each file's content)")
    parser.add_argument(
        "--join",
        action="store_true",
        help="the files are different modalities of the same objects in the same order: one row for each object",
    )
    parser.add_argument(
        "--without",
        action="append",
        default=[],
        type=lambda text: text.split(","),
        metavar="NAME[,NAME]",
        help="leave modalities out",
    )
    parser.add_argument(
        "--as", dest="known_as", metavar="NAME", help="modality as which spectra of no known survey are embedded"
    )
    parser.add_argument(
        "--unit", help="flux unit of files that do not state theirs, such as '1e-17 erg/(s cm2 Angstrom)'"
    )
    parser.add_argument("--pool", choices=["mean"], default="mean", help="how tokens become one vector (default: mean)")
    parser.add_argument(
        "--batch-size", type=_positive, default=64, metavar="N", help="objects at once; changes no result (default: 64)"
    )
    _add_model(parser)


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


def _add_train(verbs) -> None:
    parser = _add(
        verbs,
        "train",
        _train,
        "train the tokenizers and the transformer of a recipe",
        "Writes DIR/bundle, which --model and AION.from_pretrained read, and the logs DIR/*.jsonl. Started again with\n"
        "the same DIR it goes on from the last checkpoint.",
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


def _benchmark(arguments: argparse.Namespace) -> None:
    _share_cores()
    from tqdm.auto import tqdm

    from aion.benchmarks import choose, embedder, run, table, write_report
    from aion.benchmarks.tasks import ROOT

    tasks = choose(arguments.suite, arguments.task)
    models = [embedder(name, arguments.device) for name in arguments.model or [DEFAULT_MODEL, "raw"]]
    arguments.output.mkdir(parents=True, exist_ok=True)
    with tqdm(total=len(tasks) * len(models), unit="cell", disable=None) as bar:
        options = {"seed": arguments.seed, "controls": not arguments.no_controls, "report": lambda *_: bar.update()}
        cells = run(tasks, models, arguments.output, arguments.data or ROOT, **options)
    text = table(cells)
    (arguments.output / "table.md").write_text(text, encoding="utf-8")
    page = write_report(cells, arguments.output)
    print(f"{text}\n{page}  {len(cells)} cells, {sum(cell.get('kept', False) for cell in cells)} kept from before")


def _train(arguments: argparse.Namespace) -> None:
    from aion.recipes import train_recipe

    model = train_recipe(arguments.recipe, arguments.output, device=arguments.device, steps=arguments.steps)
    print(f"{arguments.output / 'bundle'}  {sum(p.numel() for p in model.parameters()):,} parameters")
    print(f"look at it with: aion info {arguments.output / 'bundle'}")


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


def _embed(arguments: argparse.Namespace) -> None:
    _share_cores()
    import numpy as np

    from aion.io import write_embeddings
    from aion.model import AION

    _check_writable(arguments.output)
    model = AION.from_pretrained(arguments.model, device=arguments.device)
    tables = _read(arguments.files, arguments, model)
    if arguments.join:
        tables = [_join(tables)]
    columns = [_embed_table(model, *table, arguments) for table in tables]
    sources = [source for source, *_ in tables]
    ids = [name for kept, *_ in columns for name in kept]
    write_embeddings(
        arguments.output,
        ids,
        np.concatenate([vectors for _, vectors, _, _ in columns]),
        columns={
            "source": [source for source, (kept, *_) in zip(sources, columns, strict=True) for _ in kept],
            "modalities": [text for _, _, texts, _ in columns for text in texts],
            "tokens": np.concatenate([tokens for *_, tokens in columns]),
        },
        metadata={"model": arguments.model, "model_sha256": model.sha256, "pool": arguments.pool},
    )
    print(f"{arguments.output}  {len(ids)} objects x {model.dim}")


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


def _read(files: Sequence[Path], arguments: argparse.Namespace, model: "AION") -> "list[Table]":
    """Reads files and leaves out what was asked to be left out, and, with a note, what the model does not know."""
    from aion.io import object_ids, read
    from aion.observations import near_miss

    options = {} if arguments.unit is None else {"unit": arguments.unit}
    tables = [
        (str(path), object_ids(path, format=arguments.format), read(path, arguments.format, **options))
        for path in files
    ]
    found = {name for *_, observations in tables for name in observations}
    without = {name for names in arguments.without for name in names}
    if absent := sorted(without - found):
        msg = f"--without {absent[0]}: no file has it; {near_miss(absent[0], found)}"
        raise ValueError(msg)
    return [(source, ids, _select(source, values, without, arguments, model)) for source, ids, values in tables]


def _select(
    source: str,
    observations: "dict[str, Observation]",
    without: set[str],
    arguments: argparse.Namespace,
    model: "AION",
) -> "dict[str, Observation]":
    given = {name: value for name, value in observations.items() if name not in without}
    if arguments.known_as and "spectrum" in given:
        model.tokenizer(arguments.known_as)  # an unknown name is refused here, with the near misses
        given[arguments.known_as] = given.pop("spectrum")
    known = {name: value for name, value in given.items() if name in model.modalities}
    unknown = ", ".join(name for name in given if name not in model.modalities)
    if not known:
        hint = " (--as gives a spectrum of no known survey a name)" if "spectrum" in given else ""
        wanted = ", ".join(model.modalities)
        msg = f"{source}: nothing to embed: the model knows {wanted}; given {unknown or 'none'}{hint}"
        raise ValueError(msg)
    if unknown:
        print(f"aion: note: {source}: left out {unknown}, which the model does not know", file=sys.stderr)
    return known


def _join(tables: "Sequence[Table]") -> "Table":
    """Makes one table of files that hold different modalities of the same objects; ids are those of the first."""
    sizes = {source: len(ids) for source, ids, _ in tables}
    if len(set(sizes.values())) > 1:
        given = ", ".join(f"{source}: {size}" for source, size in sizes.items())
        msg = f"--join: every file must hold the same objects, given {given}"
        raise ValueError(msg)
    joined: dict[str, Observation] = {}
    for source, _, observations in tables:
        if twice := set(joined) & set(observations):
            msg = f"--join: {source} holds {sorted(twice)[0]!r}, which an earlier file has too"
            raise ValueError(msg)
        joined |= observations
    return " + ".join(sizes), tables[0][1], joined


def _embed_table(
    model: "AION", source: str, ids: list[str], observations: "dict[str, Observation]", arguments: argparse.Namespace
) -> "tuple[list[str], np.ndarray, list[str], np.ndarray]":
    """Returns ids, embeddings `(B, D)`, modalities and token numbers of the objects of a table that have a token."""
    import numpy as np
    import torch

    from tqdm.auto import tqdm

    kept, vectors, modalities, tokens = [], [], [], []
    with tqdm(total=len(ids), desc=source, unit="object", disable=None) as bar:
        for start in range(0, len(ids), arguments.batch_size):
            rows = slice(start, start + arguments.batch_size)
            try:
                parts = model.encode_tokens({name: value[rows] for name, value in observations.items()})
            except (TypeError, ValueError) as error:
                msg = f"{source}, objects from {start}: {error}"
                raise type(error)(msg) from error
            seen = torch.stack([part.valid.any(1) for part in parts.values()]).any(0)
            bar.update(len(seen))
            if not seen.any():
                continue
            sequence = model.vocabulary.pack({name: part[seen] for name, part in parts.items()})
            kept += [name for name, some in zip(ids[rows], seen.tolist(), strict=True) if some]
            vectors.append(model.embed_tokens(sequence, arguments.pool).cpu().numpy())
            tokens.append(sequence.valid.sum(1).cpu().numpy())
            for found in sequence.modality.masked_fill(~sequence.valid, -1).tolist():
                modalities.append(",".join(model.vocabulary.names[i] for i in sorted(set(found) - {-1})))
    _note_losses(model, source, observations, sorted(set(ids) - set(kept)))
    if not kept:
        msg = f"{source}: nothing was measured of any object"
        raise ValueError(msg)
    return kept, np.concatenate(vectors), modalities, np.concatenate(tokens)


def _note_losses(model: "AION", source: str, observations: "dict[str, Observation]", lost: list[str]) -> None:
    """Says which objects have no row, and how many measured values lie where the model does not look."""
    if lost:
        named = ", ".join(lost[:5]) + (" ..." if len(lost) > 5 else "")
        print(
            f"aion: note: {source}: no row for {len(lost)} objects of which nothing is measured: {named}",
            file=sys.stderr,
        )
    for name, observation in observations.items():
        share = model.tokenizer(name).coverage(observation.to(model.device)).min().item()
        if share < 1:
            print(f"aion: note: {source}: {name}: down to {share:.0%} of the measured values are read", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
