"""The forecaster: a denoiser, a scheme and a normalisation, trained, run, saved and loaded as one."""

__all__ = ["Forecaster"]

import math
import tempfile

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

import torch

from torch import Tensor, nn
from tqdm.auto import tqdm

from aion import keeping
from aion.bundle import digest, load_tensors
from aion.forecasting.contexts import Contexts, prepared
from aion.forecasting.denoise import MaskedDenoiser
from aion.forecasting.network import FrameTransformer
from aion.forecasting.noise import Noise
from aion.forecasting.normalisation import Normalisation
from aion.forecasting.past import check_numbers, check_past, check_scheme, draw_seeds
from aion.forecasting.prior import unfitted
from aion.forecasting.rollout import roll_out
from aion.forecasting.sample import sample
from aion.forecasting.template import Scheme, multiscale
from aion.forecasting.windows import Windows, check_trajectories, patterns
from aion.training import train

KIND = "forecaster"


class Forecaster(nn.Module):
    """Draws futures of a partially observed system from what was seen of its past.

    Arguments:
        channels: names of the C channels of a frame.
        space: size of a frame: `()` for a series, `(L,)` or `(H, W)` for a field.
        K: frames a network call makes at most; it handles 2K+1.
        alpha: ratio of the template; see `aion.forecasting.gaussian.select_template`.
        units: of the channels, as text; told in errors and kept with the weights.
        cadence: time between two frames, as text.
        transform: `"none"`, or `"sqrt"` for counts, whose scatter grows with them.
        network: further arguments of `FrameTransformer`, such as one of its `SIZES`.
        noise: arguments of `Noise`.
        prior: principal components of a frame whose second moments the network starts from; 0 for none. Frames of more
            than 4096 numbers have none.
        steps: levels of noise that sampling goes through.
        sampler: see `aion.forecasting.sample.sample`.
        sources: content hashes of the models that made what it sees, such as `{"autoencoder": ...}` or, for a context,
            `{"context": model.sha256}`; kept with the weights, see `check_source`.
        denoiser: in place of the network, such as `GaussianDenoiser`; such a forecaster is neither trained nor saved.

    Raises:
        ValueError: if an argument does not fit.
    """

    def __init__(
        self,
        channels: Sequence[str] = ("value",),
        space: Sequence[int] = (),
        *,
        K: int = 3,
        alpha: float = 2.5,
        units: Sequence[str] | None = None,
        cadence: str = "",
        transform: str = "none",
        network: Mapping[str, int] | None = None,
        noise: Mapping[str, float] | None = None,
        prior: int = 32,
        steps: int = 16,
        sampler: str = "adams-bashforth",
        sources: Mapping[str, str] | None = None,
        denoiser: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.channels, self.space = tuple(channels), tuple(space)
        self.units = tuple(units) if units is not None else ("",) * len(self.channels)
        if not self.channels or len(set(self.channels)) < len(self.channels) or len(self.units) != len(self.channels):
            msg = f"Forecaster: wanted different names and a unit for each, given {self.channels} and {self.units}"
            raise ValueError(msg)
        self.config = {
            "channels": list(self.channels),
            "space": list(self.space),
            "K": K,
            "alpha": alpha,
            "units": list(self.units),
            "cadence": cadence,
            "transform": transform,
            "network": dict(network or {}),
            "noise": asdict(Noise(**(noise or {}))),
            "prior": prior,
            "steps": steps,
            "sampler": sampler,
            "sources": dict(sources or {}),
        }
        self.scheme = multiscale(K, alpha)
        self.noise = Noise(**self.config["noise"])
        self.noise.levels(steps)
        self.denoiser = self._untrained() if denoiser is None else denoiser
        self.normalisation = Normalisation(self.channels, self.units, len(self.space), transform)
        width = self.config["network"].get("context", 0)
        self.contexts = Contexts(width) if width else None
        self.provenance: dict[str, object] = {}

    def _untrained(self) -> MaskedDenoiser:
        network = FrameTransformer(len(self.channels), self.space, **self.config["network"])
        entries = len(self.channels) * math.prod(self.space)
        prior = unfitted(self.config["prior"], entries, self._widest() + 1)
        if prior is not None:
            network.awaken()
        return MaskedDenoiser(network, self.noise, prior)

    def _widest(self) -> int:
        """Returns how many frames the widest call of training spans."""
        return max(2 * self.scheme.period, self.config["K"] * (self.config["K"] + 1))

    # --- training -----------------------------------------------------------------------------------------------------

    def fit(
        self,
        dataset: Tensor | Sequence[Tensor],
        steps: int = 2000,
        *,
        batch: int = 64,
        lr: float = 1e-3,
        seed: int = 0,
        contexts: Tensor | None = None,
        **options: object,
    ) -> "Forecaster":
        """Learns normalisation and network from trajectories, and returns itself, trained in place.

        Arguments:
            dataset: `(S, T, C, *space)`, or trajectories `(T, C, *space)` of any lengths; NaN is not measured.
            steps: of training.
            batch: windows in a step.
            lr: peak learning rate.
            seed: of windows, levels and noise.
            contexts: what each trajectory is conditioned on, such as an embedding, `(S, E)`; normalised here.
            options: of `aion.training.train`: checkpoint, log, progress and others.

        Raises:
            TypeError: if the data are not floating-point tensors.
            ValueError: if they have other channels or space, are too short, constant or not measured at all, or the
                checkpoint is of other data, scheme or normalisation.
        """
        self._check_own()
        data = check_trajectories(dataset, (len(self.channels), *self.space))
        self.normalisation.fit(data)
        normal = [self.normalisation(x).cpu() for x in data]
        contexts = prepared(self.contexts, contexts, len(data), learn=True)
        if self.denoiser.prior is not None:
            self.denoiser.prior.fit(normal)
        calls = patterns(self.config["K"], self.config["alpha"])
        windows = Windows(normal, calls, batch, seed, None if contexts is None else contexts.cpu())
        device = self.normalisation.mean.device
        settings = {"batch": batch, "lr": lr, "seed": seed}
        facts = digest({**self.config, **settings}, {"normalisation": self.normalisation.sha256})
        self.provenance = {"steps": steps, **settings}

        def draw_windows(step: int) -> dict[str, Tensor]:
            return {name: part.to(device) for name, part in windows(step).items()}

        train(self.denoiser, draw_windows, steps, lr=lr, seed=seed, identity=f"forecaster {facts}", **options)
        return self

    def _check_own(self) -> None:
        if not isinstance(self.denoiser, MaskedDenoiser):
            msg = f"this forecaster has a {type(self.denoiser).__name__} of yours: only a network is trained and saved"
            raise ValueError(msg)

    # --- forecasting --------------------------------------------------------------------------------------------------

    @torch.no_grad()
    def forecast(
        self,
        past: Tensor,
        horizon: int,
        members: int = 64,
        *,
        generator: torch.Generator | None = None,
        scheme: Scheme | None = None,
        context: Tensor | None = None,
        chunk: int = 256,
        progress: str | None = None,
    ) -> Tensor:
        """Draws futures.

        What is drawn for an object depends on the generator and on its own past: not on its neighbours, nor on how many
        are drawn at once.

        Arguments:
            past: `(B, P, C, *space)`, in the units of training, the last frame the present. NaN is not measured.
            horizon: frames to draw; beyond a period of the scheme the present moves on.
            members: futures M of each object.
            generator: source of one number, by which all draws are seeded; seed 0 by default. It is on the CPU.
            scheme: another than the forecaster's own; its calls must be no larger nor wider than those of training.
            context: what each object is conditioned on, `(B, E)`.
            chunk: futures at once, which bounds the memory.
            progress: title of the progress bar, which shows on a terminal only; None for none at all.

        Returns:
            `(M, B, horizon, C, *space)` in the units of training, float32.

        Raises:
            TypeError: if the past is no floating-point tensor.
            ValueError: if it has another shape, is too short for the scheme, holds nothing measured that the scheme
                looks at, or is in other units; if the horizon or the number of members is no whole number above 0.
        """
        scheme = self.scheme if scheme is None else scheme
        calls = scheme.calls(horizon)
        check_numbers(members=members, chunk=chunk)
        check_scheme(scheme, self.config["K"], self._widest())
        check_past(past, (len(self.channels), *self.space), scheme)
        past = past[:, -(scheme.reach() + 1) :].to(self.normalisation.mean)
        self.normalisation.check(past)
        context = prepared(self.contexts, context, len(past))
        seeds = draw_seeds(past, members, torch.Generator().manual_seed(0) if generator is None else generator)
        known = self.normalisation(past)
        result = torch.empty(members * len(past), horizon, *past.shape[2:])
        with tqdm(total=len(result) * len(calls), desc=progress, disable=None if progress else True) as bar:
            for rows in torch.arange(len(result)).split(chunk):
                objects = rows % len(past)
                given = None if context is None else context[objects]
                drawing = [torch.Generator().manual_seed(seeds[row]) for row in rows.tolist()]
                future = roll_out(self._draw, known[objects], calls, drawing, given, bar.update)[:, :horizon]
                result[rows] = self.normalisation.undo(future).cpu()
        return result.unflatten(0, (members, len(past)))

    def _draw(self, *given: Tensor | None) -> Tensor:
        levels = {"noise": self.noise, "steps": self.config["steps"], "method": self.config["sampler"]}
        return sample(self.denoiser, *given, **levels)

    def check_source(self, name: str, sha256: str) -> None:
        """Refuses an autoencoder, or a context, of another model than that of training.

        Arguments:
            name: of the source, such as `"autoencoder"` or `"context"`.
            sha256: content hash of the model at hand.

        Raises:
            ValueError: saying what differs.
        """
        if (mine := self.config["sources"].get(name)) != sha256:
            known = f"one of hash {mine[:12]}" if mine else "none"
            msg = f"this forecaster was made for another {name}: wanted {known}, given one of hash {sha256[:12]}"
            raise ValueError(msg)

    def trace(self, horizon: int, scheme: Scheme | None = None) -> list[int]:
        """Lists which call, from 0, made each of the frames 1 to `horizon`."""
        calls = (self.scheme if scheme is None else scheme).calls(horizon)
        made = {t: number for number, (_, new) in enumerate(calls) for t in new}
        return [made[t] for t in range(1, horizon + 1)]

    # --- on disk ------------------------------------------------------------------------------------------------------

    @property
    def sha256(self) -> str:
        """Returns the content hash of weights, normalisation and configuration."""
        with tempfile.TemporaryDirectory() as folder:
            return keeping.write(self, Path(folder), KIND)

    def save_pretrained(self, folder: Path | str) -> str:
        """Writes `config.json` and `forecaster.safetensors`, all or nothing, and returns the hash.

        Raises:
            FileExistsError: if the folder holds anything but a forecaster.
        """
        self._check_own()
        return keeping.save(self, folder, KIND, self.provenance)

    @classmethod
    def from_pretrained(cls, name: Path | str, *, revision: str | None = None, device: str = "cpu") -> "Forecaster":
        """Loads a forecaster: one that ships, a folder, or a repository of the Hub.

        Raises:
            FileNotFoundError: if there is none.
            ValueError: if a file was altered or does not fit.
        """
        folder, config = keeping.read(name, KIND, revision)
        forecaster = cls(**config["forecaster"])
        try:
            forecaster.load_state_dict(load_tensors(folder, f"{KIND}.safetensors", config["sha256"]))
        except RuntimeError as error:
            msg = f"{folder} does not fit its configuration: {error}"
            raise ValueError(msg) from error
        forecaster.provenance = config["provenance"]
        return forecaster.to(device).eval()
