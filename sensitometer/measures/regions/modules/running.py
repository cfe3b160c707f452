"""Evaluates the operations of an exported program, in float64 on the processor."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, fx
from torch.fx.node import map_arg

from .convolution import convolve
from .operations import arguments, operation

# Evaluates an operation, from all values by name.
Run = Callable[[Mapping[str, Any]], Any]


def runner(node: fx.Node) -> Run:
    """Return what evaluates a node, in float64 on the processor."""
    # The layout of the memory is not always that of the module's own values.
    target: Any = torch.reshape if operation(node) in ("view", "_unsafe_view") else node.target
    args, kwargs = tuple(map(_plain, node.args)), {name: _plain(value) for name, value in node.kwargs.items()}

    def run(values: Mapping[str, Any]) -> Any:
        def value(argument: fx.Node) -> Any:
            return values[argument.name]

        return target(*map_arg(args, value), **map_arg(kwargs, value))

    return run


def _plain(argument: Any) -> Any:
    """Replace floating-point types by float64, and devices by the processor."""
    if isinstance(argument, torch.dtype) and argument.is_floating_point:
        return torch.float64
    return torch.device("cpu") if isinstance(argument, torch.device) else argument


def convolution(node: fx.Node) -> Callable[[Tensor, Tensor, Tensor | None], Tensor]:
    """Return a convolution of input, weight and bias: a faster loop for 3 x 3 pixels, unless gradients go through it."""
    target: Any = node.target
    given = arguments(node)
    settings = {"stride": [1, 1], "padding": [1, 1], "dilation": [1, 1], "groups": 1, "transposed": False}
    common = all(given.get(name, value) == value for name, value in settings.items())
    common = common and list(given["weight"].meta["val"].shape[2:]) == [3, 3]
    others = node.args[3:]

    def run(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        if common and not x.requires_grad:
            return convolve(x, weight, bias)
        result: Tensor = target(x, weight, bias, *others, **{key: value for key, value in node.kwargs.items() if key != "bias"})
        return result

    return run
