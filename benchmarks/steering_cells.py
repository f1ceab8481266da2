"""The cells of `steering.py flows`: directions, the choice of the layer, dose-response, controls, transfer, layers."""

__all__ = ["flows", "summary"]

import argparse
import dataclasses
import time

from collections.abc import Iterator, Sequence
from functools import cache, lru_cache, partial
from pathlib import Path

import torch

from cells import Cells, source_hash, write
from steering_flows import AT, DAMAGE, DIAGNOSTICS, REGIMES, START, STEPS, STRENGTHS, cases, pairs, roll, start_windows
from steering_summary import summary

from aion.physics.flow import Flow
from aion.physics.systems import SYSTEMS, simulate
from aion.physics.walrus import Walrus
from aion.steering import Direction, animate, draw_controls, find_layers, fingerprint
from aion.steering.report import Regime
from aion.steering.study import measured
from aion.steering.trial import Trial

HERE = Path(__file__).resolve().parent
KINDS = ("covariance", "split_half", "isotropic", "split_half_orthogonal")  # the first two in full number
KEPT = 16  # unsteered runs in memory, of some 50 MB each
SWEPT = 4  # controls of each of the first two kinds in the sweep over layers
VELOCITY = {"shear", "kolmogorov"}  # whose flow has no divergence to begin with


class Study:
    """Makes what cells need, once and not before it is needed.

    Arguments:
        arguments: those of the command.
    """

    def __init__(self, arguments: argparse.Namespace) -> None:
        self.arguments, self.model = arguments, Walrus.from_pretrained(arguments.model)
        self.layers = list(find_layers(self.model, "blocks.*"))
        self.systems = [name for name in arguments.targets if self.knows(name)]
        self.fitted, self.trial = cache(self._fitted), lru_cache(KEPT)(self._trial)
        scripts = ("steering_cells.py", "steering_flows.py")
        self.facts = {"model": fingerprint(self.model), "code": source_hash(*(HERE / name for name in scripts))}
        self.facts |= {"size": arguments.size, "fitted": arguments.flows}

    def knows(self, system: str) -> bool:
        """Tells whether the model has the fields of a system."""
        return set(simulate(system, 1, frames=1, size=SYSTEMS[system].smallest).fields) <= set(self.model.fields)

    @property
    def quarter(self) -> int:
        """Returns the number of flows that layers are compared on."""
        return max(self.arguments.flows // 4, 2)

    def seed(self, seed: int, use: int) -> int:
        """Returns the seed of the flows of a use: 0 to fit, 1 to choose the layer, 2 to test, 3 to fit once more."""
        return 100 * (1 + seed) + use

    def pairs(self, system: str, seed: int, use: int) -> tuple:
        frames, own = START + self.model.context + STEPS, self.arguments
        return pairs(system, own.flows, self.seed(seed, use), frames, own.data, own.size)

    def _fitted(self, system: str, seed: int, method: str = "mean", use: int = 0) -> dict[str, Direction]:
        positive, negative = self.pairs(system, seed, use)
        data = {"system": system, "regimes": list(REGIMES[system]), "seed": self.seed(seed, use), "simulated": True}
        options = {"forward": start_windows, "data": data, "method": method, "halves": self.arguments.controls}
        return Direction.fit_layers(self.model, "blocks.*", positive=positive, negative=negative, **options)

    def speed(self, system: str, seed: int, layer: str) -> Direction:
        """Fits the direction of flows seen at every second frame."""
        calm = self.pairs(system, seed, 0)[1]
        fast = calm.replace(values=calm.values[:, ::2])

        def once(model: Walrus, flow: Flow) -> None:
            model(flow.window(2, model.context))

        return Direction.fit(self.model, layer, positive=fast, negative=calm, forward=once, method="paired")

    def cases(self, system: str, seed: int, use: int, count: int) -> dict:
        own = self.arguments
        simulated = own.flows if system in own.sources else own.transfer_flows
        found = cases(self.model, system, max(count, simulated), self.seed(seed, use), own.data, own.size)
        return {name: (window[:count], partner[:count]) for name, (window, partner) in found.items()}

    def _trial(self, system: str, seed: int, use: int, count: int, regime: str, damage: bool) -> Trial:
        given = self.cases(system, seed, use, count)[regime]
        return Trial(self.model, given, roll, DIAGNOSTICS[system], DAMAGE if damage else None, seed=seed)

    def measured(
        self,
        direction: Direction,
        system: str,
        seed: int,
        use: int,
        count: int,
        regime: str,
        strengths: Sequence[float] = (AT,),
        controls: object = 0,
        damage: bool = False,
    ) -> Regime:
        """Measures what a direction does to flows of a regime; what they do unsteered is computed once for all."""
        trials = {regime: self.trial(system, seed, use, count, regime, damage)}
        return measured(trials, direction, strengths, AT, controls, seed).regimes[regime]

    def chosen(self, system: str, seed: int) -> dict:
        """Chooses the layer whose direction moves the target most, in the regime that it moves less."""
        count, target, least = self.quarter, next(iter(DIAGNOSTICS[system])), {}
        for layer, direction in self.fitted(system, seed).items():
            regimes = [self.measured(direction, system, seed, 1, count, regime) for regime in REGIMES[system]]
            least[layer] = min(regime.responses[target].odd[0] for regime in regimes)
        layer = max(least, key=least.get)
        return {"layer": layer, "least": least, "separation": self.fitted(system, seed)[layer].separation}

    def cosines(self, system: str, seed: int, layer: str) -> dict:
        """Measures the angles between the direction and other concepts, and saves the direction."""
        this = self.fitted(system, seed)[layer]
        others = {"speed": self.speed(system, seed, layer), "lda": self.fitted(system, seed, "lda")[layer]}
        others["other flows"] = self.fitted(system, seed, "mean", 3)[layer]
        folder = self.arguments.output / "directions"
        folder.mkdir(parents=True, exist_ok=True)
        this.save(folder / f"{system}-{seed}.safetensors")
        return {"cosines": {name: this.cosine(other) for name, other in others.items()}}


def measure(study: Study, cells: Cells) -> dict[tuple, dict | None]:
    """Returns all cells by what they are of."""
    found, own = {}, study.arguments
    for source in own.sources:
        for seed in range(own.seeds):
            facts = {**study.facts, "source": source, "seed": seed}
            choice = cells.get(f"{source}/layer-{seed}", facts, partial(study.chosen, source, seed))
            layer, ready = (choice["layer"], True) if choice else ("", False)
            found["layer", source, seed] = choice
            facts["layer"] = layer
            make = partial(study.cosines, source, seed, layer)
            found["cosines", source, seed] = cells.get(f"{source}/cosines-{seed}", facts, make, ready)
            for name, key, more, make in wanted(study, source, seed, layer):
                found[key] = cells.get(name, {**facts, **more}, make, ready)
    return found


def wanted(study: Study, source: str, seed: int, layer: str) -> Iterator[tuple]:
    """Lists cells of a source and a seed: their name, what they are of, what they depend on, and how they are made."""
    own = study.arguments
    for target in study.systems:
        same = target == source
        count = own.flows if same else own.transfer_flows * (seed < own.transfer_seeds)
        for regime in REGIMES[target] if count else ():
            for kind in ("dose", *KINDS) if same else ("dose", *KINDS[:2]):
                number = 0 if kind == "dose" else own.controls if kind in KINDS[:2] else own.others
                used = min(count, own.control_flows) if number else count
                facts = {"target": target, "flows": used, "controls": number}
                make = partial(respond, study, source, target, seed, layer, regime, kind, used, number)
                yield f"{source}-{target}/{regime}-{kind}-{seed}", (source, target, regime, kind, seed), facts, make
    for swept in study.layers:
        make = partial(sweep, study, source, seed, swept)
        yield f"{source}/sweep-{swept}-{seed}", ("sweep", source, swept, seed), {"controls": SWEPT}, make


def respond(
    study: Study, source: str, target: str, seed: int, layer: str, regime: str, kind: str, count: int, number: int
) -> dict:
    """Measures one regime: the dose-response, or controls of one kind."""
    direction = study.fitted(source, seed)[layer]
    if kind == "dose":
        options = {"strengths": STRENGTHS, "damage": target in VELOCITY}
    else:
        options = {"controls": draw_controls(direction, number, (kind,), torch.Generator().manual_seed(seed))}
    return {"regime": dataclasses.asdict(study.measured(direction, target, seed, 2, count, regime, **options))}


def sweep(study: Study, source: str, seed: int, layer: str) -> dict:
    """Measures the direction of a layer beside a few controls, on a quarter of the flows."""
    direction = study.fitted(source, seed)[layer]
    controls = draw_controls(direction, min(SWEPT, study.arguments.controls), KINDS[:2])
    regimes = {
        regime: study.measured(direction, source, seed, 2, study.quarter, regime, controls=controls)
        for regime in REGIMES[source]
    }
    return {"regimes": {name: dataclasses.asdict(regime) for name, regime in regimes.items()}}


def plan(study: Study) -> str:
    """Estimates the minutes of one thread that each section takes, from the time of one pass and of a few flows."""
    own, source = study.arguments, study.arguments.sources[0]
    count, frames = 8, START + study.model.context + STEPS
    start = time.process_time()
    window = simulate(source, count, frames=frames, size=own.size).window(START, study.model.context)
    made, passes = time.process_time() - start, []
    for _ in range(3):
        start = time.process_time()
        study.model.rollout(window, 1)
        passes.append(time.process_time() - start)
    each, made = min(passes) / count * STEPS / 60, made / count / 60  # minutes for a flow rolled out, or simulated
    few, layers = min(own.flows, own.control_flows), len(study.layers)
    dose, strict = 2 + 2 * len(STRENGTHS), 2 * (2 + 2 * own.controls)
    transferred = min(own.transfer_seeds, own.seeds) * own.transfer_flows * (len(study.systems) - 1)
    runs = {  # of each regime; a section runs its flows unsteered twice
        "choice of the layer": own.seeds * study.quarter * (2 + 2 * layers),
        "dose-response": own.seeds * own.flows * dose,
        "controls": own.seeds * few * (2 + strict + 2 * (2 + 2 * own.others)),
        "layers": own.seeds * study.quarter * (2 + layers * 2 * (2 + 2 * SWEPT)),
        "transfer": transferred * (dose + strict),
    }
    minutes = {name: 2 * each * number for name, number in runs.items()}
    minutes["simulated flows"] = 2 * made * (4 * own.seeds * own.flows + transferred)
    lines = [f"{1000 * min(passes) / count:.1f} ms a window; minutes of one thread for {own.seeds} seeds:"]
    lines += [f"- {name}: {value * len(own.sources):.0f}" for name, value in minutes.items()]
    return "\n".join([*lines, f"- all: {sum(minutes.values()) * len(own.sources):.0f}"])


def film(study: Study, direction: Direction, source: str, path: Path) -> None:
    """Animates a flow without the concept: as it is, steered, along a random direction, and its partner."""
    window, partner = list(study.cases(source, 0, 2, study.arguments.flows).values())[1]
    given = (window[:1], partner[:1])
    drawn = torch.randn(direction.vector.shape, generator=torch.Generator().manual_seed(0))
    random = dataclasses.replace(direction, vector=drawn)
    shown = {"unsteered": roll(study.model, given, torch.Generator().manual_seed(0)).flow}
    for title, along in ((f"steered, s = {STRENGTHS[-1]}", direction), ("random direction", random)):
        with along.applied(study.model, STRENGTHS[-1]):
            shown[title] = roll(study.model, given, torch.Generator().manual_seed(0)).flow
    shown["the other regime (simulated)"] = given[1]
    name = "velocity_y" if "velocity_y" in window.fields else window.fields[0]
    animate({title: flow.field(name)[0].transpose(-1, -2) for title, flow in shown.items()}, path)


def flows(arguments: argparse.Namespace) -> None:
    """Computes what is missing, and sums up."""
    study = Study(arguments)
    if arguments.plan:
        print(plan(study))
        return
    cells = Cells(arguments.output, arguments.part, tuple(arguments.only), arguments.dry)
    found = measure(study, cells)
    for source in arguments.sources:
        choice, path = found["layer", source, 0], arguments.output / f"{source}.gif"
        if choice is not None and not path.exists() and not arguments.dry and arguments.part[0] == 0:
            film(study, study.fitted(source, 0)[choice["layer"]], source, path)
    text = summary(found, arguments.sources, study.systems, arguments.seeds)
    text += f"\n{len(cells.missing)} cells are missing: {', '.join(cells.missing[:5])}\n" if cells.missing else ""
    print(text)
    write(arguments.output / "summary.md", text)
