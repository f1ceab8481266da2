"""What a survey measured, on the grid on which it measured it.

Three frozen containers of batch-first tensors: `Image`, `Spectrum` and `Scalar`. Units are fixed once
(wavelength: vacuum Angstrom in the observed frame; spectral flux: 1e-17 erg/s/cm2/A; image flux: nanomaggy
per pixel; ivar: one over the square of the flux unit) and `aion.io` converts to them at the border.

One rule replaces every mask: **ivar == 0 means "not measured"**. Bad pixels, NaN, padding and missing bands
are that one case; the flux stored there is 0 and influences nothing. A scalar that was not measured is NaN.
"""

__all__ = [
    "BANDS",
    "BAND_ALIASES",
    "Image",
    "Observation",
    "PIXEL_SCALES",
    "Scalar",
    "Spectrum",
    "finite_or_nan",
    "near_miss",
    "pixel_scales",
    "rows",
    "stackable",
]

import difflib
import math

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, fields
from typing import TypeVar

import numpy as np
import torch

from torch import Tensor

Self = TypeVar("Self", bound="Observation")

# Mean wavelength of the transmission curve in Angstrom, from the curves shipped with speclite 1.0.0 (BSD-3).
BANDS: dict[str, float] = {
    "bass-g": 4778.0,
    "bass-r": 6411.0,
    "decam-g": 4842.0,
    "decam-i": 7821.0,
    "decam-r": 6439.0,
    "decam-u": 3876.0,
    "decam-y": 9878.0,
    "decam-z": 9172.0,
    "gaia-bp": 5183.0,
    "gaia-g": 6390.0,
    "gaia-rp": 7825.0,
    "hsc-g": 4809.0,
    "hsc-i": 7703.0,
    "hsc-r": 6229.0,
    "hsc-y": 9777.0,
    "hsc-z": 8906.0,
    "mzls-z": 9209.0,
    "panstarrs-g": 4866.0,
    "panstarrs-i": 7545.0,
    "panstarrs-r": 6215.0,
    "panstarrs-y": 9633.0,
    "panstarrs-z": 8679.0,
    "sdss-g": 4718.0,
    "sdss-i": 7506.0,
    "sdss-r": 6187.0,
    "sdss-u": 3596.0,
    "sdss-z": 8918.0,
    "wise-w1": 33792.0,
    "wise-w2": 46293.0,
    "wise-w3": 123335.0,
    "wise-w4": 222533.0,
}

# Names of bands in the published AION-1 package, accepted wherever a band is named.
BAND_ALIASES: dict[str, str] = {
    **{f"HSC-{band.upper()}": f"hsc-{band}" for band in "grizy"},
    **{f"DES-{band.upper()}": f"decam-{band}" for band in "griz"},
}

# Arcsec per pixel of the images that each survey publishes.
PIXEL_SCALES: dict[str, float] = {
    "bass": 0.262,
    "decam": 0.262,
    "hsc": 0.168,
    "mzls": 0.262,
    "panstarrs": 0.25,
    "sdss": 0.396,
    "wise": 2.75,
}


def near_miss(name: object, known: Iterable[str]) -> str:
    """Says which known names resemble a wrong one, as the end of an error message."""
    known = sorted(known)
    lower = {candidate.lower(): candidate for candidate in known}
    close = [lower[match] for match in difflib.get_close_matches(str(name).lower(), lower, n=3, cutoff=0.5)]
    return f"did you mean {' or '.join(map(repr, close))}?" if close else f"known: {', '.join(known)}"


def rows(index: int | slice | Sequence[int] | Tensor, count: int) -> slice | Tensor:
    """Turns a number, slice, list, array or mask of objects into an index that keeps the batch axis.

    Raises:
        IndexError: for an object beyond `count`, or a mask of another length.
        TypeError: for anything else, such as a tuple: the inner axes cannot be indexed.
        ValueError: if no object is selected.
    """
    wanted = "wanted a number, slice, list, array or mask of objects"
    if isinstance(index, slice):
        picked = np.arange(count)[index]
    else:
        array = np.asarray(index.cpu() if isinstance(index, Tensor) else index)
        array = array.astype(np.int64) if array.size == 0 else array
        if isinstance(index, tuple) or array.ndim > 1 or array.dtype.kind not in ("iu" if array.ndim == 0 else "iub"):
            msg = f"{wanted}, given {index!r}"
            raise TypeError(msg)
        picked = np.atleast_1d(np.arange(count)[array])
    if picked.size == 0:
        msg = f"{wanted} that holds at least one of {count}, given {index!r}"
        raise ValueError(msg)
    if isinstance(index, slice) and (index.step or 1) > 0:
        return index  # a view, not a copy
    return torch.from_numpy(picked.copy())  # torch takes no negative stride


def _float32(name: str, value: object) -> Tensor:
    """Converts anything array-like to float32 without writing to it; units and masks are refused, never dropped."""
    if getattr(value, "unit", None) is not None:
        msg = f"{name} has a unit ({value.unit}); wanted a plain array in canonical units: convert with aion.io"
        raise TypeError(msg)
    mask = getattr(value, "mask", None)
    if isinstance(mask, np.ndarray | np.bool_) and mask.any():
        msg = f"{name} has masked values: set ivar to 0 there (a scalar to NaN) and give a plain array"
        raise TypeError(msg)
    if not isinstance(value, Tensor):
        try:
            array = np.asarray(value)
        except ValueError as error:
            msg = f"{name}: wanted a rectangular array of real numbers, given rows that differ in length"
            raise ValueError(msg) from error
        if array.dtype.kind not in "fiub":
            msg = f"{name}: wanted real numbers, given {array.dtype} from {type(value).__name__}"
            raise TypeError(msg)
        # Always a copy: then byte order, strides, read-only memory and what the caller writes later are no concern.
        with np.errstate(over="ignore"):
            value = torch.from_numpy(np.array(array, dtype=np.float32, order="C"))
    if value.is_complex():
        msg = f"{name}: wanted real numbers, given {value.dtype}"
        raise TypeError(msg)
    return value.to(torch.float32)


def finite_or_nan(name: str, value: object) -> Tensor:
    """Converts numbers of any shape, NaN where not measured, to float32 without writing to them.

    Raises:
        TypeError: for values with a unit or a mask, or that are not real numbers.
        ValueError: for infinite ones.
    """
    value = _float32(name, value)
    if (bad := torch.isinf(value)).any():
        msg = f"{name} must be finite, or NaN where not measured, but {_where(bad)} are infinite"
        raise ValueError(msg)
    return value


def pixel_scales(name: str, scale: object, like: Tensor) -> Tensor:
    """Returns the arcsec per pixel of each of B objects, `(B,)`, given one number or B.

    Raises:
        TypeError: for values with a unit or that are not real numbers.
        ValueError: for numbers that are not finite and positive, or not as many as the objects of `like`.
    """
    value = _float32(name, scale).to(like.device)
    positive = bool(((value > 0) & torch.isfinite(value)).all())
    if value.ndim > 1 or (value.ndim == 1 and len(value) != len(like)) or not positive:
        msg = f"{name} must be positive, a number or ({len(like)},), given {scale!r}"
        raise ValueError(msg)
    return value.expand(len(like))


def _where(bad: Tensor) -> str:
    """Names the first offending element of a boolean tensor."""
    first = tuple(bad.nonzero()[0].tolist())
    return f"{int(bad.sum())} of {bad.numel()} values, first at index {first}"


def _ends(value: Tensor) -> list[float]:
    """Returns the smallest and the largest value, NaN if there is one: a twentieth of the time of `isfinite`."""
    return torch.stack(value.aminmax()).tolist()


def _check_like(name: str, value: Tensor, flux: Tensor) -> None:
    if value.shape != flux.shape or value.device != flux.device:
        wanted, given = ((tuple(v.shape), str(v.device)) for v in (flux, value))
        msg = f"{name} must have the shape and device of flux, {wanted}, given {given}"
        raise ValueError(msg)


def _check_flux(kind: str, flux: Tensor, ivar: Tensor) -> Tensor:
    """Returns flux with zeros where nothing was measured, after checking flux and ivar together."""
    _check_like(f"{kind}.ivar", ivar, flux)
    if flux.shape[0] == 0 or flux.numel() == 0:
        msg = f"{kind}: wanted at least one object and one pixel, given an empty batch of shape {tuple(flux.shape)}"
        raise ValueError(msg)
    low, high = _ends(ivar)
    if not 0 <= low <= high < math.inf:
        bad = ~torch.isfinite(ivar) | (ivar < 0)
        msg = f"{kind}: ivar must be finite and >= 0 (0 = not measured), but {_where(bad)} are not"
        raise ValueError(msg)
    measured = ivar > 0
    low, high = _ends(flux)
    if not -math.inf < low <= high < math.inf and (bad := measured & ~torch.isfinite(flux)).any():
        msg = f"{kind}: flux must be finite where ivar > 0, but {_where(bad)} are not: set ivar to 0 there"
        raise ValueError(msg)
    return torch.where(measured, flux, torch.zeros((), device=flux.device))


class Observation:
    """Provides what all observations share: a length, indexing over objects and device moves.

    Subclasses tell what was `measured`, have a `stack`, and say in a `_summary` what there is of each object.
    """

    def __len__(self) -> int:
        return getattr(self, fields(self)[0].name).shape[0]

    def __repr__(self) -> str:
        count, share = len(self), 100 * self.measured.float().mean().item()
        return f"{type(self).__name__}({count} object{'s' * (count > 1)}, {self._summary()}, {share:.3g} % measured)"

    def __getitem__(self: Self, index: int | slice | Sequence[int] | Tensor) -> Self:
        """Selects objects; the batch axis is kept, so one object is a batch of one."""
        index = rows(index, len(self))
        return self._map(lambda value: value[index])

    def to(self: Self, device: torch.device | str) -> Self:
        """Moves every tensor to a device."""
        return self._map(lambda value: value.to(device))

    @property
    def device(self) -> torch.device:
        """Returns the device of the tensors."""
        return getattr(self, fields(self)[0].name).device

    def _map(self: Self, function: Callable[[Tensor], Tensor]) -> Self:
        new = object.__new__(type(self))  # checked once at construction: derived data is not checked again
        for field in fields(self):
            value = getattr(self, field.name)
            object.__setattr__(new, field.name, function(value) if isinstance(value, Tensor) else value)
        return new

    def _set(self, **values: object) -> None:
        for name, value in values.items():
            object.__setattr__(self, name, value)


@dataclass(frozen=True, eq=False, repr=False)
class Spectrum(Observation):
    """Holds spectra on their native wavelength grids.

    Arguments:
        flux: flux density in 1e-17 erg/s/cm2/A, with shape `(B, L)`. Any value, NaN too, where `ivar` is 0.
        ivar: inverse variance in 1/unit^2, with shape `(B, L)`; 0 means "not measured".
        wavelength: vacuum wavelength in Angstrom, observed frame, `(B, L)` or one grid `(L,)` for all. It must not
            decrease; equal neighbours (overlapping arms, padding) are allowed.

    Raises:
        TypeError: for values with a unit (convert them with `aion.io.from_quantity`) or that are not real numbers.
        ValueError: for shapes that disagree, an empty batch, negative or non-finite ivar, non-finite flux where
            ivar > 0, a wavelength that is not finite, not sorted or obviously not in Angstrom.
    """

    flux: Tensor
    ivar: Tensor
    wavelength: Tensor

    def __post_init__(self) -> None:
        flux, ivar, wavelength = (_float32(f"Spectrum.{f.name}", getattr(self, f.name)) for f in fields(self))
        if flux.ndim != 2:
            msg = f"Spectrum: flux must be (B, L), given shape {tuple(flux.shape)}; for one object use flux[None]"
            raise ValueError(msg)
        flux = _check_flux("Spectrum", flux, ivar)
        if wavelength.ndim == 1 and wavelength.shape[0] == flux.shape[1]:
            wavelength = wavelength.expand_as(flux)
        _check_like("Spectrum.wavelength", wavelength, flux)
        self._check_wavelength(wavelength)
        self._set(flux=flux, ivar=ivar, wavelength=wavelength)

    @staticmethod
    def _check_wavelength(wavelength: Tensor) -> None:
        low, high = _ends(wavelength)
        if not 0 < low <= high < math.inf:
            bad = ~torch.isfinite(wavelength) | (wavelength <= 0)
            msg = f"Spectrum: wavelength must be finite and positive, but {_where(bad)} are not"
            raise ValueError(msg)
        step = wavelength.diff(dim=1)
        if step.numel() and step.amin() < 0:
            msg = f"Spectrum: wavelength must not decrease, but it does at {_where(step < 0)}: sort the pixels"
            raise ValueError(msg)
        if (bad := wavelength[:, -1] < 100).any():
            low, high = wavelength[bad][0, [0, -1]].tolist()
            msg = (
                f"Spectrum: wavelength runs from {low:.4g} to {high:.4g}, which is not Angstrom (log10? micron?): "
                "convert it, or give a unit to aion.io.from_quantity"
            )
            raise ValueError(msg)

    @property
    def measured(self) -> Tensor:
        """Tells which pixels were measured, `(B, L)`."""
        return self.ivar > 0

    def _summary(self) -> str:
        low, high = _ends(self.wavelength)
        return f"{self.flux.shape[1]} pixels from {low:.5g} to {high:.5g} Angstrom"

    @classmethod
    def stack(cls, spectra: Sequence["Spectrum"]) -> "Spectrum":
        """Joins batches of spectra; shorter grids are padded at the red end with unmeasured pixels."""
        length = max(stackable(spectra, cls), key=lambda s: s.flux.shape[1]).flux.shape[1]

        def pad(value: Tensor, fill: Tensor) -> Tensor:
            return torch.cat([value, fill.expand(-1, length - value.shape[1])], dim=1)

        zero = [s.flux.new_zeros(len(s), 1) for s in spectra]
        return cls(
            flux=torch.cat([pad(s.flux, z) for s, z in zip(spectra, zero, strict=True)]),
            ivar=torch.cat([pad(s.ivar, z) for s, z in zip(spectra, zero, strict=True)]),
            wavelength=torch.cat([pad(s.wavelength, s.wavelength[:, -1:]) for s in spectra]),
        )


@dataclass(frozen=True, eq=False, repr=False)
class Image(Observation):
    """Holds multi-band images on their native pixels.

    Arguments:
        flux: flux in nanomaggy per pixel (AB zero point 22.5), with shape `(B, C, H, W)`; row 0 is the first row of
            the array. Any value, NaN too, where `ivar` is 0.
        ivar: inverse variance, with shape `(B, C, H, W)`; 0 means "not measured".
        bands: one name per channel, `survey-band` in lower case, such as `("decam-g", "decam-r")`; see `BANDS`.
        pixel_scale: arcsec per pixel, a number or `(B,)`; by default the survey's own, from `PIXEL_SCALES`.

    Raises:
        TypeError: for values with a unit or that are not real numbers, or bands in one string.
        ValueError: for shapes that disagree, an empty batch, unknown or repeated bands (with the near misses),
            negative or non-finite ivar, non-finite flux where ivar > 0, or an unknown pixel scale.
    """

    flux: Tensor
    ivar: Tensor
    bands: tuple[str, ...]
    pixel_scale: Tensor | float | None = None

    def __post_init__(self) -> None:
        flux, ivar = _float32("Image.flux", self.flux), _float32("Image.ivar", self.ivar)
        if flux.ndim != 4:
            msg = f"Image: flux must be (B, C, H, W), given shape {tuple(flux.shape)}; for one object use flux[None]"
            raise ValueError(msg)
        flux = _check_flux("Image", flux, ivar)
        bands = self._check_bands(self.bands, flux.shape[1])
        scale = self._standard_scale(bands) if self.pixel_scale is None else self.pixel_scale
        self._set(flux=flux, ivar=ivar, bands=bands, pixel_scale=pixel_scales("Image.pixel_scale", scale, flux))

    @staticmethod
    def _standard_scale(bands: tuple[str, ...]) -> float:
        scales = {PIXEL_SCALES.get(band.split("-")[0]) for band in bands}
        if len(scales) > 1 or None in scales:
            msg = f"Image: no one standard pixel scale is known for {bands}; give pixel_scale= in arcsec per pixel"
            raise ValueError(msg)
        return scales.pop()

    @staticmethod
    def _check_bands(bands: Sequence[str], channels: int) -> tuple[str, ...]:
        if isinstance(bands, str) or not isinstance(bands, Iterable):
            msg = f"Image: bands must be a sequence of names, given {'the string ' * isinstance(bands, str)}{bands!r}"
            raise TypeError(msg)
        bands = tuple(BAND_ALIASES.get(band, band) if isinstance(band, str) else band for band in bands)
        for band in bands:
            if not isinstance(band, str) or band not in BANDS:
                msg = f"Image: unknown band {band!r}; {near_miss(band, BANDS)}"
                raise ValueError(msg)
        if len(bands) != channels or len(set(bands)) != channels:
            msg = f"Image: wanted {channels} different bands, one per channel of flux, given {bands}"
            raise ValueError(msg)
        return bands

    @property
    def measured(self) -> Tensor:
        """Tells which pixels were measured, `(B, C, H, W)`."""
        return self.ivar > 0

    def _summary(self) -> str:
        return f"{', '.join(self.bands)}, {self.flux.shape[2]} x {self.flux.shape[3]} pixels"

    @classmethod
    def stack(cls, images: Sequence["Image"]) -> "Image":
        """Joins batches of images: smaller stamps are centred in unmeasured pixels, missing bands are unmeasured."""
        bands = tuple(dict.fromkeys(band for image in stackable(images, cls) for band in image.bands))
        height, width = (max(image.flux.shape[axis] for image in images) for axis in (2, 3))

        def place(image: "Image", value: Tensor) -> Tensor:
            h, w = value.shape[2:]
            top, left = height // 2 - h // 2, width // 2 - w // 2  # the middle pixel n // 2 stays the middle pixel
            canvas = value.new_zeros(len(image), len(bands), height, width)
            canvas[:, [bands.index(b) for b in image.bands], top : top + h, left : left + w] = value
            return canvas

        return cls(
            flux=torch.cat([place(image, image.flux) for image in images]),
            ivar=torch.cat([place(image, image.ivar) for image in images]),
            bands=bands,
            pixel_scale=torch.cat([image.pixel_scale for image in images]),
        )


@dataclass(frozen=True, eq=False, repr=False)
class Scalar(Observation):
    """Holds one number, or a vector of K numbers, per object.

    Arguments:
        value: with shape `(B,)` or `(B, K)`, in the unit of the modality it is given for (magnitudes are AB, fluxes
            nanomaggy, angles ICRS degrees). NaN means "not measured".

    Raises:
        TypeError: for values with a unit or that are not real numbers.
        ValueError: for another shape, an empty batch or an infinite value.
    """

    value: Tensor

    def __post_init__(self) -> None:
        value = finite_or_nan("Scalar.value", self.value)
        if value.ndim not in {1, 2} or value.numel() == 0:
            msg = f"Scalar: value must be (B,) or (B, K) with B, K >= 1, given shape {tuple(value.shape)}"
            raise ValueError(msg)
        self._set(value=value)

    @property
    def measured(self) -> Tensor:
        """Tells which values were measured, with the shape of `value`."""
        return ~torch.isnan(self.value)

    def _summary(self) -> str:
        known = self.value[self.measured]
        ends = f" from {known.min().item():.5g} to {known.max().item():.5g}" if len(known) else ""
        return f"{'a number' if self.value.ndim == 1 else f'{self.value.shape[1]} numbers'} each{ends}"

    @classmethod
    def stack(cls, scalars: Sequence["Scalar"]) -> "Scalar":
        """Joins batches of scalars of one width."""
        if len(shapes := {tuple(s.value.shape[1:]) for s in stackable(scalars, cls)}) > 1:
            msg = f"Scalar.stack: widths differ: {sorted(shapes)}"
            raise ValueError(msg)
        return cls(torch.cat([s.value for s in scalars]))


def stackable(observations: Sequence[Observation], kind: type) -> Sequence[Observation]:
    """Returns the sequence if it holds at least one observation and only the wanted kind.

    Raises:
        TypeError: for another kind.
        ValueError: for none at all.
    """
    if not observations:
        msg = f"{kind.__name__}.stack: wanted at least one observation, given none"
        raise ValueError(msg)
    for observation in observations:
        if not isinstance(observation, kind):
            msg = f"{kind.__name__}.stack: wanted {kind.__name__}, given {type(observation).__name__}"
            raise TypeError(msg)
    return observations
