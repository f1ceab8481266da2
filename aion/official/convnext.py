r"""The convolutional encoder and decoder of the published spectrum tokenizer.

A block is :math:`x + W_2\,\mathrm{GRN}(\mathrm{gelu}(W_1\,\mathrm{norm}(\mathrm{dwconv}(x))))`; the global response
normalisation multiplies each channel by one plus its share of the norm over all positions, so that every pixel of a
spectrum has a say in all of its tokens. Strided convolutions whose kernel is their stride halve (first: quarter) the
grid; they are what they amount to here, a matrix product over patches. Data stay in the order `(B, L, D)` throughout.

The names of the parameters are those of the published files.

References:
    | ConvNeXt V2: Co-designing and Scaling ConvNets with Masked Autoencoders (Woo et al., 2023), arXiv 2301.00808
"""

__all__ = ["ConvNeXtBlock", "ConvNeXtDecoder", "ConvNeXtEncoder"]

from collections.abc import Sequence

import torch
import torch.nn.functional as F

from torch import Tensor, nn


class ConvNeXtBlock(nn.Module):
    """Mixes neighbouring positions, then channels.

    Arguments:
        width: channels D.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.dwconv = nn.Conv1d(width, width, 7, padding=3, groups=width)
        self.norm = nn.LayerNorm(width, eps=1e-6)
        self.pwconv1 = nn.Linear(width, 4 * width)
        self.grn = _ResponseNorm(4 * width)
        self.pwconv2 = nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        """Maps `(B, L, D)` to the same shape."""
        with torch.autocast(x.device.type, enabled=False):  # under autocast, products of matrices alone are rounded
            # As an image of one row in channels-last order: the depth-wise kernels for that are several times faster.
            rows, weight = x[:, None].movedim(-1, 1), self.dwconv.weight[:, :, None]
            y = F.conv2d(rows, weight, self.dwconv.bias, padding=(0, 3), groups=self.dwconv.groups)
            y = self.norm(y.movedim(1, -1).squeeze(1))
        return x + self.pwconv2(self.grn(F.gelu(self.pwconv1(y)))).to(x.dtype)


class ConvNeXtEncoder(nn.Module):
    """Turns channels on a grid into features on a coarser one.

    Arguments:
        channels: channels of what is encoded.
        depths: number of blocks of each stage.
        widths: channels of each stage.
    """

    def __init__(self, channels: int, depths: Sequence[int], widths: Sequence[int]) -> None:
        super().__init__()
        self.downsample_layers = nn.ModuleList()
        for low, high in zip((channels, *widths[:-1]), widths, strict=True):
            if not self.downsample_layers:
                layer = nn.Sequential(nn.Conv1d(low, high, 4, stride=4), nn.LayerNorm(high, eps=1e-6))
            else:
                layer = nn.Sequential(nn.LayerNorm(low, eps=1e-6), nn.Conv1d(low, high, 2, stride=2))
            self.downsample_layers.append(layer)
        self.stages = _stages(depths, widths)
        self.norm = nn.LayerNorm(widths[-1], eps=1e-6)

    def forward(self, x: Tensor) -> Tensor:
        """Maps `(B, L, C)` to `(B, l, D)`."""
        rounded = torch.is_autocast_enabled(x.device.type)
        for i, (change, stage) in enumerate(zip(self.downsample_layers, self.stages, strict=True)):
            for layer in change:
                x = _down(x, layer) if isinstance(layer, nn.Conv1d) else layer(x)
            # The first and the last stage are exact under autocast too: a quarter of the work, and half as many codes
            # change (1.6 % instead of 3 %, for random weights at the published size in bfloat16).
            with torch.autocast(x.device.type, enabled=rounded and 0 < i < len(self.stages) - 1):
                x = stage(x)
        return self.norm(x)


class ConvNeXtDecoder(nn.Module):
    """Turns features back into channels on the finer grid.

    Arguments:
        width: channels of the features.
        depths: number of blocks of each stage.
        widths: channels of each stage; the last is what comes out.
    """

    def __init__(self, width: int, depths: Sequence[int], widths: Sequence[int]) -> None:
        super().__init__()
        self.upsample_layers = nn.ModuleList()
        for i, (low, high) in enumerate(zip((width, *widths[:-1]), widths, strict=True)):
            kernel = 4 if i == len(widths) - 1 else 2
            layers = [nn.LayerNorm(low, eps=1e-6), nn.ConvTranspose1d(low, high, kernel, stride=kernel)]
            if i == 0:
                layers = [layers[1], nn.LayerNorm(high, eps=1e-6)]
            self.upsample_layers.append(nn.Sequential(*layers))
        self.stages = _stages(depths, widths)

    def forward(self, x: Tensor) -> Tensor:
        """Maps `(B, l, D)` to `(B, L, C)`."""
        for change, stage in zip(self.upsample_layers, self.stages, strict=True):
            for layer in change:
                x = _up(x, layer) if isinstance(layer, nn.ConvTranspose1d) else layer(x)
            x = stage(x)
        return x


class _ResponseNorm(nn.Module):
    """Normalises the response of each channel over all positions."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.zeros(1, 1, width))
        self.beta = nn.Parameter(torch.zeros(1, 1, width))

    def forward(self, x: Tensor) -> Tensor:
        norm = x.square().sum(dim=1, keepdim=True, dtype=torch.float32).sqrt()  # 3 times as fast as vector_norm
        share = norm / (norm.mean(dim=-1, keepdim=True) + 1e-6)
        return torch.addcmul(self.beta.to(x.dtype), x, (self.gamma * share + 1).to(x.dtype))


def _stages(depths: Sequence[int], widths: Sequence[int]) -> nn.ModuleList:
    return nn.ModuleList(
        nn.Sequential(*(ConvNeXtBlock(width) for _ in range(depth)))
        for depth, width in zip(depths, widths, strict=True)
    )


def _down(x: Tensor, layer: nn.Conv1d) -> Tensor:
    """Applies a convolution whose stride is its kernel."""
    kernel = layer.kernel_size[0]
    with torch.autocast(x.device.type, enabled=False):
        return F.linear(x.unflatten(1, (-1, kernel)).flatten(2), layer.weight.movedim(1, 2).flatten(1), layer.bias)


def _up(x: Tensor, layer: nn.ConvTranspose1d) -> Tensor:
    """Applies a transposed convolution whose stride is its kernel."""
    kernel = layer.kernel_size[0]
    weight = layer.weight.permute(2, 1, 0).flatten(0, 1)  # (kernel * out, in)
    with torch.autocast(x.device.type, enabled=False):
        return F.linear(x, weight, layer.bias.repeat(kernel)).unflatten(2, (kernel, -1)).flatten(1, 2)
