r"""
Arcs of ellipses: what `walk.py` asks of their geometry, in loops that are compiled for the processor.

On an arc on which no unit below changes its piece, a pre-activation is $\gamma + \alpha \cos t + \beta \sin t$. With
$v = \tan(s/2) / \tau$, where $s$ is the angle from the middle of an arc of half-width $\delta$ and $\tau = \tan(\delta/2)$, the
arc is $-1 \le v \le 1$, and the pre-activation times $1 + \tau^2 v^2$ is the quadratic through its values at the ends and in the
middle. A unit therefore crosses a boundary at the roots of a quadratic whose coefficients do not cancel, however short the arc.

A piece is an arc of three rows, its ends and its middle; a `place` on it is v.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ...paths import Ellipse
from ..compiling import compiled
from .graph import Elementwise, Linear, Pieces
from .maxima import winners
from .segments import apply, form, join, settle, sort
from .walk import Found, Insertion, Rows

Array = Any

# The arcs that an ellipse begins with.
ARCS = 4
# Crossings farther apart, in the path's parameter, never coincide, however slow their units are.
APART = 1e-9


@dataclass(frozen=True, eq=False)
class _Insertion(Insertion):
    """`tau`, float64 `[R']`, is that of the old arc that each row is on."""

    tau: Array


class Arcs:
    """
    Ellipses.

    Parameters
    ----------
    paths
        The ellipses, of points that the model takes.
    """

    step = 2

    def __init__(self, paths: Sequence[Ellipse]) -> None:
        self.paths = paths
        self.lengths = [2 * ARCS + 1] * len(paths)

    def vertices(self, paths: slice) -> tuple[Tensor, Rows]:
        """See `Geometry`: the ends and middles of the first arcs."""
        t = torch.linspace(0, 2 * math.pi, 2 * ARCS + 1, dtype=torch.float64)
        points = []
        for path in self.paths[paths]:
            own = path.combine(path.basis.detach().cpu().double(), t)
            own[-1] = own[0]
            points.append(own)
        return torch.cat(points), Rows(np.repeat(np.arange(len(points)), len(t)), np.tile(t.numpy(), len(points)))

    def begins(self, pair: Array) -> Array:
        """See `Geometry`."""
        return _begins(pair)

    def count(self, z: Array, rows: Rows, pieces: Pieces, errors: Array) -> Array:
        """See `Geometry`."""
        return np.bincount(self.find(z, rows, pieces, errors).piece, minlength=len(z))[self.begins(rows.pair)]

    def find(self, z: Array, rows: Rows, pieces: Pieces, errors: Array) -> Found:
        """See `Geometry`."""
        begins = self.begins(rows.pair)
        if isinstance(pieces, Elementwise):
            limits = np.array(pieces.boundaries)
            settle(z, rows.pair, limits, errors)
            return Found(*_crossings(z, begins, rows.pair, rows.t, limits, errors))
        codes = winners(z, rows.pair, pieces.candidates, pieces.sign, errors)
        return Found(*_winners(z, begins, codes, rows.pair, rows.t, pieces.candidates, pieces.sign, errors))

    def insert(self, rows: Rows, found: Found) -> Insertion:
        """See `Geometry`."""
        pair, t, *columns = _merge(self.begins(rows.pair), rows.pair, rows.t, found.piece, found.place)
        return _Insertion(found, Rows(pair, t), self.begins(pair), *columns)

    def mixed(self, values: Array, insertion: Insertion, here: slice) -> Array:
        """See `Geometry`."""
        assert isinstance(insertion, _Insertion)
        return _mixed(values, insertion.old[here], insertion.place[here], insertion.tau[here])

    def activations(self, z: Array, pieces: Elementwise, insertion: Insertion, here: slice) -> Array:
        """See `Geometry`."""
        out = self.mixed(z, insertion, here)
        found = insertion.found
        _activate(out, insertion.first[here], insertion.last[here], found.unit, found.boundary, *form(pieces))
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
        """See `Geometry`. All rows are products."""
        h = torch.from_numpy(self.activations(z, pieces, insertion, here))
        return linear.rows(h, networks, edges)


@compiled
def _begins(pair: Array) -> Array:
    begins, count, row = np.empty(len(pair) // 2, np.int64), 0, 0
    while row + 2 < len(pair):
        if pair[row + 2] == pair[row]:
            begins[count] = row
            count += 1
            row += 2
        else:
            row += 1
    return begins[:count]


@compiled
def _quadratic(f0: float, c: float, f1: float, error: float) -> Any:
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
    one, other = (2.0 if a == 0 else q / a), (0.0 if q == 0 else c / q)
    if q == 0 and a == 0:
        one = 0.0
    near, far = (one, other) if abs(one) < abs(other) else (other, one)
    near, far = min(max(near, -1.0), 1.0), min(max(far, -1.0), 1.0)
    # A root at an end is there exactly: units that are 0 together must be 0 in the same place.
    ends = f0 == 0 or f1 == 0
    end = 1.0 if f1 == 0 else -1.0
    if odd:
        # Unless the other root is between the ends: from an end on a boundary the unit may turn below first, and cross there.
        return 1, (near if not ends or abs(c) < abs(a) else end), 0.0
    return 2, near, (end if ends else far)


@compiled
def _crossings(z: Array, begins: Array, pair: Array, t: Array, limits: Array, errors: Array) -> Any:
    piece, unit, boundary = [np.int64(0) for _ in range(0)], [np.int64(0) for _ in range(0)], [np.int64(0) for _ in range(0)]
    place, doubt = [0.0 for _ in range(0)], [0.0 for _ in range(0)]
    roots = np.empty(2)
    for row in begins:
        tau = math.tan((t[row + 2] - t[row]) / 4)
        wide, error, apart = 1 + tau * tau, errors[pair[row]], APART / (2 * tau)
        for number in range(len(limits)):
            limit = limits[number]
            for at in range(z.shape[1]):
                f0, c, f1 = (z[row, at] - limit) * wide, z[row + 1, at] - limit, (z[row + 2, at] - limit) * wide
                # Most arcs are whole on one side, by the sign of a sum of three terms with positive weights.
                count, roots[0], roots[1] = _quadratic(f0, c, f1, error)
                for which in range(count):
                    slope = abs(((f0 + f1) - 2 * c) * roots[which] + (f1 - f0) / 2)
                    piece.append(row)
                    unit.append(np.int64(at))
                    boundary.append(np.int64(number))
                    place.append(roots[which])
                    doubt.append(min(error / slope, apart))
    pieces, units, boundaries = np.array(piece), np.array(unit), np.array(boundary)
    places, doubts = np.array(place), np.array(doubt)
    return _ordered(pieces, units, boundaries, places, doubts, t)


@compiled
def _ordered(piece: Array, unit: Array, boundary: Array, place: Array, doubt: Array, t: Array) -> Any:
    """Put changes into the order of the path, those that coincide in one place; return them with their parameters."""
    where, start = np.empty(len(piece)), 0
    while start < len(piece):
        row, stop = piece[start], start
        while stop < len(piece) and piece[stop] == row:
            stop += 1
        sort(place[start:stop], unit[start:stop], boundary[start:stop], doubt[start:stop])
        join(place[start:stop], doubt[start:stop])
        tau = math.tan((t[row + 2] - t[row]) / 4)
        for found in range(start, stop):
            where[found] = _angle(t, row, place[found], tau)
        start = stop
    return piece, unit, boundary, place, where


@compiled
def _angle(t: Array, row: int, v: float, tau: float) -> Any:
    if v == -1.0:
        return t[row]
    if v == 1.0:
        return t[row + 2]
    return t[row + 1] + 2 * math.atan(v * tau)


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


@compiled
def _apart(z: Array, row: int, one: int, other: int, sign: float, wide: float) -> Any:
    """Return how far one pre-activation is above another, as the quadratic through three values."""
    f0, f1 = sign * (z[row, one] - z[row, other]), sign * (z[row + 2, one] - z[row + 2, other])
    return f0 * wide, sign * (z[row + 1, one] - z[row + 1, other]), f1 * wide


@compiled
def _behind(z: Array, row: int, who: Array, code: int, sign: float, error: float) -> int:
    """Return the winner behind the first row of an arc: of those that are the largest there, the highest in the middle."""
    winner = code
    for k in range(len(who)):
        if who[k] < 0 or sign * (z[row, who[k]] - z[row, who[code]]) < -error:
            continue
        gap = sign * (z[row + 1, who[k]] - z[row + 1, who[winner]])
        if gap > error or (abs(gap) <= error and sign * (z[row + 2, who[k]] - z[row + 2, who[winner]]) > error):
            winner = k
    return winner


@compiled
def _overtaker(z: Array, row: int, who: Array, winner: int, behind: float, sign: float, tau: float, error: float) -> Any:
    """Return the candidate that overtakes the winner next, -1 for none, and where."""
    wide = 1 + tau * tau
    places, slopes = np.full(len(who), np.inf), np.ones(len(who))
    for k in range(len(who)):
        if who[k] >= 0 and k != winner:
            f0, c, f1 = _apart(z, row, who[k], who[winner], sign, wide)
            if max(abs(f0), abs(c), abs(f1)) > error:
                v = _rise(f0, c, f1, behind, error)
                places[k], slopes[k] = v, abs((f0 + f1 - 2 * c) * v + (f1 - f0) / 2)
    first, next_ = places.min(), -1
    if first == np.inf:
        return -1, first
    for k in range(len(who)):
        if places[k] == np.inf or places[k] - first > min(error / slopes[k], APART / tau) + APART:
            continue
        # Several may overtake together: the one that rises most wins, and the first of equal ones.
        if next_ >= 0:
            f0, c, f1 = _apart(z, row, who[k], who[next_], sign, wide)
            if max(abs(f0), abs(c), abs(f1)) <= error or (f0 + f1 - 2 * c) * places[k] + (f1 - f0) / 2 <= 0:
                continue
        next_ = k
    return next_, first


@compiled
def _winners(
    z: Array, begins: Array, codes: Array, pair: Array, t: Array, candidates: Array, sign: float, errors: Array
) -> Any:  # fmt: skip
    piece, unit_, place = [np.int64(0) for _ in range(0)], [np.int64(0) for _ in range(0)], [0.0 for _ in range(0)]
    for row in begins:
        tau, error = math.tan((t[row + 2] - t[row]) / 4), errors[pair[row]]
        for unit in range(len(candidates)):
            who, code = candidates[unit], codes[row, unit]
            winner, behind, start = _behind(z, row, who, code, sign, error), -1.0, len(place)
            if winner != code:
                place.append(-1.0)
            for _ in range(4 * len(who)):
                next_, behind = _overtaker(z, row, who, winner, behind, sign, tau, error)
                if next_ < 0:
                    break
                place.append(behind)
                winner = next_
            if winner != codes[row + 2, unit]:
                place.append(1.0)
            for _ in range(start, len(place)):
                piece.append(row)
                unit_.append(np.int64(unit))
    places = np.array(place)
    return _ordered(np.array(piece), np.array(unit_), np.zeros(len(places), np.int64), places, np.full(len(places), 2.0**-46), t)


@compiled
def _merge(begins: Array, pair: Array, t: Array, piece: Array, place: Array) -> Any:
    """Divide old arcs where units change inside them; each new arc has three rows, the last of which begins the next."""
    most = 3 * (len(begins) + len(piece))
    pairs, ts, old, v = np.empty(most, np.int64), np.empty(most), np.empty(most, np.int64), np.empty(most)
    first, last, taus = np.zeros(most, np.int64), np.zeros(most, np.int64), np.empty(most)
    count, new = 0, 0
    for number in range(len(begins)):
        row = begins[number]
        tau = math.tan((t[row + 2] - t[row]) / 4)
        behind, start, stop = -1.0, 0, 0
        while True:
            # The next breakpoint inside the arc, or its end.
            ahead, from_, to = 1.0, 0, 0
            while new < len(piece) and piece[new] == row:
                from_ = new
                while new < len(piece) and piece[new] == row and place[new] == place[from_]:
                    new += 1
                if -1.0 < place[from_] < 1.0:
                    ahead, to = place[from_], new
                    break
            middle = math.tan((math.atan(behind * tau) + math.atan(ahead * tau)) / 2) / tau
            middle = min(max(middle, behind), ahead)
            if behind == -1.0 and ahead == 1.0:
                middle = 0.0
            for which in range(2):
                here = middle if which else behind
                pairs[count], ts[count], old[count], v[count], taus[count] = pair[row], _angle(t, row, here, tau), row, here, tau
                if not which:
                    first[count], last[count] = start, stop
                count += 1
            if ahead == 1.0:
                break
            behind, start, stop = ahead, from_, to
        # The end of an arc begins the next, if that is of the same pair.
        if number + 1 == len(begins) or begins[number + 1] != row + 2:
            pairs[count], ts[count], old[count], v[count], taus[count] = pair[row], t[row + 2], row, 1.0, tau
            count += 1
    return pairs[:count], ts[:count], old[:count], v[:count], first[:count], last[:count], taus[:count]


@compiled
def _mixed(values: Array, old: Array, v: Array, tau: Array) -> Array:
    """Return values at places of old arcs: the quadratic through those times 1 + tau^2 v^2, divided by that."""
    out = np.empty((len(old), values.shape[1]))
    for row in range(len(old)):
        begin, at = old[row], v[row]
        below = 1 + (tau[row] * at) ** 2
        edge = (1 + tau[row] ** 2) / below
        a, b, c = edge * at * (at - 1) / 2, (1 - at * at) / below, edge * at * (at + 1) / 2
        if abs(at) == 1.0 or at == 0.0:
            same = begin + 1 + int(at)
            for unit in range(values.shape[1]):
                out[row, unit] = values[same, unit]
        else:
            for unit in range(values.shape[1]):
                out[row, unit] = a * values[begin, unit] + b * values[begin + 1, unit] + c * values[begin + 2, unit]
    return out


@compiled
def _activate(
    out: Array, first: Array, last: Array, unit: Array, boundary: Array, limits: Array, scale: float, shift: float, low: float,
    high: float, leaky: bool, leak: Array,
) -> None:  # fmt: skip
    for row in range(len(out)):
        for found in range(first[row], last[row]):
            out[row, unit[found]] = limits[boundary[found]]
        apply(out[row], scale, shift, low, high, leaky, leak)
