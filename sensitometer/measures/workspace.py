"""Memory for the passes over blocks of Jacobians, which is used again and again."""

from collections.abc import Sequence

import torch
from torch import Tensor


class Workspace:
    """
    Buffers that are used again and again; in two of them, what is computed from the one is written to the other.

    A fresh tensor of some megabytes costs as much in page faults as the product that fills it, and drives others from the cache.
    """

    def __init__(self) -> None:
        self._buffers: dict[tuple[str, tuple[int, ...], torch.dtype], Tensor] = {}

    def take(self, name: str, shape: Sequence[int], like: Tensor) -> Tensor:
        """Return the buffer of this name and shape, of the type and on the device of `like`; what was in it is lost."""
        key = name, tuple(shape), like.dtype
        buffer = self._buffers.get(key)
        if buffer is None:
            buffer = self._buffers[key] = like.new_empty(shape)
        return buffer

    def _beside(self, tensor: Tensor, shape: Sequence[int]) -> Tensor:
        """Return the one of two buffers of this shape that does not hold `tensor`; what was in it is lost."""
        even = self.take("even", shape, tensor)
        return self.take("odd", shape, tensor) if even.data_ptr() == tensor.data_ptr() else even

    def product(self, matrix: Tensor, block: Tensor) -> Tensor:
        """Return `matrix` `[S, A, B]` times `block` `[S, B, ...]`: `[S, A, ...]`."""
        out = self._beside(block, (*matrix.shape[:2], *block.shape[2:]))
        torch.bmm(matrix, block.flatten(2), out=out.flatten(2))
        return out

    def times(self, a: Tensor, b: Tensor) -> Tensor:
        """Return the elementwise product of `a` `[S, R, C or 1, n or 1]` and `b` `[S, R or 1, C or 1, n]`."""
        shape = (*a.shape[:2], max(a.shape[2], b.shape[2]), b.shape[3])
        return torch.mul(a, b, out=self._beside(a, shape))
