"""What a spectrum tokenizer keeps: the measures of the table, on any tokenizer and on the components of `pca.py`."""

__all__ = ["Contender", "agreement", "matching", "noise_doubling", "probe", "quality", "ratio", "throughput"]

import math
import statistics
import time

from collections.abc import Callable

import numpy as np
import torch

from pca import Components
from torch import Tensor

from aion.observations import Spectrum
from aion.tokenizers import Tokenizer
from aion.tokenizers.ladder import Ladder

CHUNK = 32


class Contender:
    """Gives tokenizers and components one face.

    Arguments:
        name: for the table.
        codec: a tokenizer with `embed`, or `Components`.
    """

    def __init__(self, name: str, codec: Tokenizer | Components) -> None:
        self.name, self.codec = name, codec
        self.used: dict[tuple[int, int], set[int]] = {}

    @torch.no_grad()
    def round_trip(self, spectrum: Spectrum) -> tuple[Tensor, Tensor, Tensor]:
        """Returns decoded flux `(B, L)`, where it is known `(B, L)`, and bits `(B,)`."""
        parts = [self._round_trip(spectrum[i : i + CHUNK]) for i in range(0, len(spectrum), CHUNK)]
        return tuple(torch.cat(part) for part in zip(*parts, strict=True))

    def _round_trip(self, spectrum: Spectrum) -> tuple[Tensor, Tensor, Tensor]:
        if isinstance(self.codec, Components):
            flux, known = self.codec.round_trip(spectrum)
            return flux, known, torch.full((len(spectrum),), float(self.codec.total))
        tokens = self.codec.encode(spectrum)
        decoded = self.codec.decode(tokens, like=spectrum)
        possible = self.codec.possible(tokens.position)
        if possible is None:
            possible = torch.ones(*tokens.ids.shape, self.codec.size, dtype=torch.bool)
        choices, first = possible.sum(-1), possible.long().argmax(-1)
        for kind in torch.stack([first, choices], -1)[tokens.valid].unique(dim=0).tolist():
            of_kind = tokens.valid & (first == kind[0]) & (choices == kind[1])
            self.used.setdefault(tuple(kind), set()).update(tokens.ids[of_kind].unique().tolist())
        return decoded.flux, decoded.measured, (choices.clamp(min=1).log2() * tokens.valid).sum(1)

    def codes_used(self) -> dict[str, float]:
        """Returns the share of the ids that were ever used, for each range of ids that is possible at some place."""
        return {
            f"ids {first} to {first + count - 1}": round(len(ids) / count, 4)
            for (first, count), ids in sorted(self.used.items())
        }

    @torch.no_grad()
    def embed(self, spectrum: Spectrum) -> tuple[Tensor, Tensor]:
        """Returns the continuous embedding `(B, N, D)` and which of the N are measured."""
        if isinstance(self.codec, Components):
            return self.codec.coefficients(spectrum)[:, None], torch.ones(len(spectrum), 1, dtype=torch.bool)
        parts = [self.codec.embed(spectrum[i : i + CHUNK]) for i in range(0, len(spectrum), CHUNK)]
        length = max(valid.shape[1] for _, valid in parts)
        pad = [length - valid.shape[1] for _, valid in parts]
        vectors = [torch.nn.functional.pad(v, (0, 0, 0, p)) for (v, _), p in zip(parts, pad, strict=True)]
        valid = [torch.nn.functional.pad(m, (0, p)) for (_, m), p in zip(parts, pad, strict=True)]
        return torch.cat(vectors), torch.cat(valid)

    def pooled(self, spectrum: Spectrum) -> Tensor:
        """Returns the mean embedding of the measured tokens, `(B, D)`."""
        vectors, valid = self.embed(spectrum)
        return (vectors * valid[..., None]).sum(1) / valid.sum(1, keepdim=True).clamp(min=1)


def ratio(spectrum: Spectrum) -> Tensor:
    """Returns the median S/N per pixel, `(B,)`."""
    value = (spectrum.flux * spectrum.ivar.sqrt()).masked_fill(~spectrum.measured, math.nan)
    return value.nanmedian(1).values


def quality(contender: Contender, spectrum: Spectrum, clean: Spectrum | None = None) -> dict[str, float]:
    """Measures a round trip of spectra: R2 of median-normalised flux, residuals, reduced chi-square, bits.

    R2 is that of all pixels of all spectra together, each spectrum divided by the median of its |flux|; the residual
    in per cent is the median over pixels of |decoded - flux| / |flux|. Pixels beyond what a contender reads are left
    out; `coverage` is the share of the measured pixels that is left.
    """
    flux, known, bits = contender.round_trip(spectrum)
    use = known & spectrum.measured
    if not use.any():
        msg = f"{contender.name} reads no pixel of these spectra"
        raise ValueError(msg)
    median = spectrum.flux.abs().masked_fill(~spectrum.measured, math.nan).nanmedian(1, keepdim=True).values
    residual = (spectrum.flux - flux).double()
    chi2 = (residual.square() * spectrum.ivar * use).sum(1) / use.sum(1).clamp(min=1)
    normal, error = (spectrum.flux / median).double()[use], (residual / median)[use]
    share = (residual.abs() / spectrum.flux.abs().clamp(min=1e-30))[use]
    own = [_r2((spectrum.flux / median).double()[i][use[i]], (residual / median)[i][use[i]]) for i in range(len(use))]
    true = {}
    if clean is not None:
        true["r2_clean"] = round(
            _r2((clean.flux / median).double()[use], ((clean.flux - flux) / median).double()[use]), 5
        )
    return {
        "n": len(spectrum),
        "coverage": round((use.sum() / spectrum.measured.sum()).item(), 4),
        "bits": round(bits.mean().item(), 1),
        "r2": round(_r2(normal, error), 5),
        **true,
        "r2_median_object": round(statistics.median(own), 5),
        "residual_percent": round(100 * share.median().item(), 3),
        "chi2_median": round(chi2.median().item(), 3),
        "chi2": [round(value, 3) for value in chi2.tolist()] if len(spectrum) <= 12 else None,
        "snr_median": round(ratio(spectrum).median().item(), 2),
    }


def _r2(value: Tensor, error: Tensor) -> float:
    return (1 - error.square().sum() / (value - value.mean()).square().sum()).item()


def agreement(contender: Contender, one: Spectrum, other: Spectrum) -> dict[str, float]:
    """Compares the pooled embeddings of the same objects seen by two instruments, row by row.

    The cosine is given as it is and after the mean of all embeddings (the mean spectrum) is taken off; the nearest
    neighbour by either, among all objects as the other instrument saw them.
    """
    a, b = contender.pooled(one), contender.pooled(other)
    out = {"n": len(a)}
    middle = (a.mean(0) + b.mean(0)) / 2
    for label, shift in (("", 0.0), ("_centred", middle)):
        x, y = (torch.nn.functional.normalize(v - shift, dim=1) for v in (a, b))
        cosine = x @ y.T
        out[f"cosine{label}"] = round(cosine.diagonal().mean().item(), 4)
        rows = torch.arange(len(a))
        found = ((cosine.argmax(1) == rows).float().mean() + (cosine.argmax(0) == rows).float().mean()) / 2
        out[f"nearest{label}"] = round(found.item(), 4)
    return out


def matching(one: Spectrum, other: Spectrum, step: float = 0.00125, smooth: int = 81) -> dict[str, float]:
    """Finds the same objects by their spectra themselves: what there is to be found, known noise and no training.

    Both are summed up in the same cells, divided by their medians, freed of what is smooth over `smooth` cells
    (calibrations differ), and compared by chi-square, with 2 % of the flux for what calibration leaves.
    """
    ladder = Ladder(3500.0, 10500.0, step, 1, (0,))
    (flux, weight), (flux2, weight2) = (_cells(spectrum, ladder, smooth) for spectrum in (one, other))
    nearest = []
    for row in range(len(one)):
        both = (weight[row] > 0) & (weight2 > 0)
        noise = 1 / weight[row].clamp(min=1e-12) + 1 / weight2.clamp(min=1e-12)
        chi2 = torch.where(both, (flux[row] - flux2).square() / noise, 0.0).sum(1) / both.sum(1).clamp(min=1)
        nearest.append(int(chi2.argmin()))
    found = torch.tensor(nearest) == torch.arange(len(one))
    return {"n": len(one), "nearest": round(found.double().mean().item(), 4)}


def _cells(spectrum: Spectrum, ladder: Ladder, smooth: int) -> tuple[Tensor, Tensor]:
    """Sums spectra up in cells: flux without its smooth part, and its ivar with an error of 2 % of the flux."""
    window = ladder.window(0, torch.ones(1, ladder.total(0), dtype=torch.bool))
    node, inside = ladder.nodes(spectrum.wavelength, 0)
    used = inside & spectrum.measured
    scale = torch.where(used, spectrum.flux.abs(), torch.nan).nanmedian(1, keepdim=True).values
    ivar = spectrum.ivar * scale**2
    weight, total = window.share(node, used, 1, ivar, ivar * spectrum.flux / scale)
    flux = total / weight.clamp(min=1e-12)

    def mean(values: Tensor) -> Tensor:
        return torch.nn.functional.avg_pool1d(values[:, None], smooth, 1, smooth // 2, count_include_pad=False)[:, 0]

    rough = flux - mean(flux * weight) / mean(weight).clamp(min=1e-12)
    return rough, torch.where(weight > 0, 1 / (1 / weight.clamp(min=1e-12) + (0.02 * flux) ** 2), 0.0)


def noise_doubling(contender: Contender, spectrum: Spectrum, seed: int = 0) -> dict[str, float]:
    """Doubles the noise of half of the pixels and compares what is decoded at the others with their own errors."""
    draws = torch.Generator().manual_seed(seed)
    noisy = torch.rand(spectrum.flux.shape, generator=draws) < 0.5
    sigma = spectrum.ivar.clamp(min=1e-30).rsqrt()
    added = 3**0.5 * sigma * torch.randn(spectrum.flux.shape, generator=draws) * (noisy & spectrum.measured)
    changed = Spectrum(spectrum.flux + added, torch.where(noisy, spectrum.ivar / 4, spectrum.ivar), spectrum.wavelength)
    before, known, _ = contender.round_trip(spectrum)
    after, still, _ = contender.round_trip(changed)
    use = known & still & spectrum.measured & ~noisy
    change = ((after - before).abs() / sigma).double()
    per_object = ((change**2 * use).sum(1) / use.sum(1).clamp(min=1)).sqrt()
    return {
        "n": len(spectrum),
        "rms_change_over_error": round(per_object.median().item(), 3),
        "largest_object": round(per_object.max().item(), 3),
        "pixels_below_error": round((change[use] < 1).double().mean().item(), 4),
    }


def probe(
    features: np.ndarray, targets: dict[str, np.ndarray], groups: np.ndarray, counts: tuple[int, ...] = (40, 150)
) -> dict[str, dict[str, float]]:
    """Predicts labels from features by 5-fold cross-validation over groups, by ridge and by kernel ridge.

    Features are standardised and reduced to principal components, and strengths and the width of the kernel chosen,
    inside each fold; the last model is a kernel ridge of the features themselves. Returns R2 over all folds by label
    and by model.
    """
    from sklearn.decomposition import PCA
    from sklearn.model_selection import GroupKFold
    from sklearn.preprocessing import StandardScaler

    predicted: dict[str, dict[str, np.ndarray]] = {label: {} for label in targets}
    for train, test in GroupKFold(5).split(features, groups=groups):
        scaler = StandardScaler().fit(features[train])
        reducer = PCA(min(len(train) - 1, features.shape[1]), svd_solver="full")
        known = reducer.fit_transform(scaler.transform(features[train]))
        asked = reducer.transform(scaler.transform(features[test]))
        for label, target in targets.items():
            mean, spread = target[train].mean(), target[train].std()
            for count in counts:
                for name, model in _models(min(count, known.shape[1])).items():
                    model.fit(known[:, :count], (target[train] - mean) / spread)
                    out = predicted[label].setdefault(f"PCA {count}, {name}", np.zeros(len(target)))
                    out[test] = model.predict(asked[:, :count]) * spread + mean
            model = _kernel(features.shape[1]).fit(known, (target[train] - mean) / spread)
            out = predicted[label].setdefault("all, kernel ridge", np.zeros(len(target)))
            out[test] = model.predict(asked) * spread + mean
    return {
        label: {
            name: round(1 - float(((y - p) ** 2).sum() / ((y - y.mean()) ** 2).sum()), 4) for name, p in found.items()
        }
        for (label, found), y in zip(predicted.items(), targets.values(), strict=True)
    }


def _models(count: int) -> dict[str, object]:
    """Returns regressors of `count` principal components that choose their own strengths."""
    from sklearn.kernel_ridge import KernelRidge
    from sklearn.linear_model import RidgeCV
    from sklearn.model_selection import GridSearchCV
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    grid = {"kernelridge__alpha": [1e-3, 1e-2, 1e-1], "kernelridge__gamma": [g / count for g in (0.01, 0.03, 0.1)]}
    kernel = make_pipeline(StandardScaler(), KernelRidge(kernel="rbf"))
    return {"ridge": RidgeCV(np.logspace(-2, 5, 15)), "kernel ridge": GridSearchCV(kernel, grid, cv=3)}


def _kernel(features: int) -> object:
    """Returns a kernel ridge on all principal components of standardised features, as large as they are."""
    from sklearn.kernel_ridge import KernelRidge
    from sklearn.model_selection import GridSearchCV

    grid = {"alpha": [1e-3, 1e-2], "gamma": [share / features for share in (0.01, 0.03, 0.1)]}
    return GridSearchCV(KernelRidge(kernel="rbf"), grid, cv=3)


def throughput(encode: Callable[[], object], objects: int, repeats: int = 7) -> float:
    """Returns objects per second, the median of some repeats after one to warm up."""
    seconds = []
    with torch.no_grad():
        encode()
        for _ in range(repeats):
            start = time.perf_counter()
            encode()
            seconds.append(time.perf_counter() - start)
    return round(objects / statistics.median(seconds), 2)
