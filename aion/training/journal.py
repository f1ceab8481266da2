"""The journal of a training: a line of JSON for each step that is noted, and TensorBoard's files if it is installed."""

__all__ = ["Journal"]

import json
import math

from collections.abc import Mapping
from pathlib import Path


class Journal:
    """Writes down what happens.

    What is there of steps from `start` on is dropped: a training that was killed has noted steps that are made again.
    TensorBoard's files go to a folder `tensorboard` beside the journal.

    Arguments:
        path: JSON Lines file; None writes nothing.
        start: step from which on is written.
    """

    def __init__(self, path: Path | str | None, start: int = 0) -> None:
        self.path, self._board = None if path is None else Path(path), None
        if self.path is None:
            return
        self.path.parent.mkdir(parents=True, exist_ok=True)
        if self.path.exists():
            kept = [line for line in self.path.read_text().splitlines() if _step(line) < start]
            temporary = self.path.with_name(f".{self.path.name}.part")
            temporary.write_text("".join(f"{line}\n" for line in kept))
            temporary.replace(self.path)
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            return
        self._board = SummaryWriter(str(self.path.parent / "tensorboard" / self.path.stem), purge_step=start)

    def write(self, step: int, figures: Mapping[str, float]) -> None:
        """Notes the figures of a step."""
        if self.path is None:
            return
        with self.path.open("a") as file:
            file.write(json.dumps({"step": step, **{key: _rounded(value) for key, value in figures.items()}}) + "\n")
        if self._board is not None:
            for key, value in figures.items():
                self._board.add_scalar(key, value, step)

    def close(self) -> None:
        """Ends the files of TensorBoard."""
        if self._board is not None:
            self._board.close()


def _step(line: str) -> float:
    """Returns the step of a line, infinity for one that was cut off."""
    try:
        return json.loads(line)["step"]
    except (KeyError, TypeError, ValueError):
        return math.inf


def _rounded(value: float) -> float:
    return float(f"{value:.9g}")  # all that float32 holds
