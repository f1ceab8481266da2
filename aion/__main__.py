"""The `aion` command: thin verbs over the functions of the package.

What torch or astropy is needed for is imported inside the verbs, so that `aion --help` answers at once. Results go to
standard output; progress bars and errors go to standard error, the bars on a terminal only. A refused input is one line
`aion: error: ...` and exit status 2.
"""

__all__ = ["main"]

import argparse
import os
import sys

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from aion import __version__
from aion.command.survey import add_embed, add_explore, add_search
from aion.command.terminal import DEFAULT_MODEL
from aion.command.terminal import add_device as _add_device
from aion.command.terminal import add_model as _add_model
from aion.command.terminal import add_verb as _add
from aion.command.terminal import positive as _positive
from aion.command.terminal import share_cores as _share_cores
from aion.command.terminal import table as _table


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
        print(f"aion: error: {_explain(error)}", file=sys.stderr)
        return 2
    return status


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
    _add_demo(verbs)
    add_embed(verbs)
    add_explore(verbs)
    _add_info(verbs)
    add_search(verbs)
    _add_train(verbs)
    return parser


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


# --- verbs ------------------------------------------------------------------------------------------------------------


def _demo(arguments: argparse.Namespace) -> None:
    _share_cores()
    from aion import demo

    demo.run(arguments.out, model=arguments.model, device=arguments.device)


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


if __name__ == "__main__":
    sys.exit(main())
