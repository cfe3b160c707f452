"""Evaluates the operations of an exported program, in float64 on the processor."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, fx
from torch.fx.node import map_arg

from .convolution import convolve
from .operations import arguments, operation


def runner(node: fx.Node) -> Callable[[Mapping[str, Any]], Any]:
    """Return what evaluates a node, in float64 on the processor, from all values by name."""
    # The layout of the memory is not always that of the module's own values.
    target: Any = torch.reshape if operation(node) in ("view", "_unsafe_view") else node.target
    args, kwargs = _plain(node.args), _plain(node.kwargs)

    def run(values: Mapping[str, Any]) -> Any:
        def get(one: fx.Node) -> Any:
            return values[one.name]

        return target(*map_arg(args, get), **map_arg(kwargs, get))

    return run


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


def _plain(argument: Any) -> Any:
    """Replace floating-point types by float64, and devices by the processor."""
    if isinstance(argument, torch.dtype):
        return torch.float64 if argument.is_floating_point else argument
    if isinstance(argument, torch.device):
        return torch.device("cpu")
    if isinstance(argument, list | tuple):
        return type(argument)(_plain(one) for one in argument) if type(argument) in (list, tuple) else argument
    if isinstance(argument, dict):
        return {name: _plain(one) for name, one in argument.items()}
    return argument
