"""Cuts many convex polygons along the lines that cross them: see `arrangement.py`."""

from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import numpy as np

from .lines import Lines
from .polygons import Array, Polygons, Table, following, mix, numbered, over, ranges, starts, two_sided


@dataclass(frozen=True)
class SidedPolygons(Polygons):
    """Polygons, with the line that the side from each corner to the next is part of; -1 for none."""

    RUNS: ClassVar[tuple[str, ...]] = ("corners", "line")

    line: Array


@dataclass(frozen=True)
class Crossings(Table):
    """New vertices: where the line `along` is crossed by the line `across`; `[n]`."""

    along: Array
    across: Array


@dataclass(frozen=True)
class Meetings(Table):
    """A vertex, and a line that goes through it without being one of those that it is named by; `[n]`."""

    vertex: Array
    line: Array


class Cut(NamedTuple):
    """Faces after they were cut."""

    faces: SidedPolygons
    crossings: Crossings
    meetings: Meetings


class _Crossed(NamedTuple):
    """Pieces that are still to be cut, and pairs of a piece, ascending, and a line across it."""

    pieces: SidedPolygons
    piece: Array
    line: Array
    values: Array  # those of each pair's line at the corners of its piece


@dataclass(frozen=True)
class _Halves(SidedPolygons):
    """Parts of polygons on one side of a line; a corner is `share` of the way from an old one, number `source`, to the next."""

    RUNS = (*SidedPolygons.RUNS, "source", "share", "doubt")

    source: Array
    share: Array
    doubt: Array  # how much of the share is not known


def cut(faces: Polygons, lines: Lines, ends: Array, vertices: int) -> Cut:
    """Cut faces along the lines across them, with ends as in `chord_ends`; crossings are numbered from `vertices`."""
    whole = SidedPolygons(faces.lengths, faces.corners, np.full(len(faces.corners), -1))
    crossed, uncrossed = _told_apart(whole, lines.face, np.arange(len(lines.face)), lines.values)
    done, cutter = [uncrossed], _Cutter(lines, ends, vertices)
    while len(crossed.piece):
        crossed, uncrossed = cutter.halve(crossed)
        done.append(uncrossed)
    pieces = SidedPolygons.joined(done)
    crossings, meetings = Crossings.joined(cutter.crossings), Meetings.joined(cutter.meetings)
    # The pieces on both sides of a line were cut by themselves, and have named each crossing on it.
    _, first, name = np.unique(crossings.along * len(lines.face) + crossings.across, return_index=True, return_inverse=True)
    for numbers in (pieces.corners, meetings.vertex):
        new = numbers >= vertices
        numbers[new] = vertices + name[numbers[new] - vertices]
    return Cut(pieces, crossings.take(first), meetings)


def _told_apart(pieces: SidedPolygons, piece: Array, line: Array, values: Array) -> tuple[_Crossed, SidedPolygons]:
    """Return the pieces that lines cross, and the others; the arguments are as in `_Crossed`."""
    crossed, number = numbered(piece)
    uncrossed = np.ones(len(pieces.lengths), bool)
    uncrossed[crossed] = False
    return _Crossed(pieces.take(crossed), number, line, values), pieces.take(uncrossed)


class _Cutter:
    """Cuts pieces in rounds, and keeps the vertices that this makes."""

    def __init__(self, lines: Lines, ends: Array, vertices: int) -> None:
        self._lines, self._ends, self._vertices = lines, ends, vertices
        none = np.empty(0, np.int64)
        self.crossings, self.meetings = [Crossings(none, none)], [Meetings(none, none)]

    def halve(self, crossed: _Crossed) -> tuple[_Crossed, SidedPolygons]:
        """Cut each piece along its first line; return the pieces that lines still cross, and the others."""
        pieces, piece, line, values = crossed
        first = np.flatnonzero(np.diff(piece, prepend=-1))
        offset, next_ = starts(pieces.lengths[piece]), following(pieces.lengths)
        here = values[ranges(offset[first], pieces.lengths)]
        halves = self._halves(pieces, line[first], here, next_)
        # Each other line of a piece may cross both of its halves. Its values are numbered by pair, corners by piece.
        rest = np.delete(np.arange(len(piece)), first)
        half, line = np.concatenate([piece[rest], piece[rest] + len(pieces.lengths)]), np.tile(line[rest], 2)
        around = halves.take(half)
        shift = np.repeat(np.tile(offset[rest] - starts(pieces.lengths)[piece[rest]], 2), around.lengths)
        start, end = values[shift + around.source], values[shift + next_[around.source]]
        given = mix(start, end, around.share)
        self._meet(around, line, given, abs(end - start))
        crossing = two_sided(given, around.lengths)
        parts = SidedPolygons(halves.lengths, halves.corners, halves.line)
        return _told_apart(parts, half[crossing], line[crossing], given[np.repeat(crossing, around.lengths)])

    def _halves(self, pieces: SidedPolygons, line: Array, values: Array, next_: Array) -> _Halves:
        """Return the parts of pieces on both sides of one line each, with these `values` at the corners."""
        along = np.repeat(line, pieces.lengths)
        sides = np.flatnonzero(np.sign(values) * np.sign(values[next_]) < 0)
        span = values[sides] - values[next_[sides]]
        share, doubt = np.zeros((2, len(values)))
        share[sides] = values[sides] / span
        # Along a side nearly parallel to the line, the doubt about the line's values is much of the share.
        doubt[sides] = self._lines.near[along[sides]] / abs(span)
        vertex = np.zeros(len(values), np.int64)
        vertex[sides] = self._name(along[sides], pieces.line[sides], values[sides] < 0)
        halves = []
        for sign in (1, -1):
            count = (sign * values >= 0).astype(np.int64)
            count[sides] += 1
            source = np.repeat(np.arange(len(values)), count)
            new = np.zeros(len(source), bool)
            new[np.cumsum(count)[sides] - 1] = True
            corners = np.where(new, vertex[source], pieces.corners[source])
            here, after = sign * values[source], sign * values[next_[source]]
            # Behind the last corner on this side, the part goes along the line.
            line = np.where(np.where(new, here > 0, (here == 0) & (after < 0)), along[source], pieces.line[source])
            shares, doubts = (np.where(new, column[source], 0.0) for column in (share, doubt))
            halves.append(_Halves(over(np.add, count, pieces.lengths), corners, line, source, shares, doubts))
        return _Halves.joined(halves)

    def _meet(self, around: _Halves, line: Array, values: Array, span: Array) -> None:
        """Put lines exactly through the corners of halves that cannot be told from them."""
        # Values at two corners are no further apart than two extents.
        most = self._lines.near + 2 * around.doubt.max(initial=0.0) * self._lines.extent
        met = np.flatnonzero(abs(values) <= np.repeat(most[line], around.lengths))
        whose = line[np.searchsorted(np.cumsum(around.lengths), met, side="right")]
        near = abs(values[met]) <= self._lines.near[whose] + around.doubt[met] * span[met]
        values[met[near]] = 0.0
        self.meetings.append(Meetings(around.corners[met[near]], whose[near]))

    def _name(self, along: Array, other: Array, rises: Array) -> Array:
        """Return the vertices on sides that are cut: the end of the line `along` on an edge, or its crossing with the `other`."""
        vertex = self._ends[along, rises.astype(np.int64)]
        inside = np.flatnonzero(other >= 0)
        vertex[inside] = self._vertices + sum(len(crossings.along) for crossings in self.crossings) + np.arange(len(inside))
        low, high = np.minimum(along, other)[inside], np.maximum(along, other)[inside]
        self.crossings.append(Crossings(low, high))
        return vertex
