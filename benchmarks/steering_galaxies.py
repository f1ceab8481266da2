"""Quiescent minus star-forming galaxies in `aion-nano`, read off the spectrum it predicts; a verb of `steering.py`."""

__all__ = ["galaxies"]

import argparse
import json
import time

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import torch

from torch import Tensor

from aion import AION, Scalar, Spectrum
from aion.generation import codes
from aion.sky import Sky
from aion.steering import Direction, steering_report
from aion.tokens import Tokens, TokenSequence

SEEN, PREDICTED = "desi_spectrum", "sdss_spectrum"
LOOK, SEARCHED = 6000, 120_000  # objects at once and in all, below those that recipes train on
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


def bright_galaxies(sky: Sky, wanted: Mapping[str, int]) -> dict[str, Tensor]:
    """Lists as many galaxies brighter than 18 mag as are wanted by the light of young stars, and by their dust.

    Looks through the sky, of which no recipe trains on these numbers, until it has them.
    """
    lists = {name: torch.zeros(0, dtype=torch.long) for name in wanted}
    for start in range(0, SEARCHED, LOOK):
        number = torch.arange(start, min(start + LOOK, SEARCHED))
        labels = sky.labels(number)
        bright = (labels["magnitude"] < 18) & (labels["kind"] == 0)
        chosen = {
            "quiescent": labels["log_ssfr"] < -11.5,
            "star-forming": labels["log_ssfr"] > -10,
            "dusty": labels["dust"] > 0.25,
            "dust-free": labels["dust"] < 0.05,
        }
        lists = {name: torch.cat([rows, number[bright & chosen[name]]]) for name, rows in lists.items()}
        if all(len(lists[name]) >= count for name, count in wanted.items()):
            return {name: rows[: wanted[name]] for name, rows in lists.items()}
    name = min(wanted, key=lambda name: len(lists[name]) / wanted[name])
    share = len(lists[name]) / wanted[name]
    msg = f"the first {SEARCHED} objects hold {len(lists[name])} bright {name} galaxies, wanted {wanted[name]}: "
    msg += f"take at most {share:.0%} of these --flows"
    raise SystemExit(msg)


def galaxies(arguments: argparse.Namespace) -> None:
    model, count, begun = AION.from_pretrained("aion-nano"), arguments.flows, time.perf_counter()
    options = {"modalities": (SEEN, PREDICTED), "complete": True, "varied": False}
    sky = Sky(seed=arguments.seed, max_redshift=0.3, galaxies=1.0, **options)
    wanted = dict.fromkeys(("quiescent", "star-forming"), 3 * count)  # two thirds to fit on, the rest to test on
    rows = bright_galaxies(sky, wanted | dict.fromkeys(("dusty", "dust-free"), 2 * count))
    tested = {name: ask(model, sky.observe(rows[name][2 * count :])) for name in wanted}

    def fitted(*names: str, layers: str, **more: object) -> dict[str, Direction]:
        groups = [[{SEEN: sky.observe(part)[SEEN]} for part in rows[name][: 2 * count].split(32)] for name in names]
        data = {"positive": names[0], "negative": names[1], "sky": arguments.seed, "simulated": True}
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

    layer = arguments.layer
    directions = fitted(*wanted, layers="transformer.encoder.*")
    lda = fitted(*wanted, layers=layer, method="lda")[layer]
    dust = fitted("dusty", "dust-free", layers=layer)[layer]
    report = steering_report(
        model,
        directions[layer],
        tested,
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
    folder = arguments.output / f"galaxies-{layer}-{arguments.seed}"
    report.save(folder)
    draw_spectra(model, directions[layer], tested["star-forming"], folder)
    facts = {"model": directions[layer].model, "separation": directions[layer].separation}
    facts |= {"command": {key: str(value) for key, value in vars(arguments).items() if key != "run"}}
    facts |= {"seconds": round(time.perf_counter() - begun), "torch": torch.__version__}
    (folder / "facts.json").write_text(json.dumps(facts, indent=1, sort_keys=True) + "\n")
    print((folder / "report.md").read_text())


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
