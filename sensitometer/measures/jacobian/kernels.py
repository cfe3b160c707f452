"""
The operations on single numbers between the matrix products of the Jacobian pass, in torch: on any device, in any type.

`compiled_kernels.py` has the same functions for processors; this is its plain twin.
"""

from torch import Tensor

from ...activations import Activation
from ..workspace import Workspace
from .softmax import Mixing


def activate(activation: Activation, h: Tensor, slope: Tensor, space: Workspace) -> None:
    """Make pre-activations `h` `[S, W, n]` activations, and write the derivatives there to `slope`."""
    ones = space.take("slope", h.shape, h).fill_(1.0)
    slope.copy_(activation.backward_(ones, activation.apply_(h)))


def squared_norms(block: Tensor, space: Workspace) -> Tensor:
    """Return the squared Frobenius norms of `block` `[S, R, C, n]`, `[S, n]`."""
    return space.times(block, block).sum((1, 2))


def both_squared_norms(block: Tensor, mixing: Mixing, start: int, space: Workspace) -> tuple[Tensor, Tensor]:
    r"""
    Return $\|(\mathrm{diag}(p) - p p^T) J\|_F^2$ over the square of the mixing's factor, and $\|J\|_F^2$; see `softmax.py`.

    Both are `[S, n]`, for `block` J `[S, R, C, n]`, which is overwritten, at n points of the mixing, from `start`.
    """
    plain = squared_norms(block, space)
    here = slice(start, start + block.shape[3])
    p, others = (weights[:, :, here].unsqueeze(1) for weights in (mixing.p, mixing.others))
    u = space.times(block, p).sum(2, keepdim=True)
    rows = space.times(block.sub_(u), others)
    return rows.sum(2).square().sum(1) + rows.mul_(rows).sum((1, 2)), plain
