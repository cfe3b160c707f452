"""Stochastic gradient descent."""

from collections.abc import Sequence

from torch import Tensor

from ._interface import Optimizer


class SGD(Optimizer):
    r"""
    Stochastic gradient descent, $w \leftarrow w - \eta g$, with $g$ the mean gradient over the minibatch.

    The learning rate is multiplied into the error signal (`[S, C, B]`, small), so that the product that makes the gradient
    subtracts it from the weights: no gradient is ever stored.
    """

    beta = 1.0
    alpha = -1.0

    def __init__(self, flat: Tensor, layers: Sequence[Tensor], learning_rates: Tensor) -> None:
        super().__init__(flat, layers, learning_rates)
        self.into = layers

    def delta_scale(self, batch_size: int) -> Tensor:
        """Return the learning rates over the minibatch's size, `[S, 1, 1]`."""
        return self.learning_rates / batch_size

    def step(self) -> None:
        """Do nothing: the products have updated the weights."""
