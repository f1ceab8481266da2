"""Builds the compact ingredients of `aion.sky` from public raw data.

    python benchmarks/make_templates.py DATA [--out aion/sky]

DATA holds `simulator/` (stellar populations, galaxy SEDs, filter curves, emission lines, sky spectrum, Gaia XP
configuration) and `spectra/` (MILES stars, two DESI coadds); `aion/sky/README.md` names the source and licence of
every ingredient. Needs astropy and scipy, which `aion.sky` itself does not.

Every template must reach beyond every edge that any instrument can show at any simulated redshift, because a
template that ends inside the observed window makes the edge of the measured pixels a function of redshift. So each
population is continued to the blue and to the red by the non-negative mixture of full-range galaxy SEDs that fits it
best where both exist, scaled to agree at the seam; each star by a mixture of the populations times a black body.
"""

__all__ = ["main"]

import argparse
import ast
import json
import warnings
import zipfile

from pathlib import Path

import numpy as np

from astropy.io import fits
from astropy.table import Table
from safetensors.numpy import save_file
from scipy.interpolate import CubicSpline
from scipy.ndimage import gaussian_filter1d, median_filter
from scipy.optimize import nnls

FINE_START, FINE_STEP, FINE_SIZE = 3.1280, 1e-4, 9216  # log10 A: 1343 to 11210 A
WIDE_START, WIDE_STEP, WIDE_SIZE = 2.95, 1e-3, 2540  # log10 A: 891 A to 30.9 micron
STAR_FIRST, STAR_LAST = 4124, 9216  # the part of the fine grid that a star needs: 3468 to 11210 A
AGES = (0.00316228, 0.01, 0.03162278, 0.1, 0.3, 1.0, 3.0, 9.0, 14.0)  # Gyr
METALLICITIES = (-1.35, -1.0, -0.7, -0.33, 0.0, 0.35)  # log Z / Z_sun
STARS = 220
BANDS = {
    "decam-g": "decamDR1-g",
    "decam-r": "decamDR1-r",
    "decam-i": "decamDR1-i",
    "decam-z": "decamDR1-z",
    "wise-w1": "wise2010-W1",
    "wise-w2": "wise2010-W2",
    "wise-w3": "wise2010-W3",
    "wise-w4": "wise2010-W4",
    "gaia-g": "gaiadr3-G",
    "gaia-bp": "gaiadr3-BP",
    "gaia-rp": "gaiadr3-RP",
    **{f"hsc-{band}": f"hsc2017-{band}" for band in "grizy"},
    **{f"sdss-{band}": f"sdss2010-{band}" for band in "ugriz"},
}

fine = 10 ** (FINE_START + FINE_STEP * np.arange(FINE_SIZE))
wide = 10 ** (WIDE_START + WIDE_STEP * np.arange(WIDE_SIZE))


def bin_to_wide(wavelength, flux):
    """Averages a finely sampled spectrum over the cells of the wide grid; NaN outside."""
    edges = 10 ** (WIDE_START + WIDE_STEP * (np.arange(WIDE_SIZE + 1) - 0.5))
    integral = np.concatenate([[0], np.cumsum(np.diff(wavelength) * (flux[1:] + flux[:-1]) / 2)])
    total = np.interp(edges, wavelength, integral, left=np.nan, right=np.nan)
    return np.diff(total) / np.diff(edges)


def black_body(wavelength, temperature):
    """Returns f_lambda of a black body (arbitrary unit) at wavelengths in Angstrom."""
    x = 1.438777e8 / (wavelength * temperature)
    return wavelength**-5.0 / np.expm1(np.clip(x, None, 600))


def air_to_vacuum(air):
    """Converts air to vacuum wavelengths (Angstrom), Morton 2000."""
    s2 = (1e4 / air) ** 2
    n = 1 + 8.336624212083e-5 + 2.408926869968e-2 / (130.1065924522 - s2) + 1.599740894897e-4 / (38.92568793293 - s2)
    return air * n


def read_full_range(folder):
    """Reads the galaxy SEDs that reach 20 micron, continued to 31 micron by their last slope."""
    seds = []
    for path in sorted(folder.glob("*.sed")):
        wavelength, flux = np.loadtxt(path).T
        if wavelength[-1] < 1.9e5:
            continue
        log_flux = np.log(np.clip(flux, 1e-12 * flux.max(), None))
        value = np.interp(np.log(wide), np.log(wavelength), log_flux)
        tail = (wide > 1.2e5) & (wide < 1.9e5)
        slope, level = np.polyfit(np.log(wide[tail]), value[tail], 1)
        end = wide > 1.9e5
        value[end] = level + slope * np.log(wide[end])
        seds.append((path.stem, wavelength, np.exp(log_flux), np.exp(value)))
    return seds


def clean(flux):
    """Replaces single wild pixels of a population by the running median."""
    running = median_filter(flux, 31, mode="nearest")
    wild = (flux < 0.5 * running) | (flux > 1.6 * running)
    wild[(flux > 1.6 * running) & (running > np.roll(running, 200))] = False  # never cut a real break
    return np.where(wild, running, flux)


def read_populations(folder):
    """Reads the 54 MaStar populations, `(9, 6, 4562)`, and their wavelengths."""
    grid = 10 ** (3.558900001815535 + 1e-4 * np.arange(4562))
    names = ["00.003", "00.010", "00.032", "00.100", "00.300", "01.000", "03.000", "09.000", "14.000"]
    flux = np.array(
        [
            [
                clean(np.asarray(fits.getdata(folder / f"MaStar-SSP-A{a}-Z{z:+.2f}.fits.gz"), float))
                for z in METALLICITIES
            ]
            for a in names
        ]
    )
    # The 9 Gyr solar population is noise below 4000 A (its neighbours are not): take its neighbours' mean there.
    level = np.median(flux[7, 4, 700:900] / flux[6, 4, 700:900]), np.median(flux[7, 4, 700:900] / flux[8, 4, 700:900])
    neighbours = np.sqrt(flux[6, 4] * level[0] * flux[8, 4] * level[1])
    weight = np.clip((np.log10(grid) - np.log10(4200)) / 0.01 + 1, 0, 1)
    flux[7, 4] = weight * flux[7, 4] + (1 - weight) * neighbours
    return grid, flux


def extend_population(grid, flux, seds):
    """Continues one population to the blue and to the red; returns it on the fine and on the wide grid."""
    low = bin_to_wide(grid, flux)
    inside = np.isfinite(low)
    design = np.array([s[3] for s in seds]).T
    scale = design[inside].mean(0)
    weight = 1 / low[inside] * np.where(wide[inside] < 4600, 2, 1) * np.where(wide[inside] > 9000, 2, 1)
    share, _ = nnls(design[inside] / scale * weight[:, None], low[inside] * weight)
    share = share / scale
    model_wide = design @ share
    model_fine = np.exp(
        np.interp(np.log(fine), np.log(wide), np.log(model_wide)),
    )  # the SEDs are sampled at 0.001 dex: nothing finer is known of them
    first, last = 12, 12  # leave out the noisy ends
    blue, red = grid[first], grid[-last]
    at = {
        "blue": np.median(flux[first : first + 200] / np.interp(grid[first : first + 200], fine, model_fine)),
        "red": np.median(flux[-last - 200 : -last] / np.interp(grid[-last - 200 : -last], fine, model_fine)),
    }

    def join(wavelength, model):
        inner = np.interp(wavelength, grid, flux)
        ramp_blue = np.clip((np.log10(wavelength / blue)) / 0.004, 0, 1)  # blends over 33 A at the blue seam
        ramp_red = np.clip((np.log10(red / wavelength)) / 0.004, 0, 1)
        outer = model * np.where(wavelength < 6000, at["blue"], at["red"])
        ramp = np.where(wavelength < 6000, ramp_blue, ramp_red)
        return ramp * inner + (1 - ramp) * outer

    full_fine = join(fine, model_fine)
    full_wide = model_wide * np.where(wide < 6000, at["blue"], at["red"])
    binned = bin_to_wide(fine, full_fine)
    both = np.isfinite(binned)
    full_wide[both] = binned[both]
    norm = np.interp(5500, wide, full_wide)
    return full_fine / norm, full_wide / norm


def galaxies(data):
    """Returns the tensors of the galaxies."""
    seds = read_full_range(data / "simulator/cosmos_seds")
    grid, flux = read_populations(data / "simulator/mastar_ssp")
    pairs = [extend_population(grid, f, seds) for f in flux.reshape(54, -1)]
    # Colours of real galaxies (SDSS main sample, z = 0.1) want old populations fainter blueward of the break at 4000 A:
    # u-g of 1.95 in the red sequence, not 1.72. Half of that is in the models of Bruzual and Charlot, too.
    for k in range(AGES.index(1.0) * len(METALLICITIES), 54):
        fainter = [1 - 0.24 / (1 + np.exp((grid - 3900) / 100)) for grid in (fine, wide)]
        pairs[k] = tuple(flux * factor for flux, factor in zip(pairs[k], fainter, strict=True))
    by_name = {s[0]: s[3] for s in seds}
    spiral, elliptical = by_name["Sd_A_2"], by_name["Ell5_A_0"]
    scale = np.interp(2.2e4, wide, spiral) / np.interp(2.2e4, wide, elliptical)
    # Blueward of 5 micron the difference is the stars' and not the dust's.
    dust = np.clip(spiral - scale * elliptical, 0, None) * np.clip(np.log(wide / 4.8e4) / 0.1, 0, 1)
    dust /= np.interp(1.2e5, wide, dust)
    return {
        "galaxy.fine": np.array([p[0] for p in pairs]).astype(np.float16),
        "galaxy.wide": (np.array([p[1] for p in pairs]) * (wide / 5500) ** 2).astype(np.float16),
        "galaxy.dust": dust.astype(np.float32),
        "galaxy.log_age": np.log10(AGES).astype(np.float32),
        "galaxy.metallicity": np.array(METALLICITIES, np.float32),
    }, np.array([p[0] for p in pairs])


def choose(labels, count):
    """Picks half of the rows by the farthest-point rule, for the unusual, and half evenly in Teff, for the usual."""
    space = (labels - labels.mean(0)) / labels.std(0)
    picked = [int(np.argmin((space**2).sum(1)))]
    distance = ((space - space[picked[0]]) ** 2).sum(1)
    while len(picked) < count // 2:
        picked.append(int(np.argmax(distance)))
        distance = np.minimum(distance, ((space - space[picked[-1]]) ** 2).sum(1))
    rest = np.setdiff1d(np.arange(len(labels)), picked)
    rest = rest[np.argsort(labels[rest, 0], kind="stable")]
    usual = rest[np.linspace(0, len(rest) - 1, count - len(picked)).round().astype(int)]
    return np.sort(np.concatenate([picked, usual]))


def extend_star(wavelength, flux, teff, populations):
    """Continues one star by the detail of the best mixture of populations times a black body."""
    grid = fine[STAR_FIRST:STAR_LAST]
    inside = (grid > wavelength[3]) & (grid < wavelength[-3])
    value = np.interp(grid, wavelength, flux)
    design = populations[:, STAR_FIRST:STAR_LAST].T
    weight = 1 / np.maximum(value[inside], 0.02 * value[inside].max())
    share, _ = nnls(design[inside] * weight[:, None], value[inside] * weight)
    mixture = design @ share
    body = black_body(grid, teff)
    detail = mixture / gaussian_filter1d(mixture, 500, mode="nearest")
    model = detail * body
    seam = np.flatnonzero(inside)
    blue, red = seam[:100], seam[-250:]
    out = value.copy()
    out[: seam[0]] = (model * np.median(value[blue] / model[blue]))[: seam[0]]
    ratio = np.median(value[red] / model[red])
    ramp = np.clip((np.arange(len(grid)) - red[0]) / len(red), 0, 1)
    out = np.where(np.arange(len(grid)) > red[0], (1 - ramp) * value + ramp * model * ratio, out)
    return out / np.interp(5500, grid, out)


def stars(data, populations):
    """Returns the tensors of the stars; every fifth MILES number is held out and never used."""
    file = np.load(data / "spectra/miles_stars.npz", allow_pickle=False)
    meta, wavelength = file["meta"], air_to_vacuum(file["wave"])
    labels = np.stack([np.log10(meta["teff"]), meta["logg"], meta["feh"]], 1).astype(float)
    good = np.isfinite(labels).all(1) & np.isfinite(file["flux"]).all(1) & (meta["miles_id"] % 5 != 0)
    good &= (np.quantile(file["flux"], 0.002, axis=1) > 0) & (np.median(file["flux"], axis=1) > 0)
    good &= (labels[:, 2] < 0.8) & (labels[:, 2] > -3.2)  # beyond stand chemically peculiar stars
    rows = np.flatnonzero(good)
    rows = rows[choose(labels[rows], STARS)]
    # The deepest bands of the coolest stars scatter below zero: keep a hundredth of what surrounds them.
    positive = [np.maximum(f, 0.01 * median_filter(np.abs(f), 401)) for f in file["flux"][rows].astype(float)]
    flux = np.array(
        [extend_star(wavelength, f, 10 ** labels[r, 0], populations) for f, r in zip(positive, rows, strict=True)]
    )
    space = labels[rows] / labels[good].std(0)
    distance = ((space[:, None] - space[None]) ** 2).sum(-1) + 1e9 * np.eye(len(rows))
    return {
        "star.fine": flux.astype(np.float16),
        "star.first": np.array([STAR_FIRST], np.int64),
        "star.labels": np.concatenate([10 ** labels[rows, :1], labels[rows, 1:]], 1).astype(np.float32),
        "star.miles_id": meta["miles_id"][rows].astype(np.int64),
        "star.neighbour": distance.argmin(1).astype(np.int64),
    }


def filters(data):
    """Returns the transmission of every band, averaged over the cells of the wide grid."""
    curves = []
    for stem in BANDS.values():
        table = Table.read(data / f"simulator/filters_speclite/{stem}.ecsv")
        wavelength = np.asarray(table["wavelength"].quantity.to_value("Angstrom"))
        dense = np.geomspace(wavelength[0], wavelength[-1], 40000)
        curve = bin_to_wide(dense, np.interp(dense, wavelength, np.asarray(table["response"], float)))
        curves.append(np.nan_to_num(curve) / np.nanmax(curve))
    return {"filter.curve": np.array(curves).astype(np.float16)}


def lines(data):
    """Returns the vacuum wavelengths of the emission lines, by the name they have in `aion.sky.galaxies`."""
    table = Table.read(data / "simulator/emlines.ecsv")
    return {
        f"line.{row['name']}": np.array([row["restwave"]], np.float32)
        for row in table
        if not str(row["name"]).endswith("broad")
    }


def noise(data):
    """Returns the noise against wavelength of DESI, arm by arm, and of SDSS, each with median 1."""
    shapes, out = {}, {}
    grid = 10 ** np.arange(np.log10(3500.0), np.log10(10450.0), FINE_STEP)
    for arm in "BRZ":
        curves = []
        for name in ("coadd-4-80613-thru20210324", "coadd-special-dark-27247"):
            with fits.open(data / f"spectra/{name}.fits") as file:
                wavelength = np.asarray(file[f"{arm}_WAVELENGTH"].data, float)
                ivar = np.asarray(file[f"{arm}_IVAR"].data[0], float)
                whole = np.concatenate([np.asarray(file[f"{a}_IVAR"].data[0], float) for a in "BRZ"])
            sigma = 1 / np.sqrt(median_filter(np.where(ivar > 0, ivar, np.median(ivar)), 3, mode="nearest"))
            curves.append(np.log(sigma * np.sqrt(np.median(whole))))
        shapes[arm] = wavelength, np.exp(np.mean(curves, 0))
    sky = np.loadtxt(data / "simulator/spec-sky.dat.gz")
    # The list of sky lines ends at 10000 A: what lies beyond repeats the OH forest before it.
    bright = np.interp(np.where(grid > 9990, 19980 - grid, grid), sky[:, 0], gaussian_filter1d(sky[:, 1], 20))
    bright = 10 * bright / np.quantile(bright, 0.995)
    # Throughput of the two SDSS arms, roughly: rises to 4800 A, falls beyond 8500 A.
    throughput = 1 / (1 + np.exp(-(grid - 3900) / 220)) / (1 + np.exp((grid - 9700) / 330)) + 0.04
    sdss = np.sqrt(bright + 1) / throughput
    sdss /= np.median(sdss)
    # The noise without the sky lines is what the photons of the source feel: a running low quantile.
    for name, (wavelength, curve) in {**shapes, "sdss": (grid, sdss)}.items():
        floor = np.exp(gaussian_filter1d(np.log(median_filter(curve, 201, mode="nearest")), 60, mode="nearest"))
        for suffix, value in (("", curve), (".smooth", floor)):
            value = np.interp(grid, wavelength, value)
            out[f"noise.{name.lower()}{suffix}"] = np.clip(value, None, 40).astype(np.float16)
    return out


def xp_design(folder, model, low, high):
    """Returns wavelengths (nm) and what each of 55 coefficients adds there, in electrons/s and in W/m2/nm.

    The bases are Hermite functions of the pseudo-wavelength, mixed by two matrices; see the external calibration of
    the Gaia DR3 spectra, Montegriffo et al. 2023, arXiv:2206.06205.
    """
    table = Table.read(folder / f"{model}_bases.csv", format="ascii.csv")[0]
    inverse, transformation = (
        np.array(ast.literal_eval(table[key])).reshape(55, -1)
        for key in ("inverseBasesCoefficients", "transformationMatrix")
    )
    dispersion, response = (
        np.loadtxt(folder / f"{model}_{kind}.csv", delimiter=",") for kind in ("dispersion", "response")
    )
    wavelength = np.arange(low, high + 1, 2.0)
    through = CubicSpline(*response)(wavelength)
    used = through > 1e-3 * through.max()
    wavelength, through = wavelength[used], through[used]
    scale = (table["normRangeMax"] - table["normRangeMin"]) / (table["pwlRangeMax"] - table["pwlRangeMin"])
    u = table["normRangeMin"] + scale * (CubicSpline(*dispersion)(wavelength) - table["pwlRangeMin"])
    hermite = [np.pi**-0.25 * np.exp(-(u**2) / 2)]
    hermite.append(np.sqrt(2) * u * hermite[0])
    for n in range(2, inverse.shape[1]):
        hermite.append(np.sqrt(2 / n) * u * hermite[-1] - np.sqrt((n - 1) / n) * hermite[-2])
    electrons = transformation @ (inverse @ np.array(hermite))
    photon = 1e9 * 299792458.0 * 6.62607015e-34 / (0.7278 * through * wavelength)
    return wavelength, electrons, photon


def gaia(data):
    """Returns the matrices from flux to XP coefficients and the errors of one real source.

    Many coefficients leave no trace in a spectrum of finite resolution, so the least-squares problem is closed by
    the sizes that coefficients of real spectra have: 0.3 (n + 1)^-1.5 of the first one, with 1 % noise.
    """
    archive = next((data / "spectra").glob("gaia_dr3_*_csv.zip"))
    with zipfile.ZipFile(archive) as file:
        name = next(n for n in file.namelist() if n.startswith("XP_CONTINUOUS"))
        real = Table.read(file.read(name).decode(), format="ascii.csv")[0]
    out = {}
    for band, model, low, high in (("bp", "bpC03_v375wi", 330, 690), ("rp", "rpC03_v142r", 610, 1060)):
        wavelength, electrons, photon = xp_design(data / "simulator/gaiaxp_config", model, low, high)
        order = np.arange(55)
        size = np.where(order == 0, 10, 0.3 / (order + 1) ** 1.5)
        noise = 0.01 * np.abs(electrons[0]).max()
        inverse = np.linalg.solve(electrons @ electrons.T / noise**2 + np.diag(size**-2.0), electrons / noise**2)
        out[f"xp.{band}.wavelength"] = wavelength * 10
        out[f"xp.{band}.matrix"] = inverse / photon * 1e-19  # of flux in 1e-17 erg/s/cm2/A
        out[f"xp.{band}.error"] = np.array(ast.literal_eval(real[f"{band}_coefficient_errors"]))
        out[f"xp.{band}.level"] = np.array(ast.literal_eval(real[f"{band}_coefficients"]))[:1]
    return {key: value.astype(np.float32) for key, value in out.items()}


def sampled(data):
    """Returns what each XP coefficient adds to Gaia's sampled spectra, `(55, 343)` of BP and of RP, and wavelengths.

    In 1e-17 erg/s/cm2/A; from 635 to 643 nm the archive goes over from BP to RP in a straight line.
    """
    wavelength = np.arange(336.0, 1021.0, 2.0)
    share = np.clip((643 - wavelength) / 8, 0, 1)
    out = {"wavelength": (wavelength * 10).astype(np.float32)}
    for band, model, weight in (("bp", "bpC03_v375wi", share), ("rp", "rpC03_v142r", 1 - share)):
        seen, electrons, photon = xp_design(data / "simulator/gaiaxp_config", model, 336, 1020)
        matrix = np.zeros((55, len(wavelength)))
        matrix[:, np.searchsorted(wavelength, seen)] = electrons * photon * 1e19
        out[band] = (matrix * weight).astype(np.float32)
    return out


def profiles():
    """Returns the exponential and the de Vaucouleurs profile as round Gaussians: sigma in half-light radii, share."""
    radius = np.geomspace(1e-3, 12, 4000)
    area = 2 * np.pi * radius * np.gradient(radius)
    curves = {
        "exponential": np.exp(-1.678347 * radius),
        # cut smoothly at 8 half-light radii, as survey models do
        "devaucouleurs": np.exp(-7.66925 * radius**0.25) / (1 + np.exp((radius - 7.5) / 0.5)),
    }
    out = {}
    for name, curve in curves.items():
        sigma = np.geomspace(0.25, 1.9, 4) if name == "exponential" else np.geomspace(0.04, 3.4, 6)
        design = np.exp(-0.5 * (radius[:, None] / sigma) ** 2) / (2 * np.pi * sigma**2)
        curve = curve / (curve * area).sum()
        weight = np.sqrt(area / (curve + 1e-3))
        share, _ = nnls(design * weight[:, None], curve * weight)
        share /= share.sum()
        enclosed = (share * (1 - np.exp(-0.5 * (radius[:, None] / sigma) ** 2))).sum(1)
        sigma = sigma / np.interp(0.5, enclosed, radius)  # half of the light of the sum lies within 1
        out[f"profile.{name}"] = np.stack([sigma, share]).astype(np.float32)
    return out


def main():
    """Writes `templates.safetensors` and `instruments.safetensors`, and `gaia-xp.safetensors` of the benchmarks."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--out", type=Path, default=Path(__file__).parents[1] / "aion/sky")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    grids = {
        "fine_start": FINE_START,
        "fine_step": FINE_STEP,
        "wide_start": WIDE_START,
        "wide_step": WIDE_STEP,
        "bands": list(BANDS),
    }
    metadata = {"grids": json.dumps(grids)}  # one key: several would be written in random order
    population, fluxes = galaxies(arguments.data)
    templates = population | stars(arguments.data, fluxes)
    instruments = filters(arguments.data) | lines(arguments.data) | noise(arguments.data)
    instruments |= gaia(arguments.data) | profiles()
    own = Path(__file__).parent / "data/gaia-xp.safetensors"
    save_file(sampled(arguments.data), own)
    own.chmod(0o644)
    for name, tensors in {"templates": templates, "instruments": instruments}.items():
        tensors = {key: np.ascontiguousarray(value) for key, value in tensors.items()}
        path = arguments.out / f"{name}.safetensors"
        save_file(tensors, path, metadata)
        path.chmod(0o644)
        print(name, f"{sum(v.nbytes for v in tensors.values()) / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
