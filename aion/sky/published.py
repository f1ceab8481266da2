"""What is published of each survey that the sky is seen by: seeing, depth, calibration and scale, with the sources.

The one place where these numbers stand. Images, photometry and spectra take them from here. For DECam's i, which the
Legacy Surveys have in places only, seeing and depth are plausible and not published medians.
"""

__all__ = ["EXTINCTION", "PUBLISHED", "Published"]

from dataclasses import dataclass

from aion.observations import PIXEL_SCALES

_DEY = (
    "Overview of the DESI Legacy Imaging Surveys (Dey et al., 2019), arXiv 1804.08657; depth predicted for two "
    "observations: legacysurvey.org/dr9/description"
)
_HSC = "First data release of the Hyper Suprime-Cam Subaru Strategic Program (Aihara et al., 2018), arXiv 1702.08449"
_WISE = "The Wide-field Infrared Survey Explorer (Wright et al., 2010), arXiv 1008.0031; ivar of DR9 rows"
_DESI = (
    "Overview of the instrumentation for the Dark Energy Spectroscopic Instrument (Abareshi et al., 2022), arXiv "
    "2205.10939; The spectroscopic data processing pipeline for DESI (Guy et al., 2023), arXiv 2209.14482"
)
_SDSS = "The multi-object, fiber-fed spectrographs for SDSS and BOSS (Smee et al., 2013), arXiv 1208.2233"
_GAIA = (
    "Gaia Data Release 3: Summary of the content (Vallenari et al., 2023), arXiv 2208.00211; BP/RP spectra (De Angeli "
    "et al., 2023), arXiv 2206.06143"
)


@dataclass(frozen=True)
class Published:
    """Says how well a survey sees.

    Arguments:
        scale: arcsec per pixel of images; Angstrom per pixel of spectra, the smallest.
        seeing: median FWHM of the point-spread function in arcsec, by band; the fibre's diameter of a spectrograph.
        depth: AB magnitude of a point source at 5 sigma, by band; of Gaia the faintest published, `xp` with spectra.
        calibration: relative error of the flux scale.
        source: where it is published.
    """

    scale: float
    seeing: dict[str, float]
    depth: dict[str, float]
    calibration: float
    source: str

    @property
    def sigma(self) -> dict[str, float]:
        """Returns the error of the flux of a point source in nanomaggy, by band."""
        return {band: 0.2 * 10 ** (-0.4 * (depth - 22.5)) for band, depth in self.depth.items()}


PUBLISHED: dict[str, Published] = {
    "decam": Published(
        scale=PIXEL_SCALES["decam"],
        seeing={"g": 1.29, "r": 1.18, "i": 1.15, "z": 1.11},
        depth={"g": 24.7, "r": 23.9, "i": 23.5, "z": 23.0},
        calibration=0.01,
        source=_DEY,
    ),
    "wise": Published(
        scale=PIXEL_SCALES["wise"],
        seeing={"w1": 6.1, "w2": 6.4, "w3": 6.5, "w4": 12.0},
        depth={"w1": 21.27, "w2": 20.39, "w3": 16.89, "w4": 14.52},
        calibration=0.02,
        source=_WISE,
    ),
    "hsc": Published(
        scale=PIXEL_SCALES["hsc"],
        seeing={"g": 0.72, "r": 0.67, "i": 0.56, "z": 0.63, "y": 0.64},
        depth={"g": 26.8, "r": 26.4, "i": 26.4, "z": 25.5, "y": 24.7},
        calibration=0.01,
        source=_HSC,
    ),
    "desi_spectrum": Published(scale=0.8, seeing={"fibre": 1.5}, depth={}, calibration=0.025, source=_DESI),
    "sdss_spectrum": Published(scale=0.8, seeing={"fibre": 3.0}, depth={}, calibration=0.04, source=_SDSS),
    "gaia": Published(scale=0.059, seeing={"g": 0.18}, depth={"g": 20.7, "xp": 17.65}, calibration=0.002, source=_GAIA),
}

# A / E(B-V) by band, for the E(B-V) of Schlegel, Finkbeiner & Davis (1998). DECam and WISE: catalogues of the Legacy
# Surveys (legacysurvey.org/dr10/catalogs); HSC: its pipeline (github.com/lsst/obs_subaru); SDSS: Schlafly & Finkbeiner
# (2011), arXiv 1012.4804, R_V = 3.1.
EXTINCTION = {
    f"{survey}-{band}": value
    for survey, values in {
        "decam": {"g": 3.214, "r": 2.165, "i": 1.592, "z": 1.211},
        "wise": {"w1": 0.184, "w2": 0.113, "w3": 0.0241, "w4": 0.0091},
        "hsc": {"g": 3.240, "r": 2.276, "i": 1.633, "z": 1.263, "y": 1.075},
        "sdss": {"u": 4.239, "g": 3.303, "r": 2.285, "i": 1.698, "z": 1.263},
    }.items()
    for band, value in values.items()
}
