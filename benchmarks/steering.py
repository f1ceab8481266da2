"""What steering does, beside controls.

    python benchmarks/steering.py flows MODEL_FOLDER -o RESULTS --data FLOWS [--seeds 3] [--part 0/2] [--plan]
    python benchmarks/steering.py galaxies [--flows 48] [--controls 16] [--seed 0]
    python benchmarks/steering.py hooks [MODEL_FOLDER]

`flows`: vortices in simulated shear flow, induced and suppressed in roll-outs of a `Walrus`, and what the direction
does to other systems. Test flows come in pairs of the same initial condition. The layer is chosen on validation flows;
diagnostics and the strength of comparison are fixed in `steering_flows.py`. Results are cells that are kept: stopped,
it goes on. Two processes share the work with `--part 0/2` and `--part 1/2`; run again until nothing is missing.
`galaxies`: quiescent minus star-forming simulated galaxies in `aion-nano`, read off the spectrum it predicts.
`hooks`: what steering adds to the time of a forward pass.
"""

import argparse

from pathlib import Path

from steering_cells import flows
from steering_flows import DIAGNOSTICS, REGIMES
from steering_galaxies import galaxies
from steering_hooks import hooks

from aion.commands.command import part

RESULTS = Path(__file__).resolve().parent / "results" / "steering"


def add_flows(verbs) -> None:
    verb = verbs.add_parser("flows")
    verb.set_defaults(run=flows)
    verb.add_argument("model", type=Path, help="folder of a Walrus")
    verb.add_argument("-o", "--output", type=Path, default=RESULTS / "flows", help="folder of the cells")
    verb.add_argument("--data", type=Path, required=True, help="folder that keeps simulated flows")
    verb.add_argument("--seeds", type=int, default=3, help="of the flows, the jitter and the controls")
    verb.add_argument("--flows", type=int, default=64, help="of each regime, to fit on and to test on")
    verb.add_argument("--controls", type=int, default=64, help="from the covariance, and halves of one regime")
    verb.add_argument("--others", type=int, default=8, help="controls of the other kinds")
    verb.add_argument("--control-flows", type=int, default=16, help="of the test flows that controls are measured on")
    verb.add_argument("--transfer-flows", type=int, default=12, help="of each regime of another system; 0 for none")
    verb.add_argument("--transfer-seeds", type=int, default=1, help="of the seeds that are taken to other systems")
    known = [name for name in REGIMES if len(DIAGNOSTICS[name]) > 0]
    verb.add_argument("--sources", nargs="+", choices=known, default=["shear"], help="systems to fit directions on")
    verb.add_argument("--targets", nargs="+", choices=known, default=known, help="systems to steer")
    verb.add_argument("--size", type=int, help="points along an axis, if not the usual number")
    verb.add_argument("--part", type=part, default=(0, 1), metavar="I/N", help="which of N processes this is")
    verb.add_argument("--only", nargs="*", default=(), help="cells whose name contains one of these")
    verb.add_argument("--dry", action="store_true", help="sum up what is there")
    verb.add_argument("--plan", action="store_true", help="say how long it would take, and stop")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    verbs = parser.add_subparsers(required=True)
    add_flows(verbs)
    verb = verbs.add_parser("galaxies")
    verb.set_defaults(run=galaxies)
    verb.add_argument("-o", "--output", type=Path, default=RESULTS, help="folder that gets a folder of the report")
    verb.add_argument("--flows", type=int, default=48, help="galaxies of each kind to test on")
    verb.add_argument("--controls", type=int, default=16, help="of each kind")
    verb.add_argument("--layer-controls", type=int, default=8, help="of each kind, at each layer")
    verb.add_argument("--seed", type=int, default=0)
    verb.add_argument("--layer", default="transformer.encoder.1", help="chosen on another seed")
    verb = verbs.add_parser("hooks")
    verb.set_defaults(run=hooks)
    verb.add_argument("model", nargs="?", help="folder of a Walrus; aion-nano by default")
    verb.add_argument("--repeats", type=int, default=30)
    verb.add_argument("--windows", type=int, default=100)
    arguments = parser.parse_args()
    arguments.run(arguments)


if __name__ == "__main__":
    main()
