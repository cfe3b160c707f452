r"""
The operations on single numbers between the matrix products of the Jacobian pass, in torch: on any device, in any type.

`compiled_kernels.py` is for processors; this is its plain twin.
"""

from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from ...activations import Activation
from ..workspace import Workspace


class Kernels(Protocol):
    """Operations on single numbers."""

    def activate(self, activation: Activation, h: Tensor, slope: Tensor, space: Workspace) -> None:
        """Make pre-activations `h` `[S, W, n]` activations, and write the derivatives there to `slope`."""

    def squared_norms(self, block: Tensor, space: Workspace) -> Tensor:
        """Return the squared Frobenius norms of `block` `[S, R, C, n]`, `[S, n]`."""

    def both_squared_norms(self, block: Tensor, mixing: "Mixing", start: int, space: Workspace) -> tuple[Tensor, Tensor]:
        r"""
        Return $\|(\mathrm{diag}(p) - p p^T) J\|_F^2$ over the square of the mixing's factor, and $\|J\|_F^2$.

        Both are `[S, n]`, for `block` J `[S, R, C, n]`, which is overwritten, at n points of the mixing, from `start`.

        With $u = \sum_j p_j J_j$ the rows are $p_i (J_i - u)$. They add up to 0: that of the most probable class m is minus the
        sum of the others, as $J_m - u$ itself, $1 - p_m$ times a difference, would be lost in rounding for well-fitted points.
        The second-largest probability is taken out as a factor, so that none of the others underflows either.
        """


@dataclass(frozen=True)
class Mixing:
    """The matrix that makes the Jacobian of the probabilities from that of the logits."""

    p: Tensor  # [S, C, n]
    others: Tensor  # p without its largest over the factor, [S, C, n]
    factor: Tensor  # the second-largest p, float64 [S, n]


def activate(activation: Activation, h: Tensor, slope: Tensor, space: Workspace) -> None:
    """See `Kernels`."""
    ones = space.take("slope", h.shape, h).fill_(1.0)
    slope.copy_(activation.backward_(ones, activation.apply_(h)))


def squared_norms(block: Tensor, space: Workspace) -> Tensor:
    """See `Kernels`."""
    return space.times(block, block).sum((1, 2))


def both_squared_norms(block: Tensor, mixing: Mixing, start: int, space: Workspace) -> tuple[Tensor, Tensor]:
    """See `Kernels`."""
    plain = squared_norms(block, space)
    here = slice(start, start + block.shape[3])
    p, others = (weights[:, :, here].unsqueeze(1) for weights in (mixing.p, mixing.others))
    u = space.times(block, p).sum(2, keepdim=True)
    rows = space.times(block.sub_(u), others)
    return rows.sum(2).square().sum(1) + rows.mul_(rows).sum((1, 2)), plain
