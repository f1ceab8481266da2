r"""`Walrus`: continues a window of frames of any known fields on a 2-D or 3-D grid.

The window is scaled by its own RMS (`aion.physics.normalise`), cut into tokens (`aion.physics.patching`), mixed by
blocks (`aion.physics.mixing`) and decoded to the increment from each frame to the next; attention in time is causal,
so that every frame of the window is a training example. The two dimensionalities share the blocks and have an encoder
and a decoder each; a plane is a volume of one layer.

Where to look or to steer: `blocks.0` ... `blocks.N`, `blocks.K.time`, `blocks.K.space` give activations
`(B, T, H', W', D', C)`, D' = 1 in two dimensions; `encoders.2` and `encoders.3` the same with the first two as one. In
a roll-out the last block gives the last frame alone (T = 1), which is all that is decoded.

References:
    | Walrus: A Cross-Domain Foundation Model for Continuum Dynamics (McCabe et al., 2025), arXiv 2511.15684
"""

__all__ = ["Walrus"]

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch

from torch import Tensor, nn

from aion import keeping
from aion.bundle import load_weights
from aion.observations import near_miss
from aion.physics.flow import Flow
from aion.physics.mixing import Block
from aion.physics.normalise import window_scales
from aion.physics.patching import FLAGS, Axis, PatchDecoder, PatchEncoder, axes_of, draw_shift, pad, unpad
from aion.physics.rollout import Rollout, roll_out

KIND, NOUN = "walrus", "model of flows"


class Walrus(nn.Module):
    """Predicts the increments of fields from a window of frames.

    Arguments:
        fields: vocabulary, in the order of the columns of the kernels.
        dim: channels C of the activations.
        depth: number of blocks.
        heads: number of attention heads, each a multiple of 2 and at least 8 channels wide.
        hidden: width of the perceptrons after gating; two C if not given.
        middle: channels between the two convolutions of encoders and decoders.
        kernels: sizes of their kernels.
        tokens_2d: default of the largest number of tokens of a 2-D frame.
        tokens_3d: the same of a 3-D frame.
        context: frames of the window that a roll-out keeps.
        shared_scale: gives the components of a vector one scale, see `aion.physics.normalise`.
        groups: see `aion.physics.mixing.SpaceNorm`.
        highest: see `aion.physics.mixing.SpaceMixing`.
        roll_latent: with jitter, moves the token grid along periodic axes before each block too, and back at the end.
    """

    def __init__(
        self,
        fields: Sequence[str],
        dim: int = 64,
        depth: int = 4,
        heads: int = 4,
        hidden: int | None = None,
        middle: int = 24,
        kernels: Sequence[int] = (8, 4),
        tokens_2d: int = 1024,
        tokens_3d: int = 4096,
        context: int = 6,
        shared_scale: bool = True,
        groups: int | None = None,
        highest: float = 16.0,
        roll_latent: bool = False,
    ) -> None:
        super().__init__()
        fields, kernels, hidden = list(fields), tuple(kernels), 2 * dim if hidden is None else hidden
        self.config = {"fields": fields, "dim": dim, "depth": depth, "heads": heads, "hidden": hidden, "middle": middle}
        self.config |= {"kernels": list(kernels), "tokens_2d": tokens_2d, "tokens_3d": tokens_3d, "context": context}
        self.config |= {"shared_scale": shared_scale, "groups": groups, "highest": highest, "roll_latent": roll_latent}
        least = min(depth, heads, hidden, middle, *kernels, tokens_2d, tokens_3d, context)
        if not fields or len(set(fields)) != len(fields) or least < 1 or dim % heads or dim // heads < 8:
            wanted = "different fields, sizes of at least 1, and heads of at least 8 channels that divide dim"
            msg = f"Walrus: wanted {wanted}, given {self.config}"
            raise ValueError(msg)
        self.fields, self.kernels, self.context = tuple(fields), kernels, context
        self.shared_scale, self.roll_latent = shared_scale, roll_latent
        self.tokens = {2: tokens_2d, 3: tokens_3d}
        cut = (FLAGS + len(fields), middle, dim, kernels, groups)
        self.encoders = nn.ModuleDict({"2": PatchEncoder(*cut), "3": PatchEncoder(*cut)})
        self.register_buffer("gain", torch.ones(1))  # of what the encoders give; other than 1 in published weights only
        self.blocks = nn.ModuleList(Block(dim, heads, hidden, groups, highest) for _ in range(depth))
        self.decoders = nn.ModuleDict({"2": PatchDecoder(*cut), "3": PatchDecoder(*cut)})
        self.provenance: dict[str, object] = {}
        if not self.encoders["2"].conv1.weight.is_meta:
            self.reset_parameters()

    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        """Draws new weights: uniform by fan-in, those that end a residual branch smaller; biases are zero."""
        for name, module in self.named_modules():
            if isinstance(module, nn.Linear | nn.Conv3d | nn.ConvTranspose3d):
                nn.init.kaiming_uniform_(module.weight, a=5**0.5, generator=generator)
                if name.endswith((".proj", ".mlp")):
                    module.weight.data.mul_((2 * len(self.blocks)) ** -0.5)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
            elif isinstance(module, nn.Embedding):
                nn.init.normal_(module.weight, std=0.02, generator=generator)

    def save_pretrained(self, folder: Path | str) -> str:
        """Writes the model into a folder, which it replaces, and returns its hash; see `aion.keeping`.

        Raises:
            FileExistsError: if the folder holds anything but a model.
        """
        return keeping.save(self, folder, KIND, self.provenance, NOUN)

    @classmethod
    def from_pretrained(cls, name: Path | str, *, revision: str | None = None) -> "Walrus":
        """Loads a model from a folder or a repository of the Hub, on the CPU; `provenance` says how it was made.

        Raises:
            FileNotFoundError: if there is none.
            ValueError: if a file was altered or does not fit.
        """
        folder, facts = keeping.read(name, KIND, revision, NOUN)
        with torch.device("meta"):
            model = cls(**facts["walrus"])
        load_weights(model, folder, f"{KIND}.safetensors", facts["sha256"])
        model.provenance = facts.get("provenance", {})
        return model.eval()

    def forward(
        self,
        window: Flow,
        *,
        stride: int | Sequence[int] | None = None,
        tokens: int | None = None,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """Returns the predicted increments from each frame to the next, `(B, T, F, *space)`, in the fields' units.

        Arguments:
            window: at least two frames of finite values.
            stride: points from token to token, for all axes or for each: a coarser one costs less.
            tokens: chooses the stride by the largest number of tokens of a frame; the default is the model's.
            generator: of the patch jitter; none without it. Trajectories of a batch are moved alike, so that a
                trajectory's result does not depend on its batch mates.

        Raises:
            ValueError: for unknown fields (with the near misses), values that are not finite (naming trajectory and
                frame), fewer than two frames, or a grid that the stride does not fit.
        """
        self.check(window)
        size, change = window_scales(window.values, window.fields, self.shared_scale)
        return change * self._increments(window, size, self.axes(window, stride, tokens), generator)

    def check(self, window: Flow) -> None:
        """Refuses a window that the model cannot continue; see `forward`."""
        if unknown := [name for name in window.fields if name not in self.fields]:
            msg = f"unknown field {unknown[0]!r}; {near_miss(unknown[0], self.fields)}"
            raise ValueError(msg)
        if window.frames < 2:
            msg = "the window must hold at least 2 frames, for the scale of the increments, given 1"
            raise ValueError(msg)
        if not torch.isfinite(window.values.sum()):
            bad = ~torch.isfinite(window.values)
            if bad.any():
                row, frame, column = bad.flatten(3).any(3).nonzero()[0].tolist()
                name = window.fields[column]
                msg = f"the window must be finite, but field {name!r} of trajectory {row} is not in frame {frame}"
                raise ValueError(msg)

    def axes(self, window: Flow, stride: int | Sequence[int] | None = None, tokens: int | None = None) -> list[Axis]:
        """Returns how the axes of a window are cut; see `aion.physics.patching.axes_of`."""
        tokens = self.tokens[_dimensions(window)] if tokens is None else tokens
        return axes_of(window.space, window.boundaries, self.kernels, stride, tokens)

    def _increments(
        self, window: Flow, size: Tensor, axes: Sequence[Axis], generator: torch.Generator | None, first: int = 0
    ) -> Tensor:
        """Predicts increments from frame `first` on in units of their own RMS; `size` is the RMS of the values."""
        kind = str(_dimensions(window))
        columns = torch.tensor([FLAGS + self.fields.index(name) for name in window.fields], device=size.device)
        shift = draw_shift(axes, generator)
        x = (window.values / size).flatten(0, 1)
        x = x.reshape(*x.shape, *[1] * (5 - x.ndim))
        x = self.gain * self.encoders[kind](*pad(x, axes, shift), columns, axes)
        x = self._mix(x.unflatten(0, window.values.shape[:2]), axes, generator if self.roll_latent else None, first)
        x = self.decoders[kind](x.flatten(0, 1), columns, axes)
        return unpad(x, axes, shift).reshape(window.values[:, first:].shape)

    def _mix(self, x: Tensor, axes: Sequence[Axis], generator: torch.Generator | None, first: int = 0) -> Tensor:
        around = [dim for dim, axis in enumerate(axes, start=2) if not axis.room and axis.points > 1]
        total = [0] * len(around)
        for number, block in enumerate(self.blocks, start=1):
            if generator is not None and around:
                draws = {"generator": generator, "device": generator.device}
                moves = [int(torch.randint(x.shape[dim], (), **draws)) for dim in around]
                total = [before - move for before, move in zip(total, moves, strict=True)]
                x = x.roll(moves, around)
            x = block(x, first) if number == len(self.blocks) else block(x)  # what no later one looks at is left out
        return x.roll(total, around) if any(total) else x

    def rollout(
        self,
        window: Flow,
        steps: int,
        *,
        generator: torch.Generator | None = None,
        jitter: bool = True,
        stride: int | Sequence[int] | None = None,
        tokens: int | None = None,
    ) -> Rollout:
        """Predicts frame after frame, each from the last `context` frames (fewer if the window holds fewer).

        Arguments:
            window: the frames to start from.
            steps: how many frames to predict.
            generator: of the jitter; the same state moves the patches alike at each step, so that two roll-outs can be
                compared. Without it one of seed 0 is made.
            jitter: moves the patches at random at each step. Activations at one place are comparable between steps
                only without it.
            stride: see `forward`.
            tokens: see `forward`.

        Returns:
            See `aion.physics.rollout.roll_out`.

        Raises:
            ValueError: as `forward`, for the window given, or for fewer than one step.
        """
        self.check(window)
        generator = torch.Generator().manual_seed(0) if generator is None else generator
        window = window.replace(values=window.values[:, -max(2, self.context) :])
        axes, draws = self.axes(window, stride, tokens), generator if jitter else None

        def follow(window: Flow) -> Tensor:
            size, change = window_scales(window.values, window.fields, self.shared_scale)
            return window.values[:, -1] + (change * self._increments(window, size, axes, draws, first=-1))[:, -1]

        return roll_out(window, steps, follow)

    def loss(self, batch: Flow | tuple[Flow, Mapping], generator: torch.Generator | None = None) -> dict[str, Tensor]:
        """Computes the mean absolute error of the increments, in units of their RMS in the window.

        Arguments:
            batch: a window and the frame after it; or that and options: keyword arguments of `forward` that choose the
                stride, `noise` and `pushed`. Both give the model frames with errors such as its own, whose increments
                lead back to the true ones: with white noise of so many RMS of the increments, or as it predicts them
                from the true ones before (which takes a frame more).
            generator: of the jitter and of noise; neither without it.

        Returns:
            `loss`, and `last`, the same of the last increment alone, which has seen the whole window.
        """
        flow, options = batch if isinstance(batch, tuple) else (batch, {})
        self.check(flow)
        cut = {name: value for name, value in options.items() if name not in {"noise", "pushed"}}
        given, after = flow.values[:, :-1], flow.values[:, 1:]
        if options.get("pushed"):
            given, after = self._pushed(flow, cut, generator), after[:, 1:]
        size, scale = window_scales(given, flow.fields, self.shared_scale)
        if (noise := options.get("noise", 0.0)) and generator is not None:
            drawn = torch.randn(given.shape, generator=generator, device=generator.device)
            given = given + noise * scale * drawn.to(given)
        window, change = flow.replace(values=given), (after - given) / scale
        error = (self._increments(window, size, self.axes(window, **cut), generator) - change).abs()
        return {"loss": error.mean(), "last": error[:, -1].mean().detach()}

    @torch.no_grad()
    def _pushed(self, flow: Flow, cut: Mapping, generator: torch.Generator | None) -> Tensor:
        """Predicts each frame after the first from those before it: frames with the error of one step."""
        window = flow.window(0, flow.frames - 2)
        size, scale = window_scales(window.values, flow.fields, self.shared_scale)
        return window.values + scale * self._increments(window, size, self.axes(window, **cut), generator)


def _dimensions(window: Flow) -> int:
    return 3 if sum(points > 1 for points in window.space) == 3 else 2
