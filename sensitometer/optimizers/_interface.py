"""The interface of an optimizer that takes minibatches."""

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor


class Optimizer(ABC):
    r"""
    Steps the weights of a stack, each network with its own learning rate.

    The engine computes each layer's weight gradient by one matrix product and adds it straight into a buffer of the
    optimizer's choice,

        into[l] <- beta * into[l] + alpha * delta_l h_{l-1}^T,

    where the error signal `delta_L` of the last layer was multiplied by `delta_scale(B)`. A step is `prepare`, the products of
    all layers, `step`. Stochastic gradient descent has its update in that product; momentum, its velocity; others, the gradient.

    Parameters
    ----------
    flat
        All weights, one after the other, layer by layer; `layers` are views of it.
    layers
        `L` views `[S, fan_out, fan_in]`.
    learning_rates
        `[S]`, float32.

    Attributes
    ----------
    steps
        How many steps were prepared.
    """

    beta: float
    alpha: float
    into: Sequence[Tensor]

    def __init__(self, flat: Tensor, layers: Sequence[Tensor], learning_rates: Tensor) -> None:
        self.flat = flat
        self.layers = layers
        self.learning_rates = learning_rates.view(-1, 1, 1)
        self.steps = 0

    @abstractmethod
    def delta_scale(self, batch_size: int) -> Tensor:
        """Return what the error signal is multiplied by, `[S, 1, 1]`."""

    def prepare(self) -> None:
        """
        Count one more step, and set what depends on the count.

        It is apart from `step` because a CUDA graph replays tensor operations only, not Python's numbers.
        """
        self.steps += 1

    @abstractmethod
    def step(self) -> None:
        """Update the weights, the gradients of all layers being in `into`."""

    def decay(self, factor: float) -> None:
        """Multiply every learning rate by `factor`."""
        self.learning_rates *= factor

    def state(self) -> list[Tensor]:
        """Return the per-network state besides weights and learning rates, each `[S, ...]`, as views that can be filled."""
        return []

    def _like_layers(self, flat: Tensor) -> list[Tensor]:
        """Split a buffer of the size of `flat` into views shaped as the layers."""
        parts = torch.split(flat, [layer.numel() for layer in self.layers])
        return [part.view(layer.shape) for part, layer in zip(parts, self.layers, strict=True)]


class GradientOptimizer(Optimizer):
    """An optimizer whose update needs the mean gradient itself, in a buffer of the size of the weights."""

    beta = 0.0
    alpha = 1.0

    def __init__(self, flat: Tensor, layers: Sequence[Tensor], learning_rates: Tensor) -> None:
        super().__init__(flat, layers, learning_rates)
        self.gradient = torch.zeros_like(flat)
        self.into = self._like_layers(self.gradient)

    def delta_scale(self, batch_size: int) -> Tensor:
        """Return one over the minibatch's size, `[S, 1, 1]`."""
        return torch.full_like(self.learning_rates, 1 / batch_size)

    def _subtract(self, rates: Tensor) -> None:
        """Subtract what is in `gradient`, times each network's rate `[S, 1, 1]`, from the weights."""
        for layer, update in zip(self.layers, self.into, strict=True):
            layer.addcmul_(update, rates, value=-1)
