"""The simulated sky: objects by number, each seen by several surveys."""

__all__ = ["GALAXY", "QUASAR", "STAR", "Sky"]

import math

from collections.abc import Iterable, Sequence
from numbers import Integral

import torch

from torch import Tensor

from aion.catalog import Catalog
from aion.device import usable
from aion.field import Field
from aion.observations import Image, Observation, Scalar, Spectrum, near_miss
from aion.sky.cameras import HSC, LEGACY
from aion.sky.draws import Draws
from aion.sky.gaia import gaia_catalog
from aion.sky.galaxies import MAX_REDSHIFT, galaxy_parameters, galaxy_source, galaxy_truth
from aion.sky.images import observe_image
from aion.sky.maps import pattern_map, segmentation_map, stamp_catalog
from aion.sky.modalities import (
    CAMERAS,
    GAIA,
    GAIA_BANDS,
    HSC_NUMBERS,
    LABELS,
    LEGACY_BANDS,
    LEGACY_FLUXES,
    MAPS,
    MODALITIES,
    OPTIONAL,
    PATTERN_MAPS,
)
from aion.sky.photometry import hsc_photometry, legacy_photometry, legacy_shape, synthetic_flux
from aion.sky.quasars import quasar_parameters, quasar_source
from aion.sky.source import Source
from aion.sky.spectra import INSTRUMENTS, observe_spectrum
from aion.sky.stars import star_parameters, star_source
from aion.sky.stellar import SURVEYS, empty_star, observe_star
from aion.sky.templates import Templates

GALAXY, STAR, QUASAR = range(3)  # kinds of objects
_LOOK = ("radius", "e1", "e2", "bulge", "arms", "ring", "bar", "companion")


class Sky:
    """Simulates galaxies, quasars and stars, and what DESI, SDSS, the Legacy Surveys, HSC and Gaia measure of them.

    Object `i` of a sky with seed `s` is always the same, in every batch and every order. Galactic extinction dims
    spectra, images and photometry alike, as in the published data; nothing is dereddened.

    Arguments:
        seed: any integer; each seed is another sky.
        galaxies: share of the objects that are galaxies, quasars included; the others are stars.
        quasars: share of those galaxies that are quasars, of 0.1 < z < 4.
        max_redshift: largest redshift of other galaxies, at most 1.55.
        modalities: names of what is simulated; all of `MODALITIES` by default, and those of `OPTIONAL` if named. Only
            these are computed.
        device: where everything is computed; `"auto"` takes CUDA if there is one, else the CPU.
        varied: whether every spectrum has a grid, ends, gaps and a flux scale of its own, see `aion.sky.spectra`.
        complete: whether every object has all that is possible for its kind. By default some lack a spectrum of one
            or both instruments or the photometry; an object that lacks one has ivar 0 there, or NaN.

    Raises:
        TypeError: for a seed that is no integer, or modalities in one string.
        ValueError: for an unknown modality (with the near misses), a share or redshift out of range, or a device that
            cannot be used.
    """

    def __init__(
        self,
        seed: int = 0,
        galaxies: float = 0.75,
        quasars: float = 0.1,
        max_redshift: float = 1.5,
        modalities: Sequence[str] | None = None,
        device: torch.device | str = "cpu",
        varied: bool = True,
        complete: bool = False,
    ) -> None:
        if not isinstance(seed, Integral):
            msg = f"Sky: seed must be an integer, given {seed!r}"
            raise TypeError(msg)
        for name, share in (("galaxies", galaxies), ("quasars", quasars)):
            if not 0 <= share <= 1:
                msg = f"Sky: {name} is a share between 0 and 1, given {share}"
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
        self.seed, self.max_redshift = int(seed), float(max_redshift)
        self.galaxies, self.quasars = float(galaxies), float(quasars)
        self.device, self.varied, self.complete = usable(device), bool(varied), bool(complete)
        self._templates = Templates.load(str(self.device))

    def observe(
        self, indices: Sequence[int] | Tensor, noise: bool = True, light: bool = True
    ) -> dict[str, Observation]:
        """Observes objects.

        Arguments:
            indices: numbers of the objects, `(B,)` integers, repeated or not, in any order.
            noise: whether noise is added; without it everything else (grids, gaps, ivar, calibration) is the same.
            light: whether the objects shine. Without, DESI and SDSS spectra and images are of the blank sky (and of
                neighbours), on the same grids with the same gaps: what remains cannot tell anything of an object. All
                else stays.

        Raises:
            TypeError: for numbers that are not integers.
            ValueError: for no number at all, or numbers not in one row.
        """
        draws = self._draws(indices)
        parameters, kind = self._parameters(draws)
        star, has = kind != GALAXY, self._presence(draws)  # quasars are points too
        out: dict[str, Observation] = dict(self._given(draws, parameters, star))
        if self._wanted(MAPS):
            out |= self._maps(has["legacysurvey_image"], parameters, star, draws)
        if set(self.modalities) - set(out):
            source, true = self._source(draws, parameters, kind)
            shining = source if light else source.scaled(torch.zeros_like(source.redshift))
            for name in self._wanted(INSTRUMENTS):
                values = observe_spectrum(name, shining, draws, self._templates, self.varied, noise, has[name])
                out[name] = Spectrum(*values)
            for name in self._wanted(SURVEYS):
                out[name] = self._star_spectrum(name, kind == STAR, source, parameters, draws, noise)
            if self._wanted(LEGACY_FLUXES):
                values = legacy_photometry(_stack(true, LEGACY_BANDS), parameters["radius"], draws, noise)
                out |= _scalars(values, has["photometry"])
            if self._wanted(HSC_NUMBERS):
                values = hsc_photometry(_stack(true, HSC.bands), parameters, parameters["ebv"], star, draws, noise)
                out |= _scalars(values, has["hsc_image"])
            for name in self._wanted(CAMERAS):
                bright = {band: value * light for band, value in true.items()}
                out[name] = self._image(name, has[name], bright, parameters, star, draws, noise)
            if self._wanted(GAIA):
                out |= self._gaia(star, source, _stack(true, GAIA_BANDS), parameters, draws, noise)
        return {name: out[name] for name in self.modalities}

    def labels(self, indices: Sequence[int] | Tensor) -> dict[str, Tensor]:
        """Returns the truth of objects, each `(B,)` float32, NaN where it has no meaning.

        `kind` (0 galaxy, 1 star, 2 quasar), `redshift`, `magnitude` (true r, AB, as dimmed by the Milky Way). For
        galaxies of their stars: `log_mass` (log10 of solar masses, remnants included), `mass_age` (mean over the mass,
        Gyr), `log_age` (mean over the light, log10 Gyr), `metallicity` (log10 of solar), `log_ssfr` (log10 of the rate
        of the last 100 Myr over the mass, per year; at least -14), `burst` (share of the light in young stars), `dust`
        (E(B-V) of their own), `sigma` (km/s); of their shape: `bulge` (share of the light in r), `arms`, `ring`, `bar`
        (shares of the light of the disc, 0 without), `companion` (share of all light, 0 without a merger). For stars
        `teff` (K), `logg` (log10 cm/s2) and `feh` (dex).
        """
        draws = self._draws(indices)
        parameters, kind = self._parameters(draws)
        rows = (kind == GALAXY).nonzero().flatten()
        if len(rows):
            own = {key: value[rows] for key, value in parameters.items()}
            for name, value in galaxy_truth(draws[rows], own, self._templates).items():
                empty = torch.full_like(parameters["redshift"], math.nan)
                parameters[name] = empty.index_copy(0, rows, value)
        parameters["kind"], nan = kind, torch.full_like(parameters["redshift"], math.nan)
        return {name: parameters.get(name, nan).float() for name in LABELS}

    def _draws(self, indices: Sequence[int] | Tensor) -> Draws:
        index = torch.as_tensor(indices)
        if index.ndim != 1 or index.numel() == 0:
            msg = f"Sky: wanted one row of at least one object number, given shape {tuple(index.shape)}"
            raise ValueError(msg)
        if index.is_floating_point() or index.is_complex() or index.dtype == torch.bool:
            msg = f"Sky: object numbers are integers, given {index.dtype}"
            raise TypeError(msg)
        return Draws(self.seed, index.to(self.device, torch.int64))

    def _wanted(self, names: Iterable[str]) -> list[str]:
        return [name for name in names if name in self.modalities]

    def _parameters(self, draws: Draws) -> tuple[dict[str, Tensor], Tensor]:
        """Draws what is to know of every object, NaN for what its kind has not, and its kind."""
        u = draws.uniform("kind")
        kind = torch.where(u >= self.galaxies, STAR, torch.where(u < self.galaxies * self.quasars, QUASAR, GALAXY))
        parts = (
            galaxy_parameters(draws, self.max_redshift),
            star_parameters(draws, self._templates),
            quasar_parameters(draws),
        )
        out = {}
        for name in {name: None for part in parts for name in part}:
            out[name] = torch.full_like(u, math.nan)
            for number, part in enumerate(parts):
                if name in part:
                    out[name] = torch.where(kind == number, part[name], out[name])
        for name in ("radius", "e1", "e2"):
            out[name] = torch.where(kind == GALAXY, out[name], 0.0)
        out["ebv"] = (0.05 * torch.exp(0.6 * draws.normal("ebv"))).clamp(0.003, 0.5)
        return out, kind

    def _source(self, draws: Draws, parameters: dict[str, Tensor], kind: Tensor) -> tuple[Source, dict[str, Tensor]]:
        """Makes the light of all objects, of the right brightness, and their true fluxes in the bands needed."""
        parts, rows = [], []
        for number, make in enumerate((galaxy_source, star_source, quasar_source)):
            chosen = (kind == number).nonzero().flatten()
            if len(chosen):
                own = {key: value[chosen] for key, value in parameters.items()}
                parts.append(make(draws[chosen], own, self._templates))
                rows.append(chosen)
        source = Source.cat(parts)[torch.cat(rows).argsort()]
        names = ["decam-r"]
        for wanted, bands in ((LEGACY_FLUXES, LEGACY_BANDS), (HSC_NUMBERS, HSC.bands), (GAIA, GAIA_BANDS)):
            names += bands if self._wanted(wanted) else ()
        for name in self._wanted(CAMERAS):
            names += CAMERAS[name].bands
        names = list(dict.fromkeys(names))
        true = synthetic_flux(source, self._templates, names)
        factor = 10 ** (-0.4 * (parameters["magnitude"] - 22.5)) / true[:, 0]
        return source.scaled(factor), dict(zip(names, (true * factor[:, None]).unbind(1), strict=True))

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
        true: dict[str, Tensor],
        parameters: dict[str, Tensor],
        star: Tensor,
        draws: Draws,
        noise: bool,
    ) -> Image:
        """Observes those objects that were imaged; the others stay unmeasured."""
        camera = CAMERAS[name]
        flux = torch.zeros(len(draws), *camera.shape, device=self.device)
        values = (flux, flux.clone())
        rows = has.nonzero().flatten()
        if len(rows):
            shape = {key: parameters[key][rows] for key in _LOOK}
            own = _stack(true, camera.bands)[rows]
            seen = observe_image(own, shape, star[rows], draws[rows], self._templates, noise, camera)
            values = tuple(empty.index_copy(0, rows, new) for empty, new in zip(values, seen, strict=True))
        return Image(*values, bands=camera.bands)

    def _maps(self, has: Tensor, parameters: dict[str, Tensor], star: Tensor, draws: Draws) -> dict[str, Observation]:
        """Returns what is marked in the image of those objects that were imaged."""
        catalog = stamp_catalog(parameters, draws)
        out = {
            "legacysurvey_catalog": Catalog(**{k: v.masked_fill(~has[:, None], math.nan) for k, v in catalog.items()})
        }
        if self._wanted(("legacysurvey_segmentation_map",)):
            value, scale = segmentation_map(parameters, star, draws)
            out["legacysurvey_segmentation_map"] = Field(value.masked_fill(~has[:, None, None], math.nan), scale)
        for name in self._wanted(PATTERN_MAPS):
            value = pattern_map(PATTERN_MAPS[name], parameters, draws)
            out[name] = Field(value.masked_fill(~has[:, None, None], math.nan), LEGACY.scale)
        return out

    def _gaia(
        self, star: Tensor, source: Source, true: Tensor, parameters: dict[str, Tensor], draws: Draws, noise: bool
    ) -> dict[str, Scalar]:
        """Observes stars and quasars; galaxies have nothing from Gaia. Quasars are too far for a parallax."""
        rows = star.nonzero().flatten()
        seen = {}
        if len(rows):
            parallax = parameters["parallax"][rows].nan_to_num(0)
            seen = gaia_catalog(source[rows], true[rows], parallax, draws[rows], self._templates, noise)
        out = {}
        for name in self._wanted(GAIA):
            width = (55,) if "coefficients" in name else ()
            empty = torch.full((len(draws), *width), math.nan, dtype=torch.float64, device=self.device)
            out[name] = Scalar(empty.index_copy(0, rows, seen[name]) if seen else empty)
        return out

    def _given(self, draws: Draws, parameters: dict[str, Tensor], star: Tensor) -> dict[str, Scalar]:
        """Returns the numbers that need no light."""
        legacy = {"legacysurvey_ebv": parameters["ebv"], **legacy_shape(parameters, star)}
        sky = {
            "redshift": parameters["redshift"],
            "ra": draws.uniform("ra", 0, 360),
            "dec": torch.rad2deg(torch.asin(draws.uniform("dec", -1, 1))),
        }
        return _scalars(legacy, self._presence(draws)["photometry"]) | {k: Scalar(v) for k, v in sky.items()}


def _stack(true: dict[str, Tensor], bands: Sequence[str]) -> Tensor:
    return torch.stack([true[band] for band in bands], 1)


def _scalars(values: dict[str, Tensor], has: Tensor) -> dict[str, Scalar]:
    """Wraps numbers, NaN for the objects that lack them."""
    return {name: Scalar(torch.where(has, value, math.nan)) for name, value in values.items()}
