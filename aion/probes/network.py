"""The descent that all probes with a network share, and what they are told."""

__all__ = ["NetworkProbe"]

from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch

from torch import Tensor

from aion.probes.probe import Probe

Self = TypeVar("Self", bound="NetworkProbe")


@dataclass(eq=False, repr=False)
class NetworkProbe(Probe):
    """Fits a small network by Adam with decoupled decay, the rate falling to zero along a cosine.

    Features and numbers are standardised. All draws (weights, batches) come from one generator seeded by `seed`, on the
    CPU: a fit is reproducible bit for bit on one machine and touches no global state. What follows are the arguments of
    every such probe; each has defaults of its own.

    Arguments:
        width: size of the hidden layer, of keys and values, or number of channels.
        steps: steps of the optimiser.
        batch_size: objects in a step.
        learning_rate: at the start.
        weight_decay: pull towards zero.
        seed: of the weights and batches.

    References:
        Decoupled Weight Decay Regularization (Loshchilov, Hutter, 2019, arXiv:1711.05101)
    """

    width: int
    steps: int
    batch_size: int
    learning_rate: float
    weight_decay: float = 1e-2
    seed: int = 0

    def fit(self: Self, X: Tensor | np.ndarray, y: Tensor | np.ndarray) -> Self:
        """Fits features to numbers `(N,)` or `(N, K)`, or to classes `(N,)`; none may be NaN.

        Raises:
            TypeError: for features that are not real numbers.
            ValueError: for other shapes, lengths that differ, NaN or infinite values (named by their rows), or a
                number of steps, a batch or a width below 1.
        """
        for name in ("steps", "batch_size", "width"):
            if not isinstance(value := getattr(self, name), int | np.integer) or value < 1:
                msg = f"{type(self).__name__}: {name} must be a whole number >= 1, given {value!r}"
                raise ValueError(msg)
        X, y = self._pair(X, y)
        self._scale(X, y)
        generator = torch.Generator().manual_seed(self.seed)
        self.network_ = {key: value.requires_grad_() for key, value in self._draw(X, generator).items()}
        self._descend(X, self._target(y), generator)
        self.network_ = {key: value.detach() for key, value in self.network_.items()}
        return self

    def _scale(self, X: Tensor, y: Tensor) -> None:
        """Keeps the mean and scatter of features and targets."""
        self.center_, self.spread_ = X.mean(0).numpy(), _spread(X).numpy()
        self.mean_, self.scatter_ = np.zeros(()), np.ones(())
        self.outputs_, self.flat_ = (len(self.classes_), True) if self.kind == "classifier" else (1, y.ndim == 1)
        if self.kind == "regressor":
            self.mean_, self.scatter_ = y.mean(0).numpy()[()], _spread(y).numpy()[()]
            self.outputs_ = 1 if y.ndim == 1 else y.shape[1]

    def _target(self, y: Tensor) -> Tensor:
        if self.kind == "classifier":
            return y
        y = (y - torch.as_tensor(self.mean_)) / torch.as_tensor(self.scatter_)
        return y.float().reshape(len(y), -1)

    def _descend(self, X: Tensor, target: Tensor, generator: torch.Generator) -> None:
        optimizer = torch.optim.AdamW(self.network_.values(), lr=self.learning_rate, weight_decay=self.weight_decay)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, self.steps)
        order = torch.empty(0, dtype=torch.long)
        with torch.enable_grad():
            for _ in range(self.steps):
                if not len(order):
                    order = torch.randperm(len(X), generator=generator)
                rows, order = order[: self.batch_size], order[self.batch_size :]
                output, wanted = self._forward(self._inputs(X[rows])), target[rows]
                loss = (
                    torch.nn.functional.cross_entropy(output, wanted)
                    if self.kind == "classifier"
                    else torch.nn.functional.mse_loss(output, wanted)
                )
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                schedule.step()

    @torch.no_grad()
    def _outputs(self, X: Tensor | np.ndarray) -> Tensor:
        """Computes what the network says of each object, by itself or in a batch alike."""
        features = self._known(X)
        return torch.cat([self._forward(self._inputs(part)) for part in features.split(self.batch_size)]).double()

    def predict(self, X: Tensor | np.ndarray) -> Tensor | np.ndarray:
        """Predicts numbers, float64, or classes, like the `y` that was fitted.

        Raises:
            ValueError: if nothing was fitted (scikit-learn's `NotFittedError`), or for another width or NaN.
        """
        output = self._outputs(X)
        if self.kind == "classifier":
            return self._named(output.argmax(1), X)
        output = output[:, 0] if self.flat_ else output
        return self._like(output * torch.as_tensor(self.scatter_) + torch.as_tensor(self.mean_), X)

    def predict_proba(self, X: Tensor | np.ndarray) -> Tensor | np.ndarray:
        """Computes the probability of each class `(N, K)`, in the order of `classes_`; for classifiers."""
        if self.kind != "classifier":
            msg = f"{type(self).__name__}: a regressor has no classes; use kind='classifier'"
            raise ValueError(msg)
        return self._like(self._outputs(X).softmax(1), X)

    def _inputs(self, X: Tensor) -> Tensor:
        return ((X - torch.as_tensor(self.center_)) / torch.as_tensor(self.spread_)).float()


def _spread(value: Tensor) -> Tensor:
    """Computes the standard deviation over objects, 1 where there is none."""
    spread = value.std(0, correction=0)
    return torch.where(spread > 0, spread, 1.0)
