r"""
Rows of points on paths, and the loops over them that are compiled for the processor.

A piece of a path is `step + 1` rows that follow one another: a segment has its two ends, an arc of an ellipse its ends and its
middle. A *place* says where on a piece a point is. It runs from 0 to 1 on a segment, and from -1 to 1 on an arc, where it is the
v of `arcs.py`.
"""

import math
from typing import Any, NamedTuple

import numpy as np

from ..compiling import compiled
from .graph import Elementwise

Array = Any

# The number of changes of a piece from which on they are sorted by merging.
MANY = 64


class Rows(NamedTuple):
    """Points of paths. Rows of one pair, a network along a path, follow one another in the order of the path."""

    pair: Array  # int64 [R], not decreasing: the network's number times the number of paths, plus the path's
    t: Array  # float64 [R], the path's parameter

    def part(self, here: slice) -> "Rows":
        """Return some of the rows."""
        return Rows(self.pair[here], self.t[here])


class Changes(NamedTuple):
    """Changes of pieces by units, in the order of the path."""

    row: Array  # int64 [n], the first row of the path's piece on which the change is
    unit: Array  # int64 [n]
    boundary: Array  # int64 [n], which of the unit's boundaries it crosses; 0 for a maximum
    place: Array  # float64 [n], where on the path's piece; equal for all that coincide
    t: Array  # float64 [n], the path's parameter


class Breakpoints(NamedTuple):
    """Rows with a new breakpoint wherever a unit changes inside a piece, R' in all."""

    changes: Changes
    rows: Rows
    old: Array  # int64 [R'], the first row of the old piece that each row is on
    place: Array  # float64 [R'], the place on the old piece
    # int64 [R']: from which to before which of the changes are at each new breakpoint. None are at old rows: units are on their
    # boundaries there already.
    first: Array
    last: Array
    old_t: Array  # float64 [R], the parameters of the old rows

    def part(self, here: slice) -> "Breakpoints":
        """Return some of the rows."""
        old, place, first, last = (column[here] for column in (self.old, self.place, self.first, self.last))
        return Breakpoints(self.changes, self.rows.part(here), old, place, first, last, self.old_t)


@compiled
def piece_begins(pair: Array, step: int) -> Array:
    """Return the first rows of pieces, int64 `[pieces]`."""
    begins, count, row = np.empty(len(pair), np.int64), 0, 0
    while row + step < len(pair):
        if pair[row + step] == pair[row]:
            begins[count] = row
            count += 1
            row += step
        else:
            row += 1
    return begins[:count]


@compiled
def settle(z: Array, rows: Rows, boundaries: Array, errors: Array) -> None:
    """Put pre-activations within the errors of a boundary on it."""
    W = z.shape[1]
    for row in range(len(z)):
        error = errors[rows.pair[row]]
        for boundary in boundaries:
            near = 0
            for unit in range(W):
                near += abs(z[row, unit] - boundary) <= error
            if near:
                for unit in range(W):
                    if abs(z[row, unit] - boundary) <= error:
                        z[row, unit] = boundary


@compiled
def tangent(t: Array, row: int) -> Any:
    """Return the tau of the arc that begins with a row."""
    return math.tan((t[row + 2] - t[row]) / 4)


@compiled
def _parameter(t: Array, row: int, place: float, step: int) -> Any:
    """Return the path's parameter at a place, exact at both ends."""
    if step == 2:
        return t[row + 1 + int(place)] if abs(place) == 1.0 else t[row + 1] + 2 * math.atan(place * tangent(t, row))
    length = t[row + 1] - t[row]
    return t[row] + place * length if place < 0.5 else t[row + 1] - length * (1.0 - place)


@compiled
def put_in_order(changes: Changes, doubt: Array, t: Array, step: int) -> None:
    """Sort the changes of each piece, put those that coincide up to their doubts in one place, and set their parameters."""
    start = 0
    while start < len(changes.row):
        row, stop = changes.row[start], start
        while stop < len(changes.row) and changes.row[stop] == row:
            stop += 1
        here = slice(start, stop)
        _sort(changes.place[here], changes.unit[here], changes.boundary[here], doubt[here])
        _join(changes.place[here], doubt[here])
        for at in range(start, stop):
            changes.t[at] = _parameter(t, row, changes.place[at], step)
        start = stop


@compiled
def _sort(place: Array, unit: Array, boundary: Array, doubt: Array) -> None:
    """Sort changes by place; equal ones keep their order."""
    if len(place) >= MANY:
        order = np.argsort(place, kind="mergesort")
        place[:], unit[:], boundary[:], doubt[:] = place[order], unit[order], boundary[order], doubt[order]
        return
    for at in range(1, len(place)):
        last = place[at], unit[at], boundary[at], doubt[at]
        while at > 0 and place[at - 1] > last[0]:
            place[at], unit[at], boundary[at], doubt[at] = place[at - 1], unit[at - 1], boundary[at - 1], doubt[at - 1]
            at -= 1
        place[at], unit[at], boundary[at], doubt[at] = last


@compiled
def _join(place: Array, doubt: Array) -> None:
    """Put sorted changes that coincide up to their doubts in one place, that of the surest."""
    start = 0
    for stop in range(1, len(place) + 1):
        if stop < len(place) and place[stop] - place[stop - 1] <= doubt[stop] + doubt[stop - 1]:
            continue
        if stop - start > 1:
            place[start:stop] = place[start + np.argmin(doubt[start:stop])]
        start = stop


@compiled
def insert(rows: Rows, changes: Changes, step: int) -> Breakpoints:
    """Divide pieces where units change inside them. An arc gets a middle; the end of a piece begins the next of its pair."""
    begins = piece_begins(rows.pair, step)
    most = (step + 1) * (len(begins) + len(changes.row))
    old, place = np.empty(most, np.int64), np.empty(most)
    first, last = np.zeros(most, np.int64), np.zeros(most, np.int64)
    left, count, change = 1.0 - step, 0, 0
    for number in range(len(begins)):
        row = begins[number]
        behind, start, stop = left, 0, 0
        while behind < 1.0:
            old[count], place[count], first[count], last[count] = row, behind, start, stop
            ahead, start, stop = 1.0, 0, 0
            while ahead == 1.0 and change < len(changes.row) and changes.row[change] == row:
                same = change + 1
                while same < len(changes.row) and changes.row[same] == row and changes.place[same] == changes.place[change]:
                    same += 1
                if left < changes.place[change] < 1.0:
                    ahead, start, stop = changes.place[change], change, same
                change = same
            if step == 2:
                old[count + 1], place[count + 1] = row, _middle(behind, ahead, tangent(rows.t, row))
            count += step
            behind = ahead
        if number + 1 == len(begins) or begins[number + 1] != row + step:
            old[count], place[count] = row, 1.0
            count += 1
    pair, t = np.empty(count, np.int64), np.empty(count)
    for number in range(count):
        pair[number] = rows.pair[old[number]]
        t[number] = _parameter(rows.t, old[number], place[number], step)
    return Breakpoints(changes, Rows(pair, t), old[:count], place[:count], first[:count], last[:count], rows.t)


@compiled
def _middle(behind: float, ahead: float, tau: float) -> float:
    """Return the place in the middle between two places of an arc."""
    if behind == -1.0 and ahead == 1.0:
        return 0.0
    middle = math.tan((math.atan(behind * tau) + math.atan(ahead * tau)) / 2) / tau
    return min(max(middle, behind), ahead)


@compiled
def _mix(out: Array, values: Array, t: Array, row: int, place: float, step: int) -> None:
    """Write to `out` `[W]` the values at a place of the piece that begins with a row; exact at the piece's rows."""
    first, second = values[row], values[row + 1]
    if step == 1:
        rest = 1.0 - place
        if place < 0.5:
            for unit in range(len(out)):
                out[unit] = first[unit] + place * (second[unit] - first[unit])
        else:
            for unit in range(len(out)):
                out[unit] = second[unit] - (second[unit] - first[unit]) * rest
    elif abs(place) == 1.0 or place == 0.0:
        out[:] = values[row + 1 + int(place)]
    else:
        # The quadratic through the values times 1 + tau^2 v^2, divided by that.
        third, square = values[row + 2], tangent(t, row) ** 2
        below = 1 + square * place * place
        edge = (1 + square) / below
        a, b, c = edge * place * (place - 1) / 2, (1 - place * place) / below, edge * place * (place + 1) / 2
        for unit in range(len(out)):
            out[unit] = a * first[unit] + b * second[unit] + c * third[unit]


@compiled
def mixed(values: Array, breakpoints: Breakpoints, step: int) -> Array:
    """Return the values at all rows, `[R', n]`, from `values` `[R, n]` at the old ones."""
    out = np.empty((len(breakpoints.old), values.shape[1]))
    for row in range(len(out)):
        _mix(out[row], values, breakpoints.old_t, breakpoints.old[row], breakpoints.place[row], step)
    return out


@compiled
def activate(numbers: Array, z: Array, breakpoints: Breakpoints, pieces: Elementwise, out: Array, step: int) -> None:
    """Write the activations at the rows of these numbers to `out`."""
    changes = breakpoints.changes
    for place in range(len(numbers)):
        row = numbers[place]
        _mix(out[place], z, breakpoints.old_t, breakpoints.old[row], breakpoints.place[row], step)
        for change in range(breakpoints.first[row], breakpoints.last[row]):
            out[place, changes.unit[change]] = pieces.boundaries[changes.boundary[change]]
        _apply(out[place], pieces.scale, pieces.shift, pieces.low, pieces.high, pieces.leak)


@compiled
def _apply(row: Array, scale: float, shift: float, low: float, high: float, leak: Array) -> None:
    """Turn the pre-activations of a row into activations."""
    if len(leak) > 1 or leak[0] != 0.0:
        for unit in range(len(row)):
            value = row[unit]
            row[unit] = min(max(scale * value + shift, low), high) + (leak[unit] if len(leak) > 1 else leak[0]) * min(value, 0.0)
    else:
        for unit in range(len(row)):
            row[unit] = min(max(scale * row[unit] + shift, low), high)
