"""The moving average of the weights."""

import pytest

from torch import nn

from aion.training.average import Average


def test_the_average_forgets_the_first_weights_soon_and_later_ones_by_the_decay():
    module = nn.Linear(1, 1, bias=False)
    nn.init.zeros_(module.weight)
    average, expected = Average(module, 0.5), 0.0
    for step in range(12):
        nn.init.constant_(module.weight, step + 1.0)
        average.update(step)
        decay = min(0.5, (1 + step) / (10 + step))  # the decay itself from step 8 on
        expected = decay * expected + (1 - decay) * (step + 1)
    assert average.values["weight"].item() == pytest.approx(expected)
    assert module.weight.item() == 12, "the module trains on with its own weights"
    average.release()
    assert module.weight.item() == pytest.approx(expected)


@pytest.mark.parametrize("decay", [1.0, -0.1, float("nan")])
def test_decays_that_make_no_sense_are_refused(decay):
    with pytest.raises(ValueError, match="ema: wanted a decay of at least 0 and below 1"):
        Average(nn.Linear(1, 1), decay)
