"""The five activations of the paper (A.4): function, derivative, boundaries between their pieces, initial gain (A.5)."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import hardtanh

from .configuration import ACTIVATIONS
from .errors import InvalidInputError

_aten = torch.ops.aten


@dataclass(frozen=True, slots=True)
class Activation:
    """An elementwise function and what the training and the measures need to know of it."""

    name: str  # as in `Configuration.activation`
    # Pre-activations at which one piece ends and the next begins; for Tanh 0, which is not a true boundary (paper, A.4).
    boundaries: tuple[float, ...]
    initial_gain: float  # the variance of the initial weights times fan_in (paper, A.5)
    apply_: Callable[[Tensor], Tensor]  # overwrites pre-activations with activations and returns them
    # `backward_(delta, h)` multiplies `delta` in place by the derivative, read off the *activations* `h`, and returns it.
    # The derivative at a boundary is 0, as in torch.
    backward_: Callable[[Tensor, Tensor], Tensor]
    # `(shift, low, high)` such that the function is `min(max(z + shift, low), high)`; None for Tanh.
    clamp: tuple[float, float, float] | None

    def slope(self, h: Tensor) -> Tensor:
        """Return the derivative at each unit, from the activations `h`; the shape of `h`."""
        return self.backward_(torch.ones_like(h), h)


def _clamp(name: str, initial_gain: float, shift: float, low: float, high: float) -> Activation:
    """Return the activation `min(max(z + shift, low), high)`, for finite `low` and `high`."""

    def apply_(z: Tensor) -> Tensor:
        return hardtanh(z.add_(shift) if shift else z, low, high, inplace=True)

    def backward_(delta: Tensor, h: Tensor) -> Tensor:
        _aten.hardtanh_backward.grad_input(delta, h, low, high, grad_input=delta)
        return delta

    return Activation(name, (low - shift, high - shift), initial_gain, apply_, backward_, (shift, low, high))


_ALL = (
    Activation(
        "relu",
        (0.0,),
        2.0,
        torch.relu_,
        lambda delta, h: _aten.threshold_backward.grad_input(delta, h, 0.0, grad_input=delta),
        (0.0, 0.0, math.inf),
    ),
    _clamp("relu6", 2.0, 0.0, 0.0, 6.0),
    Activation(
        "tanh",
        (0.0,),
        1.0,
        torch.tanh_,
        lambda delta, h: _aten.tanh_backward.grad_input(delta, h, grad_input=delta),
        None,
    ),
    _clamp("hardtanh", 1.0, 0.0, -1.0, 1.0),
    _clamp("hardsigmoid", 2.0, 0.5, 0.0, 1.0),
)
_BY_NAME = {activation.name: activation for activation in _ALL}


def activation(name: str) -> Activation:
    """Return the activation called `name`, or raise InvalidInputError."""
    if not isinstance(name, str) or name not in _BY_NAME:
        raise InvalidInputError(f"activation must be one of {', '.join(ACTIVATIONS)}; got {name!r}")
    return _BY_NAME[name]
