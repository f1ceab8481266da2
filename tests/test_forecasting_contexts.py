"""Contexts: unit variance, nothing of what does not vary, and what is refused."""

import pytest
import torch

from aion.forecasting.contexts import Contexts
from aion.forecasting.forecaster import Forecaster


def test_unit_variance_and_nothing_of_what_does_not_vary():
    contexts = Contexts(3)
    values = torch.randn(50, 3, generator=torch.Generator().manual_seed(0)) * torch.tensor([1.0, 100.0, 0.0]) + 7
    contexts.fit(values)
    made = contexts(values)
    torch.testing.assert_close(made.std(0, correction=0), torch.tensor([1.0, 1.0, 0.0]))
    torch.testing.assert_close(made.mean(0), torch.zeros(3), atol=1e-5, rtol=0)
    assert not contexts(values + 5)[:, 2].any()


@pytest.mark.parametrize("wrong", [None, torch.zeros(4, 2), torch.zeros(3, 3), torch.full((4, 3), torch.nan)])
def test_what_does_not_fit(wrong):
    with pytest.raises(ValueError, match=r"contexts: wanted finite \(4, 3\)"):
        Contexts(3).check(wrong, 4)


def test_a_context_of_another_model_is_refused():
    forecaster = Forecaster(network={"context": 3}, sources={"context": "a" * 64})
    forecaster.check_source("context", "a" * 64)
    with pytest.raises(ValueError, match=r"another context: wanted one of hash a{12}, given one of hash b{12}"):
        forecaster.check_source("context", "b" * 64)
