"""Gradient descent with momentum."""

from ._interface import Optimizer


class Momentum(Optimizer):
    r"""
    Momentum of TensorFlow 1, not Nesterov's: $v \leftarrow \mu v + g$, $w \leftarrow w - \eta v$, $\mu = 0.9$ (paper, A.5.5).

    The stored value is $u = \eta v$: the error signal is multiplied by the learning rate, the product that makes the gradient
    computes $\mu u + \eta g$, and the update of all layers of all networks is one subtraction. A learning rate that decays
    multiplies $u$ too, which leaves $v$ as it was.
    """

    beta, alpha = 0.9, 1.0

    def _allocate(self) -> None:
        self.velocity = self._remember(0.0)
        self.into = self._like_layers(self.velocity)

    def step(self) -> None:
        """Subtract the scaled velocity from the weights."""
        self.flat.sub_(self.velocity)

    def decay(self, factor: float) -> None:
        """Multiply every learning rate, and the velocity that carries it, by `factor`."""
        super().decay(factor)
        self.velocity *= factor
