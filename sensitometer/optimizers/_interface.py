"""What the training engine asks of an optimizer."""

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

    where the error signal `delta_L` of the last layer was multiplied by `delta_scale(B)`, and calls `step` when all
    layers are done. Stochastic gradient descent has its update in that product; momentum, its velocity.

    Parameters
    ----------
    flat
        All weights, one after the other, layer by layer; `layers` are views of it.
    layers
        `L` views `[S, fan_out, fan_in]`.
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

    @abstractmethod
    def delta_scale(self, batch_size: int) -> Tensor:
        """Return what the error signal is multiplied by, `[S, 1, 1]`."""

    @abstractmethod
    def step(self) -> None:
        """Update the weights, the gradients of all layers being in `into`."""

    def decay(self, factor: float) -> None:
        """Multiply every learning rate by `factor`."""
        self.learning_rates *= factor

    def state(self) -> list[Tensor]:
        """Return the per-network state besides the weights, each `[S, ...]`, as views that `load_state` can fill."""
        return []

    def _like_layers(self, flat: Tensor) -> list[Tensor]:
        """Split a buffer of the size of `flat` into views shaped as the layers."""
        parts = torch.split(flat, [layer.numel() for layer in self.layers])
        return [part.view(layer.shape) for part, layer in zip(parts, self.layers, strict=True)]
