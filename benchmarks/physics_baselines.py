"""What an emulator of flows has to beat: a linear model of principal components, and a U-Net.

Both forecast a `Flow` from a window: `forecast(window, steps) -> Flow`. Persistence is
`aion.physics.metrics.persistence`.
"""

__all__ = ["LinearModel", "UNet", "new_unet", "trained_unet", "width_for"]

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
import torch.nn.functional as F

from torch import Tensor, nn

from aion.physics.flow import Flow
from aion.physics.normalise import window_scales
from aion.physics.recipe import Windows
from aion.physics.rollout import roll_out
from aion.training import train

LEVELS = 5


class LinearModel:
    """Advances the leading principal components of one system by a ridge regression on the last frames.

    What the components do not hold stays as it is in the last frame.

    Arguments:
        flow: to fit.
        context: frames that the regression sees.
        rank: number of components.
        ridge: of the regression, relative to the mean variance of the components.
    """

    def __init__(self, flow: Flow, context: int = 4, rank: int = 48, ridge: float = 1e-3) -> None:
        self.context = context
        self.scale = flow.values.square().mean((0, 1, *range(3, flow.values.ndim)), keepdim=True).sqrt().clamp(min=1e-6)
        frames = self._flat(flow.values)
        every = frames.flatten(0, 1)
        some = every[torch.linspace(0, len(every) - 1, min(len(every), 800)).long()].double()
        value, vector = torch.linalg.eigh(some @ some.T)
        keep = value[-rank:].clamp(min=1e-12 * value[-1])
        self.modes = ((vector[:, -rank:].T @ some) / keep.sqrt()[:, None]).float()
        components = frames @ self.modes.T
        past = torch.cat([components[:, i : components.shape[1] - context + i] for i in range(context)], -1).flatten(
            0, 1
        )
        change = (components[:, context:] - components[:, context - 1 : -1]).flatten(0, 1)
        gram = past.T.double() @ past.double()
        gram += ridge * gram.diagonal().mean() * torch.eye(len(gram), dtype=gram.dtype)
        self.weight = torch.linalg.solve(gram, past.T.double() @ change.double()).float()

    def _flat(self, values: Tensor) -> Tensor:
        return (values / self.scale).flatten(2)

    def forecast(self, window: Flow, steps: int) -> Flow:
        frames = self._flat(window.values[:, -self.context :])
        past = frames @ self.modes.T
        rest = frames[:, -1] - past[:, -1] @ self.modes
        result = []
        for _ in range(steps):
            after = past[:, -1] + past.flatten(1) @ self.weight
            past = torch.cat([past[:, 1:], after[:, None]], 1)
            result.append(rest + after @ self.modes)
        values = torch.stack(result, 1).view(len(window), steps, *window.values.shape[2:]) * self.scale
        return window.replace(values=values)


class UNet(nn.Module):
    """Predicts the increment of the last frame of planes, in units of its scale, from the whole window.

    Arguments:
        fields: vocabulary; those that a window lacks are zero.
        width: channels of the finest of five levels, each of which has half the points and twice the channels of the
            one before, as usual: most parameters are where they cost least.
        context: frames of a window.
    """

    def __init__(self, fields: Sequence[str], width: int, context: int = 4) -> None:
        super().__init__()
        self.fields, self.context = tuple(fields), context
        sizes = [width * 2**level for level in range(LEVELS)]
        self.enter = nn.Conv2d(len(fields) * context, width, 3)
        self.down = nn.ModuleList(_Convolutions(a, b) for a, b in zip([width, *sizes[:-1]], sizes, strict=True))
        self.up = nn.ModuleList(_Convolutions(a + b, b) for a, b in zip(sizes[:0:-1], sizes[-2::-1], strict=True))
        self.leave = nn.Conv2d(width, len(fields), 1)

    def reset_parameters(self, generator: torch.Generator) -> None:
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_uniform_(module.weight, a=5**0.5, generator=generator)
                nn.init.zeros_(module.bias)

    def forward(self, x: Tensor, periodic: Sequence[bool]) -> Tensor:
        x, kept = _convolve(x, self.enter, periodic), []
        for level, block in enumerate(self.down):
            x = block(F.avg_pool2d(x, 2) if level else x, periodic)
            kept.append(x)
        for block, beside in zip(self.up, kept[-2::-1], strict=True):
            x = block(torch.cat([F.interpolate(x, scale_factor=2.0), beside], 1), periodic)
        return self.leave(x)

    def increment(self, window: Flow) -> tuple[Tensor, Tensor]:
        """Returns the increment of the last frame in units of its scale, and the scale."""
        size, change = window_scales(window.values, window.fields)
        columns = [self.fields.index(name) for name in window.fields]
        x = window.values.new_zeros(len(window), self.context, len(self.fields), *window.space)
        x[:, :, columns] = window.values / size
        return self(x.flatten(1, 2), window.periodic)[:, columns], change[:, 0]

    def loss(self, batch: tuple[Flow, dict], generator: torch.Generator | None = None) -> dict[str, Tensor]:
        flow, _ = batch
        window = flow.window(0, self.context)
        predicted, scale = self.increment(window)
        return {"loss": (predicted - (flow.values[:, -1] - flow.values[:, -2]) / scale).abs().mean()}

    def forecast(self, window: Flow, steps: int) -> Flow:
        def follow(window: Flow) -> Tensor:
            predicted, scale = self.increment(window)
            return window.values[:, -1] + predicted * scale

        return roll_out(window.window(window.frames - self.context, self.context), steps, follow).flow


class _Convolutions(nn.Module):
    def __init__(self, given: int, width: int) -> None:
        super().__init__()
        self.one, self.two = nn.Conv2d(given, width, 3), nn.Conv2d(width, width, 3)
        self.norms = nn.ModuleList(nn.GroupNorm(4, width) for _ in range(2))

    def forward(self, x: Tensor, periodic: Sequence[bool]) -> Tensor:
        for conv, norm in zip((self.one, self.two), self.norms, strict=True):
            x = F.silu(norm(_convolve(x, conv, periodic)))
        return x


def _convolve(x: Tensor, conv: nn.Conv2d, periodic: Sequence[bool]) -> Tensor:
    x = F.pad(x, (1, 1, 0, 0), mode="circular" if periodic[1] else "replicate")
    return conv(F.pad(x, (0, 0, 1, 1), mode="circular" if periodic[0] else "replicate"))


def width_for(fields: Sequence[str], context: int, parameters: int) -> int:
    """Returns the width, a multiple of 4, at which a U-Net has about so many parameters."""

    def distance(width: int) -> int:
        with torch.device("meta"):
            return abs(sum(p.numel() for p in UNet(fields, width, context).parameters()) - parameters)

    return min(range(4, 129, 4), key=distance)


def new_unet(recipe: Mapping, context: int, parameters: int, seed: int) -> UNet:
    """Makes a U-Net of about so many parameters for the fields of a recipe."""
    fields = recipe["model"]["fields"]
    unet = UNet(fields, width_for(fields, context, parameters), context)
    unet.reset_parameters(torch.Generator().manual_seed(seed))
    return unet


def trained_unet(unet: UNet, recipe: Mapping, flows: Mapping[str, Flow], steps: int, seed: int, folder: Path) -> UNet:
    """Trains a U-Net on the windows of a recipe's 2-D data; resumes if it was stopped."""
    planes = {name: flow for name, flow in flows.items() if len(flow.space) == 2}
    data = Windows(planes, dict.fromkeys(planes, 1.0), unet.context, recipe["training"]["batch"], seed=seed)
    options = {"lr": 1e-3, "seed": seed, "identity": f"{recipe['name']}-{steps}-{seed}-{LEVELS}"}
    return train(unet, data, steps, checkpoint=folder / "checkpoint", log=folder / "log.jsonl", **options)
