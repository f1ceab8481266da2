"""A perceptron with one hidden layer on frozen embeddings."""

__all__ = ["MLPProbe"]

from dataclasses import dataclass

import torch

from torch import Tensor

from aion.probes.network import NetworkProbe


@dataclass(eq=False, repr=False)
class MLPProbe(NetworkProbe):
    """Fits a perceptron with one hidden layer of GELU; see `aion.probes.network.NetworkProbe`.

    Arguments:
        kind: "regressor" or "classifier".

    References:
        Gaussian Error Linear Units (Hendrycks, Gimpel, 2016, arXiv:1606.08415)
    """

    width: int = 256
    steps: int = 500
    batch_size: int = 128
    learning_rate: float = 1e-3
    kind: str = "regressor"

    def _draw(self, X: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
        return {
            "hidden": torch.randn(self.width, X.shape[1], generator=generator) / X.shape[1] ** 0.5,
            "hidden_bias": torch.zeros(self.width),
            "output": torch.randn(self.outputs_, self.width, generator=generator) / self.width**0.5,
            "output_bias": torch.zeros(self.outputs_),
        }

    def _forward(self, x: Tensor) -> Tensor:
        w = self.network_
        return torch.nn.functional.gelu(x @ w["hidden"].T + w["hidden_bias"]) @ w["output"].T + w["output_bias"]
