"""A convolutional up-sampler: maps of a quantity from a coarse grid of frozen tokens."""

__all__ = ["MapProbe"]

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch

from torch import Tensor

from aion.probes.network import NetworkProbe


@dataclass(eq=False, repr=False)
class MapProbe(NetworkProbe):
    """Fits maps `(B, H, W)` from features `(B, D, h, w)`, where `H / h = W / w` is a power of two.

    Each doubling is a transposed convolution and GELU, the last layer one weight per channel. The score is R2 over
    pixels; for an IoU threshold what is predicted. Arguments are those of `aion.probes.network.NetworkProbe`.

    References:
        Segment Anything (Kirillov et al., 2023, arXiv:2304.02643)
    """

    axes: ClassVar[tuple[int, ...]] = (4,)

    width: int = 32
    steps: int = 300
    batch_size: int = 16
    learning_rate: float = 3e-3

    def _pair(self, X: Tensor | np.ndarray, y: Tensor | np.ndarray) -> tuple[Tensor, Tensor]:
        X, y = self._features(X), self._finite("y", y)
        if y.ndim != 3 or len(y) != len(X) or len(X) == 0:
            msg = f"MapProbe: y must be (B, H, W) with as many maps as features, given {tuple(y.shape)} for {len(X)}"
            raise ValueError(msg)
        factor = y.shape[1] // X.shape[2]
        fits = y.shape[1:] == (X.shape[2] * factor, X.shape[3] * factor)
        if not fits or factor < 1 or factor & (factor - 1):
            msg = (
                f"MapProbe: maps must be a power of two finer than features, given {tuple(y.shape[1:])} for "
                f"{tuple(X.shape[2:])}"
            )
            raise ValueError(msg)
        self.n_features_in_, self.doublings_ = X.shape[1], factor.bit_length() - 1
        return X, y

    def _scale(self, X: Tensor, y: Tensor) -> None:
        self.outputs_ = 1
        spread = X.std((0, 2, 3), correction=0)
        self.center_ = X.mean((0, 2, 3))[:, None, None].numpy()
        self.spread_ = torch.where(spread > 0, spread, 1.0)[:, None, None].numpy()
        scatter = y.std(correction=0).item()
        self.mean_, self.scatter_ = y.mean().item(), scatter if scatter > 0 else 1.0

    def _target(self, y: Tensor) -> Tensor:
        return ((y - self.mean_) / self.scatter_).float()

    def _draw(self, X: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
        def normal(*shape: int, inputs: int) -> Tensor:
            return torch.randn(*shape, generator=generator) / inputs**0.5

        weights = {"first": normal(self.width, X.shape[1], 3, 3, inputs=9 * X.shape[1])}
        for i in range(self.doublings_):
            weights[f"up{i}"] = normal(self.width, self.width, 2, 2, inputs=self.width)
            weights[f"smooth{i}"] = normal(self.width, self.width, 3, 3, inputs=9 * self.width)
        return weights | {"last": normal(1, self.width, 1, 1, inputs=self.width), "last_bias": torch.zeros(1)}

    def _forward(self, x: Tensor) -> Tensor:
        w, f = self.network_, torch.nn.functional
        x = f.gelu(f.conv2d(x, w["first"], padding=1))
        for i in range(self.doublings_):
            x = f.gelu(f.conv_transpose2d(x, w[f"up{i}"], stride=2))
            x = f.gelu(f.conv2d(x, w[f"smooth{i}"], padding=1))
        return f.conv2d(x, w["last"], w["last_bias"])[:, 0]

    def predict(self, X: Tensor | np.ndarray) -> Tensor | np.ndarray:
        """Predicts maps `(B, H, W)`, float64, from features `(B, D, h, w)`.

        Raises:
            ValueError: if nothing was fitted (scikit-learn's `NotFittedError`), or for another width or NaN.
        """
        return self._like(self._outputs(X) * self.scatter_ + self.mean_, X)
