r"""The flux scale of a spectrum, the median of \|flux\|, in logarithmic bins."""

__all__ = ["FluxScale"]

import math

import torch

from torch import Tensor

RANGE = (-5.0, 7.0)  # log10 of the flux scale in 1e-17 erg/s/cm2/A that the bins cover
SLACK = 3.0  # dex beyond them where a flux is still believed


class FluxScale:
    """Bins the median of \\|flux\\|.

    Arguments:
        bins: number of bins.
    """

    def __init__(self, bins: int) -> None:
        self.bins, self.width = bins, (RANGE[1] - RANGE[0]) / bins

    def ids(self, flux: Tensor, used: Tensor) -> Tensor:
        """Returns the bin of the median over the used pixels, `(B,)`; zero, or nothing at all, falls in bin 0.

        Raises:
            ValueError: if a median is off by more than a factor of 1000 from the scales known.
        """
        # The bin of the median is the median of the bins, and counting takes an eighth of the time of nanmedian.
        below = round(SLACK / self.width) + 1
        last = 2 * below + self.bins - 1
        size = flux.abs().clamp(min=1e-30).log10()
        index = ((size - RANGE[0]) / self.width).floor().long().add(below).clamp(0, last)
        counts = torch.zeros(len(flux), last + 1, dtype=torch.int32, device=flux.device)
        counts.scatter_add_(1, index, used.to(torch.int32))
        half = (counts.sum(1, keepdim=True) + 1) // 2
        level = (counts.cumsum(1) < half).sum(1)
        if ((level == 0) | (level >= last)).any():
            self._check(flux, used)
        return (level - below).clamp(0, self.bins - 1)

    def values(self, ids: Tensor) -> Tensor:
        """Returns the flux scale `(B,)` that an id stands for, the centre of its bin."""
        return 10.0 ** (RANGE[0] + (ids.float() + 0.5) / self.bins * (RANGE[1] - RANGE[0]))

    def _check(self, flux: Tensor, used: Tensor) -> None:
        """Refuses medians that no spectrum has in the unit wanted."""
        for row in used.any(1).nonzero()[:, 0].tolist():
            median = flux[row][used[row]].abs().median().item()
            if median > 0 and not RANGE[0] - SLACK <= math.log10(median) <= RANGE[1] + SLACK:
                msg = (
                    f"row {row}: the median of |flux| is {median:.3g} in units of 1e-17 erg/s/cm2/A, far from any "
                    "spectrum: is it in erg/s/cm2/A? give its unit to aion.io.from_quantity"
                )
                raise ValueError(msg)
