"""A network trained for redshifts of spectra alone, what `aion-nano` must beat at equal inputs.

    python benchmarks/supervised.py -o runs/supervised [--steps 40000]

Convolutions over DESI or SDSS spectra of the simulated sky, averaged on one grid of log wavelength, to a histogram in
ln(1 + z) of the same bins as those of `aion-nano`, with the same smoothing of the targets. It sees new objects in every
step, the same sky as the recipes, and says how many operations it took; what it scores on the simulated galaxies of
`simulated.py` and the real ones of `real.py` is written to `results`. A run that was stopped goes on.
"""

__all__ = ["Convolutions", "Supervised"]

import argparse
import json
import math

from collections.abc import Mapping
from pathlib import Path

import real
import simulated
import torch

from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from aion.observations import Observation, Spectrum
from aion.posterior import Posterior
from aion.recipes import HELD_OUT
from aion.sky import Sky
from aion.training import train

RESULTS = Path(__file__).resolve().parent / "results"
PIXELS, WINDOW = 4096, (3550.0, 10400.0)  # Angstrom; 79 km/s each
BINS, LIMITS = 5530, (-0.01, 4.2)  # of 3e-4 in ln(1 + z)
SMOOTHING = 3.0  # bins
WIDTHS = (32, 64, 96, 128, 192, 256)
BATCH = 64


def gridded(spectrum: Spectrum) -> Tensor:
    """Averages pixels by ivar on the grid: compressed S/N-limited flux, S/N, and where measured, `(B, 3, PIXELS)`."""
    low, high = (math.log(edge) for edge in WINDOW)
    place = ((spectrum.wavelength.log() - low) / (high - low) * PIXELS).floor()
    weight = spectrum.ivar * ((place >= 0) & (place < PIXELS))
    place = place.clamp(0, PIXELS - 1).long()
    total = torch.zeros(len(spectrum), PIXELS).scatter_add_(1, place, weight)
    light = torch.zeros_like(total).scatter_add_(1, place, weight * spectrum.flux)
    seen = total > 0
    flux = torch.where(seen, light / total.clamp(min=1e-30), 0.0)
    scale = (flux.abs() * seen).sum(1, keepdim=True) / seen.sum(1, keepdim=True).clamp(min=1) + 1e-3
    return torch.stack([torch.asinh(flux / scale), torch.asinh(flux * total.sqrt()) / 3, seen.float()], 1)


class Convolutions(nn.Module):
    """Maps a gridded spectrum `(B, 3, PIXELS)` to the logits of its redshift `(B, BINS)`."""

    def __init__(self, generator: torch.Generator) -> None:
        super().__init__()
        layers, width = [], 3
        for k, wider in enumerate(WIDTHS):
            layers += [nn.Conv1d(width, wider, 7, stride=2, padding=3), nn.GroupNorm(8, wider), nn.GELU()]
            layers += [Residual(wider, 5 if k else 9)]
            width = wider
        self.body = nn.Sequential(*layers)
        self.head = nn.Sequential(nn.Linear(PIXELS // 2 ** len(WIDTHS) * 32, 512), nn.GELU(), nn.Linear(512, BINS))
        self.narrow = nn.Conv1d(width, 32, 1)
        for weight in (p for p in self.parameters() if p.ndim > 1):
            nn.init.kaiming_normal_(weight, nonlinearity="linear", generator=generator)
        for layer in (layer for layer in self.body if isinstance(layer, Residual)):
            nn.init.zeros_(layer.path[-1].weight)
        self.register_buffer("edges", torch.linspace(*(math.log1p(z) for z in LIMITS), BINS + 1, dtype=torch.float64))

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.narrow(self.body(x)).flatten(1))

    def loss(self, batch: tuple[Tensor, Tensor], generator: torch.Generator) -> dict[str, Tensor]:
        """Returns the cross entropy with a target that is smoothed by a Gaussian."""
        x, redshift = batch
        place = (redshift.log1p() - self.edges[0]) / (self.edges[1] - self.edges[0]) - 0.5
        away = torch.arange(BINS) - place[:, None]
        target = (-0.5 * (away / SMOOTHING) ** 2).softmax(1).float()
        return {"loss": nn.functional.cross_entropy(self(x), target)}


class Residual(nn.Module):
    """Adds a convolution of what it is given."""

    def __init__(self, width: int, size: int) -> None:
        super().__init__()
        self.path = nn.Sequential(
            nn.Conv1d(width, width, size, padding=size // 2), nn.GroupNorm(8, width), nn.GELU(),
            nn.Conv1d(width, width, size, padding=size // 2),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        return x + self.path(x)


class Supervised:
    """Predicts redshifts as a model does."""

    def __init__(self, network: Convolutions) -> None:
        self.network = network.eval()

    @torch.no_grad()
    def predict(self, observations: Mapping[str, Observation], name: str) -> Posterior:
        """Predicts from the one spectrum given; `name` is the redshift."""
        (spectrum,) = observations.values()
        rows = range(0, len(spectrum), BATCH)
        logits = [self.network(gridded(spectrum[i : i + BATCH].to(torch.device("cpu")))) for i in rows]
        return Posterior(self.network.edges.expm1(), torch.cat(logits).double().softmax(1))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--out", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=40_000)
    parser.add_argument("--objects", type=int, default=1500)
    arguments = parser.parse_args()
    network = Convolutions(torch.Generator().manual_seed(0))
    names = (simulated.DESI, simulated.SDSS)
    skies = [Sky(modalities=[name], complete=True) for name in names]

    def data(number: int) -> tuple[Tensor, Tensor]:
        index = torch.arange(number * BATCH, (number + 1) * BATCH) + HELD_OUT * 2
        sky = skies[number % 2]
        (spectrum,) = sky.observe(index).values()
        return gridded(spectrum), sky.labels(index)["redshift"].double()

    with FlopCounterMode(display=False) as counter:
        network.loss(data(0), torch.Generator())["loss"].backward()
    each = counter.get_total_flops() / 1e9
    print(f"{sum(p.numel() for p in network.parameters()) / 1e6:.1f} M parameters, {each:.1f} GFLOP a step of {BATCH}")
    network.zero_grad()
    folder = arguments.out
    folder.mkdir(parents=True, exist_ok=True)
    train(
        network, data, arguments.steps, lr=1e-3, warmup=0.02, optimizer="adamw", ahead=2, checkpoint=folder,
        checkpoint_every=500, identity=f"supervised {arguments.steps}", log=folder / "log.jsonl", progress="supervised",
    )  # fmt: skip
    model = Supervised(network)
    facts = {"model": "supervised-cnn", "torch": torch.__version__, "steps": arguments.steps, "batch": BATCH}
    facts["gflop"] = round(each * arguments.steps)
    near, table = real.galaxies(model), simulated.spectra(model, arguments.objects)
    real.show(near)
    print(f"{sum(abs(row['error']) <= 0.005 for row in near)} of {len(near)} real galaxies within 0.005")
    for label, row in table.items():
        print(f"{label:50s} " + "  ".join(f"{key} {value}" for key, value in row.items()))
    for name, found in {"real": {"galaxies": near}, "simulated": {"redshifts": table}}.items():
        (RESULTS / name / "supervised-cnn.json").write_text(json.dumps(facts | {"data": name} | found, indent=1) + "\n")


if __name__ == "__main__":
    main()
