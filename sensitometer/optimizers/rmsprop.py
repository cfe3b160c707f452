"""RMSProp."""

import torch

from ._interface import GradientOptimizer

DECAY, EPSILON = 0.9, 1e-10


class RMSProp(GradientOptimizer):
    r"""
    RMSProp as TensorFlow 1 computes it, without momentum (paper, A.5.5).

    $v \leftarrow \rho v + (1 - \rho) g^2$, $w \leftarrow w - \eta \, g / \sqrt{v + \epsilon}$, with $\rho = 0.9$,
    $\epsilon = 10^{-10}$ and $v = 1$ at the start.

    `torch.optim.RMSprop` differs: it adds its $\epsilon$, $10^{-8}$, to the square root, averages with $\rho = 0.99$, and starts
    from $v = 0$, so that its first step is $\eta / \sqrt{1 - \rho}$ for every weight, where TensorFlow's first steps are short.
    """

    def _allocate(self) -> None:
        super()._allocate()
        self.square = self._remember(1.0)
        self.scratch = torch.empty_like(self.flat)

    def step(self) -> None:
        """Update the mean square and the weights; the gradient is overwritten."""
        g = self.gradient
        self.square.mul_(DECAY).addcmul_(g, g, value=1 - DECAY)
        torch.add(self.square, EPSILON, out=self.scratch).rsqrt_()
        g.mul_(self.scratch)
        self._subtract(self.learning_rates)
