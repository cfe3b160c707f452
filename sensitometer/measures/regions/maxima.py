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
def _overtakings(
    begin: Array, end: Array, candidates: Array, sign: float, before: int, after: int, error: float, places: Array
) -> int:
    """
    Write to `places` where the winner changes between two rows whose own winners are `before` and `after`; return how many.

    `begin` and `end` are the pre-activations at the rows, `candidates` `[K]` those of one unit.
    """
    K = len(candidates)
    # The winner behind the first row: of those that are the largest there, the one that rises most.
    largest, highest = -np.inf, -np.inf
    for k in range(K):
        if candidates[k] >= 0:
            largest = max(largest, sign * begin[candidates[k]])
    for k in range(K):
        if candidates[k] >= 0 and sign * begin[candidates[k]] >= largest - error:
            highest = max(highest, sign * end[candidates[k]])
    winner = before
    for k in range(K):
        there = candidates[k]
        if there >= 0 and sign * begin[there] >= largest - error and sign * end[there] >= highest - error:
            winner = k
            break
    count = 0
    if winner != before:
        places[count] = 0.0
        count += 1
    behind = 0.0
    for _ in range(K):
        a, b = sign * begin[candidates[winner]], sign * end[candidates[winner]]
        soonest, doubt = np.inf, 0.0
        for k in range(K):
            there = candidates[k]
            if there < 0 or sign * end[there] <= b + error:
                continue
            gap = a - sign * begin[there]
            share = max(gap / (gap + sign * end[there] - b), behind)
            if share < soonest:
                soonest, doubt = share, error / (gap + sign * end[there] - b)
        # Of those that overtake together, the one that ends highest; of equal ones the first.
        highest = -np.inf
        for k in range(K):
            there = candidates[k]
            if there < 0 or sign * end[there] <= b + error:
                continue
            gap = a - sign * begin[there]
            share = max(gap / (gap + sign * end[there] - b), behind)
            if share - soonest <= doubt + error / (gap + sign * end[there] - b):
                highest = max(highest, sign * end[there])
        place, next_ = np.inf, -1
        for k in range(K):
            there = candidates[k]
            if there < 0 or sign * end[there] <= b + error or sign * end[there] < highest - error:
                continue
            gap = a - sign * begin[there]
            share = max(gap / (gap + sign * end[there] - b), behind)
            if next_ < 0 and share - soonest <= doubt + error / (gap + sign * end[there] - b):
                place, next_ = share, k
        if next_ < 0:
            break
        places[count] = min(place, 1.0)
        count += 1
        winner, behind = next_, place
    if winner != after:
        places[count] = 1.0
        count += 1
    return count


@compiled
def count_winners(z: Array, pair: Array, candidates: Array, sign: float, errors: Array) -> Array:
    """Return how many changes of the winner there are between each row and the next of its pair, int64 `[R - 1]`."""
    codes = winners(z, pair, candidates, sign, errors)
    counts, places = np.zeros(max(len(z) - 1, 0), np.int64), np.empty(candidates.shape[1] + 2)
    for row in range(len(counts)):
        if pair[row] != pair[row + 1]:
            continue
        error = errors[pair[row]]
        for unit in range(len(candidates)):
            before, after = codes[row, unit], codes[row + 1, unit]
            # What is the largest at both ends is so between, too.
            if before != after:
                counts[row] += _overtakings(z[row], z[row + 1], candidates[unit], sign, before, after, error, places)
    return counts


@compiled
def find_winners(z: Array, pair: Array, t: Array, candidates: Array, sign: float, errors: Array) -> Any:
    """Return piece, unit, boundary (0), place and parameter of these changes, in the order of the path."""
    codes = winners(z, pair, candidates, sign, errors)
    places = np.empty(candidates.shape[1] + 2)
    piece, unit_, where = [np.int64(0) for _ in range(0)], [np.int64(0) for _ in range(0)], [0.0 for _ in range(0)]
    for row in range(len(z) - 1):
        if pair[row] != pair[row + 1]:
            continue
        error, start = errors[pair[row]], len(where)
        for unit in range(len(candidates)):
            before, after = codes[row, unit], codes[row + 1, unit]
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
