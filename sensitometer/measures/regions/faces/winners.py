"""
Where a unit of a maximum has another winner, inside faces: the lines on which two candidates are the largest alike.

On a face each candidate is affine, so the region in which one wins is a convex polygon, and the face is parted among the winners.
Between two neighbours of this partition lies a part of the line on which they are equal. The rest of this line, where a third
candidate is larger, is no boundary: the face is cut along the whole line, since `cutting.py` knows no other cut, and pieces with
the same winners are joined again (`merging.py`).

Candidates that are equal up to rounding are one candidate: the first.
"""

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from ..graph import Maximum
from .lines import (
    TOLERANCE,
    Between,
    Cuts,
    Differences,
    Lines,
    PreActivations,
    Segments,
    chord_ends,
    lines_across,
    make_segments,
    put_on_levels,
)
from .polygons import Array, Polygons, Table, following, mix, over, ranges, starts, two_sided
from .units import bits, set_bits

# Numbers at once where candidates are compared with one another at the corners of faces.
PART = 2**21
# Numbers at once where winners are sought at all vertices: they stay in the second cache.
BLOCK = 2**16
# Few candidates of a unit are the largest somewhere in one face: the others are soon left out.
FEW = 16


@dataclass(frozen=True)
class Contests(Table):
    """Units, each in one face, in which more than one candidate may be the largest; ordered by face."""

    RUNS = ("column",)

    face: Array
    unit: Array
    lengths: Array
    column: Array  # the pre-activations of the candidates that no other is above everywhere, in the order of the unit


@dataclass(frozen=True)
class Ties(Table):
    """Where two candidates of a contest are equal: on lines across its face, or on sides of it; `[n]`."""

    contest: Array
    left: Array  # the two pre-activations
    right: Array  # which inside the face is the larger near a side
    place: Array  # of `right` among the unit's candidates
    ends: Array  # vertices, [n, 2]


@dataclass(frozen=True)
class Winners:
    """The contests of a stage, and the faces `parted`, ascending, that are cut along more than boundaries."""

    contests: Contests
    sign: float
    parted: Array

    @cached_property
    def _tokens(self) -> Array:
        """A random number for each candidate."""
        return np.random.default_rng(0).integers(2**63, size=len(self.contests.column), dtype=np.uint64)

    def keys(self, means: Array, parent: Array) -> Array:
        """
        Return a number for each piece of a face, the same for those of one face with the same winners.

        `means` `[Q, W]` are the pre-activations inside each piece, and `parent` `[Q]` their faces.
        """
        first, last = (np.searchsorted(self.contests.face, parent, side=side) for side in ("left", "right"))
        contest, piece = ranges(first, last - first), np.repeat(np.arange(len(parent)), last - first)
        count = self.contests.lengths[contest]
        candidate = ranges(starts(self.contests.lengths)[contest], count)
        piece, count = piece[count > 0], count[count > 0]
        run = np.repeat(np.arange(len(count)), count)
        value = self.sign * means[piece[run], self.contests.column[candidate]]
        best = np.flatnonzero(value == over(np.maximum, value, count)[run])
        winner = best[np.unique(run[best], return_index=True)[1]]
        key = np.zeros(len(parent), np.uint64)
        np.bitwise_xor.at(key, piece, self._tokens[candidate[winner]])
        return key


@dataclass(frozen=True)
class _Rivals:
    """All candidates of the contests of ties, to be compared with the two that are equal."""

    z: Array
    on_edges: Between
    sign: float
    ties: Ties
    lengths: Array  # how many candidates each tie has
    column: Array
    tie: Array  # of each candidate
    margin: Array  # of each candidate: smaller differences are taken to be 0

    def above(self, vertex: Array) -> Array:
        """Return by how much each candidate is above `right` of its tie at one vertex per tie; 0 if that cannot be told."""
        z, vertex = PreActivations(self.z), vertex[self.tie]
        above = self.on_edges.at(z, vertex, self.column) - self.on_edges.at(z, vertex, self.ties.right[self.tie])
        above *= self.sign
        above[abs(above) <= self.margin] = 0.0
        return above

    def reach(self) -> tuple[Array, Array, Array]:
        """
        Return from where to where, as shares of the way between its ends, no candidate is above those of each tie.

        Comes with the ties, ascending, to which a third candidate is equal at both ends.
        """
        a, b = (self.above(vertex) for vertex in self.ties.ends.T)
        with np.errstate(divide="ignore", invalid="ignore"):
            share = a / (a - b)
        start = over(np.maximum, np.where(a > 0, np.where(b < 0, share, 1.0), 0.0), self.lengths)
        stop = over(np.minimum, np.where(b > 0, np.where(a < 0, share, 0.0), 1.0), self.lengths)
        start[start <= TOLERANCE], stop[stop >= 1 - TOLERANCE] = 0.0, 1.0
        others = (self.column != self.ties.right[self.tie]) & (self.column != self.ties.left[self.tie])
        return start, stop, np.unique(self.tie[(a == 0) & (b == 0) & others])

    def largest(self, corner: Array) -> Array:
        """Return whether none is above the larger of the two of each tie, at one corner per tie."""
        above = self.above(corner)
        larger = over(np.maximum, np.where(self.column == self.ties.left[self.tie], above, 0.0), self.lengths)
        return over(np.maximum, above, self.lengths) <= larger


def winner_cuts(layer: int, z: Array, xy: Array, faces: Polygons, pieces: Maximum, rounding: Array) -> tuple[Cuts, Winners]:
    """
    Return the lines inside faces on which two candidates of a unit are equal, and larger than each other candidate somewhere.

    The sides are those on which an earlier candidate is equal to the winner. `rounding` `[W]` is that of the pre-activations `z`
    `[V, W]`. Candidates that cannot be told from the winner are put on it, in `z`.
    """
    column = pieces.candidates
    margin = 2 * np.where(column >= 0, rounding[column], 0.0).max(1)
    contests, across, along = _contests(z, faces, pieces, margin)
    functions, lines, line = _tied_lines(z, faces, contests.face[across.contest], across, rounding)
    crossing = two_sided(lines.values, lines.lengths)
    across, line = across.take(crossing[line]), (np.cumsum(crossing) - 1)[line[crossing[line]]]
    lines = lines.take(crossing)
    ends, on_edges = chord_ends(functions, lines)
    xy = on_edges.added_to(xy)

    def rivals(ties: Ties) -> _Rivals:
        candidates = contests.take(ties.contest)
        tie = np.repeat(np.arange(len(ties.contest)), candidates.lengths)
        return _Rivals(z, on_edges, pieces.sign, ties, candidates.lengths, candidates.column, tie, margin[candidates.unit[tie]])

    across = replace(across, ends=ends[line])
    start, stop, third = rivals(across).reach()
    boundary = stop - start > TOLERANCE
    # Where a third is equal to the two all along a line, neither may be the largest beside it.
    for corner in _farthest(lines.take(line[third])):
        boundary[third] &= rivals(across.take(third)).largest(corner)
    part, whole = np.zeros((2, len(lines.face)), bool)
    part[line[boundary]] = True
    whole[line[boundary & (start == 0) & (stop == 1)]] = True
    inside = _segments(layer, contests, across.take(boundary), start[boundary], stop[boundary], xy)
    start, stop, _ = rivals(along).reach()
    boundary = stop - start > TOLERANCE
    sides = _segments(layer, contests, along.take(boundary), start[boundary], stop[boundary], xy)
    winners = Winners(contests, pieces.sign, np.unique(lines.face[part & ~whole]))
    return Cuts(functions, lines.take(part), ends[part], on_edges, xy, inside, sides), winners


def _segments(layer: int, contests: Contests, ties: Ties, start: Array, stop: Array, xy: Array) -> Segments:
    """Return ties, from `start` to `stop` of their length, as segments."""
    a, b = xy[ties.ends[:, 0]], xy[ties.ends[:, 1]]
    ends = np.stack([mix(a, b, start[:, None]), mix(b, a, 1 - stop[:, None])], 1)
    return make_segments(ends, layer, contests.unit[ties.contest], code=ties.place)


def _farthest(lines: Lines) -> tuple[Array, Array]:
    """Return the two corners of each line's face that are farthest from it, one on each side."""
    order = np.lexsort((lines.values, np.repeat(np.arange(len(lines.face)), lines.lengths)))
    first = starts(lines.lengths)
    return lines.corners[order[first + lines.lengths - 1]], lines.corners[order[first]]


def _contests(z: Array, faces: Polygons, pieces: Maximum, margin: Array) -> tuple[Contests, Ties, Ties]:
    """Return all contests, and the ties across faces and along sides."""
    candidates = pieces.candidates
    face, unit = _contested(_winning(z, pieces, margin), faces, *candidates.shape)
    y = z if pieces.sign > 0 else -z
    size = max(1, PART // (5 * candidates.shape[1] * min(candidates.shape[1], FEW)))
    parts = [slice(start, start + size) for start in range(0, max(1, len(face)), size)]
    compared = [_compared(y, faces, candidates, margin, face[part], unit[part], part.start) for part in parts]
    contests, across, along = zip(*compared, strict=True)
    return Contests.joined(contests), Ties.joined(across), Ties.joined(along)


def _tied_lines(z: Array, faces: Polygons, face: Array, ties: Ties, rounding: Array) -> tuple[Differences, Lines, Array]:
    """Return one line for each face and pair of candidates, and the line of each tie; ties of several units may share a line."""
    low, high = np.minimum(ties.left, ties.right), np.maximum(ties.left, ties.right)
    pair, function = np.unique(low * z.shape[1] + high, return_inverse=True)
    functions = Differences(z, *np.divmod(pair, z.shape[1]))
    count = max(1, len(functions.left))
    key, line = np.unique(face * count + function, return_inverse=True)
    face, function = np.divmod(key, count)
    none, pair_rounding = np.zeros(len(key), np.int64), rounding[functions.left] + rounding[functions.right]
    while True:
        lines = lines_across(functions, faces, face, function, none, none.astype(float), pair_rounding[function])
        if not put_on_levels(functions, lines):
            return functions, lines, line


def _winning(z: Array, pieces: Maximum, margin: Array) -> Array:
    """Return where each candidate is the largest, as `bits` `[V, K * words]`; put all within `margin` of the winner on it."""
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
    face, _, unit = set_bits(contested, 1)
    return face, unit


def _compared(
    y: Array, faces: Polygons, candidates: Array, margin: Array, face: Array, unit: Array, start: int
) -> tuple[Contests, Ties, Ties]:
    """Compare the candidates of contests, numbered from `start`, at the corners of their faces; return as `_contests` does."""
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
    first_pair = np.unique(right[pair] * len(corner) + at[side], return_index=True)[1]
    pair, side = pair[first_pair], side[first_pair]
    along = ties(pair, np.stack([corner[at[side]], corner[at[after[side]]]], 1))
    kept = np.bincount(contest[~beaten], minlength=len(face)), columns[contest[~beaten], place[~beaten]]
    return Contests(face, unit, *kept), ties(crossing, np.empty((len(crossing), 2), np.int64)), along
