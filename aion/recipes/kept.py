"""Tokens of objects that are tokenized once, kept on disk, and shown in another order in every epoch.

What is shown of an object and what is asked for is drawn anew every time; tokenizing it anew would cost more than the
step of a small transformer. A shard is a safetensors file of the tokens of its objects, one after the other.
"""

__all__ = ["KeptTokens"]

from collections.abc import Callable, Iterable
from pathlib import Path

import torch

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from tqdm import tqdm

from aion.tokens import TokenSequence
from aion.training import ranks
from aion.whole import whole

SHARD = 1024  # objects, about
NAMES = ("ids", "modality", "position")


class KeptTokens:
    """Gives batches of token sequences by their number; shards that are not on disk are made first.

    Arguments:
        folder: of the shards, which all ranks share.
        identity: says what is tokenized by what; shards of another are an error.
        make: tokenizes a batch of objects, given its number.
        count: number of objects to keep; those of which nothing was measured are missing.
        batch: number of objects of a batch.
        seed: of the order.
        progress: shows a progress bar on a terminal.

    Raises:
        ValueError: for fewer objects than a batch, or a shard that is damaged or of another identity.
        OSError: for a shard that cannot be written; those that are whole stay.
    """

    def __init__(
        self,
        folder: Path,
        identity: str,
        make: Callable[[int], TokenSequence],
        count: int,
        batch: int,
        seed: int = 0,
        progress: bool = False,
    ) -> None:
        if count < batch:
            msg = f"kept: wanted at least the {batch} objects of a batch, given {count}"
            raise ValueError(msg)
        self.identity, self.batch, self.seed = identity, batch, seed
        each, batches = max(SHARD // batch, 1), range(count // batch)
        shards = [batches[first : first + each] for first in batches[::each]]
        self.paths = [folder / f"tokens-{number:05d}.safetensors" for number in range(len(shards))]
        with ranks.together():
            folder.mkdir(parents=True, exist_ok=True)
            mine = [*zip(self.paths, shards, strict=True)][ranks.rank() :: ranks.size()]
            for path, numbers in tqdm(mine, "tokens", unit="shard", disable=None if progress else True):
                if not path.exists():
                    self._write(path, map(make, numbers))
        with ranks.together():
            self.ends = [self._read_ends(path) for path in self.paths]
        self.upto = torch.tensor([len(ends) for ends in self.ends]).cumsum(0)  # objects up to the end of each shard
        self._epoch, self._order = -1, self.upto

    def __len__(self) -> int:
        return int(self.upto[-1])

    def __call__(self, number: int, count: int | None = None) -> TokenSequence:
        """Returns a batch: those objects of its epoch whose turn it is; `count` of them instead of as many as usual."""
        count = min(count or self.batch, len(self))
        epoch, place = divmod(number, len(self) // count)
        if epoch != self._epoch:
            draws = torch.Generator().manual_seed(self.seed * 1_000_003 + epoch)
            self._epoch, self._order = epoch, torch.randperm(len(self), generator=draws)
        turn = self._order[place * count : (place + 1) * count]
        parts = zip(*map(self._read, turn.tolist()), strict=True)
        ids, modality, position, one = (pad_sequence(values, batch_first=True) for values in parts)
        return TokenSequence(ids.long(), modality.long(), position, one.bool())

    def _read(self, index: int) -> tuple[Tensor, ...]:
        """Reads ids, modality and position of the tokens of an object, and a one for each."""
        shard = int(torch.searchsorted(self.upto, index, right=True))
        row, ends = index - (int(self.upto[shard - 1]) if shard else 0), self.ends[shard]
        first, last = int(ends[row - 1]) if row else 0, int(ends[row])
        with safe_open(self.paths[shard], framework="pt") as file:
            return *(file.get_slice(name)[first:last] for name in NAMES), torch.ones(last - first)

    def _read_ends(self, path: Path) -> Tensor:
        try:
            with safe_open(path, framework="pt") as file:
                identity, ends = (file.metadata() or {}).get("identity"), file.get_tensor("ends")
        except SafetensorError as error:
            msg = f"{path} is damaged ({error}): remove it, and it is made again"
            raise ValueError(msg) from error
        if identity != self.identity:
            msg = f"{path} was made by another recipe or other tokenizers: remove {path.parent}, or choose another"
            raise ValueError(msg)
        return ends

    def _write(self, path: Path, sequences: Iterable[TokenSequence]) -> None:
        parts = [(s.ids[s.valid], s.modality[s.valid], s.position[s.valid], s.valid.sum(1)) for s in sequences]
        ids, modality, position, lengths = (torch.cat(part).cpu() for part in zip(*parts, strict=True))
        tensors = dict(zip(NAMES, (ids.int(), modality.short(), position.float()), strict=True))
        try:
            with whole(path) as temporary:
                save_file({**tensors, "ends": lengths.cumsum(0)}, temporary, metadata={"identity": self.identity})
        except SafetensorError as error:  # a full disk
            msg = f"{path} cannot be written ({error})"
            raise OSError(msg) from error
