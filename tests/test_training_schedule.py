from itertools import pairwise

import pytest
import torch

from aion.training import learning_rate


def test_learning_rate_rises_then_falls():
    rates = [learning_rate(step, 100, 1.0) for step in range(100)]
    assert rates[0] == pytest.approx(0.1)
    assert max(rates) == rates[9] == 1.0
    assert all(a > b for a, b in pairwise(rates[10:]))
    assert rates[-1] < 0.02


@pytest.mark.parametrize(("warmup", "rising"), [(0.2, 20), (0.0, 1)])
def test_the_fall_is_a_cosine_to_a_hundredth_of_the_peak(warmup, rising):
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=3.0)
    cosine = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 100 - rising, eta_min=0.03)
    for step in range(rising, 100):
        assert learning_rate(step, 100, 3.0, warmup) == pytest.approx(cosine.get_last_lr()[0])
        optimizer.step()
        cosine.step()
    assert learning_rate(100, 100, 3.0, warmup) == pytest.approx(0.03)
