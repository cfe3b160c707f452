"""The two losses of the paper (S4, A.5.6): their error signals, and their values without overflow at any scale of the logits."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import softplus

from .configuration import LOSSES
from .errors import InvalidInputError


@dataclass(frozen=True, slots=True)
class Loss:
    """A loss of logits `[S, C, n]`, classes before points, and labels `[S, 1, n]`."""

    # `outputs_(logits, out)` writes `out` such that the derivative of the loss by the logits is `out - onehot(labels)`.
    outputs_: Callable[[Tensor, Tensor], Tensor]
    # The loss at each point, `[S, n]`, from logits in float64.
    values: Callable[[Tensor, Tensor], Tensor]


def _cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    # log sum_j exp(f_j - f_y) over all j would round to 0 for well-fitted points, whose loss may be below 1e-16.
    margins = (logits - logits.gather(1, labels)).scatter_(1, labels, -torch.inf)
    return softplus(margins.logsumexp(1))


def _half_square(logits: Tensor, labels: Tensor) -> Tensor:
    return logits.scatter_add(1, labels, logits.new_full((1, 1, 1), -1.0).expand(labels.shape)).square().sum(1) / 2


_BY_NAME = {
    # -log softmax(f)_y = softplus(log sum_{j != y} exp(f_j - f_y))
    "cross-entropy": Loss(lambda logits, out: torch._softmax(logits, 1, False, out=out), _cross_entropy),
    # 1/2 ||f - onehot(y)||^2
    "l2": Loss(lambda logits, out: out.copy_(logits), _half_square),
}


def loss(name: str) -> Loss:
    """Return the loss called `name`, or raise InvalidInputError."""
    if name not in _BY_NAME:
        raise InvalidInputError(f"loss must be one of {', '.join(LOSSES)}; got {name!r}")
    return _BY_NAME[name]
