"""Adam."""

import math

import torch

from ._interface import GradientOptimizer

BETA_1, BETA_2, EPSILON = 0.9, 0.999, 1e-8


class Adam(GradientOptimizer):
    r"""
    Adam as TensorFlow 1 computes it (paper, A.5.5; Kingma and Ba 2015, the formula at the end of their section 2).

    $m \leftarrow \beta_1 m + (1 - \beta_1) g$, $v \leftarrow \beta_2 v + (1 - \beta_2) g^2$,
    $w \leftarrow w - \eta \frac{\sqrt{1 - \beta_2^t}}{1 - \beta_1^t} \frac{m}{\sqrt{v} + \epsilon}$,
    with $\beta_1 = 0.9$, $\beta_2 = 0.999$, $\epsilon = 10^{-8}$.

    `torch.optim.Adam` differs: it adds $\epsilon$ to $\sqrt{v / (1 - \beta_2^t)}$, beside which its $\epsilon$ is up to 32 times
    smaller in the first steps.
    """

    def _allocate(self) -> None:
        super()._allocate()
        self.mean, self.square = self._remember(0.0), self._remember(0.0)
        self.rates = torch.zeros_like(self.learning_rates)

    def prepare(self) -> None:
        """Count one more step, and set the learning rates with their bias corrections."""
        super().prepare()
        correction = math.sqrt(1 - BETA_2**self.steps) / (1 - BETA_1**self.steps)
        torch.mul(self.learning_rates, correction, out=self.rates)

    def step(self) -> None:
        """Update both moments and the weights; the gradient is overwritten."""
        g = self.gradient
        self.mean.lerp_(g, 1 - BETA_1)
        self.square.mul_(BETA_2).addcmul_(g, g, value=1 - BETA_2)
        torch.sqrt(self.square, out=g).add_(EPSILON)
        torch.div(self.mean, g, out=g)
        self._subtract(self.rates)
