r"""Attentive pooling: each output asks the tokens of an object its own question.

With learned maps to keys and values and one learned query :math:`q_k` per output,
:math:`e_k = \mathrm{softmax}(K q_k / \sqrt d)^T V` and :math:`y_k = w_k \cdot e_k + b_k`. A mean over tokens drowns the
few that matter: published R2 of redshift falls from .995 to .78 once spectra join.
"""

__all__ = ["AttentiveProbe"]

from dataclasses import dataclass
from typing import ClassVar

import torch

from torch import Tensor

from aion.probes.network import NetworkProbe


@dataclass(eq=False, repr=False)
class AttentiveProbe(NetworkProbe):
    """Fits one query per output on the tokens of objects, `X` of shape `(B, N, D)`.

    A token whose vector is zero everywhere is padding (`AION.embed(..., pool="none")` writes it so): it has no part in
    the result. So features ride through cross-validation as one array.

    Arguments:
        kind: "regressor" or "classifier"; for the others see `aion.probes.network.NetworkProbe`.

    References:
        AION-1: Omnimodal Foundation Model for Astronomical Sciences (Parker et al., 2025, arXiv:2510.17960)
        Perceiver: General Perception with Iterative Attention (Jaegle et al., 2021, arXiv:2103.03206)
    """

    axes: ClassVar[tuple[int, ...]] = (3,)

    width: int = 64
    steps: int = 300
    batch_size: int = 64
    learning_rate: float = 3e-3
    kind: str = "regressor"

    def _features(self, X: Tensor) -> Tensor:
        X = super()._features(X)
        if (empty := (X == 0).all(2).all(1)).any():
            rows = empty.nonzero().flatten()[:5].tolist()
            msg = f"AttentiveProbe: {int(empty.sum())} objects have no token but padding (first: {rows})"
            raise ValueError(msg)
        return X

    def _scale(self, X: Tensor, y: Tensor) -> None:
        super()._scale(X, y)
        real = X[(X != 0).any(2)]
        self.center_, spread = real.mean(0).numpy(), real.std(0, correction=0)
        self.spread_ = torch.where(spread > 0, spread, 1.0).numpy()

    def _inputs(self, X: Tensor) -> tuple[Tensor, Tensor]:
        return super()._inputs(X), (X != 0).any(2)

    def _draw(self, X: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
        def normal(*shape: int) -> Tensor:
            return torch.randn(*shape, generator=generator) / shape[-1] ** 0.5

        return {
            "key": normal(self.width, X.shape[2]),
            "value": normal(self.width, X.shape[2]),
            "query": normal(self.outputs_, self.width),
            "output": normal(self.outputs_, self.width),
            "output_bias": torch.zeros(self.outputs_),
        }

    def _forward(self, inputs: tuple[Tensor, Tensor]) -> Tensor:
        x, valid = inputs
        w = self.network_
        logits = (x @ w["key"].T) @ w["query"].T / self.width**0.5  # (B, N, K)
        weight = logits.masked_fill(~valid[..., None], -torch.inf).softmax(1)
        pooled = weight.mT @ (x @ w["value"].T)  # (B, K, width)
        return (pooled * w["output"]).sum(2) + w["output_bias"]
