"""Data sets of torch: objects of the sky by number, or batches one after another for ever.

    loader = DataLoader(SkyDataset(sky, 10_000), batch_size=64, shuffle=True, collate_fn=SkyDataset.collate)
    loader = DataLoader(SkyStream(sky, 64), batch_size=None, num_workers=4)

What a batch holds depends on its number alone: neither on workers nor on ranks, among which the batches are dealt out.
"""

__all__ = ["SkyDataset", "SkyStream"]

from collections.abc import Iterator, Sequence

import torch

from torch.utils.data import Dataset, IterableDataset, get_worker_info

from aion.observations import Observation
from aion.sky.sky import Sky

Batch = dict[str, Observation]


class SkyDataset(Dataset):
    """Gives objects of the sky by number, several at once to a `DataLoader` with `collate_fn=SkyDataset.collate`.

    Arguments:
        sky: what is observed.
        count: number of objects, at least 1.
        start: number in the sky of the first one.

    Raises:
        ValueError: for a count below 1.
    """

    def __init__(self, sky: Sky, count: int, start: int = 0) -> None:
        if count < 1:
            msg = f"SkyDataset: wanted at least one object, given count={count}"
            raise ValueError(msg)
        self.sky, self.count, self.start = sky, int(count), int(start)

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Batch:
        """Observes one object: a batch of one."""
        return self.__getitems__([index])

    def __getitems__(self, indices: Sequence[int]) -> Batch:
        """Observes several objects.

        Raises:
            IndexError: for a number that is not there.
        """
        wanted = torch.as_tensor(indices, dtype=torch.int64)
        wanted = torch.where(wanted < 0, wanted + self.count, wanted)
        if not ((wanted >= 0) & (wanted < self.count)).all():
            msg = f"SkyDataset has objects 0 to {self.count - 1}, asked for {list(indices)}"
            raise IndexError(msg)
        return self.sky.observe(self.start + wanted)

    @staticmethod
    def collate(batch: Batch) -> Batch:
        """Returns what `__getitems__` gave: it is a batch already."""
        return batch


class SkyStream(IterableDataset):
    """Gives batches of consecutive objects; for a `DataLoader` with `batch_size=None`.

    Arguments:
        sky: what is observed.
        batch: number of objects in a batch.
        count: number of batches of all workers and ranks together; None for no end.
        start: number in the sky of the first object.
        rank: which of `world` processes this is; each gets every `world`-th batch.
        world: how many processes share the batches.

    Raises:
        ValueError: for a batch below 1, or a rank that is not below the world.
    """

    def __init__(
        self, sky: Sky, batch: int, count: int | None = None, start: int = 0, rank: int = 0, world: int = 1
    ) -> None:
        if batch < 1 or not 0 <= rank < world:
            msg = f"SkyStream: wanted batch >= 1 and 0 <= rank < world, given {batch=}, {rank=}, {world=}"
            raise ValueError(msg)
        self.sky, self.batch, self.count, self.start = sky, int(batch), count, int(start)
        self.rank, self.world = rank, world

    def __iter__(self) -> Iterator[Batch]:
        worker = get_worker_info()
        own, workers = (0, 1) if worker is None else (worker.id, worker.num_workers)
        number = self.rank + self.world * own
        while self.count is None or number < self.count:
            first = self.start + number * self.batch
            yield self.sky.observe(torch.arange(first, first + self.batch))
            number += self.world * workers
