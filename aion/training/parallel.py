"""A module made ready to be trained: its loss over the ranks, in the precision wanted, with memory traded for time.

With `"ddp"` every rank holds the whole module and gradients are averaged. With `"fsdp"` parameters, gradients and the
state of the optimiser are shared out over the ranks, and each block is gathered when it is its turn; with `"zero2"` it
stays gathered between forward and backward, as AION-1 was trained. Blocks are the members of the outermost
`nn.ModuleList`s; activation checkpointing and compilation are by block, too.

References:
    | PyTorch Distributed: Experiences on Accelerating Data Parallel Training (Li et al., 2020), arXiv 2006.15704
    | PyTorch FSDP: Experiences on Scaling Fully Sharded Data Parallel (Zhao et al., 2023), arXiv 2304.11277
    | ZeRO: Memory Optimizations Toward Training Trillion Parameter Models (Rajbhandari et al., 2019), arXiv 1910.02054
    | Training Deep Nets with Sublinear Memory Cost (Chen et al., 2016), arXiv 1604.06174
"""

__all__ = ["PARALLEL", "PRECISIONS", "Prepared", "blocks"]

import copy
import functools

from collections.abc import Iterator
from contextlib import nullcontext

import torch

from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from aion.device import fast_dtype
from aion.training import ranks

PARALLEL = ("ddp", "fsdp", "zero2")
PRECISIONS = ("float32", "bfloat16", "auto")


def blocks(module: nn.Module) -> Iterator[nn.Module]:
    """Lists the members of the outermost module lists."""
    for child in module.children():
        if isinstance(child, nn.ModuleList):
            yield from child
        else:
            yield from blocks(child)


class _Loss(nn.Module):
    """Computes the loss of a module when it is called, which is what PyTorch's engines wrap."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, batch: object, generator: torch.Generator) -> dict[str, Tensor]:
        terms = self.module.loss(batch, generator)
        return {name: term if name == "loss" else term.detach() for name, term in terms.items()}


class Prepared:
    """Wraps a module for training while it is entered.

    Arguments:
        module: has `loss(batch, generator)`.
        parallel: how the ranks share the work, one of `PARALLEL`; the same without other ranks.
        precision: one of `PRECISIONS`, in which products are computed; `"auto"` takes bfloat16 where the device has
            matrix units for it. Weights and sums stay in float32.
        activation_checkpointing: computes what is inside blocks again for the gradient instead of keeping it.
        compile: compiles the blocks; a text names the backend of `torch.compile`.

    Raises:
        ValueError: for options out of range, or if there is no block to checkpoint or compile.
    """

    def __init__(
        self,
        module: nn.Module,
        parallel: str = "ddp",
        precision: str = "float32",
        activation_checkpointing: bool = False,
        compile: bool | str = False,  # noqa: A002
    ) -> None:
        if parallel not in PARALLEL or precision not in PRECISIONS:
            msg = f"wanted parallel of {PARALLEL} and precision of {PRECISIONS}, given {parallel!r} and {precision!r}"
            raise ValueError(msg)
        self.device = next(module.parameters()).device
        fast = fast_dtype(self.device) if precision == "auto" else getattr(torch, precision)
        self._autocast = functools.partial(torch.autocast, self.device.type, fast, enabled=fast != torch.float32)
        ranks.share(module)
        self.original = self.module = module
        self.sharded = parallel != "ddp" and ranks.size() > 1
        if self.sharded:
            self.module = copy.deepcopy(module)
            module.to("cpu")  # waits there for what becomes of its copy
        found = list(blocks(self.module))
        if (activation_checkpointing or compile) and not found:
            msg = "activation_checkpointing= and compile= work on blocks, and this module has no nn.ModuleList of any"
            raise ValueError(msg)
        for block in found if activation_checkpointing else ():
            block.forward = functools.partial(checkpoint, block.forward, use_reentrant=False)
        for block in found if compile else ():
            block.compile(dynamic=True, backend=compile if isinstance(compile, str) else "inductor")
        self._whole = self._wrap(found, parallel)

    def _wrap(self, found: list[nn.Module], parallel: str) -> nn.Module:
        loss = _Loss(self.module)
        if ranks.size() == 1:
            return loss
        if not self.sharded:
            # Which parameters are used may depend on the batch: a mixture of sources leaves some out.
            return nn.parallel.DistributedDataParallel(loss, find_unused_parameters=True)
        from torch.distributed.device_mesh import init_device_mesh
        from torch.distributed.fsdp import fully_shard

        mesh = init_device_mesh(self.device.type, (ranks.size(),))
        for block in found:
            fully_shard(block, mesh=mesh, reshard_after_forward=parallel == "fsdp")
        return fully_shard(loss, mesh=mesh, reshard_after_forward=parallel == "fsdp")

    def backward(self, batch: object, generator: torch.Generator, share: float, last: bool) -> dict[str, Tensor]:
        """Adds the gradient of a share of the loss of a batch, over the ranks with the `last` of a step."""
        alone = nullcontext()
        if self.sharded:
            self._whole.set_requires_gradient_sync(last)
        elif ranks.size() > 1 and not last:
            alone = self._whole.no_sync()
        with alone:
            with self._autocast():
                terms = self._whole(batch, generator)
            (terms["loss"] * share).backward()
        return {name: term.detach() for name, term in terms.items()}

    def __enter__(self) -> "Prepared":
        return self

    @torch.no_grad()
    def __exit__(self, kind: type | None, *_: object) -> None:
        """Takes everything off again and, after no error, gives the original module the weights."""
        if self.sharded and kind is None:
            for name, value in self.original.state_dict().items():
                value.copy_(ranks.full(self.module.state_dict()[name]))
            self.original.to(self.device)
        for block in blocks(self.original):
            vars(block).pop("forward", None)
            block._compiled_call_impl = None
