"""Stochastic gradient descent."""

from ._interface import Optimizer


class SGD(Optimizer):
    r"""
    Stochastic gradient descent, $w \leftarrow w - \eta g$, with $g$ the mean gradient over the minibatch.

    The learning rate is multiplied into the error signal (`[S, C, B]`, small), so that the product that makes the gradient
    subtracts it from the weights: no gradient is ever stored.
    """

    beta, alpha = 1.0, -1.0

    def _allocate(self) -> None:
        self.into = self.layers

    def step(self) -> None:
        """Do nothing: the products have updated the weights."""
