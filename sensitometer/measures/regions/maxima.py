r"""
Changes of the winner among several pre-activations: max-pooling, and the maximum over a dimension.

On a piece of a path each candidate is a straight line, so the largest is their upper envelope: from the winner at the beginning,
go to the first place where another candidate overtakes it, and on from there. The code of a unit at a point is the number of its
winner; of candidates that are equal, up to the rounding error, the first wins. So several zeros after a ReLU have one winner.
"""

from typing import Any

import numpy as np

from ..compiling import compiled

Array = Any

# Crossings farther apart, in the path's parameter, never coincide.
APART = 1e-9


@compiled
def winners(z: Array, pair: Array, candidates: Array, sign: float, errors: Array) -> Array:
    """Return the place among its candidates of each unit's winner at each row; int64 `[R, units]`."""
    found = np.empty((len(z), len(candidates)), np.int64)
    for row in range(len(z)):
        error = errors[pair[row]]
        for unit in range(len(candidates)):
            best = -np.inf
            for k in range(candidates.shape[1]):
                if candidates[unit, k] >= 0:
                    best = max(best, sign * z[row, candidates[unit, k]])
            for k in range(candidates.shape[1]):
                if candidates[unit, k] >= 0 and sign * z[row, candidates[unit, k]] >= best - error:
                    found[row, unit] = k
                    break
    return found


@compiled
def _behind(begin: Array, end: Array, candidates: Array, sign: float, before: int, error: float) -> int:
    """Return the winner behind the first of two rows: of those that are the largest there, the one that rises most."""
    largest, highest = -np.inf, -np.inf
    for there in candidates:
        if there >= 0:
            largest = max(largest, sign * begin[there])
    for there in candidates:
        if there >= 0 and sign * begin[there] >= largest - error:
            highest = max(highest, sign * end[there])
    for k in range(len(candidates)):
        there = candidates[k]
        if there >= 0 and sign * begin[there] >= largest - error and sign * end[there] >= highest - error:
            return k
    return before


@compiled
def _overtaker(
    begin: Array, end: Array, candidates: Array, sign: float, winner: int, behind: float, error: float
) -> Any:  # fmt: skip
    """Return the candidate that overtakes the winner next, -1 for none, and where."""
    a, b = sign * begin[candidates[winner]], sign * end[candidates[winner]]
    shares, doubts = np.full(len(candidates), np.inf), np.zeros(len(candidates))
    soonest = 0
    for k in range(len(candidates)):
        there = candidates[k]
        if there >= 0 and sign * end[there] > b + error:
            gap = a - sign * begin[there]
            approach = gap + sign * end[there] - b
            shares[k], doubts[k] = max(gap / approach, behind), error / approach
            if shares[k] < shares[soonest]:
                soonest = k
    if shares[soonest] == np.inf:
        return -1, np.inf
    # Several may overtake together: the one that ends highest wins, and the first of equal ones.
    together = shares - shares[soonest] <= doubts + doubts[soonest]
    highest = -np.inf
    for k in range(len(candidates)):
        if together[k]:
            highest = max(highest, sign * end[candidates[k]])
    for k in range(len(candidates)):
        if together[k] and sign * end[candidates[k]] >= highest - error:
            return k, shares[k]
    return -1, np.inf


@compiled
def _overtakings(
    begin: Array, end: Array, candidates: Array, sign: float, before: int, after: int, error: float, places: Array
) -> int:
    """
    Write to `places` where the winner changes between two rows whose own winners are `before` and `after`; return how many.

    `begin` and `end` are the pre-activations at the rows, `candidates` `[K]` those of one unit.
    """
    winner, count, place = _behind(begin, end, candidates, sign, before, error), 0, 0.0
    if winner != before:
        places[count] = 0.0
        count += 1
    for _ in range(len(candidates)):
        next_, place = _overtaker(begin, end, candidates, sign, winner, place, error)
        if next_ < 0:
            break
        places[count] = min(place, 1.0)
        count += 1
        winner = next_
    if winner != after:
        places[count] = 1.0
        count += 1
    return count


@compiled
def find_winners(z: Array, pair: Array, t: Array, candidates: Array, sign: float, errors: Array) -> Any:
    """Return piece, unit, boundary (0), place and parameter of each change of a winner, in the order of the path."""
    codes = winners(z, pair, candidates, sign, errors)
    places = np.empty(candidates.shape[1] + 2)
    piece, unit_, where = [np.int64(0) for _ in range(0)], [np.int64(0) for _ in range(0)], [0.0 for _ in range(0)]
    for row in range(len(z) - 1):
        if pair[row] != pair[row + 1]:
            continue
        error, start = errors[pair[row]], len(where)
        for unit in range(len(candidates)):
            before, after = codes[row, unit], codes[row + 1, unit]
            # A candidate that is the largest at both ends is so between, too.
            if before != after:
                count = _overtakings(z[row], z[row + 1], candidates[unit], sign, before, after, error, places)
                for number in range(count):
                    piece.append(np.int64(row))
                    unit_.append(np.int64(unit))
                    where.append(places[number])
        order = np.argsort(np.array(where[start:]), kind="mergesort")
        units, shares = unit_[start:], where[start:]
        for at in range(len(order)):
            unit_[start + at], where[start + at] = units[order[at]], shares[order[at]]
    place = np.array(where)
    pieces = np.array(piece)
    ts = np.empty(len(place))
    for found in range(len(place)):
        row, share = pieces[found], place[found]
        if found and pieces[found - 1] == row and share - place[found - 1] <= min(APART / (t[row + 1] - t[row]), 2.0**-46):
            place[found] = share = place[found - 1]
        ts[found] = t[row] + share * (t[row + 1] - t[row]) if share < 1.0 else t[row + 1]
    return pieces, np.array(unit_), np.zeros(len(place), np.int64), place, ts
