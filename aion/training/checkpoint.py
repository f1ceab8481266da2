"""The checkpoint of a training: one safetensors file with all that goes on after an interruption.

It holds the module, the state of the optimiser by the names of the parameters, and the average of the weights; in its
metadata the step, which is also the place in the data, in the schedule and, with the seed, in the random draws. What is
shared out over ranks is gathered one tensor at a time, so that any number of ranks can go on. The file is written
under another name and renamed when it is whole and on the disk.
"""

__all__ = ["Checkpoint", "elapsed"]

import os

from collections.abc import Iterator
from pathlib import Path

import torch

from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from aion.training import ranks
from aion.training.average import Average
from aion.training.optimizer import Optimizer

NAME = "checkpoint.safetensors"
FORMAT = "2"


def elapsed(folder: Path | str) -> float:
    """Returns the seconds of training behind the checkpoint in a folder, interruptions left out."""
    return float(_facts(Path(folder) / NAME)["seconds"])


def _facts(path: Path) -> dict[str, str]:
    """Reads the metadata of a checkpoint."""
    try:
        with safe_open(path, framework="pt") as file:
            facts = file.metadata() or {}
    except SafetensorError as error:
        msg = f"{path} is damaged ({error}): remove it to begin anew"
        raise ValueError(msg) from error
    if facts.get("format") != FORMAT:
        msg = f"{path} is no checkpoint of this version of aion: choose another folder or remove it"
        raise ValueError(msg)
    return facts


class Checkpoint:
    """Saves and restores the state of a training; rank 0 writes and reads.

    Arguments:
        folder: of the file; None saves and restores nothing.
        identity: says what is trained on what.
        module: what is trained; its parameters may be shared out over ranks.
        optimizer: has a state for parameters.
        average: of the weights, if there is one.
    """

    def __init__(
        self,
        folder: Path | str | None,
        identity: str,
        module: nn.Module,
        optimizer: Optimizer,
        average: Average | None = None,
    ) -> None:
        self.path, self.identity = None if folder is None else Path(folder) / NAME, identity
        self.module, self.optimizer, self.average = module, optimizer, average

    def save(self, step: int, seconds: float) -> None:
        """Replaces the checkpoint by one of the state after so many steps.

        Raises:
            OSError: if it cannot be written; the last one stays.
        """
        if self.path is None:
            return
        tensors = {}
        for key, value in self._state():
            whole = ranks.full(value)
            if ranks.rank() == 0:
                tensors[key] = whole.cpu().contiguous()
        facts = {"format": FORMAT, "identity": self.identity, "step": str(step), "seconds": f"{seconds:.1f}"}
        with ranks.together():
            if ranks.rank() == 0:
                self._write(tensors, facts)

    def _write(self, tensors: dict[str, Tensor], facts: dict[str, str]) -> None:
        temporary = self.path.with_name(f".{NAME}.part")
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            save_file(tensors, temporary, metadata=facts)
            with temporary.open("rb+") as file:
                os.fsync(file.fileno())
            temporary.replace(self.path)
        except (OSError, SafetensorError) as error:
            temporary.unlink(missing_ok=True)
            last = f"that of step {_facts(self.path)['step']} stays" if self.path.exists() else "there is none yet"
            msg = f"{self.path}: the checkpoint of step {facts['step']} could not be written ({error}); {last}"
            raise OSError(msg) from error

    def restore(self, steps: int) -> tuple[int, float]:
        """Restores the state, if there is one, and returns the step to go on from and the seconds behind it.

        Raises:
            ValueError: if the checkpoint is of another identity, of more than so many steps, or damaged.
        """
        facts, tensors = None, {}
        with ranks.together():
            if self.path is not None and ranks.rank() == 0 and self.path.exists():
                facts = self._checked(_facts(self.path), steps)
                tensors = load_file(self.path)
        facts, keys = ranks.everyone([facts, list(tensors)])[0]
        if facts is None:
            return 0, 0.0
        parameters, state = dict(self.module.named_parameters()), self.module.state_dict()
        for key in keys:
            part, name = key.split(".", 1)
            if part == "optimizer":
                kind, name = name.split(".", 1)
                parameter = parameters[name]
                like = self.optimizer.count(parameter) if kind == "step" else parameter.detach()
                self.optimizer.state(parameter)[kind] = ranks.spread(tensors.pop(key, None), like)
            else:
                target = state[name] if part == "module" else self.average.values[name]
                with torch.no_grad():
                    target.copy_(ranks.spread(tensors.pop(key, None), target.detach()))
        return int(facts["step"]), float(facts["seconds"])

    def _checked(self, facts: dict[str, str], steps: int) -> dict[str, str]:
        if facts["identity"] != self.identity or int(facts["step"]) > steps:
            given = f"step {facts['step']} of {facts['identity'] or 'a training without identity'}"
            wanted = f"at most step {steps} of {self.identity or 'a training without identity'}"
            msg = (
                f"{self.path} is of another training: wanted {wanted}, given {given}: "
                "choose another folder or remove it"
            )
            raise ValueError(msg)
        return facts

    def _state(self) -> Iterator[tuple[str, Tensor]]:
        """Lists all tensors by name, in the same order on every rank."""
        yield from ((f"module.{name}", value) for name, value in self.module.state_dict().items())
        for name, parameter in self.module.named_parameters():
            for kind, value in self.optimizer.state(parameter).items() if parameter.requires_grad else ():
                yield f"optimizer.{kind}.{name}", value
        if self.average is not None:
            yield from ((f"average.{name}", value) for name, value in self.average.values.items())
