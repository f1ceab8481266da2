"""What tokenizers of scalars, catalogues and maps keep of simulated objects that nothing was fitted to."""

__all__ = ["catalog_row", "field_row", "scalar_rows"]

import warnings

from pathlib import Path

import torch

from aion import Catalog, Field, Scalar
from aion.observations import Observation
from aion.sky import Sky
from aion.tokenizers import Tokenizer
from aion.tokenizers.store import load

CHUNK = 500


def _seen(names: list[str], count: int, **sky: object) -> dict[str, Observation]:
    """Observes objects of the simulated sky below `aion.recipes.HELD_OUT`."""
    source = Sky(modalities=names, **sky)
    parts = [source.observe(torch.arange(start, start + CHUNK)) for start in range(0, count, CHUNK)]
    return {name: type(parts[0][name]).stack([part[name] for part in parts]) for name in names}


def _used(tokenizer: Tokenizer, ids: torch.Tensor) -> float:
    return round(ids.unique().numel() / tokenizer.size, 4)


def scalar_rows(folder: Path, count: int) -> dict[str, dict]:
    """Measures a family of scalar tokenizers, by the names of their folders.

    The error is that of the transformed value in half widths of its bin (see `ScalarTokenizer.residual`), of values
    within the edges; the share of codes that of the component that uses fewest.
    """
    names = sorted(path.parent.name for path in folder.glob("*/config.json"))
    rows = {}
    for name, seen in _seen(names, count).items():
        assert isinstance(seen, Scalar)
        tokenizer = load(folder / name)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # of values beyond the edges: they are counted here
            tokens, clipped = tokenizer.encode(seen), tokenizer.clipped(seen)
            inside = tokenizer.residual(seen)[~clipped]
        ids = [tokens.ids[:, k][tokens.valid[:, k]] for k in range(tokens.ids.shape[1])]
        rows[name] = {
            "values": int(tokens.valid.sum()),
            "largest_error_in_half_bins": round(inside[~inside.isnan()].max().item(), 4),
            "clipped": round((clipped.sum() / tokens.valid.sum()).item(), 6),
            "codes_used": min(_used(tokenizer, column) for column in ids),
        }
    return rows


def catalog_row(tokenizer: Tokenizer, count: int) -> dict:
    """Measures a tokenizer of catalogues: rms error of each column, and the share of codes used."""
    seen = _seen(["legacysurvey_catalog"], count, complete=True)["legacysurvey_catalog"]
    assert isinstance(seen, Catalog)
    tokens = tokenizer.encode(seen)
    errors = {key: float(f"{value.sqrt().item():.3g}") for key, value in tokenizer.loss(seen).items()}
    ids = tokens.ids[tokens.valid]
    return {"n": len(seen), "ellipses": int(seen.measured.sum()), "rms": errors, "codes_used": _used(tokenizer, ids)}


@torch.no_grad()
def field_row(tokenizer: Tokenizer, count: int) -> dict:
    """Measures a tokenizer of maps: mean squared error, overlap of what is above 0.1, the share of codes used."""
    name = "legacysurvey_segmentation_map"
    seen = _seen([name], count, galaxies=0.95, max_redshift=0.6, complete=True)[name]
    assert isinstance(seen, Field)
    tokens = [tokenizer.encode(seen[start : start + CHUNK]) for start in range(0, count, CHUNK)]
    decoded = [tokenizer.decode(t, seen[k * CHUNK : (k + 1) * CHUNK]).value for k, t in enumerate(tokens)]
    value, measured = torch.cat(decoded), seen.measured
    error = (value - seen.value)[measured]
    one, other = value[measured] > 0.1, seen.value[measured] > 0.1
    ids = torch.cat([t.ids[t.valid] for t in tokens])
    return {
        "n": count,
        "mse": round(error.square().mean().item(), 5),
        "iou": round(((one & other).sum() / (one | other).sum()).item(), 4),
        "tokens": tokens[0].ids.shape[1],
        "codes_used": _used(tokenizer, ids),
    }
