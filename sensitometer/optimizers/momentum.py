"""Gradient descent with momentum."""

from collections.abc import Sequence

import torch
from torch import Tensor

from ._interface import Optimizer


class Momentum(Optimizer):
    r"""
    Momentum of TensorFlow 1, not Nesterov's: $v \leftarrow \mu v + g$, $w \leftarrow w - \eta v$, $\mu = 0.9$ (paper, A.5.5).

    The stored value is $u = \eta v$: the error signal is multiplied by the learning rate, the product that makes the gradient
    computes $\mu u + \eta g$, and the update of all layers of all networks is one subtraction. A learning rate that decays
    multiplies $u$ too, which leaves $v$ as it was.
    """

    beta = 0.9
    alpha = 1.0

    def __init__(self, flat: Tensor, layers: Sequence[Tensor], learning_rates: Tensor) -> None:
        super().__init__(flat, layers, learning_rates)
        self.velocity = torch.zeros_like(flat)
        self.into = self._like_layers(self.velocity)

    def delta_scale(self, batch_size: int) -> Tensor:
        """Return the learning rates over the minibatch's size, `[S, 1, 1]`."""
        return self.learning_rates / batch_size

    def step(self) -> None:
        """Subtract the scaled velocity from the weights."""
        self.flat.sub_(self.velocity)

    def decay(self, factor: float) -> None:
        """Multiply every learning rate, and the velocity that carries it, by `factor`."""
        super().decay(factor)
        self.velocity *= factor

    def state(self) -> list[Tensor]:
        """Return the scaled velocity, `L` views `[S, fan_out, fan_in]`."""
        return list(self.into)
