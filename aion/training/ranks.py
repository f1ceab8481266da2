"""Ranks: the processes that train together, as `torchrun` starts them, and what they tell each other.

A process that nobody started so is alone, and all of this costs it nothing. Facts travel as JSON, tensors as they are:
those on the CPU by gloo, those on a GPU by NCCL.
"""

__all__ = ["agree", "everyone", "fail", "full", "joined", "rank", "share", "size", "spread", "together", "total"]

import json
import os
import time

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn

import torch
import torch.distributed as dist

from torch import Tensor, nn

QUIET = 1.0  # seconds; torchrun ends all ranks once one has ended, and the one that failed must have said why by then


@contextmanager
def joined(device: str = "cpu") -> Iterator[str]:
    """Joins the ranks that `torchrun` started, if it did, and yields the device of this one.

    Arguments:
        device: `"cuda"` gives each rank of a machine a GPU of its own; `"auto"` is that, or the CPU without any.

    Raises:
        ConnectionError: if another rank has ended.
        ValueError: if there are more ranks on this machine than GPUs.
    """
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield device
        return
    backend, own = "gloo", None
    if device == "cuda":
        local = int(os.environ.get("LOCAL_RANK", "0"))
        if local >= torch.cuda.device_count():
            msg = f"rank {local} of this machine has no GPU: it has {torch.cuda.device_count()}; start as many ranks"
            raise ValueError(msg)
        device, backend = f"cuda:{local}", "cpu:gloo,cuda:nccl"
        own = torch.device(device)
        torch.cuda.set_device(own)
    dist.init_process_group(backend, device_id=own)
    try:
        yield device
    except RuntimeError as error:
        if "gloo" not in str(error) and not isinstance(error, dist.DistError):
            raise
        msg = f"lost another rank, which says why ({str(error).splitlines()[0]})"
        raise ConnectionError(msg) from error
    dist.destroy_process_group()  # not after an error: the others may be waiting for this rank


def size() -> int:
    """Returns the number of ranks, 1 for a process that is alone."""
    return dist.get_world_size() if dist.is_initialized() else 1


def rank() -> int:
    """Returns the number of this rank, from 0."""
    return dist.get_rank() if dist.is_initialized() else 0


def everyone(fact: object) -> list:
    """Returns what each rank said, in the order of the ranks; facts are plain JSON values."""
    if size() == 1:
        return [fact]
    text = torch.frombuffer(bytearray(json.dumps(fact).encode()), dtype=torch.uint8)
    lengths = [torch.zeros(1, dtype=torch.int64) for _ in range(size())]
    dist.all_gather(lengths, torch.tensor([len(text)]))
    longest = max(int(length) for length in lengths)
    texts = [torch.zeros(longest, dtype=torch.uint8) for _ in lengths]
    dist.all_gather(texts, nn.functional.pad(text, (0, longest - len(text))))
    return [json.loads(bytes(t[: int(n)].tolist())) for t, n in zip(texts, lengths, strict=True)]


def fail(error: Exception) -> NoReturn:
    """Raises an error that all ranks have met: rank 0 says what it is, the others end without a word."""
    if rank() == 0:
        raise error
    time.sleep(QUIET)
    raise SystemExit(2)


def agree(name: str, fact: object) -> None:
    """Makes sure that all ranks say the same.

    Raises:
        ValueError: if they do not, see `fail`.
    """
    said = everyone(fact)
    for other, value in enumerate(said):
        if value != said[0]:
            fail(ValueError(f"the ranks disagree on the {name}: rank 0 has {said[0]!r}, rank {other} {value!r}"))


@contextmanager
def together() -> Iterator[None]:
    """Lets all ranks end if one fails inside: the first that does says why, the others end without a word.

    Without it, those that did not fail would wait for the one that did.
    """
    error = None
    try:
        yield
    except (OSError, TypeError, ValueError) as caught:
        error = caught
    failed = [number for number, bad in enumerate(everyone(error is not None)) if bad]
    if failed and failed[0] == rank():
        raise error
    if failed:
        time.sleep(QUIET)
        raise SystemExit(2)


def total(values: Tensor) -> Tensor:
    """Sums a tensor over the ranks."""
    if size() > 1:
        dist.all_reduce(values)
    return values


def full(value: Tensor) -> Tensor:
    """Returns the whole of a tensor that may be shared out over the ranks; all of them must ask."""
    value = value.detach()
    return value.full_tensor() if hasattr(value, "full_tensor") else value


@torch.no_grad()
def spread(value: Tensor | None, like: Tensor) -> Tensor:
    """Returns rank 0's value on every rank, of the type, on the device and shared out as `like` is."""
    if size() == 1:
        return value.to(like)
    whole = torch.empty(like.shape, dtype=like.dtype, device=like.device) if value is None else value.to(like.device)
    if not hasattr(like, "full_tensor"):
        whole = whole.to(like.dtype).contiguous()
        dist.broadcast(whole, 0)
        return whole
    from torch.distributed.tensor import distribute_tensor

    return distribute_tensor(whole.to(like.dtype), like.device_mesh, like.placements)


@torch.no_grad()
def share(module: nn.Module) -> None:
    """Gives every rank the parameters and buffers that rank 0 has."""
    if size() > 1:
        for value in (*module.parameters(), *module.buffers()):
            value.copy_(spread(value.detach() if rank() == 0 else None, value.detach()))
