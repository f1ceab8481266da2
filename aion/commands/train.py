"""`aion train`: the training of a recipe."""

__all__ = ["register"]

import argparse

from pathlib import Path

from aion.commands.command import add, add_device, positive


def register(verbs) -> None:
    """Adds the verb."""
    parser = add(
        verbs,
        "train",
        _run,
        "train the tokenizers and the transformer of a recipe",
        "Writes DIR/bundle, which --model and AION.from_pretrained read, and the logs DIR/*.jsonl. Started again with\n"
        "the same DIR it goes on from the last checkpoint. On several GPUs or machines it is started by torchrun:\n"
        "torchrun --nproc-per-node 8 -m aion train RECIPE -o DIR --device cuda",
        "aion train benchmarks/recipes/nano.toml -o runs/trial --steps 20",
    )
    parser.add_argument("recipe", type=Path, metavar="RECIPE", help="a TOML file; see aion.recipes")
    parser.add_argument("-o", "--output", required=True, type=Path, metavar="DIR", help="folder to write")
    parser.add_argument("--steps", type=positive, metavar="N", help="at most so many steps of each part, for a trial")
    add_device(parser, default="cpu")


def _run(arguments: argparse.Namespace) -> None:
    from aion.recipes import train_recipe
    from aion.training import ranks

    with ranks.joined(arguments.device) as device:
        model = train_recipe(arguments.recipe, arguments.output, device=device, steps=arguments.steps)
        if ranks.rank() > 0:
            return
        print(f"{arguments.output / 'bundle'}  {sum(p.numel() for p in model.parameters()):,} parameters")
        print(f"look at it with: aion info {arguments.output / 'bundle'}")
