"""The learning rate of each step."""

__all__ = ["learning_rate"]

import math


def learning_rate(step: int, steps: int, peak: float, warmup: float = 0.1) -> float:
    """Computes the rate at a step: a linear rise over a share of them, then a cosine to a hundredth of the peak."""
    rising = max(1, int(warmup * steps))
    if step < rising:
        return peak * (step + 1) / rising
    progress = (step - rising) / max(1, steps - rising)
    return peak * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * min(progress, 1.0))))
