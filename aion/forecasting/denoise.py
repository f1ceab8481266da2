r"""The denoiser: what is best believed of clean frames, given noisy ones and known ones.

A network F becomes :math:`D = c_{skip} x_\sigma + c_{out} F(c_{in} x_\sigma; \ln\sigma)` where
:math:`c_{skip} = 1 / (1 + \sigma^2)`, :math:`c_{out} = \sigma / \sqrt{1 + \sigma^2}` and
:math:`c_{in} = 1 / \sqrt{1 + \sigma^2}` for data of unit variance: its input and its task have unit size at
every level. With a prior, what the second moments of the data say (`aion.forecasting.prior`) takes the place of
:math:`c_{skip} x_\sigma`, which is what those of white data would say. Known entries are given as they are, clean, and
come back as they are. A denoiser is anything called as `denoiser(x, sigma, known, wanted, offsets, context)`.

References:
    | Elucidating the Design Space of Diffusion-Based Generative Models (Karras et al., 2022), arXiv 2206.00364
    | MCVD: Masked Conditional Video Diffusion (Voleti et al., 2022), arXiv 2205.09853
"""

__all__ = ["MaskedDenoiser"]

from collections.abc import Mapping

import torch

from torch import Tensor, nn

from aion.forecasting.noise import Noise
from aion.forecasting.prior import GaussianDenoiser


class MaskedDenoiser(nn.Module):
    """Denoises what is wanted of some frames, given what is known of them.

    Arguments:
        network: maps `(x, known, wanted, level, offsets, context)` to the shape of x.
        noise: levels of training.
        prior: what the network adds to; white noise by default.
    """

    def __init__(self, network: nn.Module, noise: Noise, prior: GaussianDenoiser | None = None) -> None:
        super().__init__()
        self.network, self.noise, self.prior = network, noise, prior

    def forward(
        self,
        x: Tensor,
        sigma: Tensor,
        known: Tensor,
        wanted: Tensor,
        offsets: Tensor,
        context: Tensor | None = None,
    ) -> Tensor:
        """Returns the mean of the clean frames `(B, N, C, *space)` in float32: exact where known, 0 where neither.

        Arguments:
            x: clean where known, noisy where wanted, anything else.
            sigma: level of the noise, `(B,)`.
            known: boolean, with the shape of x.
            wanted: boolean, with the shape of x.
            offsets: times of the frames in steps, `(B, N)`.
            context: what the frames are conditioned on as a whole, `(B, E)`.
        """
        x = x.float()
        sigma = sigma.float()
        scale = (1 + sigma**2).rsqrt().view(-1, *[1] * (x.ndim - 1))
        answer = self.network(torch.where(known, x, scale * x), known, wanted, sigma.log(), offsets, context).float()
        level = sigma.view(scale.shape)
        start = scale**2 * x if self.prior is None else self.prior(x, sigma, known, wanted, offsets).float()
        clean = start + level * scale * answer
        return torch.where(known, x, torch.where(wanted, clean, 0))

    def loss(self, batch: Mapping[str, Tensor], generator: torch.Generator) -> dict[str, Tensor]:
        """Computes the mean squared error of wanted entries, weighted so that every level counts alike.

        Arguments:
            batch: `values` `(B, N, C, *space)`, finite, boolean `known` and `wanted` of that shape, `offsets` `(B, N)`,
                and perhaps `context` `(B, E)`.
            generator: source of levels and noise, on the CPU.
        """
        values, known, wanted = batch["values"], batch["known"], batch["wanted"]
        sigma = self.noise.draw(len(values), generator).to(values.device)
        noise = torch.randn(values.shape, generator=generator).to(values.device)
        level = sigma.view(-1, *[1] * (values.ndim - 1))
        x = torch.where(known, values, values + level * noise)
        clean = self(x, sigma, known, wanted, batch["offsets"], batch.get("context"))
        error = torch.where(wanted, (clean - values) ** 2, 0).flatten(1).sum(1)
        weight = (1 + sigma**2) / sigma**2
        count = wanted.flatten(1).sum(1).clamp(min=1)
        return {"loss": (weight * error / count).mean(), "error": (error / count).mean()}
