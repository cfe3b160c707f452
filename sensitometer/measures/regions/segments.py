r"""
Straight segments: what `walk.py` asks of the geometry of polylines, in loops that are compiled for the processor.

A piece is a segment between neighbouring rows, a `place` on it the fraction of it that lies behind.

Where a unit crosses a boundary, the line that the stage above is on turns, by the unit's weights and by how fast it was going. So
only the rows that were there before, and some of the new ones, take a matrix product; what is between them is interpolated, in a
few operations per unit instead of a few for each of its weights.
"""

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ...paths import Polyline
from ..compiling import compiled
from .graph import Elementwise, Linear, Pieces
from .maxima import find_winners
from .walk import Found, Insertion, Rows

Array = Any

# Crossings farther apart, in the path's parameter, never coincide, however slow their units are.
APART = 1e-9
# The number of crossings of a piece from which on they are sorted by merging.
MANY = 64
# Rows at most that are interpolated between two products: so few that their rounding errors do not add up to much.
BETWEEN = 15


class Segments:
    """
    Polylines.

    Parameters
    ----------
    paths
        The polylines, of points that the model takes.
    """

    step = 1

    def __init__(self, paths: Sequence[Polyline]) -> None:
        self.paths = paths
        self.lengths = [len(path.vertices) + path.closed for path in paths]

    def vertices(self, paths: slice) -> tuple[Tensor, Rows]:
        """See `Geometry`. A closed path has its first vertex at its end again."""
        points = [vertices(path).detach().cpu().double() for path in self.paths[paths]]
        lengths = self.lengths[paths]
        pair = np.repeat(np.arange(len(points)), lengths)
        return torch.cat(points), Rows(pair, np.concatenate([np.arange(length, dtype=np.float64) for length in lengths]))

    def begins(self, pair: Array) -> Array:
        """See `Geometry`."""
        return np.flatnonzero(pair[1:] == pair[:-1])

    def count(self, z: Array, rows: Rows, pieces: Pieces, errors: Array) -> Array:
        """See `Geometry`."""
        begins = self.begins(rows.pair)
        if isinstance(pieces, Elementwise):
            return _changes(z, rows.pair, np.array(pieces.boundaries), errors)[begins]
        return np.bincount(self.find(z, rows, pieces, errors).piece, minlength=len(z))[begins]

    def find(self, z: Array, rows: Rows, pieces: Pieces, errors: Array) -> Found:
        """See `Geometry`."""
        if not isinstance(pieces, Elementwise):
            return Found(*find_winners(z, rows.pair, rows.t, pieces.candidates, pieces.sign, errors))
        limits = np.array(pieces.boundaries)
        changes = _changes(z, rows.pair, limits, errors)
        return Found(*_crossings(z, changes, rows.pair, rows.t, limits, errors))

    def insert(self, rows: Rows, found: Found) -> Insertion:
        """See `Geometry`."""
        pair, t, old, place, first, last = _merge(rows.pair, rows.t, found.piece, found.place, found.t)
        return Insertion(found, Rows(pair, t), self.begins(pair), old, place, first, last)

    def mixed(self, values: Array, insertion: Insertion, here: slice) -> Array:
        """See `Geometry`."""
        old, place = insertion.old[here], insertion.place[here]
        if not place.any():  # and the rows follow one another
            return values[old[0] : old[-1] + 1]
        return _mixed(values, old, place)

    def activations(self, z: Array, pieces: Elementwise, insertion: Insertion, here: slice) -> Array:
        """See `Geometry`."""
        out = np.empty((here.stop - here.start, z.shape[1]))
        _activations(np.arange(here.start, here.stop), z, out, *_columns(insertion), *form(pieces))
        return out

    def products(
        self,
        z: Array,
        pieces: Elementwise,
        insertion: Insertion,
        here: slice,
        linear: Linear,
        networks: slice,
        edges: Sequence[int],
        largest: Array,
    ) -> Tensor:
        """See `Geometry`."""
        out = torch.empty(here.stop - here.start, linear.weights.shape[2], dtype=torch.float64)
        jumps = np.ascontiguousarray(np.broadcast_to(pieces.jumps, (len(pieces.boundaries), z.shape[1])))
        found = insertion.found
        change = _turns(z, found.piece, found.unit, found.boundary, jumps)
        columns, shape = _columns(insertion), form(pieces)
        size = linear.block
        most = min(size + 1, len(out))
        h = torch.empty(most, z.shape[1], dtype=torch.float64)
        known = torch.empty(most, out.shape[1], dtype=torch.float64)
        for number, (start, stop) in enumerate(itertools.pairwise(edges)):
            network = networks.start + number
            weight = linear.weights[network]
            fastest = largest / max(float(weight.abs().max()), 1e-300)
            part = slice(here.start + start, here.start + stop)
            places = _anchors(part.start, part.stop, *columns[1:4], change, insertion.rows.pair, fastest)
            # A block begins with the row that the block before ends with.
            for begin in range(0, max(1, len(places) - 1), size):
                block = places[begin : begin + size + 1]
                _activations(block, z, h.numpy(), *columns, *shape)
                linear.times(h[: len(block)], network, known[: len(block)])
                _between(weight.numpy(), block, known.numpy(), out.numpy(), here.start, *columns[1:5], change)
        return out


def vertices(path: Polyline) -> Tensor:
    """Return the vertices of a polyline, the first again at the end of a closed one; `[M, ...]` or `[M + 1, ...]`."""
    return torch.cat([path.vertices, path.vertices[:1]]) if path.closed else path.vertices


def _columns(insertion: Insertion) -> tuple[Array, ...]:
    found = insertion.found
    return insertion.old, insertion.place, insertion.first, insertion.last, found.unit, found.boundary


def form(pieces: Elementwise) -> tuple[Any, ...]:
    """Return what the compiled loops take of an activation, last."""
    leaky = bool(pieces.leak.any())
    return np.array(pieces.boundaries), pieces.scale, pieces.shift, float(pieces.low), float(pieces.high), leaky, pieces.leak


@compiled
def settle(z: Array, pair: Array, limits: Array, errors: Array) -> None:
    """Put what is within the errors of a boundary on it."""
    W = z.shape[1]
    for row in range(len(z)):
        error = errors[pair[row]]
        for limit in limits:
            near = 0
            for at in range(W):
                near += abs(z[row, at] - limit) <= error
            if near:
                for at in range(W):
                    if abs(z[row, at] - limit) <= error:
                        z[row, at] = limit


@compiled
def _changes(z: Array, pair: Array, limits: Array, errors: Array) -> Array:
    """Return how many crossings there are between each row and the next, `[R - 1]`, after `settle`."""
    settle(z, pair, limits, errors)
    W = z.shape[1]
    changes = np.zeros(max(len(z) - 1, 0), np.int64)
    for row in range(len(changes)):
        if pair[row] != pair[row + 1]:
            continue
        count = 0
        for limit in limits:
            for at in range(W):
                count += (z[row, at] > limit) != (z[row + 1, at] > limit)
        changes[row] = count
    return changes


@compiled
def _crossings(z: Array, changes: Array, pair: Array, t: Array, limits: Array, errors: Array) -> Any:
    total, W = changes.sum(), z.shape[1]
    piece, unit, boundary = np.empty(total, np.int64), np.empty(total, np.int64), np.empty(total, np.int64)
    place, where, doubt = np.empty(total), np.empty(total), np.empty(total)
    stop = 0
    for row in range(len(changes)):
        if not changes[row]:
            continue
        start = stop
        error, apart = errors[pair[row]], APART / (t[row + 1] - t[row])
        for number in range(len(limits)):
            limit = limits[number]
            for at in range(W):
                begin, end = z[row, at], z[row + 1, at]
                if (begin > limit) != (end > limit):
                    piece[stop], unit[stop], boundary[stop] = row, at, number
                    place[stop] = (limit - begin) / (end - begin)
                    doubt[stop] = min(error / abs(end - begin), apart)
                    stop += 1
        sort(place[start:stop], unit[start:stop], boundary[start:stop], doubt[start:stop])
        join(place[start:stop], doubt[start:stop])
        for found in range(start, stop):
            share = place[found]
            # Exact at both ends.
            if share < 0.5:
                where[found] = t[row] + share * (t[row + 1] - t[row])
            else:
                where[found] = t[row + 1] - (t[row + 1] - t[row]) * (1.0 - share)
    return piece, unit, boundary, place, where


@compiled
def sort(place: Array, unit: Array, boundary: Array, doubt: Array) -> None:
    """Put the crossings of a piece into their order; equal ones keep theirs."""
    if len(place) >= MANY:
        order = np.argsort(place, kind="mergesort")
        place[:], unit[:], boundary[:], doubt[:] = place[order], unit[order], boundary[order], doubt[order]
        return
    for at in range(1, len(place)):
        share, which, limit, error = place[at], unit[at], boundary[at], doubt[at]
        while at > 0 and place[at - 1] > share:
            place[at], unit[at], boundary[at], doubt[at] = place[at - 1], unit[at - 1], boundary[at - 1], doubt[at - 1]
            at -= 1
        place[at], unit[at], boundary[at], doubt[at] = share, which, limit, error


@compiled
def join(place: Array, doubt: Array) -> None:
    """Put crossings of a piece that coincide up to their doubts in one place, that of the surest."""
    start = 0
    for stop in range(1, len(place) + 1):
        if stop < len(place) and place[stop] - place[stop - 1] <= doubt[stop] + doubt[stop - 1]:
            continue
        if stop - start > 1:
            surest = start
            for at in range(start + 1, stop):
                if doubt[at] < doubt[surest]:
                    surest = at
            share = place[surest]
            for at in range(start, stop):
                place[at] = share
        start = stop


@compiled
def _merge(pair: Array, t: Array, piece: Array, place: Array, t_new: Array) -> Any:
    """Put rows between the old ones, one for each place inside a piece."""
    most = len(pair) + len(piece)
    pairs, ts = np.empty(most, np.int64), np.empty(most)
    old, share = np.empty(most, np.int64), np.empty(most)
    first, last = np.empty(most, np.int64), np.empty(most, np.int64)
    count, new = 0, 0
    for row in range(len(pair)):
        pairs[count], ts[count], old[count], share[count], first[count], last[count] = pair[row], t[row], row, 0.0, 0, 0
        count += 1
        while new < len(piece) and piece[new] == row:
            start = new
            while new < len(piece) and piece[new] == row and place[new] == place[start]:
                new += 1
            # At an end of the piece its row is there, and the units are on their boundaries in it.
            if 0.0 < place[start] < 1.0:
                pairs[count], ts[count], old[count], share[count] = pair[row], t_new[start], row, place[start]
                first[count], last[count] = start, new
                count += 1
    return pairs[:count], ts[:count], old[:count], share[:count], first[:count], last[:count]


@compiled
def _mix(out: Array, values: Array, begin: int, share: float) -> None:
    """Write to `out` `[W]` what is a share of the way from a row of `values` to the next; exact at both ends."""
    first, second = values[begin], values[min(begin + 1, len(values) - 1)]
    if share < 0.5:
        for at in range(len(out)):
            out[at] = first[at] + share * (second[at] - first[at])
    else:
        rest = 1.0 - share
        for at in range(len(out)):
            out[at] = second[at] - (second[at] - first[at]) * rest


@compiled
def _mixed(values: Array, old: Array, place: Array) -> Array:
    out = np.empty((len(old), values.shape[1]))
    for row in range(len(old)):
        _mix(out[row], values, old[row], place[row])
    return out


@compiled
def apply(row: Array, scale: float, shift: float, low: float, high: float, leaky: bool, leak: Array) -> None:
    """Turn the pre-activations of a row into activations."""
    W = len(row)
    if leaky:
        for at in range(W):
            slope = leak[at] if len(leak) > 1 else leak[0]
            value = row[at]
            row[at] = min(max(scale * value + shift, low), high) + slope * min(value, 0.0)
    else:
        for at in range(W):
            row[at] = min(max(scale * row[at] + shift, low), high)


@compiled
def _activations(
    places: Array, z: Array, out: Array, old: Array, place: Array, first: Array, last: Array, unit: Array, boundary: Array,
    limits: Array, scale: float, shift: float, low: float, high: float, leaky: bool, leak: Array,
) -> None:  # fmt: skip
    for number in range(len(places)):
        row = places[number]
        _mix(out[number], z, old[row], place[row])
        for found in range(first[row], last[row]):
            out[number, unit[found]] = limits[boundary[found]]
        apply(out[number], scale, shift, low, high, leaky, leak)


@compiled
def _turns(z: Array, piece: Array, unit: Array, boundary: Array, jumps: Array) -> Array:
    """Return how much steeper, per piece, an activation gets where its unit crosses, in either direction; `[n]`."""
    change = np.empty(len(piece))
    for found in range(len(piece)):
        row, at = piece[found], unit[found]
        change[found] = jumps[boundary[found], at] * abs(z[row + 1, at] - z[row, at])
    return change


@compiled
def _anchors(
    start: int, stop: int, place: Array, first: Array, last: Array, change: Array, pair: Array, fastest: Array
) -> Array:  # fmt: skip
    """Return the rows from start to before stop that take products: the first, the last, all old ones, some of the new."""
    places, count, run = np.empty(stop - start, np.int64), 0, 0
    for row in range(start, stop):
        slow = place[row] > 0.0 and start < row < stop - 1 and run < BETWEEN
        for found in range(first[row], last[row]):
            slow &= abs(change[found]) <= fastest[pair[row]]
        if slow:
            run += 1
        else:
            places[count], run = row, 0
            count += 1
    return places[:count]


@compiled
def _between(
    weight: Array, places: Array, known: Array, out: Array, start: int, place: Array, first: Array, last: Array, unit: Array,
    change: Array,
) -> None:  # fmt: skip
    """
    Fill `out`, whose first row is `start`, from the first of the `places`, whose rows are `known`, to the last.

    From one place to the next the stage below is a straight line but for units that cross: the sum of what each adds from where
    it crosses to the end, and of one line from the beginning, is the difference of both ends. So that line is known, too.
    """
    W = out.shape[1]
    value, slope = np.empty(W), np.empty(W)
    for number in range(len(places)):
        row = places[number]
        for at in range(W):
            out[row - start, at] = known[number, at]
        if number + 1 == len(places) or places[number + 1] == row + 1:
            continue
        next_ = places[number + 1]
        begin, end = place[row], place[next_]
        if end == 0.0:
            end = 1.0
        for at in range(W):
            value[at] = known[number, at]
            slope[at] = known[number + 1, at] - known[number, at]
        for other in range(row + 1, next_):
            for found in range(first[other], last[other]):
                turn, by = change[found] * (end - place[other]), unit[found]
                for at in range(W):
                    slope[at] -= turn * weight[by, at]
        length, behind = end - begin, begin
        for other in range(row + 1, next_):
            step = (place[other] - behind) / length
            behind = place[other]
            for at in range(W):
                value[at] += step * slope[at]
                out[other - start, at] = value[at]
            for found in range(first[other], last[other]):
                turn, by = change[found] * length, unit[found]
                for at in range(W):
                    slope[at] += turn * weight[by, at]
