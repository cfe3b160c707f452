r"""
The Jacobian of the softmax, $\mathrm{diag}(p) - p p^T$, and its products, exact for well-fitted points, too.

With $u = \sum_j p_j v_j$ the rows of $(\mathrm{diag}(p) - p p^T) v$ are $p_i (v_i - u)$. They add up to 0: the row of the most
probable class m is minus the sum of the others, as $v_m - u$ itself, $1 - p_m$ times a difference, would be lost in rounding for
well-fitted points. The second-largest probability is taken out as a factor, so that none of the others underflows either.

Classes are dimension 1.
"""

from typing import NamedTuple

import torch
from torch import Tensor


class Mixing(NamedTuple):
    """The matrix that makes the Jacobian of the probabilities from that of the logits; the shape of the logits, `[S, C, n]`."""

    p: Tensor
    others: Tensor  # p over the factor, and 0 for the most probable class
    top: Tensor  # int64 [S, 1, n], the most probable class
    factor: Tensor  # the second-largest p, float64 [S, n]


def mixing_of(logits: Tensor, dtype: torch.dtype = torch.float64) -> Mixing:
    """Return the mixing at points with these `logits`, float64 `[S, C, n]`, for products of type `dtype`."""
    # max() rather than argmax(): several times faster along this dimension.
    p, top = logits.softmax(1), logits.max(1, keepdim=True).indices
    others = p.scatter(1, top, 0.0)
    second = others.amax(1, keepdim=True)
    others = others / torch.where(second == 0, 1.0, second)
    return Mixing(p.to(dtype), others.to(dtype), top, second.squeeze(1))


def through_softmax(logits: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    r"""
    Return $(\mathrm{diag}(p) - p p^T) v$ over a factor, and the factor, `[n, K or 1]`.

    `logits` are float64 `[n, C, K or 1]`, `v` is float64 `[n, C, K]`, and overwritten.
    """
    p, others, top, factor = mixing_of(logits)
    top = top.expand(-1, -1, v.shape[2])
    v.sub_(v.gather(1, top))  # which changes nothing but the rounding, where all v are nearly alike
    rows = v.sub_((p * v).sum(1, keepdim=True)).mul_(others)
    return rows.scatter_(1, top, -rows.sum(1, keepdim=True)), factor
