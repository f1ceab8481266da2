r"""The quantisers of the published tokenizers.

Quantisation by sign needs no table: the code of d numbers is which of them are positive. Finite scalar quantisation is
that of `aion.nn.quantize`; here its levels are part of the state dict. Both run in float32 under any autocast.

References:
    | Language Model Beats Diffusion: Tokenizer is Key to Visual Generation (Yu et al., 2023), arXiv 2310.05737
"""

__all__ = ["LookupFree", "check_levels", "published_fsq"]

from collections.abc import Sequence

import torch

from torch import Tensor, nn

from aion.nn.quantize import FSQ


class LookupFree(nn.Module):
    """Quantises numbers by their signs, the first of which is the most significant bit of the id.

    Arguments:
        size: number of ids, a power of 2.
        dim: numbers that go in; if there are more or fewer than bits, they are projected.
    """

    def __init__(self, size: int, dim: int) -> None:
        super().__init__()
        bits = size.bit_length() - 1
        if size != 2**bits:
            msg = f"LookupFree: size must be a power of 2, given {size}"
            raise ValueError(msg)
        self.register_buffer("mask", 2 ** torch.arange(bits - 1, -1, -1))
        self.project_in = nn.Linear(dim, bits) if dim != bits else nn.Identity()
        self.project_out = nn.Linear(bits, dim) if dim != bits else nn.Identity()

    def forward(self, z: Tensor) -> Tensor:
        """Quantises `(..., dim)`, letting the gradient pass as if nothing happened."""
        z = self.project_in(z)
        return self.project_out(z + (torch.where(z > 0, 1.0, -1.0) - z).detach())

    def ids(self, z: Tensor) -> Tensor:
        """Returns the ids `(...)` of `(..., dim)`."""
        with torch.autocast(z.device.type, enabled=False):
            return ((self.project_in(z.float()) > 0) * self.mask).sum(-1)

    def values(self, ids: Tensor) -> Tensor:
        """Returns what stands for ids `(...)`, `(..., dim)`."""
        return self.project_out(torch.where((ids[..., None] & self.mask) > 0, 1.0, -1.0))

    def verify(self) -> None:
        """Refuses bits that are in another order."""
        bits = len(self.mask)
        if self.mask.tolist() != [2**i for i in range(bits - 1, -1, -1)]:
            msg = f"quantizer.quantizer.mask holds {self.mask.tolist()}: the file is damaged"
            raise ValueError(msg)


def published_fsq(levels: Sequence[int]) -> FSQ:
    """Makes a quantiser whose levels are part of the state dict, as 32-bit integers, as they are in published files."""
    quantizer = FSQ(levels)
    quantizer.register_buffer("levels", quantizer.levels.to(torch.int32))
    return quantizer


def check_levels(quantizer: FSQ, levels: Sequence[int]) -> None:
    """Refuses levels in a file that are not those of the configuration."""
    if quantizer.levels.tolist() != list(levels):
        msg = f"quantizer.levels holds {quantizer.levels.tolist()}, the configuration says {list(levels)}"
        raise ValueError(msg)
