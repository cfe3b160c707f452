r"""
Straight segments: where units cross boundaries on polylines, and products at few rows, in loops compiled for the processor.

Where a unit crosses a boundary, the line that the stage above is on turns, by the unit's weights and by how fast it was going. So
only the rows that were there before, and some of the new ones, take a matrix product. The rows between them are interpolated, in
a few operations per unit instead of a few per weight.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ...paths import Polyline
from ..compiling import compiled
from .geometry import Geometry
from .graph import Elementwise, Linear, Networks, Pieces
from .rows import Breakpoints, Changes, Rows, activate, put_in_order, settle

Array = Any

# Crossings farther apart, in the path's parameter, never coincide, however slow their units are.
APART = 1e-9
# Rows at most that are interpolated between two products: so few that their rounding errors do not add up to much.
BETWEEN = 15


class Segments(Geometry):
    """Polylines, of points that the model takes."""

    step = 1

    def __init__(self, paths: Sequence[Polyline]) -> None:
        self.paths = paths
        self.lengths = [len(path.vertices) + path.closed for path in paths]

    def vertices(self, paths: slice) -> tuple[Tensor, Rows]:
        """See `Geometry`. A closed path has its first vertex at its end again."""
        points = [torch.cat([path.vertices, path.vertices[: int(path.closed)]]) for path in self.paths[paths]]
        pair = np.repeat(np.arange(len(points)), self.lengths[paths])
        t = np.concatenate([np.arange(len(vertices), dtype=np.float64) for vertices in points])
        return torch.cat([vertices.detach().cpu().double() for vertices in points]), Rows(pair, t)

    def count(self, z: Array, rows: Rows, pieces: Pieces, errors: Array) -> Array:
        """See `Geometry`. Crossings need not be located."""
        if isinstance(pieces, Elementwise):
            return _counts(z, rows, pieces.boundaries, errors)
        return super().count(z, rows, pieces, errors)

    def crossings(self, z: Array, rows: Rows, pieces: Elementwise, errors: Array) -> Changes:
        """See `Geometry`."""
        counts = _counts(z, rows, pieces.boundaries, errors)
        changes: Changes = _crossings(z, counts, rows, pieces.boundaries, errors)
        return changes

    def products(
        self, z: Array, pieces: Elementwise, breakpoints: Breakpoints, linear: Linear, networks: Networks, largest: Array
    ) -> Tensor:
        """See `Geometry`. Rows between products may be interpolated."""
        out = torch.empty(len(breakpoints.old), linear.weights.shape[2], dtype=torch.float64)
        jumps = np.ascontiguousarray(np.broadcast_to(pieces.jumps, (len(pieces.boundaries), z.shape[1])))
        turns = _turns(z, breakpoints.changes, jumps)
        most = min(linear.block + 1, len(out))
        h = torch.empty(most, z.shape[1], dtype=torch.float64)
        known = torch.empty(most, out.shape[1], dtype=torch.float64)
        for network, part in networks:
            weight = linear.weights[network]
            fastest = largest / max(float(weight.abs().max()), 1e-300)
            anchors = _anchors(part.start, part.stop, breakpoints, turns, fastest)
            # A block begins with the row that the block before ends with.
            for begin in range(0, max(1, len(anchors) - 1), linear.block):
                block = anchors[begin : begin + linear.block + 1]
                activate(block, z, breakpoints, pieces, h.numpy(), self.step)
                linear.times(h[: len(block)], network, known[: len(block)])
                _interpolate(weight.numpy(), block, known.numpy(), breakpoints, turns, out.numpy())
        return out


@compiled
def _counts(z: Array, rows: Rows, boundaries: Array, errors: Array) -> Array:
    """Return how many crossings there are between each row and the next, int64 `[R]`, after `settle`."""
    settle(z, rows, boundaries, errors)
    counts = np.zeros(len(z), np.int64)
    for row in range(len(z) - 1):
        if rows.pair[row] != rows.pair[row + 1]:
            continue
        count = 0
        for boundary in boundaries:
            for unit in range(z.shape[1]):
                count += (z[row, unit] > boundary) != (z[row + 1, unit] > boundary)
        counts[row] = count
    return counts


@compiled
def _crossings(z: Array, counts: Array, rows: Rows, boundaries: Array, errors: Array) -> Changes:
    n, t, change = counts.sum(), rows.t, 0
    changes = Changes(np.empty(n, np.int64), np.empty(n, np.int64), np.empty(n, np.int64), np.empty(n), np.empty(n))
    doubt = np.empty(n)
    for row in np.flatnonzero(counts):
        error, apart = errors[rows.pair[row]], APART / (t[row + 1] - t[row])
        for number in range(len(boundaries)):
            boundary = boundaries[number]
            for unit in range(z.shape[1]):
                begin, end = z[row, unit], z[row + 1, unit]
                if (begin > boundary) != (end > boundary):
                    changes.row[change], changes.unit[change], changes.boundary[change] = row, unit, number
                    changes.place[change] = (boundary - begin) / (end - begin)
                    doubt[change] = min(error / abs(end - begin), apart)
                    change += 1
    put_in_order(changes, doubt, t, 1)
    return changes


@compiled
def _turns(z: Array, changes: Changes, jumps: Array) -> Array:
    """Return how much steeper, per piece, an activation gets where its unit crosses, in either direction; `[n]`."""
    turns = np.empty(len(changes.row))
    for change in range(len(turns)):
        row, unit = changes.row[change], changes.unit[change]
        turns[change] = jumps[changes.boundary[change], unit] * abs(z[row + 1, unit] - z[row, unit])
    return turns


@compiled
def _anchors(start: int, stop: int, breakpoints: Breakpoints, turns: Array, fastest: Array) -> Array:
    """Return the rows from start to before stop that take products: the first, the last, all old ones, some of the new."""
    anchors, count, run = np.empty(stop - start, np.int64), 0, 0
    for row in range(start, stop):
        slow = 0.0 < breakpoints.place[row] < 1.0 and start < row < stop - 1 and run < BETWEEN
        for change in range(breakpoints.first[row], breakpoints.last[row]):
            slow &= abs(turns[change]) <= fastest[breakpoints.rows.pair[row]]
        if slow:
            run += 1
        else:
            anchors[count], run = row, 0
            count += 1
    return anchors[:count]


@compiled
def _interpolate(weight: Array, anchors: Array, known: Array, breakpoints: Breakpoints, turns: Array, out: Array) -> None:
    """
    Fill `out` from the first of the anchors, at which the rows are `known`, to the last.

    From one anchor to the next the stage below is a straight line but for units that cross: the difference of both ends is
    the sum of one line from the beginning and of the turns that units add, from where they cross. So that line is known, too.
    """
    first, last, place, units = breakpoints.first, breakpoints.last, breakpoints.place, breakpoints.changes.unit
    W = out.shape[1]
    value, slope = np.empty(W), np.empty(W)
    for number in range(len(anchors)):
        row = anchors[number]
        for at in range(W):
            out[row, at] = known[number, at]
        if number + 1 == len(anchors) or anchors[number + 1] == row + 1:
            continue
        following = anchors[number + 1]
        begin, end = place[row], place[following]
        if end == 0.0:
            end = 1.0
        for at in range(W):
            value[at] = known[number, at]
            slope[at] = known[number + 1, at] - known[number, at]
        for between in range(row + 1, following):
            for change in range(first[between], last[between]):
                turn, unit = turns[change] * (end - place[between]), units[change]
                for at in range(W):
                    slope[at] -= turn * weight[unit, at]
        length, behind = end - begin, begin
        for between in range(row + 1, following):
            share = (place[between] - behind) / length
            behind = place[between]
            for at in range(W):
                value[at] += share * slope[at]
                out[between, at] = value[at]
            for change in range(first[between], last[between]):
                turn, unit = turns[change] * length, units[change]
                for at in range(W):
                    slope[at] += turn * weight[unit, at]
