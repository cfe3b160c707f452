r"""
Arcs of ellipses: where units cross boundaries, in a loop that is compiled for the processor.

On an arc on which no unit below changes its piece, a pre-activation is $\gamma + \alpha \cos t + \beta \sin t$. With
$v = \tan(s/2) / \tau$, where $s$ is the angle from the middle of an arc of half-width $\delta$ and $\tau = \tan(\delta/2)$, the
arc is $-1 \le v \le 1$, and the pre-activation times $1 + \tau^2 v^2$ is the quadratic through its values at the ends and in the
middle. A unit therefore crosses a boundary at the roots of a quadratic whose coefficients do not cancel, however short the arc.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ...paths import Ellipse
from ..compiling import compiled
from .geometry import Geometry
from .graph import Elementwise
from .rows import Changes, Rows, piece_begins, put_in_order, settle, tangent

Array = Any

# The arcs that an ellipse begins with.
ARCS = 4
# Crossings farther apart, in the path's parameter, never coincide, however slow their units are.
APART = 1e-9


class Arcs(Geometry):
    """Ellipses, of points that the model takes."""

    step = 2

    def __init__(self, paths: Sequence[Ellipse]) -> None:
        self.paths = paths
        self.lengths = [2 * ARCS + 1] * len(paths)

    def vertices(self, paths: slice) -> tuple[Tensor, Rows]:
        """See `Geometry`: the ends and middles of the first arcs."""
        t = torch.linspace(0, 2 * math.pi, 2 * ARCS + 1, dtype=torch.float64)
        points = [path.combine(path.basis.detach().cpu().double(), t) for path in self.paths[paths]]
        for ellipse in points:
            ellipse[-1] = ellipse[0]
        return torch.cat(points), Rows(np.repeat(np.arange(len(points)), len(t)), np.tile(t.numpy(), len(points)))

    def crossings(self, z: Array, rows: Rows, pieces: Elementwise, errors: Array) -> Changes:
        """See `Geometry`."""
        changes: Changes = _crossings(z, rows, pieces.boundaries, errors)
        return changes


@compiled
def _crossings(z: Array, rows: Rows, boundaries: Array, errors: Array) -> Changes:
    settle(z, rows, boundaries, errors)
    changed_row, changed_unit = [np.int64(0) for _ in range(0)], [np.int64(0) for _ in range(0)]
    crossed, places, doubts = [np.int64(0) for _ in range(0)], [0.0 for _ in range(0)], [0.0 for _ in range(0)]
    roots = np.empty(2)
    for row in piece_begins(rows.pair, 2):
        tau = tangent(rows.t, row)
        wide, error, apart = 1 + tau * tau, errors[rows.pair[row]], APART / (2 * tau)
        for number in range(len(boundaries)):
            boundary = boundaries[number]
            for unit in range(z.shape[1]):
                f0, c, f1 = (z[row, unit] - boundary) * wide, z[row + 1, unit] - boundary, (z[row + 2, unit] - boundary) * wide
                count, roots[0], roots[1] = _roots(f0, c, f1, error)
                for root in range(count):
                    slope = abs(((f0 + f1) - 2 * c) * roots[root] + (f1 - f0) / 2)
                    changed_row.append(row)
                    changed_unit.append(np.int64(unit))
                    crossed.append(np.int64(number))
                    places.append(roots[root])
                    doubts.append(min(error / slope, apart))
    place = np.array(places)
    changes = Changes(np.array(changed_row), np.array(changed_unit), np.array(crossed), place, np.empty(len(place)))
    put_in_order(changes, np.array(doubts), rows.t, 2)
    return changes


@compiled
def _roots(f0: float, c: float, f1: float, error: float) -> tuple[int, float, float]:
    """
    Return the roots in [-1, 1] of the quadratic through f0, c and f1 at -1, 0 and 1: how many, and two places.

    One that turns back within the error of 0 has none.
    """
    # A value above 0 is on one side, any other on the other: with its ends on different sides it has one root, else two or none.
    side = f0 > 0
    # Squares of what is large or small leave the range of float64.
    largest = max(abs(f0), abs(c), abs(f1))
    if largest == 0.0:
        return 0, 0.0, 0.0
    f0, c, f1, error = f0 / largest, c / largest, f1 / largest, error / largest
    a, h = (f0 + f1) / 2 - c, (f1 - f0) / 2
    odd = side != (f1 > 0)
    if not odd and not (side == (a > 0) and abs(h) < 2 * abs(a) and h * h > 4 * a * c):
        return 0, 0.0, 0.0
    if not odd and abs(c - h * h / (4 * a)) <= error:
        return 0, 0.0, 0.0
    q = -(h + math.copysign(math.sqrt(max(h * h - 4 * a * c, 0.0)), h)) / 2
    # q is 0 only where all of h and c are.
    near, far = (0.0 if q == 0 else c / q), (q / a if a != 0 else 0.0 if q == 0 else 2.0)
    if abs(far) < abs(near):
        near, far = far, near
    near, far = min(max(near, -1.0), 1.0), min(max(far, -1.0), 1.0)
    # A root at an end is there exactly: units that are 0 together must be 0 in the same place.
    ends = f0 == 0 or f1 == 0
    end = 1.0 if f1 == 0 else -1.0
    if odd:
        # Unless the other root is between the ends: from an end on a boundary the unit may turn below first, and cross there.
        return 1, (near if not ends or abs(c) < abs(a) else end), 0.0
    return 2, near, (end if ends else far)
