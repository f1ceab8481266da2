"""One training loop for any module with a `loss(batch, generator)`: see `aion.training.loop`."""

__all__ = ["elapsed", "learning_rate", "train"]

from aion.training.checkpoint import elapsed
from aion.training.loop import train
from aion.training.schedule import learning_rate
