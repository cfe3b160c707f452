"""A stack's step as a CUDA graph: one launch, where the step itself is dozens of small kernels."""

from functools import cache

import torch
from torch import Tensor

from .backpropagation import TrainingStack

# Steps that are taken as they are before the graph is captured: libraries choose and allocate what they need in these.
WARM_UP_STEPS = 3


class GraphedStep:
    """
    Takes the steps of a stack on a GPU: the first ones launch by launch, the others by replaying a graph of one.

    A graph reads and writes fixed memory. Each minibatch is copied to where it looks; everything else is the stack's own buffers,
    which the optimizers and `TrainingStack` change in place only. Numbers that change with the step are set in `prepare`, which
    is not part of the graph.
    """

    def __init__(self, stack: TrainingStack) -> None:
        self.stack = stack
        self.graph: torch.cuda.CUDAGraph | None = None
        self.fixed: list[Tensor] = []
        self.taken = 0

    def __call__(self, x: Tensor, *minibatch: Tensor) -> None:
        """Take one step; see `TrainingStack.step`. `x` must be the same tensor every time."""
        if self.graph is not None:
            for fixed, new in zip(self.fixed, minibatch, strict=True):
                fixed.copy_(new)
            self.graph.replay()
            return
        # Where there are several GPUs the current one is the first: a graph captured there would be empty.
        with torch.cuda.device(x.device):
            if self.taken < WARM_UP_STEPS:
                # Operations before a capture must not run on the stream that all others wait for.
                current, side = torch.cuda.current_stream(), _side_stream(x.device)
                side.wait_stream(current)
                with torch.cuda.stream(side):
                    self.stack.step(x, *minibatch)
                current.wait_stream(side)
                self.taken += 1
                return
            self.fixed = [tensor.clone() for tensor in minibatch]
            self.graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(self.graph, stream=_side_stream(x.device)):
                self.stack.step(x, *self.fixed)
            self.graph.replay()


@cache
def _side_stream(device: torch.device) -> torch.cuda.Stream:
    """Return the one stream on which a device warms up and captures: cuBLAS keeps a workspace for every stream that it meets."""
    return torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
