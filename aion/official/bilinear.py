r"""Convolutions with fewer multiplications, for wide layers on a CPU.

A convolution of a tile of pixels :math:`x` with a kernel :math:`w` is bilinear in both and can be written as
:math:`y = W\,[(R\,x) \odot (G\,w)]`: `m` products in place of one for each pixel and tap. With many channels each is
a matrix product over them, which is nearly all of the work, and the three transforms are cheap. Winograd's algorithm
needs 16 products for 2 x 2 pixels of a 3 x 3 kernel (36 directly); the Fourier transform, with three real products for
each complex one, 292 for 8 x 8 pixels of a 7 x 7 kernel (3136 directly). Since far fewer numbers are added up, the
rounding is smaller than that of the direct sum: for 512 channels 4e-6 at most instead of 1.4e-5, of outputs of order 1.

References:
    | Fast Algorithms for Convolutional Neural Networks (Lavin and Gray, 2015), arXiv 1509.09308
    | Fast Training of Convolutional Networks through FFTs (Mathieu et al., 2013), arXiv 1312.5851
"""

__all__ = ["Bilinear", "convolve", "fourier", "winograd"]

import functools
import math

from typing import NamedTuple

import torch
import torch.nn.functional as F

from torch import Tensor

PRODUCTS = 32  # of which the transformed kernels are held at a time: 32 MB for 512 channels


class Bilinear(NamedTuple):
    """Holds an algorithm for square tiles and kernels.

    Arguments:
        tile: pixels on the side of what one tile gives, t.
        kernel: taps on the side of the kernel, k.
        read: R, `(m, (t + k - 1)^2)`.
        weigh: G, `(m, k^2)`.
        write: W, `(t^2, m)`.
    """

    tile: int
    kernel: int
    read: Tensor
    weigh: Tensor
    write: Tensor


@functools.cache
def winograd() -> Bilinear:
    """Returns Winograd's algorithm for 2 x 2 pixels of a 3 x 3 kernel: 16 products."""
    read = torch.tensor([[1.0, 0, -1, 0], [0, 1, 1, 0], [0, -1, 1, 0], [0, 1, 0, -1]])
    weigh = torch.tensor([[1.0, 0, 0], [0.5, 0.5, 0.5], [0.5, -0.5, 0.5], [0, 0, 1]])
    write = torch.tensor([[1.0, 1, 1, 0], [0, 1, -1, -1]])
    return Bilinear(2, 3, *(torch.kron(matrix, matrix) for matrix in (read, weigh, write)))


@functools.cache
def fourier(tile: int, kernel: int) -> Bilinear:
    """Returns the algorithm that multiplies discrete Fourier transforms of `(tile + kernel - 1)^2` pixels.

    The transform X of real pixels has one of each pair of opposite frequencies. With V the conjugate transform of the
    kernel, three products give :math:`XV`: :math:`p = V_r (X_r + X_i)`, :math:`q = X_r (V_i - V_r)` and
    :math:`s = X_i (V_r + V_i)`, as :math:`p - s` and :math:`p + q`.
    """
    size = tile + kernel - 1
    pixels, taps, places = (torch.cartesian_prod(*[torch.arange(n).double()] * 2) for n in (size, kernel, tile))
    read, weigh, write = [], [], []
    for row, column in torch.cartesian_prod(*[torch.arange(size)] * 2).tolist():
        opposite = (-row % size, -column % size)
        if opposite < (row, column):
            continue
        frequency = 2 * math.pi / size * torch.tensor([row, column], dtype=torch.float64)
        x, v, y = (points @ frequency for points in (pixels, taps, places))
        real, imaginary, seen, unseen = x.cos(), -x.sin(), y.cos() / size**2, -y.sin() / size**2
        if opposite == (row, column):
            read, weigh, write = [*read, real], [*weigh, v.cos()], [*write, seen]
        else:
            read += [real + imaginary, real, imaginary]
            weigh += [v.cos(), v.sin() - v.cos(), v.cos() + v.sin()]
            write += [2 * (seen + unseen), 2 * unseen, -2 * seen]
    return Bilinear(
        tile, kernel, torch.stack(read).float(), torch.stack(weigh).float(), torch.stack(write, dim=1).float()
    )


def convolve(x: Tensor, weight: Tensor, bias: Tensor, algorithm: Bilinear, together: int) -> Tensor:
    """Convolves with stride 1 and zeros beyond the border, as `torch.nn.functional.conv2d` does.

    Arguments:
        x: `(B, C, H, W)`, float32 on the CPU; fastest in channels-last order, which the result has.
        weight: `(D, C, k, k)` with the kernel of the algorithm.
        bias: `(D,)`.
        algorithm: how.
        together: objects that are transformed at a time; few, so that they stay in the caches.
    """
    tile, _, read, weigh, write = algorithm
    batch, channels, height, width = x.shape
    rows, columns = -(-height // tile), -(-width // tile)
    taps = weight.permute(0, 2, 3, 1).flatten(1, 2)
    result = x.new_zeros(batch, rows, tile, columns, tile, len(weight))
    tiles = (_tiles(x[i : i + together], algorithm) for i in range(0, batch, together))
    tiles = list(tiles) if len(read) > PRODUCTS else tiles
    for some in torch.arange(len(read)).split(PRODUCTS):
        kernels = (weigh[some] @ taps).permute(1, 2, 0)
        for i, part in enumerate(tiles):
            products = torch.bmm((read[some] @ part).view(len(some), -1, channels), kernels)
            found = (write[:, some] @ products.view(len(some), -1)).view(tile, tile, -1, rows, columns, len(weight))
            result[i * together : (i + 1) * together] += found.permute(2, 3, 0, 4, 1, 5)
    result = result.view(batch, rows * tile, columns * tile, -1)[:, :height, :width] + bias
    return result.permute(0, 3, 1, 2)


def _tiles(x: Tensor, algorithm: Bilinear) -> Tensor:
    """Cuts objects `(B, C, H, W)` into overlapping tiles, `((t + k - 1)^2, B * tiles * C)`."""
    tile, size, margin = algorithm.tile, algorithm.tile + algorithm.kernel - 1, algorithm.kernel // 2
    rows, columns = (-(-n // tile) for n in x.shape[2:])
    beyond = (margin, columns * tile - x.shape[3] + margin, margin, rows * tile - x.shape[2] + margin)
    x = F.pad(x.permute(0, 2, 3, 1), (0, 0, *beyond)).contiguous()
    b, r, c, d = x.stride()
    cut = x.as_strided((size, size, len(x), rows, columns, x.shape[3]), (r, c, b, tile * r, tile * c, d))
    return cut.reshape(size**2, -1)
