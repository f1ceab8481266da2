"""Trains one tokenizer by a recipe: `python tokenizers/train.py tokenizers/spectrum.toml -o runs/spectrum`.

A recipe has these sections:

- `name`, `seed`;
- `[tokenizer]`: `kind` and the keyword arguments of its class;
- `[sky]`: keyword arguments of `aion.sky.Sky`, for all sources of the simulated sky;
- `[fit]`, for tokenizers that are fitted to data first: `modality`, number of `objects`, and what `fit` takes;
- `[sources.NAME]`, one for each source of data: `modality = "desi_spectrum"` for objects of the sky,
  `modality = ["desi_spectrum", "sdss_spectrum"]` for pairs (the loss gets a tuple: the same objects by the one and by
  the other), or `reader = "miles"` or `"binned"` with its settings; `weight` (how often it has its turn; 1), `batch`
  (else that of the training), `[sources.NAME.sky]` (over `[sky]`);
- `[training]`: `steps`, `batch`, and what `aion.training.train` takes.

The recipe of a family, of tokenizers that are only fitted, has instead:

- `[tokenizer]`: what they have in common;
- `[modalities.NAME]`: what else the tokenizer of a modality takes, and `spacing`;
- `[fit]`: number of `objects` of the sky, how many at once (`batch`).

The folder receives the log, the checkpoint from which the same command goes on, and in `tokenizer/` what
`aion.tokenizers.store.load` reads; for a family a folder like that for each modality.
"""

__all__ = ["main"]

import argparse

from pathlib import Path

from baseline import FixedGrid
from binned import binned_reader
from miles import DATA, miles_reader

from aion.recipes import fit_family, is_family, train_tokenizer
from aion.training import ranks


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("recipe", type=Path)
    parser.add_argument("-o", "--output", type=Path, required=True, help="folder for the result")
    parser.add_argument("--data", type=Path, default=DATA, help="folder of miles.safetensors")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--steps", type=int, help="fewer steps, of a family objects, for a trial")
    given = parser.parse_args(arguments)
    if is_family(given.recipe):
        for name, tokenizer in fit_family(given.recipe, given.output, device=given.device, objects=given.steps).items():
            print(f"{given.output / name}: {tokenizer.describe()}")
        return
    with ranks.joined(given.device) as device:  # torchrun --nproc-per-node 2 tokenizers/train.py ... trains on several
        tokenizer = train_tokenizer(
            given.recipe,
            given.output,
            readers={"binned": binned_reader, "miles": miles_reader(given.data)},
            others=(FixedGrid,),
            device=device,
            steps=given.steps,
        )
        if ranks.rank() == 0:
            print(f"{given.output / 'tokenizer'}: {tokenizer.describe()}")


if __name__ == "__main__":
    try:
        main()
    except (OSError, ValueError) as error:  # a bad recipe or file, which the message names
        msg = f"train.py: error: {error}"
        raise SystemExit(msg) from error
