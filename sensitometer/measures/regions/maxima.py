r"""
Changes of the winner among several pre-activations: max-pooling, and the maximum over a dimension.

From the winner behind the beginning of a piece of a path, go to the first place where another candidate overtakes it, and on from
there. The code of a unit at a point is the number of its winner. Of candidates that are equal, up to the rounding error, the
first wins. So several zeros after a ReLU have one winner.
"""

import math
from typing import Any

import numpy as np

from ..compiling import compiled
from .graph import Maximum
from .rows import Changes, Rows, piece_begins, put_in_order, tangent

Array = Any

# Overtakings on an arc farther apart, in the path's parameter, never coincide.
APART = 1e-9
# Changes of winners whose places differ by no more than twice this coincide.
SAME = 2.0**-46


@compiled
def winner_changes(z: Array, rows: Rows, maximum: Maximum, errors: Array, step: int) -> Changes:
    """Return each change of a winner, in the order of the path."""
    codes, sign = _winners(z, rows, maximum, errors), maximum.sign
    changed_row, changed_unit = [np.int64(0) for _ in range(0)], [np.int64(0) for _ in range(0)]
    places = [0.0 for _ in range(0)]
    for row in piece_begins(rows.pair, step):
        error, tau = errors[rows.pair[row]], (tangent(rows.t, row) if step == 2 else 0.0)
        for unit in range(len(maximum.candidates)):
            # A candidate that is the largest at both ends of a segment is so between, too.
            if step == 1 and codes[row, unit] == codes[row + 1, unit]:
                continue
            candidates, place, start = maximum.candidates[unit], -1.0, len(places)
            winner = _winner_behind(z, row, step, candidates, sign, error)
            if winner != codes[row, unit]:
                places.append(place)
            for _ in range(4 * len(candidates)):
                following, place = _overtaker(z, row, step, candidates, sign, winner, place, error, tau)
                if following < 0:
                    break
                places.append(place)
                winner = following
            if winner != codes[row + step, unit]:
                places.append(1.0)
            for _ in range(start, len(places)):
                changed_row.append(np.int64(row))
                changed_unit.append(np.int64(unit))
    n, place_on_piece = len(places), np.array(places)
    if step == 1:
        place_on_piece = (1 + place_on_piece) / 2
    changes = Changes(np.array(changed_row), np.array(changed_unit), np.zeros(n, np.int64), place_on_piece, np.empty(n))
    put_in_order(changes, np.full(n, SAME), rows.t, step)
    return changes


@compiled
def _winners(z: Array, rows: Rows, maximum: Maximum, errors: Array) -> Array:
    """Return each unit's winner at each row, as its place among the candidates; int64 `[R, units]`."""
    candidates, sign = maximum.candidates, maximum.sign
    codes = np.empty((len(z), len(candidates)), np.int64)
    for row in range(len(z)):
        error = errors[rows.pair[row]]
        for unit in range(len(candidates)):
            largest = -np.inf
            for k in range(candidates.shape[1]):
                if candidates[unit, k] >= 0:
                    largest = max(largest, sign * z[row, candidates[unit, k]])
            for k in range(candidates.shape[1]):
                if candidates[unit, k] >= 0 and sign * z[row, candidates[unit, k]] >= largest - error:
                    codes[row, unit] = k
                    break
    return codes


@compiled
def _winner_behind(z: Array, first: int, step: int, candidates: Array, sign: float, error: float) -> int:
    """Return the winner behind the first row of a piece: the largest there, of those the largest at the next row, and so on."""
    remaining = candidates >= 0
    for row in range(first, first + step + 1):
        largest = -np.inf
        for k in range(len(candidates)):
            if remaining[k]:
                largest = max(largest, sign * z[row, candidates[k]])
        for k in range(len(candidates)):
            remaining[k] &= sign * z[row, candidates[k]] >= largest - error
    return int(np.argmax(remaining))


@compiled
def _overtaker(
    z: Array, row: int, step: int, candidates: Array, sign: float, winner: int, behind: float, error: float, tau: float
) -> tuple[int, float]:
    """Return the candidate that overtakes the winner next, -1 for none, and where."""
    places, doubts = np.full(len(candidates), np.inf), np.zeros(len(candidates))
    for k in range(len(candidates)):
        if candidates[k] >= 0 and k != winner:
            f0, c, f1 = _difference(z, row, step, candidates[k], candidates[winner], sign, tau)
            if max(abs(f0), abs(c), abs(f1)) > error:
                places[k] = _rise(f0, c, f1, behind, error)
                doubts[k] = error / abs((f0 + f1 - 2 * c) * places[k] + (f1 - f0) / 2)
                if step == 2:
                    doubts[k] = min(doubts[k], APART / tau) + APART
    soonest, following = np.argmin(places), -1
    for k in range(len(candidates)):
        if places[k] == np.inf or places[k] - places[soonest] > doubts[k] + doubts[soonest]:
            continue
        # Several may overtake together: the one that rises most wins, and the first of equal ones.
        if following >= 0:
            f0, c, f1 = _difference(z, row, step, candidates[k], candidates[following], sign, tau)
            if max(abs(f0), abs(c), abs(f1)) <= error or (f0 + f1 - 2 * c) * places[k] + (f1 - f0) / 2 <= 0:
                continue
        following = k
    return following, places[soonest]


@compiled
def _difference(z: Array, row: int, step: int, upper: int, lower: int, sign: float, tau: float) -> tuple[float, float, float]:
    """Return how far one pre-activation is above another on a piece, as the quadratic through three values at -1, 0 and 1."""
    wide = 1 + tau * tau
    f0, f1 = sign * (z[row, upper] - z[row, lower]) * wide, sign * (z[row + step, upper] - z[row + step, lower]) * wide
    return f0, (f0 + f1) / 2 if step == 1 else sign * (z[row + 1, upper] - z[row + 1, lower]), f1


@compiled
def _rise(f0: float, c: float, f1: float, behind: float, error: float) -> float:
    """
    Return the first place behind another where the quadratic through f0, c and f1 rises above 0; infinite if there is none.

    It must rise above the error before the arc ends: two candidates that are equal at its end do not change places there.
    """
    largest = max(abs(f0), abs(c), abs(f1))
    f0, c, f1, error = f0 / largest, c / largest, f1 / largest, error / largest
    a, h = (f0 + f1) / 2 - c, (f1 - f0) / 2
    square = h * h - 4 * a * c
    if square <= 0:
        return np.inf
    q = -(h + math.copysign(math.sqrt(square), h)) / 2
    first = np.inf
    for root in (q / a if a != 0 else np.inf, c / q if q != 0 else np.inf):
        if behind < root <= 1.0 and 2 * a * root + h > 0:
            top = -h / (2 * a) if a < 0 else 1.0
            highest = (a * top + h) * top + c if top < 1.0 else f1
            if highest > error:
                first = min(first, root)
    return first
