"""Forecasts in the latent space of a pretrained autoencoder, which stays as it is and is recognised by its hash.

An autoencoder is any module with `encode`, which maps frames `(N, C, *space)` to `(N, F, *latent)`, and `decode`, which
maps them back. `PrincipalComponents` is the linear one.
"""

__all__ = ["LatentForecaster", "PrincipalComponents"]

from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from torch import Tensor, nn

from aion.forecasting.forecaster import Forecaster
from aion.steering import fingerprint

AT_ONCE = 1024  # frames that go through the autoencoder together


class LatentForecaster:
    """Encodes frames, forecasts the codes, decodes the futures.

    A frame of which anything is missing (NaN) counts as missing as a whole. What the autoencoder leaves out of frames
    is missing from the futures, too.

    Arguments:
        autoencoder: see above; it is not trained.
        forecaster: of the codes; it must have been made for this autoencoder.

    Raises:
        ValueError: if the forecaster was made for another.
    """

    def __init__(self, autoencoder: nn.Module, forecaster: Forecaster) -> None:
        forecaster.check_source("autoencoder", fingerprint(autoencoder))
        self.autoencoder, self.forecaster = autoencoder.eval(), forecaster

    @classmethod
    def build(cls, autoencoder: nn.Module, shape: Sequence[int], **options: object) -> "LatentForecaster":
        """Builds an untrained forecaster for the codes of frames of a shape `(C, *space)`.

        Arguments:
            autoencoder: pretrained.
            shape: of a frame.
            options: of `Forecaster`, beside channels and space.
        """
        with torch.no_grad():
            channels, *space = autoencoder.encode(torch.zeros(1, *shape)).shape[1:]
        names = [f"code {number}" for number in range(channels)]
        sources = {"autoencoder": fingerprint(autoencoder)}
        return cls(autoencoder, Forecaster(names, space, sources=sources, **options))

    def fit(self, dataset: Tensor | Sequence[Tensor], steps: int = 2000, **options: object) -> "LatentForecaster":
        """Trains the forecaster, not the autoencoder, on trajectories `(T, C, *space)`; see `Forecaster.fit`."""
        self.forecaster.fit([self._encoded(x) for x in dataset], steps, **options)
        return self

    def forecast(self, past: Tensor, horizon: int, members: int = 64, **options: object) -> Tensor:
        """Draws futures `(M, B, horizon, C, *space)` of a past `(B, P, C, *space)`; see `Forecaster.forecast`."""
        codes = torch.stack([self._encoded(row) for row in past])
        made = self.forecaster.forecast(codes, horizon, members, **options)
        frames = self._through(self.autoencoder.decode, made.flatten(0, 2))
        return frames.unflatten(0, made.shape[:3])

    def save_pretrained(self, folder: Path | str) -> str:
        """Writes the forecaster, with the hash of the autoencoder but without it, and returns its hash."""
        return self.forecaster.save_pretrained(folder)

    @classmethod
    def from_pretrained(cls, name: Path | str, autoencoder: nn.Module, **options: object) -> "LatentForecaster":
        """Loads a forecaster; see `Forecaster.from_pretrained`.

        Raises:
            ValueError: if it was made for another autoencoder.
        """
        return cls(autoencoder, Forecaster.from_pretrained(name, **options))

    def _encoded(self, frames: Tensor) -> Tensor:
        """Encodes frames `(T, C, *space)`; those with gaps become NaN."""
        whole = frames.flatten(1).isfinite().all(1)
        codes = self._through(self.autoencoder.encode, frames.nan_to_num())
        return codes.masked_fill(~whole.view(-1, *[1] * (codes.ndim - 1)), torch.nan)

    @torch.no_grad()
    def _through(self, function: Callable[[Tensor], Tensor], frames: Tensor) -> Tensor:
        return torch.cat([function(part) for part in frames.split(AT_ONCE)])


class PrincipalComponents(nn.Module):
    """Encodes frames as their leading principal components, and decodes them linearly.

    Arguments:
        components: number F of codes.
        shape: of a frame, `(C, *space)`.
    """

    def __init__(self, components: int, shape: Sequence[int]) -> None:
        super().__init__()
        self.shape = tuple(shape)
        entries = torch.Size(self.shape).numel()
        if not 1 <= components <= entries:
            msg = f"PrincipalComponents: wanted 1 to {entries} components of frames {self.shape}, given {components}"
            raise ValueError(msg)
        self.register_buffer("basis", torch.eye(components, entries))
        self.register_buffer("mean", torch.zeros(entries))

    def fit(self, frames: Tensor) -> "PrincipalComponents":
        """Takes mean and components of frames `(N, C, *space)`, all measured, and returns itself."""
        flat = frames.flatten(1).double()
        if not flat.isfinite().all():
            msg = "PrincipalComponents: wanted frames without gaps, given some with NaN"
            raise ValueError(msg)
        self.mean.copy_(flat.mean(0))
        flat = flat - flat.mean(0)
        self.basis.copy_(torch.linalg.eigh(flat.T @ flat).eigenvectors[:, -len(self.basis) :].T.flip(0))
        return self

    def encode(self, frames: Tensor) -> Tensor:
        """Maps `(N, C, *space)` to `(N, F)`."""
        return (frames.flatten(1) - self.mean) @ self.basis.T

    def decode(self, codes: Tensor) -> Tensor:
        """Maps `(N, F)` to `(N, C, *space)`."""
        return (codes @ self.basis + self.mean).unflatten(1, self.shape)
