"""Holds the simulated sky against real data: `python benchmarks/sky_reality.py DATA`.

DATA holds `catalogs/sdss_mgs_photoz.npz` (SDSS main sample), `spectra/miles_stars.npz` (MILES stars with B-V of
Hipparcos), `simulator/desi_gmm_dr9` (mixtures of real Legacy Survey targets) and `spectra/coadd-*.fits` (two DESI
coadds). What is measured of them is written to `results/sky_reality.json`, which the tests read, and drawn beside what
the sky has in `docs/sky.png`. Colours are free of the extinction of the Milky Way on both sides.
"""

import argparse
import json

from itertools import pairwise
from pathlib import Path

import numpy as np
import torch

from aion.sky.draws import Draws
from aion.sky.galaxies import galaxies_at, galaxy_parameters, galaxy_source
from aion.sky.photometry import synthetic_flux
from aion.sky.quasars import quasar_parameters, quasar_source
from aion.sky.source import LINES
from aion.sky.spectra import observe_spectrum
from aion.sky.stars import star_parameters, star_source
from aion.sky.templates import Templates, interpolate

ROOT = Path(__file__).parents[1]
RESULT = ROOT / "benchmarks/results/sky_reality.json"
EDGES = (0.02, 0.05, 0.08, 0.11, 0.15, 0.2)
COLOURS = ("u-g", "g-r", "r-i", "i-z")
SDSS_ERRORS = (0.06, 0.02, 0.02, 0.02, 0.03)  # of magnitudes, calibration and aperture included, from u to z
TEFF = (4600, 5200, 5700, 6200, 7000, 8500)
TARGETS = {"bgs": 19.5, "qso": 22.5}  # and the faintest r compared
SHARES = np.linspace(0, 1, 21)  # at which the r magnitudes of the targets are kept
# Transmission of B and V every 100 A: UBVRI passbands (Bessell, 1990), PASP 102, 1181.
B = (3600, 0, 0.03, 0.134, 0.567, 0.92, 0.978, 1, 0.978, 0.935, 0.853, 0.74, 0.64, 0.536, 0.424, 0.325, 0.235, 0.15)
B += (0.095, 0.043, 0.009, 0)
V = (4700, 0, 0.03, 0.163, 0.458, 0.78, 0.967, 1, 0.973, 0.898, 0.792, 0.684, 0.574, 0.461, 0.359, 0.27, 0.197, 0.135)
V += (0.081, 0.045, 0.025, 0.017, 0.013, 0.009, 0)


def middle(values) -> list[float]:
    """Median and half the distance of the 16th and 84th percentiles."""
    low, mid, high = np.percentile(np.asarray(values), (16, 50, 84))
    return [round(float(mid), 4), round(float(high - low) / 2, 4)]


# ---- the sky


def sdss_colours(pairs) -> np.ndarray:
    """Colours `(N, 4)` of simulated galaxies of the redshifts and r magnitudes of real ones, with errors of SDSS."""
    templates, draws = Templates.load(), Draws(0, torch.arange(len(pairs)))
    z, r = torch.as_tensor(np.asarray(pairs), dtype=torch.float64).T.contiguous()
    source = galaxy_source(draws, galaxies_at(draws, z, r) | {"ebv": 0 * z}, templates)
    magnitude = -2.5 * torch.log10(synthetic_flux(source, templates, [f"sdss-{band}" for band in "ugriz"]))
    magnitude = magnitude + draws.normal("sdss", 5) * torch.tensor(SDSS_ERRORS, dtype=torch.float64)
    return (magnitude[:, :-1] - magnitude[:, 1:]).numpy()


def star_colours(count: int = 1500) -> tuple[np.ndarray, np.ndarray]:
    """Teff and B-V (Vega) of simulated dwarfs."""
    templates, draws = Templates.load(), Draws(0, torch.arange(count))
    p = star_parameters(draws, templates)
    p |= {"ebv": 0 * p["teff"], "redshift": 0 * p["teff"]}
    source = star_source(draws, p, templates)
    flux = []
    for curve in (B, V):
        wavelength = torch.linspace(curve[0], curve[0] + 100 * (len(curve) - 2), 600, dtype=torch.float64)
        knots = np.arange(len(curve) - 1) * 100 + curve[0]
        weight = torch.as_tensor(np.interp(wavelength.numpy(), knots, curve[1:]))
        position = (torch.log10(wavelength) - torch.log10(templates.wide[0])) / 1e-3
        seen = interpolate(source.wide.double(), position.expand(count, -1))
        # These curves are for energy, not for photons.
        flux.append((seen * weight).sum(1) / (weight / wavelength**2).sum())
    colour = -2.5 * torch.log10(flux[0] / flux[1]) + 0.11  # AB to Vega: Blanton & Roweis (2007), arXiv astro-ph/0606170
    dwarf = (p["logg"] > 3.5) & (p["feh"] > -0.5)
    return p["teff"][dwarf].numpy(), colour[dwarf].numpy()


def legacy_colours(target: str, r: list[float], count: int = 1000) -> np.ndarray:
    """g-r and r-z `(N, 2)` of simulated galaxies or quasars like the targets.

    Galaxies of the r magnitudes given at `SHARES`, and of a median redshift of 0.2, as published (Ruiz-Macias et al.,
    2020, arXiv 2010.11283: mostly 0.05 to 0.4); quasars beyond 0.9, where they are wanted (Yeche et al., 2020, arXiv
    2010.11280), up to 3.5.
    """
    templates, draws = Templates.load(), Draws(0, torch.arange(count))
    if target == "qso":
        p, make = quasar_parameters(draws), quasar_source
        kept = ((p["redshift"] > 0.9) & (p["redshift"] < 3.5)).numpy()
    else:
        magnitude = torch.as_tensor(np.interp(draws.uniform("r").numpy(), SHARES, r))
        z = 10 ** (0.15 * (magnitude - 19.5)) * torch.exp(0.4 * draws.normal("z").clamp(-2.5, 2))
        p, make, kept = galaxies_at(draws, 0.2 * z / z.median(), magnitude), galaxy_source, slice(None)
    source = make(draws, p | {"ebv": 0 * p["redshift"]}, templates)
    g, r, z = (-2.5 * torch.log10(synthetic_flux(source, templates, [f"decam-{b}" for b in "grz"]))).T
    return torch.stack([g - r, r - z], 1).numpy()[kept]


def line_ratios(count: int = 1000) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """log [N II]/H alpha, log [O III]/H beta and whether a nucleus is active, of nearby galaxies."""
    templates, draws = Templates.load(), Draws(0, torch.arange(count))
    p = galaxy_parameters(draws, 0.15)
    source = galaxy_source(draws, p | {"ebv": 0 * p["redshift"]}, templates)
    line = {name: source.line[:, k] for k, name in enumerate(LINES)}
    kept = ((p["quiet"] == 0) | (p["agn"] > 0)).numpy()
    x, y = torch.log10(line["nii_6584"] / line["halpha"]), torch.log10(line["oiii_5007"] / line["hbeta"])
    return x.numpy()[kept], y.numpy()[kept], p["agn"].numpy()[kept] > 0


def desi_noise(level: float) -> tuple[np.ndarray, np.ndarray]:
    """Starts of bins of 500 A and the median error in each of blue-to-red galaxies that have a flux in the fibre."""
    templates, draws = Templates.load(), Draws(0, torch.arange(64))
    z = torch.full((64,), 0.36874, dtype=torch.float64)
    source = galaxy_source(draws, galaxies_at(draws, z, z * 0 + 20.56) | {"ebv": 0.05 + 0 * z}, templates)
    source = source.scaled(1 / source.fine[:, 5000:6500].median(1).values)
    _, ivar, wavelength = observe_spectrum("desi_spectrum", source.scaled(0 * z + 2 * level), draws, templates, False)
    return binned(wavelength[0].numpy(), ivar.numpy())


def binned(wavelength: np.ndarray, ivar: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Median error in bins of 500 A over that of the whole spectrum, median over the objects."""
    starts = np.arange(3500, 9600, 500)
    sigma = np.where(ivar > 0, np.maximum(ivar, 1e-12) ** -0.5, np.nan)
    whole = np.nanmedian(sigma, axis=1)
    values = [np.nanmedian(sigma[:, (wavelength >= s) & (wavelength < s + 500)], axis=1) / whole for s in starts]
    return starts, np.median(values, axis=1)


# ---- reality


def real_sdss(folder: Path) -> dict:
    file = np.load(folder / "catalogs/sdss_mgs_photoz.npz")
    table = np.concatenate([file["train"], file["test"]])
    table = table[(table[:, 3] > 13) & (table[:, 3] < 17.8)]
    bins = []
    for low, high in pairwise(EDGES):
        inside = table[(table[:, 0] > low) & (table[:, 0] <= high)]
        pairs = inside[:: max(1, len(inside) // 250)][:250, [0, 3]]
        bins.append(
            {
                "redshift": [low, high],
                "count": len(inside),
                "colours": {name: middle(inside[:, 6 + k]) for k, name in enumerate(COLOURS)},
                "redshift_and_r": np.round(pairs.astype(float), 4).tolist(),
            }
        )
    return {
        "source": "10 000 galaxies of the SDSS main sample, as distributed with mlz 1.2 (NCSA licence)",
        "bins": bins,
    }


def real_stars(folder: Path) -> dict:
    meta = np.load(folder / "spectra/miles_stars.npz")["meta"]
    bins = []
    for low, high in pairwise(TEFF):
        near = (
            (meta["teff"] > low)
            & (meta["teff"] <= high)
            & (meta["logg"] > 3.5)
            & (meta["feh"] > -0.5)
            & np.isfinite(meta["BV"])
        )
        bins.append({"teff": [low, high], "count": int(near.sum()), "B-V": middle(meta["BV"][near])})
    return {"source": "B-V of the Hipparcos catalogue for dwarfs of MILES with [Fe/H] > -0.5 (ESA, 1997)", "bins": bins}


def real_targets(folder: Path) -> dict:
    from astropy.io import fits

    out = {"source": "mixtures of Legacy Survey DR9 targets, desitarget 4.4.0 (BSD-3)"}
    rng = np.random.default_rng(0)
    for target, faintest in TARGETS.items():
        with fits.open(folder / f"simulator/desi_gmm_dr9/fractype_{target}.fits") as file:
            share = file[1].data
            kinds = {name: float(np.mean(share[name])) for name in share.columns.names if name != "MAG"}
        drawn = []
        for kind, weight in kinds.items():
            path = folder / f"simulator/desi_gmm_dr9/gmm_{target}_{kind.lower()}.fits"
            if weight < 0.01 or not path.exists():
                continue
            with fits.open(path) as file:
                columns = [file[0].header[f"COL{k:02d}"] for k in range(file[0].header["NCOL"])]
                weights, means, covariances = (np.asarray(file[k].data, float) for k in range(3))
            rows = rng.choice(len(weights), round(20000 * weight), p=weights / weights.sum())
            samples = np.array([rng.multivariate_normal(means[k], covariances[k]) for k in rows])
            drawn.append(samples[:, [columns.index(name) for name in ("r", "gr", "rz")]])
        drawn = np.concatenate(drawn)
        near = drawn[(drawn[:, 0] < faintest) & (drawn[:, 0] > 16)]
        out[target] = {"g-r": middle(near[:, 1]), "r-z": middle(near[:, 2])}
        out[target]["r"] = np.round(np.quantile(near[:, 0], SHARES), 3).tolist()
    return out


def real_noise(folder: Path) -> dict:
    from astropy.io import fits

    out = {"source": "two DESI coadds of the tests of fastspecfit 3.6.1 (BSD-3)"}
    for name in ("coadd-4-80613-thru20210324", "coadd-special-dark-27247"):
        with fits.open(folder / f"spectra/{name}.fits") as file:
            wavelength = np.concatenate([file[f"{arm}_WAVELENGTH"].data for arm in "BRZ"])
            flux, ivar = (np.concatenate([file[f"{arm}_{k}"].data[0] for arm in "BRZ"]) for k in ("FLUX", "IVAR"))
        starts, sigma = binned(wavelength, ivar[None].astype(float))
        out[name] = {
            "flux": round(float(np.median(flux[(wavelength > 5000) & (wavelength < 6500)])), 3),
            "level": round(float(np.median(ivar[ivar > 0]) ** -0.5), 4),
            "start": starts.tolist(),
            "sigma": np.round(sigma, 4).tolist(),
        }
    return out


# ---- beside each other


def draw(real: dict, path: Path) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(13, 7), layout="constrained")
    axes = figure.subplots(2, 3).ravel()
    bins = real["sdss"]["bins"]
    place = [np.mean(part["redshift"]) for part in bins]
    simulated = [sdss_colours(part["redshift_and_r"]) for part in bins]
    for k, name in enumerate(COLOURS):
        truth = np.array([part["colours"][name] for part in bins])
        found = np.array([middle(part[:, k]) for part in simulated])
        axes[0].errorbar(place, truth[:, 0], truth[:, 1], fmt="o-", color=f"C{k}", label=f"{name}, real")
        axes[0].errorbar(np.add(place, 0.004), found[:, 0], found[:, 1], fmt="s--", mfc="w", color=f"C{k}")
    axes[0].set(title="SDSS galaxies (open: simulated)", xlabel="redshift", ylabel="median colour, 16-84 %")
    axes[0].legend(fontsize=7)
    edges = np.linspace(0, 1.6, 33)
    truth = [c for part in bins for c in [part["colours"]["g-r"]]]
    axes[1].hist(np.concatenate(simulated)[:, 1], edges, color="C1", alpha=0.5)
    for mid, spread in truth:
        axes[1].axvspan(mid - spread, mid + spread, ymax=0.08, color="k", alpha=0.15)
    axes[1].set(title="g-r of the simulated; bars: real bins", xlabel="g-r")
    teff, colour = star_colours()
    axes[2].plot(teff, colour, ".", ms=2, color="C0", label="simulated dwarfs")
    for part in real["stars"]["bins"]:
        axes[2].errorbar(np.mean(part["teff"]), *part["B-V"], fmt="ks", label="Hipparcos")
    axes[2].set(title="B-V of stars", xlabel="Teff [K]", ylabel="B-V", xlim=(3500, 10000), ylim=(-0.2, 1.8))
    for target, panel in zip(TARGETS, ("C2", "C3"), strict=True):
        found = legacy_colours(target, real["targets"][target]["r"])
        axes[3].plot(found[:, 0], found[:, 1], ".", ms=2, color=panel, alpha=0.4, label=f"{target}, simulated")
        (x, dx), (y, dy) = (real["targets"][target][name] for name in ("g-r", "r-z"))
        axes[3].errorbar(x, y, dy, dx, fmt="s", color="k", mfc=panel, label=f"{target}, DR9 mixtures")
    axes[3].set(title="Legacy Surveys", xlabel="g-r", ylabel="r-z", xlim=(-0.5, 2), ylim=(-0.5, 1.8))
    axes[3].legend(fontsize=7)
    x, y, active = line_ratios()
    axes[4].plot(x[~active], y[~active], ".", ms=2, label="star-forming")
    axes[4].plot(x[active], y[active], ".", ms=2, label="active")
    curve = np.linspace(-1.8, -0.05, 50)
    axes[4].plot(curve, 0.61 / (curve - 0.05) + 1.3, "k--", label="Kauffmann et al. 2003")
    axes[4].plot(curve, 0.61 / (curve - 0.47) + 1.19, "k:", label="Kewley et al. 2001")
    axes[4].set(title="line ratios", xlabel="log [N II]/H alpha", ylabel="log [O III]/H beta", ylim=(-1.3, 1.4))
    axes[4].legend(fontsize=7)
    for name, part in real["noise"].items():
        if name != "source":
            axes[5].step(np.add(part["start"], 250), part["sigma"], where="mid", label=f"{name[:12]}, real")
            axes[5].plot(np.add(part["start"], 250), desi_noise(part["flux"])[1], "s", mfc="w")
    axes[5].set(title="DESI: error over its median (squares: simulated)", xlabel="wavelength [A]", yscale="log")
    axes[5].legend(fontsize=7)
    figure.savefig(path, dpi=80)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    folder = parser.parse_args().data
    real = {"sdss": real_sdss(folder), "stars": real_stars(folder)}
    real |= {"targets": real_targets(folder), "noise": real_noise(folder)}
    RESULT.write_text(json.dumps(real, indent=1) + "\n")
    draw(real, ROOT / "docs/sky.png")
    for part in real["sdss"]["bins"]:
        found = sdss_colours(part["redshift_and_r"])
        cells = [f"{n} {part['colours'][n]} {middle(found[:, k])}" for k, n in enumerate(COLOURS)]
        print("SDSS z", part["redshift"], "real, simulated:", "; ".join(cells))
    teff, colour = star_colours()
    for part in real["stars"]["bins"]:
        near = (teff > part["teff"][0]) & (teff <= part["teff"][1])
        print("stars", part["teff"], "B-V real, simulated:", part["B-V"], middle(colour[near]))
    for target in TARGETS:
        colours = real["targets"][target]
        found = legacy_colours(target, colours.pop("r"))
        print(target, "g-r, r-z real:", colours, "simulated:", middle(found[:, 0]), middle(found[:, 1]))
    for name, part in real["noise"].items():
        if name != "source":
            print(name, "simulated over real:", np.round(desi_noise(part["flux"])[1] / part["sigma"], 2).tolist())


if __name__ == "__main__":
    main()
