"""What a telescope would see if it were perfect: the light of a batch of objects above the atmosphere."""

__all__ = ["LINES", "Source"]

from dataclasses import dataclass, fields

import torch

from torch import Tensor

# Lines in the order of `Source.line`; names as in the line list of fastspecfit.
LINES = (
    "mgii_2796",
    "mgii_2803",
    "nev_3426",
    "oii_3726",
    "oii_3729",
    "neiii_3869",
    "h6",
    "hepsilon",
    "hdelta",
    "hgamma",
    "heii_4686",
    "hbeta",
    "oiii_4959",
    "oiii_5007",
    "hei_5876",
    "oi_6300",
    "nii_6548",
    "halpha",
    "nii_6584",
    "sii_6716",
    "sii_6731",
    "ariii_7135",
    "siii_9069",
    "siii_9532",
)


@dataclass(frozen=True, eq=False)
class Source:
    """Holds the light of a batch of objects.

    Arguments:
        redshift: of the rest frame against the observer, with shape `(B,)`.
        frame: redshift of the frame of the two grids: that of the object, or 0 for light kept as observed, `(B,)`.
        fine: f_lambda on the fine grid before the Milky Way, in 1e-17 erg/s/cm2/A as observed, `(B, 9216)`.
        wide: the same on the wide grid, `(B, 2540)`.
        line: fluxes of the emission lines in 1e-17 erg/s/cm2 as observed, before the Milky Way, `(B, E)`.
        line_sigma: velocity dispersion of the emission lines in km/s, `(B,)`.
        sigma: velocity dispersion of the stars in km/s, `(B,)`; 0 for a star.
        template_sigma: velocity resolution of the templates in km/s, `(B,)`.
        ebv: E(B-V) of the Milky Way in front of the object, `(B,)`.
    """

    redshift: Tensor
    frame: Tensor
    fine: Tensor
    wide: Tensor
    line: Tensor
    line_sigma: Tensor
    sigma: Tensor
    template_sigma: Tensor
    ebv: Tensor

    def __len__(self) -> int:
        return len(self.redshift)

    def __getitem__(self, rows: Tensor) -> "Source":
        """Selects objects."""
        return Source(**{f.name: getattr(self, f.name)[rows] for f in fields(self)})

    @classmethod
    def cat(cls, parts: "list[Source]") -> "Source":
        """Joins batches."""
        return cls(**{f.name: torch.cat([getattr(part, f.name) for part in parts]) for f in fields(cls)})

    def scaled(self, factor: Tensor) -> "Source":
        """Returns the same objects, brighter by `(B,)`."""
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        for name in ("fine", "wide", "line"):
            values[name] = values[name] * factor.to(values[name].dtype)[:, None]
        return Source(**values)
