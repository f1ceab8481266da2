"""Layers of any module: how they are named, found, watched and edited.

Layers have dotted names, as in `named_modules`, without what wrappers (`torch.compile`, `DistributedDataParallel`) add
to them. In a pattern `*` stands for any part of a name between dots and `**` for any number of parts.
"""

__all__ = ["edited", "find_layers", "fingerprint", "unwrapped"]

import hashlib
import re
import sys
import weakref

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

import torch

from torch import Tensor, nn

from aion.observations import near_miss

# What a model hashed to, for as long as nothing was written to its weights: hashing takes as long as reading them.
_hashes: "weakref.WeakKeyDictionary[nn.Module, tuple[list, str]]" = weakref.WeakKeyDictionary()


def find_layers(model: nn.Module, pattern: str) -> dict[str, nn.Module]:
    """Finds the layers whose name fits a pattern, in the order of the model.

    Raises:
        TypeError: if the model is no module or the pattern no string.
        ValueError: if none fits (with the near misses).
    """
    if not isinstance(model, nn.Module) or not isinstance(pattern, str):
        msg = f"wanted a torch module and a layer's name, given {type(model).__name__} and {pattern!r}"
        raise TypeError(msg)
    named = {_plain(name): module for name, module in unwrapped(model).named_modules() if name}
    parts = re.split(r"(\*\*|\*)", pattern)
    wanted = re.compile("".join({"**": ".*", "*": "[^.]*"}.get(part, re.escape(part)) for part in parts))
    found = {name: module for name, module in named.items() if wanted.fullmatch(name)}
    if not found:
        close = near_miss(pattern, named) if len(named) < 40 else near_miss(pattern, _shallow(named))
        msg = f"no layer of {type(unwrapped(model)).__name__} fits {pattern!r}; {close}"
        raise ValueError(msg)
    return found


def fingerprint(model: nn.Module) -> str:
    """Computes the SHA-256 of the names, shapes, types and values of all weights; where they are does not matter."""
    model = unwrapped(model)
    tensors = [*model.parameters(), *model.buffers()]
    state = [(id(t), t.data_ptr(), -1 if t.is_inference() else t._version) for t in tensors]
    if model in _hashes and _hashes[model][0] == state:
        return _hashes[model][1]
    result = hashlib.sha256()
    for name, tensor in sorted((_plain(name), tensor) for name, tensor in model.state_dict().items()):
        result.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        result.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    _hashes[model] = (state, result.hexdigest())
    return result.hexdigest()


@contextmanager
def edited(
    model: nn.Module, layers: dict[str, nn.Module], edit: Callable[[str, Tensor, tuple, dict], Tensor | None]
) -> Iterator[None]:
    """Passes the output of layers through `edit(name, activation, args, kwargs)` until the context is left.

    The activation is the output itself, or the first of a tuple or list. What `edit` returns takes its place; None
    leaves it. Code that was compiled before runs without hooks that came later; so inside the context nothing runs
    compiled, if anything is.

    Raises:
        TypeError: by the layer, if its output is neither.
    """

    def hook_of(name: str) -> Callable:
        def hook(module: nn.Module, args: tuple, kwargs: dict, output: object) -> object:
            several = isinstance(output, (tuple, list)) and len(output) > 0
            first = output[0] if several else output
            if not isinstance(first, Tensor) or not first.is_floating_point():
                kind = type(output).__name__
                msg = f"layer {name!r} returns {kind}: wanted a tensor of real numbers, or a tuple that starts with one"
                raise TypeError(msg)
            new = edit(name, first, args, kwargs)
            if new is None or not several:
                return new
            rest = (new, *output[1:])
            return type(output)(*rest) if hasattr(output, "_fields") else type(output)(rest)

        return hook

    with ExitStack() as stack:
        # Whatever was compiled has loaded it; to load it for nothing would take seconds.
        if "torch._dynamo" in sys.modules and hasattr(torch.compiler, "set_stance"):
            stack.enter_context(torch.compiler.set_stance("force_eager"))
        for name, module in layers.items():
            stack.callback(module.register_forward_hook(hook_of(name), with_kwargs=True).remove)
        yield


def unwrapped(model: nn.Module) -> nn.Module:
    """Returns the module inside the wrappers of `torch.compile` and data parallelism."""
    wrappers = (nn.DataParallel, nn.parallel.DistributedDataParallel)
    while isinstance(model, wrappers) or "_orig_mod" in model._modules:
        model = model.module if isinstance(model, wrappers) else model._orig_mod
    return model


def _plain(name: str) -> str:
    return ".".join(part for part in name.split(".") if part != "_orig_mod")


def _shallow(names: dict[str, nn.Module]) -> list[str]:
    return [name for name in names if name.count(".") < 2]
