"""What tokenizers are measured on: real spectra and simulated objects that no recipe trains on."""

__all__ = ["DESI", "real", "simulated", "twins"]

from pathlib import Path

import torch

from measures import ratio
from miles import DATA, miles_stars

from aion import Spectrum, io
from aion.recipes import HELD_OUT
from aion.sky import Sky

ROOT = Path(__file__).resolve().parents[1]
DESI = "desi_spectrum"
SIMULATED = {
    DESI: {},
    "sdss_spectrum": {},
    "gaia_xp_spectrum": {"galaxies": 0.0},
    "apogee_spectrum": {"galaxies": 0.0},
    "galah_spectrum": {"galaxies": 0.0},
}


def _read(path: Path) -> Spectrum:
    """Reads the spectra of a file, those with a measured pixel."""
    if not path.is_file():
        msg = f"no {path}: it is part of the repository (tests/data or tokenizers/data), or give --data"
        raise FileNotFoundError(msg)
    spectrum = next(value for value in io.read(path).values() if isinstance(value, Spectrum))
    return spectrum[spectrum.measured.any(1)]


def real(data: Path = DATA) -> dict[str, Spectrum]:
    """Returns the real spectra by a name; none was trained on.

    Arguments:
        data: folder of `miles.safetensors` and of the MaNGA file.
    """
    stars, tests, samples = miles_stars(data), ROOT / "tests" / "data", io.samples()
    manga = [_read(tests / "MaNGA_test_spectra.fits.gz"), _read(data / "MaNGA_multicomp_test_spectra.fits.gz")]
    manga = Spectrum.stack(manga)
    coadds = [io.read(samples[name])[DESI] for name in ("desi-galaxy", "desi-nearby-galaxy")]
    source = "gaia_dr3_source_id_5937083312263887616_dl_products_csv.zip"
    return {
        "MILES stars": stars.spectrum[stars.held_out],
        "MaNGA galaxies, S/N >= 20": manga[ratio(manga) >= 20],
        "MaNGA galaxies, all": manga,
        "DESI coadds": Spectrum.stack(coadds),
        "SDSS quasar": _read(tests / "SDSSJ220248.31+123656.3.fits.gz"),
        "Gaia XP star": _read(tests / source),
    }


def simulated(count: int, noise: bool = True) -> dict[str, Spectrum]:
    """Returns simulated spectra of S/N of at least 5 by the name of their modality; the same objects without noise."""
    out = {}
    for name, options in SIMULATED.items():
        sky = Sky(modalities=[name], complete=True, **options)
        spectrum = sky.observe(torch.arange(3 * count))[name]
        rows = (ratio(spectrum).nan_to_num(0) >= 5).nonzero().flatten()[:count]
        out[name] = spectrum[rows] if noise else sky.observe(rows, noise=False)[name]
    return out


def twins(count: int) -> tuple[Spectrum, Spectrum]:
    """Returns the same objects seen by DESI and by SDSS with a S/N of at least 10."""
    names = [DESI, "sdss_spectrum"]
    sky = Sky(modalities=names, complete=True)
    parts, found, first = [], 0, HELD_OUT // 2
    while found < count:
        seen = sky.observe(torch.arange(first, first + 128))
        rows = torch.stack([ratio(seen[name]) >= 10 for name in names]).all(0)
        parts.append([seen[name][rows] for name in names])
        found, first = found + int(rows.sum()), first + 128
    return tuple(Spectrum.stack([part[k] for part in parts])[:count] for k in (0, 1))
