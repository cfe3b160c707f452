"""
The operations of `kernels.py` on single numbers, compiled for the processor, in one pass each.

A point is a column, and the innermost loops go along points, so that they are vectors of the processor.
"""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from ...activations import Activation
from ..compiling import compiled
from ..workspace import Workspace
from . import kernels
from .softmax import Mixing

Array = Any


def activate(activation: Activation, h: Tensor, slope: Tensor, space: Workspace) -> None:
    """See `kernels.py`."""
    if activation.clamp is None:
        kernels.activate(activation, h, slope, space)
    else:
        _clamp(h.view(-1).numpy(), slope.view(-1).numpy(), *activation.clamp)


def squared_norms(block: Tensor, space: Workspace) -> Tensor:
    """See `kernels.py`."""
    return torch.from_numpy(_squares(block.contiguous().numpy()))


def both_squared_norms(block: Tensor, mixing: Mixing, start: int, space: Workspace) -> tuple[Tensor, Tensor]:
    """See `kernels.py`."""
    mixed, plain = _both_squares(block.contiguous().numpy(), mixing.p.numpy(), mixing.others.numpy(), start)
    return torch.from_numpy(mixed), torch.from_numpy(plain)


@compiled
def _clamp(h: Array, slope: Array, shift: float, low: float, high: float) -> None:
    for place in range(len(h)):
        value = min(max(h[place] + shift, low), high)
        h[place] = value
        slope[place] = (value > low) & (value < high)


@compiled
def _squares(block: Array) -> Array:
    S, R, C, n = block.shape
    sums, row = np.zeros((S, n)), np.empty(n, block.dtype)
    for network in range(S):
        for r in range(R):
            row[:] = 0
            for c in range(C):
                for point in range(n):
                    row[point] += block[network, r, c, point] * block[network, r, c, point]
            for point in range(n):
                sums[network, point] += row[point]
    return sums


@compiled
def _both_squares(block: Array, p: Array, others: Array, start: int) -> Any:
    S, R, C, n = block.shape
    mixed, plain = np.zeros((S, n)), np.zeros((S, n))
    u, square, total, row = np.empty(n, block.dtype), np.empty(n, block.dtype), np.empty(n, block.dtype), np.empty(n, block.dtype)
    # A loop for each sum: with several in one, the compiler cannot tell that they do not overlap, and makes no vectors of them.
    for network in range(S):
        for r in range(R):
            u[:], square[:], total[:], row[:] = 0, 0, 0, 0
            for c in range(C):
                values, share = block[network, r, c], p[network, c, start : start + n]
                for point in range(n):
                    u[point] += share[point] * values[point]
                for point in range(n):
                    square[point] += values[point] * values[point]
            for c in range(C):
                values, share = block[network, r, c], others[network, c, start : start + n]
                for point in range(n):
                    values[point] = (values[point] - u[point]) * share[point]
                for point in range(n):
                    total[point] += values[point]
                for point in range(n):
                    row[point] += values[point] * values[point]
            for point in range(n):
                mixed[network, point] += row[point] + total[point] * total[point]
            for point in range(n):
                plain[network, point] += square[point]
    return mixed, plain
