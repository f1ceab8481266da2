"""The optimiser: AdamW, or Muon for the matrices between hidden layers and AdamW for the rest.

References:
    | Decoupled Weight Decay Regularization (Loshchilov and Hutter, 2017), arXiv 1711.05101
    | Muon is Scalable for LLM Training (Liu et al., 2025), arXiv 2502.16982
"""

__all__ = ["OPTIMIZERS", "Optimizer"]

import torch

from torch import Tensor, nn

OPTIMIZERS = ("adamw", "muon")
BETAS = (0.9, 0.95)
HIDDEN = 32  # rows and columns that a matrix must have for Muon: what is narrower maps from or to a few numbers
TABLE = 16  # times longer than wide: a matrix that is more so has a row for each id, of which a batch uses few
FUSED = ("cpu", "cuda")  # devices on which AdamW is one kernel


class Optimizer:
    """Changes the parameters of a module by their gradients; vectors (norms, biases) are not decayed.

    Arguments:
        module: whose parameters are trained.
        name: one of `OPTIMIZERS`.
        weight_decay: of matrices.

    Raises:
        ValueError: for an unknown name, or Muon with a PyTorch that has none.
    """

    def __init__(self, module: nn.Module, name: str = "adamw", weight_decay: float = 0.0) -> None:
        if name not in OPTIMIZERS:
            msg = f"optimizer: wanted one of {', '.join(OPTIMIZERS)}, given {name!r}"
            raise ValueError(msg)
        if name == "muon" and not hasattr(torch.optim, "Muon"):
            msg = f"optimizer 'muon' needs PyTorch 2.9 or later, here is {torch.__version__}; 'adamw' needs none"
            raise ValueError(msg)
        trained = [p for p in module.parameters() if p.requires_grad]
        hidden = [p for p in trained if name == "muon" and _hidden(p)]
        taken = {id(p) for p in hidden}
        matrices = [p for p in trained if p.ndim > 1 and id(p) not in taken]
        vectors = [p for p in trained if p.ndim <= 1]
        groups = [{"params": matrices, "weight_decay": weight_decay}, {"params": vectors, "weight_decay": 0.0}]
        self.fused = all(p.device.type in FUSED for p in trained)
        self._parts = [torch.optim.AdamW(groups, betas=BETAS, fused=self.fused)]
        if hidden:
            self._parts.append(torch.optim.Muon(hidden, weight_decay=weight_decay, adjust_lr_fn="match_rms_adamw"))

    def step(self, rate: float) -> None:
        """Changes the parameters at a learning rate."""
        for part in self._parts:
            for group in part.param_groups:
                group["lr"] = rate
            part.step()

    def state(self, parameter: nn.Parameter) -> dict[str, Tensor]:
        """Returns what is remembered of a parameter, by name; what is put in is remembered."""
        owner = next(
            part for part in self._parts if any(parameter is p for group in part.param_groups for p in group["params"])
        )
        return owner.state[parameter]

    def count(self, parameter: nn.Parameter) -> Tensor:
        """Returns a zero where the number of steps of a parameter is kept."""
        return torch.zeros((), device=parameter.device if self.fused else "cpu")


def _hidden(parameter: nn.Parameter) -> bool:
    """Tells matrices between hidden layers from tables of embeddings and from maps from or to a few numbers."""
    shape = parameter.shape
    return len(shape) == 2 and min(shape) >= HIDDEN and max(shape) <= TABLE * min(shape)
