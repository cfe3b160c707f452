r"""
Crossings along ellipses: what `crossings.py` asks of the geometry of arcs.

On an arc on which no unit below changes its piece, a pre-activation is $\gamma + \alpha \cos t + \beta \sin t$. With
$v = \tan(s/2) / \tau$, where $s$ is the angle from the middle of an arc of half-width $\delta$ and $\tau = \tan(\delta/2)$, the
arc is $-1 \le v \le 1$, and the pre-activation times $1 + \tau^2 v^2$ is the quadratic through its values at the ends and in the
middle. A unit therefore crosses a boundary at the roots of a quadratic whose coefficients do not cancel, however short the arc.
"""

import itertools
import math
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from ...paths import Ellipse
from .crossings import APART, Found, Rows, Walk, coincident, products, snap, where

# The arcs that an ellipse begins with.
ARCS = 4
# In `Rows.born`: the middle of an arc.
MIDDLE = -2


class Arcs:
    """
    Ellipses. A piece is an arc, three rows: its ends and its middle; a `place` on it is v. Everything is float64.

    Parameters
    ----------
    paths
        The ellipses, all of D dimensions.
    """

    def __init__(self, paths: Sequence[Ellipse]) -> None:
        self.paths = paths

    def lengths(self, paths: slice) -> list[int]:
        """See `Geometry`."""
        return [2 * ARCS + 1 for _ in self.paths[paths]]

    def first_layer(self, first: Tensor, paths: slice) -> tuple[Tensor, Rows]:
        """See `Geometry`."""
        t = torch.linspace(0, 2 * math.pi, 2 * ARCS + 1, dtype=torch.float64, device=first.device)
        each = []
        for path in self.paths[paths]:
            values = path.combine((path.basis.to(first) @ first.flatten(0, 1).T), t)
            values[-1] = values[0]
            each.append(values)
        z = torch.cat(each).view(-1, *first.shape[:2]).transpose(0, 1)
        born = torch.full_like(t, -1, dtype=torch.int64)
        born[1::2] = MIDDLE
        trace = torch.arange(len(each), device=first.device).repeat_interleave(len(t))
        return z.contiguous(), Rows(trace, t.repeat(len(each)), born.repeat(len(each)))

    def count(self, walk: Walk, layer: int, z: Tensor, rows: Rows) -> None:
        """See `Geometry`."""
        found = self.find(walk, layer, z, rows)
        walk.record(layer, rows.trace[found.piece], found.unit, found.boundary, found.t)

    def find(self, walk: Walk, layer: int, z: Tensor, rows: Rows) -> Found:
        """See `Geometry`."""
        starts = where(rows.born[1:] == MIDDLE)
        tau = _half_tangent(rows.t, starts)
        begin, middle, end = (z[starts + step] for step in range(3))
        weight = (1 + tau**2).unsqueeze(1)
        parts = []
        for number, limit in enumerate(walk.activation.boundaries):
            f0, c, f1 = (begin - limit) * weight, middle - limit, (end - limit) * weight
            for place, v, slope in _roots(f0, c, f1):
                parts.append((place // z.shape[1], place % z.shape[1], torch.full_like(place, number), v, slope))
        arc, unit, boundary, v, slope = (torch.cat(column) for column in zip(*parts, strict=True))
        order = torch.argsort(2 * arc + (v + 1) / 2, stable=True)
        arc, unit, boundary, v, slope = arc[order], unit[order], boundary[order], v[order], slope[order]
        t = rows.t[starts[arc] + 1] + 2 * torch.atan(v * tau[arc])
        error = walk.errors[rows.trace[starts[arc]], layer] / slope
        found = Found(starts[arc], unit, boundary, v, t, torch.full_like(v, torch.inf))
        return coincident(found, error.minimum(APART / (2 * tau[arc])))

    def parts(self, walk: Walk, layer: int, z: Tensor, rows: Rows, found: Found) -> Iterator[tuple[Tensor, Rows]]:
        """See `Geometry`."""
        starts = where(rows.born[1:] == MIDDLE)
        arc = torch.searchsorted(starts, found.piece)
        own = torch.arange(len(starts), device=z.device).repeat_interleave(torch.bincount(arc, minlength=len(starts)) + 1)
        new = arc + 1 + torch.arange(len(arc), device=z.device)
        first, tau = starts[own], _half_tangent(rows.t, starts)[own]
        begin, born = torch.full_like(tau, -1.0), torch.full_like(own, -1)
        begin[new], born[new] = found.place, walk.name(layer, found.unit, found.boundary)
        # What an arc ends with is what the next of the same old arc begins with.
        goes_on = torch.cat([own[1:] == own[:-1], own.new_zeros(1, dtype=torch.bool)])
        end, reborn = torch.where(goes_on, begin.roll(-1), 1.0), torch.where(goes_on, born.roll(-1), -1)
        # The middle of the angle, not of v.
        middle = torch.tan((torch.atan(begin * tau) + torch.atan(end * tau)) / 2) / tau
        # Crossings that coincide leave an arc of no length.
        middle = torch.where(begin == end, begin, middle.nan_to_num(0.0))
        v, born = torch.stack([begin, middle, end], 1), torch.stack([born, torch.full_like(born, MIDDLE), reborn], 1)
        count = max(1, -(-2 * len(own) // walk.size))
        for start, stop in itertools.pairwise(len(own) * part // count for part in range(count + 1)):
            here = slice(start, stop)
            values, part = _part(z, rows, first[here], tau[here], v[here], born[here])
            new = where(part.born >= 0)
            _, unit, boundary = walk.named(part.born[new])
            snap(values, new, unit, walk.limits[boundary], part.trace[new], part.t[new])
            networks, edges = walk.edges(part)
            yield products(walk.activation.apply_(values), walk.above[layer][networks], edges), part


def _part(z: Tensor, rows: Rows, first: Tensor, tau: Tensor, v: Tensor, born: Tensor) -> tuple[Tensor, Rows]:
    """
    Return the rows of n new arcs, see `Geometry.parts`.

    `first` `[n]` are the first rows of the old arcs that they are on, `v` `[n, 3]` where they begin, have their middle and end.
    """
    trace = rows.trace[first]
    kept = torch.ones_like(v, dtype=torch.bool)
    # The end of an arc is the beginning of the next, except of the last.
    kept[:-1, 2] = trace[1:] != trace[:-1]
    first, tau = (column.unsqueeze(1).expand(-1, 3)[kept] for column in (first, tau))
    v, born = v[kept], born[kept]
    t = rows.t[first + 1] + 2 * torch.atan(v * tau)
    end = v.abs() == 1
    t[end] = rows.t[(first + 1 + v.long())[end]]
    # The quadratic through the values times 1 + tau^2 v^2, divided by that.
    below = 1 + (tau * v) ** 2
    edge = (1 + tau**2) / below
    values = torch.zeros(len(v), z.shape[1], dtype=z.dtype, device=z.device)
    for step, share in enumerate((edge * v * (v - 1) / 2, (1 - v**2) / below, edge * v * (v + 1) / 2)):
        values.addcmul_(z.index_select(0, first + step), share.unsqueeze(1))
    return values, Rows(rows.trace[first], t, born)


def _half_tangent(t: Tensor, starts: Tensor) -> Tensor:
    r"""Return $\tau$ of the arcs that begin at the rows `starts`."""
    return torch.tan((t[starts + 2] - t[starts]) / 4)


def _roots(f0: Tensor, c: Tensor, f1: Tensor) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """
    Yield the roots in [-1, 1] of the quadratics through `f0`, `c` and `f1` `[n, W]` at -1, 0 and 1, and how steep they are there.

    Each time places in `[n, W]` as if it were one row, the roots there, and the slopes, in size. A value above 0 is on one side,
    any other on the other: a quadratic with its ends on different sides has one root, and otherwise two or none.
    """
    sides = f0 > 0
    odd = sides != (f1 > 0)
    a, h = (f0 + f1) / 2 - c, (f1 - f0) / 2
    even = ~odd & (sides == (a > 0)) & (h.abs() < 2 * a.abs()) & (h * h > 4 * a * c)
    for flags in (odd, even):
        place = where(flags)
        A, H, C, begin, end = (values.reshape(-1)[place] for values in (a, h, c, f0, f1))
        q = -(H + torch.copysign((H * H - 4 * A * C).clamp(min=0).sqrt(), H)) / 2
        # q is 0 only where all of h and c are.
        one, other = (q / A).nan_to_num(0.0, 2.0, -2.0), (C / q).nan_to_num(0.0, 2.0, -2.0)
        near, far = torch.where(one.abs() < other.abs(), torch.stack([one, other]), torch.stack([other, one])).clamp(-1, 1)
        # A root at an end is there exactly: units that are 0 together must be 0 in the same place.
        at_end = torch.where(end == 0, 1.0, torch.where(begin == 0, -1.0, torch.nan))
        # Unless the other root is between the ends: from an end on a boundary the unit may turn below first, and cross there.
        only = torch.where(at_end.isnan() | (C.abs() < A.abs()), near, at_end)
        for root in (only,) if flags is odd else (near, torch.where(at_end.isnan(), far, at_end)):
            yield place, root, (2 * A * root + H).abs()
