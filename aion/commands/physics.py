"""`aion physics`: flows, and models of them."""

__all__ = ["register"]

import argparse

from pathlib import Path

from aion.commands.command import add, add_device, check_writable, positive, share_cores


def register(verbs) -> None:
    """Adds the verb."""
    data = "aion physics data --system shear --n 200 -o shear.hdf5"
    parser = add(verbs, "physics", None, "simulate flows, or train a model of them", "See docs/physics.md.", data)
    verbs = parser.add_subparsers(title="verbs", metavar="VERB", required=True, help="what to do")
    details = "Systems: shear, kolmogorov, convection, gray-scott, acoustic, turbulence. The file is in the format of\n"
    parser = add(verbs, "data", _physics_data, "simulate a system", f"{details}The Well, labelled by regime.", data)
    parser.add_argument("--system", required=True, metavar="NAME", help="the system")
    parser.add_argument("--n", type=positive, required=True, metavar="N", help="number of trajectories")
    parser.add_argument("-o", "--output", required=True, type=Path, metavar="OUT", help="HDF5 file to write")
    parser.add_argument("--size", type=positive, metavar="N", help="points along an axis (default: of the system)")
    parser.add_argument("--frames", type=positive, default=36, metavar="N", help="frames of each (default: 36)")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of the initial conditions (default: 0)")
    add_device(parser, default="cpu")
    example = "aion physics train benchmarks/recipes/walrus-nano.toml -o runs/walrus-nano"
    details = (
        "Writes DIR/model. Started again with the same DIR it goes on from the last checkpoint. Several processes:\n"
    )
    details += "torchrun --nproc-per-node 2 -m aion physics train RECIPE -o DIR"
    parser = add(verbs, "train", _physics_train, "train the model of a recipe", details, example)
    parser.add_argument("recipe", type=Path, metavar="RECIPE", help="a TOML file; see aion.physics.recipe")
    parser.add_argument("-o", "--output", required=True, type=Path, metavar="DIR", help="folder to write")
    parser.add_argument("--steps", type=positive, metavar="N", help="at most so many, for a trial")
    parser.add_argument("--seed", type=int, metavar="N", help="of weights and draws, instead of the recipe's")
    parser.add_argument("--data", type=Path, metavar="DIR", help="keep what is simulated there, for the next time")
    add_device(parser, default="cpu")


def _physics_data(arguments: argparse.Namespace) -> None:
    share_cores()
    from aion.device import usable
    from aion.physics.systems import simulate
    from aion.physics.well import write_well

    check_writable(arguments.output)
    options = {key: getattr(arguments, key) for key in ("size", "frames", "seed")}
    flow = simulate(arguments.system, arguments.n, device=str(usable(arguments.device)), progress=True, **options)
    write_well(flow, arguments.output)
    grid = " x ".join(map(str, flow.space))
    print(f"{arguments.output}  {len(flow)} x {flow.frames} frames of {', '.join(flow.fields)} on {grid}, simulated")


def _physics_train(arguments: argparse.Namespace) -> None:
    share_cores()
    from aion.device import usable
    from aion.physics.recipe import train_recipe
    from aion.training import ranks

    options = {key: getattr(arguments, key) for key in ("steps", "seed", "data")}
    with ranks.joined(arguments.device) as device:
        model = train_recipe(arguments.recipe, arguments.output, device=str(usable(device)), **options)
        if ranks.rank() == 0:
            print(f"{arguments.output / 'model'}  {sum(p.numel() for p in model.parameters()):,} parameters")
