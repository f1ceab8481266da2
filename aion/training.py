"""One training loop for any module with a `loss(batch, generator)`.

It knows nothing of tokenizers, surveys or files other than its own: batches come from a function of the step number, so
the step is the whole position in the data, and a checkpoint (weights, optimiser, step, random state) resumes exactly.
"""

__all__ = ["elapsed", "learning_rate", "train"]

import json
import math
import time

from collections.abc import Callable
from pathlib import Path

import torch

from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from tqdm.auto import tqdm

NAME = "checkpoint.safetensors"
OPTIMIZERS = ("adamw", "muon")
HIDDEN = 32  # rows and columns that a matrix must have for Muon: what is narrower maps from or to a few numbers


def learning_rate(step: int, steps: int, peak: float, warmup: float = 0.1) -> float:
    """Computes the rate at a step: a linear rise over a share of them, then a cosine to a hundredth of the peak."""
    rising = max(1, int(warmup * steps))
    if step < rising:
        return peak * (step + 1) / rising
    progress = (step - rising) / max(1, steps - rising)
    return peak * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * min(progress, 1.0))))


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
    generator: torch.Generator | None = None,
    checkpoint: Path | str | None = None,
    checkpoint_every: int = 500,
    identity: str = "",
    log: Path | str | None = None,
    log_every: int = 20,
    progress: str | None = None,
) -> nn.Module:
    """Minimises `module.loss(data(step), generator)["loss"]` and returns the module, trained in place.

    Arguments:
        module: has `loss(batch, generator) -> dict[str, Tensor]`.
        data: gives the batch of a step; the same step must give the same batch.
        steps: number of steps.
        lr: peak learning rate, see `learning_rate`.
        warmup: share of the steps in which the rate rises.
        weight_decay: of matrices; vectors (norms, biases) are not decayed.
        optimizer: "adamw", or "muon" for matrices between hidden layers and AdamW for the rest.
        clip: largest norm of the gradient.
        generator: source of the draws of the loss, on the CPU.
        checkpoint: folder to write checkpoints to, and to resume from if it holds one.
        checkpoint_every: steps between checkpoints.
        identity: says what is trained on what; a checkpoint of another identity is not resumed.
        log: JSON Lines file to which the named figures of the loss are appended.
        log_every: steps between two lines of the log.
        progress: title of the progress bar, which shows on a terminal only; None for none at all.

    Raises:
        FloatingPointError: if the loss is not finite; the last checkpoint stays.
        ValueError: if the checkpoint folder holds a checkpoint of another identity or of more steps, or for an
            optimizer that is unknown.

    References:
        | Decoupled Weight Decay Regularization (Loshchilov and Hutter, 2017), arXiv 1711.05101
        | Muon is Scalable for LLM Training (Liu et al., 2025), arXiv 2502.16982
    """
    optimizers = _optimizers(module, optimizer, lr, weight_decay)
    generator = torch.Generator().manual_seed(0) if generator is None else generator
    folder = None if checkpoint is None else Path(checkpoint)
    run = _Run(module, optimizers, generator, folder, identity)
    start = run.resume(steps)
    module.train()
    bar = tqdm(range(start, steps), initial=start, total=steps, desc=progress, disable=None if progress else True)
    for step in bar:
        for group in (group for one in optimizers for group in one.param_groups):
            group["lr"] = learning_rate(step, steps, lr, warmup)
        terms = module.loss(data(step), generator)
        if not torch.isfinite(terms["loss"]):
            msg = f"the loss is {terms['loss'].item()} at step {step}: lower lr (now {lr}) or look at the batch"
            raise FloatingPointError(msg)
        module.zero_grad(set_to_none=True)
        terms["loss"].backward()
        nn.utils.clip_grad_norm_(module.parameters(), clip)
        for one in optimizers:
            one.step()
        if log is not None and (step % log_every == 0 or step == steps - 1):
            _append(Path(log), step, terms)
            bar.set_postfix(loss=f"{terms['loss'].item():.3f}", refresh=False)
        if (step + 1) % checkpoint_every == 0 or step + 1 == steps:
            run.save(step + 1)
    return module.eval()


def elapsed(checkpoint: Path | str) -> float:
    """Returns the seconds of training behind the checkpoint in a folder, interruptions left out."""
    with safe_open(Path(checkpoint) / NAME, framework="pt") as file:
        return float(file.metadata()["seconds"])


def _optimizers(module: nn.Module, name: str, lr: float, weight_decay: float) -> list[torch.optim.Optimizer]:
    if name not in OPTIMIZERS:
        msg = f"optimizer: wanted one of {', '.join(OPTIMIZERS)}, given {name!r}"
        raise ValueError(msg)
    trained = [p for p in module.parameters() if p.requires_grad]
    hidden = [p for p in trained if name == "muon" and p.ndim == 2 and min(p.shape) >= HIDDEN]
    matrices = [p for p in trained if p.ndim > 1 and not any(p is q for q in hidden)]
    vectors = [p for p in trained if p.ndim <= 1]
    groups = [{"params": matrices, "weight_decay": weight_decay}, {"params": vectors, "weight_decay": 0.0}]
    rest = torch.optim.AdamW(groups, lr=lr, betas=(0.9, 0.95))
    if not hidden:
        return [rest]
    return [rest, torch.optim.Muon(hidden, lr=lr, weight_decay=weight_decay, adjust_lr_fn="match_rms_adamw")]


def _append(log: Path, step: int, terms: dict[str, Tensor]) -> None:
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("a") as file:
        file.write(json.dumps({"step": step, **{k: round(v.item(), 5) for k, v in terms.items()}}) + "\n")


class _Run:
    """Holds the whole state of a training, and its checkpoint: one file, written under another name first."""

    def __init__(self, module: nn.Module, optimizers, generator, folder: Path | None, identity: str) -> None:
        self.module, self.optimizers, self.generator = module, optimizers, generator
        self.folder, self.identity = folder, identity
        self.started = time.monotonic()

    def save(self, step: int) -> None:
        if self.folder is None:
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        tensors = {f"module.{k}": v.contiguous() for k, v in self.module.state_dict().items()}
        for number, optimizer in enumerate(self.optimizers):
            for index, state in optimizer.state_dict()["state"].items():
                name = f"optimizer.{number}.{index}"
                tensors |= {f"{name}.{k}": torch.as_tensor(v).contiguous() for k, v in state.items()}
        tensors["generator"] = self.generator.get_state()
        facts = {"step": step, "identity": self.identity, "seconds": round(time.monotonic() - self.started, 1)}
        temporary = self.folder / f".{NAME}.part"
        save_file(tensors, temporary, metadata={key: str(value) for key, value in facts.items()})
        temporary.replace(self.folder / NAME)

    def resume(self, steps: int) -> int:
        """Loads the checkpoint, if there is one, and returns the step to go on from."""
        if self.folder is None or not (path := self.folder / NAME).exists():
            return 0
        with safe_open(path, framework="pt") as file:
            facts = file.metadata()
        step = int(facts["step"])
        if facts["identity"] != self.identity or step > steps:
            given = f"step {step} of {facts['identity'] or 'a training without identity'}"
            wanted = f"at most step {steps} of {self.identity or 'a training without identity'}"
            msg = f"{path} is of another training: wanted {wanted}, given {given}: choose another folder or remove it"
            raise ValueError(msg)
        tensors = load_file(path)
        parts: dict[str, dict[str, Tensor]] = {"module": {}, "optimizer": {}}
        for key, value in tensors.items():
            if key != "generator":
                part, name = key.split(".", 1)
                parts[part][name] = value
        self.module.load_state_dict(parts["module"])
        for number, optimizer in enumerate(self.optimizers):
            state: dict[int, dict[str, Tensor]] = {}
            for key, value in parts["optimizer"].items():
                owner, index, name = key.split(".", 2)
                if int(owner) == number:
                    state.setdefault(int(index), {})[name] = value
            optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
        self.generator.set_state(tensors["generator"])
        self.started -= float(facts["seconds"])
        return step
