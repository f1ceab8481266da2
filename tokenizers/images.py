"""What an image tokenizer keeps: noise, total flux, half-light radius, on simulated and on real stamps."""

__all__ = ["image_rows", "light", "stamps"]

import math

from itertools import pairwise
from pathlib import Path

import numpy as np
import torch

from torch import Tensor

from aion import Image
from aion.sky import Sky
from aion.tokenizers import Tokenizer
from aion.tokens import Tokens

SIMULATED = ("legacysurvey_image", "hsc_image")
RADIUS = 6.0  # arcsec of the aperture
CHUNK = 16


def stamps(count: int, size: int) -> Image:
    """Returns simulated griz stamps of the Legacy Surveys, put into blank sky of `size` pixels."""
    image = Sky(modalities=["legacysurvey_image"], complete=True).observe(torch.arange(count))["legacysurvey_image"]
    margin = [(size - side) // 2 for side in image.flux.shape[2:]]
    pad = (margin[1], size - image.flux.shape[3] - margin[1], margin[0], size - image.flux.shape[2] - margin[0])
    ivar = image.ivar.amax(dim=(2, 3), keepdim=True).expand(-1, -1, size, size)
    draws = torch.Generator().manual_seed(0)
    blank = torch.randn(ivar.shape, generator=draws) / ivar.clamp(min=1e-9).sqrt()
    inside = torch.nn.functional.pad(torch.ones_like(image.flux), pad) > 0
    flux = torch.where(inside, torch.nn.functional.pad(image.flux, pad), blank)
    return Image(flux, torch.where(inside, torch.nn.functional.pad(image.ivar, pad), ivar), image.bands)


def light(
    image: Tensor, scale: float, largest: float = RADIUS, centre: tuple[float, float] | None = None
) -> tuple[Tensor, Tensor]:
    """Measures stamps `(B, H, W)` in an aperture.

    Arguments:
        image: flux per pixel.
        scale: arcsec per pixel.
        largest: radius of the aperture in arcsec, at most half of the stamp.
        centre: row and column; the middle by default.

    Returns:
        total flux and half-light radius in arcsec, each `(B,)`.
    """
    middle = [(n - 1) / 2 for n in image.shape[1:]] if centre is None else centre
    rows, columns = (torch.arange(n) - at for n, at in zip(image.shape[1:], middle, strict=True))
    radius = (rows[:, None] ** 2 + columns**2).sqrt() * scale
    edges = torch.linspace(0.1, min(largest, scale * min(image.shape[1:]) / 2), 100)
    weight = ((edges[:, None, None] - radius) / scale + 0.5).clamp(0, 1)
    growth = image.flatten(1).double() @ weight.flatten(1).double().T
    share = growth / growth[:, -1:]
    after = (share >= 0.5).float().argmax(1).clamp(min=1)
    low, high = (share.gather(1, (after - k)[:, None])[:, 0] for k in (1, 0))
    part = ((0.5 - low) / (high - low).clamp(min=1e-9)).clamp(0, 1)
    return growth[:, -1], edges[after - 1] + part * (edges[after] - edges[after - 1])


def _codebooks(tokenizer: Tokenizer, ids: Tensor) -> list[tuple[int, int]]:
    """Returns the size of each codebook, of the octaves and of spots, and how many of its codes are used."""
    starts = tokenizer.patches.starts
    used = ids.unique()
    inside = [(b - a, int(((used >= a) & (used < b)).sum())) for a, b in pairwise(starts)]
    return [pair for pair in inside if pair[0]]


def _bits(tokenizer: Tokenizer, tokens: Tokens) -> Tensor:
    """Returns the logarithm of the number of ids possible for the tokens of each object, `(B,)`."""
    starts = torch.tensor(tokenizer.patches.starts)
    sizes = starts.diff().clamp(min=1).double().log2()
    return (sizes[torch.bucketize(tokens.ids, starts[1:], right=True)] * tokens.valid).sum(1)


@torch.no_grad()
def _quality(tokenizer: Tokenizer, noisy: list[Image], clean: list[Image]) -> dict:
    """Compares what is decoded with what was observed (chi-square) and with what is true (flux and radius, in r)."""
    chi2, flux, radius, ratio, bits, ids = [], [], [], [], [], []
    for seen, true in zip(noisy, clean, strict=True):
        tokens = tokenizer.encode(seen)
        decoded = tokenizer.decode(tokens, like=seen)
        residual = (seen.flux - decoded.flux).double().square() * seen.ivar * seen.measured
        chi2.append(residual.flatten(1).sum(1) / seen.measured.flatten(1).sum(1))
        ids.append(tokens.ids[tokens.valid])
        bits.append(_bits(tokenizer, tokens))
        band, scale = _red(seen.bands), float(seen.pixel_scale.flatten()[0])
        (f, r), (f0, r0) = light(decoded.flux[:, band], scale), light(true.flux[:, band], scale)
        weight = seen.ivar[:, band].double() * true.flux[:, band].double() ** 2
        whole = seen.measured[:, band].flatten(1).float().mean(1) > 0.8
        ratio.append(torch.where(whole, weight.flatten(1).sum(1).sqrt(), 0.0))
        flux.append((f / f0 - 1).abs())
        radius.append((r / r0 - 1).abs())
    chi2, flux, radius, ratio, bits, ids = map(torch.cat, (chi2, flux, radius, ratio, bits, ids))
    bright = ratio >= 20
    return {
        "n": len(chi2),
        "bits": round(bits.double().mean().item(), 1),
        "chi2_mean": round(chi2.mean().item(), 4),
        "chi2_median": round(chi2.median().item(), 4),
        "bright": int(bright.sum()),
        "flux_error_percent": round(100 * flux[bright].median().item(), 3),
        "flux_within_2_percent": round((flux[bright] < 0.02).float().mean().item(), 4),
        "radius_error_percent": round(100 * radius[bright].median().item(), 3),
        "radius_within_5_percent": round((radius[bright] < 0.05).float().mean().item(), 4),
        "codes": [round(used / size, 4) for size, used in _codebooks(tokenizer, ids)],
    }


def _red(bands: tuple[str, ...]) -> int:
    return next(k for k, band in enumerate(bands) if band.endswith("-r"))


@torch.no_grad()
def _real(tokenizer: Tokenizer, path: Path) -> dict:
    """Measures the HSC cut-out of the scarlet repository: noise, and flux and radius of its sources in 1.5 arcsec."""
    file = np.load(path, allow_pickle=False)
    flux = torch.as_tensor(file["images"] * 10 ** (-0.4 * (27.0 - 22.5)))  # HSC counts have a zero point of 27
    # The file has no variance: the noise of the sky is taken from the differences of neighbours.
    sigma = 1.4826 * flux.diff(dim=2).abs().flatten(1).median(1).values / 2**0.5
    ivar = (sigma**-2)[:, None, None].expand_as(flux)
    image = Image(flux[None], ivar[None], tuple(f"hsc-{str(band).lower()}" for band in file["filters"]))
    tokens = tokenizer.encode(image)
    decoded = tokenizer.decode(tokens, like=image)
    chi2 = ((image.flux - decoded.flux).double().square() * image.ivar).mean().item()
    scale, band, errors = float(image.pixel_scale.flatten()[0]), _red(image.bands), []
    for source in file["catalog"]:
        at = float(source["y"]), float(source["x"])
        (f, r), (f0, r0) = (light(x.flux[:, band], scale, 1.5, at) for x in (decoded, image))
        if f0 > 20 * sigma[band] * (math.pi * 1.5**2 / scale**2) ** 0.5:
            errors.append(((f / f0 - 1).abs().item(), (r / r0 - 1).abs().item()))
    flux_error, radius_error = (float(np.median(x)) for x in zip(*errors, strict=True))
    return {
        "n": 1,
        "bits": round(_bits(tokenizer, tokens).item(), 1),
        "chi2_mean": round(chi2, 4),
        "bright": len(errors),
        "flux_error_percent": round(100 * flux_error, 3),
        "radius_error_percent": round(100 * radius_error, 3),
        "codes": None,
    }


def image_rows(tokenizer: Tokenizer, count: int, real: Path | None = None) -> dict:
    """Measures every kind of stamp that the sky makes and the tokenizer reads, and the real one if it is there.

    Arguments:
        tokenizer: what is measured.
        count: simulated objects of each kind.
        real: `hsc_cosmos.npz` of the scarlet repository (MIT), which is not distributed with this one.
    """
    out = {}
    for name in SIMULATED:
        try:
            sky = Sky(modalities=[name], complete=True)
            chunks = [torch.arange(first, first + CHUNK) for first in range(0, count, CHUNK)]
            noisy = [sky.observe(chunk)[name] for chunk in chunks]
            tokenizer.encode(noisy[0])
        except ValueError as error:
            out[f"simulated: {name}"] = {"refused": str(error)}
            continue
        clean = [sky.observe(chunk, noise=False)[name] for chunk in chunks]
        out[f"simulated: {name}"] = _quality(tokenizer, noisy, clean)
    if real is not None and real.is_file():
        try:
            out["real: HSC cut-out"] = _real(tokenizer, real)
        except ValueError as error:
            out["real: HSC cut-out"] = {"refused": str(error)}
    else:
        print(f"no real images at {real}: give --hsc, the file hsc_cosmos.npz of the test data of scarlet (MIT)")
    return out
