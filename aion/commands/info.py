"""`aion info`: what a model is."""

__all__ = ["register"]

import argparse

from collections.abc import Iterator, Mapping

from aion.commands.command import DEFAULT_MODEL, add, table


def register(verbs) -> None:
    """Adds the verb."""
    parser = add(
        verbs,
        "info",
        _run,
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


def _run(arguments: argparse.Namespace) -> None:
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
    table("model", [
        ("name", model.provenance.get("name", folder.name)),
        ("folder", folder),
        ("format", version),
        ("hash", config.get("model_sha256", "none: save_pretrained makes a bundle, which has one")),
        ("embedding", f"{model.dim} numbers"),
        ("vocabulary", f"{len(model.vocabulary):,} ids"),
    ])  # fmt: skip
    table("reads", [(n, model.modalities[n], model.tokenizer(n).describe()) for n in model.modalities])
    table("parameters", [
        ("transformer", f"{sum(p.numel() for p in model.transformer.parameters()):,}", _inline(transformer)),
        *((f"tokenizer {name}", f"{number:,}") for name, number in count.items() if number),
        *([(f"{fixed} other tokenizers", "0", "bins fitted to the training data")] if fixed else []),
    ])  # fmt: skip
    table("files", [(key, f"{(folder / key).stat().st_size:,} bytes", digest) for key, digest in hashes.items()])
    table("provenance", list(_lines(model.provenance)) or [("not stated",)])


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
