"""Makes `tokenizers/data/miles.safetensors` from the MILES stars as sdss-mangadap distributes them.

    python tokenizers/make_miles.py miles_stars.npz

The file given holds flux `(944, 4300)`, wavelength in air and a table with names, library numbers, Teff, log g and
[Fe/H]. Nothing else of it is taken: photometry and astrometry that were joined to it have another licence.
Fluxes are relative (about 1 at 5500 A) and become float16, whose rounding of 0.03 % is below their noise.
"""

__all__ = ["main"]

import sys

from pathlib import Path

import numpy as np

from safetensors.numpy import save_file

OUT = Path(__file__).resolve().parent / "data" / "miles.safetensors"


def main(path: str) -> None:
    file = np.load(path, allow_pickle=False)
    meta, wavelength = file["meta"], file["wave"]
    step = (wavelength[-1] - wavelength[0]) / (len(wavelength) - 1)
    if np.abs(np.diff(wavelength) - step).max() > 1e-6:
        msg = f"{path}: wanted wavelengths in equal steps"
        raise ValueError(msg)
    labels = np.stack([meta["teff"], meta["logg"], meta["feh"]], 1).astype(np.float32)
    tensors = {
        "flux": file["flux"].astype(np.float16),
        "labels": labels,
        "number": meta["miles_id"].astype(np.int16),
    }
    names = "\n".join(" ".join(str(name).split()) for name in meta["name"])
    facts = {"start": f"{wavelength[0]:.1f}", "step": f"{step:.1f}", "medium": "air", "names": names}
    save_file(tensors, OUT, metadata=facts)
    OUT.chmod(0o644)
    print(f"{OUT}: {len(labels)} stars, {OUT.stat().st_size / 1e6:.2f} MB")


if __name__ == "__main__":
    main(*sys.argv[1:])
