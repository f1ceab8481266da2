"""What steering does, beside controls.

    python benchmarks/steering.py flows MODEL_FOLDER [--system shear] [--flows 64] [--controls 64] [--seed 0]
    python benchmarks/steering.py galaxies [--flows 48] [--controls 16] [--seed 0]
    python benchmarks/steering.py hooks [MODEL_FOLDER]
    python benchmarks/steering.py summary RESULT_FOLDER ...

`flows`: vortices in simulated shear flow, induced and suppressed in roll-outs of a `Walrus`. Test flows come in pairs
of the same initial condition. The layer is chosen on validation flows; diagnostics and the strength of comparison are
fixed in `steering_flows.py`. `galaxies`: quiescent minus star-forming simulated galaxies in `aion-nano`, read off the
spectrum it predicts. `hooks`: what steering adds to the time of a forward pass. Results go to `results/steering/`.
"""

import argparse
import contextlib
import dataclasses
import json
import math
import resource
import statistics
import time

from pathlib import Path
from typing import NamedTuple

import torch

from steering_flows import (
    AT,
    DAMAGE,
    DIAGNOSTICS,
    REGIMES,
    START,
    STEPS,
    STRENGTHS,
    cases,
    pairs,
    roll,
    start_windows,
)
from torch import Tensor

from aion import AION, Scalar, Spectrum
from aion.generation import codes
from aion.physics.systems import simulate
from aion.physics.walrus import Walrus
from aion.sky import Sky
from aion.steering import Direction, animate, capture, fingerprint, steering_report
from aion.tokens import Tokens, TokenSequence

RESULTS = Path(__file__).resolve().parent / "results" / "steering"


def fit(
    model: Walrus, system: str, count: int, seed: int, size: int, layers: str, **options: object
) -> dict[str, Direction]:
    positive, negative = pairs(system, count, seed, START + model.context + STEPS, size)
    data = {"system": system, "regimes": REGIMES[system], "seed": seed, "simulated": True}
    return Direction.fit_layers(
        model, layers, positive=positive, negative=negative, forward=start_windows, data=data, **options
    )


def speed(model: Walrus, system: str, count: int, seed: int, size: int, layer: str) -> Direction:
    """Fits the direction of flows seen at every second frame."""
    calm = pairs(system, count, seed, 20, size)[1]
    fast = calm.replace(values=calm.values[:, ::2])
    once = lambda model, flow: model(flow.window(2, model.context))  # noqa: E731
    return Direction.fit(model, layer, positive=fast, negative=calm, forward=once, method="paired")


def best_layer(model: Walrus, directions: dict[str, Direction], given: dict, target: dict) -> str:
    """Chooses the layer whose direction moves the target most, in the regime that it moves less."""
    first = next(iter(directions.values()))
    report = steering_report(model, first, given, [AT], target, 0, run=roll, layers=directions, layer_controls=0)
    name = next(iter(target))
    least = {
        layer: min(regime.responses[name].odd[0] for regime in sub.regimes.values())
        for layer, sub in report.layers.items()
    }
    return max(least, key=least.get)


def flows(arguments: argparse.Namespace) -> None:
    model, system, seed = Walrus.from_pretrained(arguments.model), arguments.system, 1000 * (1 + arguments.seed)
    count, size, begun = arguments.flows, arguments.size, time.perf_counter()
    directions = fit(model, system, count, seed, size, "blocks.*")
    target = dict(list(DIAGNOSTICS[system].items())[:1])
    layer = best_layer(model, directions, cases(model, system, max(count // 4, 4), seed + 1, size), target)
    direction = directions[layer]
    others = [name for name in REGIMES if name != system and arguments.transfer and known(model, name)]
    report = steering_report(
        model,
        direction,
        cases(model, system, count, seed + 2, size),
        STRENGTHS,
        DIAGNOSTICS[system],
        arguments.controls,
        run=roll,
        at=AT,
        damage=DAMAGE if system in {"shear", "kolmogorov"} else None,
        seed=arguments.seed,
        layers=directions,
        layer_controls=arguments.layer_controls,
        concepts={
            "speed": speed(model, system, count, seed, size, layer),
            "lda": fit(model, system, count, seed, size, layer, method="lda")[layer],
            "other flows": fit(model, system, count, seed + 3, size, layer)[layer],
        },
        systems={
            name: {"flows": cases(model, name, count, seed + 4, size), "diagnostics": DIAGNOSTICS[name], "damage": None}
            for name in others
        },
    )
    folder = RESULTS / f"{system}-{Path(arguments.model).name}-{arguments.seed}"
    report.save(folder)
    film(model, direction, cases(model, system, 1, seed + 2, size), folder)
    facts = {"model": direction.model, "separation": direction.separation, "command": vars_of(arguments)}
    write(folder, {**facts, "seconds": round(time.perf_counter() - begun)})


def known(model: Walrus, system: str) -> bool:
    return set(simulate(system, 1, frames=1, size=16).fields) <= set(model.fields)


def film(model: Walrus, direction: Direction, given: dict, folder: Path) -> None:
    """Animates one flow of the regime without the concept: as it is, steered, and along a random direction."""
    window, partner = list(given.values())[1]
    drawn = torch.randn(direction.vector.shape, generator=torch.Generator().manual_seed(0))
    random = dataclasses.replace(direction, vector=drawn)
    shown = {"unsteered": roll(model, (window, partner), torch.Generator().manual_seed(0)).flow}
    for title, along in ((f"steered, s = {STRENGTHS[-1]}", direction), ("random direction", random)):
        with along.applied(model, STRENGTHS[-1]):
            shown[title] = roll(model, (window, partner), torch.Generator().manual_seed(0)).flow
    shown["the other regime (simulated)"] = partner
    name = "velocity_y" if "velocity_y" in window.fields else window.fields[0]
    animate({title: flow.field(name)[0].transpose(-1, -2) for title, flow in shown.items()}, folder / "flow.gif")


# ---- galaxies

SEEN, PREDICTED = "desi_spectrum", "sdss_spectrum"
GALAXY_STRENGTHS, GALAXY_AT = (0.1, 0.2, 0.4, 0.8), 0.4


class Predicted(NamedTuple):
    """Holds the spectra and redshifts that a model predicts."""

    spectrum: Spectrum
    redshift: Tensor


def band(spectrum: Spectrum, low: float, high: float) -> Tensor:
    inside = (spectrum.wavelength > low) & (spectrum.wavelength < high) & spectrum.measured
    return (spectrum.flux * inside).sum(1) / inside.sum(1)


GALAXY_DIAGNOSTICS = {
    "redness": lambda p: band(p.spectrum, 6500, 8000) / band(p.spectrum, 4200, 5200),
    "brightness": lambda p: band(p.spectrum, 4200, 8000),
    "1 + redshift": lambda p: 1 + p.redshift,
}


class Asked(NamedTuple):
    """Holds the tokens of one instrument's spectra, and the places of the other's and of the redshift."""

    given: TokenSequence
    spectrum: TokenSequence
    redshift: TokenSequence
    like: Spectrum


def ask(model: AION, observations: dict) -> Asked:
    given, spectrum = model.tokenize({SEEN: observations[SEEN]}), model.tokenize({PREDICTED: observations[PREDICTED]})
    count = len(given)
    redshift = model.tokenize({"redshift": Scalar(torch.zeros(count))})  # a query's ids are not looked at
    return Asked(given, spectrum, redshift, observations[PREDICTED])


@torch.no_grad()
def predict(model: AION, asked: Asked, generator: torch.Generator) -> Predicted:
    """Does what `AION.reconstruct` and `AION.predict` do, with tokens made once; nothing is drawn."""
    context = model.transformer.encode(asked.given)

    def logits(query: TokenSequence, name: str) -> Tensor:
        hidden = model.transformer.decode(context, asked.given, query)
        return model.transformer.logits(hidden, name)[..., : codes(model.tokenizer(name))].float()

    tokenizer, query = model.tokenizer(PREDICTED), asked.spectrum
    scores, possible = logits(query, PREDICTED), tokenizer.possible(query.position)
    ids = (scores if possible is None else scores.masked_fill(~possible, -torch.inf)).argmax(-1)
    spectrum = tokenizer.decode(Tokens(ids, query.position, query.valid), asked.like)
    redshift = model.tokenizer("redshift").posterior(logits(asked.redshift, "redshift")[:, 0].double().softmax(-1))
    return Predicted(spectrum, redshift.median())


def bright_galaxies(sky: Sky, count: int) -> dict[str, Tensor]:
    """Lists galaxies brighter than 18 mag by the share of light that is in young stars, and by their dust."""
    number = torch.arange(6000)  # which no recipe trains on
    labels = sky.labels(number)
    bright = (labels["magnitude"] < 18) & (labels["kind"] == 0)
    chosen = {
        "quiescent": labels["log_ssfr"] < -11.5,
        "star-forming": labels["log_ssfr"] > -10,
        "dusty": labels["dust"] > 0.25,
        "dust-free": labels["dust"] < 0.05,
    }
    lists = {name: number[bright & rows] for name, rows in chosen.items()}
    if short := [name for name, rows in lists.items() if len(rows) < count]:
        msg = f"only {len(lists[short[0]])} {short[0]} galaxies, wanted {count}"
        raise SystemExit(msg)
    return lists


def galaxies(arguments: argparse.Namespace) -> None:
    model, count, begun = AION.from_pretrained("aion-nano"), arguments.flows, time.perf_counter()
    options = {"modalities": (SEEN, PREDICTED), "complete": True, "varied": False}
    sky = Sky(seed=arguments.seed, max_redshift=0.3, galaxies=1.0, **options)
    rows = bright_galaxies(sky, 3 * count)

    def fitted(positive: str, negative: str, layers: str, **more: object) -> dict[str, Direction]:
        groups = [[{SEEN: sky.observe(part)[SEEN]} for part in rows[name][: 2 * count].split(32)] for name in names]
        data = {"positive": positive, "negative": negative, "sky": arguments.seed, "simulated": True}
        return Direction.fit_layers(
            model,
            layers,
            positive=groups[0],
            negative=groups[1],
            forward=lambda model, observations: model.embed(observations),
            valid=lambda x, mask=None, *_: None if mask is None else mask[:, 0, 0],
            data=data,
            **more,
        )

    names = ("quiescent", "star-forming")
    directions = fitted(*names, "transformer.encoder.*")
    layer = arguments.layer
    lda = fitted(*names, layer, method="lda")[layer]
    names = ("dusty", "dust-free")
    dust = fitted(*names, layer)[layer]
    report = steering_report(
        model,
        directions[layer],
        {name: ask(model, sky.observe(rows[name][2 * count :][:count])) for name in ("quiescent", "star-forming")},
        GALAXY_STRENGTHS,
        GALAXY_DIAGNOSTICS,
        arguments.controls,
        run=predict,
        at=GALAXY_AT,
        seed=arguments.seed,
        layers=directions,
        layer_controls=arguments.layer_controls,
        concepts={"lda": lda, "dust": dust},
    )
    folder = RESULTS / f"galaxies-{arguments.layer}-{arguments.seed}"
    report.save(folder)
    draw_spectra(model, directions[layer], ask(model, sky.observe(rows["star-forming"][2 * count :][:count])), folder)
    facts = {"model": directions[layer].model, "separation": directions[layer].separation}
    write(folder, {**facts, "command": vars_of(arguments), "seconds": round(time.perf_counter() - begun)})


def draw_spectra(model: AION, direction: Direction, asked: Asked, folder: Path) -> None:
    """Draws the median predicted spectrum of star-forming galaxies, each over its own mean, by strength."""
    from matplotlib import colormaps
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 3.6), layout="constrained")
    axes = figure.subplots()
    for strength in (-0.8, -0.4, 0.0, 0.4, 0.8):
        with direction.applied(model, strength):
            spectrum = predict(model, asked, torch.Generator()).spectrum
        shape = (spectrum.flux / band(spectrum, 4200, 8000)[:, None]).median(0).values
        colour = colormaps["coolwarm"](0.5 + strength / 1.6)
        axes.plot(spectrum.wavelength[0], shape, color=colour if strength else "black", label=f"{strength:+g}")
    axes.set(xlabel="Observed vacuum wavelength [Å]", ylabel="Flux density over its mean", ylim=(0, 2.5))
    axes.legend(frameon=False, title="strength", fontsize=8, title_fontsize=8)
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(folder / "spectra.png", dpi=120)


# ---- hooks


def hooks(arguments: argparse.Namespace) -> None:
    """Compares the processor time of forward passes, in turn, so that other work on the machine slows them alike."""
    if arguments.model:
        model = Walrus.from_pretrained(arguments.model)
        window = simulate("shear", 8, frames=model.context)
        layer, layers, forward = "blocks.0", "blocks.*", lambda: model(window)
        channels, layout = model.config["dim"], "BTHWDC"
    else:
        model = AION.from_pretrained("aion-nano")
        sky = Sky(modalities=(SEEN,), complete=True, varied=False)
        sequence = model.tokenize(sky.observe(range(16)))
        layer, layers, forward = "transformer.encoder.0", "transformer.encoder.*", lambda: model.embed_tokens(sequence)
        channels, layout = model.transformer.dim, "BNC"
    direction = Direction(torch.ones(channels), layer, layout, fingerprint(model))
    contexts = {
        "plain": contextlib.nullcontext,
        "add": lambda: direction.applied(model, 0.2),
        "ablate": lambda: direction.applied(model, 0.2, "ablate"),
        "capture of all blocks": lambda: capture(model, layers),
    }
    seconds = {name: [] for name in contexts}
    with torch.no_grad():
        for _ in range(arguments.repeats):
            for name, context in contexts.items():
                with context():
                    begun = time.process_time()
                    forward()
                    seconds[name].append(time.process_time() - begun)
    plain = statistics.median(seconds["plain"])
    for name, values in seconds.items():
        middle, least = statistics.median(values), min(values)
        ratios = statistics.median(value / base for value, base in zip(values, seconds["plain"], strict=True))
        print(f"{name:24s} median {1e3 * middle:8.2f} ms  least {1e3 * least:8.2f} ms  {100 * (ratios - 1):+.1f} %")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with torch.no_grad(), capture(model, layers):
        for _ in range(arguments.windows):
            forward()
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    print(f"capture of {arguments.windows} batches at {plain:.3f} s: peak memory grew by {grown:.1f} MiB")


# ---- all


def summary(arguments: argparse.Namespace) -> None:
    """Prints mean and standard deviation over results, such as those of several seeds."""
    reports = [json.loads((Path(folder) / "report.json").read_text()) for folder in arguments.folders]
    target, at = reports[0]["target"], reports[0]["at"]
    print(f"{len(reports)} results, {target} at {at}\n")
    print(
        "| regime | odd effect | Spearman | success | even | highest p | lowest ratio |\n|---|---|---|---|---|---|---|"
    )
    for name in reports[0]["regimes"]:
        rows = []
        for report in reports:
            regime = report["regimes"][name]
            response = regime["responses"][target]
            i = response["strengths"].index(at)
            nulls = [kind[target] for kind in regime["nulls"].values()]
            worst = max(null["p"] for null in nulls), min(null["ratio"] for null in nulls)
            rows.append([response["odd"][i], response["spearman"], response["success"][i], response["even"][i], *worst])
        cells = [
            f"{statistics.mean(column):.3f} ± {statistics.stdev(column) if len(column) > 1 else math.nan:.3f}"
            for column in zip(*rows, strict=True)
        ]
        print(f"| {name} | {' | '.join(cells)} |")


def vars_of(arguments: argparse.Namespace) -> dict[str, str]:
    return {key: str(value) for key, value in vars(arguments).items() if key != "run"}


def write(folder: Path, facts: dict) -> None:
    facts |= {"torch": torch.__version__, "threads": torch.get_num_threads()}
    (folder / "facts.json").write_text(json.dumps(facts, indent=1, sort_keys=True) + "\n")
    print((folder / "report.md").read_text())
    print(json.dumps(facts, indent=1, sort_keys=True))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    verbs = parser.add_subparsers(required=True)
    for run, count, controls in ((flows, 64, 64), (galaxies, 48, 16)):
        verb = verbs.add_parser(run.__name__)
        verb.set_defaults(run=run)
        verb.add_argument("--flows", type=int, default=count, help="objects of each regime to test on")
        verb.add_argument("--controls", type=int, default=controls, help="of each kind")
        verb.add_argument("--layer-controls", type=int, default=8, help="of each kind, at each layer")
        verb.add_argument("--seed", type=int, default=0)
        if run is galaxies:
            verb.add_argument("--layer", default="transformer.encoder.1", help="chosen on another seed")
        if run is flows:
            verb.add_argument("model", help="folder of a Walrus")
            verb.add_argument(
                "--system", choices=[name for name in REGIMES if len(DIAGNOSTICS[name]) > 1], default="shear"
            )
            verb.add_argument("--size", type=int, help="points along an axis, if not the usual number")
            verb.add_argument("--transfer", action="store_true", help="steer the other systems too")
    verb = verbs.add_parser("hooks")
    verb.set_defaults(run=hooks)
    verb.add_argument("model", nargs="?", help="folder of a Walrus; aion-nano by default")
    verb.add_argument("--repeats", type=int, default=30)
    verb.add_argument("--windows", type=int, default=100)
    verb = verbs.add_parser("summary")
    verb.set_defaults(run=summary)
    verb.add_argument("folders", nargs="+")
    arguments = parser.parse_args()
    arguments.run(arguments)


if __name__ == "__main__":
    main()
