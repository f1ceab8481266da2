r"""What the published AION-1 checkpoints call things, and what we call them.

`PUBLISHED` holds all 40 modalities by our name. In the files of a checkpoint a modality goes by its `key` (the names of
tensors in the transformer, the lists in `config.json`) and its tokenizer lies in the folder `codecs/<folder>/`; two
modalities of one folder share a tokenizer. `vocabulary` is the number of ids that the transformer embeds, which may be
more than the tokenizer makes. `grid` is the (rows, columns) of an image or map, and (1, N) for a sequence of N tokens:
the fixed positions of its tokens are (row, column) and (0, n).

| ours | key | codec folder | codec class | class | ids | tokens | unit |
|---|---|---|---|---|---|---|---|
| `legacysurvey_image` | `tok_image` | `image` | ImageCodec | LegacySurveyImage | 4375 | 24 x 24 | nanomaggy |
| `hsc_image` | `tok_image_hsc` | `image` | ImageCodec | HSCImage | 4375 | 24 x 24 | nanomaggy |
| `legacysurvey_segmentation_map` | `tok_segmap` | `segmentation_map` | ScalarFieldCodec | LegacySurveySegmentationMap | 1000 | 12 x 12 | 0 to 1 |
| `legacysurvey_catalog` | `catalog` | `catalog` | CatalogCodec | LegacySurveyCatalog | 3468 | up to 50 | arcsec |
| `desi_spectrum` | `tok_spectrum_desi` | `spectrum` | SpectrumCodec | DESISpectrum | 1024 | 273 | 1e-17 erg/s/cm2/A |
| `sdss_spectrum` | `tok_spectrum_sdss` | `spectrum` | SpectrumCodec | SDSSSpectrum | 1024 | 273 | 1e-17 erg/s/cm2/A |
| `gaia_bp_coefficients` | `tok_xp_bp` | `bp_coefficients` | MultiScalarCodec | GaiaXpBp | 1024 | 55 | as published |
| `gaia_rp_coefficients` | `tok_xp_rp` | `rp_coefficients` | MultiScalarCodec | GaiaXpRp | 1024 | 55 | as published |
| `gaia_flux_g`, `_bp`, `_rp` | `tok_flux_g_gaia`, ... | `phot_g_mean_flux`, ... | LogScalarCodec | GaiaFluxG, ... | 1024 | 1 | e-/s |
| `gaia_parallax` | `tok_parallax` | `parallax` | LogScalarCodec | GaiaParallax | 1024 | 1 | mas |
| `legacysurvey_flux_g`, `_r`, `_i`, `_z`, `_w1` to `_w4` | `tok_flux_g`, ... | `FLUX_G`, ... | LogScalarCodec | LegacySurveyFluxG, ... | 1024 | 1 | nanomaggy |
| `legacysurvey_shape_r` | `tok_shape_r` | `SHAPE_R` | LogScalarCodec | LegacySurveyShapeR | 1024 | 1 | arcsec |
| `legacysurvey_shape_e1`, `_e2` | `tok_shape_e1`, ... | `SHAPE_E1`, ... | ScalarCodec | LegacySurveyShapeE1, ... | 1024 | 1 | - |
| `legacysurvey_ebv` | `tok_ebv` | `EBV` | ScalarCodec | LegacySurveyEBV | 1024 | 1 | mag |
| `hsc_mag_g`, `_r`, `_i`, `_z`, `_y` | `tok_mag_g`, ... | `g_cmodel_mag`, ... | ScalarCodec | HSCMagG, ... | 1024 | 1 | AB mag |
| `hsc_extinction_g`, `_r`, `_i`, `_z`, `_y` | `tok_a_g`, ... | `a_g`, ... | ScalarCodec | HSCAG, ... | 1024 | 1 | mag |
| `hsc_shape11`, `hsc_shape12`, `hsc_shape22` | `tok_shape11`, ... | `i_sdssshape_shape11`, ... | ScalarCodec | HSCShape11, ... | 1024 | 1 | arcsec2 |
| `redshift` | `tok_z` | `Z` | GridScalarCodec | Z | 1025 | 1 | - |
| `ra`, `dec` | `tok_ra`, `tok_dec` | `ra`, `dec` | ScalarCodec | Ra, Dec | 1024 | 1 | degree |

Bands of images go by names such as `DES-G` and `HSC-G` there, which `aion.Image` takes as `decam-g` and `hsc-g`.

References:
    | AION-1: Omnimodal Foundation Model for Astronomical Sciences (Parker et al., 2025), arXiv 2510.17960
"""  # noqa: E501

__all__ = ["PUBLISHED", "Published", "name_of"]

import hashlib

from typing import NamedTuple

from aion.observations import near_miss

SEQUENCE = (1, 273)
ONE = (1, 1)


class Published(NamedTuple):
    """Holds what a published checkpoint calls one modality.

    Arguments:
        key: name in the tensors and the configuration of the transformer.
        folder: folder of the tokenizer under `codecs/`.
        codec: class of the tokenizer.
        modality: class of the modality.
        vocabulary: number of ids that the transformer embeds.
        grid: rows and columns of the tokens; `(1, 50)` is the most that a catalogue may have.
    """

    key: str
    folder: str
    codec: str
    modality: str
    vocabulary: int = 1024
    grid: tuple[int, int] = ONE

    @property
    def tokens(self) -> int:
        """Returns the number of tokens, the largest for a catalogue."""
        return self.grid[0] * self.grid[1]

    @property
    def id(self) -> int:
        """Returns the number that stands for the modality: a hash of its key in 15 bits."""
        return int(hashlib.sha256(self.key.encode()).hexdigest(), 16) % 2**15


def _table() -> dict[str, Published]:
    table = {
        "legacysurvey_image": Published("tok_image", "image", "ImageCodec", "LegacySurveyImage", 4375, (24, 24)),
        "hsc_image": Published("tok_image_hsc", "image", "ImageCodec", "HSCImage", 4375, (24, 24)),
        "legacysurvey_segmentation_map": Published(
            "tok_segmap", "segmentation_map", "ScalarFieldCodec", "LegacySurveySegmentationMap", 1000, (12, 12)
        ),
        "legacysurvey_catalog": Published("catalog", "catalog", "CatalogCodec", "LegacySurveyCatalog", 3468, (1, 50)),
        "redshift": Published("tok_z", "Z", "GridScalarCodec", "Z", 1025),
        "gaia_parallax": Published("tok_parallax", "parallax", "LogScalarCodec", "GaiaParallax"),
        "legacysurvey_ebv": Published("tok_ebv", "EBV", "ScalarCodec", "LegacySurveyEBV"),
        "legacysurvey_shape_r": Published("tok_shape_r", "SHAPE_R", "LogScalarCodec", "LegacySurveyShapeR"),
    }
    for survey in ("desi", "sdss"):
        table[f"{survey}_spectrum"] = Published(
            f"tok_spectrum_{survey}", "spectrum", "SpectrumCodec", f"{survey.upper()}Spectrum", 1024, SEQUENCE
        )
    for arm in ("bp", "rp"):
        table[f"gaia_{arm}_coefficients"] = Published(
            f"tok_xp_{arm}", f"{arm}_coefficients", "MultiScalarCodec", f"GaiaXp{arm.title()}", 1024, (1, 55)
        )
    for band in ("g", "bp", "rp"):
        table[f"gaia_flux_{band}"] = Published(
            f"tok_flux_{band}_gaia", f"phot_{band}_mean_flux", "LogScalarCodec", f"GaiaFlux{band.title()}"
        )
    for band in ("g", "r", "i", "z", "w1", "w2", "w3", "w4"):
        table[f"legacysurvey_flux_{band}"] = Published(
            f"tok_flux_{band}", f"FLUX_{band.upper()}", "LogScalarCodec", f"LegacySurveyFlux{band.upper()}"
        )
    for part in ("e1", "e2"):
        table[f"legacysurvey_shape_{part}"] = Published(
            f"tok_shape_{part}", f"SHAPE_{part.upper()}", "ScalarCodec", f"LegacySurveyShape{part.upper()}"
        )
    for band in ("g", "r", "i", "z", "y"):
        table[f"hsc_mag_{band}"] = Published(
            f"tok_mag_{band}", f"{band}_cmodel_mag", "ScalarCodec", f"HSCMag{band.upper()}"
        )
        table[f"hsc_extinction_{band}"] = Published(f"tok_a_{band}", f"a_{band}", "ScalarCodec", f"HSCA{band.upper()}")
    for part in ("11", "12", "22"):
        table[f"hsc_shape{part}"] = Published(
            f"tok_shape{part}", f"i_sdssshape_shape{part}", "ScalarCodec", f"HSCShape{part}"
        )
    for angle in ("ra", "dec"):
        table[angle] = Published(f"tok_{angle}", angle, "ScalarCodec", angle.title())
    return dict(sorted(table.items()))


PUBLISHED: dict[str, Published] = _table()


def name_of(key: str) -> str:
    """Returns our name of a modality, given its published key.

    Raises:
        ValueError: for an unknown key, with the near misses.
    """
    for name, published in PUBLISHED.items():
        if published.key == key:
            return name
    msg = f"unknown modality {key!r}; {near_miss(key, (p.key for p in PUBLISHED.values()))}"
    raise ValueError(msg)
