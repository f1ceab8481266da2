"""The simulated sky: objects by number, each seen by several surveys."""

__all__ = ["MODALITIES", "OPTIONAL", "Sky"]

import math

from collections.abc import Sequence

import torch

from torch import Tensor

from aion.observations import Image, Observation, Scalar, Spectrum, near_miss
from aion.sky.draws import Draws
from aion.sky.gaia import gaia_catalog
from aion.sky.galaxies import MAX_REDSHIFT, galaxy_parameters, galaxy_source
from aion.sky.images import HSC, LEGACY, hsc_flux, observe_image
from aion.sky.photometry import legacy_photometry, synthetic_flux
from aion.sky.source import Source
from aion.sky.spectra import INSTRUMENTS, empty_spectrum, observe_spectrum
from aion.sky.stars import star_parameters, star_source
from aion.sky.stellar import SURVEYS, empty_star, observe_star
from aion.sky.templates import BANDS, Templates

_LEGACY = tuple(f"legacysurvey_flux_{band}" for band in ("g", "r", "i", "z", "w1", "w2", "w3", "w4"))
_SHAPE = ("legacysurvey_ebv", "legacysurvey_shape_r", "legacysurvey_shape_e1", "legacysurvey_shape_e2")
_GAIA = (
    "gaia_bp_coefficients",
    "gaia_rp_coefficients",
    "gaia_flux_g",
    "gaia_flux_bp",
    "gaia_flux_rp",
    "gaia_parallax",
)
MODALITIES = (*INSTRUMENTS, "legacysurvey_image", *_LEGACY, *_SHAPE, *_GAIA, "redshift", "ra", "dec")
OPTIONAL = (*SURVEYS, "hsc_image")  # simulated only if asked for by name
_CAMERAS = {"legacysurvey_image": LEGACY, "hsc_image": HSC}
_LABELS = ("log_age", "metallicity", "dust", "burst", "sigma", "log_mass", "teff", "logg", "feh")


class Sky:
    """Simulates galaxies and stars and what DESI, SDSS, the Legacy Surveys and Gaia measure of them.

    Object `i` of a sky with seed `s` is always the same, in every batch and every order. Galactic extinction dims
    spectra, images and photometry alike, as in the published data; nothing is dereddened.

    Arguments:
        seed: any integer; each seed is another sky.
        galaxies: share of the objects that are galaxies; the others are stars.
        max_redshift: largest redshift of a galaxy, at most 1.05.
        modalities: names of what is simulated; all of `MODALITIES` by default, and those of `OPTIONAL` if named. Only
            these are computed.
        device: where everything is computed.
        varied: whether every spectrum has a grid, ends, gaps and a flux scale of its own, see `aion.sky.spectra`.
        complete: whether every object has all that is possible for its kind. By default some lack a spectrum of one
            or both instruments or the photometry; an object that lacks one has ivar 0 there, or NaN.

    Raises:
        ValueError: for an unknown modality (with the near misses), or a share or redshift out of range.
    """

    def __init__(
        self,
        seed: int = 0,
        galaxies: float = 0.75,
        max_redshift: float = 1.0,
        modalities: Sequence[str] | None = None,
        device: torch.device | str = "cpu",
        varied: bool = True,
        complete: bool = False,
    ) -> None:
        if not 0 <= galaxies <= 1:
            msg = f"Sky: galaxies is a share between 0 and 1, given {galaxies}"
            raise ValueError(msg)
        if not 0.001 <= max_redshift <= MAX_REDSHIFT:
            msg = f"Sky: the templates allow 0.001 <= max_redshift <= {MAX_REDSHIFT}, given {max_redshift}"
            raise ValueError(msg)
        if isinstance(modalities, str):
            msg = f"Sky: modalities must be a sequence of names, given the string {modalities!r}"
            raise TypeError(msg)
        self.modalities = tuple(MODALITIES if modalities is None else modalities)
        for name in self.modalities:
            if name not in (known := (*MODALITIES, *OPTIONAL)):
                msg = f"Sky: unknown modality {name!r}; {near_miss(name, known)}"
                raise ValueError(msg)
        self.seed, self.galaxies, self.max_redshift = int(seed), float(galaxies), float(max_redshift)
        self._templates = Templates.load(str(torch.device(device)))
        self.device, self.varied, self.complete = torch.device(device), bool(varied), bool(complete)

    def observe(self, indices: Sequence[int] | Tensor, noise: bool = True) -> dict[str, Observation]:
        """Observes objects.

        Arguments:
            indices: numbers of the objects, `(B,)` integers, repeated or not, in any order.
            noise: whether noise is added; without it everything else (grids, gaps, ivar, calibration) is the same.

        Raises:
            TypeError: for numbers that are not integers.
            ValueError: for no number at all, or numbers not in one row.
        """
        draws = self._draws(indices)
        parameters, star = self._parameters(draws)
        has = self._presence(draws)
        out: dict[str, Observation] = dict(self._given(draws, parameters))
        if set(self.modalities) - set(out):
            source, true = self._source(draws, parameters, star)
            for name in self._wanted(INSTRUMENTS):
                out[name] = self._spectrum(name, has[name], source, parameters, draws, noise)
            for name in self._wanted(SURVEYS):
                out[name] = self._star_spectrum(name, star, source, parameters, draws, noise)
            if self._wanted(_LEGACY):
                values = legacy_photometry(true, parameters["radius"], draws, noise)
                out |= _scalars(values, has["photometry"])
            for name in self._wanted(_CAMERAS):
                out[name] = self._image(name, has[name], true, parameters, star, draws, noise)
            if self._wanted(_GAIA):
                out |= self._gaia(star, source, true, parameters, draws, noise)
        return {name: out[name] for name in self.modalities}

    def labels(self, indices: Sequence[int] | Tensor) -> dict[str, Tensor]:
        """Returns the truth of objects, each `(B,)` float32, NaN where it has no meaning.

        `kind` (0 galaxy, 1 star), `redshift`, `magnitude` (true r, AB, as dimmed by the Milky Way), and for
        galaxies `log_age` (light-weighted, log10 Gyr), `metallicity` (log10 of solar), `dust` (E(B-V) of its own),
        `burst` (share of the light in young stars), `sigma` (km/s), `log_mass` (log10 of solar masses, from the
        magnitude and a crude mass-to-light ratio), for stars `teff` (K), `logg` (log10 cm/s2), `feh` (dex).
        """
        draws = self._draws(indices)
        parameters, star = self._parameters(draws)
        names = ("redshift", "magnitude", *_LABELS)
        return {"kind": star.float(), **{name: parameters[name].float() for name in names}}

    def _draws(self, indices: Sequence[int] | Tensor) -> Draws:
        index = torch.as_tensor(indices)
        if index.ndim != 1 or index.numel() == 0:
            msg = f"Sky: wanted one row of at least one object number, given shape {tuple(index.shape)}"
            raise ValueError(msg)
        if index.is_floating_point() or index.is_complex() or index.dtype == torch.bool:
            msg = f"Sky: object numbers are integers, given {index.dtype}"
            raise TypeError(msg)
        return Draws(self.seed, index.to(self.device, torch.int64))

    def _wanted(self, names: Sequence[str]) -> list[str]:
        return [name for name in names if name in self.modalities]

    def _parameters(self, draws: Draws) -> tuple[dict[str, Tensor], Tensor]:
        """Draws galaxies and stars for every object and keeps the one it is; the other's numbers are NaN."""
        star = draws.uniform("kind") >= self.galaxies
        galaxy, other = galaxy_parameters(draws, self.max_redshift), star_parameters(draws, self._templates)
        nan = torch.full_like(galaxy["redshift"], math.nan)
        out = {name: torch.where(star, other.get(name, nan), galaxy.get(name, nan)) for name in galaxy | other}
        for name in ("radius", "e1", "e2"):
            out[name] = torch.where(star, 0.0, out[name])
        out["ebv"] = (0.05 * torch.exp(0.6 * draws.normal("ebv"))).clamp(0.003, 0.5)
        return out, star

    def _source(self, draws: Draws, parameters: dict[str, Tensor], star: Tensor) -> tuple[Source, Tensor]:
        """Makes the light of all objects, of the right brightness, and their true fluxes in all bands."""
        parts, rows = [], []
        for kind, make in ((~star, galaxy_source), (star, star_source)):
            chosen = kind.nonzero().flatten()
            if len(chosen):
                own = {key: value[chosen] for key, value in parameters.items()}
                parts.append(make(draws[chosen], own, self._templates))
                rows.append(chosen)
        source = Source.cat(parts)[torch.cat(rows).argsort()]
        true = synthetic_flux(source, self._templates)
        factor = 10 ** (-0.4 * (parameters["magnitude"] - 22.5)) / true[:, BANDS.index("decam-r")]
        return source.scaled(factor), true * factor[:, None]

    def _presence(self, draws: Draws) -> dict[str, Tensor]:
        """Draws which surveys observed each object."""
        u, v = draws.uniform("presence"), draws.uniform("presence.legacy", count=2)
        w = draws.uniform("presence.hsc")
        if self.complete:
            u, v, w = torch.ones_like(u), torch.zeros_like(v), torch.zeros_like(w)
        return {
            "desi_spectrum": (u < 0.40) | (u >= 0.72),
            "sdss_spectrum": (u >= 0.40) & (u < 0.67) | (u >= 0.72),
            "photometry": v[:, 0] < 0.95,
            "legacysurvey_image": v[:, 1] < 0.8,
            "hsc_image": w < 0.8,
        }

    def _spectrum(
        self, name: str, has: Tensor, source: Source, parameters: dict[str, Tensor], draws: Draws, noise: bool
    ) -> Spectrum:
        """Observes those objects that the instrument observed; the others stay unmeasured."""
        values = empty_spectrum(name, len(draws), self.device)
        rows = has.nonzero().flatten()
        if len(rows):
            magnitude = parameters["magnitude"][rows]
            seen = observe_spectrum(
                name, source[rows], magnitude, draws[rows], self._templates, varied=self.varied, noise=noise
            )
            values = tuple(empty.index_copy(0, rows, new) for empty, new in zip(values, seen, strict=True))
        return Spectrum(*values)

    def _star_spectrum(
        self, name: str, star: Tensor, source: Source, parameters: dict[str, Tensor], draws: Draws, noise: bool
    ) -> Spectrum:
        """Observes those stars that a survey of stars observed: four of ten, if they are not to be complete."""
        values = empty_star(name, len(draws), self.device)
        has = star & (self.complete | (draws.uniform(f"presence.{name}") < 0.4))
        rows = has.nonzero().flatten()
        if len(rows):
            own = {key: value[rows] for key, value in parameters.items()}
            seen = observe_star(name, source[rows], own, draws[rows], varied=self.varied, noise=noise)
            values = tuple(empty.index_copy(0, rows, new) for empty, new in zip(values, seen, strict=True))
        return Spectrum(*values)

    def _image(
        self,
        name: str,
        has: Tensor,
        true: Tensor,
        parameters: dict[str, Tensor],
        star: Tensor,
        draws: Draws,
        noise: bool,
    ) -> Image:
        """Observes those objects that were imaged; the others stay unmeasured."""
        camera = _CAMERAS[name]
        flux = torch.zeros(len(draws), *camera.shape, device=self.device)
        values = (flux, flux.clone())
        rows = has.nonzero().flatten()
        if len(rows):
            shape = {key: parameters[key][rows] for key in ("radius", "e1", "e2", "bulge")}
            own = true[rows, : len(LEGACY.bands)]
            own = own if camera is LEGACY else hsc_flux(own)
            seen = observe_image(own, shape, star[rows], draws[rows], self._templates, noise, camera)
            values = tuple(empty.index_copy(0, rows, new) for empty, new in zip(values, seen, strict=True))
        return Image(*values, bands=camera.bands)

    def _gaia(
        self, star: Tensor, source: Source, true: Tensor, parameters: dict[str, Tensor], draws: Draws, noise: bool
    ) -> dict[str, Scalar]:
        """Observes the stars; galaxies have nothing from Gaia."""
        rows = star.nonzero().flatten()
        seen = {}
        if len(rows):
            parallax = parameters["parallax"][rows]
            seen = gaia_catalog(source[rows], true[rows], parallax, draws[rows], self._templates, noise)
        out = {}
        for name in self._wanted(_GAIA):
            width = (55,) if "coefficients" in name else ()
            empty = torch.full((len(draws), *width), math.nan, dtype=torch.float64, device=self.device)
            out[name] = Scalar(empty.index_copy(0, rows, seen[name]) if seen else empty)
        return out

    def _given(self, draws: Draws, parameters: dict[str, Tensor]) -> dict[str, Scalar]:
        """Returns the numbers that need no light."""
        legacy = {
            "legacysurvey_ebv": parameters["ebv"],
            "legacysurvey_shape_r": parameters["radius"],
            "legacysurvey_shape_e1": parameters["e1"],
            "legacysurvey_shape_e2": parameters["e2"],
        }
        sky = {
            "redshift": parameters["redshift"],
            "ra": draws.uniform("ra", 0, 360),
            "dec": torch.rad2deg(torch.asin(draws.uniform("dec", -1, 1))),
        }
        return _scalars(legacy, self._presence(draws)["photometry"]) | {k: Scalar(v) for k, v in sky.items()}


def _scalars(values: dict[str, Tensor], has: Tensor) -> dict[str, Scalar]:
    """Wraps numbers, NaN for the objects that lack them."""
    return {name: Scalar(torch.where(has, value, math.nan)) for name, value in values.items()}
