"""
Where a unit of a maximum has another winner, inside faces: the lines on which two candidates are the largest alike.

On a face each candidate is affine, so the region in which one wins is a convex polygon, and the face is parted among the winners.
Between two neighbours of this partition lies a part of the line on which they are equal. The rest of this line, where a third
candidate is larger, is no boundary: the face is cut along the whole line, since `cutting.py` knows no other cut, and pieces with
the same winners are joined again (`merging.py`).

Candidates that are equal up to rounding are one candidate: the first.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from ..graph import Maximum
from .cutting import TOLERANCE
from .lines import Between, Functions, Lines, Segments
from .polygons import Array, Polygons, following, mix, over, ranges, starts, two_sided
from .units import bits, set_bits

# Numbers at once where candidates are compared with one another at the corners of faces.
PART = 2**21
# Numbers at once where winners are sought at all vertices: they stay in the second cache.
BLOCK = 2**16
# Few candidates of a unit are the largest somewhere in one face: the others are soon left out.
FEW = 16


@dataclass(frozen=True)
class Contests:
    """
    Units, each in one face, in which more than one candidate may be the largest; ordered by face.

    Attributes
    ----------
    face, unit
        `[R]`.
    contest, column
        `[n]`: the candidates that no other is above everywhere, ordered by contest, then as in the unit: whose, and which
        pre-activation.
    """

    face: Array
    unit: Array
    contest: Array
    column: Array

    def candidates(self, contests: Array) -> tuple[Array, Array]:
        """Return how many candidates each of some `contests` has, and their numbers, one contest after the other."""
        first, last = (np.searchsorted(self.contest, contests, side=side) for side in ("left", "right"))
        return last - first, ranges(first, last - first)


@dataclass(frozen=True)
class Ties:
    """
    Where two candidates of a contest are equal: on lines across its face, or on sides of it.

    Attributes
    ----------
    contest
        `[n]`.
    left, right
        `[n]`: the two pre-activations. Inside the face, `right` is larger near a side.
    place
        `[n]`: which of the unit's candidates `right` is.
    ends
        `[n, 2]`: the vertices of the sides; none for lines.
    """

    contest: Array
    left: Array
    right: Array
    place: Array
    ends: Array


@dataclass(frozen=True)
class WinnerLines:
    """
    The lines of a stage whose operation is a maximum.

    Attributes
    ----------
    lines
        One for each face and pair of candidates.
    contests
        All of them.
    across
        The ties on these lines: of several units, if they have candidates in common.
    line
        The line of each of them.
    along
        The ties on sides of faces in which an earlier candidate is equal to the winner on the side.
    sign, margin
        1 for the largest and -1 for the smallest; differences that are taken to be 0, `[units]`.
    """

    lines: Lines
    contests: Contests
    across: Ties
    line: Array
    along: Ties
    sign: float
    margin: Array

    def boundaries(self, ends: Array, on_edges: Between, xy: Array) -> tuple[Array, Array, Segments, Segments]:
        """
        Return which lines have part in a boundary and which of them wholly, `[C]`, the segments inside faces, and the sides.

        `ends` `[C, 2]` are the vertices between which the lines cross their faces, `on_edges` those of them that are not corners.
        """
        ties = self.across
        start, stop = self._largest(ties, ends[self.line], on_edges)
        keep = np.flatnonzero((stop - start > TOLERANCE) & self._apart(ties, ends[self.line], on_edges))
        part, whole = np.zeros((2, len(self.lines.face)), bool)
        part[self.line[keep]] = True
        whole[self.line[keep[(start[keep] == 0) & (stop[keep] == 1)]]] = True
        segments = self._segments(ties, ends[self.line], start, stop, keep, xy)
        start, stop = self._largest(self.along, self.along.ends, on_edges)
        sides = self._segments(self.along, self.along.ends, start, stop, np.flatnonzero(stop - start > TOLERANCE), xy)
        return part, whole, segments, sides

    def _segments(self, ties: Ties, ends: Array, start: Array, stop: Array, which: Array, xy: Array) -> Segments:
        a, b = xy[ends[which, 0]], xy[ends[which, 1]]
        between = np.stack([mix(a, b, start[which, None]), mix(b, a, 1 - stop[which, None])], 1)
        unit = self.contests.unit[ties.contest[which]]
        return Segments(between, unit, np.zeros_like(unit), ties.place[which])

    def _compared(self, ties: Ties, vertex: Array, on_edges: Between) -> tuple[Array, Array, Array, Array]:
        """
        Return by how much each candidate is above `right` of each tie at one vertex each; 0 if that cannot be told.

        Comes with the number of candidates of each tie, the tie of each, and the candidate's pre-activation.
        """
        count, candidate = self.contests.candidates(ties.contest)
        tie = np.repeat(np.arange(len(count)), count)
        column, functions = self.contests.column[candidate], Functions(self.lines.functions.z)
        above = on_edges.at(functions, vertex[tie], column) - on_edges.at(functions, vertex[tie], ties.right[tie])
        above *= self.sign
        above[abs(above) <= self.margin[self.contests.unit[ties.contest[tie]]]] = 0.0
        return above, count, tie, column

    def _largest(self, ties: Ties, ends: Array, on_edges: Between) -> tuple[Array, Array]:
        """Return from where to where, as shares of the way between its `ends`, no candidate is above those of each tie."""
        a, count, _, _ = self._compared(ties, ends[:, 0], on_edges)
        b, _, _, _ = self._compared(ties, ends[:, 1], on_edges)
        with np.errstate(divide="ignore", invalid="ignore"):
            share = a / (a - b)
        start = over(np.maximum, np.where(a > 0, np.where(b < 0, share, 1.0), 0.0), count)
        stop = over(np.minimum, np.where(b > 0, np.where(a < 0, share, 0.0), 1.0), count)
        start[start <= TOLERANCE], stop[stop >= 1 - TOLERANCE] = 0.0, 1.0
        return start, stop

    def _apart(self, ties: Ties, ends: Array, on_edges: Between) -> Array:
        """Return whether the two of each tie are the largest beside their line, where a third may be equal to them on it."""
        alone = np.ones(len(ties.contest), bool)
        a, count, tie, column = self._compared(ties, ends[:, 0], on_edges)
        b, *_ = self._compared(ties, ends[:, 1], on_edges)
        third = (a == 0) & (b == 0) & (column != ties.right[tie]) & (column != ties.left[tie])
        which = np.unique(tie[third])
        if not len(which):
            return alone
        lines, own = self.lines, self.line[which]
        corner = ranges(starts(lines.lengths)[own], lines.lengths[own])
        order = np.lexsort((lines.values[corner], np.repeat(np.arange(len(own)), lines.lengths[own])))
        last = np.cumsum(lines.lengths[own])
        for place in (order[last - 1], order[last - lines.lengths[own]]):
            few = Ties(*(each[which] for each in (ties.contest, ties.left, ties.right, ties.place, ends)))
            above, count, tie, column = self._compared(few, lines.corner[corner[place]], on_edges)
            # At this corner one of the two is larger, which none is to be above.
            larger = over(np.maximum, np.where(column == few.left[tie], above, 0.0), count)
            alone[which] &= over(np.maximum, above, count) <= larger
        return alone

    def keys(self, means: Array, parent: Array, tokens: Array) -> Array:
        """
        Return a number for each of some pieces of faces, the same for those of one face with the same winners.

        `means` `[Q, W]` are the pre-activations inside each piece, and `tokens` a random number for each candidate of a contest.
        """
        first, last = (np.searchsorted(self.contests.face, parent, side=side) for side in ("left", "right"))
        count, candidate = self.contests.candidates(ranges(first, last - first))
        piece, count = np.repeat(np.arange(len(parent)), last - first)[count > 0], count[count > 0]
        run = np.repeat(np.arange(len(count)), count)
        value = self.sign * means[piece[run], self.contests.column[candidate]]
        best = np.flatnonzero(value == over(np.maximum, value, count)[run])
        winner = best[np.unique(run[best], return_index=True)[1]]
        key = np.zeros(len(parent), np.uint64)
        np.bitwise_xor.at(key, piece, tokens[candidate[winner]])
        return key


def winner_lines(z: Array, faces: Polygons, pieces: Maximum, rounding: Array) -> WinnerLines:
    """
    Return the lines inside faces on which two candidates of a unit are equal, and larger than each other candidate somewhere.

    `rounding` `[W]` is that of the pre-activations `z` `[V, W]`. Puts on the winner, in `z`, what cannot be told from it.
    """
    column = pieces.candidates
    margin = 2 * np.where(column >= 0, rounding[column], 0.0).max(1)
    face, unit = _contested(_winning(z, pieces, margin), faces, *column.shape)
    y = z if pieces.sign > 0 else -z
    size = max(1, PART // (5 * column.shape[1] * min(column.shape[1], FEW)))
    parts = [slice(start, start + size) for start in range(0, max(1, len(face)), size)]
    found = [_compared(y, faces, column, margin, face[part], unit[part], part.start) for part in parts]
    candidates, lines_, sides = zip(*found, strict=True)
    contests = Contests(face, unit, *(np.concatenate(each) for each in zip(*candidates, strict=True)))
    across, along = _joined(lines_), _joined(sides)
    low, high = np.minimum(across.left, across.right), np.maximum(across.left, across.right)
    pair, function = np.unique(low * z.shape[1] + high, return_inverse=True)
    pairs = np.stack(np.divmod(pair, z.shape[1]), 1)
    line, of = np.unique(contests.face[across.contest] * max(1, len(pairs)) + function.reshape(-1), return_inverse=True)
    line_face, function = np.divmod(line, max(1, len(pairs)))
    zero, functions = np.zeros(len(line), np.int64), Functions(z, pairs)
    while True:
        lines = Lines.across(functions, faces, line_face, function, zero, zero.astype(float), rounding[pairs[function]].sum(1))
        nearer = lines.put_on_levels()
        if nearer is None:
            break
        functions = nearer
    keep = two_sided(lines.values, lines.lengths)
    left = np.flatnonzero(keep[of.reshape(-1)])
    across = Ties(*(each[left] for each in (across.contest, across.left, across.right, across.place, across.ends)))
    line = np.cumsum(keep)[of.reshape(-1)[left]] - 1
    return WinnerLines(lines.take(keep), contests, across, line, along, pieces.sign, margin)


def _winning(z: Array, pieces: Maximum, margin: Array) -> Array:
    """Return where each candidate is the largest, as `bits` `[V, K * words]`; put on the winner what is within `margin` of it."""
    column = pieces.candidates.T
    size, winning = max(1, BLOCK // column.size), []
    for start in range(0, len(z), size):
        rows = z[start : start + size]
        values = rows[:, column]
        values *= pieces.sign
        values[:, column < 0] = -np.inf
        best = values.max(1, keepdims=True)
        wins = values >= best - margin
        vertex, place, unit = np.nonzero(wins & (values < best))
        rows[vertex, column[place, unit]] = pieces.sign * best[vertex, 0, unit]
        winning.append(bits(wins))
    return np.concatenate(winning)


def _contested(winning: Array, faces: Polygons, units: int, K: int) -> tuple[Array, Array]:
    """
    Return face and unit wherever no candidate is the largest in the whole face; ordered by face.

    Or wherever one is that is not the first of those that are the largest along one of the face's sides: behind it the first may
    be the winner.
    """
    first = starts(faces.lengths)
    everywhere = np.bitwise_and.reduceat(winning[faces.corners], first).reshape(len(first), K, -1)
    contested = bits(np.ones((1, 1, units), bool)) & ~np.bitwise_or.reduce(everywhere, axis=1)
    after = faces.corners[following(faces.lengths)]
    face = np.repeat(np.arange(len(first)), faces.lengths)
    earlier, later_wins = np.zeros((2, len(face), contested.shape[1]), np.uint64)
    settled = np.zeros_like(contested)
    for candidate in range(K):
        wins = everywhere[:, candidate] & ~settled
        settled |= wins
        later_wins |= earlier & wins[face]
        on_side = winning.reshape(len(winning), K, -1)[:, candidate]
        earlier |= on_side[faces.corners] & on_side[after]
    contested |= np.bitwise_or.reduceat(later_wins, first)
    found, _, unit = set_bits(contested, 1)
    return found, unit


def _compared(
    y: Array, faces: Polygons, candidates: Array, margin: Array, face: Array, unit: Array, start: int
) -> tuple[tuple[Array, Array], Ties, Ties]:
    """
    Compare the candidates of some contests, numbered from `start`, at the corners of their faces.

    Returns the contest and column of the candidates that no other is above everywhere, and the ties across faces and along sides.
    """
    lengths, columns = faces.lengths[face], candidates[unit]
    corner, first = faces.corners[ranges(starts(faces.lengths)[face], lengths)], starts(lengths)
    values = y[corner[:, None], np.repeat(columns, lengths, axis=0)]
    values[np.repeat(columns < 0, lengths, axis=0)] = -np.inf
    low, high = (ufunc.reduceat(values, first) if len(first) else values for ufunc in (np.minimum, np.maximum))
    contest, place = np.nonzero(high >= (low.max(1) - margin[unit])[:, None])
    # Each with each later one of its contest, at all corners.
    number = np.arange(len(contest))
    others = np.searchsorted(contest, contest, side="right") - number - 1
    left, right = np.repeat(number, others), ranges(number + 1, others)
    around = lengths[contest[left]]
    at = ranges(first[contest[left]], around)
    apart = values[at, np.repeat(place[left], around)] - values[at, np.repeat(place[right], around)]
    apart[abs(apart) <= np.repeat(margin[unit[contest[left]]], around)] = 0.0
    lowest, highest = over(np.minimum, apart, around), over(np.maximum, apart, around)
    beaten = np.zeros(len(contest), bool)
    beaten[right[lowest >= 0]] = True
    beaten[left[(highest <= 0) & (lowest < 0)]] = True

    def ties(pair: Array, ends: Array) -> Ties:
        whose, second = contest[left[pair]], place[right[pair]]
        return Ties(start + whose, columns[whose, place[left[pair]]], columns[whose, second], second, ends)

    crossing = np.flatnonzero((lowest < 0) & (highest > 0) & ~beaten[left] & ~beaten[right])
    touching = (lowest < 0) & (highest == 0) & ~beaten[right]
    equal, after = (apart == 0) & np.repeat(touching, around), following(around)
    side = np.flatnonzero(equal & equal[after])
    pair = np.repeat(np.arange(len(left)), around)[side]
    # Several earlier candidates may be equal to one winner.
    once = np.unique(right[pair] * len(corner) + at[side], return_index=True)[1]
    along = ties(pair[once], np.stack([corner[at[side[once]]], corner[at[after[side[once]]]]], 1))
    kept = start + contest[~beaten], columns[contest[~beaten], place[~beaten]]
    return kept, ties(crossing, np.empty((len(crossing), 0), np.int64)), along


def _joined(parts: Iterable[Ties]) -> Ties:
    columns = zip(*((one.contest, one.left, one.right, one.place, one.ends) for one in parts), strict=True)
    return Ties(*(np.concatenate(column) for column in columns))
