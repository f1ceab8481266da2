"""The optimiser: who is decayed, who is turned by Muon."""

import pytest
import torch

from torch import nn

from aion.training.optimizer import Optimizer


class Parts(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.wide = nn.Parameter(torch.ones(40, 40))
        self.narrow = nn.Parameter(torch.ones(40, 2))
        self.table = nn.Parameter(torch.ones(40 * 17, 40))
        self.vector = nn.Parameter(torch.ones(40))
        self.frozen = nn.Parameter(torch.ones(3), requires_grad=False)


def stepped(name: str) -> tuple[Parts, Optimizer]:
    module = Parts()
    optimizer = Optimizer(module, name, weight_decay=0.5)
    for _ in range(2):
        for parameter in (module.wide, module.narrow, module.table, module.vector):
            parameter.grad = torch.zeros_like(parameter)
        optimizer.step(0.1)
    return module, optimizer


@pytest.mark.parametrize("name", ["adamw", "muon"])
def test_only_matrices_are_decayed(name):
    module, _ = stepped(name)
    for decayed in (module.wide, module.narrow, module.table):
        torch.testing.assert_close(decayed, torch.full_like(decayed, 0.95**2))
    assert torch.equal(module.vector, torch.ones(40))
    assert torch.equal(module.frozen, torch.ones(3))


def test_muon_takes_the_hidden_matrices_only():
    module, optimizer = stepped("muon")
    assert set(optimizer.state(module.wide)) == {"momentum_buffer"}
    for other in (module.narrow, module.table, module.vector):
        assert set(optimizer.state(other)) == {"step", "exp_avg", "exp_avg_sq"}


def test_unknown_optimizers_are_refused(monkeypatch):
    with pytest.raises(ValueError, match="optimizer: wanted one of adamw, muon, given 'sgd'"):
        Optimizer(Parts(), "sgd")
    monkeypatch.delattr(torch.optim, "Muon")
    with pytest.raises(ValueError, match=r"needs PyTorch 2\.9 or later"):
        Optimizer(Parts(), "muon")
