r"""
The Jacobian of the softmax, $\mathrm{diag}(p) - p p^T$, and its products, exact for well-fitted points, too.

With $u = \sum_j p_j v_j$ the rows of $(\mathrm{diag}(p) - p p^T) v$ are $p_i (v_i - u)$. They add up to 0: the row of the most
probable class m is minus the sum of the others, as $v_m - u$ itself, $1 - p_m$ times a difference, would be lost in rounding for
well-fitted points. The second-largest probability is taken out as a factor, so that none of the others underflows either.

Classes are dimension 1.
"""

from collections.abc import Callable
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


def softmax_rows(logits: Tensor) -> tuple[Callable[[Tensor], Tensor], Tensor]:
    r"""
    Return what gives rows of $\mathrm{diag}(p) - p p^T$ over a factor, and the factor, float64 `[n]`.

    Row c has the entries $-p_c p_j$ and on the diagonal $p_c \sum_{j \ne c} p_j$, where $1 - p_c$ would be rounded to 0 for the
    most probable class. The function maps classes, int64 `[k]` or `[n, 1]`, to float64 `[n, k, C]`; `logits` are `[n, C]`.
    """
    p, top = logits.softmax(1), logits.argmax(1, keepdim=True)
    others = p.scatter(1, top, 0.0)
    factor = others.detach().amax(1)
    factor = torch.where(factor == 0, 1.0, factor)
    # p_c over the factor: of the most probable class that may overflow, so there its neighbours' p are divided instead.
    scaled = others / factor.unsqueeze(1)

    def weights(classes: Tensor) -> Tensor:
        index = classes if classes.ndim == 2 else classes.expand(len(p), -1)
        highest = (index == top).unsqueeze(2)
        chosen, small = p.gather(1, index).unsqueeze(2), scaled.gather(1, index).unsqueeze(2)
        rows = -torch.where(highest, chosen * scaled.unsqueeze(1), small * p.unsqueeze(1))
        diagonal = torch.where(highest, chosen * scaled.sum(1).view(-1, 1, 1), small * (1 - chosen))
        return rows.scatter(2, index.unsqueeze(2), diagonal)

    return weights, factor
