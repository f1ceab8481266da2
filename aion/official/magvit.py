r"""The convolutional encoder and decoder of the published image tokenizer.

Residual units at full resolution, then `compressions` times a strided convolution that halves the grid and doubles the
channels. A residual unit is :math:`x + g \cdot y` with :math:`y` a 3 x 3 and a 1 x 1 convolution, each followed by an
ELU, and :math:`g` a gate for each channel, computed from the mean of :math:`y` over all pixels weighted by a softmax:
every pixel of an image has a say in all of its tokens.

Everything is kept in channels-last order, in which the convolutions are fastest on CPU and GPU alike. The names of the
parameters are those of the published files.

References:
    | Language Model Beats Diffusion: Tokenizer is Key to Visual Generation (Yu et al., 2023), arXiv 2310.05737
    | GCNet: Non-local Networks Meet Squeeze-Excitation Networks and Beyond (Cao et al., 2019), arXiv 1904.11492
"""

__all__ = ["MagViT", "ResidualUnit"]

import itertools

import torch
import torch.nn.functional as F

from torch import Tensor, nn

from aion.official.bilinear import Bilinear, convolve, fourier, winograd


class MagViT(nn.Module):
    """Holds both halves; `encode` and `decode` run them.

    Arguments:
        channels: channels of what is encoded.
        width: channels D of the latent.
        compressions: how many times the grid is halved.
        depth: number of residual units between two of those.
    """

    def __init__(self, channels: int, width: int, compressions: int, depth: int) -> None:
        super().__init__()
        if width % 2**compressions:
            msg = f"MagViT: width must be a multiple of {2**compressions}, given {width}"
            raise ValueError(msg)
        widths = [width // 2 ** (compressions - i) for i in range(compressions + 1)]

        def units(width: int) -> nn.Sequential:
            return nn.Sequential(*(ResidualUnit(width) for _ in range(depth)))

        encoder, decoder = [ResidualUnit(widths[0])], [ResidualUnit(widths[0])]
        for low, high in itertools.pairwise(widths):
            encoder += [_Convolution(low, high, 3, stride=2), units(high)]
            decoder = [units(high), _Up(high, low), *decoder]
        encoder += [_Convolution(width, width, 7), units(width), nn.Sequential(nn.Identity(), nn.LayerNorm(width))]
        decoder = [units(width), _Convolution(width, width, 3), *decoder]
        self.encoder_layers = nn.ModuleList(encoder)
        self.decoder_layers = nn.ModuleList(decoder)
        self.conv_in = _Convolution(channels, widths[0], 7)
        self.conv_out = _Convolution(widths[0], channels, 3)

    def encode(self, x: Tensor) -> Tensor:
        """Maps what `conv_in` made of an image `(B, D', H, W)` to normalised latents `(B, h, w, D)`."""
        for layer in self.encoder_layers[:-1]:
            x = layer(x).float()  # under autocast, what is added up is not rounded
        return self.encoder_layers[-1](x.movedim(1, -1))

    def decode(self, x: Tensor) -> Tensor:
        """Maps latents `(B, D, h, w)` to what `conv_out` takes, `(B, D', H, W)`."""
        for layer in self.decoder_layers:
            x = layer(x).float()
        return x


class ResidualUnit(nn.Module):
    """Adds a gated convolution; see the module.

    Arguments:
        width: channels D.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.net = nn.Sequential(
            _Convolution(width, width, 3), nn.ELU(), nn.Conv2d(width, width, 1), nn.ELU(), _Gate(width)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Maps `(B, D, H, W)` to the same shape."""
        spare = not torch.is_grad_enabled()  # then nobody needs what goes into an ELU again
        y = F.elu(self.net[0](x), inplace=spare)
        y = F.elu(self.net[2](y), inplace=spare)
        return torch.addcmul(x, y.to(x.dtype), self.net[4](y).to(x.dtype))


class _Convolution(nn.Module):
    """Convolves; a module of its own because the published name of its weight is `conv.weight`."""

    def __init__(self, low: int, high: int, kernel: int, stride: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv2d(low, high, kernel, stride=stride, padding=kernel // 2)

    def forward(self, x: Tensor) -> Tensor:
        if algorithm := self._fast(x):
            return convolve(x, self.conv.weight, self.conv.bias, *algorithm)
        # No residual goes around a strided convolution: under autocast its rounding would stay. It is 5 % of the work.
        with torch.autocast(
            x.device.type, enabled=torch.is_autocast_enabled(x.device.type) and self.conv.stride[0] == 1
        ):
            return self.conv(x)

    def _fast(self, x: Tensor) -> tuple[Bilinear, int] | None:
        """Returns the faster algorithm for a wide layer on a CPU, and for how many objects at a time, if there is one.

        From 512 channels on; with fewer objects the transform of the kernels would cost more than it saves.
        """
        exact = x.dtype == torch.float32 and not torch.is_autocast_enabled(x.device.type)
        if x.device.type != "cpu" or not exact or torch.is_grad_enabled():
            return None
        if self.conv.stride[0] > 1 or self.conv.in_channels < 512 or len(x) < 4:
            return None
        return {3: (winograd(), 1), 7: (fourier(8, 7), 8)}.get(self.conv.kernel_size[0])


class _Gate(nn.Module):
    """Computes the gate `(B, D, 1, 1)` of each channel from all pixels."""

    def __init__(self, width: int) -> None:
        super().__init__()
        hidden = max(16, width // 2)
        self.to_k = nn.Conv2d(width, 1, 1)
        self.net = nn.Sequential(
            nn.Conv2d(width, hidden, 1), nn.LeakyReLU(0.1), nn.Conv2d(hidden, width, 1), nn.Sigmoid()
        )
        nn.init.zeros_(self.net[2].weight)
        nn.init.constant_(self.net[2].bias, -10.0)  # starts as the identity

    def forward(self, x: Tensor) -> Tensor:
        pixels = x.permute(0, 2, 3, 1).flatten(1, 2)  # (B, HW, D), no copy in channels-last order
        share = F.linear(pixels, self.to_k.weight.flatten(1), self.to_k.bias).float().softmax(dim=1)
        pooled = share.to(pixels.dtype).transpose(1, 2) @ pixels
        return self.net(pooled.movedim(1, -1)[..., None])


class _Up(nn.Module):
    """Doubles the grid: a 1 x 1 convolution whose channels are spread over 2 x 2 pixels."""

    def __init__(self, high: int, low: int) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Conv2d(high, 4 * low, 1), nn.SiLU(), nn.PixelShuffle(2))

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)
