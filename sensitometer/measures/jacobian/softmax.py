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


class SoftmaxRows:
    r"""
    Rows of $\mathrm{diag}(p) - p p^T$ over a factor, at points of `logits`, float64 `[n, C]`.

    Row c has the entries $-p_c p_j$ and on the diagonal $p_c \sum_{j \ne c} p_j$, where $1 - p_c$ would be rounded to 0 for the
    most probable class. That class's row is minus the sum of the others.
    """

    def __init__(self, logits: Tensor) -> None:
        self._p, self._top = logits.softmax(1), logits.argmax(1, keepdim=True)
        others = self._p.scatter(1, self._top, 0.0)
        largest = others.detach().amax(1)
        self.factor = torch.where(largest == 0, 1.0, largest)  # float64 [n]
        # p over the factor, but of the most probable class, where that may overflow.
        self._scaled = others / self.factor.unsqueeze(1)
        # All the other classes come first: the last one stands in the most probable one's place.
        n, C = logits.shape
        self._classes = torch.arange(C, device=logits.device).expand(n, C).scatter(1, self._top, C - 1).unsqueeze(2)
        self._diagonal = self._scaled * (1 - self._p)

    def others(self, place: slice) -> Tensor:
        """Return some of the rows of all classes but the most probable one, float64 `[n, k, C]`; `place` is within C - 1."""
        classes = self._classes[:, place]
        rows = self._scaled.unsqueeze(2).gather(1, classes) * -self._p.unsqueeze(1)
        return rows.scatter_(2, classes, self._diagonal.unsqueeze(2).gather(1, classes))

    def of_class(self, classes: Tensor) -> Tensor:
        """Return the row of one class of each point, int64 `[n, 1]`; float64 `[n, 1, C]`."""
        p, scaled, highest = self._p.gather(1, classes), self._scaled.gather(1, classes), classes == self._top
        rows = -torch.where(highest, p * self._scaled, scaled * self._p)
        diagonal = torch.where(highest, p * self._scaled.sum(1, keepdim=True), self._diagonal.gather(1, classes))
        return rows.scatter(1, classes, diagonal).unsqueeze(1)
