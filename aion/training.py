"""One training loop for any module with a `loss(batch, generator)`.

It knows nothing of tokenizers, surveys or files other than its own: batches come from a function of the step number, so
the step is the whole position in the data, and a checkpoint (weights, optimiser, step, random state) resumes exactly.
"""

__all__ = ["learning_rate", "train"]

import json
import math

from collections.abc import Callable
from pathlib import Path

import torch

from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from tqdm.auto import tqdm


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
    clip: float = 1.0,
    generator: torch.Generator | None = None,
    checkpoint: Path | str | None = None,
    checkpoint_every: int = 500,
    log: Path | str | None = None,
    log_every: int = 20,
    progress: str | None = None,
) -> nn.Module:
    """Minimises `module.loss(data(step), generator)["loss"]` with AdamW and returns the module, trained in place.

    Arguments:
        module: has `loss(batch, generator) -> dict[str, Tensor]`.
        data: gives the batch of a step; the same step must give the same batch.
        steps: number of steps.
        lr: peak learning rate, see `learning_rate`.
        warmup: share of the steps in which the rate rises.
        weight_decay: of matrices; vectors (norms, biases) are not decayed.
        clip: largest norm of the gradient.
        generator: source of the draws of the loss, on the CPU.
        checkpoint: folder to write checkpoints to, and to resume from if it holds one.
        checkpoint_every: steps between checkpoints.
        log: JSON Lines file to which the named figures of the loss are appended.
        log_every: steps between two lines of the log.
        progress: title of the progress bar, which shows on a terminal only; None for none at all.

    Raises:
        FloatingPointError: if the loss is not finite; the last checkpoint stays.
    """
    matrices = [p for p in module.parameters() if p.requires_grad and p.ndim > 1]
    vectors = [p for p in module.parameters() if p.requires_grad and p.ndim <= 1]
    groups = [{"params": matrices, "weight_decay": weight_decay}, {"params": vectors, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=lr, betas=(0.9, 0.95))
    generator = torch.Generator().manual_seed(0) if generator is None else generator
    folder = None if checkpoint is None else Path(checkpoint)
    start = 0 if folder is None else _resume(folder, module, optimizer, generator)
    module.train()
    bar = tqdm(range(start, steps), initial=start, total=steps, desc=progress, disable=None if progress else True)
    for step in bar:
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, steps, lr, warmup)
        terms = module.loss(data(step), generator)
        if not torch.isfinite(terms["loss"]):
            msg = f"the loss is {terms['loss'].item()} at step {step}: lower lr (now {lr}) or look at the batch"
            raise FloatingPointError(msg)
        optimizer.zero_grad(set_to_none=True)
        terms["loss"].backward()
        nn.utils.clip_grad_norm_(module.parameters(), clip)
        optimizer.step()
        if log is not None and (step % log_every == 0 or step == steps - 1):
            _append(Path(log), step, terms)
            bar.set_postfix(loss=f"{terms['loss'].item():.3f}", refresh=False)
        if folder is not None and ((step + 1) % checkpoint_every == 0 or step + 1 == steps):
            _save(folder, step + 1, module, optimizer, generator)
    return module.eval()


def _append(log: Path, step: int, terms: dict[str, Tensor]) -> None:
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("a") as file:
        file.write(json.dumps({"step": step, **{k: round(v.item(), 5) for k, v in terms.items()}}) + "\n")


def _save(folder: Path, step: int, module: nn.Module, optimizer: torch.optim.Optimizer, generator) -> None:
    """Writes a checkpoint as one file, under a temporary name first."""
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {f"module.{k}": v.contiguous() for k, v in module.state_dict().items()}
    for index, state in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{index}.{k}": torch.as_tensor(v).contiguous() for k, v in state.items()}
    tensors["generator"] = generator.get_state()
    temporary = folder / ".checkpoint.safetensors.part"
    save_file(tensors, temporary, metadata={"step": str(step)})
    temporary.replace(folder / "checkpoint.safetensors")


def _resume(folder: Path, module: nn.Module, optimizer: torch.optim.Optimizer, generator) -> int:
    """Loads the checkpoint of a folder, if there is one, and returns the step to go on from."""
    path = folder / "checkpoint.safetensors"
    if not path.exists():
        return 0
    from safetensors import safe_open

    with safe_open(path, framework="pt") as file:
        step = int(file.metadata()["step"])
    tensors = load_file(path)
    module.load_state_dict({k.removeprefix("module."): v for k, v in tensors.items() if k.startswith("module.")})
    state: dict[int, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        if key.startswith("optimizer."):
            _, index, name = key.split(".", 2)
            state.setdefault(int(index), {})[name] = value
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
    generator.set_state(tensors["generator"])
    return step
