"""One training loop for any module with a `loss(batch, generator)`, in one process or many.

It knows nothing of tokenizers, surveys or files other than its own. Batches come from a function of their number, and
their draws from a generator seeded by it: a step is the mean over `accumulate` batches, whichever ranks compute them,
so that the number of ranks does not change what is learned, and the step is the whole position in data and draws.
"""

__all__ = ["Stopped", "train"]

import hashlib
import math
import sys
import time

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from dataclasses import dataclass, fields, is_dataclass
from itertools import islice
from numbers import Integral, Real
from pathlib import Path

import torch

from torch import Tensor, nn
from tqdm.auto import tqdm

from aion.training import ranks
from aion.training.average import Average
from aion.training.checkpoint import Checkpoint
from aion.training.interruption import Interruption
from aion.training.journal import Journal
from aion.training.optimizer import Optimizer
from aion.training.parallel import Prepared
from aion.training.schedule import learning_rate


class Stopped(SystemExit):
    """Ends the process without an error: the training was asked to stop and has written a checkpoint."""

    def __init__(self) -> None:
        super().__init__(0)


def train(
    module: nn.Module,
    data: Callable[[int], object],
    steps: int,
    *,
    lr: float = 1e-3,
    warmup: float = 0.1,
    weight_decay: float = 0.05,
    optimizer: str = "adamw",
    clip: float = 1.0,
    accumulate: int = 1,
    ema: float | None = None,
    precision: str = "float32",
    parallel: str = "ddp",
    activation_checkpointing: bool = False,
    compile: bool | str = False,  # noqa: A002
    ahead: int = 0,
    seed: int = 0,
    checkpoint: Path | str | None = None,
    checkpoint_every: int = 500,
    identity: str = "",
    log: Path | str | None = None,
    log_every: int = 20,
    progress: str | None = None,
) -> nn.Module:
    """Minimises the mean of `module.loss(data(number), generator)["loss"]`; the module is trained in place.

    With SIGTERM it writes a checkpoint at the end of the step and ends the process with status 0.

    Arguments:
        module: has `loss(batch, generator) -> dict[str, Tensor]`.
        data: gives a batch by its number; the same number must give the same batch, other numbers others.
        steps: number of steps.
        lr: peak learning rate, see `aion.training.schedule`.
        warmup: share of the steps in which the rate rises.
        weight_decay: of matrices; vectors (norms, biases) are not decayed.
        optimizer: `"adamw"` or `"muon"`, see `aion.training.optimizer`.
        clip: largest norm of the gradient.
        accumulate: batches of a step in all, shared out over the ranks: a multiple of their number.
        ema: decay of a moving average of the weights, which the module has in the end; None for none.
        precision: see `aion.training.parallel.Prepared` for this and the next three.
        parallel: how the ranks share the work.
        activation_checkpointing: trades time for memory.
        compile: compiles the blocks.
        ahead: batches that a thread makes while others are trained on.
        seed: of the draws of the loss.
        checkpoint: folder to write checkpoints to, and to resume from if it holds one.
        checkpoint_every: steps between checkpoints.
        identity: says what is trained on what; a checkpoint of another identity is not resumed.
        log: JSON Lines file for the figures of the loss, the learning rate, the norm of the gradient and the seconds.
        log_every: steps between two lines of the log.
        progress: title of the progress bar, which shows on a terminal only; None for none at all.

    Raises:
        FloatingPointError: if the loss is not finite; the last checkpoint stays.
        OSError: if a checkpoint cannot be written; the last one stays.
        Stopped: after SIGTERM.
        ValueError: for options out of range, ranks that disagree or get the same batch, or if the checkpoint folder
            holds a checkpoint of another identity or of more steps.
    """
    ranks.agree("training", [identity, steps, accumulate, seed])
    _check_whole(
        steps=steps, accumulate=accumulate, ahead=ahead, checkpoint_every=checkpoint_every, log_every=log_every
    )
    _check_real(lr=lr, warmup=warmup, weight_decay=weight_decay, clip=clip)
    module.train()
    with ExitStack() as stack:
        model = stack.enter_context(Prepared(module, parallel, precision, activation_checkpointing, compile))
        interruption = stack.enter_context(Interruption(checkpoint is not None, ranks.size() > 1))
        learner = Optimizer(model.module, optimizer, weight_decay)
        average = None if ema is None else Average(model.module, ema)
        state = Checkpoint(checkpoint, identity, model.module, learner, average)
        start, before = state.restore(steps)
        began = time.monotonic() - before
        numbers = (step * accumulate + k for step in range(start, steps) for k in _own(accumulate))
        batches = stack.enter_context(closing(_batches(data, numbers, ahead)))
        journal = stack.enter_context(closing(Journal(log if ranks.rank() == 0 else None, start)))
        maker = _Steps(model, batches, learner, average, interruption, accumulate, clip, seed, start)
        bar = _bar(start, steps, progress)
        for step in bar:
            noted = step % log_every == 0 or step == steps - 1
            figures, stopping = maker.step(step, learning_rate(step, steps, lr, warmup), noted)
            seconds = time.monotonic() - began
            if noted:
                journal.write(step, {**figures, "seconds": round(seconds, 1)})
                bar.set_postfix(loss=f"{figures['loss']:.3f}", refresh=False)
            if stopping:
                interruption.calm()
            if stopping or (step + 1) % checkpoint_every == 0 or step + 1 == steps:
                state.save(step + 1, seconds)
            if stopping:
                _say(f"stopped after step {step + 1} of {steps}, which {state.path} holds: run the same command again")
                raise Stopped
        if average is not None:
            average.release()
    return module.eval()


def _check_whole(**given: object) -> None:
    for name, value in given.items():
        least = 0 if name in {"steps", "ahead"} else 1
        if not isinstance(value, Integral) or value < least:
            ranks.fail(ValueError(f"{name}: wanted a whole number of at least {least}, given {value!r}"))
    if given["accumulate"] % ranks.size():
        msg = f"accumulate: wanted a multiple of the number of ranks, {ranks.size()}, given {given['accumulate']}"
        ranks.fail(ValueError(msg))


def _check_real(**given: object) -> None:
    for name, value in given.items():
        most = 1.0 if name == "warmup" else math.inf
        if not isinstance(value, Real) or not 0 <= value <= most or (name == "clip" and value == 0):
            wanted = "a number above 0" if name == "clip" else f"a number from 0 to {most:g}"
            ranks.fail(ValueError(f"{name}: wanted {wanted}, given {value!r}"))


def _own(accumulate: int) -> range:
    """Returns which batches of a step this rank computes."""
    return range(ranks.rank(), accumulate, ranks.size())


def _bar(start: int, steps: int, title: str | None) -> tqdm:
    shown = title is not None and ranks.rank() == 0
    return tqdm(range(start, steps), initial=start, total=steps, desc=title, disable=None if shown else True)


def _say(text: str) -> None:
    if ranks.rank() == 0:
        tqdm.write(text, file=sys.stderr)


@dataclass
class _Steps:
    """Makes the steps of a training."""

    model: Prepared
    batches: Iterator[object]
    optimizer: Optimizer
    average: Average | None
    interruption: Interruption
    accumulate: int
    clip: float
    seed: int
    first: int

    def step(self, step: int, rate: float, noted: bool) -> tuple[dict[str, float], bool]:
        """Makes a step and returns the mean figures of its batches, and whether any rank was asked to stop."""
        self.model.module.zero_grad(set_to_none=True)
        terms, generator, own = [], torch.Generator(), _own(self.accumulate)
        for k, batch in zip(own, islice(self.batches, len(own)), strict=True):
            if step == self.first and ranks.size() > 1:
                _check_disjoint(batch)
            generator.manual_seed((self.seed * 0x9E3779B97F4A7C15 + step * self.accumulate + k) % 2**63)
            terms.append(self.model.backward(batch, generator, 1 / len(own), last=k == own[-1]))
        loss = torch.stack([batch["loss"] for batch in terms]).double().sum().item()
        loss, stopping = ranks.total(torch.tensor([loss, self.interruption.wanted], dtype=torch.float64)).tolist()
        norm = ranks.full(nn.utils.clip_grad_norm_(self.model.module.parameters(), self.clip)).item()
        for name, figure in (("loss", loss / self.accumulate), ("norm of the gradient", norm)):
            if not math.isfinite(figure):
                msg = f"the {name} is {figure} at step {step}: lower lr (now {rate:.3g}) or look at the batch"
                ranks.fail(FloatingPointError(msg))
        self.optimizer.step(rate)
        if self.average is not None:
            self.average.update(step)
        figures = _mean(terms) if noted else {}
        return {**figures, "loss": loss / self.accumulate, "lr": rate, "gradient": norm}, stopping > 0


def _mean(terms: list[Mapping[str, Tensor]]) -> dict[str, float]:
    """Averages figures over the batches of all ranks that have them."""
    every = defaultdict(list)
    for own in ranks.everyone([{name: value.item() for name, value in batch.items()} for batch in terms]):
        for batch in own:
            for name, value in batch.items():
                every[name].append(value)
    return {name: sum(values) / len(values) for name, values in every.items()}


def _batches(data: Callable[[int], object], numbers: Iterator[int], ahead: int) -> Iterator[object]:
    """Makes batches in order, some of them ahead of time."""
    if not ahead:
        yield from map(data, numbers)
        return
    with ThreadPoolExecutor(1) as pool:  # one thread: sources need not stand two at once
        waiting = [pool.submit(data, number) for number in islice(numbers, ahead)]
        try:
            while waiting:
                first = waiting.pop(0).result()
                waiting += [pool.submit(data, number) for number in islice(numbers, 1)]
                yield first
        finally:
            for future in waiting:
                future.cancel()


def _digest(batch: object) -> str:
    """Returns the hash of the tensors in a batch, empty if it has none."""
    tensors = list(_tensors(batch))
    if not tensors:
        return ""
    digest = hashlib.sha256()
    for tensor in tensors:
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _tensors(value: object) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, Mapping):
        yield from (tensor for part in value.values() for tensor in _tensors(part))
    elif isinstance(value, list | tuple):
        yield from (tensor for part in value for tensor in _tensors(part))
    elif is_dataclass(value):
        yield from (tensor for field in fields(value) for tensor in _tensors(getattr(value, field.name)))


def _check_disjoint(batch: object) -> None:
    """Refuses a batch that another rank has in its place.

    Raises:
        ValueError: if two have the same.
    """
    digests = ranks.everyone(_digest(batch))
    for number, digest in enumerate(digests):
        if digest and digests.index(digest) != number:
            msg = (
                f"ranks {digests.index(digest)} and {number} train on the same batch: "
                "data(number) must give another one for every number"
            )
            ranks.fail(ValueError(msg))
