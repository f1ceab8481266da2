"""`aion benchmark`: what frozen encoders are worth."""

__all__ = ["register"]

import argparse

from pathlib import Path

from aion.commands.command import DEFAULT_MODEL, add, add_device, share_cores


def register(verbs) -> None:
    """Adds the verb."""
    parser = add(
        verbs,
        "benchmark",
        _run,
        "score frozen models on many tasks, with baselines, errors and controls",
        "Writes DIR/TASK/MODEL.json for every pair, DIR/table.md and DIR/report.html. Started again with the same DIR\n"
        "it goes on: cells are kept as long as task, data, model and the code that scores are the same.",
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
    parser.add_argument(
        "--attentive",
        action="store_true",
        help="let probes pool the tokens of a model by attention, too: slow, and for many labels",
    )
    parser.add_argument("--no-controls", action="store_true", help="leave out what should fail")
    add_device(parser)


def _run(arguments: argparse.Namespace) -> int:
    share_cores()
    from tqdm.auto import tqdm

    from aion.benchmarks import choose, embedder, run, table, write_report
    from aion.benchmarks.tasks import ROOT

    tasks = choose(arguments.suite, arguments.task)
    names = arguments.model or [DEFAULT_MODEL, "raw"]
    models = [embedder(name, arguments.device, arguments.attentive) for name in names]
    if arguments.output.exists() and not arguments.output.is_dir():
        msg = f"-o {arguments.output}: wanted a folder, and there is a file of that name"
        raise FileExistsError(msg)
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
    print(text)
    for cell in cells:
        if cell["why"]:
            print(f"{cell['task']}, {cell['model']}: {cell['status']}: {cell['why']}")
    print(f"{page}  {len(cells)} cells, {sum(cell.get('kept', False) for cell in cells)} kept from before")
    return 3 if any(cell["status"] == "failed" for cell in cells) else 0
