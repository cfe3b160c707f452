"""The interface of an optimizer that takes minibatches."""

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor


def views(numbers: Tensor, shapes: Sequence[Sequence[int]]) -> list[Tensor]:
    """Return views of consecutive parts of `numbers` `[..., P]`, each `[..., *shape]` for one of the shapes."""
    parts = torch.split(numbers, [math.prod(shape) for shape in shapes], -1)
    return [part.view(*numbers.shape[:-1], *shape) for part, shape in zip(parts, shapes, strict=True)]


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
    flat, layers
        All weights, one after the other, layer by layer; and `L` views of them, `[S, fan_out, fan_in]`.
    learning_rates
        `[S]`, float32.
    """

    beta: float
    alpha: float
    into: Sequence[Tensor]

    def __init__(self, flat: Tensor, layers: Sequence[Tensor], learning_rates: Tensor) -> None:
        self.flat = flat
        self.layers = layers
        self.learning_rates = learning_rates.view(-1, 1, 1)
        self.steps = 0  # that were prepared
        self._remembered: list[Tensor] = []
        self._allocate()

    @abstractmethod
    def _allocate(self) -> None:
        """Set `into`, and allocate what a step needs."""

    def delta_scale(self, batch_size: int) -> Tensor:
        """Return the factor of the error signal, `[S, 1, 1]`: the learning rates over the minibatch's size."""
        return self.learning_rates / batch_size

    def prepare(self) -> None:
        """Count one more step, and set what depends on the count: a CUDA graph replays the tensor operations of `step` only."""
        self.steps += 1

    @abstractmethod
    def step(self) -> None:
        """Update the weights, the gradients of all layers being in `into`."""

    def decay(self, factor: float) -> None:
        """Multiply every learning rate by `factor`."""
        self.learning_rates *= factor

    def state(self) -> list[Tensor]:
        """Return the state besides weights and learning rates: for each buffer its `L` views `[S, fan_out, fan_in]`."""
        return [view for buffer in self._remembered for view in self._like_layers(buffer)]

    def load_state(self, state: Iterable[Tensor], steps: int) -> None:
        """Go on from what `state` returned after some steps."""
        self.steps = steps
        for view, values in zip(self.state(), state, strict=True):
            view.copy_(values)

    def _remember(self, value: float) -> Tensor:
        """Return a buffer of the size of `flat`, filled with a value, that is part of the state."""
        self._remembered.append(torch.full_like(self.flat, value))
        return self._remembered[-1]

    def _like_layers(self, flat: Tensor) -> list[Tensor]:
        return views(flat, [layer.shape for layer in self.layers])


class GradientOptimizer(Optimizer):
    """An optimizer whose update needs the mean gradient itself, in a buffer of the size of the weights."""

    beta, alpha = 0.0, 1.0

    def _allocate(self) -> None:
        self.gradient = torch.zeros_like(self.flat)
        self.into = self._like_layers(self.gradient)

    def delta_scale(self, batch_size: int) -> Tensor:
        """Return the factor of the error signal, `[S, 1, 1]`: one over the minibatch's size."""
        return torch.full_like(self.learning_rates, 1 / batch_size)

    def _subtract(self, rates: Tensor) -> None:
        """Subtract `gradient`, times each network's rate `[S, 1, 1]`, from the weights."""
        for layer, update in zip(self.layers, self.into, strict=True):
            layer.addcmul_(update, rates, value=-1)
