"""Names of what the sky is seen by, of what is true of an object, and the units of both."""

__all__ = ["LABELS", "MODALITIES", "OPTIONAL", "UNITS"]

from aion.sky.cameras import HSC, LEGACY
from aion.sky.spectra import INSTRUMENTS
from aion.sky.stellar import SURVEYS
from aion.sky.templates import BANDS

LEGACY_BANDS = tuple(band for band in BANDS if band.split("-")[0] in ("decam", "wise"))
GAIA_BANDS = tuple(band for band in BANDS if band.startswith("gaia-"))
CAMERAS = {"legacysurvey_image": LEGACY, "hsc_image": HSC}

LEGACY_FLUXES = tuple(f"legacysurvey_flux_{band.split('-')[1]}" for band in LEGACY_BANDS)
LEGACY_SHAPES = ("legacysurvey_ebv", "legacysurvey_shape_r", "legacysurvey_shape_e1", "legacysurvey_shape_e2")
GAIA = (
    "gaia_bp_coefficients",
    "gaia_rp_coefficients",
    "gaia_flux_g",
    "gaia_flux_bp",
    "gaia_flux_rp",
    "gaia_parallax",
)
HSC_NUMBERS = (
    *(f"hsc_mag_{band}" for band in "grizy"),
    *(f"hsc_extinction_{band}" for band in "grizy"),
    *(f"hsc_shape{part}" for part in ("11", "22", "12")),
)
PATTERN_MAPS = {"legacysurvey_arms_map": "arms", "legacysurvey_bar_map": "bar"}
MAPS = ("legacysurvey_catalog", "legacysurvey_segmentation_map", *PATTERN_MAPS)

MODALITIES = (*INSTRUMENTS, "legacysurvey_image", *LEGACY_FLUXES, *LEGACY_SHAPES, *GAIA, "redshift", "ra", "dec")
OPTIONAL = (*SURVEYS, "hsc_image", *HSC_NUMBERS, *MAPS)  # simulated only if asked for by name

# What `Sky.labels` returns, with units; "" for plain numbers.
LABELS = {
    "kind": "",
    "redshift": "",
    "magnitude": "mag",
    "log_mass": "log10(solMass)",
    "mass_age": "Gyr",
    "log_age": "log10(Gyr)",
    "metallicity": "dex",
    "log_ssfr": "log10(1 / yr)",
    "burst": "",
    "dust": "mag",
    "sigma": "km / s",
    "bulge": "",
    "arms": "",
    "ring": "",
    "bar": "",
    "companion": "",
    "teff": "K",
    "logg": "log10(cm / s2)",
    "feh": "dex",
}

# Of the modalities that are numbers.
UNITS = {
    **dict.fromkeys(LEGACY_FLUXES, "nmgy"),
    "legacysurvey_ebv": "mag",
    "legacysurvey_shape_r": "arcsec",
    **dict.fromkeys(GAIA, "electron / s"),
    "gaia_parallax": "mas",
    **{name: "arcsec2" if "shape" in name else "mag" for name in HSC_NUMBERS},
    "ra": "deg",
    "dec": "deg",
}
